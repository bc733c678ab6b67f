"""The endpoint callers speak to, between a plane and an emulator that a test scripts."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from lambdalab.errors import PlaneError
from lambdalab.local.concurrency import Account
from lambdalab.local.http import Exchange, Response, port_of, serve
from lambdalab.local.invoke_api import InvokeApi
from lambdalab.local.watch import Watches

ARN: Final = "arn:aws:lambda:eu-west-1:123456789012:function:known"


class Plane:
    """A plane of no function that records what it is asked to read again."""

    def __init__(self, error: Exception | None = None) -> None:
        self.account, self.watches, self.followed = Account(), Watches(), list[str]()
        self._error = error

    def pool(self, name: str) -> None:
        return None

    def events(self, name: str) -> None:
        return None

    async def follow(self) -> None:
        self.followed.append("everything")

    async def take_up_change(self, name: str) -> None:
        self.followed.append(name)
        if self._error is not None:
            raise self._error

    async def debug(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def status(self) -> dict[str, Any]:
        return {}


class Emulator:
    """Answers every request with 200 and the function's ARN, and records their bodies."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []

    def handle(self, exchange: Exchange) -> None:
        self.bodies.append(json.loads(exchange.request.body or b"null"))
        exchange.reply(Response(200, json.dumps({"FunctionArn": ARN}).encode()))


@asynccontextmanager
async def api(plane: Plane, emulator: Emulator) -> AsyncIterator[str]:
    behind = await serve(emulator.handle)
    with ThreadPoolExecutor(1) as threads:
        server = await serve(InvokeApi(plane, f"http://127.0.0.1:{port_of(behind)}", threads).handle)
        yield f"http://127.0.0.1:{port_of(server)}"
        server.close()
    behind.close()


async def ask(url: str, method: str, body: bytes = b"{}") -> tuple[int, Any]:
    request = urllib.request.Request(url, data=body if method != "GET" else None, method=method)

    def call() -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return await asyncio.to_thread(call)


@pytest.mark.parametrize(
    ("method", "path", "followed"),
    [
        ("GET", "/2015-03-31/functions/known/configuration", []),
        ("PUT", "/2015-03-31/functions/known/configuration", ["known"]),
        ("PUT", "/2015-03-31/functions/known/code", ["known"]),
        ("PUT", "/2017-10-31/functions/known/concurrency", ["known"]),
        ("DELETE", "/2017-10-31/functions/known/concurrency", ["known"]),
        (
            "PUT",
            "/2015-03-31/functions/arn%3Aaws%3Alambda%3Ax%3A1%3Afunction%3Aknown/code",
            ["arn:aws:lambda:x:1:function:known"],
        ),
        ("POST", "/2015-03-31/event-source-mappings", [ARN]),
        ("PUT", "/2015-03-31/event-source-mappings/some-id", [ARN]),
        ("DELETE", "/2015-03-31/functions/known", ["everything"]),
        ("POST", "/", ["everything"]),
    ],
)
async def test_a_change_is_read_before_it_is_answered(method: str, path: str, followed: list[str]) -> None:
    plane = Plane()
    async with api(plane, Emulator()) as url:
        status, _ = await ask(url + path, method)
    assert (status, plane.followed) == (200, followed)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError("it is away"), 500, "known was changed, and the plane could not read it: it is away"),
        (PlaneError("the pattern is not JSON", next_step="correct it"), 400, "the pattern is not JSON; correct it."),
    ],
)
async def test_a_change_that_does_not_hold_is_no_success(error: Exception, status: int, said: str) -> None:
    async with api(Plane(error), Emulator()) as url:
        answer = await ask(f"{url}/2015-03-31/functions/known/code", "PUT")
    assert answer == (status, {"Type": "User", "message": said})


@pytest.mark.parametrize(
    ("path", "asked", "given"),
    [
        ("event-source-mappings", {"Enabled": True, "BatchSize": 3}, {"Enabled": False, "BatchSize": 3}),
        ("event-source-mappings/some-id", {"BatchSize": 3}, {"Enabled": False, "BatchSize": 3}),
        ("event-source-mappings/some-id", [], []),
        ("functions/known/configuration", {"Timeout": 3}, {"Timeout": 3}),
    ],
)
async def test_the_emulator_runs_no_mapping_itself(path: str, asked: Any, given: Any) -> None:
    emulator = Emulator()
    async with api(Plane(), emulator) as url:
        await ask(f"{url}/2015-03-31/{path}", "PUT", json.dumps(asked).encode())
    assert emulator.bodies == [given]
