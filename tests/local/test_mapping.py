"""The event source mapping over a real queue and real environments: each rule that docs/mapping.md lists."""

import asyncio
import json
import secrets
import socket
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lambdalab.aws.clients import Aws
from lambdalab.local.aws_json import AwsJson
from lambdalab.local.concurrency import Account, ScaleOut
from lambdalab.local.function import FunctionSpec
from lambdalab.local.http import Exchange, Response, serve
from lambdalab.local.poller import Mapping, Poller
from lambdalab.local.startup import start_emulator
from local.support import Machine, Running, go_spec, python_spec, running


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    emulator = start_emulator(port, tmp_path_factory.mktemp("emulator"))
    found = Aws(endpoint_url=f"http://127.0.0.1:{port}")
    yield found
    found.sqs.close()
    emulator.end(grace_s=5)


@dataclass
class Under:
    """A mapping under test: its queue, its poller and what the function got."""

    aws: Aws
    url: str
    function: Running
    start: Callable[[], Poller]
    poller: Poller = field(init=False)

    def restart(self) -> None:
        self.poller = self.start()

    def send(self, *bodies: str, group: Callable[[str], str] | None = None) -> None:
        """Sends in order; ``group`` names the message group of a body."""
        for begin in range(0, len(bodies), 10):
            entries: list[Any] = []
            for number, body in enumerate(bodies[begin : begin + 10]):
                more = {"MessageGroupId": group(body), "MessageDeduplicationId": secrets.token_hex()} if group else {}
                entries.append({"Id": str(number), "MessageBody": body} | more)
            self.aws.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)

    @property
    def invocations(self) -> list[dict[str, Any]]:
        """What each invocation told, in the order of their beginnings."""
        found = [json.loads(line) for line in self.function.lines if line.startswith('{"got"')]
        return sorted(found, key=lambda invocation: float(invocation["at"]))

    @property
    def got(self) -> list[tuple[str, int]]:
        """Body and receive count of every message that arrived."""
        return [(body, count) for invocation in self.invocations for body, count in invocation["got"]]

    def dead(self) -> list[str]:
        """Bodies in the dead-letter queue, of which there are fewer than ten."""
        url = self.url.replace("/q-", "/dead-q-")
        found = self.aws.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return [message["Body"] for message in found.get("Messages", ())]

    def depth(self) -> int:
        names: Any = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        found = self.aws.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, (self.poller.status(), self.got)
            await asyncio.sleep(0.02)

    async def drained(self, timeout_s: float = 25) -> None:
        deadline = time.monotonic() + timeout_s
        while await asyncio.to_thread(self.depth):
            assert time.monotonic() < deadline, (self.poller.status(), self.got)
            await asyncio.sleep(0.05)


@asynccontextmanager
async def mapped(
    aws: Aws,
    machine: Machine,
    *bodies: str,
    reserved: int | None = None,
    visibility_s: int = 30,
    max_receive_count: int | None = None,
    timeout_s: int = 30,
    spec: FunctionSpec | None = None,
    endpoint_url: str | None = None,
    limits: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Under]:
    """A queue that holds ``bodies`` already, mapped to the function that does what they say."""
    fifo = settings.pop("group", None)
    attributes = {"VisibilityTimeout": str(visibility_s)} | ({"FifoQueue": "true"} if fifo else {})
    name = f"q-{secrets.token_hex(6)}" + (".fifo" if fifo else "")
    if max_receive_count is not None:
        aws.sqs.create_queue(QueueName=f"dead-{name}")
        target = f"arn:aws:sqs:us-east-1:000000000000:dead-{name}"
        policy = {"deadLetterTargetArn": target, "maxReceiveCount": max_receive_count}
        attributes["RedrivePolicy"] = json.dumps(policy)
    url = aws.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]
    mapping = Mapping(
        uuid="1",
        function_name="under-test",
        queue_arn=f"arn:aws:sqs:eu-west-1:000000000000:{name}",
        queue_url=url,
        **settings,
    )
    spec = spec or python_spec("records.handler", reserved_concurrency=reserved, timeout_s=timeout_s)
    sqs = AwsJson(endpoint_url or aws.sqs.meta.endpoint_url, aws.session, "sqs")
    async with running(machine, spec, **(limits or {})) as function:
        under = Under(aws, url, function, lambda: Poller(mapping, function.pool, sqs))
        under.send(*bodies, group=fifo)
        under.restart()
        try:
            yield under
        finally:
            await under.poller.close()
            sqs.close()


