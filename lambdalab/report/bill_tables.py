"""The page's tables of what a run costs."""

from collections.abc import Iterator

from lambdalab.analysis.message_analysis import Bill
from lambdalab.report.tables import Table
from lambdalab.report.words import ABSENT, PARTS, PER_EXECUTION, amounts, cents, ms, units, usd


def bill_tables(bill: Bill) -> Iterator[Table]:
    """By component for an execution and a million items, what that is made from, and what else was asked for."""
    yield Table(
        name="cost",
        caption=f"Mean cost in USD by component, prices of {bill.price_sheet}",
        columns=("load", "arm", "per", *PER_EXECUTION, "total"),
        numeric=(False, False, False, *(True for _ in PER_EXECUTION), True),
        rows=[
            [cell.label, cell.arm, unit, *amounts(parts, PER_EXECUTION.values(), usd), usd(total)]
            for cell in bill.cells
            for unit, parts, total in (
                ("execution", cell.execution if cell.n else None, cell.execution_usd),
                ("million items", cell.million_items, cell.million_items_usd),
            )
        ],
        heads=3,
    )
    yield Table(
        name="basis",
        caption="What the bill is made from, means of the valid samples, and the cost of an item",
        columns=(
            "load",
            "arm",
            "samples",
            "billed ms",
            "write units",
            "units by size rule",
            "Init USD",
            "USD/item",
        ),
        numeric=(False, False, True, True, True, True, True, True),
        rows=[
            [
                cell.label,
                cell.arm,
                f"{cell.n:,}",
                ms(cell.mean_billed_ms),
                units(cell.mean_wru),
                f"{cell.expected_wru:,}",
                usd(cell.init_usd),
                usd(cell.item_usd),
            ]
            for cell in bill.cells
        ],
    )
    if bill.terms.per_month is not None:
        yield Table(
            name="month",
            caption=f"USD a month at {bill.terms.per_month} messages/s",
            columns=("load", "arm", *PARTS, "total"),
            numeric=(False, False, *(True for _ in PARTS), True),
            rows=[
                [cell.label, cell.arm, *amounts(cell.month, PARTS.values(), cents), cents(cell.month_usd)]
                for cell in bill.cells
            ],
        )
    if bill.terms.seed_formula:
        yield Table(
            name="seed",
            caption="The original study's formula beside the true cost",
            columns=("load", "arm", "study's units", "true units", "study's USD/execution", "true USD/execution"),
            numeric=(False, False, True, True, True, True),
            rows=[
                [
                    cell.label,
                    cell.arm,
                    ABSENT if cell.seed is None else f"{cell.seed.wru:,}",
                    units(cell.mean_wru),
                    usd(None if cell.seed is None else cell.seed.total_usd),
                    usd(cell.execution_usd),
                ]
                for cell in bill.cells
            ],
        )
