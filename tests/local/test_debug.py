"""Functions under a debugger: real clients attach, stop where they asked to and let the function go on."""

import contextlib
import io
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lambdalab.build.deployment import build_variables, go_variables
from lambdalab.build.tools import debugger_for
from lambdalab.local.debug import Unthrottled, has_debug_information
from lambdalab.local.limits import Unlimited
from local.debuggers import Dap, Delve, connected
from local.support import cgroup_of, cpu_limit_us, memory_limit_bytes
from local.whole import ROOT, Up, processes_of, wait_until

LISTENS_WITHIN_S = 60
HANDLER = ROOT / "src/python/ingest/handler.py"
BREAK_AT = next(n for n, line in enumerate(HANDLER.read_text().splitlines(), 1) if "return _service.answer(" in line)
GO_FILE = ROOT / "src/go/ingest/internal/ingest/service.go"
GO_BREAK_AT = "lambdalab/ingest/internal/ingest.(*Service).Invoke"


def launch_configuration(function: str) -> dict[str, Any]:
    """The one of docs/operations.md."""
    text = (ROOT / "docs/operations.md").read_text().replace("${workspaceFolder}", str(ROOT))
    block = text.split("```json\n")[1].split("```")[0]
    (found,) = (one for one in json.loads(block)["configurations"] if one["name"] == f"Attach to {function}")
    return dict(found)


