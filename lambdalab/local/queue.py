"""A queue as a mapping uses it: receive, delete what was done, give back what was not begun."""

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from lambdalab.local.aws_json import AwsJson
from lambdalab.local.batches import tens

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

QUEUE_ERRORS: Final = (BotoCoreError, ClientError, OSError)
"""A queue that refuses, or does not answer."""
DELETE_AFTER_S: Final = 0.005
"""So that one request can delete what several invocations have done."""
DELETE_ATTEMPTS: Final = 5
FIRST_PAUSE_S: Final = 0.1
log: Final = logging.getLogger("lambdalab.plane")


class Queue:
    """One queue.

    Deletions are gathered, up to ten to a request.
    ``undeleted`` counts messages that could not be deleted and will therefore be received again.
    """

    def __init__(self, sqs: AwsJson, url: str) -> None:
        self._sqs = sqs
        self._url = url
        self._waiting: deque[MessageTypeDef] = deque()
        self._deleting: asyncio.Task[None] | None = None
        self.undeleted = 0

    async def receive(self, most: int, wait_s: int) -> "list[MessageTypeDef]":
        """Up to ten messages, with all their attributes; waits so long for the first."""
        answer = await self._sqs.call(
            "ReceiveMessage",
            QueueUrl=self._url,
            MaxNumberOfMessages=min(most, 10),
            WaitTimeSeconds=wait_s,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return list(answer.get("Messages", ()))

    def delete(self, messages: "list[MessageTypeDef]") -> None:
        """Deletes them soon."""
        self._waiting.extend(messages)
        if messages and self._deleting is None:
            self._deleting = asyncio.get_running_loop().create_task(self._delete_all())

    async def settled(self) -> None:
        """Returns when nothing is left to delete."""
        if self._deleting is not None:
            await asyncio.wait((self._deleting,))

    async def give_back(self, messages: "list[MessageTypeDef]") -> None:
        """Makes them visible again now."""
        for entries in tens(
            messages, lambda name, m: {"Id": name, "ReceiptHandle": m["ReceiptHandle"], "VisibilityTimeout": 0}
        ):
            await self._sqs.call("ChangeMessageVisibilityBatch", QueueUrl=self._url, Entries=entries)

    async def visibility_timeout_s(self) -> int:
        """As it is now."""
        answer = await self._sqs.call("GetQueueAttributes", QueueUrl=self._url, AttributeNames=["VisibilityTimeout"])
        return int(answer["Attributes"]["VisibilityTimeout"])

    async def _delete_all(self) -> None:
        try:
            while self._waiting:
                if len(self._waiting) < 10:
                    await asyncio.sleep(DELETE_AFTER_S)
                await self._delete([self._waiting.popleft() for _ in range(min(10, len(self._waiting)))])
        finally:
            self._deleting = None

    async def _delete(self, messages: "list[MessageTypeDef]") -> None:
        """One request, and others for what failed on the queue's side; what is wrong with a message itself stays so."""
        pause_s = FIRST_PAUSE_S
        for attempt in range(1, DELETE_ATTEMPTS + 1):
            (entries,) = tens(messages, lambda name, m: {"Id": name, "ReceiptHandle": m["ReceiptHandle"]})
            try:
                answer = await self._sqs.call("DeleteMessageBatch", QueueUrl=self._url, Entries=entries)
                failed: list[dict[str, Any]] = answer.get("Failed", [])
                reason = ", ".join(sorted({entry["Code"] for entry in failed}))
            except QUEUE_ERRORS as error:
                failed, reason = [{"Id": entry["Id"]} for entry in entries], str(error)
            refused = [entry for entry in failed if entry.get("SenderFault")]
            if attempt == DELETE_ATTEMPTS:
                refused = failed
            if refused:
                self.undeleted += len(refused)
                log.warning("%d messages of %s were not deleted: %s", len(refused), self._url, reason)
            messages = [messages[int(entry["Id"])] for entry in failed if entry not in refused]
            if not messages:
                return
            await asyncio.sleep(pause_s)
            pause_s *= 2
