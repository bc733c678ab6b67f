"""What the pipeline is told and what it makes of it, by hand; the whole of it runs in tests/local/test_recording.py."""

import itertools
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.stub import ANY, Stubber
from samples import BEGAN_MS, PRICES, make_lines, make_manifest, make_result, make_trials, record_line

from lambdalab.aws.clients import Aws
from lambdalab.aws.log_query import QUERY_S
from lambdalab.aws.stack import Stack
from lambdalab.errors import AccessError, LambdalabError
from lambdalab.load.ceiling import UNKNOWN_S, Ceiling, Spent
from lambdalab.load.messages import EndToEnd, Messages
from lambdalab.load.pipeline import _LOGS_S, CloudWatch, Logs, Pipeline
from lambdalab.planning.load_schedule import LoadPlan, Shape
from lambdalab.planning.spending import lab_use, most_usd
from lambdalab.pricing.costs import invocation_cost
from lambdalab.records.load import PipelineSample, Sending
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import LogLine, TrialResult
from lambdalab.run.target import AwsTarget, Resources

ARM = Resources(
    function_name="lab-go",
    queue_url="https://sqs.us-east-1.amazonaws.com/123456789012/lab-queue",
    dead_letter_queue_url="https://sqs.us-east-1.amazonaws.com/123456789012/lab-dead",
    table_name="lab-table",
    log_group="/aws/lambda/lab-go",
)


PLAN = LoadPlan(shape=Shape.STEPS, rates=(10.0, 20.0), hold_s=1.0, batch_size=2)


def message(number: int, at_ms: float, *, step: int = 1, phase: str = "hold", **changes: Any) -> TrialResult:
    trial = next(trial for trial in make_trials(make_manifest()) if trial.arm == "go")
    trial = msgspec.structs.replace(trial, trial_id=f"0-{number}")
    sending = Sending(step=step, phase=phase, intended_at_ms=at_ms, began_at_ms=at_ms, answered_at_ms=at_ms, attempts=1)
    result = msgspec.structs.replace(make_result(trial), batch_id=f"batch-{number}", sending=sending)
    return msgspec.structs.replace(result, **changes)


def test_messages_are_counted_as_their_senders_tell_of_them_in_any_order() -> None:
    messages = Messages(["go"], PLAN, EndToEnd())
    messages.add([message(1, 2000, step=2), message(0, 1000, phase="ramp")])
    messages.add([message(2, 1500, message_id=None)])
    assert (messages.told, messages.sent) == (3, 2)
    assert (messages.step, messages.phase) == (2, "hold"), "those of the latest message"


def test_what_is_offered_is_what_was_due_whether_it_was_sent_or_not() -> None:
    messages = Messages(["go"], PLAN, EndToEnd())  # two each 200 ms for a second, then each 100 ms
    assert messages.intended(99_000) == 0, "when the schedule began is not known"
    messages.add([message(5, 10_400.0, message_id=None)])  # the third pair, so it began at 10 s
    due = [messages.intended(ms) for ms in (9_000, 10_399, 10_400, 10_999, 11_000, 11_100, 99_000)]
    assert due == [1, 4, 6, 10, 12, 14, 30], "never fewer than were told of"
    assert (messages.told, messages.sent) == (1, 0)


def test_nothing_is_due_after_the_end_and_what_the_senders_say_of_it_holds() -> None:
    for offered, wanted in ((None, 6), (8, 8), (0, 1)):
        messages = Messages(["go"], PLAN, EndToEnd())
        messages.add([message(0, 10_000.0)])
        messages.stop(10_500.0, offered)
        assert messages.intended(99_000) == wanted


def test_in_strict_nothing_is_due_before_it_is_sent() -> None:
    messages = Messages(["go"], LoadPlan(shape=Shape.STRICT), EndToEnd())
    messages.add([message(0, 10_000.0), message(1, 12_000.0)])
    assert messages.intended(99_000) == 2


def test_what_is_done_is_not_known_where_the_queues_hold_more_than_was_due() -> None:
    messages = Messages(["go"], PLAN, EndToEnd())
    assert messages.done(2, 10_000.0) == 0, "nobody has told of any yet"
    messages.add([message(i, 10_000.0) for i in (0, 1)])
    at_ms = 10_500.0  # six are due
    assert [messages.done(held, at_ms) for held in (0, 1, 2)] == [2, 1, 0]
    assert [messages.done(held, at_ms) for held in (3, 6)] == [0, 0], "sent, and not told of yet"
    assert messages.done(7, at_ms) is None


