"""Whose CPU time is whose, read from real processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lambdalab.load.processes import Processes, cpu_times

SPIN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
AT_LEAST_S = 0.28
"""A spin takes 0.3 s; the kernel counts CPU time in steps of 10 ms."""
STAY = "print(os.getpid(), flush=True); sys.stdin.read()\n"


@contextmanager
def script(text: str) -> Iterator[list[int]]:
    """Runs a script until it has printed as many process ids as it starts processes; yields its own and these."""
    with subprocess.Popen(
        [sys.executable, "-c", f"import os, subprocess, sys\n{text}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        printed = [int(process.stdout.readline()) for _ in range(text.count("print("))]
        yield [process.pid, *printed]
        process.kill()


def test_functions_are_those_that_run_and_those_that_have_ended() -> None:
    plane = (
        f"subprocess.run([sys.executable, '-c', {SPIN!r}])\n"
        f"subprocess.Popen([sys.executable, '-c', {'import os, sys' + chr(10) + SPIN + STAY!r}]).wait()\n"
    )
    with script(plane) as (plane_pid, function_pid):
        processes = Processes(sender_pid=os.getpid(), emulator_pid=plane_pid, plane_pid=plane_pid)
        function = cpu_times(function_pid)
        assert function is not None
        assert function.own_s >= AT_LEAST_S
        running, none = processes.read(function.own_s), processes.read(0.0)
        assert running["functions_cpu_s"] is not None
        assert none["functions_cpu_s"] is not None
        assert none["functions_cpu_s"] >= AT_LEAST_S, "the one that has ended"
        assert running["functions_cpu_s"] == none["functions_cpu_s"] + function.own_s
        assert running["plane_cpu_s"] == running["emulator_cpu_s"] != running["functions_cpu_s"]
        assert (running["busy_s"] or 0) > 0
        assert (running["bookkeeper_cpu_s"] or 0) > 0
    ended = processes.read(0.0)
    assert [ended[f"{name}_cpu_s"] for name in ("plane", "emulator", "functions")] == [None, None, None]
    assert ended["plane_wait_s"] is None


def test_workers_that_the_sender_forked_are_the_sender_and_its_other_children_are_not() -> None:
    sender = f"if os.fork() == 0:\n    {SPIN.replace(chr(10), chr(10) + '    ', 1)}    {STAY}"
    other = f"subprocess.Popen([sys.executable, '-c', {'import os, sys' + chr(10) + SPIN + STAY!r}]).wait()\n"
    for text, is_sender in ((f"{sender}else:\n    os.wait()\n", True), (other, False)):
        with script(text) as (leader_pid, _):
            found = Processes(sender_pid=leader_pid, emulator_pid=leader_pid, plane_pid=leader_pid).read(0.0)
            assert found["sender_cpu_s"] is not None
            assert found["emulator_cpu_s"] is not None
            others_s = found["sender_cpu_s"] - found["emulator_cpu_s"]
            assert (others_s >= AT_LEAST_S) is is_sender
