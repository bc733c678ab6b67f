"""Messages that were given up: how many there are, what they say, and how they get back to where they came from.

Moving is done here, message by message, and not by SQS's own StartMessageMoveTask: that one counts approximately, knows
no end but an empty queue, so that what fails again is moved again, and cannot be stopped where it is. Each message is
sent first and deleted then, so at every moment it is in one queue at least.
"""

import base64
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lambdalab.aws.clients import Aws, access_errors
from lambdalab.aws.logged_errors import read_logged_errors
from lambdalab.aws.stack import Stack
from lambdalab.errors import AccessError, UsageError

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import (
        ChangeMessageVisibilityBatchRequestEntryTypeDef,
        DeleteMessageBatchRequestEntryTypeDef,
        MessageTypeDef,
        SendMessageBatchRequestEntryTypeDef,
    )

HIDE_S: Final = 60
"""For so long a message that was received stays hidden, if whoever received it is killed."""
MOST_LOOKED_AT: Final = 1000
MOST_PER_S: Final = 500
"""The most StartMessageMoveTask takes; beyond that messages are better dropped or moved by SQS itself."""
_BATCH: Final = 10
_BATCH_BYTES: Final = 2**20
"""Of SendMessageBatch, bodies and attributes of all messages together (AWSSimpleQueueService quotas-messages)."""
_EMPTY_READINGS: Final = 3
"""A short answer of SQS is no proof: so many empty ones in a row are taken for an empty queue."""
_DELETE_ATTEMPTS: Final = 3
_OUTPUT: Final = "DeadLetterQueueUrl"


class DeadLetterQueue(msgspec.Struct, frozen=True, kw_only=True):
    """The dead-letter queue of one language, the queue its messages came from, and the log of who gave them up."""

    language: str
    url: str
    source_url: str
    log_group: str


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages a dead-letter queue holds; on AWS the numbers are approximate.

    ``oldest_sent_at_ms`` is when the oldest of the ``looked_at`` messages was first sent, from which its retention
    counts; None when none was seen.
    """

    language: str
    queue_url: str
    source_queue_url: str
    visible: int
    hidden: int
    looked_at: int
    oldest_sent_at_ms: int | None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One message that was given up.

    ``attributes`` are its message attributes, as SQS calls their members; binary values are base64.
    ``receive_count`` includes every look at it. ``error`` is what the function logged of it last, where that can be
    told: a function that timed out or crashed logs nothing.
    """

    language: str
    message_id: str
    body: str
    attributes: dict[str, dict[str, str]]
    receive_count: int
    sent_at_ms: int
    error: dict[str, Any] | None = None


