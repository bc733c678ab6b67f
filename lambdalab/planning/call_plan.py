"""What a factorial run will ask for before anything is spent: calls, bytes, minutes, money. Pure.

Times come from the newest run here of the same designs and code under the same conditions; where there is none, from
what the scenario assumes, and the plan says which.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec

from lambdalab.analysis.call_rows import counted, read_calls
from lambdalab.design.cells import Cell, Design, FactorialProtocol
from lambdalab.errors import LambdalabError, PriceSheetError
from lambdalab.planning.call_protocol import PlannedCell
from lambdalab.planning.spending import MOST_MINUTES, MOST_USD
from lambdalab.pricing.costs import PriceSheet, invocation_cost
from lambdalab.records.call_files import FactorialDirectory
from lambdalab.records.calls import CallRow
from lambdalab.records.conditions import Conditions, run_alike
from lambdalab.records.manifest import FunctionFacts
from lambdalab.scenario.base import CallScenario

ASSUMED_INIT_MS: Final = 600.0
ASSUMED_CELL_S: Final = {"local": 0.5, "aws": 8.0}
"""Around the calls of a cell: configuring its function, waiting for that, looking at what was written."""
LOG_BYTES: Final = 4096
"""Of one call: above what the functions and Lambda write."""


class Experience(msgspec.Struct, frozen=True, kw_only=True):
    """How long calls of an earlier run took, by cell: the median of what callers waited, and of what was billed."""

    run_id: str
    elapsed_ms: dict[str, float]
    billed_ms: dict[str, float]


class PlannedDesign(msgspec.Struct, frozen=True, kw_only=True):
    """One design in all blocks that are left; ``cells`` are the ``fraction`` of all that is measured."""

    label: str
    cells: int
    fraction: int = 1
    calls: int
    warmup_calls: int
    stored_bytes: int
    minutes: float
    usd: Decimal
    usd_by_component: dict[str, Decimal]


class FactorialPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A run before it happens.

    ``usd_at_most`` is when every call runs into its function's timeout; ``lab_usd`` what looking at the written costs;
    ``monthly_usd`` what is billed by the month beside that, once however many runs there are in it.
    """

    scenario: str
    protocol: str
    target: str
    region: str
    price_sheet: str
    blocks: int
    calls: int
    warmup_calls: int
    stored_bytes: int
    minutes: float
    usd: Decimal
    usd_at_most: Decimal
    lab_usd: Decimal
    monthly_usd: dict[str, Decimal]
    designs: tuple[PlannedDesign, ...]
    assumptions: tuple[str, ...]
    limits: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


def make_plan(
    protocol: FactorialProtocol,
    scenario: CallScenario,
    functions: Mapping[str, FunctionFacts],
    prices: PriceSheet,
    left: Sequence[PlannedCell],
    *,
    target: str,
    experience: Experience | None = None,
) -> FactorialPlan:
    """Plans a run, or what is left of one.

    Args:
        protocol: what is asked.
        scenario: of it.
        functions: as configured, by ``Cell.called``.
        prices: of the region.
        left: the cells to execute.
        target: ``local`` or ``aws``.
        experience: of an earlier run; None to assume.

    Raises:
        PriceSheetError: a price is missing.
    """
    designs = tuple(
        _planned_design(
            design, scenario, functions, prices, [cell for cell in left if cell.design == design], target, experience
        )
        for design in protocol.designs
    )
    lab = scenario.lab_usd(prices, calls=sum(len(cell.calls) for cell in left), cells=len(left))
    monthly = scenario.monthly_usd(prices, protocol.designs)
    missing = [name for name, usd in {"the lab's own requests": lab, **monthly}.items() if usd is None]
    if lab is None or missing:
        raise _unpriced(prices, missing)
    usd = sum((design.usd for design in designs), lab)
    return FactorialPlan(
        scenario=protocol.scenario,
        protocol=protocol.name,
        target=target,
        region=prices.region,
        price_sheet=prices.name,
        blocks=len({cell.block for cell in left}),
        calls=sum(design.calls for design in designs),
        warmup_calls=sum(design.warmup_calls for design in designs),
        stored_bytes=sum(design.stored_bytes for design in designs),
        minutes=sum(design.minutes for design in designs),
        usd=usd,
        usd_at_most=usd + sum((_timeouts_usd(cell, scenario, functions, prices) for cell in left), Decimal()),
        lab_usd=lab,
        monthly_usd={name: price for name, price in monthly.items() if price is not None},
        designs=designs,
        assumptions=tuple(_assumptions(protocol, scenario, target, experience)),
    )


def find_experience(
    results: Path,
    protocol: FactorialProtocol,
    scenario: CallScenario,
    functions: Mapping[str, FunctionFacts],
    conditions: Conditions,
) -> Experience | None:
    """The newest run in a folder that a plan can learn from; damaged and unlike runs are passed over.

    It has the same designs, functions that run alike, and was made under the same conditions.
    """
    for folder in sorted((path.parent for path in results.glob("*/run.json")), reverse=True):
        if folder.is_symlink():
            continue
        store = FactorialDirectory(folder)
        try:
            manifest = store.manifest()
            if manifest.protocol.designs != protocol.designs or not conditions.allow(manifest):
                continue
            theirs = manifest.functions
            if not all(name in theirs and run_alike(of, theirs[name]) for name, of in functions.items()):
                continue
            rows = [row for row in counted(read_calls(store, scenario).rows) if row.valid]
        except LambdalabError:
            continue
        if {row.cell for row in rows} == {cell.name for cell in protocol.cells}:
            return _experience(manifest.run_id, rows)
    return None


