"""The work itself: one conditional PutItem after another."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from errors import IngestError, printable
from message import Message

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

LANG = "python"

_IS_NEW = "attribute_not_exists(pk) AND attribute_not_exists(sk)"


@dataclass(slots=True)
class Batch:
    """What became of the items of one message so far."""

    written: int = 0
    duplicates: int = 0
    elapsed_ns: int = 0
    put_ns: list[int] = field(default_factory=list)
    consumed_wru: float | None = None
    sdk_retries: int = 0

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
        self._sends = 0
        # The SDK emits this once per attempt. Unlike RetryAttempts it is there when no answer came.
        client.meta.events.register("before-send.dynamodb.PutItem", self._count_send)

    def write(self, message: Message, batch: Batch, *, cold_start: bool) -> None:
        """Write every item in order and note the outcome in `batch`; the first error ends it."""
        started = time.perf_counter_ns()
        payload = "x" * message.size_bytes
        try:
            for seq in range(message.count):
                item = {
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
                self._put(seq, item, batch)
        finally:
            batch.elapsed_ns = time.perf_counter_ns() - started

    def _put(self, seq: int, item: dict[str, Any], batch: Batch) -> None:
        self._sends = 0
        started = time.perf_counter_ns()
        try:
            answer = self._client.put_item(
                TableName=self._table_name,
                Item=item,
                ConditionExpression=_IS_NEW,
                ReturnConsumedCapacity="TOTAL",
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code != "ConditionalCheckFailedException":
                raise _write_failed(seq, code) from error
            batch.duplicates += 1
        except BotoCoreError as error:
            raise _write_failed(seq, "") from error
        else:
            batch.written += 1
            units = answer.get("ConsumedCapacity", {}).get("CapacityUnits")
            if units is not None:
                batch.consumed_wru = (batch.consumed_wru or 0.0) + units
        finally:
            batch.sdk_retries += max(self._sends - 1, 0)
        batch.put_ns.append(time.perf_counter_ns() - started)

    def _count_send(self, **_: object) -> None:
        self._sends += 1


def _write_failed(seq: int, code: str) -> IngestError:
    # Without a code in the answer the SDK puts the HTTP status in its place.
    reason = printable(code) if code[:1].isalpha() else "no valid answer from DynamoDB"
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
