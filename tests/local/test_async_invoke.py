"""Asynchronous invocation: the rules over real processes, destinations in the real emulator, boto3 as the client."""

import asyncio
import contextlib
import json
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pytest

from lambdalab.aws.clients import Aws
from lambdalab.local.async_invoke import AsyncQueue, EventConfig
from lambdalab.local.concurrency import ThrottledError
from lambdalab.local.destinations import Destinations
from lambdalab.local.environment import Environment
from lambdalab.local.function import FunctionSpec
from lambdalab.local.settings import Timing
from local.support import ARN, Machine, Running, python_spec, running
from local.whole import Up, wait_until

FAST: Final = Timing(retry_delays_s=(0.1, 0.2), first_backoff_s=0.05, longest_backoff_s=0.2)
OTHER: Final = f"{ARN}-too"
ANSWERED: Final = {"statusCode": 200, "executedVersion": "$LATEST"}


@dataclass
class Queue:
    """An SQS queue and what is in it."""

    aws: Aws
    url: str
    arn: str

    @classmethod
    def create(cls, aws: Aws) -> "Queue":
        url = aws.sqs.create_queue(QueueName=f"async-{secrets.token_hex(4)}")["QueueUrl"]
        attributes = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
        return cls(aws, url, attributes["QueueArn"])

    def messages(self) -> list[dict[str, Any]]:
        found = []
        while some := self.aws.sqs.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            for message in some:
                found.append(dict(message))
                self.aws.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(message["Body"]) for message in self.messages()]

    def await_records(self, count: int, timeout_s: float = 10) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def complete() -> bool:
            found.extend(self.records())
            return len(found) >= count

        wait_until(complete, timeout_s)
        assert len(found) == count
        return found


@dataclass
class Asynchronous:
    """A function's queue whose destinations are three SQS queues."""

    function: Running
    queue: AsyncQueue
    other: AsyncQueue
    good: Queue
    bad: Queue
    dead: Queue

    async def put(self, **do: Any) -> str:
        """Runs one event until it is decided."""
        request_id = self.queue.put(json.dumps(do).encode())
        await until(lambda: not self.queue.waiting)
        return request_id


@pytest.fixture(scope="module")
def queues(up: Up) -> tuple[Queue, Queue, Queue]:
    return (Queue.create(up.emulator), Queue.create(up.emulator), Queue.create(up.emulator))


@asynccontextmanager
async def asynchronous(
    machine: Machine,
    queues: tuple[Queue, Queue, Queue],
    timing: Timing = FAST,
    spec: FunctionSpec | None = None,
    **config: Any,
) -> AsyncIterator[Asynchronous]:
    good, bad, dead = queues
    with ThreadPoolExecutor(4) as executor:
        async with running(machine, spec or python_spec()) as function:
            found: dict[str, AsyncQueue] = {}
            destinations = Destinations(good.aws, executor, lambda arn: found[arn].put if arn in found else None)
            queue = found[ARN] = AsyncQueue(function.pool, destinations.send, timing)
            queue.config = EventConfig(
                **({"on_success": good.arn, "on_failure": bad.arn, "dead_letters": dead.arn} | config)
            )
            other = found[OTHER] = AsyncQueue(function.pool, destinations.send, timing)
            other.config = EventConfig(retries=0, on_failure=bad.arn)
            yield Asynchronous(function, queue, other, good, bad, dead)
            await queue.close()
            await other.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
        await asyncio.sleep(0.01)


def platform_lines(function: Running, request_id: str) -> list[str]:
    return [line.split()[0] for line in function.lines if request_id in line and re.match("START|END|REPORT", line)]


async def test_function_that_fails_is_tried_three_times_under_one_request_id(
    machine: Machine, queues: tuple[Queue, Queue, Queue]
) -> None:
    async with asynchronous(machine, queues) as found:
        began = time.monotonic()
        local_start = datetime.now(UTC)
        request_id = await found.put(do="fail")
        assert time.monotonic() - began >= 0.3
        assert platform_lines(found.function, request_id) == ["START", "END", "REPORT"] * 3
        assert found.good.messages() == []
        (record,) = found.bad.records()
        (dead,) = found.dead.messages()
        assert (found.queue.succeeded, found.queue.failed, found.queue.undelivered) == (0, 1, 0)
    sent = record.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", sent)
    assert abs((datetime.fromisoformat(sent) - local_start).total_seconds()) < 30
    response = record.pop("responsePayload")
    assert (response["errorType"], response["errorMessage"]) == ("ValueError", "nein: \u00e4")
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": request_id,
            "functionArn": f"{ARN}:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": {"do": "fail"},
        "responseContext": ANSWERED | {"functionError": "Unhandled"},
    }
    assert dead["Body"] == '{"do": "fail"}'
    attributes = {name: (value["DataType"], value["StringValue"]) for name, value in dead["MessageAttributes"].items()}
    assert attributes == {
        "RequestID": ("String", request_id),
        "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", "nein: \u00e4"),
    }


