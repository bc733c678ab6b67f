"""The CPU time of the machine and of the processes of a load run on a local stack.

Nothing here looks through all processes of the machine, because this is read once a second beside what it measures.
"""

import contextlib
from pathlib import Path
from typing import NamedTuple

import psutil

from lambdalab.machine_load import read_machine


class Processes:
    """Reads the CPU times that a sample of the pipeline has (``ledger.PipelineSample``).

    Args:
        sender_pid: the process that leads the senders. Workers that it forked before now count with it.
        emulator_pid: the emulator's.
        plane_pid: the plane's.
    """

    def __init__(self, *, sender_pid: int, emulator_pid: int, plane_pid: int) -> None:
        self._emulator, self._plane = emulator_pid, plane_pid
        self._senders = [sender_pid]
        with contextlib.suppress(psutil.Error):
            leader = psutil.Process(sender_pid)
            self._senders += [child.pid for child in leader.children() if child.cmdline() == leader.cmdline()]

    def read(self, running_s: float) -> dict[str, float | None]:
        """The times until now, in seconds. None is not known, as of a process that has ended.

        Args:
            running_s: what the functions' processes took that run now. The plane has the times of those that ended.
        """
        emulator, plane, own = cpu_times(self._emulator), cpu_times(self._plane), cpu_times(psutil.Process().pid)
        senders = [times.own_s for pid in self._senders if (times := cpu_times(pid)) is not None]
        machine = read_machine()
        return {
            "emulator_cpu_s": emulator and emulator.own_s,
            "emulator_wait_s": wait_s(self._emulator),
            "plane_cpu_s": plane and plane.own_s,
            "plane_wait_s": wait_s(self._plane),
            "functions_cpu_s": plane and plane.ended_s + running_s,
            "sender_cpu_s": sum(senders) if senders else None,
            "bookkeeper_cpu_s": own and own.own_s,
            "busy_s": machine.busy_s,
            "idle_s": machine.idle_s,
        }


class CpuTimes(NamedTuple):
    """Seconds of CPU time of a process, and of its children that have ended, with theirs."""

    own_s: float
    ended_s: float


def cpu_times(pid: int) -> CpuTimes | None:
    """What a process has taken until now; None if it has ended."""
    with contextlib.suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return CpuTimes(times.user + times.system, times.children_user + times.children_system)
    return None


def wait_s(pid: int) -> float | None:
    """Seconds in which a process's first thread could have run and had no core; None if it has ended.

    Both the emulator and the plane work in that thread. psutil does not tell it: it is the second field of schedstat,
    in nanoseconds (https://docs.kernel.org/scheduler/sched-stats.html).
    """
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return None
