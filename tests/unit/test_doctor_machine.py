"""``lambdalab doctor`` on this machine, which tests make wrong: what it says is compared with what they did."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from command_line import Call, call_fixture, project_fixture  # noqa: F401
from samples import ROOT
from test_store import file_size_limit

from lambdalab.build.tools import MINISTACK
from lambdalab.doctor import local_stack, machine
from lambdalab.doctor.findings import Finding, Verdict
from lambdalab.doctor.local_stack import local_stack_findings
from lambdalab.doctor.machine import disk_finding, machine_findings
from lambdalab.local.cgroup import Cgroups
from lambdalab.local.daemon import Daemon, start_daemon
from lambdalab.local.filesystem import FileSystems
from lambdalab.local.stack import LocalStack
from lambdalab.lock import hold_stack

TMP = Path("/tmp")  # noqa: S108


@pytest.fixture
def tools(project: Path) -> Path:
    """The tools of this machine in the project of a test."""
    (project / ".lambdalab").mkdir()
    (project / ".lambdalab" / "tools").symlink_to(ROOT / ".lambdalab" / "tools")
    (project / "tools").symlink_to(ROOT / "tools")
    return project


def told() -> dict[str, Finding]:
    return {one.check: one for one in machine_findings(Path("results"), local=True)}


def told_of_the_stack() -> dict[str, Finding]:
    return {one.check: one for one in local_stack_findings()}


def test_this_machine_is_said_as_it_is(call: Call, tools: Path) -> None:
    ended = call("doctor", "--json")
    found = {check["check"]: check for check in json.loads(ended.out)["checks"]}
    for check in ("system", "go", "sam", "ministack", "disk of results", "clock", "local stack", "left processes"):
        assert found[check]["verdict"] == "ok", found[check]
    assert found["cores"]["found"].startswith(f"{len(os.sched_getaffinity(0))}, load ")
    assert ended.code == 0, found
    assert not (tools / "results").exists(), "nothing is made by looking"
    made = {path.name for path in (tools / ".lambdalab").iterdir()}
    assert made - {"pythons"} == {"tools"}, "the lab's note of Pythons is there if no test before asked for them"


def test_for_aws_only_what_sends_and_builds_is_looked_at(tools: Path) -> None:
    found = {one.check for one in machine_findings(Path("results"), local=False)}
    assert {"sam", "go", "disk of builds"} <= found
    assert not {"ministack", "cpu limit", "docker"} & found


def programs(folder: Path, **scripts: str) -> str:
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_no_go_on_path_and_none_from_its_wheel(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tools / ".lambdalab" / "tools").unlink()
    monkeypatch.setenv("PATH", programs(tools / "empty"))
    found = told()["go"]
    assert (found.verdict, found.found.partition(",")[0]) == (Verdict.WARNING, "no go on PATH")
    assert "wheel" in str(found.means)
    assert not (tools / ".lambdalab" / "tools" / "bin").exists(), "and nothing was installed"


@pytest.mark.parametrize(("script", "said"), [("echo go1.2.3", "is 1.2.3"), ("exit 1", "is not a working go")])
def test_a_go_that_is_too_old_or_broken(tools: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str) -> None:
    (tools / ".lambdalab" / "tools").unlink()
    monkeypatch.setenv("PATH", programs(tools / "old", go=script))
    assert said in told()["go"].found


def test_tools_that_are_not_installed_or_do_not_start(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tools / ".lambdalab" / "tools").unlink()
    found = told()
    for name in ("sam", "ministack"):
        assert (found[name].verdict, found[name].next_step) == (Verdict.WRONG, "run `make setup`")
    folder = tools / ".lambdalab" / "tools"
    programs(folder / "bin", sam="exit 7", ministack="")
    found = told()
    assert "does not start" in found["sam"].found
    assert "is gone" in found["ministack"].found
    (folder / "bin" / "sam").write_text("#!/bin/sh\necho SAM CLI, version 0.1")
    assert told()["sam"].found == "another one than the pinned aws-sam-cli==1.170.0"
    (folder / "bin" / "sam").write_text("#!/bin/sh\nexec sleep 60")
    monkeypatch.setattr(machine, "_TOOL_LIMIT_S", 0.1)
    assert told()["sam"].verdict is Verdict.WRONG


def test_an_emulator_that_was_replaced(tools: Path) -> None:
    (tools / ".lambdalab" / "tools").unlink()
    (tools / ".lambdalab" / "tools").mkdir()
    programs(tools / ".lambdalab" / "tools" / "bin", ministack="", python="echo 1.5.99")
    found = told()["ministack"]
    pinned = MINISTACK.rpartition("=")[2]
    assert (found.verdict, found.found) == (Verdict.WARNING, f"1.5.99 in place of the pinned {pinned}")
    assert found.next_step == "remove .lambdalab/tools and run `make setup`"
    (tools / ".lambdalab" / "tools" / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    assert told()["ministack"].verdict is Verdict.WRONG


@pytest.mark.parametrize("is_there", [True, False])
def test_setup_installs_tools_that_were_removed(tmp_path: Path, is_there: bool) -> None:
    (tmp_path / "Makefile").symlink_to(ROOT / "Makefile")
    for name in ("pyproject.toml", "uv.lock", "tools/sam.txt", "tools/ministack.txt", "lambdalab/build/tools.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in (".lambdalab/tools/bin/ministack", ".venv/setup-done") if is_there else (".venv/setup-done",):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    done = subprocess.run(["make", "-n", "setup"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ("-m lambdalab.build.tools" in done.stdout) is not is_there


def test_nothing_limits_here(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMBDALAB_LIMITS", "none")
    found = told()["cpu limit"]
    assert (found.verdict, found.found) == (Verdict.WARNING, "none, because LAMBDALAB_LIMITS is none")
    assert "do not depend on the memory size" in str(found.means)


def test_a_way_of_limiting_that_there_is_not(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMBDALAB_LIMITS", "cgroups")
    found = told()["cpu limit"]
    assert (found.verdict, found.found) == (Verdict.WRONG, "LAMBDALAB_LIMITS is 'cgroups'")


def test_signals_limit_where_no_control_group_can_be_written(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMBDALAB_LIMITS", "signals")
    found = told()["cpu limit"]
    assert re.search(
        r"signals; of the CPU time that is due a busy process got [\d.]+% at 128 MB, [\d.]+% at", found.found
    )


@pytest.mark.parametrize(("share", "means"), [(0.97, "the share is kept"), (0.9, "off by more than 5%")])
def test_share_is_held_against_what_is_due(
    tools: Path, monkeypatch: pytest.MonkeyPatch, share: float, means: str
) -> None:
    monkeypatch.setenv("LAMBDALAB_LIMITS", "signals")
    monkeypatch.setattr(machine, "delivered_share", lambda *_: share)
    assert means in str(told()["cpu limit"].means)


@pytest.mark.needs("cgroup")
def test_control_groups_that_a_killed_plane_left(tools: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    own = Cgroups(f"lambdalab-doctor-{os.getpid()}")
    left = [root.with_name(f"lambdalab-gone-{ended.pid}") for root in own._roots]
    try:
        for group in left:
            group.mkdir()
        found = {one.check: one for one in machine._cpu_limit()}
        assert found["left groups"].verdict is Verdict.WARNING
        assert not any(group.exists() for group in left)
        assert [one.check for one in machine._cpu_limit()] == ["cpu limit"]
    finally:
        own.close()


def test_a_disk_that_takes_no_file_so_large(tmp_path: Path) -> None:
    assert disk_finding("disk", tmp_path / "not" / "made" / "yet").verdict is Verdict.OK
    with file_size_limit(1000):
        found = disk_finding("disk", tmp_path)
    assert found.verdict is Verdict.WRONG
    assert f"{tmp_path} does not take a file of 1 MiB (File too large)" in found.found


def test_a_folder_that_takes_no_files() -> None:
    found = disk_finding("disk", Path("/proc/1"))
    assert found.verdict is Verdict.WRONG
    assert "/proc/1 does not take a file" in found.found


@pytest.mark.needs("image")
def test_a_file_system_that_is_full(tmp_path: Path) -> None:
    files = FileSystems(tmp_path)
    small = files.create(tmp_mb=8, needed=(), layers=None)
    try:
        asyncio.run(small.prepare())
        before, _ = small.spawn(lambda: disk_finding("disk", TMP))

        def fill() -> Finding:
            with contextlib.suppress(OSError), (TMP / "block").open("wb", buffering=0) as block:
                while True:
                    block.write(bytes(2**16))
            return disk_finding("disk", TMP)

        full, _ = small.spawn(fill)
    finally:
        small.close()
        files.close()
    assert not (TMP / "block").exists(), "it was another file system's"
    assert (before.verdict, full.verdict) == (Verdict.WARNING, Verdict.WRONG)
    assert "(No space left on device)" in full.found


def test_little_space_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST_FREE_MB", 10**9)
    assert disk_finding("disk", tmp_path).verdict is Verdict.WARNING
    monkeypatch.setattr(machine, "LEAST_FREE_MB", 0)
    monkeypatch.setattr(machine, "LEAST_INODES", 10**15)
    has_inodes = os.statvfs(tmp_path).f_files > 0
    assert disk_finding("disk", tmp_path).verdict is (Verdict.WARNING if has_inodes else Verdict.OK)


def test_little_memory_and_a_busy_machine(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST_MEMORY_MB", 10**9)
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    found = told()
    assert (found["memory"].verdict, found["cores"].verdict) == (Verdict.WARNING, Verdict.WARNING)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert "share one" in str(told()["cores"].means)


def test_a_clock_before_the_projects_own_files(tools: Path) -> None:
    ahead = time.time() + 86400
    os.utime(tools / "tiny.toml", (ahead, ahead))
    found = told()["clock"]
    assert (found.verdict, found.found.endswith("is before tiny.toml was written")) == (Verdict.WRONG, True)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [(b"HTTP/1.0 200 OK\r\n\r\nOK", "ok"), (b"HTTP/1.0 500 Oops\r\n\r\n", "warning"), (b"", "warning")],
)
def test_a_docker_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, verdict: str) -> None:
    path = str(TMP / f"lambdalab-doctor-{os.getpid()}.sock")  # a socket's path has 107 characters at most
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        try:
            listener.listen()

            def reply() -> None:
                client, _ = listener.accept()
                with client:
                    assert client.recv(1000).startswith(b"GET /_ping ")
                    client.sendall(answer)

            thread = threading.Thread(target=reply)
            thread.start()
            monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
            (found,) = machine._docker()
            thread.join()
        finally:
            Path(path).unlink()
    assert found.verdict.value == verdict


@pytest.mark.parametrize(
    "where", ["unix:///nowhere.sock", "ssh://host", "nonsense", "tcp://127.0.0.1:1", "tcp://192.0.2.1:2375", ""]
)
def test_no_docker_engine(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", where)
    (found,) = machine._docker()
    assert found.verdict is Verdict.WARNING
    if "192.0.2.1" in where:
        assert "another machine's, which is not asked" in found.found


def test_no_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = machine._browser()
    assert found.verdict is Verdict.WARNING


# the local stack


def test_a_port_that_is_taken_and_one_that_is_free(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as closed:
        ports = [listener.getsockname()[1] for listener in (taken, closed)]
        closed.close()
        monkeypatch.setattr(local_stack, "_PORTS", dict.fromkeys(ports, ("a test", "end it")))
        found = told_of_the_stack()
    assert found[f"port {ports[0]}"].sentence == "taken on 127.0.0.1 (Address already in use): a test wants it; end it"
    assert found[f"port {ports[0]}"].verdict is Verdict.WARNING
    assert found[f"port {ports[1]}"].verdict is Verdict.OK


@pytest.fixture
def daemons(tools: Path) -> Iterator[list[Daemon]]:
    """Processes that look like those of the project's stack, and do nothing; ended with the test."""
    state = tools / ".lambdalab"
    sleep = "import time; time.sleep(120)"
    plane = [sys.executable, "-c", sleep, "lambdalab.local.plane", str(state / "plane.json")]
    found = []
    for name, command in {"emulator": ["sleep", "120"], "plane": plane}.items():
        found.append(start_daemon(command, port=1, log_file=state / f"{name}.log", variables=dict(os.environ)))
    yield found
    for daemon in found:
        daemon.end(grace_s=0)