class Redriven(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the messages of one dead-letter queue.

    ``refused`` were not taken by the queue they came from and stay; ``twice`` were, and could not be deleted, so that
    they are in both. ``refusal`` and ``undeleted`` are SQS's word for the last of either.
    """

    moved: int = 0
    refused: int = 0
    twice: int = 0
    refusal: str | None = None
    undeleted: str | None = None


def dead_letter_queues(stack: Stack, languages: Sequence[str] = ()) -> list[DeadLetterQueue]:
    """The dead-letter queues of a stack, of some languages or of all.

    Raises:
        UsageError: the stack has no such language.
        StackError: the stack was not deployed by lambdalab.
    """
    prefixes = [key.removesuffix(_OUTPUT) for key in stack.outputs if key.endswith(_OUTPUT)]
    if not prefixes:
        stack.output(f"Python{_OUTPUT}")  # which says what is wrong with the stack
    known = [prefix.lower() for prefix in prefixes]
    for language in languages:
        if language not in known:
            raise UsageError(
                f"stack {stack.name} has no dead-letter queue for language {language!r}",
                next_step=f"name one of: {', '.join(known)}",
            )
    return [
        DeadLetterQueue(
            language=prefix.lower(),
            url=stack.output(f"{prefix}{_OUTPUT}"),
            source_url=stack.output(f"{prefix}QueueUrl"),
            log_group=stack.output(f"{prefix}LogGroupName"),
        )
        for prefix in prefixes
        if not languages or prefix.lower() in languages
    ]


def depth(aws: Aws, queue: DeadLetterQueue, *, look_at: int = 100) -> Depth:
    """Counts a queue's messages and looks at some for the oldest; that look raises their receive count.

    Raises:
        AccessError: the queue cannot be asked.
    """
    visible, hidden = _counts(aws, queue.url)
    sent: list[int] = []
    if visible:
        with _looked_at(aws, queue.url, look_at) as messages:
            sent = [int(message["Attributes"]["SentTimestamp"]) for message in messages]
    return Depth(
        language=queue.language,
        queue_url=queue.url,
        source_queue_url=queue.source_url,
        visible=visible,
        hidden=hidden,
        looked_at=len(sent),
        oldest_sent_at_ms=min(sent, default=None),
    )


def look(aws: Aws, queue: DeadLetterQueue, *, at_most: int) -> list[DeadLetter]:
    """Reads messages and gives them back at once; their receive count rises by one.

    Args:
        aws: where the queue is.
        queue: which.
        at_most: so many, 1 to ``MOST_LOOKED_AT``; in no order, as SQS gives them.

    Raises:
        AccessError: the queue or the log cannot be read.
    """
    with _looked_at(aws, queue.url, at_most) as messages:
        found = [_dead_letter(queue.language, message) for message in messages]
    if not found:
        return []
    errors = read_logged_errors(aws, queue.log_group, min(letter.sent_at_ms for letter in found))
    return [msgspec.structs.replace(letter, error=errors.of(letter.body, letter.sent_at_ms)) for letter in found]


def redrive(
    aws: Aws,
    queue: DeadLetterQueue,
    *,
    per_s: int,
    stop: threading.Event,
    progress: Callable[[int], None] = lambda _: None,
) -> Redriven:
    """Moves the messages that are there now back to the queue they came from, with body and attributes unchanged.

    A message that is given up again meanwhile is not moved again.

    Args:
        aws: where the queues are.
        queue: which.
        per_s: so many messages per second, 1 to ``MOST_PER_S``.
        stop: ends it after the messages in hand, which are few.
        progress: told how many have been dealt with.

    Raises:
        AccessError: a queue does not answer; no message is lost, and one whose fate is unknown may be in both queues.
            Its notes say what was done before.
    """
    left = _counts(aws, queue.url)[0]
    result, tried, due, empty = Redriven(), set[str](), time.monotonic(), 0
    held: list[MessageTypeDef] = []
    try:
        while left > 0 and empty < _EMPTY_READINGS and not stop.is_set():
            received = _receive(aws, queue.url, min(_BATCH, left, per_s))
            fresh = [message for message in received if message["MessageId"] not in tried]
            empty = 0 if fresh else empty + 1
            held += received
            tried.update(message["MessageId"] for message in fresh)
            for batch in _batches(fresh):
                sent, refusal = _send(aws, queue.source_url, batch)
                tried.update(sent.values())  # under which they would be found here again
                held = [message for message in held if message["MessageId"] not in sent]
                undeleted = _delete(aws, queue.url, [message for message in batch if message["MessageId"] in sent])
                result = Redriven(
                    moved=result.moved + len(sent) - len(undeleted),
                    refused=result.refused + len(batch) - len(sent),
                    twice=result.twice + len(undeleted),
                    refusal=refusal or result.refusal,
                    undeleted=next(iter(undeleted), result.undeleted),
                )
            left -= len(fresh)
            progress(result.moved + result.refused + result.twice)
            due = max(due, time.monotonic() - 1) + len(fresh) / per_s  # what was missed is not caught up with
            if left > 0:
                stop.wait(max(0.0, due - time.monotonic()))
    except AccessError as error:
        error.add_note(
            f"{queue.language}, before that: {result.moved} messages went from {queue.url} to {queue.source_url}, "
            f"{result.refused} were refused, {result.twice} are in both; of up to {_BATCH} more it is not known."
        )
        raise
    finally:
        _give_back(aws, queue.url, held)
    return result


def _counts(aws: Aws, url: str) -> tuple[int, int]:
    with access_errors(f"queue {url}"):
        found = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return int(found["ApproximateNumberOfMessages"]), int(found["ApproximateNumberOfMessagesNotVisible"])


def _receive(aws: Aws, url: str, at_most: int) -> "list[MessageTypeDef]":
    with access_errors(f"queue {url}"):
        return aws.sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=at_most,
            VisibilityTimeout=HIDE_S,
            WaitTimeSeconds=1,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        ).get("Messages", [])


@contextmanager
def _looked_at(aws: Aws, url: str, at_most: int) -> "Iterator[list[MessageTypeDef]]":
    """Messages of a queue, hidden from others inside the block and given back at its end, however that comes."""
    seen: dict[str, MessageTypeDef] = {}
    visible, empty, until = _counts(aws, url)[0], 0, time.monotonic() + HIDE_S / 2
    try:
        while len(seen) < min(at_most, visible) and empty < _EMPTY_READINGS and time.monotonic() < until:
            received = _receive(aws, url, min(_BATCH, at_most - len(seen)))
            empty = 0 if received else empty + 1
            seen |= {message["MessageId"]: message for message in received}
        yield list(seen.values())
    finally:
        _give_back(aws, url, list(seen.values()))


def _give_back(aws: Aws, url: str, messages: "Sequence[MessageTypeDef]") -> None:
    """Shows messages again at once. Where that fails they come back by themselves, after ``HIDE_S``."""
    for first in range(0, len(messages), _BATCH):
        entries: list[ChangeMessageVisibilityBatchRequestEntryTypeDef] = [
            {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
            for number, message in enumerate(messages[first : first + _BATCH])
        ]
        with suppress(AccessError), access_errors(f"queue {url}"):
            aws.sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)


def _send(aws: Aws, url: str, messages: "Sequence[MessageTypeDef]") -> tuple[dict[str, str], str | None]:
    """Sends messages as they are. Returns the new id of each that was taken, and why another was not."""
    entries: list[SendMessageBatchRequestEntryTypeDef] = []
    for number, message in enumerate(messages):
        entry: SendMessageBatchRequestEntryTypeDef = {"Id": str(number), "MessageBody": message["Body"]}
        if attributes := message.get("MessageAttributes"):
            entry["MessageAttributes"] = attributes
        if trace := message["Attributes"].get("AWSTraceHeader"):
            entry["MessageSystemAttributes"] = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace}}
        entries.append(entry)
    with access_errors(f"queue {url}"):
        answer = aws.sqs_once.send_message_batch(QueueUrl=url, Entries=entries)
    refusals = [f"{one['Code']}: {one.get('Message', '')}".removesuffix(": ") for one in answer.get("Failed", [])]
    new_ids = {messages[int(one["Id"])]["MessageId"]: one["MessageId"] for one in answer.get("Successful", [])}
    return new_ids, next(iter(refusals), None)


def _batches(messages: "Sequence[MessageTypeDef]") -> "Iterator[list[MessageTypeDef]]":
    """Parts that one request may carry."""
    batch: list[MessageTypeDef] = []
    filled = 0
    for message in messages:
        size = _bytes(message)
        if batch and filled + size > _BATCH_BYTES:
            yield batch
            batch, filled = [], 0
        batch.append(message)
        filled += size
    if batch:
        yield batch


def _bytes(message: "MessageTypeDef") -> int:
    """The size of a message as SQS counts it: body, and name, type and value of every attribute."""
    size = len(message["Body"].encode())
    for name, attribute in message.get("MessageAttributes", {}).items():
        value = attribute.get("BinaryValue") or attribute.get("StringValue", "").encode()
        size += len(name.encode()) + len(attribute["DataType"]) + len(value)
    return size


def _delete(aws: Aws, url: str, messages: "Sequence[MessageTypeDef]") -> list[str]:
    """Deletes messages; returns why, for each that is still there after some attempts."""
    left, problems = list(messages), []
    for _ in range(_DELETE_ATTEMPTS):
        if not left:
            return []
        entries: list[DeleteMessageBatchRequestEntryTypeDef] = [
            {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]} for number, message in enumerate(left)
        ]
        try:
            with access_errors(f"queue {url}"):
                failed = aws.sqs.delete_message_batch(QueueUrl=url, Entries=entries).get("Failed", [])
        except AccessError as error:
            problems = [str(error)] * len(left)
            continue
        problems = [one["Code"] for one in failed]
        left = [left[int(one["Id"])] for one in failed]
    return problems


def _dead_letter(language: str, message: "MessageTypeDef") -> DeadLetter:
    attributes: dict[str, dict[str, str]] = {}
    for name, attribute in message.get("MessageAttributes", {}).items():
        value = attribute.get("BinaryValue")
        given = {"BinaryValue": base64.b64encode(value).decode()} if value is not None else {}
        given |= {"StringValue": attribute["StringValue"]} if "StringValue" in attribute else {}
        attributes[name] = {"DataType": attribute["DataType"], **given}
    return DeadLetter(
        language=language,
        message_id=message["MessageId"],
        body=message["Body"],
        attributes=attributes,
        receive_count=int(message["Attributes"]["ApproximateReceiveCount"]),
        sent_at_ms=int(message["Attributes"]["SentTimestamp"]),
    )
