"""Both functions in real containers by the project's own ``sam``, against the same functions in the local stack."""

import contextlib
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local.debuggers import Dap, connected
from local.whole import ROOT, processes_of, wait_until

from e2e.conftest import Begin, Run
from lambdalab.build.tools import debugger_for
from lambdalab.invoke.sam_local import Comparison, compare
from lambdalab.local.containers import runtimes
from lambdalab.local.docker import docker
from lambdalab.local.stack import LocalStack, running_stack

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


def test_every_event_has_the_same_answer_and_items_as_in_the_local_stack(
    project: Path, stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Docker's configuration has a proxy for containers, which would not reach the emulator."""
    proxies = {"default": dict.fromkeys(("httpProxy", "httpsProxy"), "http://127.0.0.1:9")}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": proxies}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
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
        done = lambdalab("sam-local", "events/sqs-malformed.json", timeout_s=480)
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


def documented(beginning: str) -> list[str]:
    """The command of docs/debugging.md that begins so, with the project's own sam."""
    text = (ROOT / "docs/debugging.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith(f"    {beginning}"))
    words = shlex.split(line)
    return [str(Path(sys.executable).with_name("sam")), *words[words.index("local") :]]


@contextlib.contextmanager
def attached(port: int) -> Iterator[Dap]:
    """A debugger's client; Docker takes connections before debugpy does, and drops them."""
    deadline = time.monotonic() + 120
    while True:
        assert time.monotonic() < deadline, "no debugger listens within two minutes"
        with connected(port, 120) as client, Dap(client) as dap:
            try:
                dap.ask("initialize", adapterID="test", pathFormat="path", linesStartAt1=True, columnsStartAt1=True)
            except (OSError, AssertionError):
                time.sleep(0.2)
                continue
            yield dap
            return


def test_a_breakpoint_in_a_container(project: Path, stack: LocalStack, tmp_path: Path) -> None:
    handler = ROOT / "src/python/ingest/handler.py"
    line = next(n for n, text in enumerate(handler.read_text().splitlines(), 1) if "return _service.answer(" in text)
    runtime = runtimes(stack)["PythonIngest"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    there = {"5678": str(port), ".lambdalab/debugpy": str(debugger_for(runtime, print).parent)}
    command = documented("sam local invoke PythonIngest --config-env local -e events/sqs-small.json --debug-port")
    command = [there.get(word, word.replace(":5678", f":{port}")) for word in command]
    text = (ROOT / "docs/debugging.md").read_text().replace("${workspaceFolder}", str(ROOT))
    (configuration,) = json.loads(text.split("```json\n")[1].split("```")[0])["configurations"]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    try:
        with attached(port) as dap:
            asked = dap.send("attach", pathMappings=configuration["pathMappings"])
            dap.event("initialized")
            dap.ask("setBreakpoints", source={"path": str(handler)}, breakpoints=[{"line": line}])
            dap.ask("configurationDone")
            dap.answer(asked)
            stopped = dap.event("stopped")
            frame = dap.ask("stackTrace", threadId=stopped["threadId"])["stackFrames"][0]
            assert (frame["name"], frame["line"], frame["source"]["path"]) == ("handler", line, str(handler))
            body = dap.ask("evaluate", expression="event['Records'][0]['body']", frameId=frame["id"])["result"]
            assert "sample:small-001" in body
            dap.ask("continue", threadId=stopped["threadId"])
            assert process.wait(120) == 0, (tmp_path / "err").read_text()
    finally:
        process.terminate()
        process.wait(60)
    assert json.loads((tmp_path / "out").read_text()) == {"batchItemFailures": []}
    assert left_of(project) == []


def test_ctrl_c_leaves_no_container(project: Path, begin: Begin, stack: LocalStack) -> None:
    process = begin("sam-local", "events/sqs-large.json")
    try:
        wait_until(lambda: process.poll() is not None or len(left_of(project)) > 1, 240)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert left_of(project) == []
