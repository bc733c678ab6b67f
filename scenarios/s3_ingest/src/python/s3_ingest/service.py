"""From event to answer: the object that an event asks for, and what is said about it."""

import os
import time
import uuid
from typing import Any, Protocol

from errors import UploadError
from record import emit
from request import Request, parse_bucket, parse_request, run_id_of
from uploader import Transfer, Uploader, milliseconds

LANG = "python"
SUFFIXES = {"events": "jsonl", "batch": "bin"}


class Context(Protocol):
    """The part of the Lambda context that is used."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Until the invocation times out."""


class Service:
    """Answers the events of one execution environment, one at a time."""

    def __init__(self, uploader: Uploader, loaded_ns: int) -> None:
        self._uploader = uploader
        self._loaded_ns = loaded_ns
        self._cold_start = True

    def answer(self, event: object, context: Context) -> dict[str, Any]:
        """Do the work, log its record and return it. Nothing escapes as an exception."""
        cold_start, self._cold_start = self._cold_start, False
        cold_start_ms = milliseconds(time.perf_counter_ns() - self._loaded_ns) if cold_start else None
        started_ms = _epoch_ms()
        run_id = run_id_of(event, started_ms)
        bucket = key = request = transfer = error = error_type = None
        try:
            bucket = parse_bucket(os.environ)
            request = parse_request(event, os.environ)
            key = f"{request.workload}/{run_id}/{started_ms}-{uuid.uuid4().hex}.{SUFFIXES[request.workload]}"
            transfer = Transfer()
            self._uploader.upload(request, bucket, key, transfer, remaining_ms=context.get_remaining_time_in_millis)
        except UploadError as refusal:
            error = refusal.as_dict()
        except Exception as fault:
            error = {"code": "InternalError", "message": "internal error"}
            error_type = type(fault).__name__
        members = {
            "ok": error is None,
            "lang": LANG,
            "run_id": run_id,
            "request_id": context.aws_request_id,
            "function_name": os.environ.get("AWS_LAMBDA_FUNCTION_NAME"),
            "region": os.environ.get("AWS_REGION"),
            "memory_mb": int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "0")) or None,
            **(_factors(request) if request else {}),
            "ts_start_ms": started_ms,
            "ts_end_ms": _epoch_ms(),
            **(transfer.summary() if transfer else {}),
            "s3_bucket": bucket,
            "s3_key": key,
            "is_cold_start": cold_start,
            "cold_start_ms": cold_start_ms,
            "failed": None if error is None else 1,
            "error": error,
            "error_type": error_type,
        }
        summary = {name: value for name, value in members.items() if value is not None}
        emit(summary)
        return summary


def _factors(request: Request) -> dict[str, Any]:
    """Show the settings that decide what this workload does."""
    if request.workload == "events":
        own = {"batch_events": request.batch_events, "event_bytes": request.event_bytes}
    else:
        own = {"multipart_part_mb": request.multipart_mb, "parallelism": request.parallelism}
    return {
        "workload": request.workload,
        "reserved_concurrency": request.reserved_concurrency,
        **own,
        "seed": request.seed,
    }


def _epoch_ms() -> int:
    return time.time_ns() // 1_000_000