async def test_success_of_a_second_attempt_goes_to_the_destination_for_success_alone(
    machine: Machine, queues: tuple[Queue, Queue, Queue]
) -> None:
    async with asynchronous(machine, queues) as found:
        request_id = await found.put(do="fail_first", times=1)
        assert platform_lines(found.function, request_id) == ["START", "END", "REPORT"] * 2
        (record,) = found.good.records()
        assert (found.bad.messages(), found.dead.messages()) == ([], [])
        assert (found.queue.succeeded, found.queue.failed) == (1, 0)
    del record["timestamp"]
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": request_id,
            "functionArn": f"{ARN}:$LATEST",
            "condition": "Success",
            "approximateInvokeCount": 2,
        },
        "requestPayload": {"do": "fail_first", "times": 1},
        "responseContext": ANSWERED,
        "responsePayload": {"invocations": 2},
    }


@pytest.mark.parametrize("retries", [0, 1, 2])
async def test_retries_are_as_many_as_the_function_says(
    machine: Machine, queues: tuple[Queue, Queue, Queue], retries: int
) -> None:
    async with asynchronous(machine, queues, retries=retries, dead_letters=None) as found:
        await found.put(do="fail")
        (record,) = found.bad.records()
        assert found.function.pool.invocations == retries + 1
        assert found.dead.messages() == []
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == retries + 1


async def test_timeout_and_crash_count_as_errors_of_the_function(
    machine: Machine, queues: tuple[Queue, Queue, Queue]
) -> None:
    async with asynchronous(machine, queues, spec=python_spec(timeout_s=1), retries=0) as found:
        await found.put(do="sleep", s=9)
        await found.put(do="leave", code=3)
        kinds = {record["responsePayload"]["errorType"] for record in found.bad.records()}
        texts = [dead["MessageAttributes"]["ErrorMessage"]["StringValue"] for dead in found.dead.messages()]
    assert kinds == {"Sandbox.Timedout", "Runtime.ExitError"}
    assert sorted(re.sub(r"RequestId: \S+ ", "", text) for text in texts) == [
        "Error: Runtime exited with error: exit status 3",
        "Error: Task timed out after 1.00 seconds",
    ]


async def test_retry_that_would_come_too_late_is_not_waited_for(
    machine: Machine, queues: tuple[Queue, Queue, Queue]
) -> None:
    timing = Timing(retry_delays_s=(0.05, 60))
    async with asynchronous(machine, queues, timing, age_limit_s=20) as found:
        await found.put(do="fail")
        (record,) = found.bad.records()
        assert len(found.dead.messages()) == 1
    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert record["responseContext"] == ANSWERED | {"functionError": "Unhandled"}


async def test_throttled_event_is_tried_until_there_is_room_and_uses_up_no_retry(
    machine: Machine, queues: tuple[Queue, Queue, Queue]
) -> None:
    async with asynchronous(machine, queues, spec=python_spec(reserved_concurrency=1), retries=0) as found:
        occupied = asyncio.create_task(found.function.invoke(do="sleep", s=0.6))
        await asyncio.sleep(0.05)
        await found.put(do="echo")
        await occupied
        (record,) = found.good.records()
        assert found.function.pool.throttles >= 3
    assert record["requestContext"]["approximateInvokeCount"] == 1


async def test_throttled_event_becomes_too_old(machine: Machine, queues: tuple[Queue, Queue, Queue]) -> None:
    timing = msgspec.structs.replace(FAST, age_limit_s=0.5)
    async with asynchronous(machine, queues, timing, spec=python_spec(reserved_concurrency=1)) as found:
        occupied = asyncio.create_task(found.function.invoke(do="sleep", s=1.5))
        await asyncio.sleep(0.05)
        request_id = await found.put(do="echo")
        (record,) = found.bad.records()
        (dead,) = found.dead.messages()
        assert not occupied.done()
        await occupied
    assert record["requestContext"] == {
        "requestId": request_id,
        "functionArn": f"{ARN}:$LATEST",
        "condition": "EventAgeExceeded",
        "approximateInvokeCount": 0,
    }
    assert "responseContext" not in record
    assert dead["MessageAttributes"]["ErrorCode"]["StringValue"] == "429"


