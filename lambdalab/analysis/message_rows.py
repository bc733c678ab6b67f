"""Joins what was sent, what the platform logged and what the functions logged, and judges every sample.

Pure: the same files in, the same rows out. A row is valid only under the rules of docs/method.md; one that is not stays
in the file, with its reasons.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from lambdalab.analysis.books import Books, balance
from lambdalab.design.arms import Arm, Mode, Start, as_cold
from lambdalab.errors import StorageError
from lambdalab.logs.observations import Observations, Observed, observe_run
from lambdalab.pricing.costs import PriceSheet, invocation_cost, kept_sheet, rounded, shared_requests, sqs_usd
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import Cost, FunctionRecord, InvocationRow, PlatformReport, TrialResult

NO_REPORT: Final = "no REPORT line was found"
REPEATED: Final = "repeated after an interruption"
_LONGEST_MS: Final = (1_209_600 + 900) * 1000
"""A message is kept for 14 days at most, and an invocation ends after 15 minutes."""
_OF_ALL: Final[dict[str, Callable[[list[Any]], Any]]] = {
    **dict.fromkeys(("written", "duplicates", "sdk_retries", "consumed_wru"), sum),
    **dict.fromkeys(("sent_ms", "started_ms"), min),
    **dict.fromkeys(("receive_count", "finished_ms"), max),
}
"""How one number of several messages of an invocation is made."""


class _Share(NamedTuple):
    """A row's own messages among all that its invocation held."""

    own: int
    whole: int

    def of(self, amount: Decimal | None) -> Decimal | None:
        """Their part of an amount; all messages of an invocation have the same."""
        return amount if amount is None or self.own == self.whole else amount * self.own / self.whole


class MeasuredRun(NamedTuple):
    """A run as it was measured: everything its numbers follow from."""

    manifest: MessageManifest
    prices: PriceSheet
    trials: list[TrialResult]
    rows: list[InvocationRow]
    damaged_lines: int
    books: Books | None = None


def read_run(store: RunDirectory) -> MeasuredRun:
    """Reads what a run measured so far; nothing is written.

    Raises:
        StorageError: a file of the run is damaged.
    """
    manifest = store.manifest()
    prices = kept_sheet(manifest.prices, store.folder / "run.json")
    trials, observations = store.trials(), observe_run(store)
    _refuse_unknown_arms(store, manifest, trials)
    unrecorded = None if manifest.load is None else _unrecorded(manifest, observations, prices)
    damaged_lines, invocations = observations.damaged_lines, _invocations(manifest, trials, observations)
    del observations  # a million invocations take a gigabyte less when what was observed goes as rows come
    rows = _rows(manifest, trials, invocations, prices)
    books = (
        None if manifest.load is None else balance(trials, rows, store.samples(), store.ending(), manifest.functions)
    )
    if books is not None and unrecorded is not None:
        books = msgspec.structs.replace(books, cautions=(*books.cautions, unrecorded))
    return MeasuredRun(manifest, prices, trials, rows, damaged_lines, books)


def _unrecorded(manifest: MessageManifest, observations: Observations, prices: PriceSheet) -> str | None:
    """What a load run's invocations cost that left no record, so that they belong to no message and are in no row."""
    architectures = {function.log_group: function.architecture for function in manifest.functions.values()}
    count, usd = 0, Decimal()
    for found in observations.unrecorded():
        usable = [report for report in found.reports if report.refused is None and report.unpriced is None]
        if len(usable) != 1 or found.log_group not in architectures:
            continue
        cost = invocation_cost(
            prices,
            architecture=architectures[found.log_group],
            memory_mb=usable[0].memory_mb,
            billed_ms=usable[0].billed_ms,
            wru=0,
            sqs_bytes=0,
            log_bytes=found.log_bytes,
        )
        count, usd = count + 1, usd + (cost.total_usd or 0)
    if not count:
        return None
    return (
        f"invocations that left no record, as after a timeout or a crash: {count}; no row has them, nor the "
        f"{usd:.6f} USD that they cost for compute, requests and logs"
    )


def _refuse_unknown_arms(store: RunDirectory, manifest: MessageManifest, trials: Sequence[TrialResult]) -> None:
    arms = {arm.name for arm in manifest.protocol.arms}
    for name in sorted({result.trial.arm for result in trials} - arms):
        raise StorageError(
            f"{store.folder / 'trials.jsonl'} is damaged: {name[:64]!r} is no arm of the run",
            next_step="remove its lines, or measure again",
        )


def missing_reports(
    manifest: MessageManifest, trials: Sequence[TrialResult], observations: Observations
) -> list[TrialResult]:
    """Trials whose last attempt was sent and has no invocation with a REPORT line among the lines yet."""
    invocations = _invocations(manifest, trials, observations)
    last = {result.trial.trial_id: result.batch_id for result in trials}
    return [
        result
        for result, found in zip(trials, invocations, strict=True)
        if result.message_id is not None
        and last[result.trial.trial_id] == result.batch_id
        and not any(item.reports for item in found)
    ]


