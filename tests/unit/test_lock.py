"""One holder at a time: who is refused, what is said, and when the lock is free again. Holders are real processes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambdalab.errors import InUseError, StorageError
from lambdalab.lock import Lock, hold, leave_inherited

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from lambdalab.lock import hold
with hold(Path(sys.argv[1]), "it") as lock:
    lock.note(run_id="r1")
    if sys.argv[2:] == ["keeper"]:
        keeper = subprocess.Popen(["sleep", "60"], pass_fds=(lock.fd,), stdout=subprocess.DEVNULL)
        lock.note(bookkeeper_pid=keeper.pid)
        print(keeper.pid, flush=True)
    else:
        print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def holder(path: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    command = [sys.executable, "-c", HOLDER, str(path), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def refused(path: Path) -> str:
    with pytest.raises(InUseError) as caught, hold(path, "the stack"):
        pytest.fail("it was held twice")
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_a_second_holder_is_told_who_holds_it_and_how_to_end_that(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as (process, _):
        pid = process.pid
        assert refused(path) == (
            f"the stack is in use by run r1, pid {pid} (`-c {path}`); "
            f"wait for it, or end it with `kill {pid}`, which keeps what it measured."
        )


def test_a_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as (process, _):
        process.kill()
        process.wait()
        assert path.exists(), "nobody could remove it"
        with hold(path, "the stack") as lock:
            assert lock.holder is not None
            assert (lock.holder.pid, lock.holder.run_id) == (os.getpid(), None)
    assert not path.exists()


def test_what_a_killed_process_left_behind_still_holds_it_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, "keeper") as (process, keeper):
        process.kill()
        process.wait()
        try:
            assert f"run r1, pid {keeper} (" in refused(path)
        finally:
            os.kill(int(keeper), signal.SIGKILL)
        free_soon(path)


def free_soon(path: Path) -> None:
    """The kernel takes a moment to end a process that is nobody's child here."""
    deadline = time.monotonic() + 10
    while True:
        try:
            with hold(path, "the stack"):
                return
        except InUseError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("content", ["", "process 17", "[]", '{"pid": "x"}'])
def test_a_file_that_says_nothing_useful(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lock"
    with hold(path, "the stack"):
        path.write_text(content)
        assert refused(path) == "the stack is in use by another process; wait for it."


def test_a_child_takes_part_in_the_lock_of_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    with hold(path, "the stack") as lock:
        for name, value in lock.variables.items():
            monkeypatch.setenv(name, value)
        with hold(path, "the stack") as shared:
            shared.note(run_id="r2", bookkeeper_pid=1)
        assert lock.holder is not None
        assert (lock.holder.run_id, lock.holder.bookkeeper_pid) == (None, None), "its run is over"
        with hold(tmp_path / "other", "another stack"):
            pass
        copy = os.dup(lock.fd)
        monkeypatch.setenv(*next(iter(Lock(path, copy).variables.items())))
        leave_inherited()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(copy)
        refused(path)


def test_the_parent_waits_for_what_its_child_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path, "the stack") as lock:
        child = subprocess.Popen(["sleep", "0.1"], pass_fds=(lock.fd,))
        lock.await_children()
        assert child.wait(5) == 0
        refused(path)


def test_a_long_command_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/lambdalab", "run", "y" * 200])
    with hold(tmp_path / "lock", "the stack"):
        assert re.search(r"\(`lambdalab run y{86}\.\.\.`\)", refused(tmp_path / "lock"))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be made: No such file"), hold(tmp_path / "no" / "lock", "it"):
        pytest.fail("it was held")
