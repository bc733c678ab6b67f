"""The work itself: the items of a message, written in the mode it asks for."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from errors import IngestError, printable
from message import Message

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item = dict[str, Any]
WriteRequest = Mapping[str, Any]

# The same in Go, see src/go/ingest/internal/ingest/writer.go and modes.go.
LANG = "python"
CONCURRENCY = 8  # puts under way at once
BATCH_ITEMS = 25  # DynamoDB's limit; its other one, 16 MB, is out of reach at 400,000 bytes an item
FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 5.0
RESERVE_MS = 1000  # kept for one more call and the record

_NO_ANSWER = "no valid answer from DynamoDB"
_IS_NEW = "attribute_not_exists(pk) AND attribute_not_exists(sk)"


@dataclass(slots=True)
class Batch:
    """What became of the items of one message so far."""

    written: int = 0
    duplicates: int | None = 0
    elapsed_ns: int = 0
    put_ns: list[int] = field(default_factory=list)
    consumed_wru: float | None = None
    sdk_retries: int = 0

    def add_units(self, units: float | None) -> None:
        """Add capacity that DynamoDB returned."""
        if units is not None:
            self.consumed_wru = (self.consumed_wru or 0.0) + units

    def add(self, part: "Batch") -> None:
        """Add what one thread did; `elapsed_ns` is the caller's."""
        self.written += part.written
        self.duplicates = (self.duplicates or 0) + (part.duplicates or 0)
        self.put_ns += part.put_ns
        self.add_units(part.consumed_wru)
        self.sdk_retries += part.sdk_retries

    def summary(self) -> dict[str, Any]:
        """Show the batch as the log record does; None is what was not measured."""
        return {
            "written": self.written,
            "duplicates": self.duplicates,
            "batch_elapsed_ms": _milliseconds(self.elapsed_ns),
            "put_ms": _quantiles(self.put_ns),
            "consumed_wru": self.consumed_wru,
            "sdk_retries": self.sdk_retries,
        }


