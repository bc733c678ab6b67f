"""Gives the calls of a function the time AWS's services would take: a reverse proxy between function and emulator.

It exists only where a latency model is on. Bytes go on as they are in both directions, on one connection to the
emulator for each of the function's, so what the emulator does (keep-alive, streams, errors, ends) reaches the function
as it is; a parser only listens to the requests. What is changed is when an answer begins.
"""

import asyncio
import re
import socket
import struct
from collections import Counter
from typing import Final
from urllib.parse import parse_qs, urlsplit

import httptools

from lambdalab.local.http import LOOPBACK, port_of
from lambdalab.local.latency import Draws

_TARGETS: Final = {"DynamoDB_20120810": "dynamodb", "AmazonSQS": "sqs"}
_S3_SCOPE: Final = re.compile(r"Credential=[^/]+/\d{8}/[^/]+/s3/aws4_request")
_S3_PARAMETERS: Final = {
    "GetObject": {"partNumber", "versionId"},
    "HeadObject": {"partNumber", "versionId"},
    "PutObject": set[str](),
    "CopyObject": set[str](),
    "DeleteObject": {"versionId"},
    "DeleteObjects": {"delete"},
    "ListObjectsV2": {
        *("list-type", "prefix", "delimiter", "max-keys", "start-after"),
        *("continuation-token", "encoding-type", "fetch-owner"),
    },
}
"""The query parameters an operation may have; any other, such as ``uploadId`` or ``tagging``, makes it another one."""


def operation_of(method: str, url: str, headers: dict[str, str]) -> tuple[str, str] | None:
    """Service and operation of a request, by AWS's names; None when it is none that can have a distribution.

    DynamoDB and SQS (JSON protocol) name the operation in ``X-Amz-Target``. S3 is known by the scope of the signature;
    its operation is told from method and path (bucket, or bucket and key) by the Amazon S3 API reference.
    """
    prefix, _, operation = headers.get("x-amz-target", "").partition(".")
    if prefix in _TARGETS:
        return _TARGETS[prefix], operation
    if not _S3_SCOPE.search(headers.get("authorization", "")):
        return None
    parts = urlsplit(url)
    has_key = "/" in parts.path.strip("/")
    parameters = parse_qs(parts.query, keep_blank_values=True).keys() - {"x-id"}  # the Go SDK repeats the name in it
    match method, has_key:
        case "GET", True:
            name = "GetObject"
        case "HEAD", True:
            name = "HeadObject"
        case "PUT", True:
            name = "CopyObject" if "x-amz-copy-source" in headers else "PutObject"
        case "DELETE", True:
            name = "DeleteObject"
        case "POST", False if "delete" in parameters:
            name = "DeleteObjects"
        case "GET", False if "list-type" in parameters:
            name = "ListObjectsV2"
        case _:
            return None
    allowed = _S3_PARAMETERS[name]
    return ("s3", name) if all(p in allowed or p.startswith("response-") for p in parameters) else None


