"""Why messages failed: what their function logged of each, found by what tells messages apart there."""

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from lambdalab.aws import Aws, access_errors
from lambdalab.platform_log import MalformedRecordError, parse_record

_LOG_PAGES: Final = 20


class LoggedErrors:
    """The errors a function logged, by what tells its messages apart: there is no message id (docs/contracts.md)."""

    def __init__(self) -> None:
        self._by_batch: dict[str, dict[str, Any]] = {}
        self._of_refused: dict[int, list[dict[str, Any]]] = {}

    def add(self, line: str) -> None:
        """Takes in one line of the log, if it is the record of a message that failed."""
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
        """The error of a message: by its batch id, else by when it was sent, if nothing else was refused of then."""
        try:
            asked = json.loads(body)
        except ValueError:
            asked = None
        batch_id = asked.get("batch_id") if isinstance(asked, Mapping) else None
        if isinstance(batch_id, str) and batch_id in self._by_batch:
            return self._by_batch[batch_id]
        refused = self._of_refused.get(sent_at_ms, [])
        return refused[0] if len(refused) == 1 else None


def read_logged_errors(aws: Aws, log_group: str, since_ms: int) -> LoggedErrors:
    """Reads the records of messages that failed. FilterLogEvents costs nothing, other than Logs Insights.

    Raises:
        AccessError: the log cannot be read.
    """
    found = LoggedErrors()
    with access_errors(f"log group {log_group}"):
        pages = aws.logs.get_paginator("filter_log_events").paginate(
            logGroupName=log_group, startTime=since_ms, filterPattern='{ $.error.code = "*" }'
        )
        for page in islice(pages, _LOG_PAGES):
            for event in page["events"]:
                found.add(event["message"])
    return found