async def test_backlog_opens_five_batches_at_once_then_more(aws: Aws, machine: Machine) -> None:
    began = time.monotonic()
    async with mapped(aws, machine, *(f"sleep 6 {i}" for i in range(9)), batch_size=1) as it:
        await it.until(lambda: it.poller.most_in_flight >= 5)
        assert it.poller.receives == 1, "five with the first poll"
        await it.until(lambda: it.poller.most_in_flight == 9)
        assert time.monotonic() - began > 0.7  # five a second
        await it.drained()
        await it.until(lambda: it.poller.status()["concurrency"] == 5)
        assert it.poller.status()["in_flight"] == it.poller.throttles == 0
        assert sorted(it.got) == [(f"sleep 6 {i}", 1) for i in range(9)]


async def test_no_message_is_received_before_it_has_a_place(aws: Aws, machine: Machine) -> None:
    bodies = [f"sleep 3 {i}" for i in range(12)]
    async with mapped(aws, machine, *bodies, batch_size=1, maximum_concurrency=5) as it:
        await it.until(lambda: len(it.got) == 5)
        name: Any = "ApproximateNumberOfMessagesNotVisible"
        found = it.aws.sqs.get_queue_attributes(QueueUrl=it.url, AttributeNames=[name])["Attributes"]
        assert found[name] == "5"
        await it.drained()
        assert {count for _, count in it.got} == {1}


async def test_short_invocations_are_fed_with_few_polls(aws: Aws, machine: Machine) -> None:
    bodies = list(map(str, range(300)))
    async with mapped(aws, machine, *bodies, batch_size=1, maximum_concurrency=5) as it:
        await it.drained()
        assert sorted(it.got) == sorted((body, 1) for body in bodies)
        assert it.poller.most_in_flight == 5
        assert it.poller.receives - it.poller.empty_receives < 150  # one at a time it would be 300


async def test_what_is_ready_is_given_back_when_closing(aws: Aws, machine: Machine) -> None:
    bodies = [*map(str, range(40)), *(f"sleep 4 {i}" for i in range(40))]
    async with mapped(aws, machine, *bodies, batch_size=1, maximum_concurrency=5) as it:
        await it.until(lambda: sum(body.startswith("sleep") for body, _ in it.got) == 5)
        await it.poller.close(grace_s=10)
        assert it.depth() == len(bodies) - len(it.got)
        name: Any = "ApproximateNumberOfMessages"
        found = it.aws.sqs.get_queue_attributes(QueueUrl=it.url, AttributeNames=[name])["Attributes"]
        assert int(found[name]) == it.depth()


async def test_new_filter_holds_for_the_poll_under_way(aws: Aws, machine: Machine) -> None:
    async with mapped(aws, machine, patterns=('{"body": ["nothing"]}',)) as it:
        await it.until(lambda: it.poller.receives >= 1)
        it.poller.reconfigure(msgspec.structs.replace(it.poller.mapping, patterns=()))
        it.send("x")
        await it.drained()
        assert it.got == [("x", 1)]
        assert it.poller.filtered == 0


async def test_maximum_concurrency_bounds_the_batches(aws: Aws, machine: Machine) -> None:
    began = time.monotonic()
    async with mapped(
        aws, machine, *(f"sleep 0.6 {i}" for i in range(6)), batch_size=1, maximum_concurrency=2, reserved=2
    ) as it:
        await it.drained()
        assert (it.poller.most_in_flight, it.function.pool.cold_starts, it.poller.throttles) == (2, 2, 0)
        status = it.poller.status()
        assert 6 * 0.6 <= status["in_flight_s"] <= status["places_s"] <= 2 * (time.monotonic() - began)


