"""What the lab knows of this scenario: what its functions write to S3, what they answer, and what that costs.

The functions' own contract is README.md; 1 MB is 1,048,576 bytes.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

import msgspec

from lambdalab.design.cells import LAB_FACTORS, Cell, Design, Level
from lambdalab.errors import StackError
from lambdalab.pricing.costs import BYTES_PER_GB, PriceSheet
from lambdalab.records.calls import Call, Outcome
from lambdalab.records.record_files import DAMAGED
from lambdalab.records.trials import Amount, Count
from lambdalab.scenario.base import CallScenario, Response, Volume
from lambdalab.settings_file import choose

MB: Final = 2**20
EVENTS: Final = "events"
BATCH: Final = "batch"
# What the functions take (src/python/s3_ingest/request.py); object_mb only whole here.
_RANGES: Final = {
    "batch_events": range(1, 1001),
    "event_bytes": range(256, 8193),
    "object_mb": range(5, 10_241),
    "multipart_mb": range(5, 513),
    "parallelism": range(1, 17),
}
_DEFAULTS: Final[dict[str, Level]] = {
    "batch_events": 1,
    "event_bytes": 1024,
    "object_mb": 100,
    "multipart_mb": 8,
    "parallelism": 1,
}
_OF_WORKLOAD: Final = {EVENTS: ("batch_events", "event_bytes"), BATCH: ("object_mb", "multipart_mb", "parallelism")}
_BASE_MB: Final = 96
"""Runtime, SDK and connections, without any part."""
_METRICS: Final = 5
"""Names in one good record: latency_ms, generate_ms, object_bytes, events_generated, cold_start_ms."""
_STORED_DAYS: Final = 2
"""A rule of one day (``ObjectRetentionDays``) is rounded up to the midnight that follows, UTC."""
_DAYS_OF_MONTH: Final = 30
_DELETED_AT_ONCE: Final = 1000
_ASSUMED_CALL_MS: Final = 60.0
_ASSUMED_MB_PER_S: Final = 40.0
_VCPU_MB: Final = 1769


class _PartTimes(msgspec.Struct):
    p50: Amount
    p95: Amount
    max: Amount


class _Fault(msgspec.Struct):
    code: str
    message: str


class _Answer(msgspec.Struct):
    """As much of an answer as is read (contracts/s3_record.schema.json)."""

    ok: bool
    is_cold_start: bool | None = None
    latency_ms: Amount | None = None
    generate_ms: Amount | None = None
    cold_start_ms: Amount | None = None
    events_generated: Count | None = None
    object_bytes: Count | None = None
    multipart_parts: Count | None = None
    part_ms: _PartTimes | None = None
    s3_requests: Count = 0
    sdk_retries: Count = 0
    throttles: Count = 0
    upload_left: bool | None = None
    s3_bucket: str | None = None
    s3_key: str | None = None
    error: _Fault | None = None


class S3Ingest(CallScenario):
    """Objects of many small events, or large ones in parts."""

    languages = ("python", "go")
    sources: Mapping[str, str] = {"python": "src/python/s3_ingest", "go": "src/go/s3ingest"}
    responses = (
        Response(measure="latency_ms", words="time in calls to S3", unit="ms"),
        Response(measure="upload_mb_per_s", words="rate of one upload", unit="MB/s", lower_is_better=False),
        Response(measure="generate_ms", words="time to make the data", unit="ms"),
    )
    volumes = (
        Volume(measure="objects", words="million objects", divisor=10**6, rate="objects/s", rate_divisor=1),
        Volume(measure="object_bytes", words="GB", divisor=BYTES_PER_GB, rate="MB/s", rate_divisor=MB),
        Volume(measure="events_generated", words="million events", divisor=10**6, rate="events/s", rate_divisor=1),
    )

    def deployed(self, variables: Mapping[str, str], tags: Mapping[str, str]) -> tuple[str, Mapping[str, Level | None]]:
        workload = variables.get("WORKLOAD", tags.get("workload"))
        label = tags.get("design", workload or "")
        if workload not in _OF_WORKLOAD:
            return label, {"WORKLOAD": None}
        found = {name: variables.get(name.upper(), tags.get(name, "")) for name in _OF_WORKLOAD[workload]}
        settings = {name: int(text) if re.fullmatch("[0-9]{1,9}", text) else None for name, text in found.items()}
        return label, {"workload": workload, **settings}

    def faults(self, design: Design, key: str) -> Iterator[tuple[str, object, str]]:
        workload = design.settings.get("workload")
        if workload not in _OF_WORKLOAD:
            yield f"{key}.settings.workload", workload, f"write {EVENTS} or {BATCH}"
            return
        known = _OF_WORKLOAD[str(workload)]
        for name, value in design.settings.items():
            if name == "workload":
                continue
            if name not in known:
                yield f"{key}.settings.{name}", value, choose(name, known)
            elif name in design.factors:
                yield f"{key}.settings.{name}", value, "leave it out here or in factors"
            else:
                yield from _range_faults(f"{key}.settings.{name}", name, value)
        for name, levels in design.factors.items():
            if name in LAB_FACTORS:
                continue
            if name not in known:
                yield f"{key}.factors.{name}", list(levels), choose(name, (*LAB_FACTORS, *known))
            for i, level in enumerate(levels if name in known else ()):
                yield from _range_faults(f"{key}.factors.{name}[{i}]", name, level)
        if workload == BATCH:
            yield from self._size_faults(design, key)

    def _size_faults(self, design: Design, key: str) -> Iterator[tuple[str, object, str]]:
        def most(name: str) -> int:
            levels = design.factors.get(name) or (_setting(design, {}, name),)
            return max((level for level in levels if isinstance(level, int)), default=0)

        smallest = min(level for level in (design.factors.get("object_mb") or (most("object_mb"),)) if _is_int(level))
        if int(smallest) < (part_mb := most("multipart_mb")):
            told = f"write at least multipart_mb, which is {part_mb}; S3 wants one whole part"
            yield f"{key}.object_mb", smallest, told

    def least_memory_mb(self, design: Design, cell: Cell) -> int:
        if design.settings["workload"] == EVENTS:
            return 128
        part_mb, parallelism = (int(_setting(design, cell.levels, name)) for name in ("multipart_mb", "parallelism"))
        return _BASE_MB + part_mb * (parallelism + 1)

    def event(self, design: Design, cell: Cell, *, run_id: str, seed: int) -> Mapping[str, object]:
        workload = str(design.settings["workload"])
        return {
            "run_id": run_id,
            "workload": workload,
            **{name: _setting(design, cell.levels, name) for name in _OF_WORKLOAD[workload]},
            "seed": seed,
            "reserved_concurrency": cell.reserved_concurrency or 0,
        }

    def read(self, answer: object) -> Outcome:
        try:
            found = msgspec.convert(answer, _Answer)
        except msgspec.ValidationError as error:
            return Outcome(measures={}, amounts={}, fault=f"the answer is none of this scenario: {error}")
        aborted = found.upload_left is not None  # one request of a failed upload, and that is free
        amounts = {
            "put_requests": max(found.s3_requests - aborted, 0),
            "sdk_retries": found.sdk_retries,
            "throttles": found.throttles,
            "stored_bytes": found.object_bytes or 0,
        }
        if not found.ok:
            said = "no error" if found.error is None else f"{found.error.code}: {found.error.message}"
            return Outcome(measures={}, amounts=amounts, fault=said, is_first=found.is_cold_start)
        parts, size, taken_ms = found.part_ms, found.object_bytes, found.latency_ms
        measures: dict[str, float | None] = {
            "latency_ms": taken_ms,
            "generate_ms": found.generate_ms,
            "cold_start_ms": found.cold_start_ms,
            "objects": 1,
            "object_bytes": size,
            "events_generated": found.events_generated or None,  # the workload batch has none
            "multipart_parts": found.multipart_parts,
            "part_p50_ms": None if parts is None else parts.p50,
            "part_p95_ms": None if parts is None else parts.p95,
            "part_max_ms": None if parts is None else parts.max,
            "upload_mb_per_s": size / MB / (taken_ms / 1000) if size and taken_ms else None,
            "sdk_retries": found.sdk_retries,
            "throttles": found.throttles,
        }
        return Outcome(measures=measures, amounts=amounts, is_first=found.is_cold_start)

    def ready(self, aws: Any, outputs: Mapping[str, str]) -> None:
        bucket = outputs.get("BucketName", "")
        try:
            aws.s3.head_bucket(Bucket=bucket)
        except aws.s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
                raise
            raise StackError(
                f"bucket {bucket}, to which the functions write, is not there", next_step="deploy the stack anew"
            ) from error

    def verify(self, aws: Any, design: Design, cell: Cell, calls: list[Call]) -> dict[str, bool]:
        asked = self.expected_amounts(design, cell.levels)
        parts = asked["put_requests"] - 2 if design.settings["workload"] == BATCH else 0
        answers = {call.call_id: found for call in calls if (found := _answer(call)) is not None}
        places = {(found.s3_bucket or "", (found.s3_key or "").rsplit("/", 1)[0]) for found in answers.values()}
        left = {key for bucket, folder in places if bucket for key, _ in _uploads(aws, bucket, f"{folder}/")}
        verified = {}
        for call_id, found in answers.items():
            if found.ok:
                size, etag_parts = _object(aws, found.s3_bucket, found.s3_key)
                whole = (size, etag_parts) == (asked["stored_bytes"], parts)
                said = (found.object_bytes, found.multipart_parts) == (size, etag_parts)
                verified[call_id] = whole and said and found.s3_key not in left
            elif found.s3_key in left:
                verified[call_id] = False
        return verified

    def remove(self, aws: Any, calls: list[Call]) -> None:
        keys: dict[str, list[str]] = {}
        for found in filter(None, map(_answer, calls)):
            if found.ok and found.s3_bucket and found.s3_key:
                keys.setdefault(found.s3_bucket, []).append(found.s3_key)
        for bucket, named in keys.items():
            for begin in range(0, len(named), _DELETED_AT_ONCE):
                objects = [{"Key": key} for key in named[begin : begin + _DELETED_AT_ONCE]]
                with suppress(aws.s3.exceptions.NoSuchBucket):  # of a stack that is gone
                    aws.s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})

    def orphans(
        self, aws: Any, outputs: Mapping[str, str], run_id: str, calls: list[Call], *, remove: bool
    ) -> list[str]:
        answers = [found for found in map(_answer, calls) if found is not None]
        buckets = {outputs.get("BucketName"), *(found.s3_bucket for found in answers)} - {None}
        known = {found.s3_key for found in answers}
        orphans = []
        for bucket in sorted(map(str, buckets)):
            for key, upload_id in [*_uploads(aws, bucket, f"{BATCH}/{run_id}/")]:
                if key in known:  # a finding of its call
                    continue
                orphans.append(f"the upload of {key} in bucket {bucket}")
                if remove:
                    aws.s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
        return orphans

    def costs_usd(self, sheet: PriceSheet, amounts: Mapping[str, int]) -> dict[str, Decimal | None]:
        if sheet.s3 is None:
            return {"requests": None, "storage": None}
        stored = Decimal(amounts.get("stored_bytes", 0)) / BYTES_PER_GB * _STORED_DAYS / _DAYS_OF_MONTH
        return {
            "requests": amounts.get("put_requests", 0) * sheet.s3.usd_per_million_puts / 10**6,
            "storage": stored * sheet.s3.usd_per_gb_month,
        }

    def monthly_usd(self, sheet: PriceSheet, designs: tuple[Design, ...]) -> dict[str, Decimal | None]:
        series = {(design.settings["workload"], cell.called) for design in designs for cell in design.cells}
        price = None if sheet.metrics is None else sheet.metrics.usd_per_metric_month
        return {"custom metrics": None if price is None else len(series) * _METRICS * price}

    def lab_usd(self, sheet: PriceSheet, *, calls: int, cells: int) -> Decimal | None:
        if sheet.s3 is None:
            return None
        return (calls * sheet.s3.usd_per_million_gets + cells * sheet.s3.usd_per_million_puts) / 10**6

    def expected_amounts(self, design: Design, levels: Mapping[str, Level]) -> Mapping[str, int]:
        def of(name: str) -> int:
            return int(_setting(design, levels, name))

        if design.settings["workload"] == EVENTS:
            return {"put_requests": 1, "stored_bytes": of("batch_events") * (of("event_bytes") + 1) - 1}
        parts = math.ceil(of("object_mb") / of("multipart_mb"))
        return {"put_requests": parts + 2, "stored_bytes": of("object_mb") * MB}

    def expected_ms(self, design: Design, levels: Mapping[str, Level], memory_mb: int) -> float:
        size_mb = self.expected_amounts(design, levels)["stored_bytes"] / MB
        return _ASSUMED_CALL_MS + size_mb / (_ASSUMED_MB_PER_S * min(1, memory_mb / _VCPU_MB)) * 1000

    def notes(self) -> tuple[str, ...]:
        return (
            "requests are all that were sent to S3, retries among them, but for aborts, which are free",
            (
                f"storage is that of {_STORED_DAYS} days of a {_DAYS_OF_MONTH}-day month: objects expire a day after "
                "they were written, and S3 rounds that up to the next midnight UTC; another ObjectRetentionDays costs "
                "more"
            ),
            (
                f"the {_METRICS} custom metrics of each function and workload are billed by the month, however many "
                "calls, and are not in the cost of a call"
            ),
        )

    def assumed(self) -> str:
        return (
            f"where nobody measured, a warm call is assumed to take {_ASSUMED_CALL_MS:g} ms and its bytes to go at "
            f"{_ASSUMED_MB_PER_S:g} MB/s with one vCPU ({_VCPU_MB:,} MB of memory), in proportion with less"
        )


def _setting(design: Design, levels: Mapping[str, Level], name: str) -> Level:
    return levels.get(name, design.settings.get(name, _DEFAULTS[name]))


def _range_faults(key: str, name: str, value: Level) -> Iterator[tuple[str, object, str]]:
    allowed = _RANGES[name]
    if not _is_int(value) or value not in allowed:
        yield key, value, f"write a number from {allowed[0]} to {allowed[-1]}"


def _is_int(value: Level) -> bool:
    return isinstance(value, int)


def _answer(call: Call) -> _Answer | None:
    if call.function_error is not None:
        return None
    try:
        return msgspec.json.decode(call.answer, type=_Answer)
    except DAMAGED:
        return None


def _object(aws: Any, bucket: str | None, key: str | None) -> tuple[int | None, int | None]:
    """Size and number of parts of an object, which the end of its ETag tells; None of both when it is not there."""
    try:
        found = aws.s3.head_object(Bucket=bucket, Key=key)
    except aws.s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
            raise
        return None, None
    parts = found["ETag"].strip('"').partition("-")[2]
    return found["ContentLength"], int(parts) if parts else 0


def _uploads(aws: Any, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Keys and ids of uploads in parts that were neither completed nor aborted; none where there is no bucket."""
    try:
        for page in aws.s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
            yield from ((upload["Key"], upload["UploadId"]) for upload in page.get("Uploads", ()))
    except aws.s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise


SCENARIO: Final[CallScenario] = S3Ingest()
