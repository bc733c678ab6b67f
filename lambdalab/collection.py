"""Joins what was sent, what the platform logged and what the functions logged, and judges every sample.

Pure: the same files in, the same rows out. A row is valid only under the rules of docs/method.md; one that is not stays
in the file, with its reasons.
"""

import gc
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Final

import msgspec

from lambdalab.cost import LOG_EVENT_OVERHEAD_BYTES, PriceSheet, ingested_bytes, invocation_cost
from lambdalab.design import Mode, Start, as_cold
from lambdalab.model import Cost, FunctionRecord, InvocationRow, LogLine, Manifest, PlatformReport, TrialResult
from lambdalab.platform_log import (
    MalformedRecordError,
    MalformedReportError,
    parse_record,
    parse_report,
    request_id_of,
)
from lambdalab.report_lines import Block, Reports

NO_REPORT: Final = "no REPORT line was found"
REPEATED: Final = "repeated after an interruption"
_LONGEST_MS: Final = (1_209_600 + 900) * 1000
"""A message is kept for 14 days at most, and an invocation ends after 15 minutes."""
_CONTEXT: Final = Context(prec=60)


class Observed(msgspec.Struct, kw_only=True):
    """Everything the logs hold of one request id. ``damaged`` tells of lines that could not be read.

    ``log_bytes`` is what its lines count when CloudWatch Logs takes them in.
    """

    request_id: str
    log_group: str
    began_ms: int
    log_bytes: int = 0
    reports: list[PlatformReport] = []
    records: list[FunctionRecord] = []
    damaged: list[str] = []


class Observations:
    """What the collected log lines say, by request id; texts are not kept.

    An invocation of which nothing but an ordinary REPORT line is known yet is a row of ``_columns``, and becomes an
    ``Observed`` when another line comes or somebody asks: a million such lines take some 300 MB.
    ``damaged_lines`` counts those that could not be read, whosever they are.
    """

    def __init__(self) -> None:
        self.damaged_lines = 0
        self._requests: dict[str, Observed | int] = {}
        self._log_groups: list[str] = []
        self._columns = {
            name: array("q" if name in ("log_group", "began_ms", "message_bytes") else "d")
            for name in Reports.__struct_fields__[2:]
        }

    def add(self, block: Block) -> None:
        """Takes in a block of lines."""
        row, taken = len(self._columns["began_ms"]), 0
        ids: list[str] = []
        if block.reports is not None:
            ids = block.reports.request_ids.split(" ")
            log_group = block.reports.log_group + len(self._log_groups)
            self._log_groups += block.reports.log_groups
            for name, column in self._columns.items():
                column.frombytes((log_group if name == "log_group" else getattr(block.reports, name)).tobytes())
        for number, (place, line) in enumerate(zip(block.places, block.others, strict=True)):
            above = place - number
            self._add_reports(ids[taken:above], row + taken)
            self._add_other(line)
            taken = above
        self._add_reports(ids[taken:], row + taken)

    def of_request(self, request_id: str) -> Observed:
        """All that is known of one request."""
        known = self._requests[request_id]
        if isinstance(known, int):
            known = self._requests[request_id] = self._observed(known, request_id)
        return known

    def __iter__(self) -> Iterator[Observed]:
        """Every request, in the order of their first lines."""
        return map(self.of_request, self._requests)

    def __len__(self) -> int:
        return len(self._requests)

    def of_batch(self) -> dict[str, list[Observed]]:
        """Which invocations worked on which batch, by the functions' own records."""
        found: defaultdict[str, list[Observed]] = defaultdict(list)
        for observed in self._requests.values():
            if isinstance(observed, Observed):  # of the others there is no record
                for batch_id in dict.fromkeys(record.batch_id for record in observed.records):
                    if batch_id is not None:
                        found[batch_id].append(observed)
        return dict(found)

    def _add_reports(self, request_ids: list[str], row: int) -> None:
        rows = list(range(row, row + len(request_ids)))
        known = list(map(self._requests.setdefault, request_ids, rows))
        if known == rows:
            return
        for request_id, mine, first in zip(request_ids, rows, known, strict=True):
            if first != mine:
                again = self._observed(mine, request_id)
                self._merge(self.of_request(request_id), again)

    def _add_other(self, line: LogLine) -> None:
        problem = report = record = None
        try:
            report = parse_report(line.message)
            record = parse_record(line.message) if report is None else None
        except (MalformedReportError, MalformedRecordError) as error:
            problem = str(error)
            self.damaged_lines += 1
        request_id = request_id_of(line.message)
        if request_id is None:
            return
        found = Observed(
            request_id=request_id,
            log_group=line.log_group,
            began_ms=line.timestamp_ms,
            log_bytes=ingested_bytes([line.message]),
            reports=[] if report is None else [report],
            records=[] if record is None else [record],
            damaged=[] if problem is None else [problem],
        )
        if self._requests.setdefault(request_id, found) is not found:
            self._merge(self.of_request(request_id), found)

    @staticmethod
    def _merge(known: Observed, found: Observed) -> None:
        known.began_ms = min(known.began_ms, found.began_ms)
        known.log_bytes += found.log_bytes
        known.reports += found.reports
        known.records += found.records
        known.damaged += found.damaged

    def _observed(self, row: int, request_id: str) -> Observed:
        found = {name: column[row] for name, column in self._columns.items()}
        report = PlatformReport(
            request_id=request_id,
            duration_ms=found["duration_ms"],
            billed_ms=found["billed_ms"],
            memory_mb=int(found["memory_mb"]),
            max_memory_mb=int(found["max_memory_mb"]),
            init_ms=None if math.isnan(found["init_ms"]) else found["init_ms"],
        )
        return Observed(
            request_id=request_id,
            log_group=self._log_groups[found["log_group"]],
            began_ms=found["began_ms"],
            log_bytes=found["message_bytes"] + LOG_EVENT_OVERHEAD_BYTES,
            reports=[report],
        )


