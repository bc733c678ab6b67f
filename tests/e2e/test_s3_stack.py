"""The stack of stacks/s3-ingest.yaml as people use it here: brought up, and invoked by sam through the plane."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from lambdalab.platform_log import parse_report

from .conftest import Run

EVENTS = {"s3-events": ("events", 10 * 1024 + 9, 0), "s3-batch": ("batch", 100 * 1024 * 1024, 4)}


@pytest.fixture(scope="module")
def s3_stack(lambdalab: Run) -> Iterator[str]:
    """The emulator's endpoint, while the stack is up."""
    done = lambdalab("up", "--settings", "s3-local", "--port", "0")
    assert done.returncode == 0, done.stderr
    assert "The local stack lambdalab-s3-local is up." in done.stdout
    try:
        yield next(word.split("=", 1)[1] for word in done.stdout.split() if word.startswith("AWS_ENDPOINT_URL="))
    finally:
        lambdalab("down")


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("function", ["PythonS3Ingest", "GoS3Ingest"])
def test_sam_invokes_a_function_in_the_plane_and_the_object_is_there(
    function: str, event: str, s3_stack: str, project: Path, clean_environment: dict[str, str]
) -> None:
    command = [str(Path(sys.executable).with_name("sam")), "remote", "invoke", function, "--config-env", "s3-local"]
    done = subprocess.run(
        [*command, "--event-file", f"events/{event}.json"],
        cwd=project, env=clean_environment, capture_output=True, text=True, timeout=120, check=False,
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


OTHER_SCENARIO = "stack lambdalab-s3-local is of scenario s3-ingest, not of the one asked for: it has no output Python"


@pytest.mark.parametrize(
    "command", ["run", "run --up", "load --headless --rate 1 --duration 1s", "dlq list", "doctor --rate 1"]
)
def test_what_belongs_to_another_scenario_says_so(command: str, s3_stack: str, lambdalab: Run) -> None:
    done = lambdalab(*command.split())
    assert done.returncode == 3
    assert OTHER_SCENARIO in (said := " ".join((done.stdout + done.stderr).split()))
    assert "`lambdalab down && lambdalab up`" in said
    assert "Traceback" not in said


def test_another_scenario_is_nothing_wrong_to_the_doctor(s3_stack: str, lambdalab: Run) -> None:
    checks = json.loads(lambdalab("doctor", "--json").stdout)["checks"]
    (found,) = (check for check in checks if check["check"] == "deployed stack")
    assert (found["verdict"], found["found"].startswith(OTHER_SCENARIO)) == ("warning", True)


CELLS = ("cells", "stacks/s3-cells.toml", "--target", "local")
TWO = ("--only", "design=events", "--only", "memory_mb=512", "--only", "batch_events=10", "--only", "language=python")


def test_cells_beyond_the_quota_are_refused_before_anything_is_deployed(s3_stack: str, lambdalab: Run) -> None:
    done = lambdalab(*CELLS, "--only", "language=python", "--deploy")
    assert done.returncode == 3
    assert "these 54 functions reserve 1,080 environments, and the account has 900 left to reserve" in done.stderr
    assert "ingest-batch-m2048-p64-rc50 " in done.stdout
    assert len(deployed(s3_stack)) == 2


def test_two_cells_are_listed_deployed_called_and_destroyed(s3_stack: str, lambdalab: Run, project: Path) -> None:
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

    gone = lambdalab("destroy", "--target", "local", "--yes", "lambdalab-s3-local")
    assert gone.returncode == 0, gone.stderr
    assert deployed(s3_stack) == {}


def deployed(endpoint_url: str) -> dict[str, int | None]:
    """The reserved concurrency of every function there is."""
    client = boto3.Session("test", "test", region_name="us-east-1").client("lambda", endpoint_url=endpoint_url)
    names = [function["FunctionName"] for function in client.list_functions()["Functions"]]
    asked = {name: client.get_function_concurrency(FunctionName=name) for name in names}
    client.close()
    return {name: found.get("ReservedConcurrentExecutions") for name, found in asked.items()}


def test_settings_that_no_local_stack_has_are_refused(lambdalab: Run) -> None:
    done = lambdalab("up", "--settings", "default")
    assert done.returncode == 2
    assert "no local stack has settings default; name one of local, load, s3-local" in done.stderr
