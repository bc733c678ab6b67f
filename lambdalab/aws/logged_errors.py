"""Why messages failed: what their function logged of each, found by what tells messages apart there."""

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from lambdalab.aws.clients import Aws, access_errors
from lambdalab.logs.platform_lines import MalformedRecordError, parse_failure, parse_record

_LOG_PAGES: Final = 20
_RECORDS: Final = '{ $.error.code = "*" }'
_FAILURES: Final = '?"Task timed out after" ?"Error: Runtime exited" ?"Error: fork/exec" ?"Error: Couldn\'t find valid"'
"""Any of what Lambda itself writes for a timeout or a crash."""


class LoggedErrors:
    """The errors a function logged, by what tells its messages apart: there is no message id (docs/contracts.md)."""

    def __init__(self) -> None:
        self._by_batch: dict[str, dict[str, Any]] = {}
        self._of_refused: dict[int, list[dict[str, Any]]] = {}
        self._ended: set[tuple[int, str, str]] = set()

    def add(self, line: str, timestamp_ms: int) -> None:
        """Takes in one line of the log, if it is the record of a failed message, or Lambda's of a failed invocation."""
        if (failure := parse_failure(line)) is not None:
            self._ended.add((timestamp_ms, failure.error_type, failure.message))
            return
        try:
            record = parse_record(line)
        except MalformedRecordError:
            return
        if record is None or record.error is None:
            return
        error = msgspec.to_builtins(record.error)
        if record.batch_id is not None:
            self._by_batch[record.batch_id] = error
        elif record.sent_ms is not None:
            errors = self._of_refused.setdefault(record.sent_ms, [])
            if error not in errors:
                errors.append(error)

    def of(self, body: str, sent_at_ms: int) -> dict[str, Any] | None:
        """The error of a message.

        It is found by the batch id, else by when the message was sent, if nothing else of then was refused, else it is
        what ended every invocation that Lambda ended since then, if that is one and the same cause.
        """
        try:
            asked = json.loads(body)
        except ValueError:
            asked = None
        batch_id = asked.get("batch_id") if isinstance(asked, Mapping) else None
        if isinstance(batch_id, str) and batch_id in self._by_batch:
            return self._by_batch[batch_id]
        refused = self._of_refused.get(sent_at_ms, [])
        if refused:
            return refused[0] if len(refused) == 1 else None
        causes = {(code, message) for timestamp_ms, code, message in self._ended if timestamp_ms >= sent_at_ms}
        if len(causes) != 1:
            return None
        ((code, message),) = causes
        return {"code": code, "message": f"{message} (so ended every invocation that failed since it was sent)"}


def read_logged_errors(aws: Aws, log_group: str, since_ms: int) -> LoggedErrors:
    """Reads the records of messages and the lines of invocations that failed.

    FilterLogEvents costs nothing, other than Logs Insights.

    Raises:
        AccessError: the log cannot be read.
    """
    found = LoggedErrors()
    with access_errors(f"log group {log_group}"):
        for pattern in (_RECORDS, _FAILURES):
            pages = aws.logs.get_paginator("filter_log_events").paginate(
                logGroupName=log_group, startTime=since_ms, filterPattern=pattern
            )
            for page in islice(pages, _LOG_PAGES):
                for event in page["events"]:
                    found.add(event["message"], event["timestamp"])
    return found