async def test_back_off_doubles_up_to_its_longest(
    machine: Machine, queues: tuple[Queue, Queue, Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    delays_s: list[float] = []
    wait_for = asyncio.wait_for

    async def noted(waiting: Any, delay_s: float) -> Any:
        delays_s.append(delay_s)
        return await wait_for(waiting, delay_s)

    async def refuse(payload: bytes, **_: object) -> None:
        raise ThrottledError(found.function.pool)

    timing = msgspec.structs.replace(FAST, age_limit_s=1)
    async with asynchronous(machine, queues, timing, on_failure=None, dead_letters=None) as found:
        monkeypatch.setattr(found.function.pool, "invoke", refuse)
        monkeypatch.setattr(asyncio, "wait_for", noted)
        await found.put(do="echo")
    assert delays_s[:5] == [0.05, 0.1, 0.2, 0.2, 0.2]


async def test_failure_of_the_plane_is_tried_again_and_uses_up_no_retry(
    machine: Machine,
    queues: tuple[Queue, Queue, Queue],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = [OSError("no processes left")] * 2
    initialise = Environment.initialise

    async def fail_twice(self: Environment) -> None:
        if broken:
            raise broken.pop()
        await initialise(self)

    monkeypatch.setattr(Environment, "initialise", fail_twice)
    async with asynchronous(machine, queues, retries=1) as found:
        await found.put(do="fail_first", times=1)
        (record,) = found.good.records()
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert caplog.text.count("OSError: no processes left") == 2


async def test_function_without_concurrency_is_not_tried(machine: Machine, queues: tuple[Queue, Queue, Queue]) -> None:
    async with asynchronous(machine, queues, spec=python_spec(reserved_concurrency=0)) as found:
        await found.put(do="echo")
        (record,) = found.bad.records()
        (dead,) = found.dead.messages()
    assert record["requestContext"]["condition"] == "ZeroReservedConcurrency"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert "responsePayload" not in record
    assert dead["Body"] == '{"do": "echo"}'


async def test_dead_letter_tells_the_first_kilobyte_of_the_message(
    machine: Machine, queues: tuple[Queue, Queue, Queue]
) -> None:
    async with asynchronous(machine, queues, retries=0, on_failure=None) as found:
        await found.put(do="fail_first", times=1, text="x" + "\u00e4" * 1000)
        (dead,) = found.dead.messages()
    assert dead["MessageAttributes"]["ErrorMessage"]["StringValue"] == "x" + "\u00e4" * 511


async def test_record_is_the_event_of_a_function_as_destination(
    machine: Machine, queues: tuple[Queue, Queue, Queue]
) -> None:
    async with asynchronous(machine, queues, retries=0, on_failure=OTHER, dead_letters=None) as found:
        first = await found.put(do="fail")
        await until(lambda: not found.other.waiting)  # the record names no action, so this one fails too
        (record,) = found.bad.records()
    assert record["requestPayload"]["requestContext"]["requestId"] == first
    assert record["requestContext"]["requestId"] != first


async def test_bus_and_topic_get_the_record_as_aws_sends_it(
    machine: Machine, queues: tuple[Queue, Queue, Queue]
) -> None:
    good, _, dead = queues
    name = f"bus-{secrets.token_hex(4)}"
    events, sns = good.aws.events, good.aws.sns
    with contextlib.closing(events), contextlib.closing(sns):
        bus = events.create_event_bus(Name=name)["EventBusArn"]
        events.put_rule(Name=name, EventBusName=name, EventPattern='{"source": ["lambda"]}')
        events.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "1", "Arn": good.arn}])
        topic = sns.create_topic(Name=name)["TopicArn"]
        raw = {"RawMessageDelivery": "true"}
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=dead.arn, Attributes=raw)
        async with asynchronous(
            machine, queues, retries=0, on_success=bus, on_failure=bus, dead_letters=topic
        ) as found:
            await found.put(do="echo")
            await found.put(do="fail")
            assert found.queue.undelivered == 0
        sent = {event["detail-type"]: event for event in good.await_records(2)}
        found_dead = dead.messages()
    result = "Lambda Function Invocation Result - "
    assert set(sent) == {f"{result}Success", f"{result}Failure"}
    for event in sent.values():
        assert event["source"] == "lambda"
        assert event["resources"] == [f"{ARN}:$LATEST", bus]
    assert sent[f"{result}Success"]["detail"]["requestContext"]["condition"] == "Success"
    assert sent[f"{result}Failure"]["detail"]["requestContext"]["condition"] == "RetriesExhausted"
    assert [message["Body"] for message in found_dead] == ['{"do": "fail"}']
    assert found_dead[0]["MessageAttributes"]["ErrorCode"]["StringValue"] == "200"


