"""The scenario s3-ingest: what is asked, what is read out of answers, what is found of them, and what that costs."""

import re
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError
from samples import ROOT

from lambdalab.design.cells import Cell, Design
from lambdalab.errors import StackError
from lambdalab.planning.call_protocol import load_protocol, schedule
from lambdalab.pricing.costs import load_price_sheet
from lambdalab.records.calls import Call
from lambdalab.scenario.found import call_scenario

FOLDER = Path(__file__).parents[1]
SCENARIO = call_scenario("s3-ingest")
MB = 2**20
EVENTS = Design(label="e", invocations=2, factors={"language": ("go",)}, settings={"workload": "events"})
BATCH = msgspec.structs.replace(EVENTS, label="b", settings={"workload": "batch", "object_mb": 20})
PRICED = load_price_sheet(ROOT / "prices" / "us-east-1.toml")
BUCKET = "lambdalab-objects"


def cell(design: Design, **levels: int | str) -> Cell:
    return Cell(design=design.label, levels={"language": "go", **levels})


def answer(**changes: Any) -> dict[str, Any]:
    """As the functions give it (contracts/s3_record.schema.json)."""
    good = {
        "ok": True, "lang": "go", "run_id": "r", "request_id": "1", "workload": "batch", "seed": 1,
        "latency_ms": 500.0, "generate_ms": 30.5, "events_generated": 0, "object_bytes": 20 * MB,
        "multipart_parts": 3, "part_ms": {"n": 3, "p50": 100.0, "p95": 200.0, "max": 200.0},
        "s3_requests": 6, "sdk_retries": 1, "throttles": 1, "is_cold_start": False,
        "ts_start_ms": 1, "ts_end_ms": 2, "s3_bucket": BUCKET, "s3_key": "batch/r/1.bin",
    }  # fmt: skip
    return {name: value for name, value in (good | changes).items() if value is not None}


def failed(**changes: Any) -> dict[str, Any]:
    return answer(
        ok=False, failed=1, upload_left=False, object_bytes=None, multipart_parts=None, events_generated=None,
        error={"code": "UploadFailed", "message": "part 2 could not be uploaded: AccessDenied"}, **changes,
    )  # fmt: skip


def call(number: int, content: object) -> Call:
    raw = msgspec.Raw(msgspec.json.encode(content))
    return Call(call_id=f"c{number}", block=1, cell="b", sent_at_ms=1, elapsed_ms=1.0, answer=raw)


# what there is


def test_ranges_and_memory_are_those_of_the_functions() -> None:
    text = (FOLDER / "src/python/s3_ingest/request.py").read_text()
    found = re.findall(r'^    "(\w+)": \((\d+), (\d+)\),', text, re.MULTILINE)
    assert {"batch_events", "event_bytes", "multipart_mb", "parallelism"} <= {name for name, _, _ in found}
    for name, low, high in found:
        if name in ("batch_events", "event_bytes", "multipart_mb", "parallelism"):
            design = msgspec.structs.replace(
                EVENTS, settings={"workload": "events" if "event" in name else "batch", "object_mb": 10_240}
            )
            design.settings.pop("object_mb") if "event" in name else None
            outside = msgspec.structs.replace(
                design, factors=design.factors | {name: (int(low), int(low) - 1, int(high) + 1)}
            )
            assert [value for _, value, _ in SCENARIO.faults(outside, "d")] == [int(low) - 1, int(high) + 1], name
    assert "BASE_MB = 96" in text
    assert SCENARIO.least_memory_mb(BATCH, cell(BATCH, multipart_mb=8, parallelism=3)) == 96 + 8 * 4


def test_the_metrics_are_those_of_the_record() -> None:
    text = (FOLDER / "src/python/s3_ingest/record.py").read_text()
    units = text[text.index("_UNITS = {") : text.index("}")]
    names = len(re.findall(r'^    "\w+":', units, re.MULTILINE))
    (monthly,) = SCENARIO.monthly_usd(PRICED, (EVENTS,)).values()
    assert PRICED.metrics is not None
    assert monthly == names * PRICED.metrics.usd_per_metric_month


# what is asked


@pytest.mark.parametrize("name", ["s3-ingest", "s3-ingest-full"])
def test_the_functions_take_every_event_of_the_protocols(name: str) -> None:
    fields = {
        "events": {"run_id", "workload", "batch_events", "event_bytes", "seed", "reserved_concurrency"},
        "batch": {"run_id", "workload", "object_mb", "multipart_mb", "parallelism", "seed", "reserved_concurrency"},
    }
    protocol = load_protocol(name)
    for planned in schedule(msgspec.structs.replace(protocol, blocks=1), 5):
        event = SCENARIO.event(planned.design, planned.cell, run_id="20260101-000000-s3-ingest-0000", seed=7)
        assert set(event) == fields[str(event["workload"])], "all of it, so that the stack's own settings do not matter"
        assert all(event.get(name, level) == level for name, level in planned.cell.levels.items())
        assert event["seed"] == 7


