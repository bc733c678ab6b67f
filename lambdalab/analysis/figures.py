"""What a report draws of many samples instead of rows: distributions and stretches of blocks, thinned. Pure."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import median
from typing import Final

import msgspec

from lambdalab.design.arms import Protocol
from lambdalab.records.trials import InvocationRow

POINTS_AT_MOST: Final = 2_000
"""Samples of one load that a figure shows one by one; more would hide each other and make the file slow to open."""
STEPS: Final = 100
STRETCHES: Final = 50


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of many samples, thinned to even steps in rank; every value was measured.

    ``shares[i]`` of the ``n`` samples are in order of size up to ``values_ms[i]``. ``metric`` is what a row calls the
    time.
    """

    arm: str
    label: str
    metric: str
    n: int
    shares: tuple[float, ...]
    values_ms: tuple[float, ...]


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """Duration of one cell over neighbouring blocks: the median and the extremes."""

    arm: str
    label: str
    first_block: int
    last_block: int
    n: int
    minimum_ms: float
    median_ms: float
    maximum_ms: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of the loads with more than ``POINTS_AT_MOST`` rows only."""

    curves: tuple[Curve, ...] = ()
    stretches: tuple[Stretch, ...] = ()


def figures(protocol: Protocol, rows: Sequence[InvocationRow]) -> Figures:
    """What is drawn where rows are too many.

    Args:
        protocol: whose arms and loads there are.
        rows: the samples of the last attempts, in the order of execution.
    """
    curves: list[Curve] = []
    stretches: list[Stretch] = []
    for load in protocol.loads:
        of_load = [row for row in rows if row.label == load.label]
        if len(of_load) <= POINTS_AT_MOST:
            continue
        for arm in protocol.arms:
            valid = [row for row in of_load if row.arm == arm.name and row.valid]
            for metric in ("duration_ms", "init_ms", "init_and_first_ms"):
                values = [value for row in valid if (value := getattr(row, metric)) is not None]
                curves += curve_of(arm.name, load.label, metric, values)
            timed = [(row.block, row.duration_ms) for row in valid if row.duration_ms is not None]
            stretches += _stretches(arm.name, load.label, timed, protocol.blocks)
    return Figures(curves=tuple(curves), stretches=tuple(stretches))


def curve_of(arm: str, label: str, metric: str, values: Sequence[float]) -> Iterable[Curve]:
    """The distribution of some values, or nothing of none."""
    if values:
        ordered = sorted(values)
        ranks = [round(step * (len(ordered) - 1) / STEPS) for step in range(STEPS + 1)]
        yield Curve(
            arm=arm,
            label=label,
            metric=metric,
            n=len(ordered),
            shares=tuple((rank + 1) / len(ordered) for rank in ranks),
            values_ms=tuple(ordered[rank] for rank in ranks),
        )


def _stretches(arm: str, label: str, timed: Iterable[tuple[int, float]], blocks: int) -> Iterable[Stretch]:
    width = -(-blocks // STRETCHES)
    for number, group in groupby(sorted(timed), key=lambda pair: (pair[0] - 1) // width):
        values = [ms for _, ms in group]
        yield Stretch(
            arm=arm,
            label=label,
            first_block=number * width + 1,
            last_block=min((number + 1) * width, blocks),
            n=len(values),
            minimum_ms=min(values),
            median_ms=median(values),
            maximum_ms=max(values),
        )
