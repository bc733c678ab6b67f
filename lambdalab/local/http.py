"""A small HTTP/1.1 server on asyncio: what the Runtime API and the Invoke API are spoken over.

Parsing is llhttp's (through httptools), so chunked bodies and trailers arrive as ordinary headers: Go's runtime
client sends both. Handlers answer through a callback, at once or later, because ``next`` is a long poll; requests
on one connection are answered in the order they came.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import urlsplit

import httptools

LOOPBACK: Final = "127.0.0.1"
HEAD_LIMIT_BYTES: Final = 1024 * 1024
"""Request line and headers together; Lambda's own limit (AWS quota page)."""
BODY_LIMIT_BYTES: Final = 70_167_211
"""Lambda's for a request with code: a zip of 50 MB in base64. What passes this is counted but not kept."""
_OK: Final = HTTPStatus.OK.value
_BODILESS: Final = (HTTPStatus.NO_CONTENT.value, HTTPStatus.NOT_MODIFIED.value)
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}
RECEIVED: Final = memoryview(bytearray(256 * 1024))
"""What a socket is read into, whichever it is: a parser is done with it before the next is read. Asyncio's own buffer
would be new for every read, and given back to the kernel after it, which costs more than parsing."""
PIPELINE_LIMIT: Final = 100
"""Requests that may wait on one connection behind one that is not answered yet; together at most one largest body."""


@dataclass(slots=True)
class Request:
    """One parsed request. Header names are lower case; trailers are merged into ``headers``."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    body_bytes: int
    """How long the body was, also where it is not kept whole."""


@dataclass(slots=True, frozen=True)
class Response:
    """One answer; Content-Length is added when it is written."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The bytes on the wire."""
        if self.status < _OK or self.status in _BODILESS:
            return self.head() + self.body
        return self.head(f"Content-Length: {len(self.body)}") + self.body

    def head(self, *more: str) -> bytes:
        """The bytes of status and headers, with some header lines more."""
        lines = [_STATUS_LINES[self.status], *(f"{name}: {value}" for name, value in self.headers.items()), *more]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


class Exchange:
    """One request waiting for its answer."""

    __slots__ = ("_answered", "_connection", "_keep_alive", "request")

    def __init__(self, request: Request, connection: "Connection", keep_alive: bool) -> None:
        self.request = request
        self._connection = connection
        self._keep_alive = keep_alive
        self._answered = False

    @property
    def gone(self) -> bool:
        """Whether the client has left, so that an answer would reach nobody."""
        return self._connection.closed

    def reply(self, response: Response) -> None:
        """Sends the answer; silently dropped when the client has left or has had one."""
        if self._answered:
            return
        self._answered = True
        self._connection.finish(self._closing(response).encode(), self._keep_alive)

    def begin(self, response: Response, full: Callable[[bool], None]) -> None:
        """Sends the head of an answer whose body comes in pieces, by ``write`` until ``end``.

        Args:
            response: status and headers; its body is not sent.
            full: called with True when the client takes the pieces too slowly, and with False when it takes more.
        """
        self._answered = True
        self._connection.full = full
        self._connection.write(self._closing(response).head("Transfer-Encoding: chunked"))

    def write(self, piece: bytes) -> None:
        """Sends a piece of the body; dropped if the client has left."""
        if piece:  # an empty one would end the body
            self._connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def end(self) -> None:
        """Ends the body."""
        self._connection.full = _ignore
        self._connection.finish(b"0\r\n\r\n", self._keep_alive)

    def _closing(self, response: Response) -> Response:
        if self._keep_alive:
            return response
        return Response(response.status, response.body, {**response.headers, "Connection": "close"})


def _ignore(_: bool) -> None:
    """Stands for a body nobody can slow down."""


Sink = Callable[[bytes], None]
"""Takes a piece of a request's body as it comes."""


class Handler(Protocol):
    """What a server calls for every request; it must call ``exchange.reply`` once, now or later."""

    def __call__(self, exchange: Exchange) -> None: ...


class Streams(Protocol):
    """Chooses requests whose body is handed on in pieces and not kept; the handler gets them without a body."""

    def __call__(self, connection: "Connection", method: str, path: str, headers: Mapping[str, str]) -> Sink | None: ...


