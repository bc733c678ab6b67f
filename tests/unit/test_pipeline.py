"""What the pipeline is told and what it makes of it, by hand; the whole of it runs in tests/local/test_recording.py."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.stub import ANY, Stubber
from samples import BEGAN_MS, PRICES, make_lines, make_manifest, make_result, make_trials, record_line

from lambdalab.aws import Aws
from lambdalab.cost import invocation_cost
from lambdalab.errors import LambdalabError
from lambdalab.load.ledger import Sending
from lambdalab.load.pipeline import CloudWatch, Logs, Messages
from lambdalab.model import TrialResult
from lambdalab.store import RunDirectory
from lambdalab.target import Resources

ARM = Resources(
    function_name="lab-go",
    queue_url="https://sqs.us-east-1.amazonaws.com/123456789012/lab-queue",
    dead_letter_queue_url="https://sqs.us-east-1.amazonaws.com/123456789012/lab-dead",
    table_name="lab-table",
    log_group="/aws/lambda/lab-go",
)


def message(number: int, at_ms: float, *, step: int = 1, phase: str = "hold", **changes: Any) -> TrialResult:
    trial = next(trial for trial in make_trials(make_manifest()) if trial.arm == "go")
    sending = Sending(step=step, phase=phase, intended_at_ms=at_ms, began_at_ms=at_ms, answered_at_ms=at_ms, attempts=1)
    result = msgspec.structs.replace(make_result(trial), batch_id=f"batch-{number}", sending=sending)
    return msgspec.structs.replace(result, **changes)


def test_messages_are_counted_as_their_senders_tell_of_them_in_any_order() -> None:
    messages = Messages(["go"])
    messages.add([message(1, 2000, step=2), message(0, 1000, phase="ramp")])
    messages.add([message(2, 1500, message_id=None)])
    assert (messages.intended, messages.sent) == (3, 2)
    assert (messages.step, messages.phase) == (2, "hold"), "those of the latest message"


def test_the_oldest_message_is_as_old_as_the_one_sent_so_many_messages_ago() -> None:
    messages = Messages(["go", "python"])
    messages.add([message(i, at_ms) for i, at_ms in enumerate((3000, 1000, 2000))])
    assert [messages.age_ms("go", depth, 5000) for depth in (0, 1, 2, 3)] == [None, 2000, 3000, 4000]
    assert messages.age_ms("go", 4, 5000) is None, "more wait than were told of"
    assert messages.age_ms("python", 1, 5000) is None


def test_the_log_tells_times_from_the_intended_moment_and_cost_once_for_each_invocation() -> None:
    manifest = make_manifest()
    result = next(make_result(trial) for trial in make_trials(manifest) if trial.arm == "go")
    lines = make_lines(result)
    logs = Logs({"/aws/lambda/lab-go": "x86_64"}, PRICES)
    assert (logs.end_to_end_ms(), logs.cost_usd) == (None, None)

    assert result.sent_at_ms is not None
    intended = {result.batch_id: result.sent_at_ms - 500.0}
    for some in (lines[:2], lines[:3], lines[2:], lines):  # in parts, and again and again
        logs.add(logs.fresh(some), intended)
    late = msgspec.structs.replace(lines[0], event_id="late")  # as if it came once more
    logs.add(logs.fresh([late]), intended)

    found = logs.end_to_end_ms()
    assert found is not None
    assert (found.n, found.p50, found.max) == (1, 580, 580), "80 ms after it was sent, 500 ms late"
    assert (
        logs.cost_usd
        == invocation_cost(
            PRICES,
            architecture="x86_64",
            memory_mb=128,
            billed_ms=147,
            wru=2.0,
            sqs_bytes=101,
            log_bytes=sum(len(line.message.encode()) + 26 for line in lines),
        ).total_usd
    )


def test_what_an_emulator_did_not_measure_costs_nothing_that_is_known() -> None:
    result = next(make_result(trial) for trial in make_trials(make_manifest()) if trial.arm == "go")
    logs = Logs({"/aws/lambda/lab-go": "x86_64"}, PRICES)
    refused = "REPORT RequestId: request-of-message-0-1 Duration: 15 ms Billed Duration: 15 ms Memory Size: 128 MB"
    logs.add(make_lines(result, record_line(result), f"{refused} Max Memory Used: 0 MB\n"), {})
    assert logs.cost_usd is None
    assert logs.end_to_end_ms() is None, "a message of another run"


@pytest.mark.parametrize(("n", "wanted"), [(1, (10, 10, 10)), (100, (500, 950, 990)), (200, (1000, 1900, 1980))])
def test_percentiles_are_by_nearest_rank(n: int, wanted: tuple[int, int, int]) -> None:
    logs = Logs({}, PRICES)
    result = next(make_result(trial) for trial in make_trials(make_manifest()) if trial.arm == "go")
    for i in range(n, 0, -1):
        one = msgspec.structs.replace(result, batch_id=f"batch-{i}", message_id=f"message-{i}")
        lines = make_lines(one, record_line(one, finished_ms=BEGAN_MS + 10 * i))
        logs.add(lines, {f"batch-{i}": BEGAN_MS})
    found = logs.end_to_end_ms()
    assert found is not None
    assert (found.p50, found.p95, found.p99) == wanted


def test_on_aws_functions_are_counted_by_cloudwatch_since_the_run_began() -> None:
    aws = Aws(endpoint_url="http://127.0.0.1:9")
    watch = CloudWatch(aws, {"go": ARM}, BEGAN_MS + 12_345, lambda error: pytest.fail(str(error)))
    found = {
        "m0": [3.0, 4.0],
        "m1": [1.0],
        "m2": [],
        "m3": [2.0, 5.0],
        "m4": [17.0, 1.5],
    }
    pages = [
        [{"Id": name, "Values": values[:1]} for name, values in found.items()],
        [{"Id": name, "Values": values[1:]} for name, values in found.items()],
    ]
    with Stubber(aws.cloudwatch) as stub:
        asked = {"MetricDataQueries": ANY, "StartTime": ANY, "EndTime": ANY, "ScanBy": "TimestampAscending"}
        stub.add_response("get_metric_data", {"MetricDataResults": pages[0], "NextToken": "on"}, asked)
        stub.add_response("get_metric_data", {"MetricDataResults": pages[1]}, asked | {"NextToken": "on"})
        first, second = watch.read(), watch.read()  # the second asks nothing: a minute has not passed
        stub.assert_no_pending_responses()
    assert first["go"] == {"invocations": 7, "errors": 1, "concurrency": 5, "oldest_ms": 1500.0}
    assert first == second
    assert watch.processes() == {}
    queries = {q["Id"]: q["MetricStat"] for q in watch.queries()}
    assert queries["m0"]["Metric"]["Dimensions"] == [{"Name": "FunctionName", "Value": "lab-go"}]
    assert [queries[name]["Stat"] for name in sorted(queries)] == ["Sum", "Sum", "Sum", "Maximum", "Maximum"]
    assert queries["m4"]["Metric"]["Dimensions"] == [{"Name": "QueueName", "Value": "lab-queue"}]
    assert watch.since == datetime.fromtimestamp(BEGAN_MS / 1000, UTC), "of the whole minute"


def test_what_cloudwatch_refuses_is_said_and_missing_and_nothing_else_stops() -> None:
    aws = Aws(endpoint_url="http://127.0.0.1:9")
    said: list[LambdalabError] = []
    watch = CloudWatch(aws, {"go": ARM}, BEGAN_MS, said.append)
    with Stubber(aws.cloudwatch) as stub:
        stub.add_client_error("get_metric_data", "AccessDenied", "not authorized")
        assert watch.read() == {"go": {}}
    assert [str(error).partition(";")[0] for error in said] == [
        "GetMetricData on CloudWatch's metrics was refused: AccessDenied: not authorized"
    ]


def test_trials_are_read_from_where_the_last_look_ended(tmp_path: Path) -> None:
    store = RunDirectory.create(tmp_path, make_manifest())
    assert store.trials_from(0) == ([], 0)
    store.append_trials([message(0, 1000), message(1, 2000)])
    first, position = store.trials_from(0)
    assert [one.batch_id for one in first] == ["batch-0", "batch-1"]
    assert store.trials_from(position) == ([], position)
    with (store.folder / "trials.jsonl").open("ab") as file:
        file.write(b'{"trial":')  # being written
    assert store.trials_from(position) == ([], position)
    store.append_trial(message(2, 3000))
    again, end = store.trials_from(position)
    assert [one.batch_id for one in again] == ["batch-2"]
    assert end == (store.folder / "trials.jsonl").stat().st_size
