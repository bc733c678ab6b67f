"""A bill as tables: shows what ``lambdalab.analysis.bill`` computed."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lambdalab.analysis.message_analysis import Bill
from lambdalab.report.layout import new_table
from lambdalab.report.words import ABSENT, PARTS, PER_EXECUTION, amounts, cents, units, usd


def render_bill(bill: Bill) -> Group:
    """Per execution by component, per item and per million items; the month; the study's figures; every assumption."""
    parts: list[RenderableType] = [Text("Cost in USD: means of the valid samples", style="bold")]
    table = _table("execution", "of it init", "item", "million items", "units", "by size rule")
    for cell in bill.cells:
        table.add_row(
            cell.label,
            cell.arm,
            *map(usd, (cell.execution_usd, cell.init_usd, cell.item_usd)),
            cents(cell.million_items_usd),
            units(cell.mean_wru),
            f"{cell.expected_wru:,}",
        )
    parts += [table, Text(), Text("USD per execution, by component", style="bold")]
    table = _table(*PER_EXECUTION)
    for cell in bill.cells:
        table.add_row(cell.label, cell.arm, *amounts(cell.execution, PER_EXECUTION.values(), usd))
    parts.append(table)
    if bill.terms.per_month is not None:
        parts += [Text(), Text(f"USD a month at {bill.terms.per_month} messages/s", style="bold")]
        table = _table(*PARTS, "sum")
        for cell in bill.cells:
            table.add_row(cell.label, cell.arm, *amounts(cell.month, PARTS.values(), cents), cents(cell.month_usd))
        parts.append(table)
    if bill.terms.seed_formula:
        parts += [Text(), Text("The original study's formula beside the true cost, USD", style="bold")]
        table = _table(
            "study's units", "true units", "study's total", "true total", "study's per item", "true per item"
        )
        for cell in bill.cells:
            seed = cell.seed
            table.add_row(
                cell.label,
                cell.arm,
                ABSENT if seed is None else f"{seed.wru:,}",
                units(cell.mean_wru),
                usd(None if seed is None else seed.total_usd),
                usd(cell.execution_usd),
                usd(None if seed is None else seed.per_item_usd),
                usd(cell.item_usd),
            )
        parts += [table, *(Text(f"difference: {said}") for said in bill.seed_differences)]
    parts.append(Text())
    if bill.polling_requests is not None:
        parts.append(
            Text(f"polling in the run, by the model: {bill.polling_requests:,} requests, {usd(bill.polling_usd)} USD")
        )
    parts += [Text(f"caution: {said}", style="yellow") for said in bill.cautions]
    parts += [Text(f"assumed: {said}", style="dim") for said in bill.assumptions]
    return Group(*parts)


def _table(*numbers: str) -> Table:
    return new_table("load", "arm", numbers=numbers)
