"""What a report draws that is no row: mean shares of cost, and distributions of many samples, thinned. Pure."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import groupby
from statistics import median
from typing import Final

import msgspec

from lambdalab.model import InvocationRow, Protocol

POINTS_AT_MOST: Final = 2_000
"""Samples of one load that a figure shows one by one; more would hide each other and make the file slow to open."""
STEPS: Final = 100
STRETCHES: Final = 50
_MILLION: Final = 1_000_000


class CostShare(msgspec.Struct, frozen=True, kw_only=True):
    """Mean cost of a cell's valid samples, by component: means, because only they add up to the total.

    ``n`` samples have all four components; where none has, there is no share. Per million items is the cost of all
    these samples over all items they wrote; None when they wrote none.
    """

    arm: str
    label: str
    n: int
    per_execution_usd: dict[str, Decimal]
    total_per_execution_usd: Decimal
    per_million_items_usd: dict[str, Decimal] | None
    total_per_million_items_usd: Decimal | None


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
    """``curves`` and ``stretches`` are of the loads with more than ``POINTS_AT_MOST`` rows only."""

    costs: tuple[CostShare, ...] = ()
    curves: tuple[Curve, ...] = ()
    stretches: tuple[Stretch, ...] = ()


def figures(protocol: Protocol, rows: Sequence[InvocationRow]) -> Figures:
    """Everything drawn that is not a row.

    Args:
        protocol: whose arms and loads there are.
        rows: the samples of the last attempts, in the order of execution.
    """
    costs: list[CostShare] = []
    curves: list[Curve] = []
    stretches: list[Stretch] = []
    for load in protocol.loads:
        of_load = [row for row in rows if row.label == load.label]
        for arm in protocol.arms:
            valid = [row for row in of_load if row.arm == arm.name and row.valid]
            costs += _cost_share(arm.name, load.label, valid)
            if len(of_load) > POINTS_AT_MOST:
                for metric in ("duration_ms", "init_ms", "init_and_first_ms"):
                    values = [value for row in valid if (value := getattr(row, metric)) is not None]
                    curves += _curve(arm.name, load.label, metric, values)
                timed = [(row.block, row.duration_ms) for row in valid if row.duration_ms is not None]
                stretches += _stretches(arm.name, load.label, timed, protocol.blocks)
    return Figures(costs=tuple(costs), curves=tuple(curves), stretches=tuple(stretches))


def _cost_share(arm: str, label: str, rows: Sequence[InvocationRow]) -> Iterable[CostShare]:
    known = [row for row in rows if row.cost_total_usd is not None]
    if not known:
        return
    parts = {
        "Lambda": [row.cost_lambda_usd for row in known],
        "DynamoDB": [row.cost_dynamodb_usd for row in known],
        "SQS": [row.cost_sqs_usd for row in known],
        "logs": [row.cost_logs_usd for row in known],
    }
    sums = {part: sum((usd for usd in values if usd is not None), Decimal()) for part, values in parts.items()}
    total = sum(sums.values(), Decimal())
    items = sum(row.written or 0 for row in known)
    yield CostShare(
        arm=arm,
        label=label,
        n=len(known),
        per_execution_usd={part: usd / len(known) for part, usd in sums.items()},
        total_per_execution_usd=total / len(known),
        per_million_items_usd={part: usd / items * _MILLION for part, usd in sums.items()} if items else None,
        total_per_million_items_usd=total / items * _MILLION if items else None,
    )


def _curve(arm: str, label: str, metric: str, values: Sequence[float]) -> Iterable[Curve]:
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
