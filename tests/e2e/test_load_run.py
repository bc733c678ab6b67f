"""A load run as a user starts it, on a local stack with the load settings and two invocations at a time."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest
from load.conftest import free_port, members

from lambdalab.analysis.books import ALL, Books
from lambdalab.analysis.load_limit import BUSY
from lambdalab.analysis.message_analysis import Summary
from lambdalab.local.stack import running_stack
from lambdalab.records.trial_files import RunDirectory

from .conftest import Run, command

BOUND = ("generator-bound: ", "emulator-bound: ")
"""What a busy machine may do to a run; then it is not valid, and its books must balance all the same."""
LOAD = ("load", "--headless", "--only-summary", "--mix", "1024Bx10")
TINY = ("load", "--headless", "--only-summary", "--mix", "256Bx1", "--languages", "go")


@pytest.fixture(scope="module")
def loaded(lambdalab: Run) -> Iterator[dict[str, str]]:
    done = lambdalab("up", "--port", "0", "--settings", "load", "--parameter", "MaximumConcurrency=2")
    assert done.returncode == 0, done.stderr
    yield dict(word.split("=", 1) for word in done.stdout.split() if "=" in word)
    lambdalab("down")


def summary_of(project: Path) -> Summary:
    return msgspec.json.decode((project / "results" / "latest" / "summary.json").read_bytes(), type=Summary)


def is_full(books: Books) -> bool:
    """True if the machine was so busy, also with other programs, that it is the limit."""
    return books.limit.figures is not None and (books.limit.figures.machine or 0) > BUSY


def wait_for(process: "subprocess.Popen[str]", condition: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, why
        assert process.poll() is None
        time.sleep(0.1)


def is_sending(link: Path, before: Path | None) -> bool:
    return link.is_symlink() and link.readlink() != before and len(RunDirectory(link).trials()) >= 10


def is_draining(link: Path, before: Path | None) -> bool:
    began = link.is_symlink() and link.readlink() != before
    return began and any(sample.phase == "drain" for sample in RunDirectory(link).samples())


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except OSError:
        return False


def keepers(run_id: str) -> list[str]:
    """The processes that keep the books of a run."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if run_id.encode() in cmdline.read_bytes():
                found.append(cmdline.parent.name)
    return found


def ended_by_hand(project: Path, said: str, code: int) -> None:
    """Asserts that what was sent is in whole books, as after Stop."""
    run = RunDirectory(project / "results" / "latest")
    summary, ending = summary_of(project), run.ending()
    assert [fault for fault in summary.faults if not fault.startswith(BOUND)] == [], said
    assert code == (4 if summary.faults else 130), said
    assert "Traceback" not in said
    assert summary.stopped == "stopped by hand"
    assert ending is not None
    assert ending.generator is not None
    assert ending.drained_at_ms is not None
    assert summary.load is not None
    assert summary.load.whole.processed == summary.load.whole.sent == len(run.trials())


def test_a_sweep_of_rates_finds_the_knee_and_every_step_balances(
    lambdalab: Run, project: Path, loaded: dict[str, str]
) -> None:
    done = lambdalab(*LOAD, "--shape", "steps", "--rates", "5,10,20,40", "--hold", "8s", "--languages", "python,go")

    summary = summary_of(project)
    faults = [fault for fault in summary.faults if not fault.startswith(BOUND)]
    assert faults == [], done.stdout + done.stderr
    assert done.returncode == (4 if summary.faults else 0), done.stdout + done.stderr
    books = summary.load
    assert books is not None
    assert [flow.sent for flow in books.steps()] == [40, 80, 160, 320]
    assert all(flow.balances and flow.processed == flow.sent for flow in books.flows)
    assert (books.whole.sent, books.whole.items_found) == (600, 6000)
    # two environments of 128 MB do some 6 messages of 10 items a second; in the last step python is offered 20
    knee = books.knees["python"]
    assert knee is not None
    last = books.steps("python")[-1]
    assert last.keeps_up is False
    assert last.achieved_per_s is not None
    assert last.offered_per_s == pytest.approx(20, rel=0.02)
    assert last.achieved_per_s < 15
    assert last.backlog > 40
    below = [flow for flow in books.steps("python") if flow.step is not None and 1 < flow.step < knee]
    assert all((flow.achieved_per_s or 0) > 0.8 * (flow.offered_per_s or 0) for flow in below)
    assert books.drain_s is not None
    if books.limit.what == "concurrency":
        assert books.limit.sentence.startswith(f"Limited by MaximumConcurrency in step {knee}: 2 of 2 environments of ")
    else:
        assert summary.faults or is_full(books), books.limit
    looks = [sample for sample in RunDirectory(project / "results" / "latest").samples() if sample.limit]
    live = [sample.limit.sentence for sample in looks if sample.limit and sample.step == 4]
    assert summary.faults or any("2 of 2 environments of python were busy" in sentence for sentence in live), live
    shown = lambdalab("report", "latest")
    assert " ".join(shown.stdout.split()).count(books.limit.sentence) == 1
    assert "Books: every message sent is in exactly one of four places" in shown.stdout
    assert shown.returncode == done.returncode
    assert lambdalab("compare", "latest").returncode in (0, 4)


