"""Judges every call of a factorial run, and prices it: calls in, rows out. Pure: the same files in, the same rows out.

A row is valid only under the rules of docs/method.md; one that is not stays in the file, with its reasons.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from lambdalab.design.arms import Start
from lambdalab.design.cells import LAB_FACTORS, LANGUAGE, MEMORY_MB, Cell, Design
from lambdalab.errors import StorageError
from lambdalab.logs.platform_lines import INIT_APART, MalformedReportError, beside_others, parse_report, request_id_of
from lambdalab.pricing.costs import PriceSheet, ingested_bytes, invocation_cost, kept_sheet, rounded
from lambdalab.records.call_files import FactorialDirectory
from lambdalab.records.calls import Call, CallRow, Outcome
from lambdalab.records.manifest import CallManifest
from lambdalab.records.trials import PlatformReport
from lambdalab.scenario.base import CallScenario

NO_REPORT: Final = "no REPORT line was found"
REPEATED: Final = "repeated after an interruption"
THROTTLED: Final = "throttled: Lambda answered TooManyRequestsException"
NOT_FOUND: Final = "what the function says it wrote is not there, or not as it says"
INSIDE: Final = "initialised inside the invocation, after a reset"
"""After a crash, or an init of more than 10 s: then Duration holds the init, and REPORT has none."""
LAMBDA: Final = "lambda"
LOGS: Final = "logs"
_CELL_DECIDES: Final = (LANGUAGE, MEMORY_MB)
"""Factors with a column of every row."""


class MeasuredCalls(NamedTuple):
    """A factorial run as it was measured: everything its numbers follow from."""

    manifest: CallManifest
    prices: PriceSheet
    rows: list[CallRow]


class _Reports(NamedTuple):
    """The REPORT lines in the tail of a call's log, and what is wrong with those that cannot be read."""

    reports: list[PlatformReport]
    damaged: list[str]


def read_calls(store: FactorialDirectory, scenario: CallScenario) -> MeasuredCalls:
    """Reads what a run measured so far; nothing is written.

    Raises:
        StorageError: a file of the run is damaged.
    """
    manifest = store.manifest()
    path = store.folder / "run.json"
    prices = kept_sheet(manifest.prices, path)
    if unknown := {cell.called for cell in manifest.protocol.cells} - manifest.functions.keys():
        raise StorageError(
            f"{path} is damaged: it has no function {min(unknown)!r}", next_step="restore it, or measure again"
        )
    calls = store.calls()
    names = {cell.name for cell in manifest.protocol.cells}
    for name in sorted({call.cell for call in calls} - names):
        raise StorageError(
            f"{store.folder / 'calls.jsonl'} is damaged: {name[:64]!r} is no cell of the run",
            next_step="remove its lines, or measure again",
        )
    return MeasuredCalls(manifest, prices, judge(manifest, calls, scenario, prices))


def judge(manifest: CallManifest, calls: Iterable[Call], scenario: CallScenario, prices: PriceSheet) -> list[CallRow]:
    """One row per call, in the order they began.

    Args:
        manifest: what was asked.
        calls: what the callers saw.
        scenario: what answers mean, and what they cost beside Lambda.
        prices: the price sheet of the run.
    """
    ordered = sorted(calls, key=lambda call: (call.sent_at_ms, call.call_id, call.attempt))
    last: dict[str, int] = {}
    for call in ordered:
        last[call.call_id] = max(call.attempt, last.get(call.call_id, 0))
    cells = {cell.name: cell for cell in manifest.protocol.cells}
    platform = _beside_others([(cells[call.cell].called, _reports(call)) for call in ordered])
    return [
        _row(manifest, cells[call.cell], call, found, scenario, prices, repeated=call.attempt < last[call.call_id])
        for call, found in zip(ordered, platform, strict=True)
    ]


