"""Both S3 ingest functions, each with its real runtime client and SDK: against a scripted S3, and against the emulator.

Python and Go pass the same tests. What they write is compared byte for byte.
"""

import hashlib
import json
import lzma
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any, Final

import boto3
import pytest
from botocore.config import Config
from jsonschema import Draft202012Validator
from local.scripted_s3 import ScriptedS3
from local.support import PYTHON_RUNTIME, Machine, answer, go_spec, interpreter, python_spec, running
from local.whole import ROOT
from referencing import Registry, Resource

from lambdalab.build.deployment import go_variables
from lambdalab.local.function import FunctionSpec
from lambdalab.local.startup import start_emulator

FOLDER: Final = Path(__file__).parents[1]
LANGUAGES: Final = ("python", "go")
MIB: Final = 1024 * 1024
BUCKET: Final = "objects-of-tests"
PARTS_OF_100_MB: Final = {8: [8] * 12 + [4], 32: [32] * 3 + [4], 64: [64, 36]}
BAD: Final[dict[str, tuple[object, dict[str, str], str, str]]] = {
    "no bucket": ({}, {"OUTPUT_BUCKET": ""}, "MissingSetting", "OUTPUT_BUCKET is not set: it must name the bucket"),
    "no bucket's name": ({}, {"OUTPUT_BUCKET": "A B"}, "InvalidValue", "OUTPUT_BUCKET must be the name of a bucket"),
    "workload of a variable": ({}, {"WORKLOAD": "both"}, "InvalidValue", "WORKLOAD must be events or batch"),
    "number of a variable": (
        {},
        {"EVENT_BYTES": "1k"},
        "InvalidType",
        "EVENT_BYTES must be an integer from 256 to 8192",
    ),
}
BAD_EVENTS: Final[list[tuple[object, str, str]]] = [
    ([], "InvalidEvent", "event must be a JSON object"),
    (None, "InvalidEvent", "event must be a JSON object"),
    ({"workload": "both"}, "InvalidValue", "workload must be events or batch"),
    ({"workload": 1}, "InvalidType", "workload must be events or batch"),
    ({"batch_events": 0}, "InvalidValue", "batch_events must be an integer from 1 to 1000"),
    ({"batch_events": "10"}, "InvalidType", "batch_events must be an integer from 1 to 1000"),
    ({"batch_events": True}, "InvalidType", "batch_events must be an integer from 1 to 1000"),
    ({"batch_events": 1.0}, "InvalidType", "batch_events must be an integer from 1 to 1000"),
    ({"event_bytes": 255}, "InvalidValue", "event_bytes must be an integer from 256 to 8192"),
    ({"event_bytes": 10**40}, "InvalidValue", "event_bytes must be an integer from 256 to 8192"),
    ({"multipart_mb": 4}, "InvalidValue", "multipart_mb must be an integer from 5 to 512"),
    ({"parallelism": 17}, "InvalidValue", "parallelism must be an integer from 1 to 16"),
    ({"seed": -1}, "InvalidValue", f"seed must be an integer from 0 to {2**53 - 1}"),
    ({"object_mb": 4.99}, "InvalidValue", "object_mb must be a number from 5 to 10240"),
    ({"object_mb": "100"}, "InvalidType", "object_mb must be a number from 5 to 10240"),
    ({"run_id": "../up"}, "InvalidValue", "that begins with a letter or digit"),
    ({"run_id": 7}, "InvalidType", "that begins with a letter or digit"),
    ({"batchEvents": 1}, "UnknownField", "batchEvents is not a field of the event; the fields are run_id, workload"),
    ({"workload": "batch", "object_mb": 7.9}, "InvalidValue", "object_mb must be at least multipart_mb"),
    (
        {"workload": "batch", "multipart_mb": 64, "parallelism": 7},
        "InvalidValue",
        (
            "7 parts of 64 MB at once need 608 MB of memory and the function has 512; "
            "lower multipart_mb or parallelism, or give it more"
        ),
    ),
]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both functions as they are deployed: Python with what its requirements name, Go as one static program."""
    folder = tmp_path_factory.mktemp("packages")
    python, go = folder / "python", folder / "go"
    shutil.copytree(FOLDER / "src/python/s3_ingest", python, ignore=shutil.ignore_patterns("__pycache__"))
    install = [str(ROOT / ".venv/bin/uv"), "pip", "install", "--quiet", "--target", str(python)]
    install += ["--python", str(interpreter(PYTHON_RUNTIME)), "-r", str(python / "requirements.txt")]
    build = ["go", "build", "-o", str(go / "bootstrap"), "."]
    for command, where in ((install, ROOT), (build, FOLDER / "src/go/s3ingest")):
        done = subprocess.run(command, cwd=where, env=go_variables(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return {"python": python, "go": go}


@pytest.fixture
def s3() -> Iterator[ScriptedS3]:
    with scripted() as found:
        yield found


@contextmanager
def scripted(upstream: str | None = None) -> Iterator[ScriptedS3]:
    found = ScriptedS3(upstream)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real emulator with one bucket."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    daemon = start_emulator(port, tmp_path_factory.mktemp("emulator"))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        daemon.end(grace_s=2)


@pytest.fixture
def bucket(emulator: str) -> Iterator[Any]:
    """A client of the emulator's S3, with an empty bucket."""
    session = boto3.Session("key", "secret", region_name="eu-west-1")
    client = session.client("s3", endpoint_url=emulator, config=Config(s3={"addressing_style": "path"}))
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    yield client
    for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=found["Key"])
    client.delete_bucket(Bucket=BUCKET)
    client.close()


