"""A load run on the real local stack, sent through boto3: its books are right, whatever became of the messages."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil
import pytest

from lambdalab.analysis.books import ALL, Books
from lambdalab.analysis.message_analysis import Summary
from lambdalab.errors import InvalidRunError
from lambdalab.load.recording import Recording
from lambdalab.planning.load_schedule import Arrival, LoadPlan, Message, Shape, arrivals
from lambdalab.records.load import Send
from lambdalab.records.trial_files import RunDirectory
from lambdalab.run import ingest
from local.whole import ROOT, Up, processes_of, project, wait_until

PLAN = LoadPlan(
    shape=Shape.STEPS,
    rates=(4.0, 8.0),
    hold_s=3.0,
    seed=7,
    mix=(Message(label="TEN", size_bytes=256, count=10), Message(label="FIVE", size_bytes=64, count=5)),
)


class Report(msgspec.Struct, frozen=True):
    """As much of a generator's report as a recording reads."""

    offered: int = 36
    ended_by: str = "the plan was over"
    dropped_of_step: dict[int, int] = {}
    limits: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A local stack with the load settings, but for two invocations at a time."""
    folder = project(tmp_path_factory.mktemp("project"))
    for name in ("load", "prices"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    up = Up.start(folder, "load", MaximumConcurrency="2")
    yield up
    up.end()
    assert processes_of(folder) == []


def offer(up: Up, recording: Recording, run_id: str, spoil: frozenset[int] = frozenset()) -> list[Send]:
    """Sends what the plan has, when it is due; the function refuses the messages in ``spoil``."""
    began = time.time()

    def send(arrival: Arrival) -> Send:
        kind = PLAN.mix[arrival.messages[0]]
        batch_id = f"{run_id}-0-{arrival.number}"
        body = ingest.message(batch_id, kind, kind.mode)
        if arrival.number in spoil:
            body = json.dumps({"batch_id": batch_id, "count": -1})
        due_ms = (began + arrival.at_s) * 1000
        begun_ms = time.time() * 1000
        return Send(
            step=arrival.step,
            phase=arrival.phase,
            intended_at_ms=due_ms,
            began_at_ms=begun_ms,
            attempts=1,
            batch_id=batch_id,
            arm=arrival.arm,
            label=kind.label,
            message_bytes=len(body),
            items=kind.count,
            message_id=up.send(arrival.arm, body),
            answered_at_ms=time.time() * 1000,
            error=None,
        )

    with ThreadPoolExecutor(4) as threads:
        coming = []
        for arrival in arrivals(PLAN):
            time.sleep(max(began + arrival.at_s - time.time(), 0))
            coming.append(threads.submit(send, arrival))
        sends = [one.result() for one in coming]
    for i in range(0, len(sends), 10):
        recording.sends(sends[i : i + 10])
    return sends


def books_of(store: RunDirectory) -> tuple[Summary, Books]:
    summary = msgspec.json.decode((store.folder / "summary.json").read_bytes(), type=Summary)
    assert summary.load is not None
    return summary, summary.load


def begin(up: Up, tmp_path: Path) -> tuple[Recording, str, RunDirectory]:
    recording = Recording(tmp_path / "results")
    run_id = recording.begin(PLAN, up.target)
    assert recording.store is not None
    assert recording.store.trials() == []
    assert msgspec.convert(recording.store.manifest().load, LoadPlan) == PLAN, "it is there before the first message"
    return recording, run_id, recording.store


def test_the_books_of_a_run_balance_and_it_is_a_run_like_any_other(loaded: Up, tmp_path: Path) -> None:
    with contextlib.chdir(loaded.project):
        recording, run_id, store = begin(loaded, tmp_path)
        sends = offer(loaded, recording, run_id)
        recording.end(Report())

    summary, books = books_of(store)
    assert len(sends) == 36
    whole = books.whole
    assert (whole.intended, whole.sent, whole.processed) == (36, 36, 36)
    assert (whole.dead_lettered, whole.still_queued, whole.lost, whole.duplicates) == (0, 0, 0, 0)
    assert whole.items_found == whole.items_expected == 36 // 2 * 10 + 36 // 2 * 5
    assert sum(len(loaded.items(send.arm, send.batch_id)) for send in sends) == whole.items_found
    assert [flow.sent for flow in books.steps()] == [12, 24]
    assert [flow.offered_per_s for flow in books.steps()] == pytest.approx([4, 8])
    assert books.steps("go")[1].sent == books.steps("python")[1].sent == 12
    assert books.drain_s is not None
    assert summary.faults == ()
    assert (summary.reports_found, summary.items_found, summary.stopped) == (36, whole.items_found, "the plan was over")
    labels = {cell.label for cell in summary.cells if cell.n_valid}
    assert {"TEN", "FIVE"} <= labels
    assert any(label.endswith("-cold") for label in labels), "the first invocations were cold, and count apart"
    assert sum(cell.n_valid for cell in summary.cells) == 36
    samples = store.samples()
    assert samples[-1].phase == "drain"
    assert (samples[-1].sent, samples[-1].done) == (36, 36)
    assert sum(queue.invocations or 0 for queue in samples[-1].arms.values()) == 36
    assert {one.phase for one in books.times} >= {"hold"}
    assert books.emulator_busy is not None
    found = books.limit.figures  # of the whole run, or of the step that a busy machine did not keep up with
    assert found is not None
    assert found.cpu.keys() == {"emulator", "plane", "functions", "sender", "bookkeeper", "other programs"}
    assert min(found.cpu[name] for name in ("emulator", "plane", "functions", "sender")) > 0
    assert found.places == {"go": 2, "python": 2}
    assert 0 < found.places_busy["python"] <= 1
    page = (store.folder / "report.html").read_text()
    assert page.count(books.limit.sentence) == 1
    assert "Sent 36 = processed 36 + dead-lettered 0 + still queued 0 + lost 0" in page


def test_every_way_a_message_can_go_is_told_apart(loaded: Up, tmp_path: Path) -> None:
    with contextlib.chdir(loaded.project):
        recording, run_id, store = begin(loaded, tmp_path)
        sends = offer(loaded, recording, run_id, spoil=frozenset({3}))
        # one that SQS took and then forgot, and one that it never took
        taken = msgspec.structs.replace(sends[0], batch_id=f"{run_id}-1-0", message_id="forgotten")
        refused = msgspec.structs.replace(sends[0], batch_id=f"{run_id}-1-1", message_id=None, error="refused")
        recording.sends([taken, refused])
        with pytest.raises(InvalidRunError, match=f"run {run_id} is invalid"):
            recording.end(Report(ended_by="stopped by hand"))

    summary, books = books_of(store)
    assert summary.stopped == "stopped by hand"
    whole = books.whole
    assert (whole.intended, whole.given_up, whole.sent) == (38, 1, 37)
    assert (whole.processed, whole.dead_lettered, whole.still_queued, whole.lost) == (35, 1, 0, 1)
    # a busy machine may add that it was the limit
    assert "1 of 37 messages are lost: neither processed nor in any queue" in summary.faults
    reasons = {result.batch_id: result.reason for result in store.trials()}
    assert reasons[sends[3].batch_id] == "dead-lettered"
    assert reasons[refused.batch_id] == "not sent: refused"
    assert reasons[taken.batch_id] == f"0 of {taken.items} items are in the table"
    letters = [json.loads(body)["batch_id"] for body in loaded.dead_letters(sends[3].arm)]
    assert letters in ([sends[3].batch_id], [])  # looking at it hides it for a while
    assert books.knees[ALL] in (None, 1, 2)


def test_a_run_whose_sender_is_killed_has_books_all_the_same(loaded: Up, tmp_path: Path) -> None:
    for language in ("python", "go"):  # of the test before
        loaded.aws.sqs.purge_queue(QueueUrl=loaded.arm(language).dead_letter_queue_url)
    with contextlib.chdir(loaded.project):
        recording, run_id, store = begin(loaded, tmp_path)
        offer(loaded, recording, run_id)
        stdin = recording._process.stdin
        assert stdin is not None
        stdin.close()  # what the kernel does for a process that was killed
        assert recording._process.wait() == 4

    summary, books = books_of(store)
    assert (books.whole.sent, books.whole.processed, books.whole.lost) == (36, 36, 0)
    assert summary.stopped is None
    assert summary.faults == ("interrupted before its sender said that it had ended",)


class Loading:
    """``lambdalab load`` in the project of a stack, as a process group of its own, once it has sent some messages."""

    def __init__(self, up: Up, tmp_path: Path) -> None:
        for language in ("python", "go"):
            up.aws.sqs.purge_queue(QueueUrl=up.arm(language).dead_letter_queue_url)
        self.results, self._log = tmp_path / "results", tmp_path / "locust.log"
        command = [str(Path(sys.executable).with_name("lambdalab")), "load", "--headless", "--only-summary"]
        options = ["--rate", "40", "--duration", "10m", "--languages", "go", "--mix", "64Bx1"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *options, "--results", str(self.results)],
                cwd=up.project, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_until(lambda: len(self.trials()) > 20 or self.process.poll() is not None, 90)
        assert self.process.poll() is None, self.log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def accepted(self) -> int:
        """How many messages SQS took, as the generator says at its end."""
        found = re.search(r"accepted (\d+)", self.log)
        assert found, self.log
        return int(found[1])

    def trials(self) -> list[str]:
        with contextlib.suppress(OSError):
            return (self.results / "latest/trials.jsonl").read_text().splitlines()
        return []


@pytest.fixture
def loading(loaded: Up, tmp_path: Path) -> Iterator[Loading]:
    found = Loading(loaded, tmp_path)
    yield found
    with contextlib.suppress(ProcessLookupError):
        os.killpg(found.process.pid, signal.SIGKILL)
    found.process.wait()
    wait_until(lambda: not [one for one in processes_of(found.results) if "bookkeeper" in one], 90)


def test_a_run_whose_books_are_kept_no_more_is_ended(loading: Loading, loaded: Up) -> None:
    children = psutil.Process(loading.process.pid).children()
    (keeper,) = [one for one in children if "lambdalab.load.bookkeeper" in one.cmdline()]
    keeper.kill()
    assert loading.process.wait(60) == 3, loading.log
    assert "are kept no more: their process ended in mid-run with signal 9" in loading.log
    assert "Traceback" not in loading.log
    sent = [msgspec.json.decode(line)["message_id"] for line in loading.trials()]
    assert len(sent) == len(set(sent)) == loading.accepted, "what was sent until the end is written down"
    wait_until(lambda: loaded.drained("go"), 60)
    samples = RunDirectory.open(loading.results, "latest").samples()
    assert samples[-1].phase == "hold"


def test_ctrl_c_ends_a_run_and_its_books_are_closed(loading: Loading) -> None:
    os.killpg(loading.process.pid, signal.SIGINT)  # as a terminal does it
    assert loading.process.wait(120) in (130, 4), loading.log  # 4: a busy machine was the limit
    store = RunDirectory.open(loading.results, "latest")
    summary, books = books_of(store)
    assert summary.stopped == "stopped by hand"
    assert (books.whole.processed, books.whole.lost) == (loading.accepted, 0)
    last = store.samples()[-1]
    assert (last.phase, last.sent, last.done) == ("drain", loading.accepted, loading.accepted)
    assert last.intended == books.whole.intended
