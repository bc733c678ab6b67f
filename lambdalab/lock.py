"""Locks that keep two processes off one stack or one run directory.

A lock is a file under an exclusive kernel lock (flock(2)). The kernel releases it when the last process that has it
open ends, however that ends, so a killed holder blocks nobody. The content of the file only says who holds it.
"""

import fcntl
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from lambdalab import processes
from lambdalab.errors import InUseError, StorageError
from lambdalab.project import state_folder

_INHERITED: Final = "LAMBDALAB_LOCK"
"""Environment variable with the file descriptor of a lock that the parent process holds for its child as well."""
_MOST_CHARACTERS: Final = 100


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lock.

    ``bookkeeper_pid`` is the process that closes the books of a load run, which may outlive the one with ``pid``.
    """

    command: str
    pid: int
    run_id: str | None = None
    bookkeeper_pid: int | None = None

    @property
    def alive_pid(self) -> int:
        """The process to end: the one that leads, or the bookkeeper it left behind."""
        left_behind = self.bookkeeper_pid is not None and not processes.exists(self.pid)
        return self.bookkeeper_pid if self.bookkeeper_pid is not None and left_behind else self.pid


class Lock:
    """A lock that this process holds, alone or together with its parent.

    Attributes:
        fd: the file descriptor; a child that inherits it holds the lock as well.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self.fd = fd

    @property
    def variables(self) -> dict[str, str]:
        """What the environment of a child needs to take part in this lock; it must inherit ``fd``."""
        return {_INHERITED: str(self.fd)}

    @property
    def holder(self) -> Holder | None:
        """Who holds it, as the holders themselves wrote; None before they did."""
        return _read(self.fd)

    def note(self, **what: str | int | None) -> None:
        """Writes more of the holder into the file: ``run_id``, ``bookkeeper_pid``."""
        if (holder := self.holder) is not None:
            _write(self.fd, msgspec.structs.replace(holder, **what))

    def await_children(self) -> None:
        """Waits until no process that inherited the lock has it any more, then holds it alone."""
        while True:
            fd = _opened(self._path)
            os.close(self.fd)
            self.fd = fd
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_at(fd, self._path):
                return


@contextmanager
def hold(path: Path, what: str) -> Iterator[Lock]:
    """Holds a lock as long as the block runs, or takes part in it where the parent process holds it.

    Args:
        path: the lock file; made when absent, removed at the end.
        what: what it protects, for the sentence of a refusal.

    Raises:
        InUseError: another process holds it; the sentence says which.
        StorageError: the file cannot be made.
    """
    if (fd := _inherited(path)) is not None:
        shared = Lock(path, fd)
        try:
            yield shared
        finally:
            shared.note(run_id=None, bookkeeper_pid=None)
        return
    lock = Lock(path, _locked(path, what))
    try:
        _write(lock.fd, Holder(command=_command(), pid=os.getpid()))
        yield lock
    finally:
        if _is_at(lock.fd, path):  # else somebody removed the folder, and another holder made the file again
            path.unlink(missing_ok=True)  # before it is released: whoever opened it meanwhile looks for the new file
        os.close(lock.fd)


def hold_stack() -> AbstractContextManager[Lock]:
    """Holds this project's local stack: whoever brings it up, measures on it or ends it does so alone.

    Raises:
        InUseError: another process holds it.
    """
    return hold(state_folder() / "lock", "the local stack")


def stack_holder() -> Holder | None:
    """Who holds this project's local stack, as it wrote; None if nobody does. One that was killed is still named."""
    try:
        return msgspec.json.decode((state_folder() / "lock").read_bytes(), type=Holder)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def leave_inherited() -> None:
    """Takes no part in the lock of the parent process any more."""
    if (number := os.environ.pop(_INHERITED, None)) is not None:
        os.close(int(number))


def _locked(path: Path, what: str) -> int:
    while True:
        fd = _opened(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(fd)
            os.close(fd)
            raise _in_use(what, holder) from None
        except OSError as error:
            os.close(fd)
            raise StorageError(
                f"{path} cannot be locked: {error.strerror}", next_step="put the project on a local disk"
            ) from error
        if _is_at(fd, path):
            return fd
        os.close(fd)  # the last holder removed the file between the two calls


def _in_use(what: str, holder: Holder | None) -> InUseError:
    if holder is None:  # it has not said yet, or somebody else's file lies there
        return InUseError(f"{what} is in use by another process", next_step="wait for it")
    pid, run_id = holder.alive_pid, holder.run_id
    run = "" if run_id is None else f"run {run_id}, "
    kept = "" if run_id is None else ", which keeps what it measured"
    return InUseError(
        f"{what} is in use by {run}pid {pid} (`{holder.command}`)",
        next_step=f"wait for it, or end it with `kill {pid}`{kept}",
    )


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be made: {error.strerror}", next_step="check the folder's owner and the free space"
        ) from error


def _inherited(path: Path) -> int | None:
    number = os.environ.get(_INHERITED)
    return int(number) if number is not None and _is_at(int(number), path) else None


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _read(fd: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(fd, 10_000, 0), type=Holder)
    except msgspec.DecodeError:
        return None


def _write(fd: int, holder: Holder) -> None:
    content = msgspec.json.encode(holder)
    try:
        os.pwrite(fd, content, 0)
        os.ftruncate(fd, len(content))
    except OSError as error:
        raise StorageError(f"a lock file cannot be written: {error.strerror}", next_step="free some space") from error


def _command() -> str:
    typed = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return typed if len(typed) <= _MOST_CHARACTERS else f"{typed[:_MOST_CHARACTERS]}..."
