"""Lambda's lines: read as AWS writes them, written as AWS writes them, refused where nobody measured."""

import json
import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
import pytest

from lambdalab.design.arms import Start
from lambdalab.logs.platform_lines import (
    FULL_MEMORY,
    INIT_APART,
    MANAGED_INSTANCES,
    MalformedRecordError,
    MalformedReportError,
    PlatformFailure,
    beside_others,
    billed_ms,
    is_platform_line,
    parse_failure,
    parse_record,
    parse_report,
    render_end,
    render_failure,
    render_init_report,
    render_report,
    render_start,
    request_id_of,
)
from lambdalab.records.trials import PlatformReport

ID = "8f507cfc-xmpl-4697-b07a-ac58fc914c95"


def line(*fields: str) -> str:
    return "\t".join([f"REPORT RequestId: {ID}", *fields])


def as_json(metrics: Mapping[str, object], *, message_id: str = ID, **more: str) -> str:
    record = {"requestId": message_id, "status": "success", "metrics": metrics, "tracing": {"spanId": "s"}, **more}
    return json.dumps({"time": "2026-11-20T10:00:00.123Z", "type": "platform.report", "record": record})


COLD = line(
    "Duration: 15.74 ms",
    "Billed Duration: 147 ms",
    "Memory Size: 128 MB",
    "Max Memory Used: 56 MB",
    "Init Duration: 130.49 ms",
)
WARM = line("Duration: 1.23 ms", "Billed Duration: 2 ms", "Memory Size: 128 MB", "Max Memory Used: 56 MB")
COLD_REPORT = PlatformReport(
    request_id=ID, duration_ms=15.74, billed_ms=147, memory_mb=128, max_memory_mb=56, init_ms=130.49
)
WARM_REPORT = PlatformReport(request_id=ID, duration_ms=1.23, billed_ms=2, memory_mb=128, max_memory_mb=56)
COLD_METRICS: dict[str, object] = {
    "durationMs": 15.74,
    "billedDurationMs": 147,
    "memorySizeMB": 128,
    "maxMemoryUsedMB": 56,
    "initDurationMs": 130.49,
}


@pytest.mark.parametrize(
    ("message", "report"),
    [
        pytest.param(COLD, COLD_REPORT, id="cold"),
        pytest.param(WARM, WARM_REPORT, id="warm"),
        pytest.param(
            line(
                "Duration: 2338.66 ms",
                "Billed Duration: 2521 ms",
                "Memory Size: 3009 MB",
                "Max Memory Used: 173 MB",
                "Restore Duration: 398.97 ms",
                "Billed Restore Duration: 182 ms",
            ),
            PlatformReport(
                request_id=ID,
                duration_ms=2338.66,
                billed_ms=2521,
                memory_mb=3009,
                max_memory_mb=173,
                restore_ms=398.97,
                billed_restore_ms=182,
            ),
            id="SnapStart",
        ),
        pytest.param(
            line(
                "Duration: 3016.78 ms",
                "Billed Duration: 3101 ms",
                "Memory Size: 128 MB",
                "Max Memory Used: 31 MB",
                "Init Duration: 84.00 ms",
                "Status: timeout",
            ),
            PlatformReport(
                request_id=ID,
                duration_ms=3016.78,
                billed_ms=3101,
                memory_mb=128,
                max_memory_mb=31,
                init_ms=84.0,
                status="timeout",
            ),
            id="timeout",
        ),
        pytest.param(
            line(
                "Duration: 133.61 ms",
                "Billed Duration: 214 ms",
                "Memory Size: 128 MB",
                "Max Memory Used: 31 MB",
                "Init Duration: 80.00 ms",
                "Status: error",
                "Error Type: Runtime.ExitError",
            ),
            PlatformReport(
                request_id=ID,
                duration_ms=133.61,
                billed_ms=214,
                memory_mb=128,
                max_memory_mb=31,
                init_ms=80.0,
                status="error",
                error_type="Runtime.ExitError",
            ),
            id="crash",
        ),
        pytest.param(
            line(
                "Duration: 6954.19 ms",
                "Billed Duration: 6955 ms",
                "Memory Size: 1024 MB",
                "Max Memory Used: 1024 MB",
                "Status: error",
                "Error Type: Runtime.OutOfMemory",
            ),
            PlatformReport(
                request_id=ID,
                duration_ms=6954.19,
                billed_ms=6955,
                memory_mb=1024,
                max_memory_mb=1024,
                status="error",
                error_type="Runtime.OutOfMemory",
            ),
            id="out of memory may reach the limit",
        ),
    ],
)
def test_a_line_of_lambda_is_read_whole_and_written_back(message: str, report: PlatformReport) -> None:
    assert parse_report(message) == report
    assert render_report(report) == message + ("\t\n" if report.status is None else "\n")


