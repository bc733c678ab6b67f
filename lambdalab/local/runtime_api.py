"""The Lambda Runtime API, as one execution environment sees it.

Every call is refused unless the environment's state permits it::

    INIT ──next──▶ READY ──invoke()──▶ RUNNING ──response|error──▶ ANSWERED ──next──▶ READY
      └──init/error──▶ FAILED

A ``next`` says two things: the invocation before it is over, or, the first time, that init is over. Source: AWS
Lambda Developer Guide, "Using the Lambda runtime API"; limits and error types as the Runtime Interface Emulator
has them.
"""

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

from lambdalab.local.http import Connection, Exchange, Response, Sink, port_of, serve

RESPONSE_LIMIT_BYTES: Final = 6 * 1024 * 1024 + 100
STREAM_LIMIT_BYTES: Final = 200 * 1024 * 1024
"""Of a streamed response (AWS Lambda Developer Guide, "Response streaming")."""
_PREFIX: Final = "/2018-06-01/runtime/"
_ERROR_TYPE: Final = "lambda-runtime-function-error-type"
_ERROR_BODY: Final = "lambda-runtime-function-error-body"
_ERROR_TYPE_FORM: Final = re.compile(r"(Runtime|Function)\.[A-Z]\w+")
_JSON: Final = {"Content-Type": "application/json"}


class State(Enum):
    """Where an environment is in its life."""

    INIT = auto()
    READY = auto()
    RUNNING = auto()
    ANSWERED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What one ``next`` hands to the function."""

    request_id: str
    payload: bytes
    deadline_ms: int
    function_arn: str
    trace_id: str
    client_context: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the function answered. ``error_type`` is None for a success; ``payload`` is the raw JSON."""

    payload: bytes
    error_type: str | None = None


class Stream(Protocol):
    """Takes the response of an invocation in pieces as the function writes them."""

    def begin(self, source: Connection) -> None:
        """The function begins to write; ``source`` can be held."""

    def write(self, piece: bytes) -> None:
        """Takes a piece."""


