"""The lines Lambda and a function write to the log: how they read, and how Lambda writes them, line end included. Pure.

Lambda writes tab-separated fields (text format) or one JSON record (JSON format). Fields are found by label: their
order follows the features in use. Lines that no AWS platform measured are read too, but refused as measurements.
Formats: "Lambda runtime environment" and "Log formats" in the Lambda developer guide; EMF specification.
"""

import math
import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, Literal

import msgspec

from lambdalab.records.trials import FunctionRecord, PlatformReport


class MalformedLineError(ValueError):
    """A line that says what it is and is damaged. Collection counts it and keeps the raw line."""

    def __init__(self, problem: str, message: str) -> None:
        super().__init__(f"{problem[:300]}, in {message[:300]!r}")


class MalformedReportError(MalformedLineError):
    """A REPORT line or ``platform.report`` record from which no report can be read."""


class MalformedRecordError(MalformedLineError):
    """A function's log record that does not follow its contract."""


_Ms = Annotated[float, msgspec.Meta(ge=0, lt=1e12)]  # twelve digits, as the patterns of text lines allow
_Mb = Annotated[int, msgspec.Meta(ge=0, lt=10**12)]
_Name = Annotated[str, msgspec.Meta(min_length=1)]


class PlatformFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why an invocation ended without the function's own answer, as Lambda logs it."""

    request_id: str
    error_type: str
    message: str


class _Metrics(msgspec.Struct):
    duration_ms: _Ms = msgspec.field(name="durationMs")
    billed_ms: _Ms | None = msgspec.field(name="billedDurationMs", default=None)
    memory_mb: Annotated[int, msgspec.Meta(ge=1, lt=10**12)] | None = msgspec.field(name="memorySizeMB", default=None)
    max_memory_mb: _Mb | None = msgspec.field(name="maxMemoryUsedMB", default=None)
    init_ms: _Ms | None = msgspec.field(name="initDurationMs", default=None)
    restore_ms: _Ms | None = msgspec.field(name="restoreDurationMs", default=None)
    billed_restore_ms: _Ms | None = msgspec.field(name="billedRestoreDurationMs", default=None)


class _Report(msgspec.Struct, rename="camel"):
    request_id: _Name
    metrics: _Metrics
    status: str | None = None
    error_type: str | None = None


class _ReportEvent(msgspec.Struct):
    record: _Report


class _Kind(msgspec.Struct):
    type: object = None


class _Subject(msgspec.Struct, rename="camel"):
    request_id: str | None = None


class _Event(msgspec.Struct):
    """As much of any JSON line as tells what it is and whose."""

    type: str | None = None
    record: _Subject | None = None
    emf: object = msgspec.field(name="_aws", default=None)
    request_id: str | None = None


_JSON_REPORT = re.compile(r'\{.*"type"\s*:\s*"platform\.report"', re.DOTALL)
_PLATFORM = re.compile(r"(?:START|END|REPORT) RequestId: |INIT_(?:START|REPORT) |XRAY TraceId: ")
_OF_REQUEST = re.compile(r"(?:START|END|REPORT) RequestId: (\S+)")
_TIMED_OUT: Final = "Sandbox.Timedout"
_TIMEOUT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z (\S+) (Task timed out after [\d.]+ seconds)\s*")
_CRASH = re.compile(r"RequestId: (\S+) Error: (.+)\n(\S+)\s*")
_MS = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ms")
_MB = re.compile(r"([0-9]{1,12}) MB")
_TIMES = ("Duration", "Billed Duration", "Init Duration", "Restore Duration", "Billed Restore Duration")
_QUANTITIES = dict.fromkeys(_TIMES, _MS) | dict.fromkeys(("Memory Size", "Max Memory Used"), _MB)
_REQUEST = "REPORT RequestId"
_NEEDED = ("Duration", "Memory Size")

_UNREADABLE: Final = (ValueError, RecursionError)
"""Not JSON, or not what is wanted; a lone surrogate; JSON that nests deeper than Python's stack."""

PRINT_SLACK_MS: Final = 0.005
"""How far a time may be from the two decimals it is printed with."""
BINARY_SLACK_MS: Final = 1e-9
"""So that binary fractions do not lift a sum over a whole millisecond."""

