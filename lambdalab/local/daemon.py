"""Background processes of the local stack: started detached, known again by pid and start time, ended by pid only."""

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """A process this lab started. The start time guards against a pid that has since been given to another."""

    pid: int
    start_time_ticks: int
    port: int

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return _start_time_ticks(self.pid) == self.start_time_ticks

    def end(self, *, grace_s: float) -> None:
        """SIGTERM, then after ``grace_s`` SIGKILL to its process group."""
        if not self.alive:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self.alive and time.monotonic() < deadline:
            _reap(self.pid)
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):  # also what a daemon that ended in time has left
            os.killpg(self.pid, signal.SIGKILL)
        _reap(self.pid)


def start_daemon(command: Sequence[str], *, port: int, log_file: Path, variables: Mapping[str, str]) -> Daemon:
    """Starts a process in a session of its own, so that Ctrl-C in the terminal does not reach it."""
    log_flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    pid = os.posix_spawnp(
        command[0],
        list(command),
        variables,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log_file), log_flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    ticks = _start_time_ticks(pid)
    return Daemon(pid=pid, start_time_ticks=-1 if ticks is None else ticks, port=port)


def _start_time_ticks(pid: int) -> int | None:
    """Field 22 of ``/proc/<pid>/stat`` (proc_pid_stat(5)); None when there is no such process or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
