"""An SQS event source mapping: receive, filter, invoke, delete what succeeded, leave the rest to the queue.

One long poll at a time stands for all of Lambda's pollers that have nothing to do; how many there are is what
``Concurrency`` knows. A message is received when a place is free for it, so that none waits here while its visibility
timeout runs; only while invocations are much shorter than a poll are some polls made ahead. Visibility, receive counts,
redrive and the order of message groups are the queue's own; the mapping only deletes.
Rules: AWS Lambda Developer Guide, "Using Lambda with Amazon SQS".
"""

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lambdalab.errors import PlaneError
from lambdalab.local.aws_json import AwsJson
from lambdalab.local.batches import Batch, failed_message_ids, group_of
from lambdalab.local.concurrency import ThrottledError
from lambdalab.local.filters import body_filter
from lambdalab.local.pool import Pool
from lambdalab.local.queue import QUEUE_ERRORS, Queue

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

WAIT_S: Final = 1
"""Lambda's pollers wait the 20 s that SQS allows; here a stop would have to wait as long for its answer."""
FIRST_BACKOFF_S: Final = 0.1
LONGEST_BACKOFF_S: Final = 5.0
FIRST_BATCHES: Final = 5
MOST_BATCHES: Final = 1250
GROWTH_PER_S: Final = 300 / 60
LONGEST_GAP_S: Final = 1.0
GATHER_PAUSE_S: Final = 0.1
RECEIVE_MOST: Final = 10
"""Messages that one ReceiveMessage brings at most."""
AHEAD_BELOW_S: Final = 0.02
"""Invocations shorter than this have the next messages ready. AWS does not say what its pollers do."""
POLLS_AHEAD: Final = 3
"""So many they have ready: less, and places stay empty whenever the queue is late with an answer."""
log: Final = logging.getLogger("lambdalab.plane")


class Mapping(msgspec.Struct, frozen=True, kw_only=True):
    """An event source mapping as deployed. ``patterns`` are its filters, one of which a body must match."""

    uuid: str
    function_name: str
    queue_arn: str
    queue_url: str
    batch_size: int = 10
    window_s: int = 0
    maximum_concurrency: int | None = None
    patterns: tuple[str, ...] = ()
    reports_batch_item_failures: bool = False

    @property
    def is_fifo(self) -> bool:
        return self.queue_arn.endswith(".fifo")

    def check(self) -> None:
        """Source: AWS Lambda Developer Guide, "Creating and configuring an Amazon SQS event source mapping".

        Raises:
            PlaneError: Lambda would refuse it.
        """
        most = 10 if self.is_fifo else 10_000
        for wrong, problem in (
            (not 1 <= self.batch_size <= most, f"BatchSize {self.batch_size} is not between 1 and {most}"),
            (not 0 <= self.window_s <= 300, f"a batching window of {self.window_s} s is not between 0 and 300"),
            (self.is_fifo and self.window_s, "a FIFO queue has no batching window"),
            (self.batch_size > 10 and not self.window_s, f"BatchSize {self.batch_size} wants a window of 1 s or more"),
            (
                self.maximum_concurrency is not None and not 2 <= self.maximum_concurrency <= 1000,
                f"MaximumConcurrency {self.maximum_concurrency} is not between 2 and 1000",
            ),
        ):
            if wrong:
                raise PlaneError(
                    f"the mapping of {self.function_name} is refused as Lambda would: {problem}",
                    next_step="correct the mapping",
                )


class Concurrency:
    """How many batches may run at once: five at first, more while all are in use, fewer when they come to nothing."""

    def __init__(self, maximum: int | None) -> None:
        self._most = MOST_BATCHES if maximum is None else min(maximum, MOST_BATCHES)
        self._first = min(FIRST_BATCHES, self._most)
        self._value = float(self._first)
        self._grown_at: float | None = None

    @property
    def limit(self) -> int:
        return int(self._value)

    def all_used(self, now: float) -> None:
        """Grows by the time since all were last in use, or since the last step back; a longer gap was no backlog."""
        if self._grown_at is not None:
            passed_s = min(now - self._grown_at, LONGEST_GAP_S)
            self._value = min(self._most, self._value + GROWTH_PER_S * passed_s)
        self._grown_at = now

    def queue_empty(self, running: int) -> None:
        """Falls back, but not below what runs."""
        self._value = float(max(self._first, min(running, self._most)))
        self._grown_at = None

    def throttled(self, now: float) -> None:
        """The function takes no more than this, so one batch less than tried, though never fewer than at first."""
        self._value = min(self._value, max(self._first, self._value - 1))
        self._grown_at = now

    def failed(self, now: float) -> None:
        """Half as many."""
        self._value = max(1.0, self._value / 2)
        self._grown_at = now