MANAGED_INSTANCES: Final = (
    "it has no Billed Duration, so it is of Lambda Managed Instances, which are paid by the instance"
)
INIT_APART: Final = (
    "Billed Duration leaves Init Duration out, as with provisioned concurrency or before August 2025, and this lab has "
    "only today's prices of on-demand functions"
)
FULL_MEMORY: Final = "Max Memory Used is the configured Memory Size, so it was not measured"


def parse_report(message: str) -> PlatformReport | None:
    """Read the report in a log message; None when the message is anything else.

    A status of success is given as None in both formats: text lines never print it.

    Args:
        message: one log event; line ends and XRAY fields after the report are allowed.

    Returns:
        The report. ``refused`` is set when the line cannot be a measurement of Lambda:

        - Init Duration stands before Duration: the Runtime Interface Emulator, which bills without init;
        - Max Memory Used is 0 (then it is also None), or durations are printed in whole milliseconds: MiniStack;
        - Billed Duration is not what the printed durations allow.

        ``unpriced`` is set when there is no Billed Duration (Lambda Managed Instances), or when it leaves Init
        Duration out (provisioned concurrency). A function may use all its memory, so Max Memory Used that equals
        Memory Size is a doubt only beside lines that an emulator wrote: see ``beside_others``.

    Raises:
        MalformedReportError: the message claims to be a report but lacks a field, repeats one with another value,
            or holds a number that is not one.
    """
    if message.startswith("REPORT RequestId:"):
        return _text_report(message)
    if "platform.report" in message and _JSON_REPORT.match(message):
        return _json_report(message)
    return None


def request_id_of(message: str) -> str | None:
    """Tell which invocation a START, END or REPORT line, a ``platform.*`` or a function's record belongs to."""
    if found := _OF_REQUEST.match(message):
        return found[1]
    if (failure := parse_failure(message)) is not None:
        return failure.request_id
    event = _event(message)
    if event is None:
        return None
    if event.type is not None and event.type.startswith("platform."):
        return event.record.request_id if event.record else None
    return event.request_id if event.emf is not None else None


def is_platform_line(line: str) -> bool:
    """Whether Lambda wrote a line of a text log, not the function."""
    return _PLATFORM.match(line) is not None or parse_failure(line) is not None


def parse_failure(message: str) -> PlatformFailure | None:
    """Read the line that Lambda writes for a timeout or a crash; None when the message is anything else."""
    if found := _TIMEOUT.fullmatch(message):
        return PlatformFailure(request_id=found[1], error_type=_TIMED_OUT, message=found[2])
    if found := _CRASH.fullmatch(message):
        return PlatformFailure(request_id=found[1], error_type=found[3], message=found[2])
    return None


def parse_record(message: str) -> FunctionRecord | None:
    """Read the function's own record: a JSON line with an EMF header (``_aws``) and a ``request_id``; else None.

    Raises:
        MalformedRecordError: the line is such a record, but a member is missing or has another type.
    """
    event = _event(message)
    if event is None or event.emf is None or event.request_id is None:
        return None
    try:
        return msgspec.json.decode(message, type=FunctionRecord)
    except _UNREADABLE as problem:
        raise MalformedRecordError(str(problem), message) from problem


def _event(message: str) -> _Event | None:
    if not message.startswith("{"):
        return None
    try:
        return msgspec.json.decode(message, type=_Event)
    except _UNREADABLE:  # an application may log what it likes
        return None


