"""The limits of concurrency that functions share, and of how fast it grows, with real environments."""

import asyncio
import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from lambdalab.local.concurrency import Account, ScaleOut, ThrottledError
from local.support import Machine, Running, answer, invoke_api, python_spec, running

SHARED = "ConcurrentInvocationLimitExceeded"
RESERVED = "ReservedFunctionConcurrentInvocationLimitExceeded"


@asynccontextmanager
async def busy(function: Running, count: int) -> AsyncIterator[None]:
    """Keeps so many invocations of a function running."""
    before = function.pool.in_flight
    tasks = [asyncio.create_task(function.invoke(do="sleep", s=50)) for _ in range(count)]
    await asyncio.sleep(0)
    assert function.pool.in_flight == before + count
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def refused(function: Running) -> str:
    """The reason for which one more invocation of it is throttled."""
    before = function.pool.throttles
    with pytest.raises(ThrottledError) as caught:
        await function.invoke(do="echo")
    assert function.pool.throttles == before + 1
    return caught.value.reason


async def test_functions_without_a_reservation_share_what_the_others_leave(machine: Machine) -> None:
    account = Account(5)
    spec, reserving = python_spec(timeout_s=60), python_spec(timeout_s=60, reserved_concurrency=2)
    async with (
        running(machine, reserving, account=account) as own,
        running(machine, spec, account=account) as one,
        running(machine, spec, account=account) as other,
    ):
        assert (own.pool.limit, one.pool.limit, other.pool.limit) == (2, 3, 3)
        answer(await other.invoke(do="echo"))
        async with busy(one, 3):
            assert len(other.pool.environments) == 1, "an idle environment makes no difference"
            assert [await refused(function) for function in (one, other)] == [SHARED] * 2
            async with busy(own, 2):
                assert await refused(own) == RESERVED
            answer(await own.invoke(do="echo"))
        answer(await other.invoke(do="echo"))
        async with busy(own, 2), busy(other, 2):
            answer(await one.invoke(do="echo"))
            own.pool.reconfigure(msgspec.structs.replace(reserving, reserved_concurrency=3))
            assert await refused(one) == SHARED
    assert account.unreserved == 5, "who has gone has left"


async def test_new_environments_come_no_faster_than_the_rate(machine: Machine) -> None:
    never = 1e9
    async with running(machine, python_spec(timeout_s=60), scale_out=ScaleOut(2, per_s=never)) as function:
        answer(await function.invoke(do="echo"))
        async with busy(function, 2):
            assert await refused(function) == SHARED
        assert function.pool.cold_starts == 2, "one was there already"
    spec = python_spec(reserved_concurrency=5)
    async with running(machine, spec, scale_out=ScaleOut(0, per_s=never)) as function:
        assert await refused(function) == RESERVED
    async with running(machine, python_spec(timeout_s=60), scale_out=ScaleOut(1, per_s=0.2)) as function:
        async with busy(function, 1):
            while True:
                with contextlib.suppress(ThrottledError):
                    answer(await function.invoke(do="echo"))
                    break
                await asyncio.sleep(0.02)
        assert function.pool.cold_starts == 2


def test_rate_is_refilled_continuously_and_not_saved_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    rate = ScaleOut()

    def taken() -> int:
        count = 0
        while rate.take():
            count += 1
        return count

    found = []
    for passed_s in (0, 0.5, 0.25, 10, 3600):
        now_s += passed_s
        found.append(taken())
    assert found == [1000, 50, 25, 1000, 1000]


def test_reservations_leave_a_hundred() -> None:
    account = Account()

    class Function:
        in_flight = 0

        def __init__(self, reserved: int | None) -> None:
            self.reserved_concurrency = reserved

    one, other = Function(None), Function(300)
    account.join(one)
    account.join(other)
    assert account.unreserved == 700
    assert (account.most_reserved(one), account.most_reserved(other), account.most_reserved()) == (600, 900, 900)


@pytest.mark.parametrize(
    ("limits", "reserved", "reason"),
    [
        ({"account": Account(1)}, None, SHARED),
        ({"account": Account(1000)}, 1, RESERVED),
        ({"account": Account(1000), "scale_out": ScaleOut(1, per_s=1e9)}, None, SHARED),
        ({"account": Account(1000), "scale_out": ScaleOut(1, per_s=1e9)}, 5, RESERVED),
    ],
    ids=["account", "reserved", "rate", "rate of a reserved one"],
)
async def test_callers_are_told_the_reason(
    machine: Machine, limits: dict[str, Any], reserved: int | None, reason: str
) -> None:
    spec = python_spec(timeout_s=60, reserved_concurrency=reserved)
    async with (
        running(machine, spec, **limits) as function,
        busy(function, 1),
        invoke_api(function.pool, limits["account"]) as endpoint,
    ):
        url = f"{endpoint}/2015-03-31/functions/under-test/invocations"
        with pytest.raises(urllib.error.HTTPError) as caught:
            await asyncio.to_thread(urllib.request.urlopen, url, b"{}")
    with caught.value as refusal:
        assert (refusal.code, refusal.headers["x-amzn-ErrorType"]) == (429, "TooManyRequestsException")
        assert json.load(refusal) == {"Reason": reason, "Type": "User", "message": "Rate Exceeded."}
