"""Calls that are not the plane's own, passed on to the emulator, and the errors of Lambda's API."""

import asyncio
import dataclasses
import json
import re
import urllib.error
import urllib.request
from concurrent.futures import Executor
from typing import Final
from urllib.parse import unquote

from lambdalab import loopback
from lambdalab.local.http import Request, Response

FUNCTION_PATH: Final = re.compile(r"/\d{4}-\d\d-\d\d/functions/([^/]+)(.*)")
"""A call of Lambda's API on a function: its name, and what follows the name."""
_MAPPINGS: Final = re.compile(r"/\d{4}-\d\d-\d\d/event-source-mappings(/|$)")
_LAMBDA_PATH: Final = re.compile(r"/\d{4}-\d\d-\d\d/")


class Emulator:
    """The emulator behind the plane.

    Args:
        url: its endpoint.
        executor: threads for the calls.
    """

    def __init__(self, url: str, executor: Executor) -> None:
        self._url, self._executor = url, executor

    async def answer(self, request: Request) -> Response:
        """What it answers to a request, or 502 if it does not answer."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._ask, request)

    def _ask(self, request: Request) -> Response:
        target = f"{self._url}{request.path}" + (f"?{request.query}" if request.query else "")
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
            return refusal(502, "ServiceException", f"the emulator at {self._url} does not answer: {error}")


def changed_function(request: Request, response: Response) -> str | None:
    """The function that a call of Lambda's API changed, by its path or its answer; None when neither names one."""
    named = FUNCTION_PATH.match(unquote(request.path))
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


def switched_off(request: Request) -> Request:
    """A call that makes or changes a mapping, with the mapping disabled for the emulator, because the plane runs it.

    Without that the emulator takes messages until the plane has switched it off, and gives them to its closed Lambda.
    """
    if request.method not in ("POST", "PUT") or not _MAPPINGS.match(request.path):
        return request
    try:
        asked = json.loads(request.body)
    except ValueError:  # the emulator's to refuse
        return request
    if not isinstance(asked, dict):
        return request
    body = json.dumps(asked | {"Enabled": False}).encode()
    return dataclasses.replace(request, body=body, body_bytes=len(body))


def refusal(status: int, kind: str, message: str) -> Response:
    """An error as Lambda's API answers it; ``kind`` is its name."""
    return Response(status, json.dumps({"Type": "User", "message": message}).encode(), error_headers(kind))


def error_headers(kind: str) -> dict[str, str]:
    """The headers of an error of Lambda's API."""
    return {"Content-Type": "application/json", "x-amzn-ErrorType": kind}


def _passed(status: int, body: bytes, headers: list[tuple[str, str]]) -> Response:
    dropped = ("content-length", "transfer-encoding", "connection")
    return Response(status, body, {k: v for k, v in headers if k.lower() not in dropped})