class Writer:
    """Writes the items of a message to one table."""

    def __init__(self, client: "DynamoDBClient", table_name: str) -> None:
        self._client = client
        self._table_name = table_name
        self._threads = ThreadPoolExecutor(CONCURRENCY)  # it starts them when the first work comes
        self._of_thread = threading.local()
        # The SDK emits this once per attempt. Unlike RetryAttempts it is there when no answer came.
        client.meta.events.register("before-send.dynamodb", self._count_send)

    def write(self, message: Message, batch: Batch, *, cold_start: bool, remaining_ms: Callable[[], int]) -> None:
        """Write every item and note the outcome in `batch`; the first error ends it."""
        started = time.perf_counter_ns()
        item = partial(_item, message, "x" * message.size_bytes, cold_start)
        try:
            if message.mode == "batch":
                batch.duplicates = None  # no condition is possible
                self._write_batches(item, message.count, batch, remaining_ms)
            elif message.mode == "concurrent":
                self._write_at_once(item, message.count, batch)
            else:
                for seq in range(message.count):
                    self._put(seq, item(seq), batch)
        finally:
            batch.elapsed_ns = time.perf_counter_ns() - started

    def _write_at_once(self, item: Callable[[int], Item], count: int, batch: Batch) -> None:
        """Put from several threads. After the first error none begins another put; those under way are awaited."""
        parts = [Batch() for _ in range(min(CONCURRENCY, count))]
        failures: list[tuple[int, Exception]] = []
        seqs = iter(range(count))  # shared: the interpreter lock makes each step whole
        work = partial(self._put_until_failure, seqs, item, failures)
        for done in [self._threads.submit(work, part) for part in parts]:
            done.result()
        for part in parts:
            batch.add(part)
        if failures:
            _, failure = min(failures, key=lambda failure: failure[0])
            raise failure

    def _put_until_failure(
        self, seqs: Iterator[int], item: Callable[[int], Item], failures: list[tuple[int, Exception]], part: Batch
    ) -> None:
        for seq in seqs:
            if failures:
                return
            try:
                self._put(seq, item(seq), part)
            except Exception as failure:
                failures.append((seq, failure))

    def _write_batches(
        self, item: Callable[[int], Item], count: int, batch: Batch, remaining_ms: Callable[[], int]
    ) -> None:
        """Write 25 items a call. Those that DynamoDB leaves unprocessed are sent again, later each time."""
        for first in range(0, count, BATCH_ITEMS):
            seqs = range(first, min(first + BATCH_ITEMS, count))
            unprocessed = self._put_batch([{"PutRequest": {"Item": item(seq)}} for seq in seqs], batch)
            tries = 0
            while unprocessed:
                delay_s = backoff_s(tries)
                if remaining_ms() - delay_s * 1000 <= RESERVE_MS:
                    raise _write_failed(_first_seq(unprocessed), "unprocessed until the time was up")
                time.sleep(delay_s)
                unprocessed = self._put_batch(unprocessed, batch)
                tries += 1

    def _put(self, seq: int, item: Item, batch: Batch) -> None:
        with self._call(seq, batch):
            try:
                answer = self._client.put_item(
                    TableName=self._table_name,
                    Item=item,
                    ConditionExpression=_IS_NEW,
                    ReturnConsumedCapacity="TOTAL",
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise
                batch.duplicates = (batch.duplicates or 0) + 1
            else:
                batch.written += 1
                batch.add_units(answer.get("ConsumedCapacity", {}).get("CapacityUnits"))

    def _put_batch(self, requests: Sequence[WriteRequest], batch: Batch) -> Sequence[WriteRequest]:
        """Put up to 25 items in one call and return what DynamoDB left unprocessed."""
        with self._call(_first_seq(requests), batch):
            answer = self._client.batch_write_item(
                RequestItems={self._table_name: requests}, ReturnConsumedCapacity="TOTAL"
            )
        unprocessed = answer.get("UnprocessedItems", {}).get(self._table_name, [])
        batch.written += len(requests) - len(unprocessed)
        for capacity in answer.get("ConsumedCapacity", []):
            batch.add_units(capacity.get("CapacityUnits"))
        return unprocessed

    @contextmanager
    def _call(self, seq: int, batch: Batch) -> Iterator[None]:
        """Time one call and count its retries; an error of the SDK becomes that of item `seq`."""
        self._of_thread.sends = 0
        started = time.perf_counter_ns()
        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            # Without a code in the answer the SDK puts the HTTP status in its place.
            raise _write_failed(seq, printable(code) if code[:1].isalpha() else _NO_ANSWER) from error
        except BotoCoreError as error:
            raise _write_failed(seq, _NO_ANSWER) from error
        finally:
            batch.sdk_retries += max(self._of_thread.sends - 1, 0)
        batch.put_ns.append(time.perf_counter_ns() - started)

    def _count_send(self, **_: object) -> None:
        self._of_thread.sends += 1


def backoff_s(tries: int) -> float:
    """Draw the wait before unprocessed items are sent again: exponential, with full jitter."""
    return random.uniform(0, min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**tries))  # noqa: S311


def _item(message: Message, payload: str, cold_start: bool, seq: int) -> Item:
    return {
        "pk": {"S": f"batch_id#{message.batch_id}"},
        "sk": {"S": f"seq#{seq}"},
        "lang": {"S": LANG},
        "label": {"S": message.label},
        "size_bytes": {"N": str(message.size_bytes)},
        "seq": {"N": str(seq)},
        "t_start_ms": {"N": str(time.time_ns() // 1_000_000)},
        "payload": {"S": payload},
        "cold_start": {"BOOL": cold_start},
    }


def _first_seq(requests: Sequence[WriteRequest]) -> int:
    return min(int(request["PutRequest"]["Item"]["seq"]["N"]) for request in requests)


def _write_failed(seq: int, reason: str) -> IngestError:
    return IngestError("WriteFailed", f"item {seq} could not be written: {reason}")


def _quantiles(put_ns: list[int]) -> dict[str, float] | None:
    """Nearest-rank quantiles: every value shown was measured. None without a value."""
    if not put_ns:
        return None
    ranked = sorted(put_ns)
    n = len(ranked)
    return {
        "n": n,
        "p50": _milliseconds(ranked[(50 * n + 99) // 100 - 1]),
        "p95": _milliseconds(ranked[(95 * n + 99) // 100 - 1]),
        "max": _milliseconds(ranked[-1]),
    }


def _milliseconds(ns: int) -> float:
    return round(ns / 1e6, 3)
