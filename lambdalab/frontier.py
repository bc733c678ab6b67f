"""Cost against latency over the cells of a run: which settings no other beats, and which to take under a limit. Pure.

A setting is on the Pareto front when no other is at least as fast and as cheap at the median and better in one of the
two. What the intervals cannot tell apart is not hidden: every point carries both.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

import msgspec

from lambdalab.model import Arm, Estimate, InvocationRow, Protocol
from lambdalab.stats import median_estimate

MILLION: Final = 1_000_000


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One arm under one load: Duration in ms and USD per million executions, each with its interval."""

    arm: Arm
    label: str
    n: int
    duration_ms: Estimate
    usd_per_million: Estimate
    on_front: bool


class Frontier(msgspec.Struct, frozen=True, kw_only=True):
    """All arms under one load. ``recommended`` is an arm's name, or None, and ``because`` says why in a sentence."""

    label: str
    points: tuple[Point, ...]
    recommended: str | None
    because: str


def frontiers(
    protocol: Protocol,
    rows: Iterable[InvocationRow],
    *,
    max_p95_ms: float | None = None,
    max_usd_per_million: float | None = None,
) -> tuple[Frontier, ...]:
    """The front of every load, and what to take there.

    Args:
        protocol: what was asked.
        rows: the samples; those that are not valid, or whose cost is not known, are left out.
        max_p95_ms: the 95th percentile of Duration must be at most this, with its whole interval.
        max_usd_per_million: the median cost of a million executions must be at most this, with its whole interval.

    Returns:
        One for each load of which there is a sample. With a limit on the 95th percentile the cheapest arm that keeps
        all limits is recommended, with one on cost alone the fastest, without any none.
    """
    arms = {arm.name: arm for arm in protocol.arms}
    order = [load.label for load in protocol.loads]
    usable = [row for row in rows if row.valid and row.duration_ms is not None and row.cost_total_usd is not None]
    usable.sort(key=lambda row: (order.index(row.label), list(arms).index(row.arm)))
    points = [_point(arms[name], label, list(of_cell)) for (label, name), of_cell in groupby(usable, key=_cell)]
    found = []
    for label, of_load in groupby(points, key=lambda point: point.label):
        marked = _mark_front(list(of_load))
        recommended, because = _recommend(marked, max_p95_ms, max_usd_per_million)
        found.append(Frontier(label=label, points=tuple(marked), recommended=recommended, because=because))
    return tuple(found)


def _cell(row: InvocationRow) -> tuple[str, str]:
    return row.label, row.arm


def _point(arm: Arm, label: str, rows: Sequence[InvocationRow]) -> Point:
    return Point(
        arm=arm,
        label=label,
        n=len(rows),
        duration_ms=median_estimate([row.duration_ms for row in rows if row.duration_ms is not None]),
        usd_per_million=median_estimate(
            [float(row.cost_total_usd * MILLION) for row in rows if row.cost_total_usd is not None], in_ms=False
        ),
        on_front=False,
    )


def _mark_front(points: Sequence[Point]) -> list[Point]:
    def beaten(point: Point) -> bool:
        here = (point.duration_ms.median, point.usd_per_million.median)
        others = ((other.duration_ms.median, other.usd_per_million.median) for other in points)
        return any(there[0] <= here[0] and there[1] <= here[1] and there != here for there in others)

    return [msgspec.structs.replace(point, on_front=not beaten(point)) for point in points]


def _recommend(
    points: Sequence[Point], max_p95_ms: float | None, max_usd_per_million: float | None
) -> tuple[str | None, str]:
    if max_p95_ms is None and max_usd_per_million is None:
        return None, "no limit was given, so any point of the front may be the right one"
    missing = max(point.duration_ms.p95_more for point in points) if max_p95_ms is not None else 0
    if missing:
        return None, f"a 95th percentile with an interval needs {missing} more samples in a cell"
    limits = []
    if max_p95_ms is not None:
        limits.append(f"p95 of Duration at most {max_p95_ms:g} ms")
    if max_usd_per_million is not None:
        limits.append(f"at most {max_usd_per_million:g} USD per million executions")
    asked = " and ".join(limits)
    kept = [point for point in points if _keeps(point, max_p95_ms, max_usd_per_million)]
    if not kept:
        return None, f"no setting keeps {asked} with its whole interval"
    by_cost, by_time = (lambda p: p.usd_per_million.median), (lambda p: p.duration_ms.median)
    if max_p95_ms is not None:
        return min(kept, key=by_cost).arm.name, f"the cheapest of {len(kept)} that keep {asked}"
    return min(kept, key=by_time).arm.name, f"the fastest of {len(kept)} that keep {asked}"


def _keeps(point: Point, max_p95_ms: float | None, max_usd_per_million: float | None) -> bool:
    p95_high, usd_high = point.duration_ms.p95_high, point.usd_per_million.high
    in_time = max_p95_ms is None or (p95_high is not None and p95_high <= max_p95_ms)
    return in_time and (max_usd_per_million is None or (usd_high is not None and usd_high <= max_usd_per_million))
