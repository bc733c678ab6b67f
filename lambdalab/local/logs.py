"""Carries the lines of environments to CloudWatch Logs, off the path of the invocations."""

import asyncio
import logging
import time
from collections import Counter, defaultdict
from typing import Any, Final

from botocore.exceptions import ClientError

from lambdalab.local.aws_json import AwsJson

FLUSH_S: Final = 0.2
"""Each write costs milliseconds of CPU, here and in the log service, that invocations then lack."""
BATCH_EVENTS: Final = 1000
BATCH_CHARACTERS: Final = 250_000
"""PutLogEvents takes 1 MiB, and a character may take four bytes."""
WAITING_LIMIT: Final = 100_000
"""Lines kept while the log service does not answer; beyond it new ones are dropped and counted."""
RETRY_S: Final = 1.0
REFUSALS: Final = 5
"""After so many a batch is dropped: the fault lies in it, and the lines behind it must not wait for ever. A service
that takes nothing at all for a while is not counted."""
log: Final = logging.getLogger("lambdalab.plane")


class LogWriter:
    """Collects lines and writes them in batches, per stream in order.

    ``dropped`` counts lines lost because the log service stayed away or refused them; ``lambdalab status`` shows it,
    and a run that misses a REPORT says so itself. What a stream is refused keeps no other from being written.
    """

    def __init__(self, service: AwsJson) -> None:
        self._service = service
        self._waiting: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        self._count = 0
        self._streams: set[tuple[str, str]] = set()
        self._refusals: Counter[tuple[str, str]] = Counter()
        self._wake = asyncio.Event()
        self._stopping = False
        self.dropped = 0
        self._task = asyncio.get_running_loop().create_task(self._run())

    def emit(self, group: str, stream: str, line: str) -> None:
        """Takes one line; never blocks."""
        if self._count >= WAITING_LIMIT:
            self.dropped += 1
            return
        self._waiting[group, stream].append({"timestamp": time.time_ns() // 1_000_000, "message": line})
        self._count += 1
        self._wake.set()

    async def close(self) -> None:
        """Writes what waits, then stops; what the log service does not take now is dropped and counted."""
        self._stopping = True
        self._wake.set()
        await self._task
        if self._count:
            self._drop(self._count, "the log service did not take them before the end")
            self._waiting.clear()
        self._service.close()

    async def _run(self) -> None:
        while not (self._stopping and not self._count):
            await self._wake.wait()
            if not self._stopping:
                await asyncio.sleep(FLUSH_S)  # gather the lines of one invocation
            self._wake.clear()
            waiting = self._count
            if not await self._flush():
                if not self._stopping:
                    await asyncio.sleep(RETRY_S)
                elif self._count >= waiting:
                    return
                self._wake.set()

    async def _flush(self) -> bool:
        """Writes one batch of every stream; whether all were taken."""
        all_taken = True
        for key in [key for key, events in self._waiting.items() if events]:
            events = _batch(self._waiting[key])
            try:
                await self._put(*key, events)
            except Exception as error:  # whatever it is, the other streams must go on
                all_taken = False
                self._streams.discard(key)  # it may be gone, as after a restart of the log service
                if _is_away(error):
                    return False
                self._refusals[key] += 1
                if self._refusals[key] < REFUSALS:
                    continue
                self._drop(len(events), f"{key[1]} in {key[0]} was refused {REFUSALS} times: {error}")
            del self._refusals[key]
            del self._waiting[key][: len(events)]
            self._count -= len(events)
            if self._waiting[key]:
                self._wake.set()
            else:
                del self._waiting[key]
        return all_taken

    def _drop(self, lines: int, why: str) -> None:
        self.dropped += lines
        log.warning("%d log lines are lost: %s", lines, why)

    async def _put(self, group: str, stream: str, events: list[dict[str, Any]]) -> None:
        if (group, stream) not in self._streams:
            await self._make("CreateLogGroup", logGroupName=group)
            await self._make("CreateLogStream", logGroupName=group, logStreamName=stream)
            self._streams.add((group, stream))
        await self._service.call("PutLogEvents", logGroupName=group, logStreamName=stream, logEvents=events)

    async def _make(self, action: str, **names: str) -> None:
        try:
            await self._service.call(action, **names)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceAlreadyExistsException":
                raise


def _is_away(error: Exception) -> bool:
    """Whether the service takes nothing for now, whatever it is sent: no answer, overload, or too many calls.

    Source: Amazon CloudWatch Logs API Reference, PutLogEvents (ServiceUnavailableException has status 500) and "Common
    errors" (ServiceUnavailable, ThrottlingException).
    """
    if not isinstance(error, ClientError):
        return isinstance(error, OSError)
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status in (429, 503) or error.response["Error"]["Code"].startswith(("ServiceUnavailable", "Throttling"))


def _batch(waiting: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the first events as one call may carry, at least one."""
    characters = 0
    for count, event in enumerate(waiting[:BATCH_EVENTS]):
        characters += len(event["message"])
        if count and characters > BATCH_CHARACTERS:
            return waiting[:count]
    return waiting[:BATCH_EVENTS]
