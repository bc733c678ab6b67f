"""The first answer, in the terminal: the result in a sentence per load, then the tables, then every caution.

Tables of the shipped protocols fit 90 columns; what is wider than the terminal is printed whole all the same.
"""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lambdalab.analysis import Cell, Ratio, Summary
from lambdalab.model import Estimate
from lambdalab.report.layout import print_whole

_ABSENT = "-"
CellColumn = tuple[str, Callable[[Cell], str], Callable[[Ratio], str]]
"""A column's heading, its text for a cell, and for the ratio of two cells."""


def show(summary: Summary, console: Console) -> None:
    """Prints the tables, the ratios and every caution that applies."""
    print_whole(console, render(summary))


def render(summary: Summary) -> Group:
    """The same as something rich can print."""
    return Group(
        *_heading(summary),
        *_table(f"Duration in ms: median, its {summary.level:.0%} interval, extremes", _DURATION, summary),
        *_table("Other times in ms: medians", _TIMES, summary),
        *_table(f"Peak memory; medians of write units and cost, prices of {summary.price_sheet}", _COSTS, summary),
        *_notes(summary),
    )


def _heading(summary: Summary) -> Iterator[Text]:
    yield Text(f"{summary.run_id}", style="bold")
    memory = ", ".join(f"{mb} MB" for mb in summary.memory_mb)
    yield Text(
        f"{summary.scenario}, protocol {summary.protocol}, {summary.blocks} blocks, target {summary.target}, "
        f"{memory}, {', '.join(summary.architecture)}, cpu_limit: {summary.cpu_limit}"
    )
    cold = "" if summary.cold_mode is None else f"; cold starts by {summary.cold_mode}"
    yield Text(f"ended by: {summary.stopped or 'an interruption'}{cold}")
    for fault in summary.faults:
        yield Text(f"invalid run: {fault}", style="bold red")
    yield Text()
    for ratio in summary.ratios:
        yield Text(_sentence(ratio), style="bold")
    yield Text()


def _sentence(ratio: Ratio) -> str:
    """What was seen, by the medians of this run; whether it is more than noise is not said here."""
    said = []
    if ratio.duration is not None:
        said.append(f"takes {_quotient(ratio.duration)} times as long as {ratio.over} (Duration)")
    if ratio.init is not None:
        said.append(f"{_quotient(ratio.init)} times as long to initialise")
    if ratio.cost is not None:
        said.append(f"costs {_quotient(ratio.cost)} times as much")
    return f"{ratio.label}: {ratio.arm} {', '.join(said) or f'and {ratio.over} cannot be compared'}"


def _table(title: str, columns: Sequence[CellColumn], summary: Summary) -> Iterator[RenderableType]:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("load", no_wrap=True)
    table.add_column("language", no_wrap=True)
    for heading, _, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for label in dict.fromkeys(cell.label for cell in summary.cells):
        named = label
        for cell in summary.cells:
            if cell.label == label:
                table.add_row(named, cell.arm, *(text(cell) for _, text, _ in columns))
                named = ""
        for ratio in summary.ratios:
            if ratio.label == label:
                compared = f"{ratio.arm}/{ratio.over}"
                table.add_row("", compared, *(text(ratio) for _, _, text in columns), style="cyan")
    yield Text(title, style="bold")
    if summary.latency_model is not None:
        yield Text(f"caution: with service times of latency model {summary.latency_model}", style="yellow")
    yield table
    yield Text()


def _notes(summary: Summary) -> Iterator[Text]:
    repeated = f", {summary.rows_repeated} more of interrupted arms" if summary.rows_repeated else ""
    yield Text(
        f"REPORT lines {summary.reports_found}/{summary.reports_expected}, "
        f"items {summary.items_found:,}/{summary.items_expected:,}, "
        f"valid samples {summary.rows_valid}/{summary.rows_total}{repeated}"
    )
    for caution in summary.cautions:
        yield Text(f"caution: {caution}", style="yellow")
    for reason, count in summary.invalid_reasons.items():
        yield Text(f"  {count} x {reason}", style="yellow")


def _nothing(_: Ratio) -> str:
    return ""


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return _ABSENT
    if estimate.low is None or estimate.high is None:
        return "none"
    return f"{_ms(estimate.low)} - {_ms(estimate.high)}"


def _median(estimate: Estimate | None) -> str:
    return _ms(None if estimate is None else estimate.median)


def _ms(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:,.1f}"


def _quotient(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.2f}"


def _usd(amount: Decimal | None) -> str:
    """Four significant digits, never in scientific notation."""
    if amount is None:
        return _ABSENT
    return f"{amount:.{max(2, 3 - amount.adjusted())}f}" if amount else "0"


_DURATION: Sequence[CellColumn] = (
    ("valid", lambda cell: f"{cell.n_valid}/{cell.n_total}", _nothing),
    ("median", lambda cell: _median(cell.duration_ms), lambda ratio: _quotient(ratio.duration)),
    ("interval", lambda cell: _interval(cell.duration_ms), _nothing),
    ("min", lambda cell: _ms(None if cell.duration_ms is None else cell.duration_ms.minimum), _nothing),
    ("max", lambda cell: _ms(None if cell.duration_ms is None else cell.duration_ms.maximum), _nothing),
)
_TIMES: Sequence[CellColumn] = (
    ("Init", lambda cell: _median(cell.init_ms), lambda ratio: _quotient(ratio.init)),
    ("Billed", lambda cell: _median(cell.billed_ms), lambda ratio: _quotient(ratio.billed)),
    ("queue wait", lambda cell: _median(cell.queue_wait_ms), _nothing),
    ("end to end", lambda cell: _median(cell.end_to_end_ms), _nothing),
)
_COSTS: Sequence[CellColumn] = (
    ("peak MB", lambda cell: _ABSENT if cell.max_memory_mb is None else str(cell.max_memory_mb), _nothing),
    ("units", lambda cell: _ABSENT if cell.wru is None else f"{cell.wru:,g}", _nothing),
    ("USD/execution", lambda cell: _usd(cell.cost_per_execution_usd), lambda ratio: _quotient(ratio.cost)),
    ("USD/item", lambda cell: _usd(cell.cost_per_item_usd), _nothing),
)
