"""What the cells of a run of calls cost in a month at a given rate. Pure, in Decimal.

A bill is a sum, so a cell is priced by the mean of its valid calls, cold ones among them.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from lambdalab.analysis.bill import MILLION, MONTH_S, Terms, mean
from lambdalab.analysis.call_rows import LAMBDA, counted
from lambdalab.design.cells import CALLERS, Cell, Design
from lambdalab.pricing.costs import PriceSheet, rounded, tiered
from lambdalab.records.calls import CallRow
from lambdalab.records.manifest import CallManifest
from lambdalab.scenario.base import CallScenario

COMPUTE: Final = "compute"
INVOCATIONS: Final = "invocations"
"""Lambda's own price of a request; a component of a scenario may be called requests."""


class CellMonth(msgspec.Struct, frozen=True, kw_only=True):
    """A month of one cell in USD, by component; None is not known, and then there is no sum."""

    design: str
    cell: str
    usd: dict[str, Decimal | None]
    total_usd: Decimal | None


class CallBill(msgspec.Struct, frozen=True, kw_only=True):
    """A month of each cell, as if it were the only one; ``terms.per_month`` is in calls a second."""

    terms: Terms
    cells: tuple[CellMonth, ...]
    assumptions: tuple[str, ...]


def bill_of_calls(
    manifest: CallManifest, rows: Iterable[CallRow], scenario: CallScenario, sheet: PriceSheet, terms: Terms
) -> CallBill | None:
    """Price a month of each cell; None where no rate was given.

    Args:
        manifest: what was asked.
        rows: every call.
        scenario: what is billed by the month beside the calls.
        sheet: the prices.
        terms: the rate, and whether the free tier applies.
    """
    if terms.per_month is None:
        return None
    valid: dict[str, list[CallRow]] = {}
    for row in counted(rows):
        if row.valid:
            valid.setdefault(row.cell, []).append(row)
    cells = tuple(
        _month(manifest, cell, valid[cell.name], scenario, sheet, terms)
        for cell in manifest.protocol.cells
        if cell.name in valid
    )
    return CallBill(terms=terms, cells=cells, assumptions=tuple(_assumptions(terms)))


def _month(
    manifest: CallManifest,
    cell: Cell,
    rows: Sequence[CallRow],
    scenario: CallScenario,
    sheet: PriceSheet,
    terms: Terms,
) -> CellMonth:
    calls = (terms.per_month or Decimal(0)) * MONTH_S
    price, architecture = sheet.lambda_, manifest.functions[cell.called].architecture
    gb_s = mean(
        None if row.billed_ms is None else Decimal(str(row.billed_ms)) / 1000 * row.memory_mb / 1024 for row in rows
    )
    free_gb_s, free_requests = (price.free_gb_s, price.free_requests) if terms.free_tier else (Decimal(), Decimal())
    parts: dict[str, Decimal | None] = {
        COMPUTE: None
        if gb_s is None
        else tiered(calls * gb_s, price.usd_per_gb_s[architecture], price.tiers.get(architecture, ()), free=free_gb_s),
        INVOCATIONS: tiered(calls, price.usd_per_million_requests / MILLION, (), free=free_requests),
    }
    for part in dict.fromkeys(part for row in rows for part in row.costs_usd if part != LAMBDA):
        of_call = mean(row.costs_usd.get(part) for row in rows)
        parts[part] = None if of_call is None else calls * of_call
    parts |= scenario.monthly_usd(sheet, (_alone(manifest.protocol.design(cell), cell),))
    known = [amount for amount in parts.values() if amount is not None]
    return CellMonth(
        design=cell.design,
        cell=cell.name,
        usd={part: rounded(amount) for part, amount in parts.items()},
        total_usd=rounded(sum(known, Decimal(0))) if len(known) == len(parts) else None,
    )


def _alone(design: Design, cell: Cell) -> Design:
    """A design of one cell."""
    if cell.function is not None:
        functions = {cell.function: design.functions[cell.function]}
        return msgspec.structs.replace(design, functions=functions, factors=design.factors | {CALLERS: (cell.callers,)})
    return msgspec.structs.replace(design, factors={name: (level,) for name, level in cell.levels.items()}, fraction=1)


def _assumptions(terms: Terms) -> Iterable[str]:
    yield f"{terms.per_month} calls/s all through a month of 730 hours, each cell as if it were the only one"
    yield "means of the valid calls, cold ones among them; tiers apply to Lambda, not to what is priced by the call"
    yield "the free tier of Lambda is unused and applied" if terms.free_tier else "no free tier"
