"""Bringing a stack up where something is in the way: one clear sentence, and nothing left running."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambdalab.errors import LambdalabError, PlaneError, StackError, ToolError, UsageError
from lambdalab.local.daemon import Daemon, start_daemon
from lambdalab.local.stack import bring_up, running_stack
from local.whole import ROOT, processes_of, project, wait_until

QUEUE_ONLY = (ROOT / "template.yaml").read_text().partition("Rules:")[
    0
] + "Resources:\n  Queue: {Type: AWS::SQS::Queue}\n"
REFUSED = (
    QUEUE_ONLY + "  Budget: {Type: 'AWS::Budgets::Budget', Properties: {Budget: {BudgetType: COST, TimeUnit: DAILY}}}\n"
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A project of which a test may change anything."""
    return project(tmp_path, built=False)


def fails(place: Path, kind: type[LambdalabError], *, port: int = 0, parameters: dict[str, str] | None = None) -> str:
    steps: list[str] = []
    with contextlib.chdir(place):
        with pytest.raises(kind) as caught:
            bring_up(steps.append, port=port, parameters=parameters)
        assert running_stack() is None
    wait_until(lambda: processes_of(place) == [], 30)
    return str(caught.value)


@contextlib.contextmanager
def taken_port(*, free: int) -> Iterator[int]:
    """A port somebody listens on, with a free one so many beside it."""
    with contextlib.ExitStack() as listeners:
        while True:
            listener = listeners.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            port: int = listener.getsockname()[1]
            if free == 0:
                break
            with contextlib.suppress(OSError), socket.socket() as beside:
                beside.bind(("127.0.0.1", port + free))
                break
        yield port


@pytest.mark.parametrize("taken", [0, 1], ids=["the emulator's", "the plane's"])
def test_port_that_is_taken(place: Path, taken: int) -> None:
    with taken_port(free=-taken) as port:
        message = fails(place, PlaneError, port=port - taken)
    assert message == (
        f"port {port} on 127.0.0.1 is taken (Address already in use); "
        "end what listens there, or choose another with --port."
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"MemorySize": "99"}, "MemorySize=99 is not allowed by template.yaml; it must be a whole number of MB"),
        ({"Memory": "128"}, "template.yaml has no parameter Memory; name one of its own: perhaps MemorySize is meant."),
    ],
)
def test_parameter_the_template_does_not_take(place: Path, parameters: dict[str, str], message: str) -> None:
    assert fails(place, UsageError, parameters=parameters).startswith(message)


def with_tool(place: Path, name: str, script: str) -> None:
    """Puts a script in a tool's place; the other tools stay."""
    tools = place / ".lambdalab/tools"
    tools.unlink()
    (tools / "bin").mkdir(parents=True)
    for program in (ROOT / ".lambdalab/tools/bin").iterdir():
        (tools / "bin" / program.name).symlink_to(program.resolve())
    (tools / "bin" / name).unlink()
    (tools / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (tools / "bin" / name).chmod(0o755)


def with_python(place: Path, script: str) -> None:
    """Puts a script in the place of the Python that the tools share then."""
    python = place / ".lambdalab/tools/bin/python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)


def test_emulator_that_does_not_start(place: Path) -> None:
    with_tool(place, "ministack", "")
    with_python(place, "echo first; echo 'no such licence'; exit 1")
    message = fails(place, PlaneError)
    assert message == f"the emulator ended at once: no such licence; see {place}/.lambdalab/emulator.log."


def test_build_that_fails(place: Path) -> None:
    with_tool(place, "sam", "echo 'compiler error in line 7'; exit 3")
    message = fails(place, ToolError)
    assert "`sam build` ended with exit code 3" in message
    assert "compiler error in line 7" in message
    assert f"its whole output is in {place}/.lambdalab/sam-build.log" in message


def test_tool_that_is_not_installed(place: Path) -> None:
    with_tool(place, "sam", "")
    (place / ".lambdalab/tools/bin/sam").unlink()
    assert fails(place, ToolError) == "sam is not installed for this project; run `make setup`."


def test_deployment_that_the_emulator_refuses(place: Path) -> None:
    (place / "template.yaml").unlink()
    (place / "template.yaml").write_text(REFUSED)
    message = fails(place, ToolError)
    assert message.startswith("stack lambdalab-local was not deployed: ")
    assert "AWS::Budgets::Budget" in message
    assert message.endswith("; mend what it names and try again.")


def test_stack_without_functions(place: Path) -> None:
    (place / "template.yaml").unlink()
    (place / "template.yaml").write_text(QUEUE_ONLY)
    message = fails(place, PlaneError)
    assert "the plane ended at once" in message
    assert "stack lambdalab-local has no functions" in message


def test_plane_without_its_stack_says_so_and_ends(place: Path) -> None:
    settings = place / "plane.json"
    settings.write_text(
        '{"endpoint_url":"http://127.0.0.1:9","stack_name":"none","port":0,"folder":"/tmp","interpreters":{}}'
    )
    done = subprocess.run(
        [sys.executable, "-m", "lambdalab.local.plane", str(settings)], capture_output=True, text=True, check=False
    )
    assert done.returncode == StackError.exit_code
    assert "http://127.0.0.1:9/ does not answer for stack none" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("step", "later_s"),
    [("starting the emulator", 0), ("building the functions", 0.4), ("deploying template.yaml", 0.4)],
)
def test_interrupt_leaves_nothing_running(place: Path, step: str, later_s: float) -> None:
    code = "from lambdalab.local.stack import bring_up; bring_up(lambda step: print(step, flush=True), port=0)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == step:
            break
    wait_until((place / ".lambdalab/emulator.log").exists, 30)
    time.sleep(later_s)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does
    _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    wait_until(lambda: processes_of(place) == [], 30)
    assert not (place / ".lambdalab/stack.json").exists()


def test_daemon_is_known_by_its_start_time_and_ended_with_its_children(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 300 & echo $!; wait"
    daemon = start_daemon(["sh", "-c", script], port=0, log_file=tmp_path / "log", variables=dict(os.environ))
    wait_until(lambda: (tmp_path / "log").read_text().strip().isdigit(), 5)
    child = Path("/proc", (tmp_path / "log").read_text().strip())
    assert daemon.alive
    impostor = Daemon(pid=daemon.pid, start_time_ticks=daemon.start_time_ticks + 1, port=0)
    assert not impostor.alive
    impostor.end(grace_s=0)
    assert daemon.alive
    daemon.end(grace_s=0.2)
    wait_until(lambda: not daemon.alive, 5)
    wait_until(lambda: not child.exists() or "\nState:\tZ" in (child / "status").read_text(), 5)
    daemon.end(grace_s=0)
