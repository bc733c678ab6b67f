"""A factorial run in the terminal: what each factor changes, the cells, what they cost, then every caution."""

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.text import Text

from lambdalab.analysis.call_summary import FactorialSummary
from lambdalab.report.call_tables import FactorialTables, estimated, refusals
from lambdalab.report.layout import new_table, print_whole
from lambdalab.report.tables import Table
from lambdalab.report.words import altered, usd


def show(summary: FactorialSummary, console: Console) -> None:
    """Prints the effects, the tables and every caution that applies."""
    print_whole(console, render(summary))


def render(summary: FactorialSummary) -> Group:
    """The same as something rich can print."""
    tables = FactorialTables(summary)
    parts = [*_heading(summary), *_drawn(tables.totals, summary)]
    for design in (group.design for group in summary.designs):
        if estimated(summary, design):
            parts += _drawn(tables.mains(design), summary)
            parts += _interactions(tables.interactions(design, only_claimed=True), summary)
        parts += [*_drawn(tables.cells(design), summary), *_drawn(tables.costs(design), summary)]
    parts += [*_drawn(tables.functions, summary), *_drawn(tables.cold, summary)]
    if tables.month is not None:
        parts += _drawn(tables.month, summary)
    parts += _notes(summary)
    return Group(*parts)


def _heading(summary: FactorialSummary) -> Iterator[Text]:
    yield Text(summary.run_id, style="bold")
    yield Text(
        f"{summary.scenario}, protocol {summary.protocol}, {summary.blocks} blocks, seed {summary.seed}, target "
        f"{summary.target}, cpu_limit: {summary.cpu_limit}"
    )
    yield Text(
        f"calls {summary.calls_made:,}/{summary.calls_planned:,}, valid {summary.rows_valid:,}, warm-up calls "
        f"{summary.warmups:,}, made again {summary.rows_repeated:,}"
    )
    for fault in summary.faults:
        yield Text(f"invalid run: {fault}", style="bold red")
    yield Text()


def _drawn(table: Table, summary: FactorialSummary) -> Iterator[RenderableType]:
    yield Text(table.caption, style="bold")
    yield from (Text(f"caution: {said}", style="yellow") for said in altered(summary))
    yield _as_rich(table)
    yield Text()


def _as_rich(table: Table) -> RenderableType:
    found = new_table(numbers=())
    for heading, numeric in zip(table.columns, table.numeric, strict=True):
        found.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
    before: list[str] = []
    for row in table.rows:
        same = 0  # headings of a row are said once
        while before and same < table.heads - 1 and before[same] == row[same]:
            same += 1
        found.add_row(*(["" for _ in range(same)]), *row[same:])
        before = list(row)
    return found


def _interactions(table: Table, summary: FactorialSummary) -> Iterator[RenderableType]:
    """Only those that are claimed; the page has all."""
    if table.rows:
        yield from _drawn(
            Table(
                name=table.name,
                caption=f"{table.caption}; those that are claimed",
                columns=table.columns[:-1],
                numeric=table.numeric[:-1],
                rows=[row[:-1] for row in table.rows],
                heads=table.heads,
            ),
            summary,
        )
    else:
        yield Text(f"{table.caption}: none is claimed")
        yield Text()


def _notes(summary: FactorialSummary) -> Iterator[Text]:
    unknown = f", {summary.cost_unknown:,} calls of unknown cost left out" if summary.cost_unknown else ""
    yield Text(f"what was called would cost {usd(summary.spent_usd)} USD{unknown}; prices of {summary.price_sheet}")
    for part, amount in summary.monthly_usd.items():
        yield Text(f"beside it {part}: {usd(amount)} USD a month, however many calls")
    for said in refusals(summary):
        yield Text(said)
    for caution in summary.cautions:
        yield Text(f"caution: {caution}", style="yellow")
    for reason, count in summary.invalid_reasons.items():
        yield Text(f"  {count:,} x {reason}", style="yellow")
    for note in (*summary.notes, *(() if summary.month is None else summary.month.assumptions)):
        yield Text(f"assumed: {note}", style="dim")
