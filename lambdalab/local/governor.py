"""A CPU share and a memory limit without control groups, by signals: one process governs all environments of a plane.

Every 20 ms an environment may use its quota of CPU time. The governor reads the CPU clock of its processes, stops them
with SIGSTOP when the quota is used, and continues them with SIGCONT when the next period begins. What was used beyond
the quota is taken from the next periods, so the share stays right on a busy machine too. Resident memory is read once a
period; an environment above its limit is killed, as the kernel would kill it.

Plane and governor share a table of slots, one for each environment, and a pipe. The plane writes a slot, then the
number of the slot to the pipe; the governor ends when the pipe is closed. The plane alone decides whether an
environment is frozen: it sets FROZEN before it stops the processes, and clears it before it continues them. The
governor looks at FROZEN again after every SIGCONT of its own, so an environment never runs between invocations.
"""

import contextlib
import ctypes
import os
import select
import signal
import struct
import sys
import time
from mmap import mmap
from typing import Final

SLOTS: Final = 2048
"""More than the account's concurrency of 1,000, because an environment that ends holds its slot for a moment."""
PGID, QUOTA_NS, PERIOD_NS, MEMORY_BYTES, FROZEN, OOM_KILLS, WIDTH = range(7)
"""The columns of a slot, 64-bit each. PGID is 0 in a free slot; QUOTA_NS is 0 where CPU is not limited."""
TABLE_BYTES: Final = SLOTS * WIDTH * 8
SLOT: Final = struct.Struct("<H")
"""How the number of a slot that changed is written to the pipe."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")
_CORES: Final = len(os.sched_getaffinity(0))
_SHORTEST_LOOK_NS: Final = 100_000
"""The least time between two looks at a CPU clock. It bounds what looking costs, and what one look can come late."""
_MEMORY_LOOK_NS: Final = 20_000_000
_PR_SET_TIMERSLACK: Final = 29
_CLOCK_OF_PROCESS: Final = 2
"""CPUCLOCK_SCHED of the kernel's clock ids: the CPU time of all threads of a process, in nanoseconds."""


def cpu_clock_ns(pid: int) -> int:
    """The CPU time that a process has used, all its threads together.

    Raises:
        OSError: the process is gone, or this kernel does not show its clock.
    """
    return time.clock_gettime_ns((~pid << 3) | _CLOCK_OF_PROCESS)