def test_a_record_that_comes_before_its_message_is_told_of_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    times = EndToEnd()
    messages = Messages(["go"], PLAN, times)
    times.finished("batch-1", 2500)
    times.finished("batch-1", 9000)  # done again
    assert times.quantiles() is None
    messages.add([message(0, 1000.0), message(1, 2000.0)])
    times.finished("batch-0", 1100)
    times.finished("batch-0", 9000)
    found = times.quantiles()
    assert found is not None
    assert (found.n, found.p50, found.max) == (2, 100, 500)

    monkeypatch.setattr("lambdalab.load.messages._EARLY_AT_MOST", 3)
    for i in range(10, 20):
        times.finished(f"batch-{i}", 3000)
    messages.add([message(i, 2000.0) for i in range(10, 20)])
    found = times.quantiles()
    assert found is not None
    assert found.n == 5, "the last three are kept"


class SlowLogs(AwsTarget):
    """A target whose queue is sent a message to while its logs are read; it holds every message there is."""

    log_every_s = 0.0

    def __init__(self, aws: Aws, store: RunDirectory) -> None:
        super().__init__(aws, Stack(name="lab", outputs={}, parameters={}, resources={}, types={}))
        self._store = store
        self._sent = 0

    def resources(self, arm: Any) -> Resources:
        return ARM

    def log_lines(self, log_group: str, since_ms: int, *, for_s: float = 0) -> Iterator[LogLine]:
        self._store.append_trials([message(self._sent, 1000.0 * self._sent)])
        self._sent += 1
        return iter(())

    def queue_counts(self, queue_url: str) -> tuple[int, int]:
        return (self._sent if queue_url == ARM.queue_url else 0, 0)


def test_a_message_sent_while_logs_are_read_is_in_no_count_or_in_all(tmp_path: Path) -> None:
    plan = msgspec.to_builtins(LoadPlan(rate=1.0, duration_s=10.0))
    store = RunDirectory.create(tmp_path, make_manifest(arms=("go",), load=plan))
    target = SlowLogs(Aws(endpoint_url="http://127.0.0.1:9"), store)
    with Stubber(target.aws.cloudwatch) as stub:
        stub.add_client_error("get_metric_data", "AccessDenied", "not authorized")
        pipeline = Pipeline(target, store, lambda _: None)
        samples = [pipeline.sample()]
        while samples[-1].arms["go"].visible < 3:  # logs may be read so rarely that it takes little of the time
            samples.append(pipeline.sample())
    assert {(one.sent - one.arms["go"].visible, one.done) for one in samples} == {(0, 0)}
    assert samples == store.samples()
    assert samples[-1].intended == 10, "all of it was due long ago"
    pipeline.stop(3)
    last = pipeline.sample(draining=True)
    assert (last.phase, last.intended, last.given_up) == ("drain", last.sent, 0)


def test_the_oldest_message_is_as_old_as_the_one_sent_so_many_messages_ago() -> None:
    messages = Messages(["go", "python"], PLAN, EndToEnd())
    messages.add([message(i, at_ms) for i, at_ms in enumerate((3000, 1000, 2000))])
    assert [messages.age_ms("go", depth, 5000) for depth in (0, 1, 2, 3)] == [None, 2000, 3000, 4000]
    assert messages.age_ms("go", 4, 5000) is None, "more wait than were told of"
    assert messages.age_ms("python", 1, 5000) is None