async def test_one_message_at_a_time_is_never_throttled(aws: Aws, machine: Machine) -> None:
    async with mapped(aws, machine, batch_size=1, reserved=1) as it:
        for number in range(5):
            it.send(f"sleep 0.05 {number}")
            await it.drained()
        assert it.function.pool.throttles == it.poller.throttles == 0
        assert it.got == [(f"sleep 0.05 {number}", 1) for number in range(5)]


async def test_reserved_concurrency_of_one_throttles_four_of_five(aws: Aws, machine: Machine) -> None:
    async with mapped(aws, machine, *(f"sleep 0.5 {i}" for i in range(5)), batch_size=1, reserved=1) as it:
        await it.until(lambda: it.poller.throttles >= 4)
        await it.drained()
        assert it.function.pool.cold_starts == 1
        assert it.poller.given_up == 0
        assert sorted(it.got) == [(f"sleep 0.5 {i}", 1) for i in range(5)]


async def test_scaling_out_too_fast_throttles_and_no_message_comes_twice(aws: Aws, machine: Machine) -> None:
    bodies = [f"sleep 0.5 {i}" for i in range(5)]
    async with mapped(aws, machine, *bodies, batch_size=1, limits={"scale_out": ScaleOut(2, per_s=1e6)}) as it:
        await it.until(lambda: it.poller.throttles >= 3)
        await it.drained()
        assert it.function.pool.cold_starts == 2
        assert it.function.pool.throttles == it.poller.throttles
        assert it.poller.given_up == 0
        assert sorted(it.got) == [(body, 1) for body in bodies]


@pytest.mark.parametrize("limit", ["reserved", "account", "rate"])
async def test_throttled_batch_is_given_up_when_visibility_ends(aws: Aws, machine: Machine, limit: str) -> None:
    each: dict[str, dict[str, Any]] = {
        "account": {"account": Account(1)},
        "rate": {"scale_out": ScaleOut(1, per_s=1e6)},
    }
    reserved = 1 if limit == "reserved" else None
    async with mapped(aws, machine, batch_size=1, reserved=reserved, visibility_s=2, limits=each.get(limit)) as it:
        slow = {"Records": [{"body": "sleep 5", "attributes": {"ApproximateReceiveCount": "1"}}]}
        busy = asyncio.create_task(it.function.invoke(slow))
        await it.until(lambda: it.function.pool.in_flight == 1)
        it.send("x")
        await it.until(lambda: it.poller.given_up >= 1, 4)
        assert it.poller.status()["in_flight"] == 0
        await busy
        await it.drained()
        ((body, count),) = it.got[1:]
        assert body == "x"
        assert count == it.poller.given_up + 1 >= 2


async def test_what_passes_no_filter_is_deleted_and_counted(aws: Aws, machine: Machine) -> None:
    patterns = ('{"body": {"kind": ["a"], "size": [{"numeric": [">", 5]}]}}', '{"body": {"kind": [{"prefix": "b"}]}}')
    bodies = [
        '{"kind": "a", "size": 6}',
        '{"kind": "a", "size": 5}',
        '{"kind": "bc"}',
        '{"kind": "c"}',
        "plain text",
    ]
    async with mapped(aws, machine, *bodies, patterns=patterns) as it:
        await it.drained()
        assert sorted(it.got) == [(bodies[0], 1), (bodies[2], 1)]
        assert it.poller.status()["filtered"] == 3


async def test_plain_text_filter_drops_json(aws: Aws, machine: Machine) -> None:
    async with mapped(
        aws, machine, "hello", "world", '{"hello": 1}', patterns=('{"body": [{"anything-but": "world"}]}',)
    ) as it:
        await it.drained()
        assert it.got == [("hello", 1)]
        assert it.poller.filtered == 2


async def test_batch_without_a_window_is_one_receive(aws: Aws, machine: Machine) -> None:
    async with mapped(aws, machine, *map(str, range(12)), batch_size=10) as it:
        await it.drained()
        assert sorted(len(i["got"]) for i in it.invocations) == [2, 10]


