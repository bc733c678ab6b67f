"""The plane's side of ``governor``: the table of slots, the governor's process, and the limits of one environment."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from mmap import mmap
from typing import Final

from lambdalab import loopback
from lambdalab.local.governor import (
    FROZEN,
    MEMORY_BYTES,
    OOM_KILLS,
    PERIOD_NS,
    PGID,
    QUOTA_NS,
    SLOT,
    SLOTS,
    TABLE_BYTES,
    WIDTH,
    cpu_clock_ns,
    descendants,
)
from lambdalab.local.limits import LimitError, Limits, bandwidth_us, cpu_share

log: Final = logging.getLogger("lambdalab.plane")
_MOST_RESTARTS: Final = 10
"""A governor that ends this often is not started again: something ends it on purpose."""


class Signals:
    """Makes limits that a governor enforces by signals.

    Args:
        tell: called with what would be left if the plane were killed, in the form ``guard`` reads.
        cpu_scale: multiplies every CPU share.

    Raises:
        LimitError: this machine does not show the CPU clock of a child.
    """

    kind = "signals"
    why: str | None = None
    controllers: tuple[str, ...] = ()

    def __init__(self, *, tell: Callable[[str], None] = lambda _: None, cpu_scale: float = 1.0) -> None:
        _try_out()
        self._tell, self._cpu_scale = tell, cpu_scale
        self._descriptor = os.memfd_create("lambdalab-limits")
        os.ftruncate(self._descriptor, TABLE_BYTES)
        self._table = memoryview(mmap(self._descriptor, TABLE_BYTES)).cast("q")
        self._free = list(range(SLOTS))
        self._closing, self._changing = False, threading.Lock()
        self._pipe, self._governor = self._start()
        threading.Thread(target=self._keep_governed, name="governor", daemon=True).start()

    @property
    def governor_pid(self) -> int:
        """The process that governs now."""
        return self._governor.pid

    def create(self, environment: str) -> "SignalLimits":  # noqa: ARG002 - the protocol's signature
        """The limits of a new environment.

        Raises:
            LimitError: every slot is taken.
        """
        if not self._free:
            raise LimitError(f"{SLOTS} environments exist already, more than one governor holds")
        return SignalLimits(self, self._free.pop())

    def close(self) -> None:
        """Ends the governor, after every environment."""
        with self._changing:
            self._closing = True
            os.close(self._pipe)
        self._governor.wait()
        os.close(self._descriptor)

    def _start(self) -> "tuple[int, subprocess.Popen[bytes]]":
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        try:
            command = [sys.executable, "-m", "lambdalab.local.governor", str(self._descriptor), str(reading)]
            inherited = (self._descriptor, reading)
            governor = subprocess.Popen(
                command,
                env=loopback.variables(),
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(reading)
        return writing, governor

    def _keep_governed(self) -> None:
        """Starts another governor when one has ended; it takes up what the table says."""
        why = f"the governor ended {_MOST_RESTARTS + 1} times"
        for restarts in range(_MOST_RESTARTS + 1):
            code = self._governor.wait()
            with self._changing:
                if self._closing:
                    return
                if code == os.EX_NOPERM:
                    why = "the governor may not stop a process of a function, or not read its CPU clock"
                    break
                if restarts < _MOST_RESTARTS:
                    log.warning("the governor of CPU and memory ended with %d; another takes its place", code)
                    # The other pipe stays open: it may be written to just now.
                    self._pipe, self._governor = self._start()
        self.kind, self.why = "none", why
        log.error("CPU and memory are not limited any more: %s", why)
        self._continue_all()

    def _continue_all(self) -> None:
        """Continues what the governor left stopped, but not what is frozen."""
        for number in range(SLOTS):
            slot = self.slot(number)
            pgid = slot[PGID]
            if pgid and not slot[FROZEN]:
                with contextlib.suppress(OSError):
                    os.killpg(pgid, signal.SIGCONT)
                    if slot[FROZEN]:  # since the look above
                        os.killpg(pgid, signal.SIGSTOP)

    def wake(self, number: int) -> None:
        """Says that a slot has changed."""
        with contextlib.suppress(BrokenPipeError, BlockingIOError):  # a governor that starts reads every slot
            os.write(self._pipe, SLOT.pack(number))

    def slot(self, number: int) -> "memoryview[int]":
        """One row of the table."""
        return self._table[number * WIDTH : (number + 1) * WIDTH]

    def free(self, number: int) -> None:
        """Gives a slot back, cleared."""
        slot = self.slot(number)
        for column in range(WIDTH):
            slot[column] = 0
        self.wake(number)
        self._free.insert(0, number)

    def tell(self, line: str) -> None:
        """Tells the guard."""
        self._tell(line)

    def quota_ns(self, memory_mb: int) -> tuple[int, int]:
        """CPU time and its period in nanoseconds; no quota where the share is all that this machine has."""
        share = cpu_share(memory_mb, self._cpu_scale)
        quota_us, period_us = bandwidth_us(share)
        return (0 if share >= len(os.sched_getaffinity(0)) else quota_us * 1000), period_us * 1000


class SignalLimits(Limits):
    """One slot of the table."""

    def __init__(self, signals: Signals, number: int) -> None:
        self._signals, self._number = signals, number
        self._slot = signals.slot(number)
        self._pid: int | None = None

    def enter(self, pid: int) -> None:
        self._leave()
        self._pid = pid
        self._signals.tell(f"+{pid}")
        self._slot[FROZEN] = 0
        self._slot[PGID] = pid
        self._signals.wake(self._number)

    def limit_memory(self, memory_mb: int) -> None:
        self._slot[MEMORY_BYTES] = memory_mb * 1024 * 1024
        self._signals.wake(self._number)

    def limit_cpu(self, memory_mb: int | None) -> None:
        quota_ns, period_ns = (0, 0) if memory_mb is None else self._signals.quota_ns(memory_mb)
        self._slot[PERIOD_NS] = period_ns
        self._slot[QUOTA_NS] = quota_ns
        self._signals.wake(self._number)

    def pids(self) -> list[int]:
        return [] if self._pid is None else descendants(self._pid)

    def oom_kills(self) -> int:
        return self._slot[OOM_KILLS]

    def close(self) -> None:
        self._leave()
        self._signals.free(self._number)

    def freeze(self, pid: int) -> None:
        self._slot[FROZEN] = 1
        super().freeze(pid)

    def thaw(self, pid: int) -> None:
        self._slot[FROZEN] = 0
        super().thaw(pid)
        self._signals.wake(self._number)

    def _leave(self) -> None:
        if self._pid is not None:
            self._slot[PGID] = 0
            self._signals.tell(f"-{self._pid}")
        self._pid = None


def _try_out() -> None:
    """Reads the CPU clock of a child once, so that nothing is promised that does not hold."""
    with subprocess.Popen(["sleep", "60"], env=loopback.variables(), stdin=subprocess.DEVNULL) as sleeper:
        try:
            cpu_clock_ns(sleeper.pid)
        except OSError as error:
            raise LimitError(f"the CPU clock of a child cannot be read ({error.strerror})") from error
        finally:
            sleeper.kill()