def test_the_log_tells_times_from_the_intended_moment_and_cost_once_for_each_invocation() -> None:
    manifest = make_manifest()
    result = next(make_result(trial) for trial in make_trials(manifest) if trial.arm == "go")
    lines = make_lines(result)
    times = EndToEnd()
    logs = Logs({"/aws/lambda/lab-go": "x86_64"}, PRICES, times)
    assert (times.quantiles(), logs.cost_usd) == (None, None)

    assert result.sent_at_ms is not None
    times.sent(result.batch_id, result.sent_at_ms - 500.0)
    for some in (lines[:2], lines[:3], lines[2:], lines):  # in parts, and again and again
        logs.add(logs.fresh(some))
    late = msgspec.structs.replace(lines[0], event_id="late")  # as if it came once more
    logs.add(logs.fresh([late]))

    found = times.quantiles()
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
    times = EndToEnd()
    logs = Logs({"/aws/lambda/lab-go": "x86_64"}, PRICES, times)
    refused = "REPORT RequestId: request-of-message-0-1 Duration: 15 ms Billed Duration: 15 ms Memory Size: 128 MB"
    logs.add(make_lines(result, record_line(result), f"{refused} Max Memory Used: 0 MB\n"))
    assert logs.cost_usd is None
    assert times.quantiles() is None, "a message of another run"


@pytest.mark.parametrize(("n", "wanted"), [(1, (10, 10, 10)), (100, (500, 950, 990)), (200, (1000, 1900, 1980))])
def test_percentiles_are_by_nearest_rank(n: int, wanted: tuple[int, int, int]) -> None:
    times = EndToEnd()
    for i in range(n, 0, -1):
        times.sent(f"batch-{i}", BEGAN_MS)
        times.finished(f"batch-{i}", BEGAN_MS + 10 * i)
    found = times.quantiles()
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


def test_what_may_have_been_spent_is_never_less_than_what_it_will_have_cost() -> None:
    manifest = make_manifest(arms=("go",))
    (function,) = manifest.functions.values()
    spent = Spent(manifest, PRICES)
    sent = [message(number, 1000.0) for number in range(4)]
    spent.add([*sent, message(9, 1000.0, message_id=None)])
    trial_load = sent[0].trial.load
    lab = 4 * lab_use([trial_load], blocks=1, minutes=0, queues=1).usd(PRICES)
    most = most_usd(PRICES, function, trial_load)

    assert spent.usd(billed=Decimal(0), done=0, minutes=0) == 4 * most + lab
    assert spent.usd(billed=Decimal("0.5"), done=3, minutes=0) == Decimal("0.5") + most + lab
    later = spent.usd(billed=Decimal(0), done=4, minutes=10)
    assert later == lab + lab_use([], blocks=0, minutes=10, queues=1).usd(PRICES)


def looked_at(at_s: float, usd: str | None) -> PipelineSample:
    spent = None if usd is None else Decimal(usd)
    return PipelineSample(
        at_ms=at_s * 1000, phase="hold", step=1, intended=0, sent=0, given_up=0, done=0, arms={}, spent_usd=spent
    )


def test_a_run_that_may_have_spent_its_ceiling_ends() -> None:
    ceiling = Ceiling(0.5, began_ms=0)
    assert ceiling.look([looked_at(1, "0.1"), looked_at(2, "0.4999")], 3_000) is None
    assert ceiling.look([], 4_000) is None
    ended = ceiling.look([looked_at(4, "0.5")], 5_000)
    assert ended == "usd ceiling: 0.5000 of 0.5 USD may have been spent"
    assert ceiling.look([looked_at(6, "0")], 999_000) == ended == ceiling.reached


def test_a_run_ends_when_what_it_costs_is_not_known_any_more() -> None:
    why = "usd ceiling: what it cost has not been known for 120 s"
    assert Ceiling(0.5, began_ms=0).look([], 120_000) is None, "since it began"
    assert Ceiling(0.5, began_ms=0).look([], 120_001) == why
    ceiling = Ceiling(0.5, began_ms=0)
    assert ceiling.look([looked_at(100, "0.1")], 121_000) is None
    assert ceiling.look([looked_at(200, None)], 220_000) is None
    assert ceiling.look([], 220_001) == why, "a sample without a figure tells nothing"