@dataclass
class Call:
    """``lambdalab invoke FUNCTION --debug PORT``, as a process of its own."""

    process: subprocess.Popen[str]
    port: int
    batch_id: str

    def ended(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@contextlib.contextmanager
def call(up: Up, function: str) -> Iterator[Call]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    batch_id = f"debug:{secrets.token_hex(4)}"
    event = up.project / f"{batch_id}.json"
    event.write_text(json.dumps({"batch_id": batch_id, "count": 3, "size_bytes": 10, "label": "DEBUG"}))
    program = str(Path(sys.executable).with_name("lambdalab"))
    process = subprocess.Popen(
        [program, "invoke", function, "--event", str(event), "--debug", str(port)],
        cwd=up.project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Call(process, port, batch_id)
    finally:
        process.kill()
        process.wait()
        event.unlink()


@pytest.fixture(scope="module", autouse=True)
def debuggers(up: Up) -> None:
    """Installed before, since that may take a while."""
    with contextlib.chdir(up.project):
        for function in up.status()["functions"].values():
            debugger_for(function["runtime"], lambda _: None)


@pytest.fixture
def unpooled(up: Up) -> Iterator[None]:
    """A debugged invocation is none of the pool's, and leaves nothing behind."""

    def counts() -> list[tuple[int, ...]]:
        names = ("invocations", "cold_starts", "errors", "timeouts")
        return [tuple(function[name] for name in names) for function in up.status()["functions"].values()]

    before = counts()
    yield
    assert counts() == before
    wait_until(lambda: not any("debugpy" in found or "dlv" in found for found in processes_of(up.project)), 10)


def lines_of(up: Up, language: str) -> str:
    events = up.emulator.logs.filter_log_events(logGroupName=up.arm(language).log_group)["events"]
    return "\n".join(event["message"] for event in events)


def assert_answered(up: Up, language: str, called: Call) -> None:
    code, out, err = called.ended()
    assert code == 0, err
    answer = json.loads(out)
    assert answer["written"] == 3
    assert len(up.items(language, called.batch_id)) == 3
    assert f"START RequestId: {answer['request_id']}" in err
    assert f'"batch_id":"{called.batch_id}"' in err, "its own output is shown"
    assert "REPORT" not in err
    assert answer["request_id"] not in lines_of(up, language)


def unlimited(up: Up, pid: int) -> bool:
    if up.status()["cpu_limit"] == "none":
        return True
    quota_us, _ = cpu_limit_us(cgroup_of(pid, "cpu"))
    memory_bytes = memory_limit_bytes(cgroup_of(pid, "memory"))
    return quota_us == -1 and memory_bytes > 1 << 50


@pytest.mark.usefixtures("unpooled")
def test_debugpy_stops_in_the_handler_and_goes_on(up: Up) -> None:
    with call(up, "PythonIngest") as called, connected(called.port, LISTENS_WITHIN_S) as client, Dap(client) as dap:
        assert up.items("python", called.batch_id) == []
        dap.ask("initialize", adapterID="test", pathFormat="path", linesStartAt1=True, columnsStartAt1=True)
        attached = dap.send("attach", **launch_configuration("PythonIngest"))
        dap.event("initialized")
        breakpoints = dap.ask("setBreakpoints", source={"path": str(HANDLER)}, breakpoints=[{"line": BREAK_AT}])
        assert [found["line"] for found in breakpoints["breakpoints"]] == [BREAK_AT]
        dap.ask("configurationDone")
        dap.answer(attached)
        stopped = dap.event("stopped")
        assert stopped["reason"] == "breakpoint"
        frame = dap.ask("stackTrace", threadId=stopped["threadId"])["stackFrames"][0]
        assert (frame["name"], frame["line"], frame["source"]["path"]) == ("handler", BREAK_AT, str(HANDLER))

        def value(expression: str) -> str:
            return str(dap.ask("evaluate", expression=expression, frameId=frame["id"])["result"])

        assert value("event['batch_id']") == repr(called.batch_id)
        assert int(value("context.get_remaining_time_in_millis()")) > 24 * 3600 * 1000
        assert unlimited(up, int(value("__import__('os').getpid()")))
        assert up.items("python", called.batch_id) == []
        dap.send("continue", threadId=stopped["threadId"])
        assert_answered(up, "python", called)


@pytest.fixture(scope="module")
def go_with_symbols(up: Up) -> Iterator[None]:
    """The Go function as SAM_BUILD_MODE=debug builds it, in the place of the one that was deployed.

    Only the project's own packages are compiled without optimisation: for the AWS SDK that takes a minute.
    """
    name = up.arm("go").function_name
    package = Path(up.status()["functions"][name]["package"])
    folder = up.project / ".aws-sam/debug"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAM_BUILD_MODE", "debug")
        variables = go_variables()
    command = ["go", "build", "-gcflags=lambdalab/...=-N -l", "-o", str(folder / "bootstrap"), "."]
    subprocess.run(command, cwd=up.project / "src/go/ingest", env=variables, check=True, capture_output=True)

    def deploy(source: Path) -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(source / "bootstrap", "bootstrap")
        before = up.status()["functions"][name]["package"]
        up.aws.lambda_.update_function_code(FunctionName=name, ZipFile=content.getvalue())
        wait_until(lambda: bool(up.status()["functions"][name]["package"] != before), 10)

    deploy(folder)
    yield
    deploy(package)


def test_program_without_debug_information_is_refused(up: Up) -> None:
    with call(up, "GoIngest") as called:
        code, out, err = called.ended()
    assert (code, out) == (3, "")
    assert err == (
        "lambdalab: the program of GoIngest was built without debug information (-ldflags=-s), as for a measurement; "
        "build it for debugging: `lambdalab down`, then `SAM_BUILD_MODE=debug lambdalab up`.\n"
    )


@pytest.mark.usefixtures("go_with_symbols", "unpooled")
def test_delve_stops_in_the_function_and_goes_on(up: Up) -> None:
    with call(up, "GoIngest") as called, connected(called.port, LISTENS_WITHIN_S) as client, Delve(client) as delve:
        set_at = delve.ask("CreateBreakpoint", Breakpoint={"functionName": GO_BREAK_AT})["Breakpoint"]
        assert set_at["file"] == "lambdalab/ingest/internal/ingest/service.go"
        state = delve.ask("Command", name="continue")["State"]
        assert state["currentThread"]["breakPoint"]["id"] == set_at["id"]
        assert state["currentThread"]["function"]["name"] == GO_BREAK_AT
        assert unlimited(up, state["Pid"])
        assert up.items("go", called.batch_id) == []
        delve.send("Command", name="continue")
        assert_answered(up, "go", called)


@pytest.mark.usefixtures("go_with_symbols", "unpooled")
def test_delve_serves_vs_code_too(up: Up) -> None:
    lines = GO_FILE.read_text().splitlines()
    line = next(n for n, text in enumerate(lines, 1) if "json.Unmarshal(event" in text)
    with call(up, "GoIngest") as called, connected(called.port, LISTENS_WITHIN_S) as client, Dap(client) as dap:
        dap.ask("initialize", adapterID="test", pathFormat="path", linesStartAt1=True, columnsStartAt1=True)
        attached = dap.send("attach", **launch_configuration("GoIngest"))
        dap.event("initialized")
        (set_at,) = dap.ask("setBreakpoints", source={"path": str(GO_FILE)}, breakpoints=[{"line": line}])[
            "breakpoints"
        ]
        assert set_at["verified"], set_at
        dap.ask("configurationDone")
        dap.answer(attached)
        stopped = dap.event("stopped")
        assert stopped["reason"] == "breakpoint"
        frame = dap.ask("stackTrace", threadId=stopped["threadId"])["stackFrames"][0]
        assert (frame["line"], frame["source"]["path"]) == (set_at["line"], str(GO_FILE))
        dap.send("continue", threadId=stopped["threadId"])
        assert_answered(up, "go", called)


@pytest.mark.usefixtures("unpooled")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_caller_that_leaves_before_anybody_attached_leaves_nothing(up: Up, number: int) -> None:
    with call(up, "PythonIngest") as called:
        with connected(called.port, LISTENS_WITHIN_S):
            pass
        called.process.send_signal(number)
        code, out, _ = called.ended()
        assert (code, out) == (130 if number == signal.SIGINT else -signal.SIGKILL, "")
        wait_until(lambda: not any(f"127.0.0.1:{called.port}" in found for found in processes_of(up.project)), 10)
        assert up.items("python", called.batch_id) == []


def test_port_that_is_taken(up: Up) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        program = str(Path(sys.executable).with_name("lambdalab"))
        done = subprocess.run(
            [program, "invoke", "PythonIngest", "-e", "-", "--debug", str(port)],
            cwd=up.project,
            input="{}",
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 3
    assert f"port {port} on 127.0.0.1 cannot be had (Address already in use)" in done.stderr


def test_debugger_is_seen_only_by_what_it_debugs(up: Up) -> None:
    """Neither the interpreter of functions nor the package has it."""
    python = next(f["interpreter"] for f in up.status()["functions"].values() if f["interpreter"])
    done = subprocess.run([python, "-c", "import debugpy"], capture_output=True, text=True, check=False, cwd="/")
    assert "ModuleNotFoundError" in done.stderr


def test_debug_information_is_found_where_it_is(tmp_path: Path, go_package: Path) -> None:
    assert has_debug_information(go_package / "bootstrap")
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert not has_debug_information(tmp_path / "script")


def test_only_debugging_keeps_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    def flags() -> Any:
        return build_variables()["GOFLAGS"]

    monkeypatch.setenv("SAM_BUILD_MODE", "debug")
    assert flags() == "-trimpath -tags=lambda.norpc"
    monkeypatch.delenv("SAM_BUILD_MODE")
    assert flags() == "-trimpath -ldflags=-s -tags=lambda.norpc"


def test_process_that_left_its_group_is_still_one_of_the_debugged() -> None:
    """As delve's child does; without control groups nothing else would find it."""
    told: list[str] = []
    limits = Unthrottled(Unlimited(told.append))
    child = "import os, time; os.setpgid(0, 0); print(os.getpid(), flush=True); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as leader:
        limits.enter(leader.pid)
        assert leader.stdout is not None
        pid = int(leader.stdout.readline())
        try:
            assert {leader.pid, pid} <= set(limits.pids())
            leader.kill()
            leader.wait()
            assert pid in limits.pids()
        finally:
            os.kill(pid, signal.SIGKILL)
    limits.close()
