"""What a queue's event source mapping sends to a function, and what it makes of the answer. Pure."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

PAYLOAD_BYTES: Final = 6 * 1024 * 1024
"""The most an event may have, metadata of the messages included."""
_BEGIN: Final = b'{"Records":['
_END: Final = b"]}"
_COMPACT: Final = json.JSONEncoder(separators=(",", ":"))
_EMPTY_BYTES: Final = len(_BEGIN) + len(_END)


class Batch:
    """Messages on their way to one or more invocations, each with its record as JSON.

    Args:
        began: when the oldest message was received.
    """

    def __init__(self, queue_arn: str, began: float, most_bytes: int = PAYLOAD_BYTES) -> None:
        self.began = began
        self.messages: list[MessageTypeDef] = []
        self._queue_arn = queue_arn
        self._most_bytes = most_bytes
        self._records: list[bytes] = []
        self._bytes = _EMPTY_BYTES

    def add(self, message: "MessageTypeDef") -> None:
        text = _COMPACT.encode(record(message, self._queue_arn)).encode()
        self.messages.append(message)
        self._records.append(text)
        self._bytes += len(text) + 1

    @property
    def is_full(self) -> bool:
        """Whether one payload cannot hold more."""
        return self._bytes > self._most_bytes

    def parts(self) -> Iterator[tuple[bytes, "list[MessageTypeDef]"]]:
        """Payloads of at most the allowed size with their messages, in order; most batches are one."""
        begin, size = 0, _EMPTY_BYTES
        for end, text in enumerate(self._records):
            comma = end > begin
            if comma and size + comma + len(text) > self._most_bytes:
                yield self._part(begin, end)
                begin, size, comma = end, _EMPTY_BYTES, False
            size += comma + len(text)
        if self._records:
            yield self._part(begin, len(self._records))

    def _part(self, begin: int, end: int) -> tuple[bytes, "list[MessageTypeDef]"]:
        return _BEGIN + b",".join(self._records[begin:end]) + _END, self.messages[begin:end]


def record(message: "MessageTypeDef", queue_arn: str) -> dict[str, Any]:
    """One element of ``Records``, with the spelling Lambda uses (which is not SQS's own)."""
    found: dict[str, Any] = {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message.get("Attributes", {})),
        "messageAttributes": {
            name: _attribute(dict(value)) for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }
    if "MD5OfMessageAttributes" in message:
        found["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
    return found


def group_of(message: "MessageTypeDef") -> str | None:
    """The message group, which only messages of a FIFO queue are sure to have."""
    return message.get("Attributes", {}).get("MessageGroupId")


def tens(
    messages: "Sequence[MessageTypeDef]", entry: "Callable[[str, MessageTypeDef], dict[str, Any]]"
) -> Iterator[list[Any]]:
    """The entries of requests that name messages, of which one request takes ten."""
    for begin in range(0, len(messages), 10):
        yield [entry(str(i), message) for i, message in enumerate(messages[begin : begin + 10])]


def failed_message_ids(answer: bytes, message_ids: set[str]) -> set[str]:
    """Which messages of a batch a partial-batch answer gives back to the queue.

    An answer that breaks the contract fails the whole batch; an empty or null one succeeds whole. Source: AWS
    Lambda Developer Guide, "Implementing partial batch responses", success and failure conditions.
    """
    try:
        body = json.loads(answer, parse_constant=_refuse_constant) if answer.strip() else None
    except (ValueError, RecursionError):
        return message_ids
    if body is None:
        return set()
    if not isinstance(body, dict):
        return message_ids
    failures = body.get("batchItemFailures")
    if failures is None:
        return set()
    if not isinstance(failures, list):
        return message_ids
    identifiers = [item.get("itemIdentifier") if isinstance(item, dict) else None for item in failures]
    if not all(isinstance(identifier, str) and identifier in message_ids for identifier in identifiers):
        return message_ids
    return {str(identifier) for identifier in identifiers}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _attribute(value: dict[str, Any]) -> dict[str, Any]:
    names = {"StringValue": "stringValue", "BinaryValue": "binaryValue", "DataType": "dataType"}
    return {
        "stringListValues": [],
        "binaryListValues": [],
        **{names[key]: _text(content) for key, content in value.items() if key in names},
    }


def _text(content: Any) -> Any:
    return base64.b64encode(content).decode() if isinstance(content, bytes) else content