@pytest.mark.parametrize(
    "destination",
    [
        "arn:aws:sqs:us-east-1:000000000000:nowhere",
        "arn:aws:lambda:us-east-1:000000000000:function:nobody",
        "arn:aws:s3:::bucket",
    ],
)
async def test_what_cannot_be_delivered_is_counted_and_told(
    machine: Machine, queues: tuple[Queue, Queue, Queue], caplog: pytest.LogCaptureFixture, destination: str
) -> None:
    async with asynchronous(machine, queues, retries=0, on_failure=destination) as found:
        await found.put(do="fail")
        assert found.queue.undelivered == 1
        assert len(found.dead.messages()) == 1
    assert f"an event of under-test was not delivered to {destination}" in caplog.text


async def test_close_lets_the_running_event_finish_and_counts_the_rest(
    machine: Machine, queues: tuple[Queue, Queue, Queue]
) -> None:
    timing = Timing(retry_delays_s=(60, 60))
    async with asynchronous(machine, queues, timing) as found:
        found.queue.put(b'{"do": "fail"}')
        await until(lambda: bool(found.function.reports))
        found.queue.put(b'{"do": "sleep", "s": 0.5}')
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await found.queue.close(grace_s=5)
        assert time.monotonic() - began < 2
        assert (found.queue.waiting, found.queue.succeeded) == (1, 1)
        found.queue.put(b'{"do": "echo"}')
        await asyncio.sleep(0.1)
        assert (found.queue.waiting, found.queue.succeeded) == (2, 1)
        assert len(found.good.messages()) == 1