Specify = Callable[..., FunctionSpec]


@pytest.fixture
def specify(packages: dict[str, Path]) -> Specify:
    """The specification of a language's function that speaks to an S3."""

    def make(language: str, s3_url: str, memory_mb: int = 512, timeout_s: int = 30, **variables: str) -> FunctionSpec:
        create = python_spec if language == "python" else go_spec
        arguments = {"handler": "handler.handler"} if language == "python" else {}
        return create(
            package=packages[language],
            memory_mb=memory_mb,
            timeout_s=timeout_s,
            variables={"OUTPUT_BUCKET": BUCKET, "AWS_ENDPOINT_URL_S3": s3_url} | variables,
            **arguments,
        )

    return make


def records(lines: list[str]) -> list[dict[str, Any]]:
    """The function's own records among its log lines, each held to the rules of the format."""
    found = [json.loads(line) for line in lines if line.startswith("{")]
    for record in found:
        is_emf(record)
    return found


def is_emf(record: dict[str, Any]) -> None:
    emf = json.loads((ROOT / "contracts/emf.schema.json").read_text())
    own = json.loads((FOLDER / "contracts/s3_record.schema.json").read_text())
    for schema in (emf, own):
        Draft202012Validator.check_schema(schema)
    registry: Any = Registry().with_resource(own["$ref"], Resource.from_contents(emf))
    Draft202012Validator(own, registry=registry).validate(record)
    (directive,) = record["_aws"]["CloudWatchMetrics"]
    metrics = {metric["Name"] for metric in directive["Metrics"]}
    assert metrics
    assert all(type(record[name]) in (int, float) for name in metrics)
    for names in directive["Dimensions"]:
        assert all(1 <= len(record[name]) <= 1024 for name in names)
    whole = [name for name in ("workload", "function_name", "region") if name in record]
    of_function = [["function_name", "region"]] if metrics == {"failed"} and "workload" in record else []
    assert directive["Dimensions"] == [whole, *of_function], "an alarm watches the failures of a function"
    assert "run_id" in record
    assert record["_aws"]["Timestamp"] == record["ts_end_ms"] >= record["ts_start_ms"]


def said(record: dict[str, Any]) -> dict[str, Any]:
    """A record as the answer shows it."""
    return {name: value for name, value in record.items() if name != "_aws"}


