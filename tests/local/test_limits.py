"""Machines that refuse what limiting needs: the next best way is taken, and why is said."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from lambdalab.errors import UsageError
from lambdalab.local import signals as module
from lambdalab.local.limiter import allowed_way, find_limiter
from lambdalab.local.limits import cpu_share
from lambdalab.local.signals import Signals
from local.confined import drop_cap_kill, refuse_clocks, refuse_signals, run_confined
from local.support import exists, state

ORDINARY_USER = 54321
INVOKES = """
import asyncio, json, os, sys
from pathlib import Path
from lambdalab.local.filesystem import FileSystems
from lambdalab.local.limiter import find_limiter
from local.support import PYTHON_RUNTIME, Machine, answer, interpreter, python_spec, running

async def main():
    limiter = find_limiter(f"lambdalab-limits-{os.getpid()}")
    files = FileSystems(Path(sys.argv[1]))
    machine = Machine(limiter=limiter, interpreter=interpreter(PYTHON_RUNTIME), files=files)
    async with running(machine, python_spec()) as function:
        answers = [answer(await function.invoke(do="echo", n=n))["n"] for n in range(3)]
    found = limiter.kind, limiter.why, answers, function.pool.cold_starts
    files.close()
    limiter.close()
    print(json.dumps(found))

asyncio.run(main())
"""
GOVERNS_A_STRANGER = """
import json, os, sys, time
from lambdalab.local.signals import Signals

signals = Signals()
limits = signals.create("stranger")
limits.limit_memory(128)
limits.limit_cpu(128)
limits.enter(int(sys.argv[1]))
deadline = time.monotonic() + 5
while signals.why is None and time.monotonic() < deadline:
    time.sleep(0.01)
found = signals.kind, signals.why
limits.close()
signals.close()
print(json.dumps(found))
"""
GOVERNS_A_FAMILY = """
import json, os, signal, subprocess, sys, time
from lambdalab.local.governor import cpu_clock_ns
from lambdalab.local.signals import Signals

signals = Signals()
limits = signals.create("family")
forked = f"import os, time\\nif os.fork() == 0: os.setuid({sys.argv[1]})\\n"
program = forked + "end = time.monotonic() + 20\\nwhile time.monotonic() < end: pass"
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # else the child keeps the test's pipes open
with subprocess.Popen([sys.executable, "-S", "-c", program], start_new_session=True, **quiet) as leader:
    limits.limit_memory(128)
    limits.enter(leader.pid)
    limits.limit_cpu(128)
    time.sleep(0.5)
    before_ns, began_ns = cpu_clock_ns(leader.pid), time.monotonic_ns()
    time.sleep(1)
    share = (cpu_clock_ns(leader.pid) - before_ns) / (time.monotonic_ns() - began_ns)
    left = [pid for pid in limits.pids() if pid != leader.pid]
    leader.kill()
found = signals.kind, share, left
limits.close()
signals.close()
print(json.dumps(found))
"""
TIMES_OUT = """
import asyncio, json, os, sys
from pathlib import Path
from msgspec.structs import replace
from lambdalab.local.filesystem import FileSystems
from lambdalab.local.limiter import find_limiter
from local.support import PYTHON_RUNTIME, Machine, interpreter, python_spec, running

CODE = f'''
import os, time
def handler(event, context):
    pid = os.fork()
    if pid == 0:
        os.setuid({sys.argv[2]})
        time.sleep(60)
    print("stranger", pid, flush=True)
    time.sleep(60)
'''

async def main():
    package = Path(sys.argv[1], "package")
    package.mkdir()
    (package / "forks.py").write_text(CODE)
    limiter = find_limiter(f"lambdalab-limits-{os.getpid()}")
    files = FileSystems(Path(sys.argv[1]))
    machine = Machine(limiter=limiter, interpreter=interpreter(PYTHON_RUNTIME), files=files)
    async with running(machine, python_spec("forks.handler", package=package, timeout_s=1)) as function:
        statuses = [(await function.invoke()).report.status for _ in range(2)]
        pids = [int(line.split()[1]) for line in function.text.splitlines() if line.startswith("stranger ")]
    files.close()
    limiter.close()
    print(json.dumps([statuses, pids]))

