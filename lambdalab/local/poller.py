"""An SQS event source mapping: receive, filter, invoke, delete what succeeded, leave the rest to the queue.

One long poll brings batches; so many run at once as Lambda's pollers would have, which is what ``Concurrency`` knows.
Visibility, receive counts, redrive and the order of message groups are the queue's own; the mapping only deletes.
Rules: AWS Lambda Developer Guide, "Using Lambda with Amazon SQS".
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from lambdalab.local.batches import Batch, failed_message_ids, group_of, tens
from lambdalab.local.filters import body_filter
from lambdalab.local.pool import Pool, ThrottledError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
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
T = TypeVar("T")
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
        PlaneError: the mapping has a filter that Lambda would refuse.
    """

    def __init__(self, mapping: Mapping, pool: Pool, client: "SQSClient", executor: Executor) -> None:
        self.mapping = mapping
        self._passes = body_filter(mapping.patterns)
        self._pool = pool
        self._client = client
        self._executor = executor
        self._concurrency = Concurrency(mapping.maximum_concurrency)
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
        """Its settings and counters, as JSON-ready values. Messages are counted in filtered and given_up."""
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
            "concurrency": self._concurrency.limit,
            "in_flight": len(self._batches),
            "most_in_flight": self.most_in_flight,
        }

    def stop(self) -> None:
        """Receives no more; what a poll under way still brings is processed."""
        self._stopping = True

    async def close(self, *, grace_s: float = 0) -> None:
        """Stops and begins no batch; those in hand have ``grace_s``, after that the queue gives them out again."""
        self._stopping = self._closing = True
        await asyncio.wait((self._task,), timeout=WAIT_S + 1 + grace_s)
        for task in (self._task, *self._batches):
            task.cancel()
        await asyncio.gather(self._task, *self._batches, return_exceptions=True)

    async def _run(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._stopping:
            if len(self._batches) >= self._concurrency.limit:
                self._concurrency.all_used(time.monotonic())
                await asyncio.wait(self._batches, timeout=1 / GROWTH_PER_S, return_when=asyncio.FIRST_COMPLETED)
                continue
            try:
                batch = await self._gather()
                backoff_s = FIRST_BACKOFF_S
            except Exception as error:  # whatever it was, the messages are safe in the queue
                self._tell(error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
                continue
            if batch.messages:
                task = asyncio.get_running_loop().create_task(self._process(batch))
                self._batches.add(task)
                task.add_done_callback(self._batches.discard)
                self.most_in_flight = max(self.most_in_flight, len(self._batches))
        await asyncio.gather(*self._batches, return_exceptions=True)

    def _tell(self, error: Exception) -> None:
        if not isinstance(error, BotoCoreError | ClientError):
            log.error("a batch of %s failed in the plane", self.mapping.function_name, exc_info=error)

    async def _gather(self) -> Batch:
        """What the first poll brings; with a window, what comes until it ends or the batch is full."""
        batch = await self._receive_into(Batch(self.mapping.queue_arn, time.monotonic()), WAIT_S)
        batch.began = time.monotonic()
        end = batch.began + self.mapping.window_s
        while (
            batch.messages
            and not self._stopping
            and not batch.is_full
            and len(batch.messages) < self.mapping.batch_size
            and (left_s := end - time.monotonic()) > 0
        ):
            before = len(batch.messages)
            wait_s = min(WAIT_S, int(left_s))
            try:
                await self._receive_into(batch, wait_s)
            except (BotoCoreError, ClientError):
                break  # what there is must not wait for a queue that does not answer
            if len(batch.messages) == before and not wait_s:
                await asyncio.sleep(min(GATHER_PAUSE_S, left_s))
        return batch

    async def _receive_into(self, batch: Batch, wait_s: int) -> Batch:
        """Adds what one poll brings and passes the filters; what does not pass is deleted."""
        self.receives += 1
        answer = await self._call(
            lambda: self._client.receive_message(
                QueueUrl=self.mapping.queue_url,
                MaxNumberOfMessages=min(self.mapping.batch_size - len(batch.messages), 10),
                WaitTimeSeconds=wait_s,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        )
        messages = answer.get("Messages", [])
        if not messages:
            self.empty_receives += 1
            if wait_s:
                self._concurrency.queue_empty(len(self._batches))
        refused = []
        for message in messages:
            if self._passes(message["Body"]):
                batch.add(message)
            else:
                refused.append(message)
        if refused:
            self.filtered += len(refused)
            try:
                await self._call(lambda: self._delete(refused))
            except (BotoCoreError, ClientError) as error:  # they come again, and the others must not be lost for it
                log.warning("filtered messages of %s could not be deleted: %s", self.mapping.queue_arn, error)
        return batch

    async def _process(self, batch: Batch) -> None:
        try:
            if self._closing:
                await self._call(lambda: self._give_back(batch.messages))
                return
            failed: set[str] = set()
            for payload, messages in batch.parts():
                groups = {group_of(m) for m in batch.messages if m["MessageId"] in failed} - {None}
                if any(group_of(m) in groups for m in messages):
                    return  # in its group nothing may overtake what failed
                failed |= await self._invoke(payload, messages, batch.began)
        except Exception as error:  # whatever it was, the messages are safe in the queue
            self._tell(error)

    async def _invoke(self, payload: bytes, messages: "list[MessageTypeDef]", began: float) -> set[str]:
        """Invokes with one payload, deletes what succeeded and returns which messages did not."""
        every = {m["MessageId"] for m in messages}
        deadline = None
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                _, outcome = await self._pool.invoke(payload)
                break
            except ThrottledError:
                self.throttles += 1
                self._concurrency.throttled(time.monotonic())
                if deadline is None:
                    deadline = began + await self._call(self._visibility_timeout_s)
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
        if done := [m for m in messages if m["MessageId"] not in failed]:
            await self._call(lambda: self._delete(done))
        return failed

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _visibility_timeout_s(self) -> int:
        """As it is now: it may change while the mapping runs, and only a throttled batch needs it."""
        answer = self._client.get_queue_attributes(
            QueueUrl=self.mapping.queue_url, AttributeNames=["VisibilityTimeout"]
        )
        return int(answer["Attributes"]["VisibilityTimeout"])

    def _delete(self, messages: "list[MessageTypeDef]") -> None:
        for entries in tens(messages, lambda name, m: {"Id": name, "ReceiptHandle": m["ReceiptHandle"]}):
            self._client.delete_message_batch(QueueUrl=self.mapping.queue_url, Entries=entries)

    def _give_back(self, messages: "list[MessageTypeDef]") -> None:
        for entries in tens(
            messages, lambda name, m: {"Id": name, "ReceiptHandle": m["ReceiptHandle"], "VisibilityTimeout": 0}
        ):
            self._client.change_message_visibility_batch(QueueUrl=self.mapping.queue_url, Entries=entries)