@pytest.mark.parametrize("end", ["\n", "\t\n", "\t\nXRAY TraceId: 1-5e34\tSegmentId: 07f5\tSampled: true\t\n", "\r\n"])
def test_what_follows_the_report_does_not_matter(end: str) -> None:
    assert parse_report(COLD + end) == COLD_REPORT
    assert parse_report(COLD + "\tXRAY TraceId: 1-5e34" + end) == COLD_REPORT


def test_fields_are_found_by_label_in_any_order_and_new_ones_are_passed_over() -> None:
    head, *fields = COLD.split("\t")
    shuffled = "\t".join([head, *sorted(fields), "Colour Depth: 24 bit"])
    assert parse_report(shuffled) == COLD_REPORT
    assert parse_report(COLD + "\tDuration: 15.74 ms") == COLD_REPORT, "the same field with the same value"


def test_json_and_text_give_the_same_report() -> None:
    assert parse_report(as_json(COLD_METRICS)) == COLD_REPORT
    restored = COLD_METRICS | {"restoreDurationMs": 398.97, "billedRestoreDurationMs": 20, "billedDurationMs": 167}
    report = parse_report(as_json(restored))
    assert report is not None
    assert (report.restore_ms, report.billed_restore_ms, report.refused) == (398.97, 20, None)
    failed = parse_report(as_json(COLD_METRICS, status="error", errorType="Runtime.ExitError"))
    assert failed is not None
    assert (failed.status, failed.error_type) == ("error", "Runtime.ExitError")


@pytest.mark.parametrize(
    "message",
    [
        "",
        f"START RequestId: {ID} Version: $LATEST\n",
        f"END RequestId: {ID}\n",
        "INIT_START Runtime Version: python:3.12.v18\tRuntime Version ARN: arn:aws:lambda:eu-west-1::runtime:edb5",
        "INIT_REPORT Init Duration: 9999.79 ms\tPhase: init\tStatus: timeout",
        "RESTORE_REPORT Restore Duration: 1236.04 ms\tStatus: timeout",
        "XRAY TraceId: 1-5e34a614-10bdxmplf1fb44f07bc535a1\tSegmentId: 07f5xmpl2d1f6f85\tSampled: true",
        f"RequestId: {ID} Error: Runtime exited with error: signal: killed\nRuntime.ExitError",
        f"2024-03-04T17:22:38.033Z {ID} Task timed out after 3.00 seconds",
        "REPORT of the day: 3 orders",
        f"the line was: {COLD}",
        '{"type": "platform.initReport", "record": {"metrics": {"durationMs": 1.5}}}',
        '{"level": "INFO", "message": "saw a platform.report"}',
        '{"level": "INFO", "seen": {"type": "platform.report", "record": {}}}',
        '{"type": 7, "seen": [{"type": "platform.report"}]}',
        'platform.report "type":"platform.report"',
    ],
)
def test_any_other_line_is_no_report(message: str) -> None:
    assert parse_report(message) is None


def without(label: str) -> str:
    return "\t".join(field for field in COLD.split("\t") if not field.startswith(label))


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(without("Duration"), id="no duration"),
        pytest.param("REPORT RequestId: x\tDuration: 1.00 ms", id="cut"),
        pytest.param(without("Memory"), id="no memory size"),
        pytest.param(COLD.replace("15.74", "-15.74"), id="negative"),
        pytest.param(COLD.replace("15.74", "nan"), id="NaN"),
        pytest.param(COLD.replace("15.74", "1e3"), id="exponent"),
        pytest.param(COLD.replace("15.74", "9" * 400), id="endless"),
        pytest.param(COLD.replace("15.74", "\u0661\u0662.00"), id="digits of another script"),
        pytest.param(COLD.replace("130.49 ms", "130.49"), id="no unit"),
        pytest.param(COLD.replace("130.49 ms", "130.49 MB"), id="wrong unit"),
        pytest.param(COLD.replace("56 MB", "56 ms"), id="memory in ms"),
        pytest.param(COLD.replace("128 MB", "128.5 MB"), id="part of a MB"),
        pytest.param(COLD.replace("128 MB", "0 MB"), id="no memory"),
        pytest.param(COLD + "\tDuration: 99.00 ms", id="two values"),
        pytest.param(COLD + "\nREPORT RequestId: another", id="two reports"),
        pytest.param(COLD.replace("\t", "  "), id="tabs lost"),
        pytest.param(COLD[:-30], id="cut in a label"),
        pytest.param("REPORT RequestId: ", id="nothing"),
        pytest.param(COLD.replace("RequestId: ", "RequestId:: "), id="no request id"),
        pytest.param(as_json(COLD_METRICS)[:-20], id="JSON cut"),
        pytest.param(as_json(COLD_METRICS | {"durationMs": -1}), id="JSON negative"),
        pytest.param(as_json(COLD_METRICS | {"durationMs": "15.74"}), id="JSON text for a number"),
        pytest.param(as_json(COLD_METRICS | {"durationMs": None}), id="JSON null"),
        pytest.param(as_json(COLD_METRICS | {"memorySizeMB": 0}), id="JSON no memory"),
        pytest.param(as_json(COLD_METRICS, message_id=""), id="JSON no request id"),
        pytest.param(as_json({"billedDurationMs": 1}), id="JSON lacks fields"),
        pytest.param('{"type": "platform.report"}', id="JSON without record"),
    ],
)
def test_a_damaged_report_is_an_error_that_shows_the_line(message: str) -> None:
    with pytest.raises(MalformedReportError, match=r"REPORT|platform\.report"):
        parse_report(message)