def marked(lambdalab: Run, project: Path, done: "subprocess.CompletedProcess[str]", bound: str) -> Summary:
    """Asserts that a run says everywhere what was its limit, and nothing else against it."""
    summary = summary_of(project)
    assert any(fault.startswith(bound) for fault in summary.faults), done.stdout + done.stderr
    assert [fault for fault in summary.faults if not fault.startswith(BOUND)] == []
    assert done.returncode == 4, done.stdout + done.stderr
    assert bound in done.stdout
    assert "is invalid; see why with `lambdalab report" in done.stderr
    assert bound in (project / "results" / "latest" / "report.html").read_text()
    again = lambdalab("report", "latest")
    assert (again.returncode, bound in again.stdout) == (4, True)
    return summary


def test_a_rate_that_one_process_cannot_send_is_the_generators_limit(
    lambdalab: Run, project: Path, loaded: dict[str, str]
) -> None:
    # all due within 10 ms; to sign, connect and send takes some 0.15 ms of CPU each, and 50 ms late is late
    done = lambdalab(*TINY, "--rate", "100000", "--duration", "0.01s", "--max-messages", "1000")

    summary = marked(lambdalab, project, done, "generator-bound: ")
    assert summary.load is not None
    assert summary.load.whole.processed == summary.load.whole.sent == 1000
    late = "of 1000 messages were begun more than 50 ms after they were due"
    assert [fault for fault in summary.faults if late in fault]
    assert summary.load.limit.what == "sender"
    assert late in summary.load.limit.sentence


@pytest.fixture
def starved(project: Path, loaded: dict[str, str]) -> Iterator[Callable[[], None]]:
    """The emulator shares a core with five processes that never wait, and has a sixth of it until this is called."""
    with contextlib.chdir(project):
        stack = running_stack()
    assert stack is not None
    cores = os.sched_getaffinity(0)
    core = min(cores)
    threads = [int(thread.name) for thread in Path(f"/proc/{stack.emulator.pid}/task").iterdir()]
    spin = (
        f"import os, time; os.sched_setaffinity(0, {{{core}}}); end = time.time() + 60\nwhile time.time() < end: pass"
    )
    # sched(7): where sessions are scheduled as groups, five in one would have no more than the emulator alone
    spinners = [subprocess.Popen([sys.executable, "-c", spin], start_new_session=True) for _ in range(5)]

    def feed() -> None:
        for thread in threads:
            os.sched_setaffinity(thread, cores)
        for spinner in spinners:
            spinner.kill()
            spinner.wait()

    try:
        for thread in threads:
            os.sched_setaffinity(thread, {core})
        yield feed
    finally:
        feed()


