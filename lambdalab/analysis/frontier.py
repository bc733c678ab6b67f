"""Cost against latency over the cells of a run: which settings no other beats, and which to take under a limit. Pure.

A setting is on the Pareto front when no other is at least as fast and as cheap at the median and better in one of the
two. What the intervals cannot tell apart is not hidden: every point carries both. Cost is that of a message, since an
invocation of a larger batch does the work of more of them.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from lambdalab.design.arms import Arm, Protocol
from lambdalab.records.trials import Estimate, InvocationRow
from lambdalab.statistics.estimates import LEVEL, median_estimate, smallest_n

MILLION: Final = 1_000_000


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a recommended setting must keep, with its whole interval; None: no such limit.

    ``max_p95_ms`` is of the 95th percentile of Duration, ``max_usd_per_million`` of the median cost of a million
    messages.
    """

    max_p95_ms: float | None = None
    max_usd_per_million: float | None = None


NO_LIMITS: Final = Limits()


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One arm under one load: Duration in ms and USD per million messages, each with its interval."""

    arm: Arm
    label: str
    n: int
    memory_mb: int
    architecture: str
    batch_size: int
    duration_ms: Estimate
    usd_per_million: Estimate
    on_front: bool


class Frontier(msgspec.Struct, frozen=True, kw_only=True):
    """All arms under one load. ``recommended`` is an arm's name, or None, and ``because`` says why in a sentence."""

    label: str
    points: tuple[Point, ...]
    recommended: str | None
    because: str


class SweptCell(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``cells.csv``: an arm under a load, also one without a sample that counts, of which ``n`` is 0."""

    label: str
    arm: str
    language: str
    mode: str
    memory_mb: int | None = None
    architecture: str | None = None
    batch_size: int | None = None
    n: int = 0
    duration_ms: float | None = None
    duration_ms_low: float | None = None
    duration_ms_high: float | None = None
    p95_ms: float | None = None
    p95_ms_low: float | None = None
    p95_ms_high: float | None = None
    usd_per_million: float | None = None
    usd_per_million_low: float | None = None
    usd_per_million_high: float | None = None
    on_front: bool | None = None
    recommended: bool | None = None


def swept_cells(protocol: Protocol, found: Iterable[Frontier]) -> list[SweptCell]:
    """Every arm under every load of a protocol as a line, load by load."""
    measured = {(point.label, point.arm.name): (frontier, point) for frontier in found for point in frontier.points}
    lines = []
    for load in protocol.loads:
        for arm in protocol.arms:
            line = SweptCell(label=load.label, arm=arm.name, language=arm.language, mode=arm.mode.value)
            if (load.label, arm.name) in measured:
                line = _measured(line, *measured[load.label, arm.name])
            lines.append(line)
    return lines


def _measured(line: SweptCell, frontier: Frontier, point: Point) -> SweptCell:
    time, cost = point.duration_ms, point.usd_per_million
    return msgspec.structs.replace(
        line,
        memory_mb=point.memory_mb,
        architecture=point.architecture,
        batch_size=point.batch_size,
        n=point.n,
        duration_ms=time.median,
        duration_ms_low=time.low,
        duration_ms_high=time.high,
        p95_ms=time.p95,
        p95_ms_low=time.p95_low,
        p95_ms_high=time.p95_high,
        usd_per_million=cost.median,
        usd_per_million_low=cost.low,
        usd_per_million_high=cost.high,
        on_front=point.on_front,
        recommended=point.arm.name == frontier.recommended,
    )


def frontiers(protocol: Protocol, rows: Iterable[InvocationRow], limits: Limits = NO_LIMITS) -> tuple[Frontier, ...]:
    """The front of every load, and what to take there.

    Args:
        protocol: what was asked.
        rows: the samples; those that are not valid, or whose cost is not known, are left out.
        limits: what a recommended setting must keep.

    Returns:
        One for each load of which there is a sample. With a limit on the 95th percentile the cheapest arm that keeps
        all limits is recommended, with one on cost alone the fastest, without any none.
    """
    of_cells: dict[tuple[str, str], list[InvocationRow]] = {}
    for row in rows:
        if row.valid and row.duration_ms is not None and row.cost_total_usd is not None:
            of_cells.setdefault((row.label, row.arm), []).append(row)
    found = []
    for load in protocol.loads:
        sampled = [arm for arm in protocol.arms if (load.label, arm.name) in of_cells]
        if sampled:
            points = _mark_front([_point(arm, load.label, of_cells[load.label, arm.name]) for arm in sampled])
            recommended, because = _recommend(points, limits)
            found.append(Frontier(label=load.label, points=tuple(points), recommended=recommended, because=because))
    return tuple(found)


def _point(arm: Arm, label: str, rows: Sequence[InvocationRow]) -> Point:
    return Point(
        arm=arm,
        label=label,
        n=len(rows),
        memory_mb=rows[0].memory_mb,
        architecture=rows[0].architecture,
        batch_size=rows[0].batch_size,
        duration_ms=median_estimate([row.duration_ms for row in rows if row.duration_ms is not None]),
        usd_per_million=median_estimate(
            [float(row.cost_total_usd * MILLION / arm.messages) for row in rows if row.cost_total_usd is not None],
            in_ms=False,
        ),
        on_front=False,
    )


def _mark_front(points: Sequence[Point]) -> list[Point]:
    def beaten(point: Point) -> bool:
        here = (point.duration_ms.median, point.usd_per_million.median)
        others = ((other.duration_ms.median, other.usd_per_million.median) for other in points)
        return any(there[0] <= here[0] and there[1] <= here[1] and there != here for there in others)

    return [msgspec.structs.replace(point, on_front=not beaten(point)) for point in points]


def samples_missing(points: Sequence[Point], limits: Limits) -> int:
    """The number of samples that a cell lacks for the intervals that the limits are compared with."""
    if limits.max_p95_ms is not None:
        return max(point.duration_ms.p95_more for point in points)
    return max(0, *(smallest_n(LEVEL) - point.n for point in points))


def _recommend(points: Sequence[Point], limits: Limits) -> tuple[str | None, str]:
    max_p95_ms, max_usd = limits.max_p95_ms, limits.max_usd_per_million
    if max_p95_ms is None and max_usd is None:
        return None, "no limit was given, so any point of the front may be the right one"
    missing = samples_missing(points, limits)
    if missing:
        estimate = "median" if max_p95_ms is None else "95th percentile"
        return None, f"a {estimate} with an interval needs {missing} more samples in a cell"
    asked = [] if max_p95_ms is None else [f"p95 of Duration at most {max_p95_ms:g} ms"]
    asked += [] if max_usd is None else [f"at most {max_usd:g} USD per million messages"]
    kept = [point for point in points if _keeps(point, limits)]
    if not kept:
        return None, f"no setting keeps {' and '.join(asked)} with its whole interval"
    how, least = ("fastest", _ms) if max_p95_ms is None else ("cheapest", _usd)
    return min(kept, key=least).arm.name, f"the {how} of {len(kept)} that keep {' and '.join(asked)}"


def _ms(point: Point) -> float:
    return point.duration_ms.median


def _usd(point: Point) -> float:
    return point.usd_per_million.median


def _keeps(point: Point, limits: Limits) -> bool:
    return all(
        limit is None or (high is not None and high <= limit)
        for high, limit in (
            (point.duration_ms.p95_high, limits.max_p95_ms),
            (point.usd_per_million.high, limits.max_usd_per_million),
        )
    )
