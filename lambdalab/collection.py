"""Joins what was sent, what the platform logged and what the functions logged, and judges every sample.

Pure: the same files in, the same rows out. A row is valid only under the rules of docs/method.md; one that is not stays
in the file, with its reasons.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import msgspec

from lambdalab.cost import PriceSheet, ingested_bytes, invocation_cost
from lambdalab.model import (
    Cost,
    FunctionRecord,
    InvocationRow,
    LogLine,
    Manifest,
    PlatformReport,
    Start,
    TrialResult,
)
from lambdalab.platform_log import (
    MalformedRecordError,
    MalformedReportError,
    parse_record,
    parse_report,
    request_id_of,
)

NO_REPORT: Final = "no REPORT line was found"
REPEATED: Final = "repeated after an interruption"


class Observed(msgspec.Struct, kw_only=True):
    """Everything the logs hold of one request id. ``damaged`` tells of lines that could not be read."""

    reports: list[PlatformReport] = []
    records: list[FunctionRecord] = []
    messages: list[str] = []
    damaged: list[str] = []


def observe(lines: Iterable[LogLine]) -> dict[str, Observed]:
    """Sorts log lines by request id."""
    found: defaultdict[str, Observed] = defaultdict(Observed)
    for line in lines:
        request_id = request_id_of(line.message)
        if request_id is None:
            continue
        observed = found[request_id]
        observed.messages.append(line.message)
        try:
            if (report := parse_report(line.message)) is not None:
                observed.reports.append(report)
            elif (record := parse_record(line.message)) is not None:
                observed.records.append(record)
        except (MalformedReportError, MalformedRecordError) as error:
            observed.damaged.append(str(error))
    return dict(found)


def by_batch(observed: dict[str, Observed]) -> dict[str, list[str]]:
    """Which request ids worked on which batch, by the functions' own records."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for request_id, item in observed.items():
        for batch_id in {record.batch_id for record in item.records if record.batch_id is not None}:
            found[batch_id].append(request_id)
    return dict(found)


def missing_reports(trials: Iterable[TrialResult], lines: Iterable[LogLine]) -> list[TrialResult]:
    """Trials that were sent and for which no invocation with a REPORT line has been collected yet."""
    observed = observe(lines)
    batches = by_batch(observed)
    return [
        trial
        for trial in trials
        if trial.message_id is not None
        and not any(observed[request_id].reports for request_id in batches.get(trial.batch_id, []))
    ]


def join(
    manifest: Manifest, trials: Sequence[TrialResult], lines: Iterable[LogLine], prices: PriceSheet
) -> list[InvocationRow]:
    """One row per invocation, in the order of the trials; a trial without an invocation has a row as well."""
    observed = observe(lines)
    batches = by_batch(observed)
    last = {result.trial.trial_id: result.batch_id for result in trials}
    rows = []
    for result in trials:
        request_ids: list[str | None] = [*batches.get(result.batch_id, [])]
        reasons = [] if last[result.trial.trial_id] == result.batch_id else [REPEATED]
        if len(request_ids) > 1:
            reasons.append(f"{len(request_ids)} invocations worked on it")
        for request_id in request_ids or [None]:
            item = Observed() if request_id is None else observed[request_id]
            rows.append(_row(manifest, result, request_id, item, reasons, prices))
    return rows