def test_amounts_follow_from_what_is_asked() -> None:
    assert SCENARIO.expected_amounts(EVENTS, {"batch_events": 10}) == {"put_requests": 1, "stored_bytes": 10_249}
    assert SCENARIO.expected_amounts(BATCH, {"multipart_mb": 8}) == {"put_requests": 5, "stored_bytes": 20 * MB}
    hundred = msgspec.structs.replace(BATCH, settings={"workload": "batch"})
    parts = {mb: SCENARIO.expected_amounts(hundred, {"multipart_mb": mb})["put_requests"] - 2 for mb in (8, 32, 64)}
    assert parts == {8: 13, 32: 4, 64: 2}


# what is read


def test_an_answer_is_measured() -> None:
    found = SCENARIO.read(answer(cold_start_ms=12.0))
    assert found.fault is None
    assert found.measures == {
        "latency_ms": 500.0, "generate_ms": 30.5, "cold_start_ms": 12.0, "objects": 1, "object_bytes": 20 * MB,
        "events_generated": None, "multipart_parts": 3, "part_p50_ms": 100.0, "part_p95_ms": 200.0,
        "part_max_ms": 200.0, "upload_mb_per_s": 40.0, "sdk_retries": 1, "throttles": 1,
    }  # fmt: skip
    assert found.amounts == {"put_requests": 6, "sdk_retries": 1, "throttles": 1, "stored_bytes": 20 * MB}
    assert {response.measure for response in SCENARIO.responses} <= set(found.measures)
    assert {volume.measure for volume in SCENARIO.volumes} <= set(found.measures)


def test_a_failure_is_a_fault_and_its_requests_are_billed_but_for_the_abort() -> None:
    found = SCENARIO.read(failed())
    assert found.fault == "UploadFailed: part 2 could not be uploaded: AccessDenied"
    assert found.measures == {}
    assert found.amounts == {"put_requests": 5, "sdk_retries": 1, "throttles": 1, "stored_bytes": 0}


@pytest.mark.parametrize("odd", [None, [], "text", {}, {"ok": "yes"}, answer(latency_ms=-1), answer(s3_requests=0.5)])
def test_what_is_no_answer_is_a_fault(odd: object) -> None:
    found = SCENARIO.read(odd)
    assert found.fault is not None
    assert found.fault.startswith("the answer is none of this scenario: ")
    assert (found.measures, found.amounts) == ({}, {})


# what is found


class Bucket:
    """S3 as far as it is asked here: objects by key as size and ETag, and uploads that were left."""

    exceptions = SimpleNamespace(ClientError=ClientError, NoSuchBucket=type("NoSuchBucket", (ClientError,), {}))

    def __init__(self) -> None:
        self.objects = {"batch/r/1.bin": (20 * MB, '"abc-3"')}
        self.left: list[str] = []
        self.refuses: str | None = None

    def head_object(self, **asked: str) -> dict[str, Any]:
        if asked["Bucket"] != BUCKET:
            raise ClientError({"Error": {"Code": "404", "Message": ""}}, "HeadObject")
        if self.refuses or asked["Key"] not in self.objects:
            raise ClientError({"Error": {"Code": self.refuses or "404", "Message": ""}}, "HeadObject")
        size, etag = self.objects[asked["Key"]]
        return {"ContentLength": size, "ETag": etag}

    def head_bucket(self, **asked: str) -> None:
        if asked["Bucket"] != BUCKET:
            raise ClientError({"Error": {"Code": "404", "Message": ""}}, "HeadBucket")

    def get_paginator(self, operation: str) -> Any:
        assert operation == "list_multipart_uploads"
        return SimpleNamespace(paginate=self._pages)

    def _pages(self, **asked: str) -> list[dict[str, Any]]:
        if asked["Bucket"] != BUCKET:
            raise self.gone("ListMultipartUploads")
        left = [key for key in self.left if key.startswith(asked["Prefix"])]
        return [{}, {"Uploads": [{"Key": key, "UploadId": f"id-{key}"} for key in left]}]

    def abort_multipart_upload(self, **asked: str) -> None:
        assert (asked["Bucket"], asked["UploadId"]) == (BUCKET, f"id-{asked['Key']}")
        self.left.remove(asked["Key"])

    def gone(self, operation: str) -> ClientError:
        error: ClientError = self.exceptions.NoSuchBucket({"Error": {"Code": "NoSuchBucket", "Message": ""}}, operation)
        return error

    def delete_objects(self, **asked: Any) -> None:
        if asked["Bucket"] != BUCKET:
            raise self.gone("DeleteObjects")
        for named in asked["Delete"]["Objects"]:
            del self.objects[named["Key"]]


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def verify(bucket: Bucket, *answers: object) -> dict[str, bool]:
    of = cell(BATCH, multipart_mb=8)
    return SCENARIO.verify(SimpleNamespace(s3=bucket), BATCH, of, [call(i, one) for i, one in enumerate(answers)])


def test_an_object_is_there_exactly_as_asked_and_as_said(bucket: Bucket) -> None:
    assert verify(bucket, answer()) == {"c0": True}


