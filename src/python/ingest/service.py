"""From event to answer: which messages an event holds, and what is said about each."""

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

from errors import IngestError
from message import Message, is_unicode, parse_text, parse_value
from record import emit
from writer import LANG, Batch, Writer

_MOST_DIGITS = 18  # every such number fits 64 bits


class Context(Protocol):
    """The part of the Lambda context that is used."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Until the invocation times out."""


class Service:
    """Answers the events of one execution environment, one at a time."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._cold_start = True

    def answer(self, event: object, context: Context) -> dict[str, Any]:
        """Answer an SQS event with the messages that failed, a direct event with its summary or error."""
        try:
            if not isinstance(event, dict) or "Records" not in event:
                return self._answer_direct(partial(parse_value, event), context)
            if not _is_sqs(event["Records"]):
                return self._answer_direct(_refuse_records, context)
            return self._answer_sqs(event["Records"], context)
        finally:
            self._cold_start = False  # every message of the first invocation is a cold one

    def _answer_sqs(self, records: list[dict[str, Any]], context: Context) -> dict[str, Any]:
        failures = []
        for record in records:
            attributes = record.get("attributes", {})
            summary = self._process(
                partial(parse_text, record.get("body", "")),
                context,
                receive_count=_whole_number(attributes.get("ApproximateReceiveCount")),
                sent_ms=_whole_number(attributes.get("SentTimestamp")),
            )
            if "error" in summary:
                failures.append({"itemIdentifier": record["messageId"]})
        return {"batchItemFailures": failures}

    def _answer_direct(self, parse: Callable[[], Message], context: Context) -> dict[str, Any]:
        summary = self._process(parse, context)
        return {"error": summary["error"]} if "error" in summary else summary

    def _process(
        self,
        parse: Callable[[], Message],
        context: Context,
        receive_count: int | None = None,
        sent_ms: int | None = None,
    ) -> dict[str, Any]:
        """Do the work of one message, log its record and return its summary. Nothing escapes as an exception."""
        started_ms = _epoch_ms()
        message = batch = error = error_type = None
        try:
            message = parse()
            batch = Batch()
            self._writer.write(
                message, batch, cold_start=self._cold_start, remaining_ms=context.get_remaining_time_in_millis
            )
        except IngestError as refusal:
            error = refusal.as_dict()
        except Exception as fault:
            error = {"code": "InternalError", "message": "internal error"}
            error_type = type(fault).__name__
        members = {
            "lang": LANG,
            "run_id": _run_id(message),
            "request_id": context.aws_request_id,
            **(asdict(message) if message else {}),
            **(batch.summary() if batch else {"rejected": 1}),
            "cold_start": self._cold_start,
            "receive_count": receive_count,
            "sent_ms": sent_ms,
            "started_ms": started_ms,
            "finished_ms": _epoch_ms(),
            "error": error,
            "error_type": error_type,
        }
        summary = {name: value for name, value in members.items() if value is not None}
        emit(summary)
        return summary


def _is_sqs(records: object) -> bool:
    return isinstance(records, list) and all(
        isinstance(record, dict)
        and record.get("eventSource") == "aws:sqs"
        and isinstance(record.get("messageId"), str)
        and record["messageId"] != ""
        and is_unicode(record["messageId"])
        and isinstance(record.get("body", ""), str)
        and isinstance(record.get("attributes", {}), dict)
        for record in records
    )


def _refuse_records() -> Message:
    raise IngestError("InvalidMessage", "Records must be the records of an SQS event")


def _run_id(message: Message | None) -> str | None:
    """Take what stands before the first colon of the batch id, where the lab puts its run id."""
    run_id, colon, _ = message.batch_id.partition(":") if message else ("", "", "")
    return run_id if run_id and colon else None


def _whole_number(text: object) -> int | None:
    """Read what SQS writes as text; longer ones are none of its numbers."""
    if isinstance(text, str) and len(text) <= _MOST_DIGITS and text.isascii() and text.isdecimal():
        return int(text)
    return None


def _epoch_ms() -> int:
    return time.time_ns() // 1_000_000