@pytest.mark.parametrize("language", LANGUAGES)
async def test_events_are_joined_into_one_object_of_exact_size(
    language: str, machine: Machine, specify: Specify, emulator: str, bucket: Any
) -> None:
    async with running(machine, specify(language, emulator, EVENT_BYTES="1024", BATCH_EVENTS="10")) as function:
        for asked, size in (
            ({}, 10_249),
            ({"batch_events": 1}, 1024),
            ({"batch_events": 100}, 102_499),
            ({"batch_events": 100, "event_bytes": 256}, 25_699),
            ({"event_bytes": 8192}, 81_929),
        ):
            expected = {"batch_events": 10, "event_bytes": 1024} | asked
            row = answer(await function.invoke({"run_id": "a-run", **asked}))
            assert row["ok"], row
            object_ = bucket.get_object(Bucket=BUCKET, Key=row["s3_key"])
            body = object_["Body"].read()
            lines = body.split(b"\n")
            assert [len(line) for line in lines] == [expected["event_bytes"]] * expected["batch_events"]
            assert len(body) == row["object_bytes"] == size
            assert (row["events_generated"], row["multipart_parts"]) == (expected["batch_events"], 0)
            assert object_["ContentType"] == "application/json"
            workload, run_id, name = row["s3_key"].split("/")
            assert (workload, run_id) == ("events", "a-run")
            started_ms, unique = name.removesuffix(".jsonl").split("-")
            assert int(started_ms) == row["ts_start_ms"]
            assert len(bytes.fromhex(unique)) == 16
            for number, line in enumerate(lines):
                event = json.loads(line)
                assert list(event) == ["timestamp", "event_id", "source", "data", "padding"]
                assert event["data"] == {"sequence": number}
                assert event["event_id"].isalnum()
                assert len(event["event_id"]) == 16
    logged = records(function.lines)
    assert [said(record) for record in logged][-1] == row
    assert [record["is_cold_start"] for record in logged] == [True, False, False, False, False]
    assert ["cold_start_ms" in record for record in logged] == [True, False, False, False, False]
    assert {(record["s3_requests"], record["sdk_retries"], record["throttles"]) for record in logged} == {(1, 0, 0)}


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_setting_that_is_not_given_has_its_default(
    language: str, machine: Machine, specify: Specify, s3: ScriptedS3
) -> None:
    async with running(machine, specify(language, s3.url)) as function:
        rows = [answer(await function.invoke(event)) for event in ({}, {}, {"workload": "batch"})]
    defaults = {"workload": "events", "batch_events": 1, "event_bytes": 1024, "reserved_concurrency": 0}
    assert rows[0].items() >= (defaults | {"memory_mb": 512, "object_bytes": 1024}).items()
    large = {"multipart_part_mb": 8, "parallelism": 1, "object_bytes": 100 * MIB, "multipart_parts": 13}
    assert rows[2].items() >= large.items()
    for row in rows:
        assert re.fullmatch(rf"run_{row['ts_start_ms']}_[a-z0-9]{{6}}", row["run_id"])
    assert len({row["run_id"] for row in rows}) == len({row["seed"] for row in rows}) == len(rows)


async def test_both_languages_write_the_same_bytes_for_a_seed_however_they_are_cut(
    machine: Machine, specify: Specify, emulator: str, bucket: Any
) -> None:
    same = {"workload": "batch", "object_mb": 12.3, "seed": 7}
    asked: tuple[list[dict[str, Any]], ...] = (
        [same | {"multipart_mb": 5}, same | {"multipart_mb": 6, "parallelism": 3}],
        [{"batch_events": 100, "seed": 7}],
        [same | {"multipart_mb": 5, "seed": 8}],
    )
    seen: list[set[str]] = [set(), set(), set()]
    for language in LANGUAGES:
        async with running(machine, specify(language, emulator)) as function:
            for hashes, events in zip(seen, asked, strict=True):
                for event in events:
                    row = answer(await function.invoke(event))
                    assert row["ok"], row
                    body = bucket.get_object(Bucket=BUCKET, Key=row["s3_key"])["Body"].read()
                    assert len(body) == row["object_bytes"]
                    if event.get("workload") == "batch":
                        assert len(body) == int(12.3 * MIB)
                        assert row["multipart_parts"] == 3
                        assert row["s3_key"].startswith("batch/")
                        assert row["s3_key"].endswith(".bin")
                    hashes.add(hashlib.sha256(body).hexdigest())
    assert [len(hashes) for hashes in seen] == [1, 1, 1]
    assert seen[0] != seen[2]


@pytest.mark.parametrize("workload", ["batch", "events"])
async def test_a_whole_object_has_nothing_for_a_long_window_compressor(
    workload: str, machine: Machine, specify: Specify, emulator: str, bucket: Any
) -> None:
    event = {"workload": workload, "object_mb": 10, "multipart_mb": 5, "batch_events": 1000, "event_bytes": 8192}
    async with running(machine, specify("go", emulator)) as function:
        row = answer(await function.invoke(event))
    body = bucket.get_object(Bucket=BUCKET, Key=row["s3_key"])["Body"].read()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 64 * MIB}]
    ratio = len(lzma.compress(body, format=lzma.FORMAT_XZ, filters=filters)) / len(body)
    assert ratio >= (0.99 if workload == "batch" else 0.72), "text of letters and digits has six bits to a byte"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("part_mb", PARTS_OF_100_MB)
