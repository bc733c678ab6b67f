"""From trials and log lines to rows: every rule of docs/method.md, one case each."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from samples import (
    BEGAN_MS,
    PRICES,
    RUN_ID,
    make_lines,
    make_manifest,
    make_report,
    make_result,
    make_trials,
    record_line,
    request_id,
)

from lambdalab.analysis.message_rows import join, missing_reports
from lambdalab.design.arms import Factors, Mode
from lambdalab.logs.observations import observe
from lambdalab.logs.platform_lines import INIT_APART, MANAGED_INSTANCES, render_report, render_start
from lambdalab.records.trials import InvocationRow, LogLine, TrialResult

MANIFEST = make_manifest(arms=("python",))
COLD, WARM = (make_result(trial) for trial in make_trials(MANIFEST))


def rows_of(trials: list[TrialResult], lines: list[LogLine]) -> list[InvocationRow]:
    return join(MANIFEST, trials, observe(lines), PRICES)


def row_of(result: TrialResult, *messages: str) -> InvocationRow:
    """The one row of a trial whose invocation logged these messages."""
    (row,) = rows_of([result], make_lines(result, *messages))
    return row


def test_a_cold_sample_exactly() -> None:
    logged = sum(len(line.message.encode()) + 26 for line in make_lines(COLD))
    lambda_usd = Decimal("0.147") * Decimal("0.125") * Decimal("0.0000166667") + Decimal("0.0000002")
    logs_usd = (logged * Decimal("0.5") / 2**30).quantize(Decimal("1e-18"))

    assert row_of(COLD) == InvocationRow(
        run_id=RUN_ID,
        scenario="ingest",
        target="local",
        latency_model=None,
        cpu_scale=1.0,
        arm="python",
        language="python",
        mode="sequential",
        architecture="x86_64",
        memory_mb=128,
        batch_size=1,
        invocation_messages=1,
        trial="b01-python-WARMUP",
        block=1,
        label="WARMUP",
        request_id="request-of-message-0-1",
        started_at="2026-11-21T10:00:00.060+00:00",
        cold_start=True,
        duration_ms=15.74,
        billed_ms=147,
        init_ms=130.49,
        max_memory_mb=56,
        queue_wait_ms=60,
        end_to_end_ms=80,
        written=1,
        duplicates=0,
        sdk_retries=0,
        receive_count=1,
        wru=2.0,
        log_bytes=logged,
        cost_lambda_usd=lambda_usd,
        cost_dynamodb_usd=Decimal("0.00000125"),  # 2 x 0.625 per million
        cost_sqs_usd=Decimal("0.0000012"),  # send, receive, delete: 3 x 0.40 per million
        cost_logs_usd=logs_usd,
        cost_total_usd=lambda_usd + Decimal("0.00000245") + logs_usd,
        cost_per_item_usd=lambda_usd + Decimal("0.00000245") + logs_usd,
        valid=True,
        reason=None,
    )


def test_a_warm_sample_has_no_init_and_shares_its_cost_among_its_items() -> None:
    row = row_of(WARM)
    assert (row.valid, row.reason, row.cold_start, row.init_ms, row.billed_ms) == (True, None, False, None, 16)
    assert row.cost_total_usd is not None
    assert row.cost_per_item_usd == (row.cost_total_usd / 100).quantize(Decimal("1e-18"))


BATCHED = make_manifest(factors=Factors(language=("python",), mode=(Mode.BATCH,), batch_size=(3,)))
THREE = make_result(make_trials(BATCHED)[1], message_bytes=300, messages=3, items_expected=300, items_found=300)
NUMBERS: list[dict[str, Any]] = [
    {"batch_id": f"{THREE.batch_id}:{n}of3", "sent_ms": BEGAN_MS + n, "started_ms": BEGAN_MS + 60 * n,
     "finished_ms": BEGAN_MS + 60 * n + 50, "consumed_wru": 200.0 + n}
    for n in (1, 2, 3)
]  # fmt: skip


def batched(*records: dict[str, Any]) -> InvocationRow:
    """The one row of a trial of three messages, whose invocation wrote these records."""
    written = [record_line(THREE, **changes) for changes in records]
    lines = make_lines(THREE, *written, render_report(make_report(THREE)))
    (row,) = join(BATCHED, [THREE], observe(lines), PRICES)
    return row


def test_an_invocation_with_a_whole_batch_is_one_sample_of_all_its_messages() -> None:
    row = batched(*NUMBERS)
    assert (row.valid, row.reason, row.trial) == (True, None, THREE.trial.trial_id)
    assert (row.duration_ms, row.billed_ms, row.written, row.duplicates, row.wru) == (15.74, 16, 300, 0, 606.0)
    assert (row.queue_wait_ms, row.end_to_end_ms) == (59, 229), "from the first sent to the first begun, the last done"
    assert row.cost_sqs_usd == Decimal("0.0000012"), "one send, one receive, one delete: 3 x 0.40 per million"
    assert row.cost_dynamodb_usd == Decimal("0.00037875")
    assert row.cost_total_usd is not None
    assert row.cost_per_item_usd == (row.cost_total_usd / 300).quantize(Decimal("1e-18"))


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (NUMBERS[:2], "the batch was split, and it held 2 of 3 messages"),
        (NUMBERS[1:2], "the batch was split, and it held 1 of 3 messages"),
        ([*NUMBERS, NUMBERS[2]], "3 of 4 messages of its invocation"),
        ([*NUMBERS, {"batch_id": "another"}], "3 of 4 messages of its invocation"),
        ([NUMBERS[0], NUMBERS[1], NUMBERS[2] | {"receive_count": 2}], "received 2 times"),
        ([NUMBERS[0], NUMBERS[1] | {"sdk_retries": 1}, NUMBERS[2] | {"sdk_retries": 2}], "3 SDK retries"),
        ([NUMBERS[0], NUMBERS[1], NUMBERS[2] | {"duplicates": 4}], "4 items were there already"),
        (
            [NUMBERS[0], NUMBERS[1] | {"mode": "batch", "put_ms": {"n": 5, "p50": 1, "p95": 1, "max": 1}}, NUMBERS[2]],
            "1 calls more for items that DynamoDB left unprocessed",
        ),
        (
            [NUMBERS[0], NUMBERS[1] | {"error": {"code": "WriteFailed", "message": "no table"}}, NUMBERS[2]],
            "the function reported WriteFailed: no table",
        ),
    ],
)
def test_why_a_batch_is_not_valid(records: list[dict[str, Any]], reason: str) -> None:
    row = batched(*records)
    assert (row.valid, row.reason) == (False, reason)


def test_a_batch_that_was_split_is_a_row_for_each_of_its_invocations() -> None:
    first = make_lines(THREE, record_line(THREE, **NUMBERS[0]), text(THREE))
    rest = [record_line(THREE, **NUMBERS[1]), record_line(THREE, **NUMBERS[2]), text(THREE)]
    second = make_lines(THREE, *(message.replace(request_id(THREE), "second") for message in rest))
    rows = join(BATCHED, [THREE], observe([*first, *second]), PRICES)
    assert [(row.request_id, row.written, row.valid) for row in rows] == [
        (request_id(THREE), 100, False), ("second", 200, False),
    ]  # fmt: skip
    assert [row.reason for row in rows] == [
        f"2 invocations worked on it; the batch was split, and it held {n} of 3 messages" for n in (1, 2)
    ]


def test_the_rows_of_a_batch_that_was_split_carry_its_one_send_once() -> None:
    lines = [*make_lines(THREE, record_line(THREE, **NUMBERS[0]), text(THREE))]
    other = [record_line(THREE, **(number | {"request_id": "second"})) for number in NUMBERS[1:]]
    lines += [
        msgspec.structs.replace(line, event_id=f"second/{line.event_id}")
        for line in make_lines(THREE, *other, text(THREE, request_id="second"))
    ]
    rows = join(BATCHED, [THREE], observe(lines), PRICES)
    assert [row.invocation_messages for row in rows] == [1, 2]
    requests = sum(row.cost_sqs_usd or 0 for row in rows) / Decimal("0.0000004")
    assert requests == pytest.approx(5, abs=Decimal("1e-9")), "one send, two receives, two deletes"


def test_an_invocation_that_ended_before_it_came_to_all_messages_is_not_called_a_split() -> None:
    lines = make_lines(THREE, record_line(THREE, **NUMBERS[0]), text(THREE, status="timeout"))
    (row,) = join(BATCHED, [THREE], observe(lines), PRICES)
    assert row.reason == "ended with status timeout"


def test_what_one_message_of_a_batch_does_not_say_is_not_known_of_all() -> None:
    row = batched(NUMBERS[0], NUMBERS[1] | {"consumed_wru": None}, NUMBERS[2])
    assert (row.valid, row.wru, row.cost_dynamodb_usd, row.cost_total_usd) == (True, None, None, None)


def test_a_restore_is_a_cold_start_without_init() -> None:
    row = row_of(
        COLD, record_line(COLD), text(COLD, init_ms=None, restore_ms=398.97, billed_restore_ms=182, billed_ms=198)
    )
    assert (row.valid, row.reason, row.cold_start, row.init_ms, row.billed_ms) == (True, None, True, None, 198)


def test_the_parts_of_a_cost_are_its_total_to_the_last_decimal() -> None:
    for row in rows_of([COLD, WARM], [*make_lines(COLD), *make_lines(WARM)]):
        parts = (row.cost_lambda_usd, row.cost_dynamodb_usd, row.cost_sqs_usd, row.cost_logs_usd)
        assert all(part is not None and part > 0 for part in parts)
        assert sum(part for part in parts if part is not None) == row.cost_total_usd


def text(result: TrialResult, **changes: Any) -> str:
    return render_report(make_report(result, **changes))


RIE = (
    "REPORT RequestId: {id}\tInit Duration: 0.11 ms\tDuration: 15.74 ms\tBilled Duration: 16 ms\t"
    "Memory Size: 128 MB\tMax Memory Used: 128 MB\t\n"
)
EMULATOR = (
    "REPORT RequestId: {id}\tDuration: 15 ms\tBilled Duration: 15 ms\tMemory Size: 128 MB\tMax Memory Used: 0 MB\n"
)


@pytest.mark.parametrize(
    ("result", "messages", "reason"),
    [
        pytest.param(WARM, [record_line(WARM)], "no REPORT line was found", id="no REPORT"),
        pytest.param(
            WARM,
            [record_line(WARM), text(WARM), text(WARM, duration_ms=15.75)],
            "2 REPORT lines for one request",
            id="two REPORTs",
        ),
        pytest.param(
            WARM,
            [record_line(WARM), RIE.format(id=request_id(WARM))],
            "the REPORT line is no measurement: Init Duration stands before Duration, as only the Runtime Interface "
            "Emulator writes it; Max Memory Used is the configured Memory Size, so it was not measured",
            id="REPORT of the Runtime Interface Emulator",
        ),
        pytest.param(
            COLD,
            [record_line(COLD), EMULATOR.format(id=request_id(COLD))],
            "the REPORT line is no measurement: durations are whole milliseconds, where Lambda prints two decimals; "
            "Max Memory Used is 0 MB, so it was not measured",
            id="REPORT of an emulator, which tells nothing of the start",
        ),
        pytest.param(
            WARM, [record_line(WARM), text(WARM, status="timeout")], "ended with status timeout", id="timeout"
        ),
        pytest.param(
            WARM,
            [record_line(WARM), text(WARM, status="error", error_type="Runtime.ExitError")],
            "ended with status error Runtime.ExitError",
            id="crash",
        ),
        pytest.param(
            WARM,
            [record_line(WARM), text(WARM, init_ms=130.49, billed_ms=147)],
            "a cold start where the protocol wants a warm one",
            id="cold where warm is wanted",
        ),
        pytest.param(
            COLD,
            [record_line(COLD, cold_start=False), text(COLD, init_ms=None, billed_ms=16)],
            "a warm start where the protocol wants a cold one",
            id="warm where cold is wanted",
        ),
        pytest.param(
            WARM,
            [record_line(WARM), text(WARM, restore_ms=398.97, billed_restore_ms=182, billed_ms=198)],
            "a cold start where the protocol wants a warm one",
            id="a SnapStart restore is a cold start",
        ),
        pytest.param(
            WARM,
            [record_line(WARM, cold_start=True), text(WARM)],
            "initialised inside the invocation, after a reset",
            id="suppressed init",
        ),
        pytest.param(WARM, [record_line(WARM, receive_count=2), text(WARM)], "received 2 times", id="redelivery"),
        pytest.param(WARM, [record_line(WARM, sdk_retries=3), text(WARM)], "3 SDK retries", id="SDK retries"),
        pytest.param(
            WARM,
            [record_line(WARM, mode="batch", put_ms={"n": 6, "p50": 1, "p95": 1, "max": 1}), text(WARM)],
            "its record says mode 'batch' where sequential was asked; "
            "2 calls more for items that DynamoDB left unprocessed",
            id="unprocessed items",
        ),
        pytest.param(
            WARM,
            [record_line(WARM, mode="turbo" * 20), text(WARM)],
            f"its record says mode '{('turbo' * 20)[:64]}' where sequential was asked",
            id="a mode that there is not",
        ),
        pytest.param(
            WARM,
            [record_line(WARM, lang="go", label="LARGE", count=99, size_bytes=1, written=101), text(WARM)],
            "its record says lang 'go' where python was asked; its record says label 'LARGE' where SMALL was asked; "
            "its record says count '99' where 100 was asked; its record says size_bytes '1' where 1024 was asked; "
            "its record says 101 items where 100 were asked",
            id="a record of another message",
        ),
        pytest.param(
            WARM,
            [record_line(WARM, finished_ms=BEGAN_MS), text(WARM)],
            "its record says that it ended 10060 ms before it began",
            id="an end before the begin",
        ),
        pytest.param(
            WARM, [record_line(WARM, duplicates=4), text(WARM)], "4 items were there already", id="duplicates"
        ),
        pytest.param(
            WARM,
            [record_line(WARM, error={"code": "WriteFailed", "message": "no table"}), text(WARM)],
            "the function reported WriteFailed: no table",
            id="function error",
        ),
        pytest.param(
            WARM,
            [record_line(WARM), record_line(WARM, batch_id="another"), text(WARM)],
            "one of 2 messages of its invocation",
            id="shared invocation",
        ),
        pytest.param(
            WARM,
            [render_start(request_id(WARM)), text(WARM, status="timeout")],
            "ended with status timeout; the function wrote no record of it",
            id="a timeout leaves no record and is found by its time",
        ),
        pytest.param(
            msgspec.structs.replace(WARM, items_found=99, reason="99 of 100 items are in the table"),
            [record_line(WARM, written=99), text(WARM)],
            "99 of 100 items are in the table",
            id="items missing",
        ),
        pytest.param(
            msgspec.structs.replace(WARM, reason="the function reported WriteFailed: no table"),
            [record_line(WARM, error={"code": "WriteFailed", "message": "no table"}), text(WARM)],
            "the function reported WriteFailed: no table",
            id="what runner and record both say stands once",
        ),
    ],
)
def test_why_a_sample_is_not_valid(result: TrialResult, messages: list[str], reason: str) -> None:
    row = row_of(result, *messages)
    assert (row.valid, row.reason) == (False, reason)


def test_every_reason_of_a_sample_is_given() -> None:
    row = row_of(WARM, record_line(WARM, receive_count=2, sdk_retries=1), text(WARM, status="timeout"))
    assert row.reason == "ended with status timeout; received 2 times; 1 SDK retries"


def test_a_trial_without_any_line_has_a_row_in_which_nothing_is_zero() -> None:
    (row,) = rows_of([WARM], [])
    assert (row.valid, row.reason) == (False, "no REPORT line was found")
    planned = {"run_id", "scenario", "target", "arm", "language", "mode", "architecture", "memory_mb", "trial"}
    planned |= {"block", "label", "batch_size", "cpu_scale"}
    for column, value in msgspec.structs.asdict(row).items():
        assert (value is None) is (column not in planned | {"valid", "reason"}), column


def test_a_function_that_uses_all_its_memory_is_a_sample() -> None:
    row = row_of(WARM, record_line(WARM), text(WARM, max_memory_mb=128))
    assert (row.valid, row.memory_mb, row.max_memory_mb) == (True, 128, 128)


@pytest.mark.parametrize(
    ("changes", "reason", "seen"),
    [
        ({"init_ms": 130.49}, INIT_APART, (15.74, 16, 130.49)),
        ({"billed_ms": None}, MANAGED_INSTANCES, (15.74, None, None)),
    ],
    ids=["provisioned concurrency", "managed instances"],
)
def test_what_is_not_on_demand_is_shown_and_not_priced(
    changes: dict[str, Any], reason: str, seen: tuple[float | None, ...]
) -> None:
    row = row_of(WARM, record_line(WARM), text(WARM, **changes))
    assert not row.valid
    assert f"the REPORT line is not priced: {reason}" in (row.reason or "")
    assert (row.duration_ms, row.billed_ms, row.init_ms) == seen
    assert (row.cost_lambda_usd, row.cost_total_usd) == (None, None)


def test_what_a_refused_report_says_is_not_billed() -> None:
    row = row_of(WARM, record_line(WARM), EMULATOR.format(id=request_id(WARM)))
    assert (row.cost_lambda_usd, row.cost_total_usd, row.cost_per_item_usd) == (None, None, None)
    assert row.max_memory_mb is None
    assert row.cost_dynamodb_usd == Decimal("0.000125")


@pytest.mark.parametrize(
    ("absent", "columns"),
    [
        ("consumed_wru", ["wru", "cost_dynamodb_usd", "cost_total_usd", "cost_per_item_usd"]),
        ("sent_ms", ["queue_wait_ms", "end_to_end_ms"]),
        ("written", ["written", "cost_per_item_usd"]),
        ("duplicates", ["duplicates"]),
        ("sdk_retries", ["sdk_retries"]),
        ("receive_count", ["receive_count"]),
    ],
)
def test_what_the_function_did_not_say_is_missing_and_not_zero(absent: str, columns: list[str]) -> None:
    complete, row = row_of(WARM), row_of(WARM, record_line(WARM, **{absent: None}), text(WARM))
    missing = [
        c for c in InvocationRow.__struct_fields__ if getattr(row, c) is None and getattr(complete, c) is not None
    ]
    assert [c for c in missing if c != "cost_logs_usd"] == columns


def test_zero_is_a_measurement() -> None:
    row = row_of(WARM, record_line(WARM, consumed_wru=0, written=0), text(WARM))
    assert (row.wru, row.cost_dynamodb_usd, row.written) == (0.0, Decimal(0), 0)
    assert row.cost_per_item_usd is None, "nothing was written, so there is no cost of an item"


def test_two_invocations_of_one_message_are_two_rows_and_neither_counts() -> None:
    again = [m.replace(request_id(WARM), "second") for m in (record_line(WARM, receive_count=2), text(WARM))]
    rows = rows_of([WARM], make_lines(WARM, record_line(WARM), text(WARM), *again))
    assert [(row.request_id, row.valid, row.reason) for row in rows] == [
        (request_id(WARM), False, "2 invocations worked on it"),
        ("second", False, "2 invocations worked on it; received 2 times"),
    ]


def test_an_attempt_that_was_repeated_stays_with_its_reason() -> None:
    again = make_result(WARM.trial, attempt=2)
    rows = rows_of([COLD, WARM, again], [*make_lines(COLD), *make_lines(WARM), *make_lines(again)])
    assert [(row.valid, row.reason) for row in rows] == [
        (True, None),
        (False, "repeated after an interruption"),
        (True, None),
    ]


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(f"REPORT RequestId: {request_id(WARM)}\tDuration: abc ms\n", id="number"),
        pytest.param(f"REPORT RequestId: {request_id(WARM)}\tDuration: 1.00 ms\n", id="cut off"),
        pytest.param(record_line(WARM, consumed_wru=-1), id="negative units"),
        pytest.param(record_line(WARM, written=10**30), id="beyond 64 bits"),
        pytest.param(record_line(WARM, started_ms=10**17), id="beyond the calendar"),
        pytest.param(record_line(WARM, written="100"), id="type"),
    ],
)
def test_a_damaged_line_is_counted_and_spoils_only_its_own_sample(damaged: str) -> None:
    observed = observe([*make_lines(COLD), *make_lines(WARM, record_line(WARM), text(WARM), damaged)])
    assert observed.damaged_lines == 1
    good, bad = join(MANIFEST, [COLD, WARM], observed, PRICES)
    assert good.valid
    assert not bad.valid
    assert bad.reason is not None
    assert ", in '" in bad.reason, "the line is cited"


def test_a_damaged_line_of_nobody_is_counted() -> None:
    lines = make_lines(WARM, record_line(WARM), text(WARM), "REPORT RequestId:\tDuration: 1.00 ms\n")
    observed = observe(lines)
    assert observed.damaged_lines == 1
    assert [row.valid for row in join(MANIFEST, [WARM], observed, PRICES)] == [True]


@pytest.mark.parametrize(
    "message",
    [
        "hello\n",
        "",
        "{}",
        "[1, 2]",
        '{"a": 1',
        '{"_aws": {}}',
        "INIT_START Runtime Version: python:3.12.v18\n",
        "RequestId: x Error: Runtime exited with error: signal: killed\nRuntime.ExitError\n",
    ],
)
def test_lines_of_anything_else_change_nothing(message: str) -> None:
    messages = [line.message for line in make_lines(WARM)]
    assert row_of(WARM, *messages, message) == row_of(WARM)


@pytest.mark.parametrize("shift_ms", [-51, 10_000 - 50])
def test_an_invocation_without_a_record_outside_the_trials_time_is_not_its_own(shift_ms: int) -> None:
    lines = [
        msgspec.structs.replace(line, timestamp_ms=line.timestamp_ms + shift_ms)
        for line in make_lines(COLD, render_start(request_id(COLD)), text(COLD, status="timeout"))
    ]
    rows = rows_of([COLD, WARM], [*lines, *make_lines(WARM)])
    assert rows[0].request_id is None
    assert rows[1].valid, "the other trial has its own record and is not touched"


def test_an_invocation_of_another_function_is_never_taken_by_its_time() -> None:
    lines = make_lines(WARM, render_start("x"), text(WARM, status="timeout"))
    foreign = [msgspec.structs.replace(line, log_group="/aws/lambda/other") for line in lines]
    assert rows_of([WARM], foreign)[0].request_id is None


def test_the_order_of_log_lines_does_not_matter() -> None:
    lines = [*make_lines(COLD), *make_lines(WARM)]
    assert rows_of([COLD, WARM], lines[::-1]) == rows_of([COLD, WARM], lines)


def test_what_is_still_missing() -> None:
    never_sent = msgspec.structs.replace(WARM, message_id=None)
    superseded, again = WARM, make_result(WARM.trial, attempt=2)
    no_report = make_lines(WARM, record_line(WARM))
    assert missing_reports(MANIFEST, [COLD, WARM], observe([*make_lines(COLD), *no_report])) == [WARM]
    assert missing_reports(MANIFEST, [COLD, WARM], observe([*make_lines(COLD), *make_lines(WARM)])) == []
    assert missing_reports(MANIFEST, [never_sent], observe([])) == []
    assert missing_reports(MANIFEST, [superseded, again], observe(make_lines(again))) == []
    timed_out = make_lines(WARM, render_start(request_id(WARM)), text(WARM, status="timeout"))
    assert missing_reports(MANIFEST, [WARM], observe(timed_out)) == []


def test_a_json_log_gives_the_same_sample_as_a_text_log() -> None:
    report = make_report(COLD)
    event = {
        "time": "2026-11-21T10:00:00.123Z",
        "type": "platform.report",
        "record": {
            "requestId": report.request_id,
            "status": "success",
            "metrics": {
                "durationMs": 15.74,
                "billedDurationMs": 147,
                "memorySizeMB": 128,
                "maxMemoryUsedMB": 56,
                "initDurationMs": 130.49,
            },
        },
    }
    row = row_of(COLD, record_line(COLD), json.dumps(event))
    assert row.valid, row.reason
    assert (row.billed_ms, row.init_ms, row.cold_start) == (147, 130.49, True)


def test_the_greatest_numbers_a_line_can_hold_are_still_a_row() -> None:
    huge = "9" * 12
    line = f"REPORT RequestId: {request_id(WARM)}\tDuration: {huge}.00 ms\tBilled Duration: {huge} ms\t"
    row = row_of(WARM, record_line(WARM), line + f"Memory Size: {huge} MB\tMax Memory Used: 1 MB\t\n")
    assert row.cost_total_usd is not None
    assert row.cost_total_usd > 10**12


@pytest.mark.parametrize("started_ms", [BEGAN_MS - 1, 253_402_300_799_999])
def test_a_wait_that_cannot_be_is_not_known(started_ms: int) -> None:
    manifest = make_manifest(arms=("go",))
    result = make_result(make_trials(manifest)[0])
    record = record_line(result, started_ms=started_ms, finished_ms=started_ms)
    lines = make_lines(result, record, render_report(make_report(result)))
    row = join(manifest, [result], observe(lines), PRICES)[0]
    assert row.valid
    assert (row.queue_wait_ms, row.end_to_end_ms, row.duration_ms) == (None, None, 15.74)