class Poller:
    """Runs one mapping until it is stopped.

    Raises:
        PlaneError: Lambda would refuse the mapping.
    """

    def __init__(self, mapping: Mapping, pool: Pool, sqs: AwsJson) -> None:
        mapping.check()
        self.mapping = mapping
        self._passes = body_filter(mapping.patterns)
        self._pool = pool
        self._queue = Queue(sqs, mapping.queue_url)
        self._concurrency = Concurrency(mapping.maximum_concurrency)
        self._ready: deque[Batch] = deque()
        self._in_flight, self._in_flight_s, self._places_s, self._counted_at = 0, 0.0, 0.0, time.monotonic()
        self._ended = asyncio.Event()
        self._latest_s, self._throttled_at = math.inf, -math.inf
        self._batches: set[asyncio.Task[None]] = set()
        self._stopping = self._closing = False
        self.receives = self.empty_receives = self.throttles = self.failed_batches = 0
        self.filtered = self.given_up = self.most_in_flight = 0
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def running(self) -> bool:
        """Whether it may still do something; a stopped one finishes its batches."""
        return not self._task.done()

    def status(self) -> dict[str, Any]:
        """Its settings and counters, as JSON-ready values. Messages are counted in filtered, given_up, undeleted.

        ``in_flight_s`` is the seconds that its batches have been under way, ``places_s`` the seconds that all those it
        might have under way at once would have been.
        """
        self._count(0)
        return {
            "batch_size": self.mapping.batch_size,
            "window_s": self.mapping.window_s,
            "maximum_concurrency": self.mapping.maximum_concurrency,
            "filters": len(self.mapping.patterns),
            "reports_batch_item_failures": self.mapping.reports_batch_item_failures,
            "receives": self.receives,
            "empty_receives": self.empty_receives,
            "failed_batches": self.failed_batches,
            "throttles": self.throttles,
            "filtered": self.filtered,
            "given_up": self.given_up,
            "undeleted": self._queue.undeleted,
            "concurrency": self._concurrency.limit,
            "in_flight": self._in_flight,
            "in_flight_s": round(self._in_flight_s, 6),
            "places_s": round(self._places_s, 6),
            "most_in_flight": self.most_in_flight,
        }

    def reconfigure(self, mapping: Mapping) -> None:
        """Takes new settings of the same queue; they hold for what the poll under way brings as well.

        Raises:
            PlaneError: Lambda would refuse them; the old ones stay.
        """
        mapping.check()
        self._passes = body_filter(mapping.patterns)
        if mapping.maximum_concurrency != self.mapping.maximum_concurrency:
            self._concurrency = Concurrency(mapping.maximum_concurrency)
        self.mapping = mapping

    def stop(self) -> None:
        """Receives no more; what a poll under way still brings is processed."""
        self._stopping = True

    async def close(self, *, grace_s: float = 0) -> None:
        """Stops and begins no batch; those in hand have ``grace_s``, after that the queue gives them out again."""
        self._stopping = self._closing = True
        not_begun = [message for batch in self._ready for message in batch.messages]
        self._ready.clear()
        with contextlib.suppress(*QUEUE_ERRORS):
            await self._queue.give_back(not_begun)
        await asyncio.wait((self._task,), timeout=WAIT_S + 1 + grace_s)
        for task in (self._task, *self._batches):
            task.cancel()
        await asyncio.gather(self._task, *self._batches, return_exceptions=True)

    async def _run(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._stopping:
            if self._in_flight >= self._concurrency.limit:
                self._concurrency.all_used(time.monotonic())
            if not self._wants():
                await self._wait_for_a_place()
                continue
            try:
                self._ready.extend(await self._gather(self._wants()))
                backoff_s = FIRST_BACKOFF_S
            except Exception as error:  # whatever it was, the messages are safe in the queue
                self._tell(error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
            self._begin()
        while self._batches:
            await asyncio.wait(self._batches)
        await self._queue.settled()

    def _wants(self) -> int:
        """How many batches to receive now: those that have a place, or a whole poll ahead of that, or several."""
        mapping = self.mapping
        poll = 0 if mapping.is_fifo or mapping.window_s else RECEIVE_MOST // mapping.batch_size
        if self._latest_s > AHEAD_BELOW_S or time.monotonic() - self._throttled_at < LONGEST_BACKOFF_S:
            poll = 0
        places = self._concurrency.limit - self._in_flight + POLLS_AHEAD * poll - len(self._ready)
        return places if places >= max(1, poll) else 0

    def _begin(self) -> None:
        """Starts what is ready and has a place."""
        while self._ready and self._in_flight < self._concurrency.limit:
            self._count(1)
            task = asyncio.get_running_loop().create_task(self._process(self._ready.popleft()))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)
        self.most_in_flight = max(self.most_in_flight, self._in_flight)

    def _count(self, change: int) -> None:
        """Takes a change of how many batches are under way, after the time until now."""
        now = time.monotonic()
        passed_s, self._counted_at = now - self._counted_at, now
        self._in_flight_s += self._in_flight * passed_s
        self._places_s += self._concurrency.limit * passed_s
        self._in_flight += change

    async def _wait_for_a_place(self) -> None:
        """Until there is one, or the concurrency may have grown."""
        self._ended.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), 1 / GROWTH_PER_S)

    def _tell(self, error: Exception) -> None:
        if not isinstance(error, QUEUE_ERRORS):
            log.error("a batch of %s failed in the plane", self.mapping.function_name, exc_info=error)

    async def _gather(self, places: int) -> list[Batch]:
        """What one poll brings, for as many batches as have a place; with a window, what comes until it ends."""
        size = self.mapping.batch_size
        pollers = 1 if self.mapping.is_fifo else max(1, min(places, RECEIVE_MOST // size))
        asked = size * pollers
        messages = await self._receive(asked, WAIT_S)
        size = self.mapping.batch_size
        if len(messages) == asked < size:  # it grew meanwhile: what was sent together must not be two batches
            with contextlib.suppress(*QUEUE_ERRORS):
                messages += await self._receive(size - asked, 0)
        batches = []
        for begin in range(0, len(messages), size):
            batches.append(Batch(self.mapping.queue_arn, time.monotonic()))
            for message in messages[begin : begin + size]:
                batches[-1].add(message)
        if self.mapping.window_s and batches:
            await self._fill(batches[-1])
        return batches

    async def _fill(self, batch: Batch) -> None:
        """Adds what comes until the window ends or the batch is full."""
        end = batch.began + self.mapping.window_s
        while (
            not self._stopping
            and not batch.is_full
            and (lacks := self.mapping.batch_size - len(batch.messages)) > 0
            and (left_s := end - time.monotonic()) > 0
        ):
            wait_s = min(WAIT_S, int(left_s))
            try:
                messages = await self._receive(lacks, wait_s)
            except QUEUE_ERRORS:
                return  # what there is must not wait for a queue that does not answer
            for message in messages:
                batch.add(message)
            if not messages and not wait_s:
                await asyncio.sleep(min(GATHER_PAUSE_S, left_s))

    async def _receive(self, most: int, wait_s: int) -> "list[MessageTypeDef]":
        """What one poll brings and passes the filters; what does not pass is deleted."""
        self.receives += 1
        found = await self._queue.receive(most, wait_s)
        if not found:
            self.empty_receives += 1
            if wait_s:
                self._concurrency.queue_empty(self._in_flight)
        refused = [message for message in found if not self._passes(message["Body"])]
        self.filtered += len(refused)
        self._queue.delete(refused)
        return [message for message in found if message not in refused] if refused else found

    async def _process(self, batch: Batch) -> None:
        began = time.monotonic()
        try:
            if self._closing:
                await self._queue.give_back(batch.messages)
                return
            failed: set[str] = set()
            for payload, messages in batch.parts():
                groups = {group_of(m) for m in batch.messages if m["MessageId"] in failed} - {None}
                if any(group_of(m) in groups for m in messages):
                    return  # in its group nothing may overtake what failed
                failed |= await self._invoke(payload, messages, batch.began)
        except Exception as error:  # whatever it was, the messages are safe in the queue
            self._tell(error)
        finally:
            self._latest_s = time.monotonic() - began
            self._count(-1)
            self._begin()
            if self._wants():
                self._ended.set()

    async def _invoke(self, payload: bytes, messages: "list[MessageTypeDef]", began: float) -> set[str]:
        """Invokes with one payload, has deleted what succeeded and returns which messages did not."""
        every = {m["MessageId"] for m in messages}
        deadline = None
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                _, outcome = await self._pool.invoke(payload)
                break
            except ThrottledError:
                self.throttles += 1
                self._throttled_at = time.monotonic()
                self._concurrency.throttled(self._throttled_at)
                if deadline is None:  # the timeout as it is now, which only a throttled batch needs
                    deadline = began + await self._queue.visibility_timeout_s()
                if time.monotonic() + backoff_s > deadline:
                    self.given_up += len(messages)  # they reappear with a higher receive count
                    return every
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
        failed: set[str] = set()
        if outcome.answer.error_type is not None:
            self.failed_batches += 1
            failed = every
            if not self.mapping.reports_batch_item_failures:
                self._concurrency.failed(time.monotonic())
        elif self.mapping.reports_batch_item_failures:
            failed = failed_message_ids(outcome.answer.payload, every)
        self._queue.delete([m for m in messages if m["MessageId"] not in failed])
        return failed
