"""The stack of this scenario as people use it: brought up, invoked by sam, measured through the plane."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from e2e.conftest import Begin, Run
from e2e.iam_calls import Recorder
from local.scripted_s3 import ScriptedS3
from local.whole import ROOT

from lambdalab.aws.clients import Aws
from lambdalab.logs.platform_lines import parse_report
from lambdalab.planning.call_protocol import load_protocol, schedule
from lambdalab.records.call_files import FactorialDirectory
from lambdalab.records.calls import NO_ANSWER, Call

FOLDER = "scenarios/s3_ingest"
EVENTS = {"s3-events": ("events", 10 * 1024 + 9, 0), "s3-batch": ("batch", 100 * 1024 * 1024, 4)}


@pytest.fixture(scope="module")
def endpoints(lambdalab: Run) -> Iterator[dict[str, str]]:
    """Those of the emulator and the plane, while the stack is up: the one of the folder in which it is brought up."""
    done = lambdalab("up", "--port", "0", folder=FOLDER)
    assert done.returncode == 0, done.stderr
    assert "The local stack lambdalab-s3-local is up." in done.stdout
    try:
        yield dict(word.split("=", 1) for word in done.stdout.split() if "=" in word)
    finally:
        lambdalab("down")


@pytest.fixture(scope="module")
def s3_stack(endpoints: dict[str, str]) -> str:
    return endpoints["AWS_ENDPOINT_URL"]


@pytest.fixture(scope="module")
def plane(endpoints: dict[str, str]) -> str:
    return endpoints["AWS_ENDPOINT_URL_LAMBDA"]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("function", ["PythonS3Ingest", "GoS3Ingest"])
def test_sam_invokes_a_function_in_the_plane_and_the_object_is_there(
    function: str, event: str, s3_stack: str, project: Path, clean_environment: dict[str, str]
) -> None:
    command = [str(Path(sys.executable).with_name("sam")), "remote", "invoke", function, "--config-env", "local"]
    done = subprocess.run(
        [*command, "--event-file", f"events/{event}.json"],
        cwd=project / FOLDER, env=clean_environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row: dict[str, Any] = json.loads(done.stdout)
    workload, size, parts = EVENTS[event]
    assert (row["ok"], row["workload"], row["object_bytes"], row["multipart_parts"]) == (True, workload, size, parts)
    (report,) = (found for line in done.stderr.splitlines() if (found := parse_report(line)))
    assert report.request_id == row["request_id"]
    assert report.max_memory_mb is not None, "the emulator's own Lambda does not measure it"
    session = boto3.Session("test", "test", region_name="us-east-1")
    client = session.client("s3", endpoint_url=s3_stack, config=Config(s3={"addressing_style": "path"}))
    assert client.head_object(Bucket=row["s3_bucket"], Key=row["s3_key"])["ContentLength"] == size
    client.close()


def test_the_map_shows_functions_that_nothing_wakes_and_the_bucket_they_share(lambdalab: Run, s3_stack: str) -> None:
    shown = lambdalab("map")
    assert shown.returncode == 0, shown.stderr
    lines = [line.split() for line in shown.stdout.splitlines() if line]
    assert [line[0] for line in lines[1::2]] == ["GoS3Ingest", "PythonS3Ingest"]
    assert lines[2::2] == [["└╌╌", "Objects", "bucket", "named", "by", "OUTPUT_BUCKET"]] * 2


def test_sam_builds_and_deploys_in_the_folder(
    s3_stack: str, project: Path, clean_environment: dict[str, str], lambdalab: Run
) -> None:
    for command in ("build", "deploy"):
        done = subprocess.run(
            [str(Path(sys.executable).with_name("sam")), command, "--config-env", "local"],
            cwd=project / FOLDER, env=clean_environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Successfully created/updated stack - lambdalab-s3-local" in done.stdout
    row = json.loads(lambdalab("invoke", "GoS3Ingest", "-e", "events/s3-events.json", folder=FOLDER).stdout)
    assert row["ok"], row


def test_the_folder_and_the_root_share_one_stack(s3_stack: str, project: Path, lambdalab: Run) -> None:
    for folder, arguments in (
        (".", ("up",)),
        (".", ("up", "s3-ingest")),
        (FOLDER, ("up",)),
        (FOLDER, ("up", "ingest")),
    ):
        done = lambdalab(*arguments, folder=folder)
        assert done.returncode == 3
        assert f"the local stack lambdalab-s3-local is up already, at {s3_stack};" in done.stderr
    here, above = (json.loads(lambdalab("status", "--json", folder=folder).stdout) for folder in (FOLDER, "."))
    assert here["functions"].keys() == above["functions"].keys() == set(FUNCTIONS)
    assert not (project / FOLDER / ".lambdalab").exists()
    assert (project / FOLDER / ".aws-sam/local/template.yaml").exists()


OTHER_SCENARIO = "stack lambdalab-s3-local is of scenario s3-ingest, not of the one asked for: it has no output Python"


@pytest.mark.parametrize(
    "command", ["run", "run --up", "load --headless --rate 1 --duration 1s", "dlq list", "doctor --rate 1"]
)
def test_what_belongs_to_another_scenario_says_so(command: str, s3_stack: str, lambdalab: Run) -> None:
    done = lambdalab(*command.split())
    assert done.returncode == 3
    assert OTHER_SCENARIO in (said := " ".join((done.stdout + done.stderr).split()))
    assert "`lambdalab down && lambdalab up SCENARIO`" in said
    assert "Traceback" not in said


def test_another_scenario_is_nothing_wrong_to_the_doctor(s3_stack: str, lambdalab: Run) -> None:
    checks = json.loads(lambdalab("doctor", "--json").stdout)["checks"]
    (found,) = (check for check in checks if check["check"] == "deployed stack")
    assert (found["verdict"], found["found"].startswith(OTHER_SCENARIO)) == ("warning", True)


CELLS = ("cells", f"{FOLDER}/cells.toml", "--target", "local")
TWO = ("--only", "design=events", "--only", "memory_mb=512", "--only", "batch_events=10", "--only", "language=python")


def test_cells_beyond_the_quota_are_refused_before_anything_is_deployed(s3_stack: str, lambdalab: Run) -> None:
    done = lambdalab(*CELLS, "--only", "language=python", "--deploy")
    assert done.returncode == 3
    assert "these 54 functions reserve 1,080 environments, and the account has 900 left to reserve" in done.stderr
    assert "ingest-batch-m2048-p64-rc50 " in done.stdout
    assert len(deployed(s3_stack)) == 2


# the experiment

PROTOCOL = """
name = "tiny"
scenario = "s3-ingest"
description = "For tests."
blocks = {blocks}
[[designs]]
label = "{label}"
invocations = {invocations}
settings = {{ {settings} }}
[designs.factors]
{factors}
"""
FUNCTIONS = ("lambdalab-s3-local-python-s3-ingest", "lambdalab-s3-local-go-s3-ingest")


def written(project: Path, name: str, **parts: object) -> str:
    """A protocol file of one design, as an argument."""
    (project / f"{name}.toml").write_text(PROTOCOL.format(**({"blocks": 1, "label": name} | parts)))
    return f"{name}.toml"


def calls_of(project: Path) -> tuple[FactorialDirectory, list[Call]]:
    store = FactorialDirectory.open(project / "results", "latest")
    return store, store.calls()


def answer(call: Call) -> dict[str, Any]:
    assert call.answer != NO_ANSWER, call
    found: dict[str, Any] = json.loads(bytes(call.answer))
    return found


@pytest.fixture
def emulator(s3_stack: str) -> Iterator[Aws]:
    aws = Aws(endpoint_url=s3_stack)
    yield aws
    for client in (value for value in vars(aws).values() if hasattr(value, "get_waiter")):
        client.close()


def settings_of(emulator: Aws) -> dict[str, tuple[int, int | None, dict[str, str]]]:
    """Memory, reserved concurrency and variables of both functions."""
    found: dict[str, tuple[int, int | None, dict[str, str]]] = {}
    for name in FUNCTIONS:
        configuration = emulator.lambda_.get_function_configuration(FunctionName=name)
        reserved = emulator.lambda_.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
        found[name] = (configuration["MemorySize"], reserved, configuration["Environment"]["Variables"])
    return found


@pytest.mark.parametrize(
    ("label", "settings", "levels", "asked"),
    [
        ("events", 'workload = "events", event_bytes = 300', "batch_events = [1, 40]", {1: (300, 0), 40: (12_039, 0)}),
        ("batch", 'workload = "batch", object_mb = 12, parallelism = 2', "multipart_mb = [5, 12]",
         {5: (12 * 2**20, 3), 12: (12 * 2**20, 1)}),
    ],
)  # fmt: skip
def test_a_run_makes_every_call_of_its_plan_and_every_object_is_exact(
    label: str,
    settings: str,
    levels: str,
    asked: dict[int, tuple[int, int]],
    project: Path,
    emulator: Aws,
    lambdalab: Run,
) -> None:
    before = settings_of(emulator)
    file = written(
        project, label, invocations=2, settings=settings,
        factors=f'language = ["python", "go"]\nmemory_mb = [512]\n{levels}\ncallers = [2]',
    )  # fmt: skip
    done = lambdalab("run", "s3-ingest", "--protocol", file, "--seed", "11")
    assert "Traceback" not in done.stderr
    store, calls = calls_of(project)
    planned = list(schedule(load_protocol(project / file), 11))
    assert [c.call_id for c in sorted(calls, key=lambda c: c.call_id)] == sorted(
        call.call_id for cell in planned for call in cell.calls
    )
    seeds = {call.call_id: call.seed for cell in planned for call in cell.calls}
    factor = levels.partition(" ")[0]
    by_cell = {cell.cell.name: asked[int(cell.cell.levels[factor])] for cell in planned}
    for call in calls:
        found = answer(call)
        assert call.found is True, call
        assert (found["object_bytes"], found["multipart_parts"]) == by_cell[call.cell]
        assert found["seed"] == seeds[call.call_id]
        assert found["memory_mb"] == 512
        assert call.log_tail is not None
        assert any(parse_report(line) for line in call.log_tail.splitlines())
    cold = Counter(call.warmup for call in calls if answer(call)["is_cold_start"])
    assert cold[False] == 0, "every caller met an environment that was there"
    bucket = answer(calls[0])["s3_bucket"]
    assert "Contents" not in emulator.s3.list_objects_v2(Bucket=bucket, Prefix=f"{label}/{store.folder.name}/")
    assert settings_of(emulator) == before
    assert (store.folder / "summary.json").exists()
    assert done.returncode == 0, done.stderr


def test_the_same_run_on_what_answers_as_aws_does(
    project: Path, s3_stack: str, plane: str, emulator: Aws, lambdalab: Run
) -> None:
    """Over HTTP, with the plane as Lambda: new environments by a configuration bump, and objects stay."""
    before = settings_of(emulator)
    file = written(
        project, "aws", invocations=2, settings='workload = "events"',
        factors='language = ["go"]\nmemory_mb = [256]\nreserved_concurrency = [3]\nbatch_events = [1, 2]',
    )  # fmt: skip
    recorder = Recorder(s3_stack, plane)
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    target = ("--target", "aws", "--stack-name", "lambdalab-s3-local")
    place = {"AWS_ENDPOINT_URL": recorder.url}
    done = lambdalab("run", "s3-ingest", "--protocol", file, *target, "--yes", **credentials, **place)
    recorder.close()
    assert "Traceback" not in done.stderr
    assert "4 calls and 2 that warm up, 0.0 GB written to stack lambdalab-s3-local in us-east-1" in done.stderr
    store, calls = calls_of(project)
    assert [call.found for call in calls] == [True] * 6
    assert [answer(call)["is_cold_start"] for call in calls] == [call.warmup for call in calls]
    bucket = answer(calls[0])["s3_bucket"]
    kept = emulator.s3.list_objects_v2(Bucket=bucket, Prefix=f"events/{store.folder.name}/")["Contents"]
    assert len(kept) == 6, "the bucket's lifecycle rule removes them"
    assert settings_of(emulator) == before
    assert {call.action for call in recorder.calls} == documented_permissions()


def documented_permissions() -> set[str]:
    """Those that README.md lists for whoever measures on AWS; a service is named once for all that follow."""
    text = (ROOT / FOLDER / "README.md").read_text()
    (paragraph,) = re.findall(r"^Whoever runs it on AWS needs.*?\n\n", text, re.MULTILINE | re.DOTALL)
    service, found = "", set()
    for prefix, name in re.findall(r"`(?:(\w+):)?(\w+)`", paragraph):
        service = prefix or service
        found.add(f"{service}:{name}")
    return found


def test_in_the_folder_commands_need_no_name_and_results_are_the_projects(
    project: Path, emulator: Aws, lambdalab: Run
) -> None:
    file = written(project, "here", invocations=1, settings='workload = "events"', factors='language = ["go"]')
    plan = json.loads(lambdalab("plan", "--json", folder=FOLDER).stdout)
    assert (plan["scenario"], plan["protocol"]) == ("s3-ingest", "s3-ingest")
    done = lambdalab("run", "--protocol", f"../../../{file}", folder=f"{FOLDER}/events")
    assert done.returncode == 0, done.stderr
    store, calls = calls_of(project)
    assert [call.found for call in calls] == [True, True]
    assert store.manifest().template_runtimes.keys() == {"go"}
    assert "aws-sdk-go-v2/service/s3" in store.manifest().versions, "as the sources in the folder pin it"
    assert f"files: ../../../results/{store.folder.name}\n" in done.stdout
    shown = lambdalab("report", folder=FOLDER)
    assert (shown.returncode, f"files: ../../results/{store.folder.name}\n" in shown.stdout) == (0, True)
    assert not list((project / FOLDER).rglob("results"))


def test_a_throttled_call_is_counted_and_not_made_again(project: Path, emulator: Aws, lambdalab: Run) -> None:
    before = settings_of(emulator)
    file = written(
        project, "throttled", invocations=9, settings='workload = "batch", object_mb = 5, multipart_mb = 5',
        factors='language = ["go"]\nreserved_concurrency = [1]\ncallers = [3]',
    )  # fmt: skip
    done = lambdalab("run", "s3-ingest", "--protocol", file)
    assert "Traceback" not in done.stderr
    _, calls = calls_of(project)
    assert len(calls) == 3 + 9
    assert len({call.call_id for call in calls}) == len(calls)
    throttled = [call for call in calls if call.throttled]
    assert throttled, "three callers and room for one"
    assert all("TooManyRequestsException" in (call.error or "") and call.answer == NO_ANSWER for call in throttled)
    assert [answer(call)["reserved_concurrency"] for call in calls if not call.throttled] == [1] * (
        len(calls) - len(throttled)
    )
    assert settings_of(emulator) == before


def test_a_part_that_fails_is_a_row_with_its_error_and_no_upload_is_left(
    project: Path, s3_stack: str, plane: str, emulator: Aws, lambdalab: Run
) -> None:
    name = FUNCTIONS[1]
    change = Aws(endpoint_url=s3_stack, lambda_endpoint_url=plane).lambda_.update_function_configuration
    before = settings_of(emulator)[name][2]
    file = written(
        project, "failing", invocations=2, settings='workload = "batch", object_mb = 15, multipart_mb = 5',
        factors='language = ["go"]',
    )  # fmt: skip
    s3 = ScriptedS3(s3_stack)
    s3.faults = {("Part", 2): [(403, "AccessDenied")] * 2}  # of the call that warms up, and of the first after it
    through = before | {"AWS_ENDPOINT_URL_S3": s3.url}
    try:
        change(FunctionName=name, Environment={"Variables": through})  # the plane answers when it has read it
        done = lambdalab("run", "s3-ingest", "--protocol", file)
    finally:
        change(FunctionName=name, Environment={"Variables": before})
        s3.close()
    assert "Traceback" not in done.stderr
    store, calls = calls_of(project)
    rows = {row["call_id"]: row for row in csv.DictReader((store.folder / "metrics.csv").read_text().splitlines())}
    failed, good = rows["b01-001-0001"], rows["b01-001-0002"]
    assert failed["reason"] == "UploadFailed: part 2 could not be uploaded: AccessDenied"
    assert (failed["valid"], failed["latency_ms"], failed["object_bytes"]) == ("false", "", "")
    assert (good["valid"], good["reason"], good["object_bytes"]) == ("true", "", str(15 * 2**20))
    assert len(s3.of("Abort")) == 2
    (bucket,) = {answer(call)["s3_bucket"] for call in calls}
    mine = {"Bucket": bucket, "Prefix": f"batch/{store.folder.name}/"}
    assert not emulator.s3.list_multipart_uploads(**mine).get("Uploads")
    assert "Contents" not in emulator.s3.list_objects_v2(**mine)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_was_interrupted_goes_on_with_the_calls_that_are_missing(
    end: signal.Signals, project: Path, emulator: Aws, lambdalab: Run, begin: Begin
) -> None:
    before = settings_of(emulator)
    file = written(
        project, "interrupted", invocations=25, settings='workload = "batch", object_mb = 5, multipart_mb = 5',
        factors='language = ["go"]\nmemory_mb = [256, 512]',
    )  # fmt: skip
    folder = f"interrupted-{end}"
    results = project / folder
    process = begin("run", "s3-ingest", "--protocol", file, "--results", folder)
    deadline = time.monotonic() + 120
    lines = 0
    while lines < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
        lines = sum(file.read_bytes().count(b"\n") for file in results.glob("2*/calls.jsonl"))
    process.send_signal(end)
    _, said = process.communicate(timeout=60)
    store = FactorialDirectory.open(results, "latest")
    first = store.calls()
    assert len(first) < 2 * 26
    assert all(call.finished for call in first), "what was under way was awaited"
    (bucket,) = {answer(call)["s3_bucket"] for call in first}
    mine = {"Bucket": bucket, "Prefix": f"batch/{store.folder.name}/"}
    if end == signal.SIGINT:
        assert process.returncode == 130, said
        go_on = f"lambdalab run s3-ingest --resume {store.folder.name} --target local --results {folder}"
        assert f"go on with `{go_on}`" in said
        assert "Contents" not in emulator.s3.list_objects_v2(**mine)
        assert settings_of(emulator) == before
    else:
        assert all(call.found is None for call in first if not call.warmup), "nobody could look any more"
        assert settings_of(emulator) != before

    done = lambdalab("run", "--resume", "latest", "--results", folder)
    assert "Traceback" not in done.stderr
    manifest, calls = store.manifest(), store.calls()
    assert len(manifest.resumed_at) == 1
    planned = {call.call_id for cell in schedule(manifest.protocol, manifest.seed) for call in cell.calls}
    finished = Counter(call.call_id for call in calls if call.finished and not call.warmup)
    assert set(finished) == {call_id for call_id in planned if "-w" not in call_id}
    assert set(finished.values()) == {1}, "no call that had ended was made again"
    assert {call.attempt for call in calls} == {1, 2}
    assert [call.call_id for call in calls[: len(first)]] == [call.call_id for call in first]
    assert all(call.found for call in calls), "those as well that nobody had looked at"
    left = emulator.s3.list_objects_v2(**mine).get("Contents", [])
    assert len(left) <= (1 if end == signal.SIGKILL else 0), "only of a call whose answer nobody wrote down"
    assert settings_of(emulator) == before
    again = lambdalab("run", "ingest", "--resume", "latest", "--results", folder)
    assert again.returncode == 2
    assert "run latest is of scenario s3-ingest, not ingest; run `lambdalab run s3-ingest --resume latest`" in (
        again.stderr
    )


def test_without_its_bucket_nothing_is_begun(project: Path, emulator: Aws, lambdalab: Run) -> None:
    file = written(project, "refused", invocations=1, settings='workload = "events"', factors='language = ["go"]')
    (bucket,) = (bucket["Name"] for bucket in emulator.s3.list_buckets()["Buckets"] if "objects" in bucket["Name"])
    for found in emulator.s3.list_objects_v2(Bucket=bucket).get("Contents", ()):  # of whoever invoked by sam
        emulator.s3.delete_object(Bucket=bucket, Key=found["Key"])
    emulator.s3.delete_bucket(Bucket=bucket)
    try:
        done = lambdalab("run", "s3-ingest", "--protocol", file, "--results", "refused")
    finally:
        emulator.s3.create_bucket(Bucket=bucket)
    assert done.returncode == 3
    assert f"bucket {bucket}, to which the functions write, is not there; deploy the stack anew." in done.stderr
    assert not (project / "refused").exists(), "nothing was begun"


# The last one, since it ends the stack.
def test_two_cells_are_listed_deployed_called_measured_and_destroyed(
    s3_stack: str, plane: str, lambdalab: Run, project: Path
) -> None:
    names = {"ingest-events-m512-b10-rc0", "ingest-events-m512-b10-rc10"}
    listed = lambdalab(*CELLS, *TWO, "--only", "reserved_concurrency=0,10", "--json")
    said = json.loads(listed.stdout)
    assert ({row["function_name"] for row in said["functions"]}, said["reserved_concurrency"]) == (names, 10)
    assert len(deployed(s3_stack)) == 2

    done = lambdalab(*CELLS, *TWO, "--only", "reserved_concurrency=0,10", "--deploy")
    assert done.returncode == 0, done.stderr
    functions = deployed(s3_stack)
    assert names < functions.keys()
    (project / "empty.json").write_text("{}")
    for name in names:
        row = json.loads(lambdalab("invoke", name, "-e", "empty.json").stdout)
        reserved = 10 if name.endswith("rc10") else 0
        assert (row["function_name"], row["memory_mb"], row["batch_events"]) == (name, 512, 10)
        assert (row["reserved_concurrency"], functions[name]) == (reserved, reserved or None)
        assert row["ok"]
    run_by_prefix(project, lambdalab, s3_stack, plane, names)

    gone = lambdalab("destroy", "--target", "local", "--yes", "lambdalab-s3-local")
    assert gone.returncode == 0, gone.stderr
    assert deployed(s3_stack) == {}

    assert lambdalab("down", folder=FOLDER).returncode == 0
    assert "no local stack is up" in lambdalab("down").stdout
    file = written(project, "named", invocations=1, settings='workload = "events"', factors='language = ["python"]')
    named = lambdalab("run", "s3-ingest", "--up", "--protocol", file)
    assert named.returncode == 0, named.stderr
    assert "deploying scenarios/s3_ingest/template.yaml" in named.stderr
    assert [call.found for call in calls_of(project)[1]] == [True, True]


def run_by_prefix(project: Path, lambdalab: Run, s3_stack: str, plane: str, names: set[str]) -> None:
    """Both are measured as they are: every call by the function of its cell, and nothing of them changed afterwards."""
    file = written(
        project, "events", blocks=2, invocations=2, settings='workload = "events"',
        factors='language = ["go"]\nmemory_mb = [1024]\nbatch_events = [3]\ncallers = [2]',
    )  # fmt: skip
    prefix = ("--protocol", file, "--function-prefix", "ingest-events-m512-b10-")
    plan = json.loads(lambdalab("plan", "s3-ingest", *prefix, "--json").stdout)
    assert (plan["calls"], plan["warmup_calls"], plan["designs"][0]["cells"]) == (2 * 2 * 2, 2 * 2 * 2, 2)
    before = configured(s3_stack)
    done = lambdalab("run", "s3-ingest", *prefix)
    assert done.returncode == 0, done.stderr
    store, calls = calls_of(project)
    manifest = store.manifest()
    (design,) = manifest.protocol.designs
    reserved = {"ingest-events-m512-b10-rc0": 0, "ingest-events-m512-b10-rc10": 10}
    assert {name: levels["reserved_concurrency"] for name, levels in design.functions.items()} == reserved
    assert design.settings == {"workload": "events", "batch_events": 10, "event_bytes": 1024}
    assert design.factors["memory_mb"] == (512,)
    functions = {cell.name: cell.function for cell in design.cells}
    assert set(functions.values()) == names == manifest.functions.keys()
    assert len(calls) == 2 * 2 * (2 + 2)
    for call in calls:
        found = answer(call)
        assert (found["function_name"], found["memory_mb"], found["batch_events"]) == (functions[call.cell], 512, 10)
        assert (found["ok"], call.found, found["object_bytes"]) == (True, True, 10 * 1024 + 9)
    cold = Counter(call.warmup for call in calls if answer(call)["is_cold_start"])
    assert (cold[False], cold[True]) == (0, 2 * 2 * 2), "every cell began with new environments"
    rows = (store.folder / "metrics.csv").read_text().splitlines()
    assert sum("ingest-events-m512-b10-rc10" in row for row in rows) == 8
    assert configured(s3_stack) == before
    again = lambdalab("run", "s3-ingest", "--resume", "latest")
    assert (again.returncode, len(calls_of(project)[1])) == (0, len(calls)), again.stderr

    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    places = {"AWS_ENDPOINT_URL": s3_stack, "AWS_ENDPOINT_URL_LAMBDA": plane}
    aws = lambdalab("run", "s3-ingest", *prefix, "--blocks", "1", "--target", "aws", "--yes", **credentials, **places)
    assert aws.returncode == 0, aws.stderr
    assert "written to stack ingest-events-m512-b10-* in us-east-1" in aws.stderr
    store, calls = calls_of(project)
    assert (store.manifest().target, len(calls)) == ("aws", 2 * (2 + 2))
    assert [answer(call)["is_cold_start"] for call in calls] == [call.warmup for call in calls]
    assert configured(s3_stack) == before

    none = lambdalab("run", "s3-ingest", "--function-prefix", "ingest-batch-")
    assert none.returncode == 2
    assert "has a name that begins with 'ingest-batch-'" in " ".join(none.stderr.split())


def configured(endpoint_url: str) -> dict[str, tuple[int, dict[str, str]]]:
    """Memory and variables of every function there is."""
    client = boto3.Session("test", "test", region_name="us-east-1").client("lambda", endpoint_url=endpoint_url)
    found = client.list_functions()["Functions"]
    client.close()
    return {one["FunctionName"]: (one["MemorySize"], one["Environment"]["Variables"]) for one in found}


def deployed(endpoint_url: str) -> dict[str, int | None]:
    """The reserved concurrency of every function there is."""
    client = boto3.Session("test", "test", region_name="us-east-1").client("lambda", endpoint_url=endpoint_url)
    names = [function["FunctionName"] for function in client.list_functions()["Functions"]]
    asked = {name: client.get_function_concurrency(FunctionName=name) for name in names}
    client.close()
    return {name: found.get("ReservedConcurrentExecutions") for name, found in asked.items()}