async def test_100_mb_are_cut_into_exact_parts(
    language: str, part_mb: int, machine: Machine, specify: Specify, s3: ScriptedS3
) -> None:
    spec = specify(language, s3.url, 1769, WORKLOAD="batch", MULTIPART_MB=str(part_mb), OBJECT_MB="100", SEED="1")
    async with running(machine, spec) as function:
        row = answer(await function.invoke({"parallelism": 3}))
    assert row["ok"], row
    assert [call.length for call in s3.of("Part")] == [size * MIB for size in PARTS_OF_100_MB[part_mb]]
    assert row["multipart_parts"] == len(s3.of("Part")) == row["part_ms"]["n"]
    assert row["object_bytes"] == 100 * MIB
    assert row["s3_requests"] == len(s3.calls) == row["multipart_parts"] + 2
    (completed,) = s3.of("Complete")
    numbers = [number + 1 for number in range(row["multipart_parts"])]
    assert [f"<PartNumber>{number}</PartNumber>".encode() in completed.body for number in numbers] == [True] * len(
        numbers
    )
    assert s3.most_at_once <= 3
    assert len({call.sha256 for call in s3.of("Part")}) == len(numbers)
    assert row["generate_ms"] > 0
    assert row["latency_ms"] > 0
    records(function.lines)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_parts_are_under_way_at_once_up_to_the_factor(
    language: str, machine: Machine, specify: Specify, s3: ScriptedS3
) -> None:
    s3.gathering = Barrier(3)  # the first would wait in vain for two more if they came one by one
    async with running(machine, specify(language, s3.url, 1769)) as function:
        row = answer(await function.invoke({"workload": "batch", "object_mb": 30, "multipart_mb": 5, "parallelism": 3}))
    assert row["ok"], row
    assert s3.most_at_once == 3


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_failed_part_aborts_and_leaves_nothing(
    language: str, machine: Machine, specify: Specify, emulator: str, bucket: Any
) -> None:
    event = {"run_id": "mine", "workload": "batch", "object_mb": 25, "multipart_mb": 5, "parallelism": 2, "seed": 3}
    with scripted(emulator) as s3:
        s3.faults = {("Part", 4): [(403, "AccessDenied")]}
        async with running(machine, specify(language, s3.url)) as function:
            row = answer(await function.invoke(event))
            assert row["error"] == {"code": "UploadFailed", "message": "part 4 could not be uploaded: AccessDenied"}
            assert (row["ok"], row["run_id"], row["upload_left"]) == (False, "mine", False)
            assert not {"object_bytes", "multipart_parts"} & row.keys()
            assert [call.part for call in s3.of("Part")] == [1, 2, 3, 4], "no round is begun after a failure"
            assert len(s3.of("Abort")) == 1
            assert not bucket.list_multipart_uploads(Bucket=BUCKET).get("Uploads")
            assert "Contents" not in bucket.list_objects_v2(Bucket=BUCKET)
            again = answer(await function.invoke(event))
            assert again["ok"], again
    failed, _ = records(function.lines)
    assert said(failed) == row
    assert "Traceback" not in function.text
    assert "goroutine" not in function.text


@pytest.mark.parametrize("language", LANGUAGES)
async def test_whatever_call_fails_the_row_says_which_and_what_is_left(
    language: str, machine: Machine, specify: Specify, s3: ScriptedS3
) -> None:
    batch = {"workload": "batch", "object_mb": 5, "multipart_mb": 5}
    denied = [(403, "AccessDenied")]
    cases: list[tuple[dict[str, Any], dict[tuple[str, int], list[tuple[int, str]]], str, object]] = [
        ({}, {("Put", 0): denied}, "the object could not be put: AccessDenied", None),
        ({}, {("Put", 0): [(404, "NoSuchBucket")]}, "the object could not be put: NoSuchBucket", None),
        (batch, {("Create", 0): denied}, "the multipart upload could not be begun: AccessDenied", None),
        (batch, {("Complete", 0): denied}, "the multipart upload could not be completed: AccessDenied", False),
        (batch, {("Part", 1): denied, ("Abort", 0): denied}, "part 1 could not be uploaded: AccessDenied", True),
        (batch, {("Part", 1): denied, ("Abort", 0): [(404, "NoSuchUpload")]}, "part 1 could not be", False),
        ({}, {("Put", 0): [(0, "")] * 3}, "the object could not be put: no valid answer from S3", None),
        ({}, {("Put", 0): [(403, "a<b>" + "c" * 99)]}, f"the object could not be put: a?b?{'c' * 60}", None),
    ]
    async with running(machine, specify(language, s3.url)) as function:
        for event, faults, message, left in cases:
            s3.faults = {call: list(answers) for call, answers in faults.items()}
            row = answer(await function.invoke(event))
            assert row["error"]["message"].startswith(message), row
            assert (row["ok"], row["error"]["code"], row.get("upload_left")) == (False, "UploadFailed", left)
    assert len(records(function.lines)) == len(cases)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_throttled_call_is_counted_and_sent_again(
    language: str, machine: Machine, specify: Specify, s3: ScriptedS3
) -> None:
    slow_down = (503, "SlowDown")
    async with running(machine, specify(language, s3.url)) as function:
        s3.faults = {("Part", 2): [slow_down, slow_down]}
        row = answer(await function.invoke({"workload": "batch", "object_mb": 11, "multipart_mb": 5}))
        assert row["ok"], row
        assert (row["throttles"], row["sdk_retries"], row["s3_requests"]) == (2, 2, 7)
        assert [call.length for call in s3.of("Part")] == [5 * MIB] * 4 + [MIB]
        assert len({call.sha256 for call in s3.of("Part") if call.part == 2}) == 1
        s3.faults = {("Put", 0): [slow_down] * 3}
        row = answer(await function.invoke({}))
    assert row["error"]["message"] == "the object could not be put: SlowDown"
    assert (row["throttles"], row["sdk_retries"], row["s3_requests"]) == (3, 2, 3)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_bad_input_is_refused_before_anything_is_sent(
    language: str, machine: Machine, specify: Specify, s3: ScriptedS3
) -> None:
    async with running(machine, specify(language, s3.url)) as function:
        for event, code, message in BAD_EVENTS:
            row = answer(await function.invoke(event))
            assert (row["ok"], row["error"]["code"]) == (False, code), row
            assert message in row["error"]["message"]
        row = answer(await function.invoke({"run_id": "kept", "workload": "none"}))
        assert row["run_id"] == "kept"
    assert s3.calls == []
    assert len(records(function.lines)) == len(BAD_EVENTS) + 1
    assert "Traceback" not in function.text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", BAD)