class ServiceTime:
    """One function's way to the emulator, on a port of its own, so that it is known whose call a request is.

    Args:
        endpoint_url: the emulator's, plain HTTP.
        draws: the function's times.

    Attributes:
        calls: how often a time was drawn, by "service operation".
        slower: in how many of these the emulator itself took longer than drawn; they were answered late, at once.
    """

    def __init__(self, endpoint_url: str, draws: Draws) -> None:
        where = urlsplit(endpoint_url)
        self.upstream = where.hostname or LOOPBACK, where.port or 80
        self.calls: Counter[str] = Counter()
        self.slower: Counter[str] = Counter()
        self._draws = draws
        self._server: asyncio.Server | None = None

    async def open(self) -> str:
        """Begins to listen; returns the endpoint for the function."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Function(self), LOOPBACK, 0)
        return f"http://{LOOPBACK}:{port_of(self._server)}"

    def close(self) -> None:
        """Takes no more connections."""
        if self._server is not None:
            self._server.close()

    def counts(self) -> dict[str, dict[str, int]]:
        """``calls`` and ``slower`` by operation."""
        return {call: {"calls": n, "slower": self.slower[call]} for call, n in self.calls.items()}

    def draw_s(self, call: tuple[str, str]) -> float | None:
        """The time the next call of an operation shall take."""
        drawn_ms = self._draws.next_ms(*call)
        if drawn_ms is None:
            return None
        self.calls[" ".join(call)] += 1
        return drawn_ms / 1000


class _Function(asyncio.Protocol):
    """A connection of the function. An answer begins when the drawn time has passed since its request began.

    The time counts from the first byte of the request, so what the emulator takes is inside it. An answer that comes
    later is passed on at once, and so is what comes before the request is whole (``100 Continue``, an early refusal).
    Requests sent before the last one was answered pass as well, but only the last keeps its time; SDKs send none.
    """

    def __init__(self, way: ServiceTime) -> None:
        self._way = way
        self._loop = asyncio.get_running_loop()
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._upstream: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._began = 0.0
        self._url = b""
        self._headers: dict[str, str] = {}
        self._call: tuple[str, str] | None = None
        self._due: float | None = None
        self._whole = False
        self._held: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            upstream, _ = await self._loop.create_connection(lambda: _Emulator(self), *self._way.upstream)
        except OSError:
            self.end(reset=True)
            return
        self._upstream = upstream
        upstream.writelines(self._early)
        if self._transport.is_closing():
            upstream.close()

    def data_received(self, data: bytes) -> None:
        if self._parser is not None:
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                self._parser = None  # not HTTP, or no longer: the emulator says what it thinks of it
        if self._upstream is None:
            self._early.append(data)
        else:
            self._upstream.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        if self._timer is not None:
            self._timer.cancel()
        if self._upstream is not None:
            self._upstream.close()

    def pause_writing(self) -> None:
        if self._upstream is not None:
            self._upstream.pause_reading()

    def resume_writing(self) -> None:
        if self._upstream is not None and self._timer is None:
            self._upstream.resume_reading()

    def on_message_begin(self) -> None:
        self._began = self._loop.time()
        self._url = b""
        self._headers = {}
        self._whole = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        method = self._parser.get_method().decode("latin-1")
        self._call = operation_of(method, self._url.decode("latin-1"), self._headers)
        drawn_s = None if self._call is None else self._way.draw_s(self._call)
        self._due = None if drawn_s is None else self._began + drawn_s

    def on_message_complete(self) -> None:
        self._whole = True

    def answer(self, data: bytes) -> None:
        """Takes bytes of the emulator; the first of an answer wait until they are due, and the rest behind them."""
        if self._timer is not None:
            self._held.append(data)
            return
        if self._due is not None and self._whole:
            due, self._due = self._due, None
            if due > self._loop.time():
                assert self._upstream is not None
                self._upstream.pause_reading()
                self._held.append(data)
                self._timer = self._loop.call_at(due, self._release)
                return
            assert self._call is not None
            self._way.slower[" ".join(self._call)] += 1
        self._transport.write(data)

    def _release(self) -> None:
        self._timer = None
        self._transport.write(b"".join(self._held))
        self._held.clear()
        if self._upstream is not None:
            self._upstream.resume_reading()

    def pause_requests(self) -> None:
        self._transport.pause_reading()

    def resume_requests(self) -> None:
        self._transport.resume_reading()

    def end(self, *, reset: bool) -> None:
        """Ends the connection in the way the emulator ended its own."""
        if not reset or self._transport.is_closing():
            self._transport.close()
            return
        raw: socket.socket = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() then sends a reset
        self._transport.abort()


class _Emulator(asyncio.Protocol):
    """The connection to the emulator that belongs to one of the function."""

    def __init__(self, function: _Function) -> None:
        self._function = function

    def data_received(self, data: bytes) -> None:
        self._function.answer(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._function.end(reset=exc is not None)

    def pause_writing(self) -> None:
        self._function.pause_requests()

    def resume_writing(self) -> None:
        self._function.resume_requests()
