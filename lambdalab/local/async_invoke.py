"""Asynchronous invocation: an event is taken at once and run later, and what became of it is sent on.

A function error is tried again after one and after two minutes; throttles and failures of the plane itself with
exponential back-off, until the event is too old. Rules and formats: AWS Lambda Developer Guide, "How Lambda handles
errors and retries with asynchronous invocation" and "Capturing records of Lambda asynchronous invocations". Conditions
and counts the guide does not name (reserved concurrency 0; an event whose next attempt would come too late fails at
once) follow what LocalStack recorded on AWS.

The queue is this process's memory: what is not done when the plane ends is lost, and counted in its log.
"""

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from lambdalab.local.concurrency import ThrottledError
from lambdalab.local.destinations import Message
from lambdalab.local.environment import Outcome
from lambdalab.local.pool import Pool
from lambdalab.local.settings import Timing

RETRY_LIMIT: Final = 2
_MESSAGE_LIMIT_BYTES: Final = 1024
Condition = Literal["Success", "RetriesExhausted", "EventAgeExceeded", "ZeroReservedConcurrency"]
log: Final = logging.getLogger("lambdalab.plane")


class EventConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A function's settings for events; ``on_success``, ``on_failure`` and ``dead_letters`` are ARNs."""

    retries: int = RETRY_LIMIT
    age_limit_s: float = 21600.0
    on_success: str | None = None
    on_failure: str | None = None
    dead_letters: str | None = None

    @classmethod
    def read(cls, found: list[Any], configuration: Any) -> "EventConfig":
        """From the API's answers; the newest counts, since $LATEST may be named or not."""
        newest: Any = max(found, key=lambda one: one["LastModified"], default={})
        destinations = newest.get("DestinationConfig", {})
        return cls(
            retries=min(newest.get("MaximumRetryAttempts", RETRY_LIMIT), RETRY_LIMIT),
            age_limit_s=newest.get("MaximumEventAgeInSeconds", 21600),
            on_success=destinations.get("OnSuccess", {}).get("Destination"),
            on_failure=destinations.get("OnFailure", {}).get("Destination"),
            dead_letters=configuration.get("DeadLetterConfig", {}).get("TargetArn") or None,
        )


@dataclass(slots=True, kw_only=True)
class _Event:
    payload: bytes
    request_id: str
    taken: float = field(default_factory=time.monotonic)
    attempts: int = 0
    """How often the function ran."""
    outcome: Outcome | None = None
    refusal: tuple[int, str] | None = None
    """Status and message, when the last attempt did not come as far as the function."""


Send = Callable[[str, Message], Awaitable[None]]
"""Takes a destination's ARN and what it gets; raises what it likes when it cannot."""


