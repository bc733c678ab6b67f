"""Writing one object to S3: by one call, or in parts of which several are under way at once."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

import generator
from botocore.exceptions import BotoCoreError, ClientError
from errors import UploadError, printable
from request import MIB, Request

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

# The same in Go, see src/go/s3ingest/internal/s3ingest/uploader.go.
MOST_PARALLEL = 16
RESERVE_MS = 3000  # kept for aborting the upload and for the record
THROTTLES = ("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException")

_NO_ANSWER = "no valid answer from S3"


@dataclass(slots=True)
class Transfer:
    """What was done for one object so far."""

    generate_ns: int = 0
    upload_ns: int = 0
    part_ns: list[int] = field(default_factory=list)
    sends: int = 0
    calls: int = 0
    throttles: int = 0
    object_bytes: int | None = None
    events_generated: int = 0
    parts: int = 0
    upload_left: bool | None = None

    def summary(self) -> dict[str, Any]:
        """Show the transfer as the log record does; None is what is not there. Without an object nothing is counted."""
        whole = self.object_bytes is not None
        return {
            "latency_ms": milliseconds(self.upload_ns),
            "generate_ms": milliseconds(self.generate_ns),
            "events_generated": self.events_generated if whole else None,
            "object_bytes": self.object_bytes,
            "multipart_parts": self.parts if whole else None,
            "part_ms": _quantiles(self.part_ns),
            "s3_requests": self.sends,
            "sdk_retries": max(self.sends - self.calls, 0),  # a call may fail before anything is sent
            "throttles": self.throttles,
            "upload_left": self.upload_left,
        }


class Target(TypedDict):
    """Where an object goes, as the SDK names it."""

    Bucket: str
    Key: str


class Uploader:
    """Writes objects to S3, one at a time."""

    def __init__(self, client: "S3Client") -> None:
        self._client = client
        self._threads = ThreadPoolExecutor(MOST_PARALLEL)  # it starts them when the first work comes
        self._lock = threading.Lock()
        self._transfer = Transfer()
        # The SDK emits these once per attempt, also of a call that it retries.
        client.meta.events.register("before-send.s3", self._count_send)
        client.meta.events.register("response-received.s3", self._count_throttle)

    def upload(
        self, request: Request, bucket: str, key: str, transfer: Transfer, *, remaining_ms: Callable[[], int]
    ) -> None:
        """Generate and write one object, noting in `transfer` what was done also when it fails."""
        self._transfer = transfer
        if request.workload == "events":
            self._put(request, bucket, key)
        else:
            self._upload_parts(request, {"Bucket": bucket, "Key": key}, remaining_ms)

    def _put(self, request: Request, bucket: str, key: str) -> None:
        transfer = self._transfer
        with _timed(transfer, "generate_ns"):
            body = generator.events(request.seed, request.batch_events, request.event_bytes)
        with _timed(transfer, "upload_ns"), self._call("the object could not be put"):
            self._client.put_object(
                Bucket=bucket, Key=key, Body=body, ContentType="application/json", ChecksumAlgorithm="CRC32"
            )
        transfer.object_bytes, transfer.events_generated = len(body), request.batch_events

    def _upload_parts(self, request: Request, target: Target, remaining_ms: Callable[[], int]) -> None:
        """Take turns: generate as many parts as may be under way, then upload them; so neither disturbs the other."""
        transfer = self._transfer
        with _timed(transfer, "upload_ns"), self._call("the multipart upload could not be begun"):
            upload_id = self._client.create_multipart_upload(
                **target, ContentType="application/octet-stream", ChecksumAlgorithm="CRC32"
            )["UploadId"]
        done: list[CompletedPartTypeDef] = []
        part_bytes = request.multipart_mb * MIB
        starts = range(0, request.object_bytes, part_bytes)
        longest_ms = 0.0
        try:
            for first in range(0, len(starts), request.parallelism):
                if remaining_ms() < RESERVE_MS + longest_ms:
                    raise UploadError("OutOfTime", f"part {first + 1} could not be uploaded: the time was up")
                began_ns = time.perf_counter_ns()
                with _timed(transfer, "generate_ns"):
                    bodies = [
                        generator.part(request.seed, start, min(part_bytes, request.object_bytes - start))
                        for start in starts[first : first + request.parallelism]
                    ]
                with _timed(transfer, "upload_ns"):
                    done += self._upload_at_once(target, upload_id, first + 1, bodies)
                del bodies
                longest_ms = max(longest_ms, (time.perf_counter_ns() - began_ns) / 1e6)
            with _timed(transfer, "upload_ns"), self._call("the multipart upload could not be completed"):
                self._client.complete_multipart_upload(**target, UploadId=upload_id, MultipartUpload={"Parts": done})
        except Exception:
            transfer.upload_left = not self._abort(target, upload_id)
            raise
        transfer.object_bytes, transfer.parts = request.object_bytes, len(starts)

    def _upload_at_once(
        self, target: Target, upload_id: str, first: int, bodies: list[bytes]
    ) -> "list[CompletedPartTypeDef]":
        """Upload parts side by side. All are awaited, also after a failure: an abort would not stop one under way."""
        work = partial(self._upload_part, target, upload_id)
        running = [self._threads.submit(work, first + i, body) for i, body in enumerate(bodies)]
        failures = [failure for part in running if (failure := part.exception())]
        if failures:
            raise failures[0]
        return [part.result() for part in running]

    def _upload_part(self, target: Target, upload_id: str, number: int, body: bytes) -> "CompletedPartTypeDef":
        started_ns = time.perf_counter_ns()
        with self._call(f"part {number} could not be uploaded"):
            answer = self._client.upload_part(
                **target, UploadId=upload_id, PartNumber=number, Body=body, ChecksumAlgorithm="CRC32"
            )
        taken_ns = time.perf_counter_ns() - started_ns
        with self._lock:
            self._transfer.part_ns.append(taken_ns)
        found: CompletedPartTypeDef = {"PartNumber": number, "ETag": answer["ETag"]}
        if "ChecksumCRC32" in answer:
            found["ChecksumCRC32"] = answer["ChecksumCRC32"]
        return found

    def _abort(self, target: Target, upload_id: str) -> bool:
        """Abort an upload, so that its parts are not billed; say whether nothing of it is left."""
        with self._lock:
            self._transfer.calls += 1
        try:
            self._client.abort_multipart_upload(**target, UploadId=upload_id)
        except ClientError as error:
            return error.response["Error"]["Code"] == "NoSuchUpload"
        except BotoCoreError:
            return False
        return True

    @contextmanager
    def _call(self, what: str) -> Iterator[None]:
        """Count one call; an error of the SDK becomes ours."""
        with self._lock:
            self._transfer.calls += 1
        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            # Without a code in the answer the SDK puts the HTTP status in its place.
            reason = printable(code) if code[:1].isalpha() else _NO_ANSWER
            raise UploadError("UploadFailed", f"{what}: {reason}") from error
        except BotoCoreError as error:
            raise UploadError("UploadFailed", f"{what}: {_NO_ANSWER}") from error

    def _count_send(self, **_: object) -> None:
        with self._lock:
            self._transfer.sends += 1

    def _count_throttle(self, parsed_response: dict[str, Any] | None = None, **_: object) -> None:
        if parsed_response and parsed_response.get("Error", {}).get("Code") in THROTTLES:
            with self._lock:
                self._transfer.throttles += 1


@contextmanager
def _timed(transfer: Transfer, name: str) -> Iterator[None]:
    started_ns = time.perf_counter_ns()
    try:
        yield
    finally:
        setattr(transfer, name, getattr(transfer, name) + time.perf_counter_ns() - started_ns)


def _quantiles(part_ns: list[int]) -> dict[str, float] | None:
    """Nearest-rank quantiles: every value shown was measured. None without a value."""
    if not part_ns:
        return None
    ranked = sorted(part_ns)
    n = len(ranked)
    return {
        "n": n,
        "p50": milliseconds(ranked[(50 * n + 99) // 100 - 1]),
        "p95": milliseconds(ranked[(95 * n + 99) // 100 - 1]),
        "max": milliseconds(ranked[-1]),
    }


def milliseconds(ns: int) -> float:
    """Nanoseconds as milliseconds, to the microsecond."""
    return round(ns / 1e6, 3)
