"""Cost against latency in the terminal: load by load every setting, which no other beats, and which to take."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from lambdalab.analysis.frontier import Frontier, Point
from lambdalab.report.layout import new_table

_COLUMNS = ("MB", "batch", "samples", "Duration ms", "interval", "p95 ms", "interval", "USD per million", "interval")


def render_frontiers(frontiers: Sequence[Frontier]) -> Group:
    """A table and a sentence for each load."""
    return Group(*(part for frontier in frontiers for part in _of_load(frontier)))


def _of_load(frontier: Frontier) -> Iterator[RenderableType]:
    table = new_table("arm", numbers=_COLUMNS)
    table.add_column("", no_wrap=True)
    for point in frontier.points:
        taken = point.arm.name == frontier.recommended
        table.add_row(*_cells(point), _mark(point, taken=taken), style="bold" if taken else "")
    yield Text()
    yield Text(f"Cost against latency, {frontier.label}: medians, 95th percentile, 95 % intervals", style="bold")
    yield table
    take = "no recommendation" if frontier.recommended is None else f"take {frontier.recommended}"
    yield Text(f"{frontier.label}: {take}: {frontier.because}", style="bold")
    yield Text()


def _cells(point: Point) -> Iterator[str]:
    time, cost = point.duration_ms, point.usd_per_million
    yield point.arm.name
    yield str(point.memory_mb)
    yield str(point.batch_size)
    yield str(point.n)
    yield f"{time.median:,.1f}"
    yield _interval(time.low, time.high, 1)
    yield "-" if time.p95 is None else f"{time.p95:,.1f}"
    yield _interval(time.p95_low, time.p95_high, 1)
    yield f"{cost.median:,.3f}"
    yield _interval(cost.low, cost.high, 3)


def _interval(low: float | None, high: float | None, digits: int) -> str:
    return "none" if low is None or high is None else f"{low:,.{digits}f} - {high:,.{digits}f}"


def _mark(point: Point, *, taken: bool) -> str:
    return " ".join(word for word, holds in (("front", point.on_front), ("take", taken)) if holds)