def _text_report(message: str) -> PlatformReport:
    fields: dict[str, str] = {}
    for part in re.split(r"[\t\r\n]+", message.strip()):
        label, _, value = part.strip().partition(": ")
        if not value:
            raise MalformedReportError(f"field {label!r} has no value", message)
        if fields.setdefault(label, value) != value:
            raise MalformedReportError(f"{label} stands twice with different values", message)
    if _REQUEST not in fields:
        raise MalformedReportError(f"{_REQUEST} is missing", message)
    numbers: dict[str, float] = {}
    for label, pattern in _QUANTITIES.items():
        if label in fields:
            found = pattern.fullmatch(fields[label])
            if not found:
                raise MalformedReportError(f"{label} is {fields[label]!r}", message)
            numbers[label] = float(found[1])
        elif label in _NEEDED:
            raise MalformedReportError(f"{label} is missing", message)
    if not numbers["Memory Size"]:
        raise MalformedReportError("Memory Size is 0", message)

    doubts: list[str] = []
    labels = list(fields)
    emulated = "Init Duration" in fields and labels.index("Init Duration") < labels.index("Duration")
    if emulated:
        doubts.append("Init Duration stands before Duration, as only the Runtime Interface Emulator writes it")
    if any("." not in fields.get(label, ".") for label in ("Duration", "Init Duration")):
        doubts.append("durations are whole milliseconds, where Lambda prints two decimals")
    return _judged(
        PlatformReport(
            request_id=fields[_REQUEST],
            duration_ms=numbers["Duration"],
            billed_ms=numbers.get("Billed Duration"),
            memory_mb=int(numbers["Memory Size"]),
            max_memory_mb=int(numbers["Max Memory Used"]) if "Max Memory Used" in numbers else None,
            init_ms=numbers.get("Init Duration"),
            restore_ms=numbers.get("Restore Duration"),
            billed_restore_ms=numbers.get("Billed Restore Duration"),
            status=fields.get("Status"),
            error_type=fields.get("Error Type"),
            emulated=emulated,
        ),
        doubts,
    )


def _json_report(message: str) -> PlatformReport | None:
    try:
        if msgspec.json.decode(message, type=_Kind).type != "platform.report":
            return None  # an application's line that carries such a record further inside
        record = msgspec.json.decode(message, type=_ReportEvent).record
    except _UNREADABLE as problem:
        raise MalformedReportError(str(problem), message) from problem
    return _judged(
        PlatformReport(
            request_id=record.request_id,
            **msgspec.structs.asdict(record.metrics),
            status=record.status,
            error_type=record.error_type,
        ),
        [],
    )


def beside_others(report: PlatformReport, *, emulated: bool, unpriced: str | None) -> PlatformReport:
    """Judges a report by what other lines of its log group are.

    The Runtime Interface Emulator prints the configured size as Max Memory Used, and a warm line of it has no other
    sign. A warm line of provisioned concurrency looks like any other.

    Args:
        report: as ``parse_report`` read it.
        emulated: True if a line of the group has the form of the Runtime Interface Emulator.
        unpriced: why a report of the group is not priced, if one is not.
    """
    doubts = [] if report.refused is None else [report.refused]
    if emulated and not report.emulated and _is_full(report):
        doubts.append(FULL_MEMORY)
    return msgspec.structs.replace(report, refused="; ".join(doubts) or None, unpriced=report.unpriced or unpriced)


def _is_full(report: PlatformReport) -> bool:
    return report.max_memory_mb is not None and report.max_memory_mb == report.memory_mb and report.status is None


def _judged(report: PlatformReport, doubts: list[str]) -> PlatformReport:
    """Adds every reason, from the format or from the numbers, not to take the report for a measurement."""
    unpriced = None
    report = msgspec.structs.replace(report, status=None if report.status == "success" else report.status)
    if report.max_memory_mb == 0:
        doubts.append("Max Memory Used is 0 MB, so it was not measured")
    if report.emulated and _is_full(report):
        doubts.append(FULL_MEMORY)
    if report.billed_ms is None:
        unpriced = MANAGED_INSTANCES
    elif not _is_billable(report, report.init_ms):
        if report.init_ms is not None and not report.emulated and _is_billable(report, None):
            unpriced = INIT_APART
        else:
            least, most = _billable(report, report.init_ms)
            expected = f"{least}" if least == most else f"{least} or {most}"
            doubts.append(f"Billed Duration is {report.billed_ms:g} ms where the printed durations give {expected} ms")
    return msgspec.structs.replace(
        report, max_memory_mb=report.max_memory_mb or None, refused="; ".join(doubts) or None, unpriced=unpriced
    )


def _is_billable(report: PlatformReport, init_ms: float | None) -> bool:
    least, most = _billable(report, init_ms)
    return report.billed_ms is not None and least <= report.billed_ms <= most


