"""The endpoint callers speak to: Lambda's Invoke API, the plane's own control calls, the emulator for the rest.

Pointing ``AWS_ENDPOINT_URL_LAMBDA`` here makes the plane Lambda for boto3, the AWS CLI and ``sam`` style clients:
invocations run in the plane, every other Lambda call is passed on to the emulator and its effect is followed at once.
"""

import asyncio
import base64
import contextlib
import json
import logging
import re
import uuid
from collections.abc import Awaitable, Sequence
from concurrent.futures import Executor
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import parse_qs, unquote

from lambdalab.aws.clients import UNRESERVED_FLOOR
from lambdalab.errors import LambdalabError
from lambdalab.local.async_invoke import AsyncQueue
from lambdalab.local.concurrency import Account, ThrottledError
from lambdalab.local.emulator import FUNCTION_PATH, Emulator, changed_function, error_headers, refusal, switched_off
from lambdalab.local.http import BODY_LIMIT_BYTES, Exchange, Request, Response
from lambdalab.local.pool import Pool
from lambdalab.local.response_stream import ResponseStream
from lambdalab.local.runtime_api import Answer
from lambdalab.local.watch import Watches

PAYLOAD_LIMITS_BYTES: Final = {"RequestResponse": 6 * 1024 * 1024, "Event": 1024 * 1024, "DryRun": 6 * 1024 * 1024}
TYPES: Final = ("Event", "RequestResponse", "DryRun")
STREAMED_TYPES: Final = ("RequestResponse", "DryRun")
CLIENT_CONTEXT_LIMIT_BYTES: Final = 3583
"""As it is sent, base64 (Invoke API reference)."""
_RESERVATIONS: Final = "/2017-10-31/functions/"
_CONTROL: Final = "/_lambdalab/"
_DURABLE_PATH: Final = re.compile(r"/\d{4}-\d\d-\d\d/durable-execution")
REQUEST_ID: Final = "x-lambdalab-request-id"
"""The request id a caller chooses, to read the lines of its invocation while it runs."""
_GONE_S: Final = 0.2
log: Final = logging.getLogger("lambdalab.plane")
_LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")


class Functions(Protocol):
    """What the endpoint needs of the plane."""

    def pool(self, name: str) -> Pool | None:
        """The pool of a function by name, partial or full ARN; None when the stack has no such function."""

    def events(self, name: str) -> AsyncQueue | None:
        """Likewise its queue for asynchronous invocations."""

    async def follow(self) -> None:
        """Reads the stack's configuration again."""

    async def take_up_change(self, name: str) -> None:
        """Reads a function again after a change; raises if it cannot be read or run."""

    async def debug(
        self, name: str, port: int, payload: bytes, *, request_id: str, client_context: str | None
    ) -> Answer:
        """Runs one invocation under a debugger that listens on ``port``."""

    @property
    def account(self) -> Account:
        """The concurrency its functions share."""

    @property
    def watches(self) -> Watches:
        """The invocations whose lines are asked for while they run."""

    def status(self) -> dict[str, Any]:
        """What ``lambdalab status`` shows."""


