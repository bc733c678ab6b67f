"""``lambdalab doctor`` as a process, on a local stack and on the emulator as if it were AWS."""

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import msgspec

from lambdalab.local.stack import LocalStack

from .conftest import Run


def checks(done: Any) -> dict[str, dict[str, Any]]:
    assert "Traceback" not in done.stdout + done.stderr
    return {check["check"]: check for check in json.loads(done.stdout)["checks"]}


def test_a_stack_that_is_up_and_a_rate_that_fits_it(lambdalab: Run, local_stack: dict[str, str]) -> None:
    found = checks(lambdalab("doctor", "--json"))
    assert " is up at " in found["local stack"]["found"]
    assert found["left processes"]["verdict"] == "ok", found["left processes"]
    assert found["go visibility"]["verdict"] == "ok"
    done = lambdalab("doctor", "--rate", "1", "--languages", "go", "--json")
    found = checks(done)
    assert done.returncode == 3
    assert found["go concurrency"]["verdict"] == "wrong", "the strict settings reserve 1, and load refuses that"
    assert found["go environments"]["there"] == 1


def test_the_emulator_as_if_it_were_aws(lambdalab: Run, local_stack: dict[str, str]) -> None:
    done = lambdalab("doctor", "--target", "aws", "--stack-name", "lambdalab-local", "--json", **local_stack)
    found = checks(done)
    assert done.returncode == 0, done.stdout
    assert found["region"]["verdict"] == "warning"
    assert "that is not AWS" in found["region"]["means"]
    assert found["credentials"]["verdict"] == "ok"
    assert found["deployed stack"]["found"] == "lambdalab-local in us-east-1"
    total, unreserved = (int(n.replace(",", "")) for n in re.findall(r"[\d,]*\d", found["concurrency"]["found"]))
    assert total - unreserved == 2, "the strict settings reserve one for each function"
    assert found["quota in flight"]["verdict"] == "warning", "MiniStack has no Service Quotas"
    assert found["python visibility"]["found"] == "VisibilityTimeout 1800 s, Timeout 300 s"


def test_a_rate_against_the_emulators_tables(lambdalab: Run, local_stack: dict[str, str]) -> None:
    done = lambdalab(
        "doctor", "--target", "aws", "--stack-name", "lambdalab-local", "--rate", "5", "--json", **local_stack
    )
    found = checks(done)
    assert (found["go writes"]["needed"], found["go writes"]["verdict"]) == (50, "ok"), found["go writes"]


def test_a_stack_that_is_not_there(lambdalab: Run, local_stack: dict[str, str]) -> None:
    done = lambdalab("doctor", "--target", "aws", "--stack-name", "no-such-stack", "--json", **local_stack)
    assert checks(done)["deployed stack"]["verdict"] == "warning"
    assert done.returncode == 0, done.stdout


def test_no_credentials(lambdalab: Run) -> None:
    done = lambdalab("doctor", "--target", "aws", AWS_REGION="us-east-1")
    assert done.returncode == 3
    assert "wrong    credentials         none were found" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("lambdalab: 1 of ")


def test_what_a_killed_emulator_leaves_is_named(lambdalab: Run, project: Path, local_stack: dict[str, str]) -> None:
    file = project / ".lambdalab" / "stack.json"
    stack = msgspec.json.decode(file.read_bytes(), type=LocalStack)
    os.kill(stack.emulator.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while stack.emulator.alive:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    done = lambdalab("doctor", "--json")
    found = checks(done)
    assert done.returncode == 3
    assert f"emulator (pid {stack.emulator.pid}) has ended" in found["local stack"]["found"]
    kept = file.read_bytes()
    file.unlink()
    try:
        left = checks(lambdalab("doctor", "--json"))["left processes"]
    finally:
        file.write_bytes(kept)
    assert left["verdict"] == "warning"
    assert str(stack.plane.pid) in left["found"], "the plane, which nothing names any more"
