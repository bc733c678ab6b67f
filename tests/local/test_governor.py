"""A CPU share and a memory limit by signals: the rule of a period on given clocks, the rest on real processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from lambdalab.local import governor
from lambdalab.local.governor import FROZEN, MEMORY_BYTES, PERIOD_NS, PGID, QUOTA_NS, WIDTH, Governed, cpu_clock_ns
from lambdalab.local.limits import cpu_share
from lambdalab.local.signals import SignalLimits, Signals
from local.support import state

MS = 1_000_000
BUSY = "while True: pass"
BUSY_TWICE = "import os\nos.fork()\n" + BUSY
BUSY_ELSEWHERE = "import os\nif os.fork() == 0: os.setsid()\n" + BUSY


class Machine:
    """One environment with a quota of 2 ms every 20 ms, whose clock the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock_ns = 500 * MS
        self.signals: list[int] = []
        self.on_signal: Callable[[], None] = lambda: None
        self.slot = memoryview(bytearray(WIDTH * 8)).cast("q")
        self.slot[PGID], self.slot[QUOTA_NS], self.slot[PERIOD_NS] = 4711, 2 * MS, 20 * MS
        monkeypatch.setattr(governor, "cpu_clock_ns", lambda _: self.clock_ns)
        monkeypatch.setattr(governor, "descendants", lambda pid: [pid])
        monkeypatch.setattr(os, "killpg", self.kill)
        self.governed = Governed(self.slot, 4711, 0)

    def kill(self, pid: int, number: int) -> None:
        assert pid == 4711
        self.signals.append(number)
        self.on_signal()

    def look(self, at_ms: float, used_ms: float = 0) -> float | None:
        """Looks at a moment, after this much CPU time since the look before; returns the next one's, in ms."""
        self.clock_ns += int(used_ms * MS)
        due_ns = self.governed.look(int(at_ms * MS))
        return None if due_ns is None else due_ns / MS


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_quota_is_used_then_the_rest_of_the_period_is_waited_for(machine: Machine) -> None:
    assert machine.look(0) == 2
    assert machine.look(2, used_ms=1.5) == 2.5
    assert machine.look(2.5, used_ms=0.5) == 20
    assert machine.signals == [signal.SIGCONT, signal.SIGSTOP]
    assert machine.look(20) == 22
    assert machine.signals[2:] == [signal.SIGCONT]


def test_what_was_used_before_the_limit_was_set_does_not_count(machine: Machine) -> None:
    machine.slot[QUOTA_NS] = 0
    assert machine.look(0) == 20
    machine.slot[QUOTA_NS] = 2 * MS
    assert machine.look(30, used_ms=1000) == 32
    assert signal.SIGSTOP not in machine.signals


def test_quota_that_was_not_used_is_not_saved_up(machine: Machine) -> None:
    machine.look(0)
    assert machine.look(100, used_ms=0) == 102


@pytest.mark.parametrize(
    ("used_ms", "continued_at_ms"),
    [(2.5, 20), (5.9, 40), (6.1, 60), (21, 200)],  # 2 ms a period are earned
)
def test_what_was_used_beyond_the_quota_is_taken_from_the_next_periods(
    machine: Machine, used_ms: float, continued_at_ms: float
) -> None:
    machine.look(0)
    due_ms = machine.look(2, used_ms=used_ms)
    while machine.signals[-1] == signal.SIGSTOP:
        assert due_ms is not None
        now_ms, due_ms = due_ms, machine.look(due_ms)
    assert now_ms == continued_at_ms


def test_debt_is_paid_off_while_the_governor_is_late(machine: Machine) -> None:
    machine.look(0)
    machine.look(2, used_ms=6)
    assert machine.signals[-1] == signal.SIGSTOP
    machine.look(65)
    assert machine.signals[-1] == signal.SIGCONT


