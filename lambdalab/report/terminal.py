"""The first answer, in the terminal."""

from decimal import Decimal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lambdalab.analysis import Cell, Ratio, Summary
from lambdalab.model import Estimate

_ABSENT = "-"


def show(summary: Summary, console: Console) -> None:
    """Prints the tables, the ratios and every caution that applies."""
    console.print(render(summary))


def render(summary: Summary) -> RenderableType:
    """The same as something rich can print."""
    return Group(
        _heading(summary),
        _times(summary),
        _costs(summary),
        _ratios(summary),
        *_notes(summary),
    )


def _heading(summary: Summary) -> Text:
    memory = ", ".join(f"{mb} MB" for mb in summary.memory_mb)
    return Text.assemble(
        ("\n" + summary.run_id, "bold"),
        f"  {summary.scenario}, protocol {summary.protocol}, {summary.blocks} blocks, target {summary.target}, "
        f"{memory}, {', '.join(summary.architecture)}, cpu_limit: {summary.cpu_limit}\n",
    )


def _times(summary: Summary) -> Table:
    table = _table(f"Time in ms: median [{summary.level:.0%} interval], minimum to maximum")
    for name in ("n", "Duration", "min - max", "Init", "Billed", "end to end"):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in summary.cells:
        table.add_row(
            cell.label,
            cell.arm,
            f"{cell.n_valid}/{cell.n_total}",
            _interval(cell.duration_ms),
            _range(cell.duration_ms),
            _median(cell.init_ms),
            _median(cell.billed_ms),
            _median(cell.end_to_end_ms),
            end_section=_last_of_label(cell, summary),
        )
    return table


def _costs(summary: Summary) -> Table:
    table = _table(f"Memory, write units and cost (prices: {summary.price_sheet}); medians, peak memory the highest")
    for name in ("peak MB", "write units", "USD per execution", "USD per item"):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in summary.cells:
        table.add_row(
            cell.label,
            cell.arm,
            _ABSENT if cell.max_memory_mb is None else str(cell.max_memory_mb),
            _ABSENT if cell.wru is None else f"{cell.wru:g}",
            _usd(cell.cost_per_execution_usd),
            _usd(cell.cost_per_item_usd),
            end_section=_last_of_label(cell, summary),
        )
    return table


def _ratios(summary: Summary) -> Table:
    pairs = sorted({f"{ratio.arm} / {ratio.over}" for ratio in summary.ratios})
    table = Table(title=f"Ratio of medians, {', '.join(pairs)}", title_justify="left", title_style="bold")
    table.add_column("load")
    for name in ("Duration", "Billed", "Init", "cost"):
        table.add_column(name, justify="right")
    for ratio in summary.ratios:
        table.add_row(ratio.label, *_quotients(ratio))
    return table


def _notes(summary: Summary) -> list[Text]:
    notes = [
        Text(
            f"\nREPORT lines {summary.reports_found}/{summary.reports_expected}, "
            f"items {summary.items_found:,}/{summary.items_expected:,}, "
            f"valid samples {summary.rows_valid}/{summary.rows_total}"
        )
    ]
    notes += [Text(f"caution: {caution}", style="yellow") for caution in summary.cautions]
    notes += [Text(f"  {count} x {reason}", style="yellow") for reason, count in summary.invalid_reasons.items()]
    notes += [Text(f"invalid run: {fault}", style="bold red") for fault in summary.faults]
    return notes


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("load", no_wrap=True)
    table.add_column("language")
    return table


def _last_of_label(cell: Cell, summary: Summary) -> bool:
    return [c for c in summary.cells if c.label == cell.label][-1] is cell


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return _ABSENT
    if estimate.low is None or estimate.high is None:
        return f"{estimate.median:,.1f} [no interval]"
    return f"{estimate.median:,.1f} [{estimate.low:,.1f}, {estimate.high:,.1f}]"


def _range(estimate: Estimate | None) -> str:
    return _ABSENT if estimate is None else f"{estimate.minimum:,.1f} - {estimate.maximum:,.1f}"


def _median(estimate: Estimate | None) -> str:
    return _ABSENT if estimate is None else f"{estimate.median:,.1f}"


def _usd(amount: Decimal | None) -> str:
    """Four significant digits, never in scientific notation."""
    if amount is None:
        return _ABSENT
    return f"{amount:.{max(2, 3 - amount.adjusted())}f}" if amount else "0"


def _quotients(ratio: Ratio) -> list[str]:
    values = (ratio.duration, ratio.billed, ratio.init, ratio.cost)
    return [_ABSENT if value is None else f"{value:.2f}" for value in values]