def test_an_emulator_that_cannot_follow_is_the_limit_of_the_run(
    project: Path, lambdalab: Run, clean_environment: dict[str, str], starved: Callable[[], None]
) -> None:
    # a message of ten items takes some 14 ms of the emulator's CPU: offered is twice what a sixth of a core can do
    link = project / "results" / "latest"
    before = link.readlink() if link.is_symlink() else None
    process = subprocess.Popen(
        [command(), *LOAD, "--rate", "25", "--duration", "4s", "--languages", "go"],
        cwd=project, env=clean_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(process, lambda: is_draining(link, before), "the drain did not begin")
    starved()
    said, complaint = process.communicate(timeout=120)

    done = subprocess.CompletedProcess(process.args, process.returncode, said, complaint)
    summary = marked(lambdalab, project, done, "emulator-bound: ")
    assert summary.load is not None
    limit = summary.load.limit
    assert limit.what == ("machine" if is_full(summary.load) else "emulator"), limit
    assert re.search(r"the emulator.* had work \d+% of the time, \d+% on a core and \d+% waiting", limit.sentence)
    assert summary.load.whole.processed == summary.load.whole.sent == 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_messages_are_sent_ends_the_run_like_stop(
    project: Path, clean_environment: dict[str, str], loaded: dict[str, str], lambdalab: Run, number: int
) -> None:
    link = project / "results" / "latest"
    before = link.readlink() if link.is_symlink() else None
    process = subprocess.Popen(
        [command(), *LOAD, "--rate", "5", "--duration", "10m", "--languages", "go"],
        cwd=project, env=clean_environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    wait_for(process, lambda: is_sending(link, before), "nothing was sent")
    os.kill(process.pid, signal.SIGSTOP)
    refused = lambdalab("down")
    assert (refused.returncode, f"in use by run {link.readlink().name}, pid {process.pid} (" in refused.stderr) == (
        3,
        True,
    )
    os.kill(process.pid, signal.SIGCONT)
    os.kill(process.pid, number)
    said, _ = process.communicate(timeout=90)

    ended_by_hand(project, said, process.returncode)
    assert keepers(link.readlink().name) == []


def test_ctrl_c_while_a_page_shows_a_run_ends_it_like_stop(
    project: Path, clean_environment: dict[str, str], loaded: dict[str, str]
) -> None:
    link = project / "results" / "latest"
    before = link.readlink() if link.is_symlink() else None
    port = free_port()
    page = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [command(), "load", "--web-port", str(port)],
        cwd=project, env=clean_environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    wait_for(process, lambda: answers(page), "the page did not come")
    form = {"rate": "5", "duration": "10m", "languages": "go", "mix": "256Bx1"}
    with urllib.request.urlopen(f"{page}/swarm", urlencode(form).encode(), timeout=60) as answer:
        assert json.load(answer)["success"] is True
    wait_for(process, lambda: is_sending(link, before), "nothing was sent")
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=90)

    ended_by_hand(project, said, process.returncode)
    assert members(process.pid) == []
    assert not answers(page)
    assert keepers(link.readlink().name) == []


def test_a_drain_that_is_interrupted_leaves_books_and_no_process(
    project: Path, clean_environment: dict[str, str], loaded: dict[str, str]
) -> None:
    before = (project / "results" / "latest").readlink()
    process = subprocess.Popen(
        [command(), *LOAD, "--rate", "40", "--duration", "3s", "--languages", "python"],
        cwd=project, env=clean_environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    link = project / "results" / "latest"
    wait_for(
        process,
        lambda: is_draining(link, before),
        "the drain did not begin",
    )
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 4, said
    books = summary_of(project).load
    assert books is not None
    assert (books.whole.sent, books.whole.lost) == (120, 0)
    assert books.whole.still_queued > 0
    assert books.drain_s is None
    assert keepers(link.readlink().name) == []
    assert books.knees[ALL] in (None, 1)


def test_on_aws_a_run_ends_at_its_ceiling_in_usd_and_keeps_everything(
    lambdalab: Run, project: Path, loaded: dict[str, str]
) -> None:
    where = ("--target", "aws", "--stack-name", "lambdalab-local", "--languages", "go")
    done = lambdalab(*LOAD, *where, "--rate", "5", "--duration", "300s", "--max-usd", "0.02", **loaded)

    summary = summary_of(project)
    assert "usd ceiling: " in done.stderr, done.stdout + done.stderr
    assert summary.stopped is not None
    assert summary.stopped.startswith("usd ceiling: "), done.stdout + done.stderr
    assert summary.stopped.endswith(" of 0.02 USD may have been spent")
    faults = [fault for fault in summary.faults if not fault.startswith(BOUND)]
    assert faults == [], done.stdout + done.stderr
    assert done.returncode == (4 if summary.faults else 0), done.stdout + done.stderr
    books = summary.load
    assert books is not None
    assert 0 < books.whole.sent < 300
    assert books.whole.processed == books.whole.sent
    assert books.whole.items_found == 10 * books.whole.sent


def test_a_killed_plane_ends_the_run_and_the_books_are_closed_with_what_is_known(
    project: Path, clean_environment: dict[str, str], loaded: dict[str, str]
) -> None:
    """The last test of this module: it leaves no plane."""
    link = project / "results" / "latest"
    before = link.readlink() if link.is_symlink() else None
    process = subprocess.Popen(
        [command(), *LOAD, "--rate", "10", "--duration", "10m", "--languages", "go"],
        cwd=project, env=clean_environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wait_for(process, lambda: is_sending(link, before), "nothing was sent")
    with contextlib.chdir(project):
        stack = running_stack()
    assert stack is not None
    os.kill(stack.plane.pid, signal.SIGKILL)
    said, _ = process.communicate(timeout=90)  # a drain would be waited for 330 s

    assert process.returncode == 3, said
    assert f"the local stack's plane (pid {stack.plane.pid}) has ended; see " in said
    summary = summary_of(project)
    assert summary.stopped == "a part of the local stack ended"
    assert summary.load is not None
    assert summary.load.whole.sent == summary.load.whole.processed + summary.load.whole.still_queued > 0
    assert keepers(link.readlink().name) == []