def join(
    manifest: MessageManifest, trials: Sequence[TrialResult], observations: Observations, prices: PriceSheet
) -> list[InvocationRow]:
    """One row per invocation, in the order of the trials; a trial without an invocation has a row as well.

    Args:
        manifest: what was asked.
        trials: what the runner saw, in the order of execution.
        observations: what the log lines say.
        prices: the price sheet of the run.
    """
    return _rows(manifest, trials, _invocations(manifest, trials, observations), prices)


def _rows(
    manifest: MessageManifest, trials: Sequence[TrialResult], invocations: list[list[Observed]], prices: PriceSheet
) -> list[InvocationRow]:
    """As ``join``. Empties the invocations."""
    last = {result.trial.trial_id: result.batch_id for result in trials}
    arms = {arm.name: arm for arm in manifest.protocol.arms}
    rows = []
    invocations.reverse()
    for result in trials:
        found = invocations.pop()
        reasons = [] if last[result.trial.trial_id] == result.batch_id else [REPEATED]
        if len(found) > 1:
            reasons.append(f"{len(found)} invocations worked on it")
        none_or_more: Sequence[Observed | None] = found or [None]
        rows += [_row(manifest, arms[result.trial.arm], result, item, reasons, prices) for item in none_or_more]
    return rows


def _invocations(
    manifest: MessageManifest, trials: Sequence[TrialResult], observations: Observations
) -> list[list[Observed]]:
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
        batches = (of_batch.get(batch_id, ()) for batch_id in result.batch_ids)
        mine = list({item.request_id: item for batch in batches for item in batch}.values())
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
    manifest: MessageManifest,
    arm: Arm,
    result: TrialResult,
    observed: Observed | None,
    known_reasons: Sequence[str],
    prices: PriceSheet,
) -> InvocationRow:
    report = observed.reports[0] if observed is not None and len(observed.reports) == 1 else None
    own = [] if observed is None else _own_records(result, observed)
    record = _together(own)
    modes = (arm.mode,) if manifest.load is None else tuple(Mode)  # a load run's messages each have their own
    reasons = [*known_reasons, *_faults(arm.language, modes, result, observed, report, record)]
    function = manifest.functions[arm.name]
    whole = None if observed is None or record is None else _messages_of(observed)
    share = _Share(own=len(own), whole=whole) if whole else _Share(own=result.messages, whole=result.messages)
    cost = _cost(
        function.architecture, result, observed, report, record, share, manifest.sent_together(result.messages), prices
    )
    trial = result.trial
    comes_cold = manifest.load is not None and report is not None and report.start is Start.COLD
    return InvocationRow(
        run_id=manifest.run_id,
        scenario=manifest.protocol.scenario,
        target=manifest.target,
        latency_model=manifest.latency_model,
        cpu_scale=manifest.cpu_scale,
        arm=arm.name,
        language=function.language,
        mode=arm.mode.value if record is None or record.mode is None else record.mode,
        architecture=function.architecture,
        memory_mb=function.memory_mb if report is None or report.memory_mb is None else report.memory_mb,
        batch_size=function.batch_size,
        trial=trial.trial_id,
        block=trial.block,
        label=as_cold(trial.load).label if comes_cold else trial.load.label,
        request_id=None if observed is None else observed.request_id,
        invocation_messages=whole,
        started_at=None if record is None else _timestamp(record.started_ms),
        cold_start=None if report is None else report.start is Start.COLD,
        duration_ms=None if report is None else report.duration_ms,
        billed_ms=None if report is None or report.billed_ms is None else round(report.billed_ms),
        init_ms=None if report is None else report.init_ms,
        max_memory_mb=None if report is None else report.max_memory_mb,
        queue_wait_ms=_since_sent(record, None if record is None else record.started_ms),
        end_to_end_ms=_since_sent(record, None if record is None else record.finished_ms),
        written=None if record is None else record.written,
        duplicates=None if record is None else record.duplicates,
        sdk_retries=None if record is None else record.sdk_retries,
        receive_count=None if record is None else record.receive_count,
        wru=None if record is None else record.consumed_wru,
        log_bytes=None if observed is None else observed.log_bytes,
        cost_lambda_usd=cost.lambda_usd,
        cost_dynamodb_usd=cost.dynamodb_usd,
        cost_sqs_usd=cost.sqs_usd,
        cost_logs_usd=cost.logs_usd,
        cost_total_usd=cost.total_usd,
        cost_per_item_usd=_per_item(cost, record),
        valid=not reasons,
        reason="; ".join(reasons) or None,
    )