def keep(project: Path, daemons: list[Daemon]) -> None:
    stack = LocalStack(stack_name="s", emulator=daemons[0], plane=daemons[1])
    (project / ".lambdalab" / "stack.json").write_bytes(msgspec.json.encode(stack))


def test_a_stack_that_is_dead_or_silent(tools: Path, daemons: list[Daemon]) -> None:
    keep(tools, daemons)
    assert "does not answer" in told_of_the_stack()["local stack"].found
    daemons[0].end(grace_s=10)
    found = told_of_the_stack()["local stack"]
    assert found.verdict is Verdict.WRONG
    assert f"emulator (pid {daemons[0].pid}) has ended" in found.found
    assert "`lambdalab down`" in str(found.next_step)


def test_a_stack_file_that_says_nothing(tools: Path) -> None:
    (tools / ".lambdalab" / "stack.json").write_text("{")
    assert told_of_the_stack()["local stack"].verdict is Verdict.WRONG


def test_processes_of_a_stack_that_nobody_knows(tools: Path, daemons: list[Daemon]) -> None:
    plane = daemons[1].pid
    keep(tools, daemons)
    assert told_of_the_stack()["left processes"].verdict is Verdict.OK
    (tools / ".lambdalab" / "stack.json").unlink()
    with hold_stack():
        assert "left processes" not in told_of_the_stack(), "while one comes up nobody can know"
    found = told_of_the_stack()["left processes"]
    assert (found.verdict, found.next_step) == (Verdict.WARNING, f"end them with `kill -9 {plane}`")


def test_functions_that_outlived_their_plane(tools: Path) -> None:
    variables = os.environ | {"LAMBDA_TASK_ROOT": str(tools / ".lambdalab" / "packages" / "x")}
    parent = "import subprocess, time; print(subprocess.Popen(['sleep', '120']).pid, flush=True); time.sleep(120)"
    plane = [sys.executable, "-c", parent, "lambdalab.local.plane", "elsewhere"]
    with subprocess.Popen(plane, stdout=subprocess.PIPE, env=variables) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        try:
            assert told_of_the_stack()["left processes"].verdict is Verdict.OK, "its plane answers for it"
            process.kill()
            process.wait()
            found = told_of_the_stack()["left processes"]
            assert found.verdict is Verdict.WARNING
            assert str(pid) in found.found
        finally:
            process.kill()
            os.kill(pid, signal.SIGKILL)