def _billable(report: PlatformReport, init_ms: float | None) -> tuple[int, int]:
    """Bound the whole milliseconds that the true times behind the printed ones can be billed as.

    Billed is the ceiling of Duration + Init Duration (+ Billed Restore Duration, a whole number, with SnapStart), where
    provisioned concurrency leaves Init Duration out (``init_ms`` is None).
    Whether Lambda rounds up before or after it prints two decimals is not documented, so each time may be 0.005 ms
    off: a Duration of 2.00 ms was 1.995 to 2.005 and is billed as 2 or 3.
    """
    total = report.duration_ms + (init_ms or 0) + (report.billed_restore_ms or 0)
    slack = PRINT_SLACK_MS if init_ms is None else 2 * PRINT_SLACK_MS
    least, most = (math.ceil(total + end - BINARY_SLACK_MS) for end in (-slack, slack))
    return least, most


def billed_ms(duration_ms: float, init_ms: float | None) -> int:
    """Compute what Lambda bills: duration and, in a cold start, init, up to a whole millisecond, at least 1.

    The ceiling is taken of the sum as printed, with two decimals, so that a reader of the line can check it.
    Init counts for every package type since 2025-08-01 (AWS Compute Blog): 130.49 + 15.74 is billed as 147.
    """
    return max(1, math.ceil(_printed(duration_ms) + _printed(init_ms or 0)))


def render_start(request_id: str, version: str = "$LATEST") -> str:
    """Write the line that begins an invocation."""
    return f"START RequestId: {request_id} Version: {version}\n"


def render_end(request_id: str) -> str:
    """Write the line that ends an invocation, before its REPORT."""
    return f"END RequestId: {request_id}\n"


def render_failure(failure: PlatformFailure, at: datetime) -> str:
    """Write the line of a timeout or a crash, which stands before END.

    Source: AWS Lambda Developer Guide, "Understand the Lambda execution environment lifecycle"; the line ends as logs
    from AWS show them.

    Args:
        failure: what happened.
        at: when, in UTC; only a timeout's line says it.
    """
    if failure.error_type == _TIMED_OUT:
        time = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"{time} {failure.request_id} {failure.message}\n\n"
    return f"RequestId: {failure.request_id} Error: {failure.message}\n{failure.error_type}\n"


def render_report(report: PlatformReport) -> str:
    """Write the REPORT line: a field that is None is left out, and what judges a line is no field.

    Without a status the fields end in a tab, as Lambda's do.
    """
    fields = [
        f"REPORT RequestId: {report.request_id}",
        f"Duration: {_printed(report.duration_ms)} ms",
    ]
    optional = (
        ("Billed Duration: {:.0f} ms", report.billed_ms),
        ("Memory Size: {} MB", report.memory_mb),
        ("Max Memory Used: {} MB", report.max_memory_mb),
        ("Restore Duration: {:.2f} ms", report.restore_ms),
        ("Billed Restore Duration: {:.0f} ms", report.billed_restore_ms),
        ("Init Duration: {:.2f} ms", report.init_ms),
        ("Status: {}", report.status),
        ("Error Type: {}", report.error_type),
    )
    fields += [form.format(value) for form, value in optional if value is not None]
    return "\t".join(fields) + ("\t\n" if report.status is None else "\n")


def render_init_report(
    *, phase: Literal["init", "invoke"], status: str, init_ms: float | None, error_type: str | None = None
) -> str:
    """Write the line of an init that failed or took too long.

    Args:
        phase: ``invoke`` when init is repeated inside an invocation.
        status: ``timeout`` or ``error``.
        init_ms: how long it ran; left out when it was not measured.
        error_type: such as ``Runtime.ExitError``; Lambda prints it for a status of ``error`` only.
    """
    fields = [] if init_ms is None else [f"Init Duration: {_printed(init_ms)} ms"]
    fields += [f"Phase: {phase}", f"Status: {status}"]
    if error_type is not None and status == "error":
        fields.append(f"Error Type: {error_type}")
    return "INIT_REPORT " + "\t".join(fields) + "\n"


def _printed(time_ms: float) -> Decimal:
    """Round a time as Lambda prints it, to two decimals."""
    return Decimal(f"{time_ms:.2f}")