@pytest.mark.parametrize(("before", "after", "batches"), [(1, 10, [10]), (10, 1, [1] * 10), (5, 6, [6, 4])])
async def test_new_batch_size_holds_for_the_poll_under_way(
    aws: Aws, machine: Machine, before: int, after: int, batches: list[int]
) -> None:
    async with mapped(aws, machine, batch_size=before) as it:
        await it.until(lambda: it.poller.receives == 1)
        it.poller.reconfigure(msgspec.structs.replace(it.poller.mapping, batch_size=after))
        it.send(*map(str, range(10)))
        await it.drained()
        assert sorted((len(i["got"]) for i in it.invocations), reverse=True) == batches


async def test_window_gathers_until_the_batch_is_full(aws: Aws, machine: Machine) -> None:
    began = time.time()
    async with mapped(aws, machine, *map(str, range(25)), batch_size=25, window_s=20) as it:
        await it.drained(10)
        assert [len(i["got"]) for i in it.invocations] == [25]
        assert time.time() - began < 10


async def test_window_ends_with_what_there_is(aws: Aws, machine: Machine) -> None:
    async with mapped(aws, machine, "0", batch_size=100, window_s=2) as it:
        began = time.time()
        await asyncio.sleep(1)
        it.send("1", "2")
        await it.drained()
        (invocation,) = it.invocations
        assert [body for body, _ in invocation["got"]] == ["0", "1", "2"]
        assert 1.7 < invocation["at"] - began < 4


async def test_payload_never_passes_six_megabytes(aws: Aws, machine: Machine) -> None:
    bodies = [f"{i:02} " + "x" * 250_000 for i in range(40)]
    async with mapped(aws, machine, batch_size=100, window_s=5) as it:
        for begin in range(0, 40, 4):
            it.send(*bodies[begin : begin + 4])
        await it.drained()
        assert sorted(body[:2] for body, _ in it.got) == [f"{i:02}" for i in range(40)]
        sizes = [i["bytes"] for i in it.invocations]
        assert max(sizes) <= 6 * 1024 * 1024
        assert len(sizes) >= 2
        assert {count for _, count in it.got} == {1}


@pytest.mark.parametrize("reports", [True, False])
async def test_failed_batch_waits_for_visibility_and_slows_down_without_reports(
    aws: Aws, machine: Machine, reports: bool
) -> None:
    async with mapped(
        aws, machine, "fail 2 a", "b", visibility_s=3, batch_size=10, reports_batch_item_failures=reports
    ) as it:
        await it.until(lambda: it.poller.failed_batches == 1)
        assert it.poller.status()["concurrency"] == (5 if reports else 2)
        await it.drained()
        assert it.got == [("fail 2 a", 1), ("b", 1), ("fail 2 a", 2), ("b", 2)]
        assert it.invocations[1]["at"] - it.invocations[0]["at"] > 2


@pytest.mark.parametrize("reports", [True, False])
async def test_only_reported_items_come_again(aws: Aws, machine: Machine, reports: bool) -> None:
    async with mapped(
        aws, machine, "a", "return 2 b", "c", visibility_s=2, batch_size=10, reports_batch_item_failures=reports
    ) as it:
        await it.drained()
        assert it.got == [("a", 1), ("return 2 b", 1), ("c", 1)] + ([("return 2 b", 2)] if reports else [])
        assert it.poller.failed_batches == 0


def last_word(body: str) -> str:
    return body.split()[-1]


async def test_groups_run_in_parallel_and_each_in_order(aws: Aws, machine: Machine) -> None:
    bodies = [f"sleep 0.3 {number} {group}" for number in range(3) for group in "abc"]
    async with mapped(aws, machine, *bodies, batch_size=1, group=last_word) as it:
        await it.drained()
        for group in "abc":
            assert [body for body, _ in it.got if last_word(body) == group] == [b for b in bodies if b[-1] == group]
        assert it.poller.most_in_flight == 3
        assert {count for _, count in it.got} == {1}


