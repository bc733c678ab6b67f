"""A latency model over real processes: the plane, both languages, boto3, the emulator, and emulators that fail."""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lambdalab.aws.clients import Aws
from lambdalab.local.latency import Draws, LatencyModel
from lambdalab.local.service_time import ServiceTime
from local.test_stack import batch
from local.whole import LANGUAGES, Up

PUT = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDB_20120810.PutItem\r\nContent-Length: 4\r\n\r\nbody"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
WAIT_S = 20


def model(*calls: tuple[str, str], ms: float) -> LatencyModel:
    """Every one of these calls takes exactly so long."""
    numbers = {"p50_ms": ms, "p99_ms": ms, "p50_source": "assumption", "p99_source": "assumption"}
    found = [{"service": service, "operation": operation} | numbers for service, operation in calls]
    return msgspec.convert({"name": "fixed", "date": "2026-11-21", "seed": 1, "calls": found}, LatencyModel)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def endpoint_of(pid: int) -> str:
    """Where a function's process was told to find AWS."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (found,) = [v for v in variables if v.startswith(b"AWS_ENDPOINT_URL=")]
    return found.decode().partition("=")[2]


def test_both_functions_wait_for_their_puts_and_each_has_a_way_of_its_own(up: Up) -> None:
    plane = up.start_plane(free_port(), latency=msgspec.to_builtins(model(("dynamodb", "PutItem"), ms=200)))
    stack = msgspec.structs.replace(up.stack, plane=plane)
    client = stack.aws().lambda_
    endpoints = {up.stack.endpoint_url}
    try:
        for language in LANGUAGES:
            name = up.arm(language).function_name
            summary = json.loads(up.invoke(name, batch(5), client)["Payload"])
            assert summary["written"] == summary["put_ms"]["n"] == 5
            assert summary["put_ms"]["p50"] >= 200
            with contextlib.chdir(up.project):
                found = stack.status()["functions"][name]
            assert found["service_calls"] == {"dynamodb PutItem": {"calls": 5, "slower": 0}}
            endpoints.add(endpoint_of(found["pids"][0]))
        assert len(endpoints) == 3
        with contextlib.chdir(up.project):
            assert stack.status()["latency"]["calls"][0]["p50_ms"] == 200
    finally:
        client.close()
        plane.end(grace_s=15)


def test_without_a_model_functions_speak_to_the_emulator_itself(up: Up) -> None:
    assert up.status()["latency"] is None
    for language in LANGUAGES:
        name = up.arm(language).function_name
        up.invoke(name, batch())
        assert "service_calls" not in up.status()["functions"][name]
        assert endpoint_of(up.pids(language)[0]) == up.stack.endpoint_url


@contextlib.asynccontextmanager
async def way_to(endpoint_url: str, model: LatencyModel) -> AsyncIterator[tuple[ServiceTime, str]]:
    way = ServiceTime(endpoint_url, Draws(model, "f"))
    try:
        yield way, await way.open()
    finally:
        way.close()


async def test_a_real_sdk_through_it_sees_the_same_later(up: Up) -> None:
    calls = (("s3", "PutObject"), ("s3", "GetObject"), ("sqs", "SendMessage"), ("s3", "HeadObject"))
    body = bytes(range(256)) * 4 * 1024 * 3
    times: dict[str, float] = {}

    def use(url: str) -> None:
        aws = Aws(endpoint_url=url)
        s3: Any = aws.session.client("s3", endpoint_url=url)

        def timed(name: str, work: Callable[[], Any]) -> Any:
            began = time.monotonic()
            answer = work()
            times[name] = time.monotonic() - began
            return answer

        with contextlib.closing(s3), contextlib.closing(aws.sqs), contextlib.closing(aws.dynamodb):
            s3.create_bucket(Bucket="latency")
            timed("put", lambda: s3.put_object(Bucket="latency", Key="a/b", Body=body))
            got = timed("get", lambda: s3.get_object(Bucket="latency", Key="a/b")["Body"].read())
            assert got == body
            head = timed("head", lambda: s3.head_object(Bucket="latency", Key="a/b"))
            assert head["ContentLength"] == len(body)
            with pytest.raises(s3.exceptions.ClientError, match="404"):
                timed("missing", lambda: s3.head_object(Bucket="latency", Key="none"))
            queue = aws.sqs.create_queue(QueueName="latency")["QueueUrl"]
            assert timed("send", lambda: aws.sqs.send_message(QueueUrl=queue, MessageBody="{}"))["MessageId"]
            aws.sqs.delete_queue(QueueUrl=queue)
            assert aws.dynamodb.list_tables()["TableNames"]

    async with way_to(up.stack.endpoint_url, model(*calls, ms=150)) as (way, url):
        await asyncio.to_thread(use, url)
    assert min(times.values()) >= 0.15, times
    assert dict(way.calls) == {"s3 PutObject": 1, "s3 GetObject": 1, "s3 HeadObject": 2, "sqs SendMessage": 1}


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def between(serve: Serve, ms: float = 100) -> AsyncIterator[tuple[ServiceTime, str, str]]:
    """An emulator made by hand: the way, its address, and the emulator's own."""
    running: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.create_task(end_after(serve, reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    direct = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with way_to(direct, model(("dynamodb", "PutItem"), ms=ms)) as (way, url):
        yield way, url, direct
        await asyncio.wait_for(asyncio.gather(*running), WAIT_S)  # all of them see the end of their connection
    server.close()


async def end_after(serve: Serve, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await serve(reader, writer)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def connection(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def read(reader: asyncio.StreamReader, size: int) -> bytes:
    return await asyncio.wait_for(reader.readexactly(size), WAIT_S)


async def test_a_connection_is_kept_and_each_of_its_answers_is_late() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readexactly(len(PUT)):
                writer.write(OK)

    async with between(serve) as (way, url, _), connection(url) as (reader, writer):
        for _ in range(3):
            began = time.monotonic()
            writer.write(PUT)
            assert await read(reader, len(OK)) == OK
            assert time.monotonic() - began >= 0.1
    assert connections == 1
    assert way.counts() == {"dynamodb PutItem": {"calls": 3, "slower": 0}}


async def test_an_emulator_that_is_slower_is_not_made_slower_still_and_counted() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(PUT))
        await asyncio.sleep(0.15)
        writer.write(OK)
        await reader.read()

    async with between(serve) as (way, url, _), connection(url) as (reader, writer):
        writer.write(PUT)
        assert await read(reader, len(OK)) == OK
    assert way.counts() == {"dynamodb PutItem": {"calls": 1, "slower": 1}}


async def test_requests_and_answers_stream_in_both_directions() -> None:
    """Each side sends its second half only when the other's first half, or all, has arrived."""
    got_first_half, go_on = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(PUT) - 2)
        got_first_half.set()
        await reader.readexactly(2)
        writer.write(OK[:-1])
        await go_on.wait()
        writer.write(OK[-1:])
        await reader.read()

    async with between(serve) as (_, url, _), connection(url) as (reader, writer):
        writer.write(PUT[:-2])
        await asyncio.wait_for(got_first_half.wait(), WAIT_S)
        writer.write(PUT[-2:])
        assert await read(reader, len(OK) - 1) == OK[:-1]
        go_on.set()
        assert await read(reader, 1) == OK[-1:]


async def test_continue_is_not_held_back() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await reader.read()

    async with between(serve, ms=60_000) as (way, url, _), connection(url) as (reader, writer):
        writer.write(PUT[:-4])
        assert await asyncio.wait_for(reader.readline(), WAIT_S) == b"HTTP/1.1 100 Continue\r\n"
    assert way.slower.total() == 0


@pytest.mark.parametrize("slow", ["the function", "the emulator"])
async def test_a_side_that_does_not_read_holds_the_other_up(slow: str) -> None:
    much, filled, over = bytes(64 * 1024 * 1024), asyncio.Event(), asyncio.Event()

    async def fill(writer: asyncio.StreamWriter) -> None:
        writer.write(much)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(writer.drain(), 1)
            return
        filled.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(PUT))
        if slow == "the function":
            await fill(writer)
        await over.wait()
        writer.transport.abort()

    async with between(serve, ms=1) as (_, url, _), connection(url) as (_, writer):
        writer.write(PUT)
        if slow == "the emulator":
            await fill(writer)
        await asyncio.wait_for(filled.wait(), WAIT_S)
        over.set()
        writer.transport.abort()


async def test_a_large_answer_that_is_read_slowly_is_whole() -> None:
    size = 8 * 1024 * 1024
    body = bytes(range(256)) * (size // 256)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(PUT))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body)
        await reader.read()

    async with between(serve) as (_, url, _), connection(url) as (reader, writer):
        writer.write(PUT)
        await asyncio.sleep(0.3)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)
        assert await read(reader, size) == body


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize("fails", ["closes", "closes in the answer", "resets", "answers 500", "answers no HTTP"])
async def test_an_emulator_that_fails_is_passed_on_as_it_is(fails: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(PUT))
        match fails:
            case "closes in the answer":
                writer.write(OK[:-1])
            case "resets":
                reset(writer)
            case "answers 500":
                writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
            case "answers no HTTP":
                writer.write(b"\0\1\2")

    async def seen(url: str) -> bytes | str:
        async with connection(url) as (reader, writer):
            writer.write(PUT)
            try:
                return await asyncio.wait_for(reader.read(), WAIT_S)
            except ConnectionResetError:
                return "reset"

    async with between(serve) as (_, url, direct):
        assert await seen(url) == await seen(direct)


async def test_an_emulator_that_is_gone_ends_the_connection() -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    async with way_to(gone, model(("dynamodb", "PutItem"), ms=1)) as (_, url), connection(url) as (reader, writer):
        writer.write(PUT)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), WAIT_S)


async def test_what_is_no_http_passes_as_it_is() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readexactly(6))[::-1])
        await reader.read()

    async with between(serve) as (way, url, _), connection(url) as (reader, writer):
        writer.write(b"\0nohtt")
        assert await read(reader, 6) == b"tthon\0"
    assert not way.calls