def descendants(pid: int) -> list[int]:
    """A process and all that it started, directly or not, and that still have a parent among them."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):  # noqa: PTH208 - three times as fast
                with contextlib.suppress(OSError):
                    found += map(int, _read(f"/proc/{parent}/task/{task}/children").split())
    return found


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


class Governed:
    """One environment as the governor sees it."""

    def __init__(self, slot: "memoryview[int]", pgid: int, now_ns: int) -> None:
        self._slot, self.pgid = slot, pgid
        self._pids = [pgid]
        self._clocks_ns = {pgid: 0}
        self._used_ns = self._allowed_ns = 0
        self._rate = 1.0
        self._period_end_ns = self._looked_ns = now_ns
        self._is_limited = False
        self._is_stopped: bool | None = None
        self._has_told = False

    def woken(self) -> None:
        """The plane may have stopped or continued the processes, so their state is not known."""
        self._is_stopped = None

    def look(self, now_ns: int) -> int | None:
        """Stops or continues the processes as is due; returns when to look again, None when there is nothing to do.

        Raises:
            PermissionError: this process may not signal them, or not read their clock.
            OSError: they are gone.
        """
        slot = self._slot
        if slot[FROZEN]:
            return None
        quota_ns = slot[QUOTA_NS]
        if now_ns >= self._period_end_ns:
            self._pids = descendants(self.pgid)
            if self._memory_is_over(slot[MEMORY_BYTES]):
                slot[OOM_KILLS] += 1
                self._signal(signal.SIGKILL)
                return None
        if not quota_ns:
            self._is_limited = False
            self._period_end_ns = now_ns + _MEMORY_LOOK_NS
            return self._period_end_ns
        self._look_at_clocks(now_ns)
        if not self._is_limited:  # what was used before does not count
            self._is_limited = True
            self._allowed_ns, self._period_end_ns = self._used_ns, now_ns
        if now_ns >= self._period_end_ns:
            periods = (now_ns - self._period_end_ns) // slot[PERIOD_NS] + 1
            self._period_end_ns += periods * slot[PERIOD_NS]
            owed_ns = max(0, self._used_ns - self._allowed_ns)
            self._allowed_ns = self._used_ns + quota_ns - max(0, owed_ns - (periods - 1) * quota_ns)
        left_ns = self._allowed_ns - self._used_ns
        if left_ns > 0:
            if self._is_stopped is not False:
                self._continue()
            return min(self._period_end_ns, now_ns + max(int(left_ns / self._rate), _SHORTEST_LOOK_NS))
        if self._is_stopped is not True:
            self._signal(signal.SIGSTOP)
            self._is_stopped = True
        return self._period_end_ns

    def _look_at_clocks(self, now_ns: int) -> None:
        before_ns, elapsed_ns = self._used_ns, now_ns - self._looked_ns
        self._read_clocks()
        self._looked_ns = now_ns
        if elapsed_ns > _SHORTEST_LOOK_NS and self._is_stopped is False:
            # Follow a rise at once and a fall slowly: a second thread must not run away with the quota.
            self._rate = min(_CORES, max(1.0, (self._used_ns - before_ns) / elapsed_ns, self._rate * 0.9))

    def _read_clocks(self) -> None:
        used_ns = self._used_ns
        clocks_ns = {}
        for pid in self._pids:
            try:
                clock_ns = cpu_clock_ns(pid)
            except OSError:
                if pid == self.pgid:
                    raise
                continue
            used_ns += clock_ns - self._clocks_ns.get(pid, 0)
            clocks_ns[pid] = clock_ns
        self._used_ns, self._clocks_ns = used_ns, clocks_ns

    def _memory_is_over(self, limit_bytes: int) -> bool:
        if not limit_bytes:
            return False
        pages = 0
        for pid in self._pids:
            with contextlib.suppress(OSError):
                pages += int(_read(f"/proc/{pid}/statm").split()[1])
        is_over = pages * _PAGE_BYTES > limit_bytes
        return is_over and (len(self._pids) == 1 or self._shared_once_kb() * 1024 > limit_bytes)

    def _shared_once_kb(self) -> int:
        """Memory of all processes, in which pages that several share count once (Pss of proc_pid_smaps(5))."""
        kb = 0
        for pid in self._pids:
            with contextlib.suppress(OSError):
                _, found, rest = _read(f"/proc/{pid}/smaps_rollup").partition(b"\nPss:")
                kb += int(rest.split()[0]) if found else 0
        return kb

    def _continue(self) -> None:
        self._signal(signal.SIGCONT)
        self._is_stopped = False
        if self._slot[FROZEN]:  # since the look above; if it was thawed meanwhile, the pipe says so
            self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        os.killpg(self.pgid, number)
        for pid in self._pids[1:]:  # those that left the group too; and killpg does not tell whom it could not signal
            try:
                os.kill(pid, number)
            except PermissionError:
                self._tell_of(pid)
            except OSError:
                pass

    def _tell_of(self, pid: int) -> None:
        """Says once, in the plane's log, that a process of the environment became another user's, as with sudo."""
        if not self._has_told:
            self._has_told = True
            sys.stderr.write(
                f"process {pid} of environment {self.pgid} is another user's and cannot be stopped; "
                "its CPU time counts as that of its environment\n"
            )


class Governor:
    """Governs what the table says until the pipe is closed."""

    def __init__(self, table: "memoryview[int]", pipe: int) -> None:
        self._table, self._pipe = table, pipe
        self._governed: dict[int, Governed] = {}
        self._due_ns: dict[int, int] = {}

    def run(self) -> None:
        """Returns when the plane has closed its end of the pipe, or has ended.

        Raises:
            PermissionError: an environment cannot be governed.
        """
        for number in range(SLOTS):  # those of a governor that was killed
            self._wake(number)
        while True:
            now_ns = time.monotonic_ns()
            for number in [number for number, due_ns in self._due_ns.items() if due_ns <= now_ns]:
                self._look(number)
            wait_ns = min(self._due_ns.values()) - time.monotonic_ns() if self._due_ns else None
            ready, _, _ = select.select((self._pipe,), (), (), None if wait_ns is None else max(0, wait_ns) / 1e9)
            if ready:
                changed = os.read(self._pipe, SLOT.size * 4096)
                if not changed:
                    return
                for (number,) in set(SLOT.iter_unpack(changed)):
                    self._wake(number)

    def _wake(self, number: int) -> None:
        slot = self._table[number * WIDTH : (number + 1) * WIDTH]
        pgid = slot[PGID]
        governed = self._governed.get(number)
        if governed is not None and governed.pgid != pgid:
            self._forget(number)
            governed = None
        if not pgid or not (slot[QUOTA_NS] or slot[MEMORY_BYTES]):
            return
        try:
            if governed is None:
                self._governed[number] = Governed(slot, pgid, time.monotonic_ns())
            else:
                governed.woken()
        except OSError:
            return
        self._look(number)

    def _look(self, number: int) -> None:
        try:
            due_ns = self._governed[number].look(time.monotonic_ns())
        except PermissionError:
            raise
        except OSError:
            self._forget(number)
            return
        if due_ns is None:
            self._due_ns.pop(number, None)
        else:
            self._due_ns[number] = due_ns

    def _forget(self, number: int) -> None:
        self._governed.pop(number, None)
        self._due_ns.pop(number, None)


def main() -> None:
    """Governs; the arguments are the descriptors of the table and of the pipe. Ends with EX_NOPERM if it may not."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the plane closes the pipe when it ends
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    table, pipe = map(int, sys.argv[1:])
    low = os.dup(pipe)  # select knows none above 1,023, and a plane of many environments has that many open
    os.close(pipe)
    try:
        Governor(memoryview(mmap(table, TABLE_BYTES)).cast("q"), low).run()
    except PermissionError:
        sys.exit(os.EX_NOPERM)


if __name__ == "__main__":
    main()