RIE = line("Init Duration: 0.11 ms", "Duration: 95.41 ms", "Billed Duration: 96 ms", "Memory Size: 128 MB")
MINISTACK = line("Duration: 55 ms", "Billed Duration: 55 ms", "Memory Size: 128 MB", "Max Memory Used: 0 MB")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(RIE + "\tMax Memory Used: 60 MB", "Init Duration stands before", id="RIE order"),
        pytest.param(RIE + "\tMax Memory Used: 128 MB", "configured Memory Size", id="RIE memory"),
        pytest.param(MINISTACK, "whole milliseconds", id="MiniStack times"),
        pytest.param(MINISTACK, "Max Memory Used is 0 MB", id="MiniStack memory"),
        pytest.param(WARM.replace("56 MB", "0 MB"), "Max Memory Used is 0 MB", id="memory 0 alone"),
        pytest.param(COLD.replace("147", "17"), "Billed Duration is 17 ms .* 147 ms", id="part of init billed"),
        pytest.param(COLD.replace("147", "146.23"), "Billed Duration is 146.23 ms", id="billed not whole"),
        pytest.param(WARM.replace("2 ms", "100 ms"), "give 2 ms", id="billed in steps of 100 ms"),
        pytest.param(as_json(COLD_METRICS | {"billedDurationMs": 17}), "Billed Duration is 17 ms", id="JSON billed"),
        pytest.param(as_json(COLD_METRICS | {"maxMemoryUsedMB": 0}), "0 MB", id="JSON memory 0"),
    ],
)
def test_a_line_nobody_measured_is_refused_with_the_reason(message: str, reason: str) -> None:
    report = parse_report(message)
    assert report is not None
    assert re.search(reason, report.refused or "nothing refused")


FULL = WARM.replace("56 MB", "128 MB")


@pytest.mark.parametrize(
    "message", [FULL, COLD.replace("56 MB", "128 MB"), as_json(COLD_METRICS | {"maxMemoryUsedMB": 128})]
)
def test_a_function_may_use_all_its_memory(message: str) -> None:
    report = parse_report(message)
    assert report is not None
    assert (report.max_memory_mb, report.refused, report.unpriced) == (128, None, None)


def test_full_memory_is_a_doubt_beside_lines_of_an_emulator() -> None:
    warm, cold, full = (parse_report(message) for message in (WARM, RIE + "\tMax Memory Used: 128 MB", FULL))
    assert warm is not None
    assert cold is not None
    assert full is not None
    assert (warm.emulated, cold.emulated, full.emulated) == (False, True, False)
    beside = [beside_others(report, emulated=True, unpriced=None).refused for report in (warm, cold, full)]
    assert beside == [None, cold.refused, FULL_MEMORY]
    assert beside_others(full, emulated=False, unpriced="why") == msgspec.structs.replace(full, unpriced="why")


@pytest.mark.parametrize(
    "message",
    [COLD.replace("147 ms", "16 ms"), as_json(COLD_METRICS | {"billedDurationMs": 16})],
    ids=["text", "JSON"],
)
def test_a_report_of_provisioned_concurrency_is_read_and_not_priced(message: str) -> None:
    report = parse_report(message)
    assert report is not None
    assert (report.duration_ms, report.billed_ms, report.init_ms) == (15.74, 16, 130.49)
    assert (report.refused, report.unpriced) == (None, INIT_APART)