def _row(
    manifest: Manifest,
    result: TrialResult,
    request_id: str | None,
    observed: Observed,
    known_reasons: Sequence[str],
    prices: PriceSheet,
) -> InvocationRow:
    report = observed.reports[0] if len(observed.reports) == 1 else None
    record = next((r for r in observed.records if r.batch_id == result.batch_id), None)
    reasons = [*known_reasons, *_faults(result, report, record, observed)]
    function = manifest.functions[result.trial.arm]
    cost = _cost(manifest, result, report, record, observed, prices)
    trial = result.trial
    return InvocationRow(
        run_id=manifest.run_id,
        scenario=manifest.protocol.scenario,
        target=manifest.target,
        language=function.language,
        architecture=function.architecture,
        memory_mb=function.memory_mb if report is None else report.memory_mb,
        trial=trial.trial_id,
        block=trial.block,
        label=trial.load.label,
        request_id=request_id,
        started_at=None if record is None else _timestamp(record.started_ms),
        cold_start=None if report is None else report.init_ms is not None,
        duration_ms=None if report is None else report.duration_ms,
        billed_ms=None if report is None else round(report.billed_ms),
        init_ms=None if report is None else report.init_ms,
        max_memory_mb=None if report is None else report.max_memory_mb,
        queue_wait_ms=_since_sent(record, None if record is None else record.started_ms),
        end_to_end_ms=_since_sent(record, None if record is None else record.finished_ms),
        written=None if record is None else record.written,
        duplicates=None if record is None else record.duplicates,
        sdk_retries=None if record is None else record.sdk_retries,
        receive_count=None if record is None else record.receive_count,
        wru=None if record is None else record.consumed_wru,
        cost_lambda_usd=cost.lambda_usd,
        cost_dynamodb_usd=cost.dynamodb_usd,
        cost_sqs_usd=cost.sqs_usd,
        cost_logs_usd=cost.logs_usd,
        cost_total_usd=cost.total_usd,
        cost_per_item_usd=_per_item(cost, record),
        valid=not reasons,
        reason="; ".join(reasons) or None,
    )


def _faults(
    result: TrialResult, report: PlatformReport | None, record: FunctionRecord | None, observed: Observed
) -> list[str]:
    """Why a sample must not be used, in words."""
    faults = [] if result.reason is None else [result.reason]
    faults += observed.damaged
    if len(observed.reports) > 1:
        faults.append(f"{len(observed.reports)} REPORT lines for one request")
    elif report is None:
        faults.append(NO_REPORT)
    else:
        faults += _report_faults(result, report)
    if record is None:
        return [*faults, "the function wrote no record of it"]
    if record.error is not None:
        faults.append(f"the function reported {record.error.code}: {record.error.message}")
    if record.receive_count not in (None, 1):
        faults.append(f"received {record.receive_count} times")
    if record.sdk_retries:
        faults.append(f"{record.sdk_retries} SDK retries")
    if record.duplicates:
        faults.append(f"{record.duplicates} items were there already")
    if report is not None and record.cold_start and report.init_ms is None:
        faults.append("initialised inside the invocation, after a reset")
    return faults


def _report_faults(result: TrialResult, report: PlatformReport) -> list[str]:
    faults = []
    if report.refused is not None:
        faults.append(f"the REPORT line is no measurement: {report.refused}")
    if report.status is not None and report.status != "success":
        faults.append(" ".join(filter(None, ("ended with status", report.status, report.error_type))))
    start = Start.WARM if report.init_ms is None else Start.COLD
    if start is not result.trial.load.start:
        faults.append(f"a {start.value} start where the protocol wants a {result.trial.load.start.value} one")
    return faults


def _cost(
    manifest: Manifest,
    result: TrialResult,
    report: PlatformReport | None,
    record: FunctionRecord | None,
    observed: Observed,
    prices: PriceSheet,
) -> Cost:
    usable = report if report is not None and report.refused is None else None
    exact = invocation_cost(
        prices,
        architecture=manifest.functions[result.trial.arm].architecture,
        memory_mb=None if usable is None else usable.memory_mb,
        billed_ms=None if usable is None else usable.billed_ms,
        wru=None if record is None else record.consumed_wru,
        sqs_bytes=result.message_bytes,
        log_bytes=ingested_bytes(observed.messages) if observed.messages else None,
    )
    return Cost(**{name: _money(getattr(exact, name)) for name in Cost.__struct_fields__})


def _per_item(cost: Cost, record: FunctionRecord | None) -> Decimal | None:
    if record is None or not record.written or cost.total_usd is None:
        return None
    return _money(cost.total_usd / record.written)


def _money(amount: Decimal | None) -> Decimal | None:
    """Eighteen decimals, as the columns of ``metrics`` have."""
    return None if amount is None else amount.quantize(Decimal("1e-18"))


def _since_sent(record: FunctionRecord | None, moment_ms: int | None) -> int | None:
    if record is None or record.sent_ms is None or moment_ms is None:
        return None
    return moment_ms - record.sent_ms


def _timestamp(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds")