class AsyncQueue:
    """The internal queue of one function. ``config`` may be replaced at any time and counts from the next decision on.

    ``put`` is the entry for every source of events: the Invoke API, destinations, and whatever else comes to deliver.
    """

    def __init__(self, pool: Pool, send: Send, timing: Timing) -> None:
        self.config = EventConfig()
        self._pool = pool
        self._send = send
        self._timing = timing
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self.waiting = self.succeeded = self.failed = self.undelivered = 0

    def put(self, event: bytes, *, request_id: str | None = None) -> str:
        """Takes an event and returns at once, with the request id that all its attempts will have.

        Args:
            event: the payload, JSON; its size and form are the caller's to check.
            request_id: the caller's own, else a new one.
        """
        taken = _Event(payload=event, request_id=request_id or str(uuid.uuid4()))
        self.waiting += 1
        task = asyncio.get_running_loop().create_task(self._run(taken))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return taken.request_id

    async def close(self, *, grace_s: float = 0) -> None:
        """Begins no further attempt; those under way have ``grace_s``. ``waiting`` then says how many are lost."""
        self._closing.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, event: _Event) -> None:
        condition = await self._settle(event)
        if condition is None:
            return
        function = f"{self._pool.spec.arn}:$LATEST"
        config = self.config
        record = Message(body=_record(event, condition, function), source=function, succeeded=condition == "Success")
        if condition == "Success":
            await self._deliver(config.on_success, record)
            self.succeeded += 1
        else:
            await self._deliver(config.on_failure, record)
            await self._deliver(config.dead_letters, _dead_letter(event, function))
            self.failed += 1
        self.waiting -= 1

    async def _settle(self, event: _Event) -> Condition | None:
        """Runs an event until it is decided what became of it; None when the plane ends before."""
        retries, backoff_s = 0, self._timing.first_backoff_s
        while not self._closing.is_set():
            if self._pool.reserved_concurrency == 0:
                event.refusal = 429, "Function not invoked: its reserved concurrency is zero"
                return "ZeroReservedConcurrency"
            event.refusal = await self._attempt(event)
            if event.refusal is not None:
                delay_s, backoff_s = backoff_s, min(2 * backoff_s, self._timing.longest_backoff_s)
            elif event.outcome is None or event.outcome.answer.error_type is None:
                return "Success"
            elif retries >= self.config.retries:
                return "RetriesExhausted"
            else:
                delay_s, retries = self._timing.retry_delays_s[retries], retries + 1
                backoff_s = self._timing.first_backoff_s
            if time.monotonic() - event.taken + delay_s > self._age_limit_s:
                return "EventAgeExceeded"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay_s)
        return None

    async def _attempt(self, event: _Event) -> tuple[int, str] | None:
        """Runs the function once; what kept it from that, if anything did."""
        try:
            _, event.outcome = await self._pool.invoke(event.payload, request_id=event.request_id)
        except ThrottledError:
            return 429, "Rate Exceeded."
        except Exception:
            log.exception("an event of %s failed in the plane", self._pool.spec.name)
            return 500, "ServiceException"
        event.attempts += 1
        return None

    @property
    def _age_limit_s(self) -> float:
        limit_s = self._timing.age_limit_s
        return self.config.age_limit_s if limit_s is None else min(limit_s, self.config.age_limit_s)

    async def _deliver(self, destination: str | None, message: Message) -> None:
        if destination is None:
            return
        try:
            await self._send(destination, message)
        except Exception as error:  # as on AWS: counted, and the event is gone
            self.undelivered += 1
            log.warning("an event of %s was not delivered to %s: %s", self._pool.spec.name, destination, error)


def _record(event: _Event, condition: Condition, function: str) -> str:
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "requestContext": {
            "requestId": event.request_id,
            "functionArn": function,
            "condition": condition,
            "approximateInvokeCount": event.attempts,
        },
        "requestPayload": _value(event.payload),
    }
    if event.outcome is not None:
        failed = {} if event.outcome.answer.error_type is None else {"functionError": "Unhandled"}
        record["responseContext"] = {"statusCode": 200, "executedVersion": "$LATEST"} | failed
        record["responsePayload"] = _value(event.outcome.answer.payload)
    return json.dumps(record)


def _dead_letter(event: _Event, function: str) -> Message:
    status, text = event.refusal or (200, "")
    if event.refusal is None and event.outcome is not None:
        answer = _value(event.outcome.answer.payload)
        said = answer.get("errorMessage") if isinstance(answer, dict) else None
        text = str(said or event.outcome.answer.error_type)
    values = {
        "RequestID": ("String", event.request_id),
        "ErrorCode": ("Number", str(status)),
        "ErrorMessage": ("String", text.encode()[:_MESSAGE_LIMIT_BYTES].decode(errors="ignore")),
    }
    attributes = {name: {"DataType": kind, "StringValue": value} for name, (kind, value) in values.items()}
    return Message(body=event.payload.decode(errors="replace"), source=function, attributes=attributes)


def _value(payload: bytes) -> Any:
    """JSON as what it says, anything else as text."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload.decode(errors="replace")
