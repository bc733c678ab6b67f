"""One process group, from its spawn to its end: frozen between invocations, and killed as a whole."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable

from lambdalab.local.limits import Limits


class ProcessGroup:
    """The processes of an environment that have one life; a reset environment gets another.

    Args:
        leader: the first of them, spawned in a session of its own.
        limits: freezes and thaws them.

    Attributes:
        pid: of the leader, and of the group.
        exited: has the leader's exit code once it has ended.
        is_killed: whether it was ended from here; then nothing more is sent to it.
    """

    def __init__(self, leader: "subprocess.Popen[bytes]", limits: Limits) -> None:
        self.pid = leader.pid
        self._limits = limits
        self.exited = _end_of(leader)
        self.is_killed = self._is_frozen = False
        self._freezing: asyncio.Handle | None = None

    def freeze(self) -> None:
        """Stops every process."""
        self._do(self._limits.freeze)
        self._is_frozen = True

    def freeze_soon(self) -> None:
        """Freezes, unless the next event is there already and handed over in the next turn of the event loop.

        Lambda freezes when nothing is pending (Developer Guide, "Lambda execution environment lifecycle").
        """
        loop = asyncio.get_running_loop()

        def next_turn() -> None:
            self._freezing = loop.call_soon(self.freeze)

        self._freezing = loop.call_soon(next_turn)

    def thaw(self) -> None:
        """Lets every process go on, if they are frozen, or does not freeze them after all."""
        self._stay_thawed()
        if self._is_frozen:
            self._do(self._limits.thaw)
            self._is_frozen = False

    def kill(self) -> None:
        """Ends every process that has not left the group."""
        self._stay_thawed()
        self._do(_kill)
        self.is_killed = True

    def _stay_thawed(self) -> None:
        if self._freezing is not None:
            self._freezing.cancel()

    def _do(self, act: Callable[[int], None]) -> None:
        if not self.is_killed:
            with contextlib.suppress(ProcessLookupError):
                act(self.pid)


def _kill(pid: int) -> None:
    os.killpg(pid, signal.SIGKILL)


def _end_of(process: "subprocess.Popen[bytes]") -> asyncio.Future[int]:
    """Its exit code, when it has ended."""
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[int] = loop.create_future()
    pidfd = os.pidfd_open(process.pid)

    def on_exit() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        exited.set_result(process.wait())

    loop.add_reader(pidfd, on_exit)
    return exited
