"""Log lines on their way to CloudWatch Logs, over HTTP to a service that refuses some of them."""

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from lambdalab.aws.clients import Aws
from lambdalab.aws.stack import Stack
from lambdalab.local import logs as logs_module
from lambdalab.local.aws_json import AwsJson
from lambdalab.local.http import Exchange, Response, port_of, serve
from lambdalab.local.logs import REFUSALS, LogWriter
from lambdalab.run.target import AwsTarget
from local.support import Emulated

if TYPE_CHECKING:
    from mypy_boto3_logs.type_defs import InputLogEventTypeDef

GROUP = "/aws/lambda/under-test"


@dataclass
class Service:
    """The log service; it refuses what goes to the streams named in ``refused``."""

    refused: set[str] = field(default_factory=set)
    taken: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    refusals: int = 0

    def handle(self, exchange: Exchange) -> None:
        body = json.loads(exchange.request.body)
        if exchange.request.headers["x-amz-target"].endswith(".PutLogEvents"):
            stream = body["logStreamName"]
            if stream in self.refused:
                self.refusals += 1
                refusal = {"__type": "InvalidParameterException", "message": "no"}
                exchange.reply(Response(400, json.dumps(refusal).encode()))
                return
            self.taken[stream] += [event["message"] for event in body["logEvents"]]
        exchange.reply(Response(200, b"{}"))


@dataclass
class Bench:
    service: Service
    writer: LogWriter
    client: AwsJson

    def fail(self, patch: pytest.MonkeyPatch, problem: Exception, times: int) -> None:
        """Lets the next calls that write fail before they are sent."""
        failures = iter([problem] * times)

        async def call(action: str, **parameters: Any) -> Any:
            if action == "PutLogEvents" and (failure := next(failures, None)) is not None:
                raise failure
            return await AwsJson.call(self.client, action, **parameters)

        patch.setattr(self.client, "call", call)


@asynccontextmanager
async def writing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(logs_module, "FLUSH_S", 0.001)
    monkeypatch.setattr(logs_module, "RETRY_S", 0.001)
    service = Service()
    server = await serve(service.handle)
    url = f"http://127.0.0.1:{port_of(server)}"
    client = AwsJson(url, Aws(endpoint_url=url).session, "logs")
    writer = LogWriter(client)
    try:
        yield Bench(service, writer, client)
    finally:
        await writer.close()
        server.close()


def refusal(code: str, status: int) -> ClientError:
    """As ``AwsJson`` raises it for a service that refuses."""
    response: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutLogEvents")


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 - the writer runs beside the test; conftest ends a test that hangs
        await asyncio.sleep(0.005)


async def test_lines_of_a_stream_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "BATCH_EVENTS", 3)
    async with writing(monkeypatch) as bench:
        for number in range(10):
            bench.writer.emit(GROUP, "one", str(number))
            bench.writer.emit(GROUP, "two", str(-number))
    assert bench.service.taken["one"] == [str(n) for n in range(10)]
    assert bench.service.taken["two"] == [str(-n) for n in range(10)]
    assert bench.writer.dropped == 0


async def test_a_refused_batch_is_dropped_and_counted_and_holds_up_no_other_stream(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with writing(monkeypatch) as bench:
        bench.service.refused.add("bad")
        bench.writer.emit(GROUP, "bad", "first")
        bench.writer.emit(GROUP, "bad", "second")
        bench.writer.emit(GROUP, "good", "third")
        await until(lambda: bench.service.taken["good"] == ["third"])
        await until(lambda: bench.writer.dropped)
        assert bench.writer.dropped == 2
        assert bench.service.refusals == REFUSALS
        bench.service.refused.clear()
        bench.writer.emit(GROUP, "bad", "fourth")
        await until(lambda: bench.service.taken["bad"])
    assert bench.service.taken["bad"] == ["fourth"]
    assert "2 log lines are lost: bad in /aws/lambda/under-test was refused" in caplog.text


async def test_an_error_that_is_not_the_services_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with writing(monkeypatch) as bench:
        bench.fail(monkeypatch, ValueError("unforeseen"), 1)
        bench.writer.emit(GROUP, "one", "first")
        await until(lambda: bench.service.taken["one"])
        bench.writer.emit(GROUP, "one", "second")
        await until(lambda: len(bench.service.taken["one"]) > 1)
    assert bench.service.taken["one"] == ["first", "second"]
    assert bench.writer.dropped == 0


async def test_what_cannot_be_written_at_the_end_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(logs_module, "BATCH_EVENTS", 2)
    async with writing(monkeypatch) as bench:
        bench.service.refused.add("bad")
        bench.writer.emit(GROUP, "bad", "lost")
        for number in range(5):
            bench.writer.emit(GROUP, "good", str(number))
    assert bench.service.taken["good"] == [str(n) for n in range(5)]
    assert bench.writer.dropped == 1
    assert "1 log lines are lost" in caplog.text


@pytest.mark.parametrize(
    "problem",
    [
        ConnectionRefusedError("away"),
        refusal("ServiceUnavailable", 503),
        refusal("ServiceUnavailableException", 500),
        refusal("ThrottlingException", 400),
    ],
    ids=str,
)
async def test_a_service_that_is_away_loses_no_line(monkeypatch: pytest.MonkeyPatch, problem: Exception) -> None:
    async with writing(monkeypatch) as bench:
        bench.fail(monkeypatch, problem, REFUSALS + 3)
        bench.writer.emit(GROUP, "one", "kept")
        await until(lambda: bench.service.taken["one"])
    assert bench.service.taken["one"] == ["kept"]
    assert bench.writer.dropped == 0


def test_the_emulator_tells_all_lines_of_a_crowded_second(emulated: Emulated) -> None:
    aws, group = emulated.aws, "/aws/lambda/crowded"
    aws.logs.create_log_group(logGroupName=group)
    aws.logs.create_log_stream(logGroupName=group, logStreamName="stream")
    second_ms = (time.time_ns() // 10**9 - 60) * 1000
    events: list[InputLogEventTypeDef] = [{"timestamp": second_ms + i // 12, "message": str(i)} for i in range(12_000)]
    for begin in (0, 6_000):
        put = aws.logs.put_log_events
        put(logGroupName=group, logStreamName="stream", logEvents=events[begin : begin + 6_000])
    target = AwsTarget(aws, Stack(name="lab", outputs={}, parameters={}, resources={}, types={}))
    target.poll_s = 0.05
    lines = list(target.log_lines(group, second_ms))
    assert sorted(int(line.message) for line in lines) == list(range(12_000))