async def test_a_bad_variable_is_named(
    name: str, language: str, machine: Machine, specify: Specify, s3: ScriptedS3
) -> None:
    event, variables, code, message = BAD[name]
    async with running(machine, specify(language, s3.url, **variables)) as function:
        row = answer(await function.invoke(event))
    assert row["error"] == {"code": code, "field": message.split()[0], "message": message}
    assert s3.calls == []


@pytest.mark.parametrize("language", LANGUAGES)
async def test_an_upload_that_would_not_end_in_time_is_aborted(
    language: str, machine: Machine, specify: Specify, s3: ScriptedS3
) -> None:
    async with running(machine, specify(language, s3.url, timeout_s=3)) as function:
        row = answer(await function.invoke({"workload": "batch", "object_mb": 10, "multipart_mb": 5}))
    assert row["error"] == {"code": "OutOfTime", "message": "part 1 could not be uploaded: the time was up"}
    assert [call.operation for call in s3.calls] == ["Create", "Abort"]
    assert row["upload_left"] is False


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_larger_object_takes_no_more_memory(
    language: str, machine: Machine, specify: Specify, s3: ScriptedS3
) -> None:
    peaks_mb = []
    for object_mb in (100, 400):
        async with running(machine, specify(language, s3.url, 1769, timeout_s=50)) as function:
            row = answer(await function.invoke({"workload": "batch", "object_mb": object_mb, "parallelism": 2}))
            assert row["ok"], row
            (report,) = function.reports
            assert report.max_memory_mb is not None
            peaks_mb.append(report.max_memory_mb)
    assert peaks_mb[1] - peaks_mb[0] <= 8, "one part is 8 MB"
    assert peaks_mb[1] <= 96 + 8 * 3, "what a function of that memory is told it needs"


@pytest.mark.needs("cgroup")
@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_is_admitted_fits_into_the_memory(
    language: str, machine: Machine, specify: Specify, s3: ScriptedS3
) -> None:
    event = {"workload": "batch", "object_mb": 32, "multipart_mb": 16}
    async with running(machine, specify(language, s3.url, 128, timeout_s=50)) as function:
        row = answer(await function.invoke(event | {"multipart_mb": 17}))
        assert "need 130 MB of memory and the function has 128" in row["error"]["message"]
        assert answer(await function.invoke(event))["ok"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_clock_of_generating_is_not_that_of_uploading(
    language: str, machine: Machine, specify: Specify, s3: ScriptedS3
) -> None:
    s3.delay_s = 0.3  # of every call
    async with running(machine, specify(language, s3.url, 1769)) as function:
        before = time.monotonic()
        row = answer(await function.invoke({"workload": "batch", "object_mb": 10, "multipart_mb": 5}))
        taken_ms = (time.monotonic() - before) * 1000
    assert row["latency_ms"] >= 4 * 300
    assert row["latency_ms"] + row["generate_ms"] <= taken_ms
    assert row["generate_ms"] < taken_ms - 4 * 300
