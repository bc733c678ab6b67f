"""The Runtime API over raw sockets: every state, every refusal, and requests that no client would send."""

import asyncio
import base64
import contextlib
import gc
import json
import random
import re
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from lambdalab.local.http import (
    BODY_LIMIT_BYTES,
    HEAD_LIMIT_BYTES,
    PIPELINE_LIMIT,
    Connection,
    Exchange,
    Response,
    port_of,
    serve,
)
from lambdalab.local.runtime_api import RESPONSE_LIMIT_BYTES, Answer, Event, InitError, RuntimeApi, State

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"
PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
EVENT = Event(request_id="id-1", payload=b'{"n":1}', deadline_ms=1795254600750, function_arn="arn:f", trace_id="Root=1")
FUZZED_REQUESTS = 4000


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    head = [f"POST /2018-06-01/runtime/{path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@dataclass
class Reply:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def error_type(self) -> str:
        return str(json.loads(self.body)["errorType"])


class Client:
    """One connection to a Runtime API."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def call(self, data: bytes) -> Reply:
        self.send(data)
        return await self.receive()

    async def receive(self) -> Reply:
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return Reply(
            int(first.split()[1]), headers, await self.reader.readexactly(int(headers.get("content-length", 0)))
        )

    async def ended(self) -> bool:
        """Whether the server closes the connection, having sent nothing more."""
        return await asyncio.wait_for(self.reader.read(), 5) == b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Session:
    """A Runtime API and connections to it."""

    def __init__(self) -> None:
        self.api = RuntimeApi()
        self.port = 0
        self.clients: list[Client] = []
        self.done: asyncio.Future[tuple[Answer, int]]

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def reach(self, state: State) -> Client:
        """A client whose API is in a state."""
        client = await self.connect()
        if state is State.INIT:
            return client
        if state is State.FAILED:
            await client.call(post("init/error", b"{}"))
            with pytest.raises(InitError):
                await self.api.initialised
            return client
        client.send(NEXT)
        await self.api.initialised
        if state is State.READY:
            return await self.connect()
        self.done, self.started_ns = self.api.invoke(EVENT)
        await client.receive()
        if state is State.ANSWERED:
            await client.call(post("invocation/id-1/response", b"1"))
        assert self.api.state is state
        return client


@asynccontextmanager
async def session() -> AsyncIterator[Session]:
    found = Session()
    address = await found.api.start()
    assert address.startswith("127.0.0.1:")
    found.port = int(address.rsplit(":", 1)[1])
    try:
        yield found
    finally:
        for client in found.clients:
            await client.close()
        found.api.close()
        await asyncio.sleep(0.01)


RESPONSE, ERROR = post("invocation/id-1/response", b"1"), post("invocation/id-1/error", b"{}")
WRONG, INIT_ERROR = post("invocation/other/response", b"1"), post("init/error", b"{}")
ALLOWED, STATE, ID = (202, None), (403, "InvalidStateTransition"), (400, "InvalidRequestID")


@pytest.mark.parametrize(
    ("state", "request_", "expected"),
    [
        (State.INIT, INIT_ERROR, ALLOWED),
        (State.INIT, RESPONSE, ID),
        (State.INIT, ERROR, ID),
        (State.READY, NEXT, STATE),
        (State.READY, INIT_ERROR, STATE),
        (State.READY, RESPONSE, ID),
        (State.READY, ERROR, ID),
        (State.RUNNING, NEXT, STATE),
        (State.RUNNING, INIT_ERROR, STATE),
        (State.RUNNING, WRONG, ID),
        (State.RUNNING, RESPONSE, ALLOWED),
        (State.RUNNING, ERROR, ALLOWED),
        (State.ANSWERED, INIT_ERROR, STATE),
        (State.ANSWERED, WRONG, ID),
        (State.ANSWERED, RESPONSE, STATE),
        (State.ANSWERED, ERROR, STATE),
        (State.FAILED, NEXT, STATE),
        (State.FAILED, INIT_ERROR, STATE),
        (State.FAILED, RESPONSE, ID),
    ],
    ids=lambda value: value.name if isinstance(value, State) else None,
)
async def test_every_state_and_what_it_refuses(state: State, request_: bytes, expected: tuple[int, str | None]) -> None:
    async with session() as found:
        client = await found.reach(state)
        reply = await client.call(request_)
        assert (reply.status, reply.error_type if reply.status != 202 else None) == expected
        if reply.status == 202:
            assert json.loads(reply.body) == {"status": "OK"}
        else:
            assert found.api.state is state
        if found.api.state is State.FAILED and state is State.INIT:
            with pytest.raises(InitError):
                await found.api.initialised


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /2018-06-01/runtime/restore/next HTTP/1.1\r\nHost: x\r\n\r\n",
        post("restore/error", b"{}"),
        b"POST /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"GET /2018-06-01/runtime/invocation/id-1/response HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /2018-06-01/runtime/invocation/next/more HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /2020-01-01/extension/register HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_not_there_is_not_found(request_: bytes) -> None:
    async with session() as found:
        client = await found.connect()
        assert (await client.call(request_)).status == 404
        assert (await client.call(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")).body == b"pong"
        assert found.api.state is State.INIT


async def test_one_whole_life() -> None:
    async with session() as found:
        client = await found.connect()
        client.send(NEXT)
        initialised_ns = await found.api.initialised
        told: list[object] = []
        done, started_ns = found.api.invoke(EVENT, at_answer=lambda: told.append("answer"), at_next=told.append)
        event = await client.receive()
        assert told == []
        assert (event.status, event.body) == (200, b'{"n":1}')
        assert {name: value for name, value in event.headers.items() if name.startswith("lambda-")} == {
            "lambda-runtime-aws-request-id": "id-1",
            "lambda-runtime-deadline-ms": "1795254600750",
            "lambda-runtime-invoked-function-arn": "arn:f",
            "lambda-runtime-trace-id": "Root=1",
        }
        assert (await client.call(post("invocation/id-1/response", b"42"))).status == 202
        assert not done.done()  # only the next `next` ends an invocation
        assert told == ["answer"]
        assert found.api.answer == Answer(payload=b"42")
        client.send(NEXT)
        answer, ended_ns = await done
        assert answer == Answer(payload=b"42")
        assert told == ["answer", answer]
        assert initialised_ns < started_ns < ended_ns
        assert found.api.state is State.READY
        found.api.invoke(EVENT)
        assert found.api.answer is None


async def test_invoke_is_refused_where_nobody_waits() -> None:
    async with session() as found:
        with pytest.raises(RuntimeError, match="invoke in state INIT"):
            found.api.invoke(EVENT)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Runtime.ExitError", "Runtime.ExitError"),
        ("Function.MyError", "Function.MyError"),
        ("Runtime.lower", "Runtime.Unknown"),
        ("ValueError", "Function.Unknown"),
        ("", "Function.Unknown"),
        ("Function.X\u00e9!", "Function.Unknown"),
    ],
)
async def test_error_types_of_another_form_are_replaced(given: str, expected: str) -> None:
    async with session() as found:
        client = await found.reach(State.RUNNING)
        await client.call(post("invocation/id-1/error", b'{"a":1}', f"Lambda-Runtime-Function-Error-Type: {given}"))
        client.send(NEXT)
        answer, _ = await found.done
        assert answer == Answer(payload=b'{"a":1}', error_type=expected)


CHUNKED = b"POST /2018-06-01/runtime/invocation/id-1/response HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
TRAILERS = b"Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n"
ERROR_BODY = base64.b64encode(b'{"errorType":"E"}')


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (CHUNKED + b"\r\n2\r\n[1\r\n3;extension=1\r\n,2]\r\n0\r\n\r\n", Answer(payload=b"[1,2]")),
        (CHUNKED + b"\r\n0\r\n\r\n", Answer(payload=b"")),
        (CHUNKED + TRAILERS + b"\r\n1\r\n7\r\n0\r\n\r\n", Answer(payload=b"7")),
        (
            CHUNKED + TRAILERS + b"\r\n2\r\n[1\r\n0\r\nLambda-Runtime-Function-Error-Type: Function.Err\r\n\r\n",
            Answer(payload=b"[1", error_type="Function.Err"),
        ),
        (
            CHUNKED + TRAILERS + b"\r\n2\r\n[1\r\n0\r\nLambda-Runtime-Function-Error-Type: E\r\n"
            b"Lambda-Runtime-Function-Error-Body: " + ERROR_BODY + b"\r\n\r\n",
            Answer(payload=b'{"errorType":"E"}', error_type="Function.Unknown"),
        ),
        (
            CHUNKED + TRAILERS + b"\r\n2\r\n[1\r\n0\r\nLambda-Runtime-Function-Error-Type: Runtime.Err\r\n"
            b"Lambda-Runtime-Function-Error-Body: no base64!\r\n\r\n",
            Answer(payload=b"[1", error_type="Runtime.Err"),
        ),
    ],
    ids=["chunks", "empty", "trailers announced and absent", "type", "type and body", "body is not base64"],
)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
async def test_chunked_answers_and_trailers(request_: bytes, expected: Answer, piece: int) -> None:
    async with session() as found:
        client = await found.reach(State.RUNNING)
        for start in range(0, len(request_), piece):
            client.send(request_[start : start + piece])
            await asyncio.sleep(0)
        assert (await client.receive()).status == 202
        client.send(NEXT)
        assert (await found.done)[0] == expected


@pytest.mark.parametrize(
    ("size", "status"), [(RESPONSE_LIMIT_BYTES, 202), (RESPONSE_LIMIT_BYTES + 1, 413), (40 * 1024 * 1024, 413)]
)
async def test_limit_of_an_answer(size: int, status: int) -> None:
    async with session() as found:
        client = await found.reach(State.RUNNING)
        reply = await client.call(post("invocation/id-1/response", b"x" * size))
        assert reply.status == status
        client.send(NEXT)
        answer, _ = await found.done
        if status == 202:
            assert len(answer.payload) == size
        else:
            assert reply.error_type == "RequestEntityTooLarge"
            assert answer.error_type == "Function.ResponseSizeTooLarge"
            assert f"({size} bytes)" in json.loads(answer.payload)["errorMessage"]


async def test_client_that_waits_to_be_asked_for_its_body_is_asked() -> None:
    async with session() as found:
        client = await found.reach(State.RUNNING)
        whole = post("invocation/id-1/response", b"[1]", "Expect: 100-continue")
        assert (await client.call(whole[:-3])).status == 100
        assert (await client.call(whole[-3:])).status == 202


async def test_requests_on_one_connection_are_answered_in_order() -> None:
    async with session() as found:
        client = await found.reach(State.RUNNING)
        client.send(WRONG + RESPONSE + ERROR + NEXT + b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * PIPELINE_LIMIT)
        assert [(await client.receive()).status for _ in range(3)] == [400, 202, 403]
        await found.done
        found.api.invoke(EVENT)
        assert (await client.receive()).body == b'{"n":1}'
        assert [(await client.receive()).body for _ in range(PIPELINE_LIMIT)] == [b"pong"] * PIPELINE_LIMIT


async def test_requests_without_end_behind_a_waiting_one_are_refused() -> None:
    async with session() as found:
        client = await found.reach(State.INIT)
        client.send(NEXT + b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * (PIPELINE_LIMIT + 1))
        assert (await client.receive()).status == 429
        assert await client.ended()


async def test_large_requests_behind_a_waiting_one_are_refused() -> None:
    async with session() as found:
        client = await found.reach(State.INIT)
        body = b"x" * (BODY_LIMIT_BYTES // 2)
        client.send(NEXT + post("init/error", body) * 3)
        await found.api.initialised
        client.send(PING)
        assert (await client.receive()).status == 429
        assert await client.ended()


async def test_connection_that_has_ended_holds_nothing() -> None:
    freed = asyncio.Event()

    def answer(exchange: Exchange) -> None:
        weakref.finalize(exchange._connection, freed.set)
        exchange.reply(Response(200))

    server = await serve(answer)
    gc.disable()
    try:
        client = Client(*await asyncio.open_connection("127.0.0.1", port_of(server)))
        await client.call(PING)
        client.send(RESPONSE[:-1])
        await client.close()
        await asyncio.wait_for(freed.wait(), 10)
    finally:
        gc.enable()
        server.close()


async def test_client_that_takes_no_answers_gets_no_more_of_them_until_it_does() -> None:
    held_bytes = []

    def answer(exchange: Exchange) -> None:
        assert exchange._connection._transport is not None
        held_bytes.append(exchange._connection._transport.get_write_buffer_size())
        exchange.reply(Response(200, b"x" * 1024 * 1024))

    server = await serve(answer)
    client = Client(*await asyncio.open_connection("127.0.0.1", port_of(server)))
    client.send(PING * PIPELINE_LIMIT)
    assert [len((await client.receive()).body) for _ in range(PIPELINE_LIMIT)] == [1024 * 1024] * PIPELINE_LIMIT
    assert len(held_bytes) == PIPELINE_LIMIT
    assert max(held_bytes) < 1024 * 1024
    await client.close()
    server.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * HEAD_LIMIT_BYTES + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_LIMIT_BYTES + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * (HEAD_LIMIT_BYTES * 2), 431),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * (HEAD_LIMIT_BYTES // 2) + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * (HEAD_LIMIT_BYTES * 2), 431),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None,
)
async def test_malformed_requests_are_refused_and_the_connection_ends(request_: bytes, status: int) -> None:
    async with session() as found:
        client = await found.connect()
        client.send(request_)
        with contextlib.suppress(ConnectionResetError):  # what was still under way when it closed may break the answer
            assert (await client.receive()).status == status
            assert await client.ended()
        other = await found.connect()
        assert (await other.call(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200


async def test_large_headers_within_the_limit_are_taken() -> None:
    async with session() as found:
        client = await found.connect()
        request = b"GET /ping HTTP/1.1\r\nX: " + b"a" * (HEAD_LIMIT_BYTES - 1000) + b"\r\n\r\n"
        for _ in range(2):
            assert (await client.call(request)).status == 200


def receive(connection: Connection, data: bytes) -> None:
    """As the event loop hands over what came, in as many pieces as the buffer makes of it."""
    while data:
        buffer = connection.get_buffer(-1)
        piece, data = data[: len(buffer)], data[len(buffer) :]
        buffer[: len(piece)] = piece
        connection.buffer_updated(len(piece))


def test_chunks_are_no_head_however_they_are_cut() -> None:
    taken: list[Exchange] = []

    def take(exchange: Exchange) -> None:
        taken.append(exchange)

    connection, chunk = Connection(take), b"a" * 65536
    connection.connection_made(Ignored())
    receive(connection, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n")
    for _ in range(40):
        receive(connection, chunk + b"\r\n10000\r\n")
    receive(connection, chunk + b"\r\n0\r\nX: a\r\n\r\n")
    (exchange,) = taken
    assert (exchange.request.body_bytes, exchange.request.headers["x"]) == (41 * 65536, "a")


class Ignored(asyncio.Transport):
    """A connection to nobody."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: object) -> None:
        raise AssertionError(data)


async def test_upgrade_is_answered_as_an_ordinary_request() -> None:
    async with session() as found:
        client = await found.connect()
        reply = await client.call(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nmore")
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert await client.ended()


async def test_connection_that_is_not_kept_ends() -> None:
    async with session() as found:
        client = await found.connect()
        assert (await client.call(b"GET /ping HTTP/1.0\r\n\r\n")).body == b"pong"
        assert await client.ended()


async def wait_and_leave(found: Session) -> None:
    client = await found.connect()
    client.send(NEXT)
    await found.api.initialised
    await client.close()
    await asyncio.sleep(0.05)


async def test_client_that_leaves_while_it_waits_may_come_again() -> None:
    async with session() as found:
        await wait_and_leave(found)
        again = await found.connect()
        again.send(NEXT)
        await asyncio.sleep(0.05)
        found.api.invoke(EVENT)
        assert (await again.receive()).headers["lambda-runtime-aws-request-id"] == "id-1"


async def test_client_that_leaves_for_good_answers_nothing() -> None:
    async with session() as found:
        await wait_and_leave(found)
        done, _ = found.api.invoke(EVENT)
        await asyncio.sleep(0.05)
        assert not done.done()


async def test_client_that_leaves_in_the_middle_of_its_answer_has_not_answered() -> None:
    async with session() as found:
        client = await found.reach(State.RUNNING)
        client.send(post("invocation/id-1/response", b"x" * 100)[:-50])
        await client.close()
        await asyncio.sleep(0.05)
        assert found.api.state is State.RUNNING


SEEDS = [
    NEXT,
    RESPONSE,
    ERROR,
    INIT_ERROR,
    CHUNKED + b"\r\n2\r\n[1\r\n3\r\n,2]\r\n0\r\n\r\n",
    CHUNKED + TRAILERS + b"\r\n2\r\n[1\r\n0\r\nLambda-Runtime-Function-Error-Type: Function.Err\r\n\r\n",
    post("invocation/id-1/response", b"[1]", "Expect: 100-continue", "Connection: keep-alive"),
]
TOKENS = [
    b"\r\n",
    b"\n",
    b"\x00",
    b":",
    b" ",
    b"\xff",
    b"chunked",
    b"Content-Length: 99999999999999999999",
    b"0\r\n\r\n",
]
TOKENS += [b"Upgrade: x\r\nConnection: upgrade\r\n", b"HTTP/1.0", b"%00", b"[", b"-1", b"\t", b"HEAD ", b"CONNECT "]


def mutated(dice: random.Random) -> bytes:
    data = bytearray(dice.choice(SEEDS))
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(6):
            case 0:
                data[at:at] = dice.choice(TOKENS)
            case 1:
                del data[at : at + dice.randint(1, 20)]
            case 2 if at < len(data):
                data[at] = dice.randrange(256)
            case 3:
                data[at:at] = data[at : at + dice.randint(1, 40)]
            case 4:
                data += dice.choice(SEEDS)
            case _:
                data[at:at] = dice.randbytes(dice.randint(1, 8))
    return bytes(data)


async def test_mutated_requests_neither_stop_nor_stall_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """Every connection is answered or closed once the client has nothing more to say, and the server serves on."""
    dice = random.Random(20261121)
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))

    async def attack(found: Session) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
        with contextlib.suppress(ConnectionError):
            data = mutated(dice)
            cut = dice.randrange(len(data) + 1)
            for piece in (data[:cut], data[cut:]):
                writer.write(piece)
                await asyncio.sleep(0)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 5)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    for state in (State.INIT, State.RUNNING):
        for _ in range(FUZZED_REQUESTS // 400):
            async with session() as found:
                await found.reach(state)
                for _ in range(10):
                    await asyncio.gather(*(attack(found) for _ in range(20)))
                client = await found.connect()
                assert (await client.call(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")).body == b"pong"
                if found.api.initialised.done():
                    found.api.initialised.exception()
    assert problems == []
    assert caplog.records == []


async def test_an_exchange_is_answered_once() -> None:
    def twice(exchange: Exchange) -> None:
        exchange.reply(Response(200, exchange.request.body))
        exchange.reply(Response(500, b"again"))

    server = await serve(twice)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    for body in (b"first", b"later"):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n" + body)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    received = await reader.read()
    writer.close()
    server.close()
    assert re.findall(rb"first|later|again", received) == [b"first", b"later"]
    assert received.count(b"HTTP/1.1 200 OK") == 3
