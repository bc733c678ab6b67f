"""A bill as tables: shows what ``lambdalab.bill`` computed."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lambdalab.analysis import Bill, Parts

_PARTS = ("Lambda compute", "requests", "DynamoDB", "SQS", "polling", "logs", "metrics", "X-Ray")


def render_bill(bill: "Bill") -> Group:
    """Per execution by component, per item and per million items; the month; the study's figures; every assumption."""
    parts: list[RenderableType] = [Text("Cost in USD: means of the valid samples", style="bold")]
    table = _table("execution", "of it init", "item", "million items", "units", "by size rule")
    for cell in bill.cells:
        table.add_row(
            cell.label,
            cell.arm,
            *map(_usd, (cell.execution_usd, cell.init_usd, cell.item_usd)),
            _cents(cell.million_items_usd),
            "-" if cell.mean_wru is None else f"{cell.mean_wru:.6g}",
            str(cell.expected_wru),
        )
    parts += [table, Text(), Text("USD per execution, by component", style="bold")]
    parts.append(_components((cell.label, cell.arm, cell.execution, _usd) for cell in bill.cells))
    if bill.terms.per_month is not None:
        parts += [Text(), Text(f"USD a month at {bill.terms.per_month} messages/s", style="bold")]
        table = _table(*_PARTS, "sum")
        for cell in bill.cells:
            amounts = [None] * len(_PARTS) if cell.month is None else msgspec.structs.astuple(cell.month)
            table.add_row(cell.label, cell.arm, *map(_cents, (*amounts, cell.month_usd)))
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
                "-" if seed is None else str(seed.wru),
                "-" if cell.mean_wru is None else f"{cell.mean_wru:.6g}",
                _usd(None if seed is None else seed.total_usd),
                _usd(cell.execution_usd),
                _usd(None if seed is None else seed.per_item_usd),
                _usd(cell.item_usd),
            )
        parts += [table, *(Text(f"difference: {said}") for said in bill.seed_differences)]
    parts.append(Text())
    if bill.polling_requests is not None:
        parts.append(
            Text(f"polling in the run, by the model: {bill.polling_requests:,} requests, {_usd(bill.polling_usd)} USD")
        )
    parts += [Text(f"caution: {said}", style="yellow") for said in bill.cautions]
    parts += [Text(f"assumed: {said}", style="dim") for said in bill.assumptions]
    return Group(*parts)


def _components(rows: "Iterable[tuple[str, str, Parts, Callable[[Decimal | None], str]]]") -> Table:
    table = _table(*_PARTS[:4], "logs")
    for label, arm, parts, text in rows:
        shown = (
            parts.lambda_compute_usd,
            parts.lambda_requests_usd,
            parts.dynamodb_usd,
            parts.sqs_usd,
            parts.logs_usd,
        )
        table.add_row(label, arm, *map(text, shown))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for heading in ("load", "arm"):
        table.add_column(heading, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _usd(amount: Decimal | None) -> str:
    """Four significant digits, never in scientific notation."""
    if amount is None:
        return "-"
    return f"{amount:.{max(2, 3 - amount.adjusted())}f}" if amount else "0"


def _cents(amount: Decimal | None) -> str:
    return "-" if amount is None else f"{amount:,.2f}"
