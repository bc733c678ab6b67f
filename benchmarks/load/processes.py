"""CPU time of all processes that take part in a load run, read once a second and told for any stretch of the run."""

import os
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
import psutil

from lambdalab.analysis.load_limit import BUSY
from lambdalab.load.processes import cpu_times, wait_s
from lambdalab.local.stack import LocalStack
from lambdalab.machine_load import read_machine

SINGLE: Final = ("emulator", "plane", "sender")
"""Processes that work in one thread, so one core is the most they can use."""
PARTS: Final = (*SINGLE, "books", "functions")
"""Whose CPU time is told. ``books`` is the process that keeps a load run's books, ``functions`` all below the plane."""
_IDLE: Final = "idle"
_CORES: Final = os.cpu_count() or 1


class Reading(NamedTuple):
    """Seconds up to a moment: ``cpu`` of each part and ``idle`` of all cores, ``wait`` with work and without a core."""

    at_ms: float
    cpu: dict[str, float]
    wait: dict[str, float]


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """CPU use over a stretch of time, in cores: of each part, of ``others``, and ``idle`` of the whole machine.

    ``wait`` is the share of the time in which a process had work and no core.
    """

    cpu: dict[str, float]
    wait: dict[str, float]
    idle: float

    @property
    def others(self) -> float:
        """What took no part in the load, this benchmark and the kernel's own work among it."""
        return max(_CORES - self.idle - sum(self.cpu.values()), 0.0)

    @property
    def limits(self) -> tuple[str, ...]:
        """What had no more to give: processes that had work for a whole core, and the machine when no core was idle."""
        busy = [name for name in SINGLE if self.cpu[name] + self.wait[name] >= BUSY]
        return (*busy, *([f"all {_CORES} cores"] if 1 - self.idle / _CORES >= BUSY else []))


def read(stack: LocalStack, sender_pid: int) -> Reading | None:
    """Reads all counters; None when a process has just ended."""
    pids = dict(zip(SINGLE, (stack.emulator.pid, stack.plane.pid, sender_pid), strict=True))
    try:
        cpu: dict[str, float | None] = {name: (of := cpu_times(pid)) and of.own_s for name, pid in pids.items()}
        cpu |= {"books": _below_s(sender_pid), "functions": _below_s(stack.plane.pid), _IDLE: read_machine().idle_s}
    except psutil.NoSuchProcess:
        return None
    wait = {name: wait_s(pid) for name, pid in pids.items()}
    if None in cpu.values() or None in wait.values():
        return None
    return Reading(time.time() * 1000, _known(cpu), _known(wait))


def use_between(readings: Sequence[Reading], begin_ms: float, end_ms: float) -> Use:
    """CPU use between two moments, between readings by interpolation."""
    at_ms = [reading.at_ms for reading in readings]

    def grown(counters: Sequence[dict[str, float]], name: str) -> float:
        begin, end = np.interp([begin_ms, end_ms], at_ms, [counter[name] for counter in counters])
        return float(end - begin) / (end_ms - begin_ms) * 1000

    cpu = [reading.cpu for reading in readings]
    wait = [reading.wait for reading in readings]
    return Use(
        cpu={name: grown(cpu, name) for name in PARTS},
        wait={name: grown(wait, name) for name in SINGLE},
        idle=grown(cpu, _IDLE),
    )


def _below_s(pid: int) -> float:
    """CPU time of all processes below one; those that have ended count as soon as they were waited for."""
    root = psutil.Process(pid)
    total = sum(root.cpu_times()[2:4])
    for process in root.children(recursive=True):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return float(total)


def _known(counters: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in counters.items() if value is not None}