asyncio.run(main())
"""


def end(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_environment_names_one_way_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMBDALAB_LIMITS", "")
    assert allowed_way() is None
    monkeypatch.setenv("LAMBDALAB_LIMITS", "none")
    none = find_limiter("lambdalab-test")
    assert (none.kind, none.why) == ("none", "LAMBDALAB_LIMITS is none")
    monkeypatch.setenv("LAMBDALAB_LIMITS", "cgroups")
    said = r"LAMBDALAB_LIMITS is 'cgroups'; set it to cgroup, signals, none, or unset it\."
    with pytest.raises(UsageError, match=said):
        find_limiter("lambdalab-test")


def test_what_limits_has_no_reason_not_to() -> None:
    found = find_limiter(f"lambdalab-limits-{os.getpid()}")
    found.close()
    assert (found.why is None) is (found.kind != "none")


@pytest.mark.needs("seccomp")
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGCONT])
def test_where_a_child_cannot_be_stopped_functions_run_without_limits(tmp_path: Path, number: signal.Signals) -> None:
    found, _ = run_confined(partial(refuse_signals, number), INVOKES, str(tmp_path))
    assert found == ["none", "a child cannot be stopped and continued (Operation not permitted)", [0, 1, 2], 1]


@pytest.mark.needs("seccomp")
def test_where_no_clock_can_be_read_functions_run_without_limits(tmp_path: Path) -> None:
    found, _ = run_confined(refuse_clocks, INVOKES, str(tmp_path), LAMBDALAB_LIMITS="signals")
    why = "the CPU clock of a child cannot be read (Operation not permitted) and LAMBDALAB_LIMITS is signals"
    assert found == ["none", why, [0, 1, 2], 1]


@pytest.mark.needs("root", "signals")
def test_environment_that_may_not_be_stopped_ends_the_limits_of_all() -> None:
    """It is stopped by nobody, so no table may say that signals limit it."""
    with subprocess.Popen(["sleep", "60"], user=ORDINARY_USER, start_new_session=True) as stranger:
        try:
            (kind, why), said = run_confined(drop_cap_kill, GOVERNS_A_STRANGER, str(stranger.pid))
            assert state(stranger.pid) == "S"
        finally:
            stranger.kill()
    assert (kind, why) == ("none", "the governor may not stop a process of a function, or not read its CPU clock")
    assert said.count(why) == 1


@pytest.mark.needs("root", "signals")
def test_child_that_became_another_user_s_is_told_of_once_and_its_parent_pays() -> None:
    (kind, share, left), said = run_confined(drop_cap_kill, GOVERNS_A_FAMILY, str(ORDINARY_USER))
    try:
        assert len(left) == 1
        assert exists(left[0]), "it cannot be ended either"
    finally:
        end(left)
    assert kind == "signals"
    assert share < cpu_share(128), "the child takes a whole core"
    assert said.count(f"process {left[0]} of environment ") == 1
    assert "is another user's and cannot be stopped; its CPU time counts as that of its environment\n" in said


@pytest.mark.needs("root", "signals")
def test_time_out_beside_another_user_s_process_is_reported_like_any_other(tmp_path: Path) -> None:
    arguments = (str(tmp_path), str(ORDINARY_USER))
    (statuses, pids), _ = run_confined(drop_cap_kill, TIMES_OUT, *arguments, LAMBDALAB_LIMITS="signals")
    end(pids)
    assert statuses == ["timeout", "timeout"]
    assert len(pids) == 2


@pytest.mark.needs("signals")
def test_governor_that_ends_again_and_again_leaves_no_environment_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_RESTARTS", 1)
    signals = Signals()
    limits = signals.create("test")
    frozen = signals.create("frozen")
    with (
        subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"], start_new_session=True) as busy,
        subprocess.Popen(["sleep", "60"], start_new_session=True) as idle,
    ):
        try:
            for one, process in ((limits, busy), (frozen, idle)):
                one.limit_memory(128)
                one.enter(process.pid)
                one.limit_cpu(128)
            frozen.freeze(idle.pid)
            for _ in range(2):
                governor = signals.governor_pid
                await_that(lambda: state(busy.pid) == "T")
                os.kill(governor, signal.SIGKILL)
                await_that(lambda: signals.governor_pid != governor or signals.why is not None)  # noqa: B023
            assert (signals.kind, signals.why) == ("none", "the governor ended 2 times")
            await_that(lambda: state(busy.pid) == "R")
            assert state(idle.pid) == "T"
        finally:
            busy.kill()
            idle.kill()
    limits.close()
    frozen.close()
    signals.close()


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


HIDDEN = """
import json, os, sys, time
from pathlib import Path
from lambdalab.local import filesystem
from lambdalab.local.limiter import delivered_share
from lambdalab.local.signals import Signals

signals = Signals()
share = delivered_share(signals, 128, 0.5)
signals.close()
os.setgroups([])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[3]))
is_hidden = not Path("/proc", sys.argv[2]).exists()
filesystem._remove_left_overs(Path(sys.argv[1]))
print(json.dumps([is_hidden, share, sorted(path.name for path in Path(sys.argv[1]).iterdir())]))
"""
HIDE = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'


@pytest.mark.needs("hidepid", "signals")
def test_process_that_proc_hides_still_owns_its_files() -> None:
    """A plane that took it for dead would remove what its functions work on."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    ended = subprocess.Popen(["true"])
    ended.wait()
    try:
        folder.chmod(0o777)
        for pid in (os.getpid(), ended.pid):
            (folder / f"environments-{pid}-x").mkdir()
        command = [sys.executable, "-c", HIDDEN, str(folder), str(os.getpid()), str(ORDINARY_USER)]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", HIDE, "sh", *command], capture_output=True, text=True, check=False
        )
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    is_hidden, share, left = json.loads(done.stdout)
    assert is_hidden
    assert 0 < share < 1.5
    assert left == [f"environments-{os.getpid()}-x"]