class InvokeApi:
    """Routes requests of callers.

    Args:
        functions: the plane.
        upstream: the emulator's endpoint, for all calls that are not the plane's.
        executor: threads for those calls.
    """

    def __init__(self, functions: Functions, upstream: str, executor: Executor) -> None:
        self._functions = functions
        self._emulator = Emulator(upstream, executor)
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange) -> None:
        """Answers one request; a web page on another host name must not reach the plane through a browser."""
        host = exchange.request.headers.get("host", "").rsplit(":", 1)[0]
        if host not in _LOOPBACK_HOSTS:
            exchange.reply(refusal(403, "AccessDeniedException", f"host {host!r} is not this machine's loopback"))
            return
        task = asyncio.get_running_loop().create_task(self._answer(exchange, self._route(exchange)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, exchange: Exchange, work: Awaitable[Response | None]) -> None:
        try:
            response = await work
            if response is not None:
                exchange.reply(response)
        except Exception:
            log.exception("%s %s failed", exchange.request.method, exchange.request.path)
            exchange.reply(refusal(500, "ServiceException", "the plane failed; see its log"))

    def _route(self, exchange: Exchange) -> Awaitable[Response | None]:
        request = exchange.request
        path = unquote(request.path)
        if request.method == "POST" and (named := FUNCTION_PATH.match(path)) is not None:
            match named[1], named[2].strip("/"):
                case name, "invocations":
                    invoked = self._invoke(name, exchange)
                    return self._watched(request, invoked) if REQUEST_ID in request.headers else invoked
                case name, "response-streaming-invocations":
                    return self._invoke_streaming(name, exchange)
                case name, "invoke-async":
                    return self._invoke_async(name, request)
        if _DURABLE_PATH.match(path) and request.method != "GET":
            return _not_served("durable executions")
        if path.startswith(_RESERVATIONS) and path.endswith("/concurrency") and request.method == "PUT":
            return self._reserve(path.removeprefix(_RESERVATIONS).removesuffix("/concurrency"), request)
        if path.startswith(_CONTROL):
            return self._control(exchange, path.removeprefix(_CONTROL).split("/"))
        return self._pass_on(request)

    async def _invoke(self, name: str, exchange: Exchange) -> Response:
        """Every answer has its request id, a refusal too."""
        request_id = exchange.request.headers.get(REQUEST_ID) or str(uuid.uuid4())
        answer = await self._invoke_as(request_id, name, exchange)
        return _with_id(request_id, answer)

    async def _invoke_as(self, request_id: str, name: str, exchange: Exchange) -> Response:
        request = exchange.request
        pool, events = self._functions.pool(name), self._functions.events(name)
        if pool is None or events is None:
            return refusal(404, "ResourceNotFoundException", f"Function not found: {name}")
        problem = _problem_of(name, request)
        if problem is not None:
            return problem
        payload = request.body or b"{}"
        match _invocation_type(request):
            case "DryRun":
                return Response(204)
            case "Event":  # the client context is for synchronous invocations only
                events.put(payload, request_id=request_id)
                return Response(202)
        wants_tail = request.headers.get("x-amz-log-type") == "Tail"

        def answered(answer: Answer) -> None:
            if not wants_tail:
                exchange.reply(_with_id(request_id, _answer_of(answer)))

        try:
            _, outcome = await pool.invoke(
                payload, request_id=request_id, client_context=_client_context(request), answered=answered
            )
        except ThrottledError as throttled:
            return _throttled(throttled)
        return _answer_of(outcome.answer, outcome.log_tail if wants_tail else None)

    async def _invoke_streaming(self, name: str, exchange: Exchange) -> Response | None:
        """InvokeWithResponseStream. None if the answer has been sent as a stream."""
        request, request_id = exchange.request, str(uuid.uuid4())
        pool = self._functions.pool(name)
        if pool is None:
            return _with_id(request_id, refusal(404, "ResourceNotFoundException", f"Function not found: {name}"))
        if (problem := _problem_of(name, request, STREAMED_TYPES)) is not None:
            return _with_id(request_id, problem)
        if _invocation_type(request) == "DryRun":
            return _with_id(request_id, Response(204))
        wants_tail = request.headers.get("x-amz-log-type") == "Tail"
        stream = ResponseStream(exchange, {"X-Amz-Executed-Version": "$LATEST", "x-amzn-RequestId": request_id})

        def answered(answer: Answer) -> None:
            if not wants_tail:
                stream.end(answer, None)

        try:
            _, outcome = await pool.invoke(
                request.body or b"{}",
                request_id=request_id,
                client_context=_client_context(request),
                answered=answered,
                stream=stream,
            )
        except ThrottledError as throttled:
            return _with_id(request_id, _throttled(throttled))
        except Exception:
            stream.fail()
            raise
        stream.end(outcome.answer, base64.b64encode(outcome.log_tail) if wants_tail else None)
        return None

    async def _invoke_async(self, name: str, request: Request) -> Response:
        """InvokeAsync, which Invoke with the type Event has replaced."""
        events = self._functions.events(name)
        if events is None:
            return refusal(404, "ResourceNotFoundException", f"Function not found: {name}")
        if (problem := _problem_of(name, request, ("Event",), default="Event")) is not None:
            return problem
        return _with_id(events.put(request.body or b"{}"), Response(202))

    async def _watched(self, request: Request, work: Awaitable[Response]) -> Response:
        """Keeps the lines of an invocation under the request id its caller chose."""
        request_id = request.headers[REQUEST_ID]
        self._functions.watches.open(request_id)
        try:
            return await work
        finally:
            self._functions.watches.close(request_id)

    async def _debug(self, name: str, port: int, exchange: Exchange) -> Response:
        """Like an invocation, but ended when its caller leaves, since nothing else would end it."""
        request = exchange.request
        request_id = request.headers.get(REQUEST_ID, "")
        if self._functions.pool(name) is None:
            return refusal(404, "ResourceNotFoundException", f"Function not found: {name}")
        problem = _problem_of(name, request)
        if problem is not None:
            return problem
        context = _client_context(request)
        work = asyncio.ensure_future(
            self._functions.debug(name, port, request.body or b"{}", request_id=request_id, client_context=context)
        )
        while not work.done():
            await asyncio.wait((work,), timeout=_GONE_S)
            if exchange.gone:
                work.cancel()
                await asyncio.wait((work,))
                return Response(204)
        answer = work.result()
        failed = {} if answer.error_type is None else {"X-Amz-Function-Error": "Unhandled"}
        return Response(200, answer.payload, {"Content-Type": "application/json", **failed})

    async def _control(self, exchange: Exchange, path: list[str]) -> Response:
        request = exchange.request
        match request.method, path:
            case "GET", ["status"]:
                return _json(self._functions.status())
            case "POST", ["functions", name, "recycle"]:
                pool = self._functions.pool(name)
                if pool is None:
                    return refusal(404, "ResourceNotFoundException", f"Function not found: {name}")
                pool.recycle()
                return _json({})
            case "GET", ["invocations", request_id, "lines"]:
                start = int(parse_qs(request.query).get("from", ["0"])[0])
                return _json(await self._functions.watches.read(request_id, start))
            case "POST", ["functions", name, "debug", port] if port.isdecimal() and REQUEST_ID in request.headers:
                return await self._watched(request, self._debug(name, int(port), exchange))
            case _:
                return refusal(404, "NotFound", "/".join(path))

    async def _reserve(self, name: str, request: Request) -> Response:
        """PutFunctionConcurrency: the emulator would take any number, Lambda keeps some of the account's unreserved."""
        pool = self._functions.pool(name)
        with contextlib.suppress(ValueError, TypeError, KeyError):  # those are the emulator's to refuse
            wanted = int(json.loads(request.body)["ReservedConcurrentExecutions"])
            if pool is not None and wanted > self._functions.account.most_reserved(pool):
                return refusal(
                    400,
                    "InvalidParameterValueException",
                    "Specified ReservedConcurrentExecutions for function decreases account's "
                    f"UnreservedConcurrentExecution below its minimum value of [{UNRESERVED_FLOOR}].",
                )
        return await self._pass_on(request)

    async def _pass_on(self, request: Request) -> Response:
        if request.body_bytes > len(request.body):
            return refusal(
                413, "RequestEntityTooLargeException", f"Request must be smaller than {BODY_LIMIT_BYTES} bytes"
            )
        response = await self._emulator.answer(switched_off(request))
        if request.method == "GET" or response.status >= 300:
            return response
        name = changed_function(request, response)
        if name is None:
            await self._functions.follow()
            return response
        try:
            await self._functions.take_up_change(name)
        except LambdalabError as problem:  # as Lambda refuses it
            return refusal(400, "InvalidParameterValueException", str(problem))
        except Exception as problem:  # the caller must not take the change for one that holds
            return refusal(500, "ServiceException", f"{name} was changed, and the plane could not read it: {problem}")
        return response


def _problem_of(
    name: str, request: Request, types: Sequence[str] = TYPES, default: str = "RequestResponse"
) -> Response | None:
    """Why an Invoke request is refused, by Lambda's own error names."""
    kind = request.headers.get("x-amz-invocation-type", default)
    for what, value, known in (
        ("invocationType", kind, types),
        ("logType", request.headers.get("x-amz-log-type", "None"), ("None", "Tail")),
    ):
        if value not in known:
            return refusal(
                400,
                "InvalidParameterValueException",
                f"1 validation error detected: Value '{value}' at '{what}' failed to satisfy constraint: "
                f"Member must satisfy enum value set: [{', '.join(known)}]",
            )
    limit = PAYLOAD_LIMITS_BYTES[kind]
    if request.body_bytes > limit:
        return refusal(
            413,
            "RequestTooLargeException",
            f"{request.body_bytes} byte payload is too large for the {kind} invocation type (limit {limit} bytes)",
        )
    try:
        json.loads(request.body or b"{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return refusal(400, "InvalidRequestContentException", f"Could not parse request body into json: {error}")
    if len(request.headers.get("x-amz-client-context", "")) > CLIENT_CONTEXT_LIMIT_BYTES:
        message = f"Client context must not be longer than {CLIENT_CONTEXT_LIMIT_BYTES} bytes"
        return refusal(400, "InvalidRequestContentException", message)
    try:
        _client_context(request)
    except (ValueError, RecursionError):
        return refusal(400, "InvalidRequestContentException", "Client context must be a base64-encoded JSON object")
    in_name = name.split(":function:")[-1].partition(":")[2]  # name:alias, and the same at the end of an ARN
    qualifier = parse_qs(request.query).get("Qualifier", [in_name or "$LATEST"])[0]
    if qualifier != "$LATEST":
        return refusal(404, "ResourceNotFoundException", f"Function version or alias not found: {qualifier}")
    return None


def _invocation_type(request: Request) -> str:
    return request.headers.get("x-amz-invocation-type", "RequestResponse")


async def _not_served(what: str) -> Response:
    return refusal(
        400, "InvalidParameterValueException", f"{what} do not run in the local plane, and nothing was started"
    )


def _throttled(error: ThrottledError) -> Response:
    body = {"Reason": error.reason, "Type": "User", "message": "Rate Exceeded."}
    return Response(429, json.dumps(body).encode(), error_headers("TooManyRequestsException"))


def _with_id(request_id: str, response: Response) -> Response:
    return Response(response.status, response.body, {**response.headers, "x-amzn-RequestId": request_id})


def _answer_of(answer: Answer, log_tail: bytes | None = None) -> Response:
    headers = {"Content-Type": "application/json", "X-Amz-Executed-Version": "$LATEST"}
    if answer.error_type is not None:
        headers["X-Amz-Function-Error"] = "Unhandled"
    if log_tail is not None:
        headers["X-Amz-Log-Result"] = base64.b64encode(log_tail).decode()
    return Response(200, answer.payload, headers)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _client_context(request: Request) -> str | None:
    """The caller's context as one line of ASCII JSON, since it goes on as a header."""
    encoded = request.headers.get("x-amz-client-context")
    return None if encoded is None else json.dumps(json.loads(base64.b64decode(encoded, validate=True)))


def _json(body: dict[str, Any]) -> Response:
    return Response(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