class RuntimeApi:
    """The server of one environment. ``initialised`` and the result of ``invoke`` are set by the function's calls."""

    def __init__(self) -> None:
        self.state = State.INIT
        self.initialised: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Set by the first ``next`` to its ``time.perf_counter_ns``, or to an InitError."""
        self._server: asyncio.Server | None = None
        self._parked: Exchange | None = None
        self._request_id: str | None = None
        self._answer: Answer | None = None
        self._at_answer: Callable[[], None] = lambda: None
        self._at_next: Callable[[Answer], None] = lambda _: None
        self._stream: Stream | None = None
        self._streamed_bytes: int | None = None
        self._done: asyncio.Future[tuple[Answer, int]] | None = None

    @property
    def answer(self) -> Answer | None:
        """What the function has answered, though it has not said yet that it is done."""
        return self._answer if self.state is State.ANSWERED else None

    async def start(self) -> str:
        """Listens; returns the ``host:port`` for ``AWS_LAMBDA_RUNTIME_API``."""
        self._server = await serve(self._handle, streams=self._streams)
        return f"127.0.0.1:{port_of(self._server)}"

    def close(self) -> None:
        """Stops listening; a waiting ``next`` is dropped with its connection."""
        if self._server is not None:
            self._server.close()

    def invoke(
        self,
        event: Event,
        *,
        at_answer: Callable[[], None] = lambda: None,
        at_next: Callable[[Answer], None] = lambda _: None,
        stream: Stream | None = None,
    ) -> tuple[asyncio.Future[tuple[Answer, int]], int]:
        """Hands an event to the waiting ``next``.

        Args:
            event: what the function gets.
            at_answer: called when the function has answered; it is still at work.
            at_next: called with the answer at the ``next`` after it, before the future's own callbacks.
            stream: takes the response, if the function streams it; the answer's payload is then empty.

        Returns:
            A future of (answer, ``perf_counter_ns`` when the next ``next`` came), and the ``perf_counter_ns`` of
            the hand-over. The difference is the invocation's duration.
        """
        if self.state is not State.READY or self._parked is None:
            raise RuntimeError(f"invoke in state {self.state.name}: the pool hands out ready environments only")
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": event.request_id,
            "Lambda-Runtime-Deadline-Ms": str(event.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": event.function_arn,
            "Lambda-Runtime-Trace-Id": event.trace_id,
        }
        if event.client_context is not None:
            headers["Lambda-Runtime-Client-Context"] = event.client_context
        parked, self._parked = self._parked, None
        self._request_id, self._answer = event.request_id, None
        self._at_answer, self._at_next = at_answer, at_next
        self._stream, self._streamed_bytes = stream, None
        self._done = asyncio.get_running_loop().create_future()
        self.state = State.RUNNING
        started_ns = time.perf_counter_ns()
        parked.reply(Response(200, event.payload, headers))
        return self._done, started_ns

    def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        if not request.path.startswith(_PREFIX):
            exchange.reply(
                Response(200, b"pong") if request.path == "/ping" else _refusal(404, "NotFound", request.path)
            )
            return
        match request.method, request.path.removeprefix(_PREFIX).split("/"):
            case "GET", ["invocation", "next"]:
                self._next(exchange)
            case "POST", ["invocation", request_id, "response"]:
                self._result(exchange, request_id, self._success)
            case "POST", ["invocation", request_id, "error"]:
                self._result(exchange, request_id, self._failure)
            case "POST", ["init", "error"]:
                self._init_error(exchange)
            case _:
                exchange.reply(_refusal(404, "NotFound", request.path))

    def _streams(self, connection: Connection, method: str, path: str, headers: Mapping[str, str]) -> Sink | None:
        """Streams the chunked response of an invocation whose caller takes a stream.

        Go's runtime client sends chunks without the header ``Lambda-Runtime-Function-Response-Mode``.
        """
        wanted = f"{_PREFIX}invocation/{self._request_id}/response"
        if self._stream is None or self.state is not State.RUNNING or (method, path) != ("POST", wanted):
            return None
        if headers.get("transfer-encoding", "").lower() != "chunked" or self._streamed_bytes is not None:
            return None
        self._streamed_bytes = 0
        self._stream.begin(connection)
        return self._take

    def _take(self, piece: bytes) -> None:
        assert self._stream is not None
        assert self._streamed_bytes is not None
        self._streamed_bytes += len(piece)
        if self._streamed_bytes <= STREAM_LIMIT_BYTES:
            self._stream.write(piece)

    def _next(self, exchange: Exchange) -> None:
        now_ns = time.perf_counter_ns()
        match self.state:
            case State.INIT:
                self._park(exchange)
                if not self.initialised.done():
                    self.initialised.set_result(now_ns)
            case State.ANSWERED:
                self._park(exchange)
                assert self._done is not None
                assert self._answer is not None
                if not self._done.done():
                    self._done.set_result((self._answer, now_ns))
                    self._at_next(self._answer)
            case State.READY if self._parked is not None and self._parked.gone:
                self._parked = exchange
            case _:
                exchange.reply(_refusal(403, "InvalidStateTransition", f"next while {self.state.name}"))

    def _park(self, exchange: Exchange) -> None:
        self._parked, self.state = exchange, State.READY

    def _result(
        self, exchange: Exchange, request_id: str, accept: Callable[[Exchange], tuple[Answer, Response]]
    ) -> None:
        if request_id != self._request_id:
            exchange.reply(_refusal(400, "InvalidRequestID", "Invalid request ID"))
        elif self.state is not State.RUNNING:
            exchange.reply(_refusal(403, "InvalidStateTransition", f"result while {self.state.name}"))
        else:
            answer, response = accept(exchange)
            self._answer, self.state = answer, State.ANSWERED
            exchange.reply(response)
            self._at_answer()

    def _success(self, exchange: Exchange) -> tuple[Answer, Response]:
        size = exchange.request.body_bytes
        most = RESPONSE_LIMIT_BYTES if self._streamed_bytes is None else STREAM_LIMIT_BYTES
        if size > most:
            limit = f"maximum allowed payload size ({most} bytes)"
            message = f"Response payload size ({size} bytes) exceeded {limit}."
            error = {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": message}
            answer = Answer(payload=json.dumps(error).encode(), error_type=error["errorType"])
            return answer, _refusal(413, "RequestEntityTooLarge", message)
        if _ERROR_TYPE in exchange.request.headers:  # a trailer: the function failed while streaming its response
            return Answer(payload=_trailer_body(exchange), error_type=_error_type(exchange)), _ACCEPTED
        return Answer(payload=exchange.request.body), _ACCEPTED

    def _failure(self, exchange: Exchange) -> tuple[Answer, Response]:
        return Answer(payload=exchange.request.body, error_type=_error_type(exchange)), _ACCEPTED

    def _init_error(self, exchange: Exchange) -> None:
        if self.state is not State.INIT:
            exchange.reply(_refusal(403, "InvalidStateTransition", f"init error while {self.state.name}"))
            return
        self.state = State.FAILED
        exchange.reply(_ACCEPTED)
        if not self.initialised.done():
            answer = Answer(payload=exchange.request.body, error_type=_error_type(exchange))
            self.initialised.set_exception(InitError(answer))


class InitError(Exception):
    """The function could not initialise; ``answer`` is what it reported."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.error_type)
        self.answer = answer


_ACCEPTED: Final = Response(202, b'{"status":"OK"}', _JSON)


def _refusal(status: int, error_type: str, message: str) -> Response:
    return Response(status, json.dumps({"errorType": error_type, "errorMessage": message}).encode(), _JSON)


def _error_type(exchange: Exchange) -> str:
    """The reported type, or ``Function.Unknown`` / ``Runtime.Unknown`` when it has another form, as Lambda does."""
    given = exchange.request.headers.get(_ERROR_TYPE, "")
    if _ERROR_TYPE_FORM.fullmatch(given):
        return given
    return "Runtime.Unknown" if given.startswith("Runtime.") else "Function.Unknown"


def _trailer_body(exchange: Exchange) -> bytes:
    """The error of a trailer, in base64 there; else what had been streamed before it."""
    try:
        return base64.b64decode(exchange.request.headers.get(_ERROR_BODY, ""), validate=True) or exchange.request.body
    except ValueError:
        return exchange.request.body