def row_columns(rows: Sequence[CallRow], manifest: CallManifest) -> dict[str, object]:
    """The columns of ``metrics.csv`` and their types: one for every factor, measure and component of the cost.

    One of these that is called like a column every row has gets ``scenario_`` before its name.
    """
    fixed = {field.name: field.type for field in msgspec.structs.fields(CallRow)}
    levels = {
        name: type_of
        for design in manifest.protocol.designs
        for name, values in design.factors.items()
        if name not in _CELL_DECIDES
        for type_of in [int | None if all(isinstance(value, int) for value in values) else str | None]
    }
    columns: dict[str, object] = {}
    for name, kind in fixed.items():
        match name:
            case "levels":
                columns |= {_column(factor, fixed): of for factor, of in levels.items()}
            case "measures":
                columns |= {_column(measure, fixed): float | None for measure in _keys(row.measures for row in rows)}
            case "costs_usd":
                columns |= {f"cost_{part}_usd": Decimal | None for part in _keys(row.costs_usd for row in rows)}
            case _:
                columns[name] = kind
    return columns


def row_values(row: CallRow) -> dict[str, object]:
    """A row by the names of ``row_columns``; what it does not have is left out."""
    fixed = set(CallRow.__struct_fields__)
    return {
        **{name: getattr(row, name) for name in fixed - {"levels", "measures", "costs_usd"}},
        **{_column(name, fixed): level for name, level in row.levels.items() if name not in _CELL_DECIDES},
        **{_column(name, fixed): value for name, value in row.measures.items()},
        **{f"cost_{part}_usd": amount for part, amount in row.costs_usd.items()},
    }


def _column(name: str, fixed: Iterable[str]) -> str:
    return f"scenario_{name}" if name in fixed else name