async def test_after_a_failure_the_rest_of_its_group_waits(aws: Aws, machine: Machine) -> None:
    bodies = ["fail 2 0 a", "1 a", "0 b", "1 b"]
    async with mapped(aws, machine, *bodies, batch_size=1, group=last_word, visibility_s=3) as it:
        await it.drained()
        assert [got for got in it.got if got[0][-1] == "a"] == [("fail 2 0 a", 1), ("fail 2 0 a", 2), ("1 a", 1)]
        assert [got for got in it.got if got[0][-1] == "b"] == [("0 b", 1), ("1 b", 1)]
        at = {tuple(invocation["got"][0]): invocation["at"] for invocation in it.invocations}
        assert at["fail 2 0 a", 2] - at["fail 2 0 a", 1] > 2
        assert at["1 b", 1] < at["fail 2 0 a", 2]


async def test_failed_part_of_a_batch_holds_back_the_parts_after_it(aws: Aws, machine: Machine) -> None:
    bodies = [("fail 2 " if number == 0 else "") + f"{number} " + "x" * 900_000 for number in range(9)]
    async with mapped(aws, machine, batch_size=10, group=lambda body: "a", visibility_s=4) as it:
        await it.poller.close()  # until all are sent, which takes a request each
        for body in bodies:
            it.send(body, group=lambda body: "a")
        it.restart()
        await it.drained()
        first, again, rest = (i["got"] for i in it.invocations)
        assert first[0] == [bodies[0][:100], 1]
        assert [body for body, _ in again] == [body for body, _ in first]
        assert [body for body, _ in first + rest] == [body[:100] for body in bodies]
        assert {count for _, count in again + rest} == {2}


async def test_batch_not_begun_is_given_back_when_closing(aws: Aws, machine: Machine) -> None:
    async with mapped(aws, machine, "x", batch_size=50, window_s=20) as it:
        await it.until(lambda: it.poller.receives >= 2)
        await it.poller.close()
        assert it.got == []
        found = await asyncio.to_thread(it.aws.sqs.receive_message, QueueUrl=it.url)
        assert [m["Body"] for m in found["Messages"]] == ["x"]


LISTED = '{"batchItemFailures": [%s]}'
CONTRACT = {
    "listed": (LISTED % '{"itemIdentifier": "$ID"}', "first"),
    "empty list": (LISTED % "", "none"),
    "null list": ('{"batchItemFailures": null}', "none"),
    "empty answer": ("{}", "none"),
    "null answer": ("null", "none"),
    "empty identifier": (LISTED % '{"itemIdentifier": ""}', "both"),
    "null identifier": (LISTED % '{"itemIdentifier": null}', "both"),
    "wrong key": (LISTED % '{"messageId": "$ID"}', "both"),
    "identifier that is not in the batch": (LISTED % '{"itemIdentifier": "another"}', "both"),
    "one that is and one that is not": (LISTED % '{"itemIdentifier": "$ID"}, {"itemIdentifier": "x"}', "both"),
    "no list": ('{"batchItemFailures": "$ID"}', "both"),
}


async def test_every_answer_of_the_partial_batch_contract(aws: Aws, machine: Machine) -> None:
    async def come_again(answer: str) -> str:
        bodies = f"answer {answer}", "other"
        async with mapped(aws, machine, *bodies, visibility_s=3, reports_batch_item_failures=True) as it:
            await it.drained(40)
            counts = [sorted(count for body, count in it.got if body == wanted[:100]) for wanted in bodies]
            return {"[[1], [1]]": "none", "[[1, 2], [1]]": "first", "[[1, 2], [1, 2]]": "both"}[str(counts)]

    found = await asyncio.gather(*(come_again(answer) for answer, _ in CONTRACT.values()))
    assert dict(zip(CONTRACT, found, strict=True)) == {row: again for row, (_, again) in CONTRACT.items()}


@pytest.mark.parametrize(
    ("body", "invocations"),
    [("raw", 1), ("raw ", 1), ("raw{", 2), ('raw{"batchItemFailures": [', 2), ("raw{}{}", 2), ('raw{"a": NaN}', 2)],
)
async def test_answer_that_is_empty_or_no_json(
    aws: Aws, machine: Machine, go_package: Path, body: str, invocations: int
) -> None:
    spec = go_spec(go_package, timeout_s=30)
    async with mapped(aws, machine, body, spec=spec, visibility_s=3, reports_batch_item_failures=True) as it:
        await it.drained()
        assert it.function.pool.invocations == invocations


