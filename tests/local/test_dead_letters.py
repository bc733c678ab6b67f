"""Dead-letter queues at a real emulator: nothing is lost, nothing is changed, whatever happens in between."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from botocore.httpsession import URLLib3Session

from lambdalab.aws.clients import Aws
from lambdalab.aws.dead_letters import DeadLetterQueue, Redriven, dead_letter_queues, depth, look, redrive
from lambdalab.aws.stack import Stack, find_stack
from lambdalab.cli.dead_letters import _after, _noted
from lambdalab.errors import AccessError, StackError, UsageError
from lambdalab.loopback import LOCAL_KEY, LOCAL_REGION
from local.support import Emulated

GROUP = "/aws/lambda/dead-letters"
FAST = 500


@pytest.fixture(scope="module")
def aws(emulated: Emulated) -> Aws:
    emulated.aws.logs.create_log_group(logGroupName=GROUP)
    return emulated.aws


@pytest.fixture
def queue(aws: Aws) -> DeadLetterQueue:
    name = secrets.token_hex(4)
    return DeadLetterQueue(
        language="go",
        url=aws.sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"],
        source_url=aws.sqs.create_queue(QueueName=name)["QueueUrl"],
        log_group=GROUP,
    )


def put(aws: Aws, url: str, *bodies: str, **members: Any) -> list[str]:
    return [aws.sqs.send_message(QueueUrl=url, MessageBody=body, **members)["MessageId"] for body in bodies]


def there(aws: Aws, url: str) -> tuple[int, int]:
    found = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return int(found["ApproximateNumberOfMessages"]), int(found["ApproximateNumberOfMessagesNotVisible"])


def taken(aws: Aws, url: str) -> list[Any]:
    """Empties a queue of what is visible."""
    found: list[Any] = []
    while page := aws.sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=10,
        MessageAttributeNames=["All"],
        MessageSystemAttributeNames=["All"],
        VisibilityTimeout=600,
    ).get("Messages"):
        found += page
    return found


def move(aws: Aws, queue: DeadLetterQueue, per_s: int = FAST, **more: Any) -> Redriven:
    return redrive(aws, queue, per_s=per_s, **({"stop": threading.Event()} | more))


ATTRIBUTES: dict[str, Any] = {
    "text": {"DataType": "String", "StringValue": "ü\t"},
    "number": {"DataType": "Number.int", "StringValue": "007"},
    "bytes": {"DataType": "Binary", "BinaryValue": b"\x00\xff\x80"},
}
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"
BODIES = ("plain", ' {"a" :1,\n"a":2}\r\n', "\U0001f642 ünï\tcode", "x" * 700_000, "y" * 700_000)


def test_what_is_redriven_is_the_same_byte_for_byte(aws: Aws, queue: DeadLetterQueue) -> None:
    trace: dict[str, Any] = {"AWSTraceHeader": {"DataType": "String", "StringValue": TRACE}}
    put(aws, queue.url, *BODIES, MessageAttributes=ATTRIBUTES, MessageSystemAttributes=trace)
    told: list[int] = []
    asked: list[Any] = []  # the emulator drops the trace header of a batch
    aws.sqs_once.meta.events.register(
        "provide-client-params.sqs.SendMessageBatch", lambda params, **_: asked.extend(params["Entries"]), "trace"
    )

    assert move(aws, queue, progress=told.append) == Redriven(moved=5)

    aws.sqs_once.meta.events.unregister("provide-client-params.sqs.SendMessageBatch", unique_id="trace")
    assert [entry["MessageSystemAttributes"] for entry in asked] == [trace] * 5

    assert told[-1] == 5
    assert there(aws, queue.url) == (0, 0)
    found = taken(aws, queue.source_url)
    assert sorted(message["Body"] for message in found) == sorted(BODIES)
    for message in found:
        assert message["MessageAttributes"] == ATTRIBUTES


def test_no_more_than_the_rate_and_all_of_it(aws: Aws, queue: DeadLetterQueue) -> None:
    put(aws, queue.url, *map(str, range(25)))
    moments: list[tuple[int, float]] = []

    assert move(aws, queue, per_s=20, progress=lambda n: moments.append((n, time.monotonic()))) == Redriven(moved=25)

    first, began = moments[0]
    for number, at in moments[1:]:
        assert number - first <= 20 * (at - began) + 10.5, "more than a batch ahead of the rate"


def test_looking_changes_nothing_but_the_receive_count(aws: Aws, queue: DeadLetterQueue) -> None:
    ids = put(aws, queue.url, *map(str, range(23)), MessageAttributes=ATTRIBUTES)

    found = look(aws, queue, at_most=1000)

    assert sorted(letter.message_id for letter in found) == sorted(ids)
    assert {letter.receive_count for letter in found} == {1}
    assert found[0].attributes["bytes"] == {"DataType": "Binary", "BinaryValue": "AP+A"}
    assert found[0].attributes["number"] == {"DataType": "Number.int", "StringValue": "007"}
    assert there(aws, queue.url) == (23, 0)
    assert {letter.receive_count for letter in look(aws, queue, at_most=1000)} == {2}
    assert len(look(aws, queue, at_most=7)) == 7
    assert there(aws, queue.url) == (23, 0)


def test_the_oldest_message_is_known_of_those_looked_at(aws: Aws, queue: DeadLetterQueue) -> None:
    assert depth(aws, queue).oldest_sent_at_ms is None
    put(aws, queue.url, "old")
    oldest = look(aws, queue, at_most=1)[0].sent_at_ms
    put(aws, queue.url, *map(str, range(12)))

    found = depth(aws, queue)

    assert (found.visible, found.hidden, found.looked_at, found.oldest_sent_at_ms) == (13, 0, 13, oldest)
    assert depth(aws, queue, look_at=4).looked_at == 4
    assert there(aws, queue.url) == (13, 0)


def test_stopped_in_the_middle_every_message_is_in_one_queue(aws: Aws, queue: DeadLetterQueue) -> None:
    put(aws, queue.url, *map(str, range(30)))
    stop = threading.Event()

    done = move(aws, queue, per_s=10, stop=stop, progress=lambda _: stop.set())

    assert done == Redriven(moved=10)
    assert (there(aws, queue.url), there(aws, queue.source_url)) == ((20, 0), (10, 0))
    assert move(aws, queue) == Redriven(moved=20)
    assert sorted(int(message["Body"]) for message in taken(aws, queue.source_url)) == list(range(30))


REDRIVE = """
import os, signal, sys, threading
from lambdalab.aws.clients import Aws
from lambdalab.aws.dead_letters import DeadLetterQueue, redrive
url, dead, source, moment = sys.argv[1:]
aws, calls = Aws(endpoint_url=url), []
def die(**_):
    calls.append(moment)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