def observe(lines: Iterable[LogLine]) -> Observations:
    """Sorts log lines by request id."""
    others = list(lines)
    return observe_blocks([Block(None, others, range(len(others)))])


def observe_blocks(blocks: Iterable[Block]) -> Observations:
    """Sorts log lines by request id, a block at a time, as ``RunDirectory.log_blocks(read_block)`` reads them."""
    observations = Observations()
    collected = gc.isenabled()
    gc.disable()  # millions of small objects come, none of them in a cycle
    try:
        for block in blocks:
            observations.add(block)
    finally:
        if collected:
            gc.enable()
    return observations


def missing_reports(manifest: Manifest, trials: Sequence[TrialResult], lines: Iterable[LogLine]) -> list[TrialResult]:
    """Trials whose last attempt was sent and has no invocation with a REPORT line among the lines yet."""
    invocations = _invocations(manifest, trials, observe(lines))
    last = {result.trial.trial_id: result.batch_id for result in trials}
    return [
        result
        for result, found in zip(trials, invocations, strict=True)
        if result.message_id is not None
        and last[result.trial.trial_id] == result.batch_id
        and not any(item.reports for item in found)
    ]


def join(
    manifest: Manifest, trials: Sequence[TrialResult], observations: Observations, prices: PriceSheet
) -> list[InvocationRow]:
    """One row per invocation, in the order of the trials; a trial without an invocation has a row as well.

    Args:
        manifest: what was asked.
        trials: what the runner saw, in the order of execution.
        observations: what the log lines say.
        prices: the price sheet of the run.
    """
    last = {result.trial.trial_id: result.batch_id for result in trials}
    rows = []
    for result, found in zip(trials, _invocations(manifest, trials, observations), strict=True):
        reasons = [] if last[result.trial.trial_id] == result.batch_id else [REPEATED]
        if len(found) > 1:
            reasons.append(f"{len(found)} invocations worked on it")
        none_or_more: Sequence[Observed | None] = found or [None]
        rows += [_row(manifest, result, item, reasons, prices) for item in none_or_more]
    return rows


def _invocations(manifest: Manifest, trials: Sequence[TrialResult], observations: Observations) -> list[list[Observed]]:
    """The invocations of each trial.

    They are found by the batch in the function's own record. One that timed out or crashed leaves none; where
    messages are sent one at a time, it belongs to the trial of its function that was under way when it began, and in a
    load run to none. Without a record such a sample is never valid, so that this only tells what happened.
    """
    of_batch = observations.of_batch()
    if manifest.load is not None:
        return [of_batch.get(result.batch_id, []) for result in trials]
    anonymous: list[Observed] | None = None
    ends: dict[str, float] = {}
    found: list[list[Observed]] = []
    for result in reversed(trials):
        log_group = manifest.functions[result.trial.arm].log_group
        mine = of_batch.get(result.batch_id, [])
        if not mine and result.sent_at_ms is not None:
            end = ends.get(log_group, math.inf)
            if anonymous is None:
                anonymous = [item for item in observations if not item.records]
            mine = [i for i in anonymous if i.log_group == log_group and result.sent_at_ms <= i.began_ms < end]
        if result.sent_at_ms is not None:
            ends[log_group] = result.sent_at_ms
        found.append(mine)
    return found[::-1]


