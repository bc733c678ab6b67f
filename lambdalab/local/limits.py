"""What limits one environment: Lambda's CPU share and memory limit, whatever way this machine enforces them.

Lambda gives CPU in proportion to memory, one vCPU at 1,769 MB (AWS Lambda Developer Guide, "Configure Lambda function
memory"). The quota here is that share of every 20 ms, the period a published study reports for Lambda; longer
periods let short bursts run too fast, shorter ones fall under the kernel's smallest quota (1 ms) at 128 MB.
"""

import math
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Protocol

from lambdalab import loopback
from lambdalab.errors import SetupError

MB_PER_VCPU: Final = 1769
PERIOD_US: Final = 20_000
_SMALLEST_QUOTA_US: Final = 1_000
_READ_BYTES: Final = 8192
_STOP_S: Final = 5.0
"""Most seconds until a child that was sent SIGSTOP has stopped. A slow machine takes milliseconds."""


class LimitError(Exception):
    """The kernel did not take a limit; a run under a limit that is not there would be a false one."""


def cpu_share(memory_mb: int, cpu_scale: float = 1.0) -> float:
    """The cores a function of this size gets; ``cpu_scale`` models a core that is faster (above 1) or slower."""
    return memory_mb / MB_PER_VCPU * cpu_scale


def bandwidth_us(share: float) -> tuple[int, int]:
    """CPU time and the period it is given in, both in microseconds, for a share of cores.

    The period is longer where 20 ms would need a quota below the kernel's smallest.
    """
    period_us = max(PERIOD_US, math.ceil(_SMALLEST_QUOTA_US / share))
    return round(period_us * share), period_us


class Limits(ABC):
    """The limits of one environment, and how it is frozen between invocations."""

    @abstractmethod
    def enter(self, pid: int) -> None:
        """Moves a process in; its children follow it."""

    @abstractmethod
    def limit_memory(self, memory_mb: int) -> None:
        """Sets the memory limit; a process that passes it is killed."""

    @abstractmethod
    def limit_cpu(self, memory_mb: int | None) -> None:
        """Sets the CPU share of this memory size, scaled as the plane is; None lifts it, as Lambda does for init."""

    @abstractmethod
    def pids(self) -> list[int]:
        """The processes in the environment now."""

    @abstractmethod
    def oom_kills(self) -> int:
        """How often a process was killed here because it passed the memory limit."""

    @abstractmethod
    def close(self) -> None:
        """Kills what is left and removes the limits."""

    def freeze(self, pid: int) -> None:
        """Stops every process of a group."""
        os.killpg(pid, signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        """Continues every process of a group."""
        os.killpg(pid, signal.SIGCONT)


class Limiter(Protocol):
    """Makes the limits of environments in one way."""

    kind: str
    """``cgroup v1``, ``cgroup v2``, ``signals`` or ``none``; every table says it."""

    why: str | None
    """Why nothing limits; None where something does."""

    controllers: tuple[str, ...]
    """The controllers of control groups in use. Without ``pids``, processes and threads are not limited."""

    def create(self, environment: str) -> Limits:
        """The limits of a new environment."""

    def close(self) -> None:
        """Ends what limits, and what is left of the environments."""


class Unlimited(Limits):
    """No way of limiting works here: nothing is limited, and every table says so.

    Args:
        tell: called with what would be left if the plane were killed, in the form ``guard`` reads.
        freezes: False where processes cannot be stopped; they then run on between invocations.
    """

    def __init__(self, tell: Callable[[str], None], *, freezes: bool = True) -> None:
        self._tell, self._freezes = tell, freezes
        self._pid: int | None = None

    def enter(self, pid: int) -> None:
        self.close()
        self._pid = pid
        self._tell(f"+{pid}")

    def limit_memory(self, memory_mb: int) -> None:
        pass

    def limit_cpu(self, memory_mb: int | None) -> None:
        pass

    def pids(self) -> list[int]:
        return [] if self._pid is None else [self._pid]

    def oom_kills(self) -> int:
        return 0

    def close(self) -> None:
        if self._pid is not None:
            self._tell(f"-{self._pid}")
        self._pid = None

    def freeze(self, pid: int) -> None:
        if self._freezes:
            super().freeze(pid)

    def thaw(self, pid: int) -> None:
        if self._freezes:
            super().thaw(pid)


class NoLimiter:
    """Where nothing limits; its arguments are those of ``Unlimited``, and why."""

    kind = "none"
    controllers: tuple[str, ...] = ()

    def __init__(self, tell: Callable[[str], None], why: str, *, freezes: bool = True) -> None:
        self._tell, self._freezes = tell, freezes
        self.why: str | None = why

    def create(self, environment: str) -> Limits:  # noqa: ARG002 - the protocol's signature
        return Unlimited(self._tell, freezes=self._freezes)

    def close(self) -> None:
        pass


def try_signals() -> None:
    """Stops, continues and kills a child once, so that nothing is promised that does not hold.

    A seccomp filter, AppArmor or SELinux can refuse each of these signals.

    Raises:
        LimitError: a child cannot be stopped and continued.
        SetupError: a child cannot be killed, so nothing that is started could be ended.
    """
    refused: OSError | LimitError | None = None
    # Without a signal it ends as well, when its input does.
    with subprocess.Popen(
        ["cat"], env=loopback.variables(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    ) as child:
        try:
            os.killpg(child.pid, signal.SIGCONT)  # first: a child that was stopped could not be continued otherwise
            os.killpg(child.pid, signal.SIGSTOP)
            _await_stop(child.pid)
            os.killpg(child.pid, signal.SIGCONT)
        except (OSError, LimitError) as error:
            refused = error
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except OSError as error:
            raise SetupError(
                f"this machine does not let lambdalab end a process that it started ({error.strerror})",
                next_step="allow kill(2) in the seccomp, AppArmor or SELinux profile that confines it",
            ) from error
    if isinstance(refused, OSError):
        raise LimitError(f"a child cannot be stopped and continued ({refused.strerror})") from refused
    if refused is not None:
        raise refused


def _await_stop(pid: int) -> None:
    deadline = time.monotonic() + _STOP_S
    while time.monotonic() < deadline:
        _, status = os.waitpid(pid, os.WUNTRACED | os.WNOHANG)
        if os.WIFSTOPPED(status):
            return
        time.sleep(0.001)
    raise LimitError(f"a child that was sent SIGSTOP runs on after {_STOP_S:g} s")


def read_kernel_file(path: str) -> bytes:
    """Reads a file of the kernel's with as few calls as it takes: this is done after every invocation."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while chunk := os.read(descriptor, _READ_BYTES):
            content += chunk
        return content
    finally:
        os.close(descriptor)
