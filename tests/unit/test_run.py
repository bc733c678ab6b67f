"""``make test`` without arguments: two halves at once, and nothing of either is lost."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from samples import ROOT

COMMAND = [sys.executable, str(ROOT / "tests" / "run.py")]
PASSES = "def test_passes(): pass\n"
FAILS = "def test_fails(): assert 0\n"
NEEDS = "import pytest\n@pytest.mark.needs('docker')\ndef test_needs(): pass\n"
HANGS = """\
import pathlib, pytest, time

@pytest.fixture
def stack():
    yield
    pathlib.Path(__file__).with_suffix(".cleaned").touch()

def test_hangs(stack):
    pathlib.Path(__file__).with_suffix(".begun").touch()
    time.sleep(600)
"""
WITHOUT_DOCKER = {key: value for key, value in os.environ.items() if key != "LAMBDALAB_REQUIRE_ALL"} | {"PATH": ""}


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    """A folder of tests with this project's conftest."""
    for part in ("local", "e2e"):
        (tmp_path / "tests" / part).mkdir(parents=True)
    shutil.copy(ROOT / "conftest.py", tmp_path)
    return tmp_path / "tests"


def run(tests: Path, *arguments: str, local: str = PASSES, e2e: str = PASSES, **variables: str) -> tuple[int, str]:
    (tests / "local" / "test_one.py").write_text(local)
    (tests / "e2e" / "test_whole.py").write_text(e2e)
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=tests.parent,
        env=WITHOUT_DOCKER | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_both_halves_run_and_are_shown_one_after_the_other(tests: Path) -> None:
    code, said = run(tests)
    assert code == 0
    assert re.findall(r"^tests/\S+\.py", said, re.MULTILINE) == ["tests/local/test_one.py", "tests/e2e/test_whole.py"]
    assert said.count("1 passed") == 2


@pytest.mark.parametrize("half", ["local", "e2e"])
def test_a_failure_of_either_half_is_one_of_all(tests: Path, half: str) -> None:
    code, said = run(tests, **{half: FAILS})
    assert code == 1
    assert (said.count("1 passed"), said.count("1 failed")) == (1, 1)


def test_what_is_left_out_is_named_and_fails_where_nothing_may_be(tests: Path) -> None:
    code, said = run(tests, local=NEEDS, e2e=NEEDS)
    assert code == 0
    for test in ("tests/local/test_one.py::test_needs", "tests/e2e/test_whole.py::test_needs"):
        assert f"for want of a Docker engine:\n  {test}\n" in said
    code, said = run(tests, local=NEEDS, e2e=NEEDS, LAMBDALAB_REQUIRE_ALL="1")
    assert code == 1
    assert said.count("left out, which LAMBDALAB_REQUIRE_ALL=1 forbids: needs a Docker engine") >= 2


def test_arguments_are_pytests_own(tests: Path) -> None:
    code, said = run(tests, "tests/e2e", "-q", local=FAILS)
    assert (code, said.count("1 passed")) == (0, 1)
    assert "beside" not in said


@pytest.mark.parametrize("all_hear_it", [True, False], ids=["Ctrl-C", "SIGTERM"])
def test_both_halves_clean_up_when_they_are_interrupted(tests: Path, all_hear_it: bool) -> None:
    for file in ("local/test_one.py", "e2e/test_whole.py"):
        (tests / file).write_text(HANGS)
    both = subprocess.Popen(COMMAND, cwd=tests.parent, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while len(list(tests.glob("*/*.begun"))) < 2:
            assert both.poll() is None, "it ended before it was interrupted"
            time.sleep(0.05)
        if all_hear_it:
            os.killpg(both.pid, signal.SIGINT)
        else:
            both.send_signal(signal.SIGTERM)
        said, _ = both.communicate(timeout=60)
    finally:
        if both.poll() is None:
            os.killpg(both.pid, signal.SIGKILL)
    assert both.returncode == 2, said
    assert len(list(tests.glob("*/*.cleaned"))) == 2
    assert said.count("KeyboardInterrupt") >= 2
