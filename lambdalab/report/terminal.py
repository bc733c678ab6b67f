"""The first answer, in the terminal: the verdict in a sentence, what it is made of, the tables, then every caution.

Tables of the shipped protocols fit 100 columns; what is wider than the terminal is printed whole all the same.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from lambdalab.analysis.message_analysis import Cell, Summary
from lambdalab.analysis.resolution import Record
from lambdalab.report.answer import Line, answer_lines, gate_line
from lambdalab.report.layout import new_table, print_whole
from lambdalab.report.load import render_load
from lambdalab.report.words import ABSENT, MISSING_AA, altered, interval, judgement, median, ms, resolution, usd
from lambdalab.statistics.comparison import Comparison, Verdict

CellColumn = tuple[str, Callable[[Cell], str]]
"""A column's heading, and its text for a cell."""


def show(summary: Summary, console: Console) -> None:
    """Prints the verdict, the tables and every caution that applies."""
    print_whole(console, render(summary))


def render(summary: Summary) -> Group:
    """The same as something rich can print."""
    said_first = list(gate_line(summary))
    return Group(
        *_heading(summary),
        *render_answer([*said_first, *answer_lines(summary)]),
        *(() if summary.load is None else render_load(summary.load)),
        *render_comparisons(
            summary.comparisons, None if said_first else summary.verdict, aa_commands=summary.answer.aa_commands
        ),
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


def render_answer(lines: Iterable[Line]) -> Iterator[Text]:
    """The first lines, each with what it is about."""
    said = [Text.assemble((f"{about}: ", "bold"), text) for about, text in lines]
    yield from said
    if said:
        yield Text()


def render_comparisons(
    comparisons: Sequence[Comparison], verdict: str | None = None, *, aa_commands: Sequence[str] = ()
) -> Iterator[RenderableType]:
    """Every ratio with what it was judged by, a verdict that was not said before, and the A/A runs that are missing."""
    if not comparisons:
        return
    table = new_table("load", "compared", "what", numbers=("ratio [95% interval]", "p (Holm)", "n", "A/A"))
    table.add_column("verdict", no_wrap=True)
    before = ("", "")
    for of in comparisons:
        key = (of.label, f"{of.arm}/{of.over}")
        table.add_row(*(key if key != before else ("", "")), *judgement(of))
        before = key
    yield Text("Ratios of medians; p adjusted for all of them; n: blocks; A/A: resolved difference", style="bold")
    yield table
    if verdict is not None:
        yield Text(f"Verdict: {verdict}")
    yield from _judged_by(comparisons, aa_commands)
    yield Text()


def render_resolved(record: Record) -> Iterator[RenderableType]:
    """The smallest difference that A/A runs resolved."""
    table = new_table("load", "what", numbers=("smallest difference",))
    for one in record.resolved:
        table.add_row(one.label, one.metric.replace("_", " "), resolution(one.difference))
    yield Text(
        f"Smallest difference that {record.design.blocks} blocks of {record.design.language} with "
        f"{record.design.memory_mb} MB resolve on this machine",
        style="bold",
    )
    yield table
    yield Text()


def _judged_by(comparisons: Sequence[Comparison], aa_commands: Sequence[str]) -> Iterator[Text]:
    margin = comparisons[0].margin
    yield Text(f"changes under {margin:.1%} are ignored")
    if aa_commands:
        yield Text(MISSING_AA)
        yield from (Text(f"    {command}") for command in aa_commands)
    undecided = [of for of in comparisons if of.verdict is Verdict.INCONCLUSIVE and of.ratio is not None]
    for lacks_blocks, said in ((True, "decide"), (False, "show that there is no difference")):
        group = [of for of in undecided if of.lacks_blocks is lacks_blocks]
        if group:
            most = max(group, key=lambda of: of.needed_blocks)
            yield Text(
                f"inconclusive: about {most.needed_blocks:,} blocks would {said}, by {most.metric} of {most.label}, "
                f"where there are {most.n_blocks}"
            )


def _table(title: str, columns: Sequence[CellColumn], summary: Summary) -> Iterator[RenderableType]:
    table = new_table("load", "arm", numbers=(heading for heading, _ in columns))
    for label in dict.fromkeys(cell.label for cell in summary.cells):
        named = label
        for cell in summary.cells:
            if cell.label == label:
                table.add_row(named, cell.arm, *(text(cell) for _, text in columns))
                named = ""
    yield Text(title, style="bold")
    yield from (Text(f"caution: {said}", style="yellow") for said in altered(summary))
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
    yield from _unsteady(summary.cells)


def _unsteady(cells: Sequence[Cell]) -> Iterator[Text]:
    """What to know of durations before their medians are believed, one line for all cells; the page has the rest."""
    found = [(f"{cell.arm} {cell.label}", cell.duration_ms) for cell in cells if cell.duration_ms is not None]
    outliers = [f"{name} {of.outliers} of {of.n}" for name, of in found if of.outliers]
    if outliers:
        yield Text(f"outliers (kept): {', '.join(outliers)}")
    wide = [f"{name} {of.needed_n:,}" for name, of in found if of.needed_n is not None and of.needed_n > of.n]
    if wide:
        yield Text(f"samples for a median within 5 %: {', '.join(wide)}")


_DURATION: Sequence[CellColumn] = (
    ("valid", lambda cell: f"{cell.n_valid}/{cell.n_total}"),
    ("median", lambda cell: median(cell.duration_ms)),
    ("interval", lambda cell: interval(cell.duration_ms)),
    ("min", lambda cell: ms(None if cell.duration_ms is None else cell.duration_ms.minimum)),
    ("max", lambda cell: ms(None if cell.duration_ms is None else cell.duration_ms.maximum)),
)
_TIMES: Sequence[CellColumn] = (
    ("Init", lambda cell: median(cell.init_ms)),
    ("Billed", lambda cell: median(cell.billed_ms)),
    ("queue wait", lambda cell: median(cell.queue_wait_ms)),
    ("end to end", lambda cell: median(cell.end_to_end_ms)),
)
_COSTS: Sequence[CellColumn] = (
    ("peak MB", lambda cell: ABSENT if cell.max_memory_mb is None else str(cell.max_memory_mb)),
    ("units", lambda cell: ABSENT if cell.wru is None else f"{cell.wru:,g}"),
    ("USD/execution", lambda cell: usd(cell.cost_per_execution_usd)),
    ("USD/item", lambda cell: usd(cell.cost_per_item_usd)),
)