for client in (aws.sqs, aws.sqs_once):
    client.meta.events.register(moment, die)
queue = DeadLetterQueue(language="go", url=dead, source_url=source, log_group="-")
redrive(aws, queue, per_s=500, stop=threading.Event())
"""
MOMENTS = ("ReceiveMessage", "SendMessageBatch", "DeleteMessageBatch")


@pytest.mark.parametrize("moment", [f"{when}-call.sqs.{call}" for call in MOMENTS for when in ("before", "after")])
def test_killed_in_the_middle_nothing_is_lost(aws: Aws, queue: DeadLetterQueue, moment: str) -> None:
    put(aws, queue.url, *map(str, range(60)))
    command = [sys.executable, "-c", REDRIVE, aws.sqs.meta.endpoint_url, queue.url, queue.source_url, moment]

    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL

    visible, hidden = there(aws, queue.url)
    moved = {int(message["Body"]) for message in taken(aws, queue.source_url)}
    rest = {int(message["Body"]) for message in taken(aws, queue.url)}
    in_both = moment in ("after-call.sqs.SendMessageBatch", "before-call.sqs.DeleteMessageBatch")
    assert len(moved) == (30 if in_both or moment == "after-call.sqs.DeleteMessageBatch" else 20)
    assert hidden == (0 if moment in ("before-call.sqs.ReceiveMessage", "after-call.sqs.DeleteMessageBatch") else 10)
    assert len(rest) == visible
    assert not moved & rest
    assert visible + hidden + len(moved) == (70 if in_both else 60)


def test_what_the_queue_does_not_take_stays(aws: Aws, queue: DeadLetterQueue) -> None:
    aws.sqs.set_queue_attributes(QueueUrl=queue.source_url, Attributes={"MaximumMessageSize": "2000"})
    put(aws, queue.url, *(f"small {n}" for n in range(11)), "L" * 3000)

    try:
        done = move(aws, queue)
    except AccessError:
        pass  # the emulator may refuse the whole request
    else:
        assert (done.moved, done.refused, done.twice) == (11, 1, 0)
        assert done.refusal is not None
        assert done.undeleted is None
    assert there(aws, queue.url)[1] == 0, "given back at once"
    bodies = [m["Body"] for url in (queue.url, queue.source_url) for m in taken(aws, url)]
    assert sorted(bodies) == sorted([*(f"small {n}" for n in range(11)), "L" * 3000])


def test_a_queue_that_is_gone_costs_no_message(aws: Aws, queue: DeadLetterQueue) -> None:
    put(aws, queue.url, *map(str, range(12)))
    aws.sqs.delete_queue(QueueUrl=queue.source_url)

    with pytest.raises(AccessError, match=r"SendMessageBatch on queue .* was refused"):
        move(aws, queue)

    assert there(aws, queue.url) == (12, 0)


def test_what_was_done_before_a_queue_did_not_answer_is_said(aws: Aws, queue: DeadLetterQueue) -> None:
    put(aws, queue.url, *map(str, range(12)))

    with pytest.raises(AccessError) as caught:
        move(aws, queue, progress=lambda _: aws.sqs.delete_queue(QueueUrl=queue.source_url))

    (note,) = caught.value.__notes__
    assert note == (
        f"go, before that: 10 messages went from {queue.url} to {queue.source_url}, 0 were refused, 0 are in both; "
        "of up to 10 more it is not known."
    )


def test_what_was_sent_is_not_sent_again_when_the_answer_is_lost(aws: Aws, queue: DeadLetterQueue) -> None:
    put(aws, queue.url, *map(str, range(3)))

    def lose(request: Any, **_: Any) -> None:
        URLLib3Session().send(request)
        raise ReadTimeoutError(endpoint_url=request.url)

    aws.sqs_once.meta.events.register("before-send.sqs.SendMessageBatch", lose, "lose")
    with pytest.raises(AccessError, match="Read timeout"):
        move(aws, queue)
    aws.sqs_once.meta.events.unregister("before-send.sqs.SendMessageBatch", unique_id="lose")

    assert sorted(message["Body"] for message in taken(aws, queue.source_url)) == ["0", "1", "2"]
    assert there(aws, queue.url) == (3, 0)


@pytest.fixture
def stack(aws: Aws) -> tuple[str, DeadLetterQueue]:
    """The queues of one language, and what the commands find them by."""
    name = f"lambdalab-{secrets.token_hex(4)}"
    queues = {"Go": {"Type": "AWS::SQS::Queue"}, "GoDead": {"Type": "AWS::SQS::Queue"}}
    outputs = {"GoQueueUrl": {"Ref": "Go"}, "GoDeadLetterQueueUrl": {"Ref": "GoDead"}, "GoLogGroupName": GROUP}
    template = {"Resources": queues, "Outputs": {key: {"Value": value} for key, value in outputs.items()}}
    aws.cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(template))
    aws.cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    (queue,) = dead_letter_queues(find_stack(aws, name, next_step="-"))
    return name, queue


def redrive_by_hand(emulated: Emulated, name: str, *more: str) -> "subprocess.CompletedProcess[str]":
    access = {"AWS_ACCESS_KEY_ID": LOCAL_KEY, "AWS_SECRET_ACCESS_KEY": LOCAL_KEY, "AWS_REGION": LOCAL_REGION}
    command = [str(Path(sys.executable).with_name("lambdalab")), "dlq", "redrive"]
    return subprocess.run(
        [*command, "--target", "aws", "--stack-name", name, *more],
        env={**os.environ, **access, "AWS_ENDPOINT_URL": emulated.url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_hidden_is_said_where_nothing_can_be_moved(
    emulated: Emulated, stack: tuple[str, DeadLetterQueue]
) -> None:
    aws, (name, queue) = emulated.aws, stack
    put(aws, queue.url, "a", "b")
    assert len(taken(aws, queue.url)) == 2

    done = redrive_by_hand(emulated, name, "--yes")

    assert done.returncode == 0, done.stderr
    assert f"go: 0 messages would go from {queue.url}" in done.stdout
    assert done.stdout.endswith("; hidden, for a minute if a redrive was killed: 2\n")


def test_a_redrive_that_fails_says_what_it_did(emulated: Emulated, stack: tuple[str, DeadLetterQueue]) -> None:
    aws, (name, queue) = emulated.aws, stack
    put(aws, queue.url, "a")
    aws.sqs.delete_queue(QueueUrl=queue.source_url)

    done = redrive_by_hand(emulated, name, "--yes")

    assert done.returncode == 3
    assert "lambdalab: SendMessageBatch on queue " in done.stderr
    assert f"lambdalab: go, before that: 0 messages went from {queue.url} to " in done.stderr
    assert "Traceback" not in done.stderr


def test_problems_of_other_queues_are_said_when_one_does_not_answer() -> None:
    with pytest.raises(AccessError) as caught, _noted(["one did not take 1 message"], ["two did not give up 1"]):
        raise AccessError("three does not answer", next_step="wait")
    assert caught.value.__notes__ == ["one did not take 1 message.", "two did not give up 1."]


def test_only_what_was_refused_is_to_be_redriven_again() -> None:
    assert _after(refused=True, twice=False).endswith(", and redrive again what was refused")
    only_twice = _after(refused=False, twice=True)
    assert "again" not in only_twice
    assert only_twice.endswith("went already: redriving sends it once more, which writes the same items")


def test_what_is_given_up_again_is_not_moved_again(aws: Aws, queue: DeadLetterQueue) -> None:
    """A consumer that returns everything at once: the run ends all the same."""
    put(aws, queue.url, *map(str, range(30)))
    over = threading.Event()

    def fail() -> None:
        while not over.is_set():
            page = aws.sqs.receive_message(QueueUrl=queue.source_url, MaxNumberOfMessages=10).get("Messages", [])
            for message in page:
                put(aws, queue.url, message["Body"])
                aws.sqs.delete_message(QueueUrl=queue.source_url, ReceiptHandle=message["ReceiptHandle"])

    consumer = threading.Thread(target=fail)
    consumer.start()
    try:
        done = move(aws, queue, per_s=100)
    finally:
        over.set()
        consumer.join()
    assert done == Redriven(moved=30)


def test_why_is_read_from_the_log(aws: Aws, queue: DeadLetterQueue) -> None:
    known, unknown, refused = put(aws, queue.url, '{"batch_id": "run:1"}', '{"batch_id": "run:2"}', "no json")
    sent = {letter.message_id: letter.sent_at_ms for letter in look(aws, queue, at_most=3)}
    now = int(time.time() * 1000) + 1000

    def record(**members: Any) -> Any:
        common = {"_aws": {}, "request_id": "r", "lang": "go", "cold_start": False, "started_ms": now}
        return {"timestamp": now, "message": json.dumps(common | {"finished_ms": now} | members)}

    stream = secrets.token_hex(4)
    aws.logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
    aws.logs.put_log_events(
        logGroupName=GROUP,
        logStreamName=stream,
        logEvents=[
            record(batch_id="run:1", error={"code": "WriteFailed", "message": "item 3: Boom"}),
            record(batch_id="run:2"),
            record(sent_ms=sent[refused], error={"code": "InvalidJson", "message": "not JSON"}),
            {"timestamp": now, "message": '{"error": {"code": "somebody else\'s"}}'},
        ],
    )

    found = {letter.message_id: letter.error or {} for letter in look(aws, queue, at_most=3)}

    assert found[known]["code"] == "WriteFailed"
    assert found[unknown] == {}
    if len(set(sent.values())) == 3:  # two sent in one millisecond cannot be told apart
        assert found[refused]["code"] == "InvalidJson"

    def ended(*messages: str) -> dict[str, Any]:
        events: Any = [{"timestamp": now, "message": message} for message in messages]
        aws.logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)
        return {letter.message_id: letter.error or {} for letter in look(aws, queue, at_most=3)}

    timeout = "2026-11-30T10:00:00.000Z {} Task timed out after 3.00 seconds\n\n"
    timed_out = ended(timeout.format("r1"), timeout.format("r2"))
    assert timed_out[known]["code"] == "WriteFailed"
    assert timed_out[unknown]["code"] == "Sandbox.Timedout"
    assert timed_out[unknown]["message"].startswith("Task timed out after 3.00 seconds")
    crash = "RequestId: r3 Error: Runtime exited with error: exit status 1\nRuntime.ExitError\n"
    assert ended(crash)[unknown] == {}, "two causes: which was this message's is not known"


def test_the_queues_of_a_stack() -> None:
    outputs = {
        f"{prefix}{name}": f"{prefix}/{name}"
        for prefix in ("Python", "Go")
        for name in ("QueueUrl", "DeadLetterQueueUrl", "LogGroupName")
    }
    stack = Stack(name="s", outputs=outputs, parameters={}, resources={}, types={})
    assert [queue.language for queue in dead_letter_queues(stack)] == ["python", "go"]
    (only,) = dead_letter_queues(stack, ["go"])
    assert (only.url, only.source_url) == ("Go/DeadLetterQueueUrl", "Go/QueueUrl")
    with pytest.raises(UsageError, match="no dead-letter queue for language 'rust'; name one of: python, go"):
        dead_letter_queues(stack, ["rust"])
    with contextlib.suppress(StackError):
        dead_letter_queues(Stack(name="s", outputs={}, parameters={}, resources={}, types={}))
        pytest.fail("a foreign stack is refused")
