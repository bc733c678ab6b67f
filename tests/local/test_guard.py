"""The guard: what a killed plane leaves behind is ended."""

import subprocess
import sys

import pytest

from lambdalab.local.guard import Guard


def test_ends_what_it_was_told_of_and_nothing_else() -> None:
    left, ended, other = (subprocess.Popen(["sleep", "300"], start_new_session=True) for _ in range(3))
    try:
        guard = Guard()
        for line in (f"+{left.pid}", f"+{ended.pid}", f"-{ended.pid}"):
            guard.tell(line)
        assert left.poll() is None
        guard.close()
        assert left.wait(timeout=5) == -9
        assert (ended.poll(), other.poll()) == (None, None)
    finally:
        for process in (left, ended, other):
            process.kill()
            process.wait()


def test_sees_the_plane_killed() -> None:
    left = subprocess.Popen(["sleep", "300"], start_new_session=True)
    code = (
        "import os, signal\nfrom lambdalab.local.guard import Guard\n"
        f"Guard().tell('+{left.pid}')\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    plane = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert plane.wait(timeout=10) == -9
        assert left.wait(timeout=5) == -9
    finally:
        left.kill()
        left.wait()


def test_that_was_ended_itself_does_not_disturb_the_plane(capfd: pytest.CaptureFixture[str]) -> None:
    guard = Guard()
    guard._process.kill()
    guard._process.wait()
    for _ in range(3):
        guard.tell("+1000000")
    guard.close()
    assert capfd.readouterr().err == ""
