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
import urllib.error
import urllib.request
import uuid
from collections.abc import Awaitable
from concurrent.futures import Executor
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import parse_qs, unquote

from lambdalab import loopback
from lambdalab.aws import UNRESERVED_FLOOR
from lambdalab.errors import LambdalabError
from lambdalab.local.async_invoke import AsyncQueue
from lambdalab.local.concurrency import Account, ThrottledError
from lambdalab.local.http import BODY_LIMIT_BYTES, Exchange, Request, Response
from lambdalab.local.pool import Pool
from lambdalab.local.runtime_api import Answer
from lambdalab.local.watch import Watches

PAYLOAD_LIMITS_BYTES: Final = {"RequestResponse": 6 * 1024 * 1024, "Event": 1024 * 1024, "DryRun": 6 * 1024 * 1024}
CLIENT_CONTEXT_LIMIT_BYTES: Final = 3583
"""As it is sent, base64 (Invoke API reference)."""
_FUNCTIONS: Final = "/2015-03-31/functions/"
_RESERVATIONS: Final = "/2017-10-31/functions/"
_CONTROL: Final = "/_lambdalab/"
_LAMBDA_PATH: Final = re.compile(r"/\d{4}-\d\d-\d\d/")
_FUNCTION_PATH: Final = re.compile(r"/\d{4}-\d\d-\d\d/functions/([^/]+)(.*)")
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
        self._upstream = upstream
        self._executor = executor
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange) -> None:
        """Answers one request; a web page on another host name must not reach the plane through a browser."""
        host = exchange.request.headers.get("host", "").rsplit(":", 1)[0]
        if host not in _LOOPBACK_HOSTS:
            exchange.reply(_error(403, "AccessDeniedException", f"host {host!r} is not this machine's loopback"))
            return
        task = asyncio.get_running_loop().create_task(self._answer(exchange, self._route(exchange)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, exchange: Exchange, work: Awaitable[Response]) -> None:
        try:
            exchange.reply(await work)
        except Exception:
            log.exception("%s %s failed", exchange.request.method, exchange.request.path)
            exchange.reply(_error(500, "ServiceException", "the plane failed; see its log"))

    def _route(self, exchange: Exchange) -> Awaitable[Response]:
        request = exchange.request
        path = unquote(request.path)
        if path.startswith(_FUNCTIONS):
            name, _, action = path.removeprefix(_FUNCTIONS).partition("/")
            if action == "invocations" and request.method == "POST":
                invoked = self._invoke(name, exchange)
                return self._watched(request, invoked) if REQUEST_ID in request.headers else invoked
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
            return _error(404, "ResourceNotFoundException", f"Function not found: {name}")
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
        except ThrottledError as error:
            body = {"Reason": error.reason, "Type": "User", "message": "Rate Exceeded."}
            return Response(429, json.dumps(body).encode(), _error_headers("TooManyRequestsException"))
        return _answer_of(outcome.answer, outcome.log_tail if wants_tail else None)

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
            return _error(404, "ResourceNotFoundException", f"Function not found: {name}")
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
                    return _error(404, "ResourceNotFoundException", f"Function not found: {name}")
                pool.recycle()
                return _json({})
            case "GET", ["invocations", request_id, "lines"]:
                start = int(parse_qs(request.query).get("from", ["0"])[0])
                return _json(await self._functions.watches.read(request_id, start))
            case "POST", ["functions", name, "debug", port] if port.isdecimal() and REQUEST_ID in request.headers:
                return await self._watched(request, self._debug(name, int(port), exchange))
            case _:
                return _error(404, "NotFound", "/".join(path))

    async def _reserve(self, name: str, request: Request) -> Response:
        """PutFunctionConcurrency: the emulator would take any number, Lambda keeps some of the account's unreserved."""
        pool = self._functions.pool(name)
        with contextlib.suppress(ValueError, TypeError, KeyError):  # those are the emulator's to refuse
            wanted = int(json.loads(request.body)["ReservedConcurrentExecutions"])
            if pool is not None and wanted > self._functions.account.most_reserved(pool):
                return _error(
                    400,
                    "InvalidParameterValueException",
                    "Specified ReservedConcurrentExecutions for function decreases account's "
                    f"UnreservedConcurrentExecution below its minimum value of [{UNRESERVED_FLOOR}].",
                )
        return await self._pass_on(request)

    async def _pass_on(self, request: Request) -> Response:
        if request.body_bytes > len(request.body):
            return _error(
                413, "RequestEntityTooLargeException", f"Request must be smaller than {BODY_LIMIT_BYTES} bytes"
            )
        response = await asyncio.get_running_loop().run_in_executor(self._executor, self._forward, request)
        if request.method == "GET" or response.status >= 300:
            return response
        name = _changed(request, response)
        if name is None:
            await self._functions.follow()
            return response
        try:
            await self._functions.take_up_change(name)
        except LambdalabError as error:  # as Lambda refuses it
            return _error(400, "InvalidParameterValueException", str(error))
        except Exception as error:  # the caller must not take the change for one that holds
            return _error(500, "ServiceException", f"{name} was changed, and the plane could not read it: {error}")
        return response

    def _forward(self, request: Request) -> Response:
        target = f"{self._upstream}{request.path}" + (f"?{request.query}" if request.query else "")
        kept = {k: v for k, v in request.headers.items() if k not in ("host", "content-length", "connection", "expect")}
        outgoing = urllib.request.Request(  # noqa: S310 - the emulator's loopback URL
            target, data=request.body or None, headers=kept, method=request.method
        )
        try:
            with loopback.open_url(outgoing, timeout_s=60) as answer:
                return _passed(answer.status, answer.read(), answer.headers.items())
        except urllib.error.HTTPError as error:
            return _passed(error.code, error.read(), error.headers.items())
        except OSError as error:
            return _error(502, "ServiceException", f"the emulator at {self._upstream} does not answer: {error}")


def _changed(request: Request, response: Response) -> str | None:
    """The function that a call of Lambda's API changed, by its path or its answer; None when neither names one."""
    named = _FUNCTION_PATH.match(unquote(request.path))
    if named is not None:
        return None if request.method == "DELETE" and named[2] == "" else named[1]
    if not _LAMBDA_PATH.match(request.path):
        return None
    try:
        answer = json.loads(response.body)
    except ValueError:
        return None
    found = answer.get("FunctionArn") if isinstance(answer, dict) else None
    return found if isinstance(found, str) else None


def _problem_of(name: str, request: Request) -> Response | None:
    """Why an Invoke request is refused, by Lambda's own error names."""
    kind = _invocation_type(request)
    for what, value, known in (
        ("invocationType", kind, ("Event", "RequestResponse", "DryRun")),
        ("logType", request.headers.get("x-amz-log-type", "None"), ("None", "Tail")),
    ):
        if value not in known:
            return _error(
                400,
                "InvalidParameterValueException",
                f"1 validation error detected: Value '{value}' at '{what}' failed to satisfy constraint: "
                f"Member must satisfy enum value set: [{', '.join(known)}]",
            )
    limit = PAYLOAD_LIMITS_BYTES[kind]
    if request.body_bytes > limit:
        return _error(
            413,
            "RequestTooLargeException",
            f"{request.body_bytes} byte payload is too large for the {kind} invocation type (limit {limit} bytes)",
        )
    try:
        json.loads(request.body or b"{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return _error(400, "InvalidRequestContentException", f"Could not parse request body into json: {error}")
    if len(request.headers.get("x-amz-client-context", "")) > CLIENT_CONTEXT_LIMIT_BYTES:
        message = f"Client context must not be longer than {CLIENT_CONTEXT_LIMIT_BYTES} bytes"
        return _error(400, "InvalidRequestContentException", message)
    try:
        _client_context(request)
    except (ValueError, RecursionError):
        return _error(400, "InvalidRequestContentException", "Client context must be a base64-encoded JSON object")
    in_name = name.split(":function:")[-1].partition(":")[2]  # name:alias, and the same at the end of an ARN
    qualifier = parse_qs(request.query).get("Qualifier", [in_name or "$LATEST"])[0]
    if qualifier != "$LATEST":
        return _error(404, "ResourceNotFoundException", f"Function version or alias not found: {qualifier}")
    return None


def _invocation_type(request: Request) -> str:
    return request.headers.get("x-amz-invocation-type", "RequestResponse")


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


def _passed(status: int, body: bytes, headers: list[tuple[str, str]]) -> Response:
    dropped = ("content-length", "transfer-encoding", "connection")
    return Response(status, body, {k: v for k, v in headers if k.lower() not in dropped})


def _json(body: dict[str, Any]) -> Response:
    return Response(200, json.dumps(body).encode(), {"Content-Type": "application/json"})


def _error(status: int, kind: str, message: str) -> Response:
    return Response(status, json.dumps({"Type": "User", "message": message}).encode(), _error_headers(kind))


def _error_headers(kind: str) -> dict[str, str]:
    return {"Content-Type": "application/json", "x-amzn-ErrorType": kind}