@pytest.mark.parametrize(("share", "wait_s"), [(1.0, 60), (0.05, 200)])
def test_only_where_reading_disturbs_the_log_is_read_more_rarely_the_longer_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, wait_s: float
) -> None:
    store = RunDirectory.create(
        tmp_path, make_manifest(arms=("go",), load=msgspec.to_builtins(LoadPlan(rate=1.0, duration_s=10.0)))
    )
    now_s, read_at_s = 1000.0, list[float]()

    class Reads(SlowLogs):
        log_every_s = 60.0
        log_share = share

        def log_lines(self, log_group: str, since_ms: int, *, for_s: float = 0) -> Iterator[LogLine]:
            nonlocal now_s
            read_at_s.append(now_s)
            now_s += 10.0
            return iter(())

    target = Reads(Aws(endpoint_url="http://127.0.0.1:9"), store)
    monkeypatch.setattr("lambdalab.load.pipeline.time.monotonic", lambda: now_s)
    with Stubber(target.aws.cloudwatch) as stub:
        for _ in range(30):
            stub.add_client_error("get_metric_data", "AccessDenied", "not authorized")
        pipeline = Pipeline(target, store, lambda _: None)
        while len(read_at_s) < 3:
            pipeline.sample()
            now_s += 1
    assert [later - at for at, later in itertools.pairwise(read_at_s)] == [wait_s] * 2


class Insights:
    """Logs Insights whose log has three pages, each of which takes a while, or never comes."""

    def __init__(self, query_s: float, clock: list[float]) -> None:
        self._query_s, self._clock, self.asked = query_s, clock, 0
        self._due = 0.0

    def start_query(self, **_: object) -> dict[str, str]:
        self.asked += 1
        self._due = self._clock[0] + self._query_s
        return {"queryId": str(self.asked)}

    def get_query_results(self, queryId: str) -> dict[str, Any]:  # noqa: N803
        if self._clock[0] < self._due:
            return {"status": "Running"}
        moment = f"2026-11-21 12:00:0{queryId}.000"
        row = {"@timestamp": moment, "@logStream": "s", "@message": "m", "@ptr": f"{queryId}"}
        rows = [row, row | {"@ptr": f"{queryId}b"}][: 2 if self.asked < 3 else 1]
        return {
            "status": "Complete",
            "results": [[{"field": name, "value": value} for name, value in of.items()] for of in rows],
        }


@pytest.mark.parametrize(
    ("query_s", "for_s", "pages"), [(10, math.inf, 3), (10, 15, 2), (10, 0, 1), (39, 0, 1), (1e9, math.inf, None)]
)
def test_reading_a_log_takes_so_long_at_most(
    monkeypatch: pytest.MonkeyPatch, query_s: float, for_s: float, pages: int | None
) -> None:
    clock = [0.0]
    monkeypatch.setattr("lambdalab.aws.log_query._QUERY_ROWS", 2)
    monkeypatch.setattr("lambdalab.aws.log_query.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("lambdalab.aws.log_query.time.sleep", lambda s: clock.append(clock.pop() + s))
    aws = Aws(endpoint_url="http://127.0.0.1:9")
    insights = Insights(query_s, clock)
    aws.__dict__["logs"] = insights
    target = AwsTarget(aws, Stack(name="lab", outputs={}, parameters={}, resources={}, types={}))
    if pages is None:
        with pytest.raises(AccessError, match="the Logs Insights query on lab is Running after 40 s; run it again"):
            list(target.log_lines("lab", 0, for_s=for_s))
        assert QUERY_S < clock[0] < QUERY_S + 2
        return
    assert len(list(target.log_lines("lab", 0, for_s=for_s))) == {1: 2, 2: 4, 3: 5}[pages]
    assert insights.asked == pages


def test_reading_logs_of_two_languages_is_over_before_the_ceiling_takes_the_cost_for_unknown() -> None:
    assert 2 * (_LOGS_S + QUERY_S) < UNKNOWN_S
    assert AwsTarget.log_share == 1.0


def test_an_invocation_without_a_record_is_billed_all_the_same() -> None:
    """As after a timeout: its REPORT is all there is."""
    logs = Logs({"/aws/lambda/lab-go": "x86_64"}, PRICES, EndToEnd())
    assert logs.unrecorded_usd() == 0
    whole = make_lines(message(0, 1000.0))
    report = [line for line in whole if line.message.startswith("REPORT")]
    group = {report[0].log_group: "x86_64"}
    logs = Logs(group, PRICES, EndToEnd())
    logs.add(report)
    assert logs.cost_usd is None
    assert logs.unrecorded_usd() > 0
    logs.add([line for line in whole if not line.message.startswith("REPORT")])
    assert logs.unrecorded_usd() == 0
    assert logs.cost_usd is not None
