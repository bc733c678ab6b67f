"""An SQS event source mapping: receive, invoke, delete what succeeded, leave the rest to the queue.

One batch at a time. Visibility, receive counts and redrive are the queue's own; the mapping only deletes. Rules:
AWS Lambda Developer Guide, "Handling errors for an SQS event source".
"""

import asyncio
import base64
import json
import logging
import time
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Final

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from lambdalab.local.pool import Pool, ThrottledError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

WAIT_S: Final = 1
"""Lambda's pollers wait the 20 s that SQS allows; here a stop would have to wait as long for its answer."""
FIRST_BACKOFF_S: Final = 0.1
LONGEST_BACKOFF_S: Final = 5.0
log: Final = logging.getLogger("lambdalab.plane")


class Mapping(msgspec.Struct, frozen=True, kw_only=True):
    """An event source mapping as deployed."""

    uuid: str
    function_name: str
    queue_arn: str
    queue_url: str
    visibility_timeout_s: int
    batch_size: int
    reports_batch_item_failures: bool


class Poller:
    """Runs one mapping until it is stopped."""

    def __init__(self, mapping: Mapping, pool: Pool, client: "SQSClient", executor: Executor) -> None:
        self.mapping = mapping
        self._pool = pool
        self._client = client
        self._executor = executor
        self._stopping = self._closing = False
        self.receives = self.empty_receives = self.throttles = self.failed_batches = 0
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def running(self) -> bool:
        """Whether it may still do something; a stopped one finishes its batch."""
        return not self._task.done()

    def stop(self) -> None:
        """Receives no more; what a poll under way still brings is processed."""
        self._stopping = True

    async def close(self, *, grace_s: float = 0) -> None:
        """Stops and begins no batch; the one in hand has ``grace_s``, after that the queue gives it out again."""
        self._stopping = self._closing = True
        await asyncio.wait((self._task,), timeout=WAIT_S + 1 + grace_s)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._stopping:
            try:
                if messages := await self._receive():
                    await self._process(messages)
                backoff_s = FIRST_BACKOFF_S
            except Exception as error:  # whatever it was, the messages are safe in the queue
                if not isinstance(error, BotoCoreError | ClientError):
                    log.exception("a batch of %s failed in the plane", self.mapping.function_name)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    async def _receive(self) -> "list[MessageTypeDef]":
        self.receives += 1
        answer = await asyncio.get_running_loop().run_in_executor(
            self._executor,
            lambda: self._client.receive_message(
                QueueUrl=self.mapping.queue_url,
                MaxNumberOfMessages=min(self.mapping.batch_size, 10),
                WaitTimeSeconds=WAIT_S,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            ),
        )
        messages = answer.get("Messages", [])
        self.empty_receives += not messages
        return messages

    async def _process(self, messages: "list[MessageTypeDef]") -> None:
        if self._closing:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._give_back, messages)
            return
        payload = json.dumps({"Records": [self._record(m) for m in messages]}, separators=(",", ":")).encode()
        deadline = time.monotonic() + self.mapping.visibility_timeout_s
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                _, outcome = await self._pool.invoke(payload)
                break
            except ThrottledError:
                self.throttles += 1
                if time.monotonic() + backoff_s > deadline:
                    return  # given up: the messages reappear with a higher receive count
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
        if outcome.answer.error_type is not None:
            self.failed_batches += 1
            return
        failed = self._failed(outcome.answer.payload, {m["MessageId"] for m in messages})
        done = [m for m in messages if m["MessageId"] not in failed]
        if done:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._delete, done)

    def _failed(self, answer: bytes, message_ids: set[str]) -> set[str]:
        return failed_message_ids(answer, message_ids) if self.mapping.reports_batch_item_failures else set()

    def _delete(self, messages: "list[MessageTypeDef]") -> None:
        self._client.delete_message_batch(
            QueueUrl=self.mapping.queue_url,
            Entries=[{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(messages)],
        )

    def _give_back(self, messages: "list[MessageTypeDef]") -> None:
        self._client.change_message_visibility_batch(
            QueueUrl=self.mapping.queue_url,
            Entries=[
                {"Id": str(i), "ReceiptHandle": m["ReceiptHandle"], "VisibilityTimeout": 0}
                for i, m in enumerate(messages)
            ],
        )

    def _record(self, message: "MessageTypeDef") -> dict[str, Any]:
        """One element of ``Records``, with the spelling Lambda uses (which is not SQS's own)."""
        record: dict[str, Any] = {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": dict(message.get("Attributes", {})),
            "messageAttributes": {
                name: _attribute(dict(value)) for name, value in message.get("MessageAttributes", {}).items()
            },
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self.mapping.queue_arn,
            "awsRegion": self.mapping.queue_arn.split(":")[3],
        }
        if "MD5OfMessageAttributes" in message:
            record["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
        return record


def failed_message_ids(answer: bytes, message_ids: set[str]) -> set[str]:
    """Which messages of a batch a partial-batch answer gives back to the queue.

    An answer that breaks the contract fails the whole batch; an empty or null one succeeds whole. Source: AWS
    Lambda Developer Guide, "Implementing partial batch responses", success and failure conditions.
    """
    try:
        body = json.loads(answer) if answer.strip() else None
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


def _attribute(value: dict[str, Any]) -> dict[str, Any]:
    names = {"StringValue": "stringValue", "BinaryValue": "binaryValue", "DataType": "dataType"}
    return {
        "stringListValues": [],
        "binaryListValues": [],
        **{names[key]: _text(content) for key, content in value.items() if key in names},
    }


def _text(content: Any) -> Any:
    return base64.b64encode(content).decode() if isinstance(content, bytes) else content