def _own_records(result: TrialResult, observed: Observed) -> list[FunctionRecord]:
    """What an invocation wrote of the messages of a trial, one record each."""
    return list(
        {record.batch_id: record for record in observed.records if record.batch_id in result.batch_ids}.values()
    )


def _messages_of(observed: Observed) -> int:
    """How many messages an invocation held, by its records; those that it refused have no name."""
    names = [record.batch_id for record in observed.records]
    return len(set(names) - {None}) + names.count(None)


def _together(records: Sequence[FunctionRecord]) -> FunctionRecord | None:
    """The records of one invocation's messages as one; what one of them does not say is not known of all."""
    if len(records) < 2:
        return records[0] if records else None
    of_all = {}
    for name, whole in _OF_ALL.items():
        values = [getattr(record, name) for record in records]
        of_all[name] = None if None in values else whole(values)
    error = next((record.error for record in records if record.error is not None), None)
    return msgspec.structs.replace(records[0], **of_all, error=error)


def _faults(
    language: str,
    modes: Collection[str],
    result: TrialResult,
    observed: Observed | None,
    report: PlatformReport | None,
    record: FunctionRecord | None,
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
    own = _own_records(result, observed)
    if len(own) < result.messages and (report is None or report.status is None):  # else it did not come to the others
        faults.append(f"the batch was split, and it held {len(own)} of {result.messages} messages")
    if len(observed.records) > len(own):
        faults.append(f"{'one' if len(own) == 1 else len(own)} of {len(observed.records)} messages of its invocation")
    faults += dict.fromkeys(said for one in own for said in _contradictions(language, modes, result, one))
    if record.error is not None:
        said = f"the function reported {record.error.code}: {record.error.message}"
        faults += [] if said == result.reason else [said]
    if record.receive_count not in (None, 1):
        faults.append(f"received {record.receive_count} times")
    if record.sdk_retries:
        faults.append(f"{record.sdk_retries} SDK retries")
    if (resent := sum(map(_resent_calls, own))) > 0:
        faults.append(f"{resent} calls more for items that DynamoDB left unprocessed")
    if record.duplicates:
        faults.append(f"{record.duplicates} items were there already")
    if report is not None and record.cold_start and report.start is Start.WARM and report.refused is None:
        faults.append("initialised inside the invocation, after a reset")
    return faults


def _contradictions(
    language: str, modes: Collection[str], result: TrialResult, record: FunctionRecord
) -> Iterator[str]:
    """What a record says that cannot be of the message that was sent (contracts/log_record.schema.json)."""
    load = result.trial.load
    for member, asked in (
        ("lang", (language,)),
        ("mode", modes),
        ("label", (load.label,)),
        ("count", (load.count,)),
        ("size_bytes", (load.size_bytes,)),
    ):
        said = getattr(record, member)
        if said is not None and said not in asked:
            yield f"its record says {member} {str(said)[:64]!r} where {' or '.join(map(str, asked))} was asked"
    if record.written is not None and record.written > load.count:
        yield f"its record says {record.written} items where {load.count} were asked"
    if record.finished_ms < record.started_ms:
        yield f"its record says that it ended {record.started_ms - record.finished_ms} ms before it began"


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
    if report.unpriced is not None:
        faults.append(f"the REPORT line is not priced: {report.unpriced}")
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
    share: _Share,
    sent_together: int,
    prices: PriceSheet,
) -> Cost:
    """What a row's own messages cost: their part of the invocation, and what they wrote themselves."""
    usable = report if report is not None and report.refused is None and report.unpriced is None else None
    exact = invocation_cost(
        prices,
        architecture=architecture,
        memory_mb=None if usable is None else usable.memory_mb,
        billed_ms=None if usable is None else usable.billed_ms,
        wru=None if record is None else record.consumed_wru,
        sqs_bytes=None,
        log_bytes=None if observed is None else observed.log_bytes,
    )
    requests = shared_requests(result.message_bytes / result.messages, sent=sent_together, received=share.whole)
    return Cost(
        lambda_usd=rounded(share.of(exact.lambda_usd)),
        dynamodb_usd=rounded(exact.dynamodb_usd),
        sqs_usd=None if observed is None else rounded(sqs_usd(prices, share.own * requests)),
        logs_usd=rounded(share.of(exact.logs_usd)),
    )


def _per_item(cost: Cost, record: FunctionRecord | None) -> Decimal | None:
    if record is None or not record.written or cost.total_usd is None:
        return None
    return rounded(cost.total_usd / record.written)


def _since_sent(record: FunctionRecord | None, moment_ms: int | None) -> int | None:
    if record is None or record.sent_ms is None or moment_ms is None:
        return None
    # two clocks that disagree, or a record that is wrong: then it is not known
    waited_ms = moment_ms - record.sent_ms
    return waited_ms if 0 <= waited_ms <= _LONGEST_MS else None


def _timestamp(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds")