def _row(
    manifest: Manifest,
    result: TrialResult,
    observed: Observed | None,
    known_reasons: Sequence[str],
    prices: PriceSheet,
) -> InvocationRow:
    report = observed.reports[0] if observed is not None and len(observed.reports) == 1 else None
    record = None if observed is None else next((r for r in observed.records if r.batch_id == result.batch_id), None)
    reasons = [*known_reasons, *_faults(result, observed, report, record)]
    function = manifest.functions[result.trial.arm]
    arm = next(arm for arm in manifest.protocol.arms if arm.name == result.trial.arm)
    cost = _cost(function.architecture, result, observed, report, record, prices)
    trial = result.trial
    comes_cold = manifest.load is not None and report is not None and report.start is Start.COLD
    return InvocationRow(
        run_id=manifest.run_id,
        scenario=manifest.protocol.scenario,
        target=manifest.target,
        latency_model=manifest.latency_model,
        arm=arm.name,
        language=function.language,
        mode=arm.mode.value if record is None or record.mode is None else record.mode,
        architecture=function.architecture,
        memory_mb=function.memory_mb if report is None else report.memory_mb,
        trial=trial.trial_id,
        block=trial.block,
        label=as_cold(trial.load).label if comes_cold else trial.load.label,
        request_id=None if observed is None else observed.request_id,
        started_at=None if record is None else _timestamp(record.started_ms),
        cold_start=None if report is None else report.start is Start.COLD,
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
    result: TrialResult, observed: Observed | None, report: PlatformReport | None, record: FunctionRecord | None
) -> list[str]:
    """Why a sample must not be used, in words."""
    faults = [] if result.reason is None else [result.reason]
    if observed is None:
        return [*faults, NO_REPORT]
    faults += observed.damaged
    if len(observed.reports) > 1:
        faults.append(f"{len(observed.reports)} REPORT lines for one request")
    elif report is None:
        faults.append(NO_REPORT)
    else:
        faults += _report_faults(result, report)
    if record is None:
        return [*faults, "the function wrote no record of it"]
    if len(observed.records) > 1:
        faults.append(f"one of {len(observed.records)} messages of its invocation")
    if record.error is not None:
        said = f"the function reported {record.error.code}: {record.error.message}"
        faults += [] if said == result.reason else [said]
    if record.receive_count not in (None, 1):
        faults.append(f"received {record.receive_count} times")
    if record.sdk_retries:
        faults.append(f"{record.sdk_retries} SDK retries")
    if (resent := _resent_calls(record)) > 0:
        faults.append(f"{resent} calls more for items that DynamoDB left unprocessed")
    if record.duplicates:
        faults.append(f"{record.duplicates} items were there already")
    if report is not None and record.cold_start and report.start is Start.WARM and report.refused is None:
        faults.append("initialised inside the invocation, after a reset")
    return faults


def _resent_calls(record: FunctionRecord) -> int:
    """Calls of BatchWriteItem beyond those that 25 items a call need (docs/contracts.md, Modes)."""
    if record.mode != Mode.BATCH or record.put_ms is None or record.count is None:
        return 0
    return record.put_ms.n - math.ceil(record.count / 25)


def _report_faults(result: TrialResult, report: PlatformReport) -> list[str]:
    faults = []
    if report.status is not None:
        faults.append(" ".join(filter(None, ("ended with status", report.status, report.error_type))))
    if report.refused is not None:
        return [*faults, f"the REPORT line is no measurement: {report.refused}"]
    wanted = result.trial.load.start
    if report.start is not wanted and result.sending is None:  # under load it comes as it comes
        faults.append(f"a {report.start.value} start where the protocol wants a {wanted.value} one")
    return faults


def _cost(
    architecture: str,
    result: TrialResult,
    observed: Observed | None,
    report: PlatformReport | None,
    record: FunctionRecord | None,
    prices: PriceSheet,
) -> Cost:
    usable = report if report is not None and report.refused is None else None
    exact = invocation_cost(
        prices,
        architecture=architecture,
        memory_mb=None if usable is None else usable.memory_mb,
        billed_ms=None if usable is None else usable.billed_ms,
        wru=None if record is None else record.consumed_wru,
        sqs_bytes=None if observed is None else result.message_bytes,
        log_bytes=None if observed is None else observed.log_bytes,
    )
    return Cost(**{name: _money(getattr(exact, name)) for name in Cost.__struct_fields__})


def _per_item(cost: Cost, record: FunctionRecord | None) -> Decimal | None:
    if record is None or not record.written or cost.total_usd is None:
        return None
    return _money(cost.total_usd / record.written)


def _money(amount: Decimal | None) -> Decimal | None:
    """Eighteen decimals, as the columns of ``metrics`` have."""
    return None if amount is None else amount.quantize(Decimal("1e-18"), context=_CONTEXT)


def _since_sent(record: FunctionRecord | None, moment_ms: int | None) -> int | None:
    if record is None or record.sent_ms is None or moment_ms is None:
        return None
    # two clocks that disagree, or a record that is wrong: then it is not known
    waited_ms = moment_ms - record.sent_ms
    return waited_ms if 0 <= waited_ms <= _LONGEST_MS else None


def _timestamp(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds")
