"""The experiment's types. Frozen; every number carries its unit; ``None`` means not measured, 0 is a measurement.

Words: a *trial* is one planned message, an *invocation* is what happened, an *environment* is a process that
runs a function, a *run* is one execution of a protocol (whose own types are in ``design/arms.py``).
"""

from decimal import Decimal
from typing import Annotated

import msgspec

from lambdalab.design.arms import Load, Start
from lambdalab.records.load import Sending

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
EpochMs = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
"""Milliseconds since 1970, to the end of the year 9999. Like the two above it bounds what a function says of itself:
a record outside is damaged, and must not end the analysis of the others."""


class Trial(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One planned message. ``position`` counts from 0 over the whole run and is the order of execution."""

    trial_id: str
    block: int
    position: int
    arm: str
    load: Load


class TrialResult(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the runner saw of one trial; one line of ``trials.jsonl``.

    ``reason`` is None when the queue drained and the table holds exactly the items asked for. ``drained_at_ms`` is None
    when the trial was interrupted or its messages did not drain. ``message_id`` is the first message's; bytes and items
    are of all ``messages`` together. ``sending`` is there in a load run, whose messages are not sent one at a time.
    """

    trial: Trial
    batch_id: str
    message_id: str | None
    sent_at_ms: EpochMs | None
    drained_at_ms: EpochMs | None
    message_bytes: Count
    items_expected: Count
    items_found: Count | None
    reason: str | None
    messages: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    sending: Sending | None = None

    @property
    def batch_ids(self) -> tuple[str, ...]:
        """Of each message, since items of one id would be the same items: the trial's own, or ``<its own>:1of5``."""
        return message_batch_ids(self.batch_id, self.messages)

    @property
    def finished(self) -> bool:
        """Whether it ran to its end, valid or not; one that did not is run again by ``--resume``."""
        return self.drained_at_ms is not None


def message_batch_ids(batch_id: str, messages: int) -> tuple[str, ...]:
    """The ``batch_id`` of each message of a trial."""
    if messages == 1:
        return (batch_id,)
    return tuple(f"{batch_id}:{number}of{messages}" for number in range(1, messages + 1))


class PlatformReport(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One REPORT line or ``platform.report`` record, as the platform wrote it.

    Durations in milliseconds, memory in MB of 1,048,576 bytes. Reports of Lambda Managed Instances have no
    ``billed_ms``, and may have no ``memory_mb``.

    Attributes:
        refused: why the line must not be used as a measurement, because an emulator wrote it that does not measure;
            else None.
        unpriced: why the prices of on-demand functions do not apply to it; else None.
        emulated: True if the line has a form that only the Runtime Interface Emulator writes.
    """

    request_id: str
    duration_ms: float
    billed_ms: float | None
    memory_mb: int | None
    max_memory_mb: int | None = None
    init_ms: float | None = None
    restore_ms: float | None = None
    billed_restore_ms: float | None = None
    status: str | None = None
    error_type: str | None = None
    refused: str | None = None
    unpriced: str | None = None
    emulated: bool = False

    @property
    def start(self) -> Start:
        """Cold when the platform printed the time of an init, or with SnapStart of a restore; else warm."""
        return Start.WARM if self.init_ms is None and self.restore_ms is None else Start.COLD


class PutTimes(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Time of the single puts of one message, in milliseconds, by nearest rank."""

    n: Count
    p50: Amount
    p95: Amount
    max: Amount


class RecordError(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The error a function wrote in its own record."""

    code: str
    message: str
    field: str | None = None


class FunctionRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The function's own log record (``contracts/log_record.schema.json``), without the EMF header."""

    request_id: str
    lang: str
    cold_start: bool
    started_ms: EpochMs
    finished_ms: EpochMs
    batch_id: str | None = None
    run_id: str | None = None
    label: str | None = None
    count: Count | None = None
    size_bytes: Count | None = None
    mode: str | None = None
    written: Count | None = None
    duplicates: Count | None = None
    batch_elapsed_ms: Amount | None = None
    put_ms: PutTimes | None = None
    consumed_wru: Amount | None = None
    sdk_retries: Count | None = None
    receive_count: Count | None = None
    sent_ms: EpochMs | None = None
    error: RecordError | None = None


class LogLine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One CloudWatch log event as collected; one line of ``platform.jsonl``."""

    log_group: str
    log_stream: str
    timestamp_ms: int
    message: str
    event_id: str


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one invocation costs, by component, in USD. A component that cannot be known is None."""

    lambda_usd: Decimal | None
    dynamodb_usd: Decimal | None
    sqs_usd: Decimal | None
    logs_usd: Decimal | None

    @property
    def total_usd(self) -> Decimal | None:
        """The sum, or None when a component is unknown: a partial sum would look like a total."""
        parts = (self.lambda_usd, self.dynamodb_usd, self.sqs_usd, self.logs_usd)
        return None if any(part is None for part in parts) else sum((p for p in parts if p is not None), Decimal())


class InvocationRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of ``metrics.csv``: one invocation, or a trial for which none was found. Missing is None, never 0.

    Of several messages of a trial in an invocation everything is of all of them (docs/method.md). Where an invocation
    held messages of several trials, each has a row: times, memory and ``log_bytes`` are the whole invocation's, and
    costs are the share of the row's own messages among its ``invocation_messages``. ``batch_size`` is the mapping's.
    """

    run_id: str
    scenario: str
    target: str
    latency_model: str | None
    cpu_scale: float
    arm: str
    language: str
    mode: str
    architecture: str
    memory_mb: int
    batch_size: int
    trial: str
    block: int
    label: str
    request_id: str | None
    invocation_messages: int | None
    started_at: str | None
    cold_start: bool | None
    duration_ms: float | None
    billed_ms: int | None
    init_ms: float | None
    max_memory_mb: int | None
    queue_wait_ms: int | None
    end_to_end_ms: int | None
    written: int | None
    duplicates: int | None
    sdk_retries: int | None
    receive_count: int | None
    wru: float | None
    log_bytes: int | None
    cost_lambda_usd: Decimal | None
    cost_dynamodb_usd: Decimal | None
    cost_sqs_usd: Decimal | None
    cost_logs_usd: Decimal | None
    cost_total_usd: Decimal | None
    cost_per_item_usd: Decimal | None
    valid: bool
    reason: str | None

    @property
    def init_and_first_ms(self) -> float | None:
        """What the first caller of a cold environment waits for: Init Duration and Duration; None of a warm one."""
        return None if self.init_ms is None or self.duration_ms is None else self.init_ms + self.duration_ms


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A median with its exact order-statistic interval, and what else is said of the samples, all in their unit.

    A percentile and its interval are None when n is too small for one, and then ``p95_more`` samples are missing.
    ``cv`` is the standard deviation over the mean, ``needed_n`` about how many samples would bring the interval within
    5 % of the median, ``outliers`` how many samples are outliers; they are in every number.
    """

    n: int
    median: float
    low: float | None
    high: float | None
    minimum: float
    maximum: float
    level: float
    q1: float
    q3: float
    cv: float | None
    p95: float | None
    p95_low: float | None
    p95_high: float | None
    p95_more: int
    p99: float | None
    p99_low: float | None
    p99_high: float | None
    p99_more: int
    needed_n: int | None
    outliers: int
    warnings: tuple[str, ...]

    @property
    def relative_width(self) -> float | None:
        """How far the further end of the interval is from the median, as a share of it; None without an interval."""
        if self.low is None or self.high is None or not self.median:
            return None
        return max(self.high - self.median, self.median - self.low) / self.median