@pytest.mark.parametrize(
    ("message", "memory_mb"),
    [
        (WARM.replace("\tBilled Duration: 2 ms", ""), 128),
        (as_json({"durationMs": 1.23}), None),
        (as_json({"durationMs": 1.23, "memorySizeMB": 4096}), 4096),
    ],
    ids=["text", "JSON", "JSON with memory"],
)
def test_a_report_of_managed_instances_is_read_and_not_priced(message: str, memory_mb: int | None) -> None:
    report = parse_report(message)
    assert report is not None
    assert (report.duration_ms, report.billed_ms, report.memory_mb) == (1.23, None, memory_mb)
    assert (report.refused, report.unpriced) == (None, MANAGED_INSTANCES)


def test_unmeasured_memory_is_none_and_a_line_that_leaves_it_out_is_not_refused() -> None:
    zero = parse_report(WARM.replace("56 MB", "0 MB"))
    absent = parse_report(WARM.removesuffix("\tMax Memory Used: 56 MB"))
    assert zero is not None
    assert absent is not None
    assert (zero.max_memory_mb, absent.max_memory_mb, absent.refused) == (None, None, None)


@pytest.mark.parametrize(
    ("duration", "init", "billed", "accepted"),
    [
        ("2.00", None, 1, False),
        ("2.00", None, 2, True),
        ("2.00", None, 3, True),  # 2.004 ms is printed as 2.00 and billed as 3
        ("2.00", None, 4, False),
        ("2.01", None, 2, False),
        ("2.01", None, 3, True),
        ("1.99", None, 2, True),
        ("1.99", None, 3, False),
        ("1.01", "1.00", 2, True),  # 1.005 + 0.995
        ("1.01", "1.00", 3, True),
        ("1.02", "1.00", 2, False),
        ("0.99", "1.00", 3, False),
        ("0.00", None, 1, True),
        ("403.69", "2542.30", 2946, True),
        ("403.69", "2542.30", 2947, False),  # binary fractions would make 2945.99 + 0.01 more than 2946
    ],
)
def test_billed_may_differ_by_what_rounding_to_two_decimals_hides(
    duration: str, init: str | None, billed: int, accepted: bool
) -> None:
    fields = [f"Duration: {duration} ms", f"Billed Duration: {billed} ms", "Memory Size: 128 MB"]
    report = parse_report(line(*fields, *([f"Init Duration: {init} ms"] if init else [])))
    assert report is not None
    assert ((report.refused or report.unpriced) is None) is accepted, report.refused


@pytest.mark.parametrize(
    ("duration_ms", "init_ms", "billed"),
    [
        (15.74, 130.49, 147),
        (2.75, 113.51, 117),
        (133.61, 80.0, 214),
        (3016.78, 84.0, 3101),
        (1.23, None, 2),
        (2.0, None, 2),
        (2.004, None, 2),  # printed as 2.00
        (0.1, 0.2, 1),
        (70.1, 0.9, 71),  # binary fractions would give 71.00000000000001
        (0.001, None, 1),
    ],
)
def test_billed_is_the_sum_as_printed_rounded_up(duration_ms: float, init_ms: float | None, billed: int) -> None:
    assert billed_ms(duration_ms, init_ms) == billed


def test_whatever_is_written_is_read_back_unchanged() -> None:
    draw = random.Random(20261120)
    for _ in range(2_000):
        duration_ms = round(draw.lognormvariate(3, 2), 2)
        init_ms = draw.choice([None, round(draw.uniform(0, 10_000), 2)])
        status, error_type = draw.choice([(None, None), ("timeout", None), ("error", "Runtime.ExitError")])
        report = PlatformReport(
            request_id=f"{draw.getrandbits(128):032x}",
            duration_ms=duration_ms,
            billed_ms=billed_ms(duration_ms, init_ms),
            memory_mb=draw.randint(128, 10_240),
            max_memory_mb=draw.choice([None, draw.randint(1, 127)]),
            init_ms=init_ms,
            status=status,
            error_type=error_type,
        )
        assert parse_report(render_report(report)) == report


def test_cold_is_read_from_the_printed_init_even_when_it_is_zero() -> None:
    starts = [parse_report(message) for message in (COLD, WARM, COLD.replace("130.49", "0.00").replace("147", "16"))]
    assert [report.start for report in starts if report] == [Start.COLD, Start.WARM, Start.COLD]


def test_the_lines_around_an_invocation() -> None:
    assert render_start(ID) == f"START RequestId: {ID} Version: $LATEST\n"
    assert render_end(ID) == f"END RequestId: {ID}\n"