@pytest.mark.parametrize(
    "stored", [(20 * MB - 1, '"abc-3"'), (20 * MB, '"abc-4"'), (20 * MB, '"abc"'), (19 * MB, '"abc-3"'), None]
)
def test_an_object_that_is_not_as_asked_is_not_found(bucket: Bucket, stored: tuple[int, str] | None) -> None:
    bucket.objects = {} if stored is None else {"batch/r/1.bin": stored}
    assert verify(bucket, answer()) == {"c0": False}


def test_a_function_that_writes_too_little_and_says_so_is_not_believed(bucket: Bucket) -> None:
    bucket.objects["batch/r/1.bin"] = (19 * MB, '"abc-3"')
    assert verify(bucket, answer(object_bytes=19 * MB)) == {"c0": False}
    assert verify(bucket, answer(object_bytes=20 * MB, multipart_parts=2)) == {"c0": False}


def test_a_failed_call_is_looked_at_for_what_it_left(bucket: Bucket) -> None:
    assert verify(bucket, failed(s3_key="batch/r/2.bin"), None, {"odd": 1}) == {}
    bucket.left = ["batch/r/2.bin", "batch/another/3.bin"]
    assert verify(bucket, failed(s3_key="batch/r/2.bin"), answer()) == {"c0": False, "c1": True}


@pytest.mark.parametrize("remove", [False, True])
@pytest.mark.parametrize("outputs", [{"BucketName": BUCKET}, {}])  # without a stack by what others answered
def test_what_a_call_left_that_never_answered_is_found_by_its_run(
    bucket: Bucket, outputs: dict[str, str], remove: bool
) -> None:
    mine, others = ["batch/r/2.bin", "batch/r/3.bin"], ["batch/r1/4.bin", "batch/r/1.bin"]
    bucket.left = [*mine, *others]
    timed_out = msgspec.structs.replace(call(2, {"errorMessage": "timed out"}), function_error="Unhandled")
    found = SCENARIO.orphans(SimpleNamespace(s3=bucket), outputs, "r", [call(1, failed()), timed_out], remove=remove)
    assert found == [f"the upload of {key} in bucket {BUCKET}" for key in mine]
    assert bucket.left == (others if remove else [*mine, *others])


def test_of_a_bucket_that_is_gone_nothing_is_found_and_nothing_removed(bucket: Bucket) -> None:
    elsewhere = answer(s3_bucket="gone")
    assert verify(bucket, elsewhere) == {"c0": False}
    SCENARIO.remove(SimpleNamespace(s3=bucket), [call(0, elsewhere), call(1, answer())])
    assert bucket.objects == {}


def test_a_refusal_is_no_absence(bucket: Bucket) -> None:
    bucket.refuses = "403"
    with pytest.raises(ClientError):
        verify(bucket, answer())


def test_an_object_of_events_has_no_parts(bucket: Bucket) -> None:
    bucket.objects = {"events/r/1.jsonl": (10_249, '"abc"')}
    good = answer(s3_key="events/r/1.jsonl", object_bytes=10_249, multipart_parts=0)
    of = cell(EVENTS, batch_events=10)
    assert SCENARIO.verify(SimpleNamespace(s3=bucket), EVENTS, of, [call(0, good)]) == {"c0": True}


def test_only_the_calls_own_objects_are_removed(bucket: Bucket) -> None:
    bucket.objects["batch/other/9.bin"] = (1, '"a"')
    SCENARIO.remove(SimpleNamespace(s3=bucket), [call(0, answer()), call(1, failed()), call(2, None)])
    assert list(bucket.objects) == ["batch/other/9.bin"]


def test_a_bucket_that_is_not_there_is_said(bucket: Bucket) -> None:
    SCENARIO.ready(SimpleNamespace(s3=bucket), {"BucketName": BUCKET})
    with pytest.raises(StackError, match="bucket gone, to which the functions write, is not there; deploy the stack"):
        SCENARIO.ready(SimpleNamespace(s3=bucket), {"BucketName": "gone"})


# what it costs


def test_costs_by_hand() -> None:
    found = SCENARIO.costs_usd(PRICED, {"put_requests": 15, "stored_bytes": 2**30})
    assert found == {"requests": Decimal("0.000075"), "storage": Decimal(2) / 30 * Decimal("0.023")}
    assert SCENARIO.monthly_usd(PRICED, (EVENTS, BATCH)) == {"custom metrics": Decimal("3.00")}
    assert SCENARIO.lab_usd(PRICED, calls=10, cells=2) == Decimal("0.000014")


def test_what_has_no_price_costs_none_and_not_nothing() -> None:
    unpriced = msgspec.structs.replace(PRICED, s3=None, metrics=None)
    assert SCENARIO.costs_usd(unpriced, {"put_requests": 15}) == {"requests": None, "storage": None}
    assert SCENARIO.monthly_usd(unpriced, (EVENTS,)) == {"custom metrics": None}
    assert SCENARIO.lab_usd(unpriced, calls=1, cells=1) is None