class Connection(asyncio.BufferedProtocol):
    """One client connection; the callbacks named ``on_*`` belong to the parser."""

    def __init__(self, handler: Handler, streams: Streams | None = None) -> None:
        self._handler = handler
        self._streams = streams
        self.full: Callable[[bool], None] = _ignore
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._busy = self._dispatching = self._deaf = False
        self._sink: Sink | None = None
        self._begin()

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._transport = None
        self.full(False)
        self._waiting.clear()
        self._begin()
        del self._parser  # it knows this connection: without that, bodies would stay until the garbage collector comes

    def pause_writing(self) -> None:
        """Who does not take its answers gets no more of them, and is not listened to, until it has."""
        self._deaf = True
        self.hold(True)
        self.full(True)

    def resume_writing(self) -> None:
        self._deaf = False
        self.hold(False)
        self.full(False)
        self._dispatch_waiting()

    def hold(self, stop: bool) -> None:
        """Stops or resumes reading what the client sends."""
        if self._transport is None or self._transport.is_closing():
            return
        if stop:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def write(self, encoded: bytes) -> None:
        """Writes a part of an answer."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encoded)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's signature
        return RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        if self.closed:
            return
        try:
            self._parser.feed_data(RECEIVED[:nbytes])
            if self._in_head:  # the parser does not tell of a header before its end
                self._unended_bytes += nbytes
                if self._unended_bytes > HEAD_LIMIT_BYTES:
                    raise _TooLargeError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except httptools.HttpParserUpgrade:
            return  # its request was answered as an ordinary one, and the connection ends with that
        except (_TooLargeError, httptools.HttpParserError) as error:
            cause = error.__context__ or error  # httptools wraps what a callback raises
            self._refuse(cause.status if isinstance(cause, _TooLargeError) else HTTPStatus.BAD_REQUEST)

    def finish(self, encoded: bytes, keep_alive: bool) -> None:
        """Writes one answer, then takes up the next request that waited behind it."""
        self._busy = False
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(encoded)
        if keep_alive:
            self._dispatch_waiting()
        else:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._streams is not None:
            method = self._parser.get_method().decode("ascii")
            self._sink = self._streams(self, method, self._url.decode("latin-1"), self._headers)

    def on_chunk_header(self) -> None:
        self._in_head = True  # after the last one come trailers

    def on_body(self, body: bytes) -> None:
        self._in_head, self._unended_bytes = False, 0
        self._body_bytes += len(body)
        if self._sink is not None:
            self._sink(body)
        elif self._body_bytes <= BODY_LIMIT_BYTES:
            self._body.append(body)

    def on_message_complete(self) -> None:
        target = self._url.decode("latin-1")
        if not target.startswith("/"):  # the absolute form, meant for proxies
            url = urlsplit(target)
            target = f"{url.path}?{url.query}"
        path, _, query = target.partition("?")
        request = Request(
            method=self._parser.get_method().decode("ascii"),
            path=path,
            query=query,
            headers=self._headers,
            body=b"".join(self._body),
            body_bytes=self._body_bytes,
        )
        keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self._begin()
        if len(self._waiting) >= PIPELINE_LIMIT or sum(len(e.request.body) for e in self._waiting) > BODY_LIMIT_BYTES:
            raise _TooLargeError(HTTPStatus.TOO_MANY_REQUESTS)
        self._waiting.append(Exchange(request, self, keep_alive))
        self._dispatch_waiting()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._head_bytes = self._unended_bytes = self._body_bytes = 0
        self._in_head = False
        self._sink = None

    def _dispatch_waiting(self) -> None:
        if self._dispatching:  # called by an answer that was given at once; the loop below goes on
            return
        self._dispatching = True
        try:
            while self._waiting and not self._busy and not self._deaf and not self.closed:
                self._busy = True
                self._handler(self._waiting.popleft())
        finally:
            self._dispatching = False

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_LIMIT_BYTES:
            raise _TooLargeError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _refuse(self, status: int) -> None:
        if self._transport is not None:
            self._transport.write(Response(status, headers={"Connection": "close"}).encode())
            self._transport.close()


class _TooLargeError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def serve(handler: Handler, port: int = 0, streams: Streams | None = None) -> asyncio.Server:
    """Starts a server on loopback.

    Args:
        handler: called for every request, on the event loop.
        port: 0 lets the system choose; ``port_of`` tells which it chose.
        streams: which requests are handed on in pieces; none by default.

    Raises:
        OSError: the port is taken.
    """
    make: Callable[[], Connection] = lambda: Connection(handler, streams)  # noqa: E731
    return await asyncio.get_running_loop().create_server(make, LOOPBACK, port)


def port_of(server: asyncio.Server) -> int:
    """The port a server listens on."""
    port: int = server.sockets[0].getsockname()[1]
    return port