def _keys(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    """All keys, in the order they are first met."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _row(
    manifest: CallManifest,
    cell: Cell,
    call: Call,
    found: _Reports,
    scenario: CallScenario,
    prices: PriceSheet,
    *,
    repeated: bool,
) -> CallRow:
    function = manifest.functions[cell.called]
    report, faults, log_bytes = _platform(call, found)
    outcome = _outcome(call, scenario)
    if outcome is not None and outcome.fault is not None:
        faults.append(outcome.fault)
    if outcome is not None and outcome.is_first and report is not None and _is_warm(report):
        faults.append(INSIDE)
    if outcome is not None and outcome.fault is None:
        faults += _contradictions(manifest.protocol.design(cell), cell, call)
    if call.found is False:
        faults.append(NOT_FOUND)
    if call.disturbed is not None:
        faults.append(call.disturbed)
    reasons = [*([REPEATED] if repeated else []), *faults]
    costs = _costs(function.architecture, report, log_bytes, outcome, scenario, prices)
    knows_all = outcome is not None and bool(outcome.amounts)
    return CallRow(
        run_id=manifest.run_id,
        scenario=manifest.protocol.scenario,
        target=manifest.target,
        latency_model=manifest.latency_model,
        cpu_scale=manifest.cpu_scale,
        design=cell.design,
        cell=cell.name,
        function_name=function.function_name,
        language=cell.language,
        architecture=function.architecture,
        memory_mb=(None if report is None else report.memory_mb) or cell.memory_mb or function.memory_mb,
        levels=cell.levels,
        block=call.block,
        call_id=call.call_id,
        attempt=call.attempt,
        warmup=call.warmup,
        request_id=call.request_id,
        started_at_ms=call.sent_at_ms,
        elapsed_ms=call.elapsed_ms,
        cold_start=None if report is None else report.start is Start.COLD,
        duration_ms=None if report is None else report.duration_ms,
        billed_ms=None if report is None else report.billed_ms,
        init_ms=None if report is None else report.init_ms,
        max_memory_mb=None if report is None else report.max_memory_mb,
        throttled=call.throttled,
        measures={} if outcome is None else outcome.measures,
        costs_usd=costs,
        cost_total_usd=_sum(costs.values()) if knows_all else None,
        valid=not reasons,
        reason="; ".join(reasons) or None,
    )


def _reports(call: Call) -> _Reports:
    found = _Reports([], [])
    for line in _lines(call):
        try:
            report = parse_report(line)
        except MalformedReportError as problem:
            found.damaged.append(str(problem))
            continue
        if report is not None and call.request_id in (None, report.request_id):
            found.reports.append(report)
    return found


def _lines(call: Call) -> list[str]:
    return [] if call.log_tail is None else call.log_tail.splitlines(keepends=True)


def _beside_others(calls: Sequence[tuple[str, _Reports]]) -> list[_Reports]:
    """Judges the reports of each function by each other, since its calls share a log group."""
    of_all = [(function, report) for function, found in calls for report in found.reports]
    emulated = {function for function, report in of_all if report.emulated}
    unpriced = {function: INIT_APART for function, report in of_all if report.unpriced == INIT_APART}
    if not emulated and not unpriced:
        return [found for _, found in calls]
    return [
        _Reports(
            [
                beside_others(report, emulated=function in emulated, unpriced=unpriced.get(function))
                for report in found.reports
            ],
            found.damaged,
        )
        for function, found in calls
    ]


def _platform(call: Call, found: _Reports) -> tuple[PlatformReport | None, list[str], int | None]:
    """The REPORT line of a call, what is wrong with the call as far as the platform says, and the size of its log."""
    faults = []
    if call.throttled:
        return None, [THROTTLED], None
    if call.error is not None:
        faults.append(call.error)
    if call.function_error is not None:
        faults.append(f"the function failed: {call.function_error}")
    faults += found.damaged
    if len(found.reports) > 1:
        return None, [*faults, f"{len(found.reports)} REPORT lines for one request"], None
    if not found.reports:
        return None, [*faults, *([] if call.error is not None else [NO_REPORT])], None
    report = found.reports[0]
    if report.status is not None:
        faults.append(" ".join(filter(None, ("ended with status", report.status, report.error_type))))
    if report.refused is not None:
        faults.append(f"the REPORT line is no measurement: {report.refused}")
    elif report.unpriced is not None:
        faults.append(f"the REPORT line is not priced: {report.unpriced}")
    return report, faults, _log_bytes(_lines(call), report.request_id)


def _is_warm(report: PlatformReport) -> bool:
    return report.start is Start.WARM and report.refused is None


def _log_bytes(lines: Sequence[str], request_id: str) -> int | None:
    """What an invocation logged, when the tail of its log reaches back to its begin; None where it was cut off.

    Invoke returns the last 4 KB. The line that begins an invocation is START, or ``platform.start`` in JSON.
    """
    begins = any(
        (line.startswith("START RequestId: ") or '"platform.start"' in line) and request_id_of(line) == request_id
        for line in lines
    )
    return ingested_bytes(lines) if begins else None


def _outcome(call: Call, scenario: CallScenario) -> Outcome | None:
    """What a function's own answer says; one that the platform gave in its stead is none."""
    if call.function_error is not None:
        return None
    try:
        answer = msgspec.json.decode(call.answer)
        return None if answer is None else scenario.read(answer)
    except (ValueError, RecursionError) as problem:
        return Outcome(measures={}, amounts={}, fault=f"its answer cannot be read: {str(problem)[:200]}")


def _contradictions(design: Design, cell: Cell, call: Call) -> Iterator[str]:
    """What an answer says of its own call that is not what was asked."""
    answer = msgspec.json.decode(call.answer)
    if not isinstance(answer, dict):
        return
    asked = {**design.settings, **cell.levels, "lang": cell.language}
    for name, level in asked.items():
        said = answer.get(name) if name not in LAB_FACTORS else None
        if said not in (None, level):
            yield f"its answer says {name} {str(said)[:64]!r} where {level} was asked"


def _costs(
    architecture: str,
    report: PlatformReport | None,
    log_bytes: int | None,
    outcome: Outcome | None,
    scenario: CallScenario,
    prices: PriceSheet,
) -> dict[str, Decimal | None]:
    usable = report if report is not None and report.refused is None and report.unpriced is None else None
    cost = invocation_cost(
        prices,
        architecture=architecture,
        memory_mb=None if usable is None else usable.memory_mb,
        billed_ms=None if usable is None else usable.billed_ms,
        wru=0,
        sqs_bytes=0,
        log_bytes=log_bytes,
    )
    parts: dict[str, Decimal | None] = {LAMBDA: cost.lambda_usd, LOGS: cost.logs_usd}
    if outcome is not None and outcome.amounts:
        parts |= scenario.costs_usd(prices, outcome.amounts)
    return {part: rounded(amount) for part, amount in parts.items()}


def _sum(parts: Iterable[Decimal | None]) -> Decimal | None:
    """None when one is not known: a partial sum would look like a total."""
    known = list(parts)
    return None if None in known else sum((part for part in known if part is not None), Decimal())


def counted(rows: Iterable[CallRow]) -> Iterator[CallRow]:
    """The calls that the design asked for, as they ended: no warm-up, and none that was made again."""
    return (row for row in rows if not row.warmup and (row.reason is None or not row.reason.startswith(REPEATED)))