@pytest.mark.parametrize(
    ("found", "configuration", "expected"),
    [
        ([], {}, EventConfig()),
        ([], {"DeadLetterConfig": {"TargetArn": ""}}, EventConfig()),
        ([], {"DeadLetterConfig": {"TargetArn": "d"}}, EventConfig(dead_letters="d")),
        (
            [{"LastModified": 1, "MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60}],
            {},
            EventConfig(retries=0, age_limit_s=60),
        ),
        ([{"LastModified": 1, "MaximumRetryAttempts": 7}], {}, EventConfig(retries=2)),
        (
            [{"LastModified": 2, "DestinationConfig": {"OnSuccess": {"Destination": "s"}, "OnFailure": {}}}],
            {},
            EventConfig(on_success="s"),
        ),
        (
            [{"LastModified": 2, "MaximumRetryAttempts": 1}, {"LastModified": 1, "MaximumRetryAttempts": 0}],
            {},
            EventConfig(retries=1),
        ),
    ],
)
def test_configuration_is_read_with_lambdas_defaults(
    found: list[Any], configuration: dict[str, Any], expected: EventConfig
) -> None:
    assert EventConfig.read(found, configuration) == expected


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def fast(up: Up) -> Iterator[Up]:
    """The stack seen through one more plane, which waits fractions of a second where Lambda waits minutes."""
    plane = up.start_plane(free_port(), async_timing=msgspec.to_builtins(FAST))
    found = Up(up.project, msgspec.structs.replace(up.stack, plane=plane))
    yield found
    for client in (found.aws.lambda_, found.aws.sqs):
        client.close()
    plane.end(grace_s=20)


def message() -> dict[str, Any]:
    return {"batch_id": f"a:{secrets.token_hex(4)}", "size_bytes": 100, "count": 2, "label": "TEST"}


@pytest.mark.parametrize("language", ["python", "go"])
def test_event_is_taken_at_once_and_run_later(up: Up, language: str) -> None:
    wanted = message()
    answer = up.invoke(up.arm(language).function_name, wanted, InvocationType="Event", LogType="Tail")
    assert answer["StatusCode"] == 202
    assert answer["Payload"] == b""
    assert not {"FunctionError", "LogResult", "ExecutedVersion"} & set(answer)
    wait_until(lambda: len(up.items(language, wanted["batch_id"])) == 2, 10)
    request_id = answer["ResponseMetadata"]["RequestId"]

    def reported() -> bool:
        events = up.aws.logs.filter_log_events(
            logGroupName=up.arm(language).log_group, filterPattern=f'"REPORT RequestId: {request_id}"'
        )
        return len(events["events"]) == 1

    wait_until(reported, 5)


def test_largest_event_is_taken(fast: Up) -> None:
    payload = " " * (1024 * 1024 - 2) + "{}"
    name = fast.arm("python").function_name
    answer = fast.aws.lambda_.invoke(FunctionName=name, InvocationType="Event", Payload=payload)
    assert answer["StatusCode"] == 202
    wait_until(lambda: fast.status()["functions"][name]["events"]["waiting"] == 0, 10)


@contextlib.contextmanager
def failing(up: Up, name: str) -> Iterator[None]:
    """The deployed functions answer whatever they get; without its handler one fails."""
    handler = up.aws.lambda_.get_function_configuration(FunctionName=name)["Handler"]
    up.aws.lambda_.update_function_configuration(FunctionName=name, Handler="nobody.handler")
    try:
        yield
    finally:
        up.aws.lambda_.update_function_configuration(FunctionName=name, Handler=handler)


def test_settings_made_through_the_api_are_followed(fast: Up) -> None:
    python, go = fast.arm("python").function_name, fast.arm("go").function_name
    good, dead = Queue.create(fast.emulator), Queue.create(fast.emulator)
    client = fast.aws.lambda_
    arn = client.get_function_configuration(FunctionName=go)["FunctionArn"]
    client.update_function_configuration(FunctionName=python, DeadLetterConfig={"TargetArn": dead.arn})
    client.put_function_event_invoke_config(
        FunctionName=python, MaximumRetryAttempts=1, DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    client.put_function_event_invoke_config(
        FunctionName=go, Qualifier="$LATEST", DestinationConfig={"OnSuccess": {"Destination": good.arn}}
    )
    try:
        with failing(fast, python):
            answer = fast.invoke(python, {"count": 1}, InvocationType="Event")
            (record,) = good.await_records(1)
        failed = record["requestPayload"]
        assert record["requestContext"]["functionArn"] == f"{arn}:$LATEST"
        assert failed["requestContext"]["requestId"] == answer["ResponseMetadata"]["RequestId"]
        assert failed["requestContext"]["approximateInvokeCount"] == 2
        assert failed["responsePayload"]["errorType"] == "Runtime.ImportModuleError"
        assert [letter["Body"] for letter in dead.messages()] == ['{"count": 1}']
        client.put_function_concurrency(FunctionName=python, ReservedConcurrentExecutions=0)
        assert fast.invoke(python, {"count": 1}, InvocationType="Event")["StatusCode"] == 202
        (refused,) = good.await_records(1)
        assert refused["requestPayload"]["requestContext"]["condition"] == "ZeroReservedConcurrency"
        assert len(dead.messages()) == 1
    finally:
        client.put_function_concurrency(FunctionName=python, ReservedConcurrentExecutions=1)
        client.update_function_configuration(FunctionName=python, DeadLetterConfig={"TargetArn": ""})
        client.delete_function_event_invoke_config(FunctionName=python)
        client.delete_function_event_invoke_config(FunctionName=go, Qualifier="$LATEST")
    with failing(fast, python):
        for name in (python, go):
            fast.invoke(name, {"count": 1}, InvocationType="Event")
        wait_until(lambda: not any(f["events"]["waiting"] for f in fast.status()["functions"].values()), 10)
    assert (good.messages(), dead.messages()) == ([], [])


def test_function_without_concurrency_refuses_at_once(fast: Up) -> None:
    name = fast.arm("python").function_name
    fast.aws.lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    try:
        with pytest.raises(fast.aws.lambda_.exceptions.TooManyRequestsException) as caught:
            fast.invoke(name, message())
    finally:
        fast.aws.lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    assert dict(caught.value.response)["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"


def test_events_that_a_stopped_plane_loses_are_told(up: Up) -> None:
    plane = up.start_plane(free_port())
    other = Up(up.project, msgspec.structs.replace(up.stack, plane=plane))
    name = other.arm("python").function_name
    with contextlib.closing(other.aws.lambda_), failing(other, name):
        for _ in range(2):
            other.invoke(name, {}, InvocationType="Event")
        wait_until(lambda: other.status()["functions"][name]["invocations"] >= 2, 10)
    plane.end(grace_s=20)
    log = (up.project / ".lambdalab" / f"plane-{plane.port}.log").read_text()
    assert f"{name}: 2 asynchronous events were not done and are lost" in log