def call_usd(
    scenario: CallScenario, function: FunctionFacts, design: Design, cell: Cell, prices: PriceSheet, billed_ms: float
) -> dict[str, Decimal]:
    """What one call costs when it is billed so long, by component.

    Raises:
        PriceSheetError: a price is missing.
    """
    cost = invocation_cost(
        prices,
        architecture=function.architecture,
        memory_mb=cell.memory_mb or function.memory_mb,
        billed_ms=billed_ms,
        wru=0,
        sqs_bytes=0,
        log_bytes=LOG_BYTES,
    )
    parts = {"lambda": cost.lambda_usd, "logs": cost.logs_usd}
    parts |= scenario.costs_usd(prices, scenario.expected_amounts(design, cell.levels))
    if missing := [name for name, usd in parts.items() if usd is None]:
        raise _unpriced(prices, missing)
    return {name: usd for name, usd in parts.items() if usd is not None}


def _planned_design(
    design: Design,
    scenario: CallScenario,
    functions: Mapping[str, FunctionFacts],
    prices: PriceSheet,
    left: Sequence[PlannedCell],
    target: str,
    experience: Experience | None,
) -> PlannedDesign:
    seconds, parts, stored = 0.0, dict[str, Decimal](), 0
    for planned in left:
        cell, function = planned.cell, functions[planned.cell.called]
        memory_mb = cell.memory_mb or function.memory_mb
        warm_ms = billed_ms = scenario.expected_ms(design, cell.levels, memory_mb)
        if experience is not None:
            warm_ms, billed_ms = experience.elapsed_ms[cell.name], experience.billed_ms[cell.name]
        warmups = sum(call.warmup for call in planned.calls)
        rounds = math.ceil((len(planned.calls) - warmups) / cell.callers)
        seconds += ASSUMED_CELL_S[target] + (ASSUMED_INIT_MS + (1 + rounds) * warm_ms) / 1000
        for number, took_ms in ((warmups, billed_ms + ASSUMED_INIT_MS), (len(planned.calls) - warmups, billed_ms)):
            for name, usd in call_usd(scenario, function, design, cell, prices, took_ms).items():
                parts[name] = parts.get(name, Decimal()) + number * usd
        stored += len(planned.calls) * scenario.expected_amounts(design, cell.levels).get("stored_bytes", 0)
    warmups = sum(call.warmup for planned in left for call in planned.calls)
    return PlannedDesign(
        label=design.label,
        cells=len(design.cells),
        fraction=design.fraction,
        calls=sum(len(planned.calls) for planned in left) - warmups,
        warmup_calls=warmups,
        stored_bytes=stored,
        minutes=seconds / 60,
        usd=sum(parts.values(), Decimal()),
        usd_by_component=parts,
    )


def _timeouts_usd(
    planned: PlannedCell, scenario: CallScenario, functions: Mapping[str, FunctionFacts], prices: PriceSheet
) -> Decimal:
    function = functions[planned.cell.called]
    cost = call_usd(scenario, function, planned.design, planned.cell, prices, function.timeout_s * 1000)
    return len(planned.calls) * cost["lambda"]


def _experience(run_id: str, rows: Iterable[CallRow]) -> Experience:
    elapsed: dict[str, list[float]] = {}
    billed: dict[str, list[float]] = {}
    for row in rows:
        elapsed.setdefault(row.cell, []).append(row.elapsed_ms)
        billed.setdefault(row.cell, []).append(row.billed_ms or row.elapsed_ms)
    return Experience(
        run_id=run_id,
        elapsed_ms={cell: statistics.median(values) for cell, values in elapsed.items()},
        billed_ms={cell: statistics.median(values) for cell, values in billed.items()},
    )


def _unpriced(prices: PriceSheet, missing: Sequence[str]) -> PriceSheetError:
    return PriceSheetError(
        f"the {prices.region} price sheet of {prices.date} does not price {', '.join(missing)}",
        next_step="add these prices; prices/us-east-1.toml has them all",
    )


def _assumptions(
    protocol: FactorialProtocol, scenario: CallScenario, target: str, experience: Experience | None
) -> Iterable[str]:
    around = (
        f"{ASSUMED_CELL_S[target]:g} s around the calls of a cell, and {ASSUMED_INIT_MS:g} ms of init for each call "
        "that warms up"
    )
    if experience is None:
        yield f"assumed, since there is no earlier run of these designs here: {around}, and what is said last"
    else:
        yield f"times are the medians of run {experience.run_id}; assumed are {around}"
    yield "every cell begins with new environments, and with one call of every caller that is not measured"
    yield "at most means: every call runs into its function's timeout"
    yield "prices are of the first tier, without free tier, taxes and discounts"
    if target == "local":
        yield "a local run costs nothing: the money is what AWS would bill if times were the same there"
    caps = protocol.caps
    minutes = f"{MOST_MINUTES:g} (default)" if caps.minutes is None else f"{caps.minutes:g}"
    usd = f"{MOST_USD} (default)" if caps.usd is None else f"{caps.usd}"
    yield f"caps: minutes {minutes}" + (f", usd {usd}" if target == "aws" else "")
    for design in protocol.designs:
        yield from (f"caution: {said}" for said in design.cautions)
    yield from scenario.notes()
    if experience is None:
        yield scenario.assumed()