@pytest.mark.parametrize(
    ("rendered", "expected"),
    [
        (
            render_init_report(phase="init", status="timeout", init_ms=9999.79, error_type="Sandbox.Timedout"),
            "INIT_REPORT Init Duration: 9999.79 ms\tPhase: init\tStatus: timeout\n",
        ),
        (
            render_init_report(phase="invoke", status="error", init_ms=10.17, error_type="Runtime.ExitError"),
            "INIT_REPORT Init Duration: 10.17 ms\tPhase: invoke\tStatus: error\tError Type: Runtime.ExitError\n",
        ),
        (
            render_init_report(phase="init", status="error", init_ms=None, error_type="Runtime.ExitError"),
            "INIT_REPORT Phase: init\tStatus: error\tError Type: Runtime.ExitError\n",
        ),
    ],
)
def test_a_failed_init_is_written_as_lambda_writes_it(rendered: str, expected: str) -> None:
    assert rendered == expected


EMF = {
    "_aws": {"Timestamp": 1, "CloudWatchMetrics": []},
    "request_id": ID,
    "lang": "go",
    "cold_start": True,
    "started_ms": 1,
    "finished_ms": 9,
    "put_ms": {"n": 2, "p50": 1.5, "p95": 2.0, "max": 2.0},
    "consumed_wru": 4,
    "a_member_of_tomorrow": 1,
}


@pytest.mark.parametrize(
    ("message", "owner"),
    [
        (render_start(ID), ID),
        (render_end(ID), ID),
        (COLD, ID),
        (as_json(COLD_METRICS), ID),
        ('{"type": "platform.start", "record": {"requestId": "r1", "version": "$LATEST"}}', "r1"),
        (json.dumps(EMF) + "\n", ID),
        ('{"type": "platform.initStart", "record": {"phase": "init"}}', None),
        ('{"type": "platform.extension"}', None),
        ('{"request_id": "not EMF"}', None),
        ('{"type": "platform.start", "record": [1]}', None),
        ("INIT_REPORT Init Duration: 1.00 ms\tPhase: init", None),
        (f"RequestId: {ID} Error: Runtime exited with error: signal: killed\nRuntime.ExitError", ID),
        (f"2024-03-04T17:22:38.033Z {ID} Task timed out after 3.00 seconds\n\n", ID),
        (f"note: {ID} Task timed out after 3.00 seconds", None),
        ("{not JSON", None),
        (f"note: START RequestId: {ID}", None),
    ],
)
def test_a_line_tells_which_invocation_it_belongs_to(message: str, owner: str | None) -> None:
    assert request_id_of(message) == owner


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (
            PlatformFailure(request_id=ID, error_type="Sandbox.Timedout", message="Task timed out after 3.00 seconds"),
            f"2024-03-04T17:22:38.033Z {ID} Task timed out after 3.00 seconds\n\n",
        ),
        (
            PlatformFailure(
                request_id=ID, error_type="Runtime.ExitError", message="Runtime exited with error: exit status 1"
            ),
            f"RequestId: {ID} Error: Runtime exited with error: exit status 1\nRuntime.ExitError\n",
        ),
    ],
)
def test_the_cause_of_a_failure_is_written_as_lambda_does_and_read_back(failure: PlatformFailure, line: str) -> None:
    assert render_failure(failure, datetime(2024, 3, 4, 17, 22, 38, 33_000, UTC)) == line
    assert parse_failure(line) == failure
    assert is_platform_line(line)


def test_a_functions_record_is_read_and_unknown_members_are_passed_over() -> None:
    record = parse_record(json.dumps(EMF) + "\n")
    assert record is not None
    assert (record.request_id, record.cold_start, record.consumed_wru) == (ID, True, 4)
    assert record.put_ms is not None
    assert record.put_ms.p95 == 2.0
    assert (record.written, record.duplicates) == (None, None), "what is absent is None, not 0"


@pytest.mark.parametrize(
    "message", [COLD, as_json(COLD_METRICS), '{"request_id": "x"}', '{"_aws": {}}', '{"_aws": {', "{}", "[1]"]
)
def test_other_lines_are_no_record(message: str) -> None:
    assert parse_record(message) is None


def test_a_record_that_breaks_its_contract_is_an_error() -> None:
    with pytest.raises(MalformedRecordError, match=r"cold_start.*_aws"):
        parse_record(json.dumps(EMF | {"cold_start": "yes"}))
    with pytest.raises(MalformedRecordError, match="finished_ms"):
        parse_record(json.dumps({key: value for key, value in EMF.items() if key != "finished_ms"}))