@pytest.mark.parametrize("reports", [True, False])
async def test_timeout_fails_the_whole_batch(aws: Aws, machine: Machine, reports: bool) -> None:
    async with mapped(
        aws, machine, "stall 20 a", "b", timeout_s=1, visibility_s=3, reports_batch_item_failures=reports
    ) as it:
        await it.drained()
        assert it.got == [("stall 20 a", 1), ("b", 1), ("stall 20 a", 2), ("b", 2)]
        assert it.poller.failed_batches == 1


async def test_crash_fails_the_whole_batch(aws: Aws, machine: Machine) -> None:
    async with mapped(aws, machine, "crash 2 a", "b", visibility_s=2, reports_batch_item_failures=True) as it:
        await it.drained()
        assert it.got == [("crash 2 a", 1), ("b", 1), ("crash 2 a", 2), ("b", 2)]


async def test_fifo_function_that_stops_at_its_first_failure_gets_the_rest_again_in_order(
    aws: Aws, machine: Machine
) -> None:
    bodies = ["0 a", "1 a", "stop 2 2 a", "3 a"]
    async with mapped(
        aws, machine, *bodies, group=lambda body: "a", visibility_s=2, reports_batch_item_failures=True
    ) as it:
        await it.drained()
        assert it.got == [(body, 1) for body in bodies] + [(body, 2) for body in bodies[2:]]


async def test_failures_end_in_the_dead_letter_queue(aws: Aws, machine: Machine) -> None:
    async with mapped(aws, machine, "fail 9 a", "b", batch_size=1, visibility_s=5, max_receive_count=2) as it:
        await it.drained()
        assert it.dead() == ["fail 9 a"]
        assert sorted(it.got) == [("b", 1), ("fail 9 a", 1), ("fail 9 a", 2)]


async def test_throttles_use_up_receives(aws: Aws, machine: Machine) -> None:
    async with mapped(aws, machine, batch_size=1, reserved=1, visibility_s=1, max_receive_count=2) as it:
        slow = {"Records": [{"body": "sleep 20", "attributes": {"ApproximateReceiveCount": "1"}}]}
        busy = asyncio.create_task(it.function.invoke(slow))
        await it.until(lambda: it.function.pool.in_flight == 1)
        it.send("x")
        await it.until(lambda: it.dead() == ["x"])
        busy.cancel()
        assert it.poller.given_up == 2
        assert it.got == [("sleep 20", 1)]


async def test_message_that_is_visible_too_soon_comes_twice_and_is_told(aws: Aws, machine: Machine) -> None:
    async with mapped(aws, machine, "stall 4 x", batch_size=1, visibility_s=1) as it:
        await it.until(lambda: it.poller.status()["undeleted"] == 1)
        await it.drained()
        assert it.got == [("stall 4 x", 1), ("stall 4 x", 2)]


async def test_batch_may_hold_hundreds(aws: Aws, machine: Machine) -> None:
    async with mapped(aws, machine, batch_size=10_000, window_s=8) as it:
        it.send(*map(str, range(300)))
        await it.drained()
        assert [len(i["got"]) for i in it.invocations] == [300]


async def test_five_filters_are_alternatives(aws: Aws, machine: Machine) -> None:
    patterns = tuple(json.dumps({"body": {"kind": [kind]}}) for kind in "abcde")
    bodies = [json.dumps({"kind": kind}) for kind in "abcdef"]
    async with mapped(aws, machine, *bodies, patterns=patterns) as it:
        await it.drained()
        assert sorted(it.got) == [(body, 1) for body in bodies[:5]]
        assert it.poller.filtered == 1


def shown(it: Under) -> dict[str, Any]:
    (record,) = (json.loads(line)["record"] for line in it.function.lines if line.startswith('{"record"'))
    return dict(record)


