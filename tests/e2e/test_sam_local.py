"""Both functions in real containers by the project's own ``sam``, against the same functions in the local stack."""

import contextlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from local.whole import processes_of, wait_until

from e2e.conftest import Begin, Run
from lambdalab.local.docker import docker
from lambdalab.local.stack import LocalStack, running_stack
from lambdalab.sam_local import Comparison, compare

pytestmark = pytest.mark.needs("docker")
FUNCTIONS = ("GoIngest", "PythonIngest")
SMALL = "events/sqs-small.json"


@pytest.fixture
def stack(project: Path, local_stack: dict[str, str]) -> Iterator[LocalStack]:
    with contextlib.chdir(project):
        found = running_stack()
        assert found is not None
        yield found


def left_of(project: Path) -> list[str]:
    """Containers in which a function of the project is mounted, and what started them."""
    filters = [f"--filter=volume={project}/.aws-sam/local/{function}" for function in FUNCTIONS]
    containers = [one for volume in filters for one in docker("ps", "--all", "--quiet", volume).stdout.split()]
    return containers + [one for one in processes_of(project) if re.search(r"\blocal (invoke|start-lambda)\b", one)]


def test_every_event_has_the_same_answer_and_items_as_in_the_local_stack(project: Path, stack: LocalStack) -> None:
    events = sorted(map(str, Path("events").glob("*.json")))
    assert len(events) >= 6
    found = compare(stack, events, invoke=[SMALL], progress=print)
    expected = [Comparison(function, event, "start-lambda", None) for function in FUNCTIONS for event in events]
    expected += [Comparison(function, SMALL, "invoke", None) for function in FUNCTIONS]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    assert left_of(project) == []


def test_a_function_that_answers_otherwise_is_found(project: Path, lambdalab: Run, stack: LocalStack) -> None:
    source = project / "src/python/ingest/service.py"
    before = source.read_text()
    source.write_text(before.replace('{"batchItemFailures": failures}', '{"batchItemFailures": failures[1:]}'))
    try:
        done = lambdalab("sam-local", "events/sqs-malformed.json")
    finally:
        source.write_text(before)
    assert done.returncode == 1, done.stderr
    rows = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()[2:]]
    assert rows == [
        ["GoIngest", "sqs-malformed.json", "start-lambda", "same answer, same items"],
        ["GoIngest", "sqs-malformed.json", "invoke", "same answer, same items"],
        ["PythonIngest", "sqs-malformed.json", "start-lambda", "answer.batchItemFailures has 0, in the plane 1"],
        ["PythonIngest", "sqs-malformed.json", "invoke", "answer.batchItemFailures has 0, in the plane 1"],
    ]


def test_ctrl_c_leaves_no_container(project: Path, begin: Begin, stack: LocalStack) -> None:
    process = begin("sam-local", "events/sqs-large.json")
    try:
        wait_until(lambda: process.poll() is not None or len(left_of(project)) > 1, 120)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert left_of(project) == []
