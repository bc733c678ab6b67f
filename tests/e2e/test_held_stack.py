"""A run holds its stack: whatever else would measure on it, or end it, is refused until the run is over."""

import contextlib
import os
import re
import signal
import time
from pathlib import Path

import msgspec
import pytest
from botocore.exceptions import ClientError

from lambdalab.local.stack import LocalStack

from .conftest import Begin, Run
from .test_bench import rows_of, wait_for_trials


def runs(project: Path) -> set[str]:
    return {path.name for path in (project / "results").glob("2*")}


def test_while_a_run_measures_every_other_one_is_refused_and_the_run_stays_valid(
    lambdalab: Run, begin: Begin, project: Path, tiny: str, local_stack: dict[str, str]
) -> None:
    first = begin("run", "--protocol", tiny, "--blocks", "2")
    run = wait_for_trials(project, first, 1)
    os.kill(first.pid, signal.SIGSTOP)  # so that it is still there when all of them have been refused
    before = runs(project)
    others = (
        ("run", "--protocol", tiny),
        ("run", "--protocol", tiny, "--up"),
        ("run", "--resume", run.name),
        ("sweep", "--memory", "128"),
        ("aa",),
        ("run", "s3-ingest"),
        ("up",),
        ("down",),
    )
    try:
        for other in others:
            done = lambdalab(*other)
            assert (done.returncode, done.stdout) == (3, ""), other
            assert re.fullmatch(
                rf"lambdalab: the local stack is in use by run {run.name}, pid {first.pid} \(`lambdalab run [^`]*`\); "
                rf"wait for it, or end it with `kill {first.pid}`, which keeps what it measured\.\n",
                done.stderr,
            ), done.stderr
        assert runs(project) == before, "a refused run leaves nothing behind"
    finally:
        os.kill(first.pid, signal.SIGCONT)
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    rows = rows_of(run)
    assert len(rows) == 8
    assert {row["reason"] for row in rows} == {""}
    assert not (run / "lock").exists()


def test_invocations_that_are_not_the_runs_own_make_samples_invalid(
    lambdalab: Run, begin: Begin, project: Path, tiny: str, local_stack: dict[str, str]
) -> None:
    stack = msgspec.json.decode((project / ".lambdalab/stack.json").read_bytes(), type=LocalStack)
    client = stack.aws().lambda_
    process = begin("run", "--protocol", tiny, "--blocks", "1")
    try:
        while process.poll() is None:
            with contextlib.suppress(ClientError):  # a throttle, which counts as well
                client.invoke(FunctionName="GoIngest", Payload=b'{"batch_id": "foreign", "count": 1}')
    finally:
        client.close()
    said, errors = process.communicate(timeout=60)

    assert process.returncode == 4, said + errors
    reasons = [row["reason"] for row in rows_of(project / "results" / "latest")]
    assert any(re.search(r"the plane counted \d+ invocations meanwhile, 1 of its own", reason) for reason in reasons)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_ended_holds_nothing(
    lambdalab: Run, begin: Begin, project: Path, tiny: str, local_stack: dict[str, str], end: int
) -> None:
    process = begin("run", "--protocol", tiny, "--blocks", "2")
    run = wait_for_trials(project, process, 1)
    process.send_signal(end)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if end == signal.SIGTERM else -end), errors

    done = lambdalab("run", "--resume", run.name)

    assert done.returncode == 0, done.stderr
    valid = [row["trial"] for row in rows_of(run) if row["valid"] == "true"]
    assert len(valid) == len(set(valid)) == 8


def test_a_run_whose_plane_is_killed_ends_at_once_and_resumes_to_a_valid_whole(
    lambdalab: Run, begin: Begin, project: Path, tiny: str, local_stack: dict[str, str]
) -> None:
    process = begin("run", "--protocol", tiny, "--blocks", "2")
    run = wait_for_trials(project, process, 3)
    stack = msgspec.json.decode((project / ".lambdalab/stack.json").read_bytes(), type=LocalStack)
    os.kill(stack.plane.pid, signal.SIGKILL)
    killed = time.monotonic()
    _, errors = process.communicate(timeout=60)

    assert time.monotonic() - killed < 60, "it does not wait for the message, which would take minutes"
    assert process.returncode == 3, errors
    assert f"the local stack's plane (pid {stack.plane.pid}) has ended; see " in errors
    assert f"go on with `lambdalab run ingest --resume {run.name} " in errors
    assert "Traceback" not in errors
    assert len(rows_of(run)) >= 3, "what was measured is shown"

    refused = lambdalab("run", "--resume", run.name)
    assert (refused.returncode, "plane" in refused.stderr, "`lambdalab up`" in refused.stderr) == (3, True, True)
    assert lambdalab("down").returncode == 0
    assert lambdalab("up", "--port", "0").returncode == 0
    done = lambdalab("run", "--resume", run.name)

    assert done.returncode == 0, done.stdout + done.stderr
    valid = [row["trial"] for row in rows_of(run) if row["valid"] == "true"]
    assert len(valid) == len(set(valid)) == 8
