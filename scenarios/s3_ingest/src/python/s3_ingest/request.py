"""What one invocation is asked for: defaults, then the environment, then the event, all held to the same rules."""

import math
import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from errors import UploadError, printable

# The same in Go, see src/go/s3ingest/internal/s3ingest/request.go.
MIB = 1024 * 1024
WORKLOADS = ("events", "batch")
RANGES = {
    "batch_events": (1, 1000),
    "event_bytes": (256, 8192),
    "multipart_mb": (5, 512),  # S3's least; more than 512 fits no test
    "parallelism": (1, 16),
    "seed": (0, 2**53 - 1),  # what every reader of JSON keeps exactly
    "reserved_concurrency": (0, 99_999),
}
MAX_OBJECT_MB = 10_240  # at most 2,048 parts; S3 allows 10,000
BASE_MB = 96  # runtime, SDK and connections, without any part
DEFAULTS: dict[str, Any] = {
    "workload": "events",
    "batch_events": 1,
    "event_bytes": 1024,
    "object_mb": 100,
    "multipart_mb": 8,
    "parallelism": 1,
    "reserved_concurrency": 0,
}
FIELDS = ("run_id", "workload", *RANGES, "object_mb")

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_INTEGER = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Request:
    """One accepted invocation."""

    workload: str
    batch_events: int
    event_bytes: int
    object_bytes: int
    multipart_mb: int
    parallelism: int
    seed: int
    reserved_concurrency: int


def run_id_of(event: object, started_ms: int) -> str:
    """Take the caller's run id, also of an event that will be refused for something else; else make one."""
    given = event.get("run_id") if isinstance(event, dict) else None
    if isinstance(given, str) and _RUN_ID.fullmatch(given):
        return given
    alphabet = string.ascii_lowercase + string.digits
    return f"run_{started_ms}_{''.join(secrets.choice(alphabet) for _ in range(6))}"


def parse_bucket(environment: Mapping[str, str]) -> str:
    """Read the bucket, which an event cannot change."""
    bucket = environment.get("OUTPUT_BUCKET", "")
    if not bucket:
        raise UploadError("MissingSetting", "OUTPUT_BUCKET is not set: it must name the bucket", "OUTPUT_BUCKET")
    if not _BUCKET.fullmatch(bucket):
        raise UploadError("InvalidValue", "OUTPUT_BUCKET must be the name of a bucket", "OUTPUT_BUCKET")
    return bucket


def parse_request(event: object, environment: Mapping[str, str]) -> Request:
    """Check everything that can be known before the first upload."""
    if not isinstance(event, dict):
        raise UploadError("InvalidEvent", "event must be a JSON object")
    unknown = event.keys() - FIELDS
    if unknown:
        name = printable(min(unknown))
        known = ", ".join(FIELDS)
        raise UploadError("UnknownField", f"{name} is not a field of the event; the fields are {known}", name)
    run_id = event.get("run_id", "none")
    rule = "run_id must be a string of 1 to 128 characters from A-Z a-z 0-9 . _ : - that begins with a letter or digit"
    if not isinstance(run_id, str):
        raise UploadError("InvalidType", rule, "run_id")
    if not _RUN_ID.fullmatch(run_id):
        raise UploadError("InvalidValue", rule, "run_id")
    given = _Given(event, environment)
    workload = given.workload()
    numbers = {name: given.integer(name, *RANGES[name]) for name in RANGES}
    object_mb = given.object_mb()
    request = Request(workload=workload, object_bytes=int(object_mb * MIB), **numbers)
    if workload == "batch":
        _check_batch(request, environment)
    return request


def _check_batch(request: Request, environment: Mapping[str, str]) -> None:
    if request.object_bytes < request.multipart_mb * MIB:
        raise UploadError("InvalidValue", "object_mb must be at least multipart_mb", "object_mb")
    memory_mb = int(environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "0"))
    needed_mb = BASE_MB + request.multipart_mb * (request.parallelism + 1)
    if memory_mb and needed_mb > memory_mb:
        rule = (
            f"{request.parallelism} parts of {request.multipart_mb} MB at once need {needed_mb} MB of memory and the "
            f"function has {memory_mb}; lower multipart_mb or parallelism, or give it more"
        )
        raise UploadError("InvalidValue", rule, "multipart_mb")


class _Given:
    """The value of a setting and the name it was given by: the event's, or the variable's."""

    def __init__(self, event: dict[str, Any], environment: Mapping[str, str]) -> None:
        self._event, self._environment = event, environment

    def _find(self, name: str, pattern: re.Pattern[str], read: Any) -> tuple[Any, str]:
        if name in self._event:
            return self._event[name], name
        text = self._environment.get(name.upper(), "")
        if text:
            return (read(text) if pattern.fullmatch(text) else text), name.upper()
        return DEFAULTS[name] if name in DEFAULTS else secrets.randbelow(RANGES[name][1]), name

    def workload(self) -> str:
        value, name = self._find("workload", re.compile(".*", re.DOTALL), str)
        if not isinstance(value, str):
            raise UploadError("InvalidType", f"{name} must be events or batch", name)
        if value not in WORKLOADS:
            raise UploadError("InvalidValue", f"{name} must be events or batch", name)
        return value

    def integer(self, name: str, least: int, most: int) -> int:
        value, name = self._find(name, _INTEGER, int)
        rule = f"{name} must be an integer from {least} to {most}"
        if type(value) is not int:  # a bool is an int to isinstance
            raise UploadError("InvalidType", rule, name)
        if not least <= value <= most:
            raise UploadError("InvalidValue", rule, name)
        return value

    def object_mb(self) -> float:
        value, name = self._find("object_mb", _NUMBER, float)
        rule = f"{name} must be a number from 5 to {MAX_OBJECT_MB}"
        if type(value) not in (int, float) or not math.isfinite(value):
            raise UploadError("InvalidType", rule, name)
        if not RANGES["multipart_mb"][0] <= value <= MAX_OBJECT_MB:
            raise UploadError("InvalidValue", rule, name)
        return float(value)
