"""The command line in a real pipe whose reader leaves, and on a disk that is full."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import project_fixture  # noqa: F401
from samples import make_lines, make_manifest, make_results

from lambdalab.cli.app import EXIT_DEFECT
from lambdalab.records.trial_files import RunDirectory

PROGRAM = str(Path(sys.executable).with_name("lambdalab"))


def begin(*arguments: str, stdout: int, stderr: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    return subprocess.Popen([PROGRAM, *arguments], stdout=stdout, stderr=stderr, text=True)


@pytest.fixture
def unread() -> Iterator[int]:
    """The end for writing of a pipe that has no reader."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.fixture
def run(project: Path) -> Path:
    manifest = make_manifest()
    store = RunDirectory.create(project / "results", manifest)
    for result in make_results(manifest):
        store.append_trial(result)
        store.append_log_lines(make_lines(result))
    return store.folder


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("command", ["--help", "prices show", "report", "doctor --json"])
def test_nobody_who_reads_ends_it_by_sigpipe_without_a_word(command: str, unread: int) -> None:
    process = begin(*command.split(), stdout=unread)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGPIPE, said
    assert "Traceback" not in said
    assert "Error" not in said


@pytest.mark.usefixtures("run")
def test_a_query_streams_ends_with_its_reader_and_by_ctrl_c_at_once() -> None:
    assert subprocess.run([PROGRAM, "report"], stdout=subprocess.DEVNULL, check=False).returncode == 0
    with begin("query", "select range from range(1000000000)", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "range\n"
        process.stdout.close()
        assert process.stderr is not None
        assert (process.wait(timeout=60), process.stderr.read()) == (-signal.SIGPIPE, "")
    endless = "from range(100000000000) where range < 2000"
    with begin("query", endless, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "range\n", "the first rows are there, and DuckDB looks for more"
        process.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (130, "lambdalab: interrupted\n")
        assert time.monotonic() - interrupted < 20


@pytest.mark.usefixtures("project")
def test_problems_in_a_closed_pipe_end_it_likewise(unread: int) -> None:
    process = begin("report", "none", stdout=subprocess.DEVNULL, stderr=unread)
    assert process.wait(timeout=60) == -signal.SIGPIPE


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("command", ["prices show"])
def test_a_full_disk_under_the_output_is_said(command: str) -> None:
    with Path("/dev/full").open("w") as full:
        process = begin(*command.split(), stdout=full.fileno())
        _, said = process.communicate(timeout=60)
    assert said == "lambdalab: the output cannot be written: No space left on device; free some space.\n"
    assert process.returncode == 3


def test_another_closed_pipe_is_a_defect_and_no_quiet_end() -> None:
    program = (
        "import sys, lambdalab.cli.app as a\n"
        "def broken(): raise BrokenPipeError(32, 'of a socket')\n"
        "a.app.command('broken')(broken)\n"
        "sys.argv = ['lambdalab', 'broken']\n"
        "import lambdalab.cli; lambdalab.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_DEFECT
    assert "of a socket" in done.stderr