def test_two_busy_threads_are_looked_at_in_half_the_time(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(governor, "_CORES", 2)
    machine.slot[QUOTA_NS] = 10 * MS
    machine.look(0)
    assert machine.look(2, used_ms=4) == 5


def test_frozen_environment_is_left_alone(machine: Machine) -> None:
    machine.look(0)
    machine.slot[FROZEN] = 1
    assert machine.look(2, used_ms=2) is None
    assert machine.signals == [signal.SIGCONT]


def test_environment_that_freezes_while_it_is_continued_stays_stopped(machine: Machine) -> None:
    machine.look(0)
    machine.look(2, used_ms=2)

    def freeze() -> None:  # between the look at FROZEN and the signal
        machine.slot[FROZEN] = 1

    machine.on_signal = freeze
    machine.look(20)
    assert machine.signals[-2:] == [signal.SIGCONT, signal.SIGSTOP]


def test_woken_environment_is_stopped_again_if_it_has_used_its_quota(machine: Machine) -> None:
    machine.look(0)
    machine.look(2, used_ms=2)
    machine.governed.woken()  # the plane froze and thawed it
    assert machine.look(3) == 20
    assert machine.signals[-1] == signal.SIGSTOP


@pytest.fixture
def signals() -> Iterator[Signals]:
    found = Signals()
    yield found
    found.close()


@contextlib.contextmanager
def environment(signals: Signals, memory_mb: int, program: str) -> Iterator[tuple[SignalLimits, int]]:
    limits = signals.create("test")
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        limits.limit_memory(memory_mb)
        limits.enter(process.pid)
        try:
            yield limits, process.pid
        finally:
            for pid in limits.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            limits.close()


def used_s(pids: list[int]) -> float:
    return sum(map(cpu_clock_ns, pids)) / 1e9


def awaited(condition: Callable[[], bool]) -> bool:
    """Whether something is so within five seconds."""
    deadline_s = time.monotonic() + 5
    while not (found := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("program", [BUSY, BUSY_TWICE, BUSY_ELSEWHERE])
def test_processes_of_an_environment_share_its_quota(signals: Signals, program: str) -> None:
    """The upper bound holds on a busy machine too: what is used beyond the quota is paid back."""
    with environment(signals, 128, program) as (limits, pid):
        assert awaited(lambda: used_s([pid]) > 0.05), "not limited yet, as in init"
        limits.limit_cpu(128)
        time.sleep(0.2)
        pids = limits.pids()
        assert len(pids) == (1 if program == BUSY else 2)
        before_s, began_s = used_s(pids), time.monotonic()
        time.sleep(1)
        share = (used_s(pids) - before_s) / (time.monotonic() - began_s)
        assert 0 < share < cpu_share(128) * 1.5


def test_many_environments_at_once_have_a_share_each(signals: Signals) -> None:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(environment(signals, 128, BUSY)) for _ in range(10)]
        for limits, _ in found:
            limits.limit_cpu(128)
        time.sleep(0.3)
        before_s, began_s = [used_s([pid]) for _, pid in found], time.monotonic()
        time.sleep(1)
        elapsed_s = time.monotonic() - began_s
        shares = [(used_s([pid]) - before) / elapsed_s for (_, pid), before in zip(found, before_s, strict=True)]
    assert all(0 < share < cpu_share(128) * 1.5 for share in shares)


def test_memory_above_the_limit_is_killed_and_counted(signals: Signals) -> None:
    with environment(signals, 128, "held = b'x' * 300_000_000\nimport time\ntime.sleep(60)") as (limits, pid):
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        assert limits.oom_kills() == 1


def test_frozen_environment_stays_stopped_and_thaws_into_its_quota(signals: Signals) -> None:
    with environment(signals, 512, BUSY) as (limits, pid):
        limits.limit_cpu(512)
        time.sleep(0.1)
        limits.freeze(pid)
        time.sleep(0.05)
        before_s = used_s([pid])
        time.sleep(0.2)
        assert used_s([pid]) == before_s
        assert state(pid) == "T"
        limits.thaw(pid)
        assert awaited(lambda: used_s([pid]) > before_s + 0.01)


def test_killed_governor_is_replaced_and_takes_up_what_it_left(signals: Signals) -> None:
    with environment(signals, 128, BUSY) as (limits, pid):
        limits.limit_cpu(128)
        time.sleep(0.1)
        first = signals.governor_pid
        os.kill(first, signal.SIGKILL)
        assert awaited(lambda: signals.governor_pid != first)
        before_s = used_s([pid])
        assert awaited(lambda: used_s([pid]) > before_s + 0.01), "the killed one may have left it stopped"


def test_slot_is_cleared_for_the_next_environment(signals: Signals) -> None:
    limits = signals.create("first")
    limits.limit_memory(128)
    limits.limit_cpu(128)
    limits.close()
    assert all(not signals.slot(limits._number)[column] for column in (PGID, QUOTA_NS, MEMORY_BYTES, FROZEN))


def test_governor_ends_with_its_plane() -> None:
    script = (
        "import os\nfrom lambdalab.local.signals import Signals\nprint(Signals().governor_pid, flush=True)\nos._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert awaited(lambda: not os.path.exists(f"/proc/{int(done.stdout)}"))  # noqa: PTH110
