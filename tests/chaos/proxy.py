"""The only way from sender, plane and functions to the emulator: it refuses, delays, kills, and writes everything down.

What it wrote down is a witness of its own: it has seen every message sent, received and deleted, and every item put.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import httptools

from chaos.faults import Kind, Orders
from lambdalab.local.http import LOOPBACK, Connection, Exchange, Handler, Request, Response, port_of

ORDERS: Final = "/_chaos/"
LOST_HEADERS: Final = ("connection", "content-length", "transfer-encoding", "keep-alive", "date", "server")
_REFUSAL: Final = Response(503, b'{"__type":"ServiceUnavailable","message":"refused by the fault suite"}')


@dataclass(kw_only=True)
class Fault:
    """One fault that was done. Times are ``time.time()``; ``ended_s`` is when nothing more was done to what it hit.

    ``hit`` are the batch ids of the messages it hit and ``message_ids`` their ids, both without poison; ``calls`` is
    how many calls of a window, by action. ``shown`` tells how it is known to have happened; None while it is not. What
    is ``doubtful`` may not have, and was ordered anew.
    """

    kind: Kind
    language: str
    began_s: float
    ended_s: float | None = None
    hit: set[str] = field(default_factory=set)
    shown: str | None = None
    request_id: str | None = None
    pid: int = 0
    doubtful: bool = False
    message_ids: tuple[str, ...] = ()
    calls: Counter[str] = field(default_factory=Counter)
    order: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Receive:
    """One delivery of a message."""

    at_s: float
    message_id: str
    count: int


@dataclass
class Witness:
    """What passed, of one language."""

    sent: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Message ids by batch id; poison is not among them."""
    receives: list[Receive] = field(default_factory=list)
    deleted_s: dict[str, float] = field(default_factory=dict)
    """By message id; the first time."""
    written: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Puts that DynamoDB accepted, by key."""
    found_there: int = 0
    """Puts that met their item and changed nothing."""


@dataclass
class Window:
    """A time in which calls are refused or delayed; the faults are those of the two languages."""

    kind: Literal["refused", "delayed"]
    delay_s: tuple[float, float]
    faults: dict[str, Fault]


@dataclass
class _Call:
    """What a request is."""

    action: str
    language: str | None
    body: dict[str, Any]
    batch_ids: set[str]


class Proxy:
    """Listens on loopback in a thread of its own.

    Args:
        upstream_port: the emulator's.
        names: of each language's queues, tables and log groups, by which a call is told to be its.
        orders: the faults of each language's batches.
        seed: of what is drawn here.
        journal: the file everything is written down in, one line a call.
        may_kill: whether a pid is that of an environment of the plane.
    """

    def __init__(
        self,
        upstream_port: int,
        names: Mapping[str, tuple[str, ...]],
        orders: dict[str, Orders],
        *,
        seed: str,
        journal: Path,
        may_kill: Callable[[int], bool],
    ) -> None:
        self.faults: list[Fault] = []
        self.seen = {language: Witness() for language in names}
        self.window: Window | None = None
        self.errors: list[str] = []
        self._upstream_port, self._names, self._orders, self._may_kill = upstream_port, names, orders, may_kill
        self._random = random.Random(seed)
        self._batch_ids: dict[str, str] = {}  # of a message, by its id
        self._message_ids: dict[str, str] = {}  # by receipt handle
        self._doomed: dict[str, tuple[Fault, list[int]]] = {}  # by batch id: its environment dies at a put
        self._idle: list[_Upstream] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._journal = journal.open("w")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._transports: set[asyncio.BaseTransport] = set()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port = port_of(self._server)

    @property
    def sent(self) -> int:
        """Messages that were taken and are no poison."""
        return sum(len(witness.sent) for witness in self.seen.values())

    @property
    def processed(self) -> int:
        """How many of them were deleted, every copy."""
        return sum(
            all(message_id in witness.deleted_s for message_id in list(message_ids))
            for witness in self.seen.values()
            for message_ids in list(witness.sent.values())
        )

    def in_hand(self, language: str, at_s: float, visibility_s: float) -> set[str]:
        """Batch ids of messages that were received, are hidden and not deleted."""
        witness = self.seen[language]
        ids = {
            receive.message_id
            for receive in witness.receives
            if receive.at_s <= at_s < receive.at_s + visibility_s
            and witness.deleted_s.get(receive.message_id, at_s + 1) > at_s
        }
        return {self._batch_ids[message_id] for message_id in ids if message_id in self._batch_ids}

    def order_again(self, since_s: float) -> None:
        """Orders anew what was ordered since then and may not have happened, for the plane was killed."""
        for fault in self.faults:
            if fault.request_id is not None and fault.ended_s is None and fault.began_s > since_s:
                fault.doubtful = True
                self._orders[fault.language].again(fault.kind)

    def order_only(self, language: str, kinds: Iterable[Kind]) -> None:
        """Orders these faults, one at each of the next batches of new messages, and nothing else."""
        self._orders[language].only(kinds)

    def processed_s(self, language: str, batch_id: str) -> float | None:
        """When the last copy of a message was deleted."""
        witness = self.seen[language]
        times = [witness.deleted_s.get(message_id) for message_id in witness.sent[batch_id]]
        return None if not times or None in times else max(time for time in times if time is not None)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._journal.close()

    async def _listen(self) -> asyncio.Server:
        return await self._loop.create_server(lambda: _Client(self._begin, self._transports), LOOPBACK, 0)

    async def _close(self) -> None:
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transport in list(self._transports):
            transport.close()
        for _ in range(10):  # what is closed is told of it in the next turns of the loop
            await asyncio.sleep(0.01)

    def note(self, **what: Any) -> None:
        """Adds a line to the journal."""
        self._journal.write(json.dumps({"at": round(time.time(), 4), **what}, default=list) + "\n")

    def _begin(self, exchange: Exchange) -> None:
        work = self._order(exchange) if exchange.request.path.startswith(ORDERS) else self._pass(exchange)
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(repr(error))

    async def _order(self, exchange: Exchange) -> None:
        request, language = exchange.request, exchange.request.path.removeprefix(ORDERS)
        records = json.loads(request.body)["Records"]
        ids = [record["messageId"] for record in records]
        good = tuple(message_id for message_id in ids if message_id in self._batch_ids)
        hit = {self._batch_ids[message_id] for message_id in good}
        for batch_id in hit:  # what was to happen at an earlier delivery did not
            self._doomed.pop(batch_id, None)
        order = self._orders[language].order(records, good, json_only=language == "python")
        if order is not None:
            fault = Fault(
                kind=order["kind"],
                language=language,
                began_s=time.time(),
                hit=hit,
                request_id=request.headers["x-request-id"],
                pid=int(request.headers["x-pid"]),
                message_ids=good,
                order=order,
            )
            self.faults.append(fault)
            self.note(order=asdict(fault))
            if order["kind"] == "killed":  # the function learns nothing of it
                puts = [order["put"]]
                self._doomed |= dict.fromkeys(hit, (fault, puts))
                order = None
        exchange.reply(Response(200, json.dumps(order).encode(), {"Content-Type": "application/json"}))

    async def _pass(self, exchange: Exchange) -> None:
        call = self._read(exchange.request)
        done = await self._hinder(exchange, call)
        if done == "refused":
            self.note(action=call.action, language=call.language, did=done, batches=call.batch_ids)
            return
        kill = self._kill_due(call)
        if kill is not None and kill.order["before"]:
            self._kill(kill)
            _cut(exchange)
            return
        try:
            response = await self._forward(exchange.request)
        except OSError:
            _cut(exchange)
            return
        if kill is not None:
            self._kill(kill)
        self._see(call, response)
        exchange.reply(response)

    def _read(self, request: Request) -> _Call:
        action = request.headers.get("x-amz-target", "").rpartition(".")[2] or f"{request.method} {request.path}"
        text = request.body.decode("utf-8", "replace")
        language = next((one for one, names in self._names.items() if any(name in text for name in names)), None)
        body: dict[str, Any] = {}
        if action in ("SendMessage", "ReceiveMessage", "DeleteMessageBatch", "PutItem"):
            body = json.loads(text)
        batch_ids: set[str] = set()
        match action:
            case "SendMessage":
                with contextlib.suppress(ValueError, AttributeError):
                    message = json.loads(body["MessageBody"])
                    if message.get("label") == "1024Bx10":
                        batch_ids = {message["batch_id"]}
            case "DeleteMessageBatch":
                ids = {self._message_ids.get(entry["ReceiptHandle"], "") for entry in body["Entries"]}
                batch_ids = {self._batch_ids[message_id] for message_id in ids if message_id in self._batch_ids}
            case "PutItem":
                batch_ids = {body["Item"]["pk"]["S"].removeprefix("batch_id#")}
        return _Call(action, language, body, batch_ids)

    async def _hinder(self, exchange: Exchange, call: _Call) -> str | None:
        """Does to a call what the window says, and counts it."""
        window = self.window
        if window is None or call.language is None:
            return None
        fault = window.faults[call.language]
        fault.calls[call.action] += 1
        fault.hit |= call.batch_ids
        if window.kind == "delayed":
            self.note(action=call.action, language=call.language, did="delayed", batches=call.batch_ids)
            await asyncio.sleep(self._random.uniform(*window.delay_s))
        elif self._random.random() < 0.5:
            _cut(exchange)
        else:
            exchange.reply(_REFUSAL)
        return window.kind

    def _kill_due(self, call: _Call) -> Fault | None:
        """The fault that ends the environment whose put this is, when so many of its batch came before."""
        if call.action != "PutItem":
            return None
        (batch_id,) = call.batch_ids
        fault, puts = self._doomed.get(batch_id, (None, [0]))
        puts[0] -= 1
        if fault is None or puts[0]:
            return None
        for hit in fault.hit:
            self._doomed.pop(hit, None)
        return fault

    def _kill(self, fault: Fault) -> None:
        if self._may_kill(fault.pid):
            os.kill(fault.pid, signal.SIGKILL)
            fault.ended_s = time.time()
            self.note(killed=fault.pid, request_id=fault.request_id)

    async def _forward(self, request: Request) -> Response:
        headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items() if name not in LOST_HEADERS)
        path = request.path + (f"?{request.query}" if request.query else "")
        head = f"{request.method} {path} HTTP/1.1\r\n{headers}content-length: {len(request.body)}\r\n\r\n"
        wire = head.encode("latin-1") + request.body
        while self._idle:
            upstream = self._idle.pop()
            with contextlib.suppress(ConnectionError):  # closed while it was idle
                return await self._exchange(upstream, wire)
        _, upstream = await self._loop.create_connection(
            lambda: _Upstream(self._transports), LOOPBACK, self._upstream_port
        )
        return await self._exchange(upstream, wire)

    async def _exchange(self, upstream: "_Upstream", wire: bytes) -> Response:
        response = await upstream.exchange(wire)
        if upstream.usable:
            self._idle.append(upstream)
        return response

    def _see(self, call: _Call, response: Response) -> None:
        """Writes down what a call that passed has come to."""
        if call.language is None or not call.body:
            return
        seen, now, done = self.seen[call.language], time.time(), response.status
        what: dict[str, Any] = {}
        if call.action == "PutItem":
            key = (call.body["Item"]["pk"]["S"], call.body["Item"]["sk"]["S"])
            what = {"key": key}
            if done == 200:
                seen.written[key] += 1
            elif b"ConditionalCheckFailed" in response.body:
                seen.found_there += 1
        elif done == 200:
            answer = json.loads(response.body)
            match call.action:
                case "SendMessage":
                    what = {"sent": answer["MessageId"], "batches": call.batch_ids}
                    for batch_id in call.batch_ids:
                        seen.sent[batch_id].append(answer["MessageId"])
                        self._batch_ids[answer["MessageId"]] = batch_id
                case "ReceiveMessage":
                    for message in answer.get("Messages", ()):
                        count = int(message["Attributes"]["ApproximateReceiveCount"])
                        seen.receives.append(Receive(now, message["MessageId"], count))
                        self._message_ids[message["ReceiptHandle"]] = message["MessageId"]
                    what = {"received": [message["MessageId"] for message in answer.get("Messages", ())]}
                case "DeleteMessageBatch":
                    handles = {entry["Id"]: entry["ReceiptHandle"] for entry in call.body["Entries"]}
                    ids = [self._message_ids.get(handles[entry["Id"]], "") for entry in answer.get("Successful", ())]
                    what = {"deleted": ids}
                    for message_id in ids:
                        seen.deleted_s.setdefault(message_id, now)
        self.note(action=call.action, language=call.language, status=done, **what)


class _Client(Connection):
    """A connection of whoever calls; ``transports`` has it while it is open."""

    def __init__(self, handler: Handler, transports: set[asyncio.BaseTransport]) -> None:
        super().__init__(handler)
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._own = transport
        self._transports.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transports.discard(self._own)
        super().connection_lost(exc)


class _Upstream(asyncio.Protocol):
    """A connection to the emulator; the callbacks named ``on_*`` belong to the parser."""

    def __init__(self, transports: set[asyncio.BaseTransport]) -> None:
        self._transports = transports
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Response] | None = None
        self._transport: asyncio.Transport
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self.usable = True

    def exchange(self, wire: bytes) -> "asyncio.Future[Response]":
        self._answer = asyncio.get_running_loop().create_future()
        if self.usable:
            self._transport.write(wire)
        else:
            self._answer.set_exception(ConnectionResetError())
        return self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._transports.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._transports.discard(self._transport)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        headers = {name: value for name, value in self._headers.items() if name not in LOST_HEADERS}
        response = Response(self._parser.get_status_code(), b"".join(self._body), headers)
        self._headers, self._body = {}, []
        if not self._parser.should_keep_alive():
            self.usable = False
            self._transport.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(response)


def _cut(exchange: Exchange) -> None:
    """Closes a client's connection without an answer."""
    transport = exchange._connection._transport
    if transport is not None:
        transport.abort()