async def test_record_of_a_standard_queue(aws: Aws, machine: Machine) -> None:
    async with mapped(aws, machine) as it:
        attributes: Any = {
            "n": {"DataType": "Number", "StringValue": "7"},
            "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        }
        trace: Any = {
            "AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-67891233-abcdef012345678912345678"}
        }
        sent = it.aws.sqs.send_message(
            QueueUrl=it.url, MessageBody="show \u00e4", MessageAttributes=attributes, MessageSystemAttributes=trace
        )
        await it.drained()
        record = shown(it)
        system = record.pop("attributes")
        assert record.pop("receiptHandle")
        assert record == {
            "messageId": sent["MessageId"],
            "body": "show \u00e4",
            "md5OfBody": sent["MD5OfMessageBody"],
            "md5OfMessageAttributes": sent["MD5OfMessageAttributes"],
            "eventSource": "aws:sqs",
            "eventSourceARN": f"arn:aws:sqs:eu-west-1:000000000000:{it.url.rsplit('/', 1)[1]}",
            "awsRegion": "eu-west-1",
            "messageAttributes": {
                "n": {"stringValue": "7", "stringListValues": [], "binaryListValues": [], "dataType": "Number"},
                "b": {"binaryValue": "AP8=", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"},
            },
        }
        assert system.pop("AWSTraceHeader") == trace["AWSTraceHeader"]["StringValue"]
        assert set(system) == {
            "ApproximateReceiveCount",
            "SentTimestamp",
            "SenderId",
            "ApproximateFirstReceiveTimestamp",
        }
        assert system["ApproximateReceiveCount"] == "1"
        assert 0 <= int(system["ApproximateFirstReceiveTimestamp"]) - int(system["SentTimestamp"]) < 60_000


async def test_record_of_a_fifo_queue_names_group_and_order(aws: Aws, machine: Machine) -> None:
    async with mapped(aws, machine, "show a", group=lambda body: "a") as it:
        await it.drained()
        record = shown(it)
        assert "md5OfMessageAttributes" not in record
        assert record["attributes"]["MessageGroupId"] == "a"
        assert record["attributes"]["MessageDeduplicationId"]
        assert record["attributes"]["SequenceNumber"].isdigit()


@asynccontextmanager
async def in_front(aws: Aws, deletions: list[str]) -> AsyncIterator[str]:
    """The queue behind something that answers each DeleteMessageBatch as ``deletions`` say, then lets all through."""

    async def forward(exchange: Exchange) -> None:
        kept = {k: v for k, v in exchange.request.headers.items() if k not in ("host", "content-length")}
        request = urllib.request.Request(aws.sqs.meta.endpoint_url, exchange.request.body, kept)
        body = await asyncio.to_thread(lambda: urllib.request.urlopen(request).read())
        exchange.reply(Response(200, body))

    tasks = set()

    def handle(exchange: Exchange) -> None:
        if exchange.request.headers["x-amz-target"].endswith(".DeleteMessageBatch") and deletions:
            if deletions.pop(0) == "error":
                exchange.reply(Response(500, b'{"__type": "InternalFailure"}'))
                return
            entries = json.loads(exchange.request.body)["Entries"]
            failed = [{"Id": e["Id"], "Code": "InternalError", "SenderFault": False} for e in entries]
            exchange.reply(Response(200, json.dumps({"Failed": failed}).encode()))
            return
        task = asyncio.get_running_loop().create_task(forward(exchange))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await serve(handle, 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_deletion_that_fails_is_tried_again(aws: Aws, machine: Machine) -> None:
    deletions = ["failed", "error", "failed"]
    async with (
        in_front(aws, deletions) as endpoint_url,
        mapped(aws, machine, "a", "b", "c", batch_size=10, endpoint_url=endpoint_url) as it,
    ):
        await it.drained()
        assert deletions == []
        assert it.poller.status()["undeleted"] == 0
        assert it.got == [("a", 1), ("b", 1), ("c", 1)]


async def test_deletion_that_goes_on_failing_is_told_and_the_message_comes_again(aws: Aws, machine: Machine) -> None:
    deletions = ["failed", "error", "failed", "failed", "failed"]
    async with (
        in_front(aws, deletions) as endpoint_url,
        mapped(aws, machine, "a", "b", visibility_s=4, endpoint_url=endpoint_url) as it,
    ):
        await it.until(lambda: it.poller.status()["undeleted"] == 2)
        await it.drained()
        assert it.got == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
