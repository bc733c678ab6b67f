"""One step of the end-to-end benchmark: one rate, by ``lambdalab load`` on a stack of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.load.processes import Reading, Use, read, use_between
from benchmarks.load.stack import Emulator, loaded_stack, warm_up
from lambdalab.analysis.books import DRAIN
from lambdalab.analysis.summary import Summary
from lambdalab.errors import SetupError
from lambdalab.local.stack import LocalStack
from lambdalab.lock import Lock
from lambdalab.records.trial_files import RunDirectory
from lambdalab.report.console import say

MESSAGE: Final = "1024Bx1"
DRAIN_LIMIT_S: Final = 60.0
"""The queue may take this long to become empty. Then the books are closed with what is left in it."""
_LOOK_S: Final = 1.0
_BOUND: Final = ("generator-bound: ", "emulator-bound: ")
"""Faults that a step above the limit is expected to have; the limit is in the table."""
_LAST_CHARACTERS: Final = 2000


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a step offers: messages per second for some seconds, to the function of a language."""

    language: str
    emulator: Emulator
    rate: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.language}, {self.emulator} emulator, {self.rate:,}/s"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What a step measured.

    Rates are messages per second while messages were offered, as the run's books define them (docs/books.md).
    ``backlog`` messages were sent and not begun when the sending ended. ``drain_s`` is from then until the queue was
    empty, None if that took longer than ``DRAIN_LIMIT_S``. ``use`` is the CPU use while messages were offered.
    ``faults`` are the run's own, without those that only name a limit.
    """

    asked: Asked
    environments: int
    offered_per_s: float | None
    sent_per_s: float | None
    done_per_s: float | None
    sent: int
    processed: int
    still_queued: int
    lost: int
    backlog: int
    drain_s: float | None
    use: Use
    limits: tuple[str, ...]
    faults: tuple[str, ...]


def measure(asked: Asked, sending: Callable[[LocalStack], None] = lambda _: None) -> Step:
    """Brings up a stack, warms it up, and offers it the rate.

    Args:
        asked: what is offered.
        sending: called with the stack when the first message is due.

    Raises:
        LambdalabError: the stack cannot be brought up, or the run closed no books.
    """
    say(f"{asked}: bringing up a stack")
    with tempfile.TemporaryDirectory(prefix="lambdalab-bench-") as name, loaded_stack(asked.emulator) as (stack, lock):
        results = Path(name)
        environments = warm_up(stack, asked.language)
        say(f"{asked}: sending for {asked.seconds} s, {environments} environments are there")
        with _load(asked, results, lock) as process:
            readings = list(_watched(process, stack, results / "latest", lambda: sending(stack)))
        summary = _summary(results, process.returncode)
    assert summary.load is not None
    whole = summary.load.whole
    use = use_between(readings, whole.begins_ms, whole.begins_ms + whole.seconds * 1000)
    return Step(
        asked=asked,
        environments=environments,
        offered_per_s=whole.offered_per_s,
        sent_per_s=whole.sent_per_s,
        done_per_s=whole.achieved_per_s,
        sent=whole.sent,
        processed=whole.processed,
        still_queued=whole.still_queued,
        lost=whole.lost,
        backlog=whole.backlog,
        drain_s=summary.load.drain_s,
        use=use,
        limits=use.limits,
        faults=tuple(fault for fault in summary.faults if not fault.startswith(_BOUND)),
    )


@contextlib.contextmanager
def _load(asked: Asked, results: Path, lock: Lock) -> Iterator["subprocess.Popen[bytes]"]:
    """``lambdalab load``, which ends with the block."""
    command = [str(Path(sys.executable).with_name("lambdalab")), "load", "--headless", "--only-summary"]
    command += ["--languages", asked.language, "--mix", MESSAGE, "--rate", str(asked.rate)]
    command += ["--duration", f"{asked.seconds}s", "--results", str(results)]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    with (results / "load.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables | lock.variables, pass_fds=(lock.fd,))
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait()


def _watched(
    process: "subprocess.Popen[bytes]", stack: LocalStack, latest: Path, sending: Callable[[], None]
) -> Iterator[Reading]:
    """Reads CPU times until the run has ended, and ends its wait for the queue after ``DRAIN_LIMIT_S``."""
    run = RunDirectory(latest)
    is_sending = is_hurried = False
    while process.poll() is None:
        if (reading := read(stack, process.pid)) is not None:
            yield reading
        if not is_sending and run.is_watched:
            is_sending = True
            sending()
        if not is_hurried and _draining_s(run) > DRAIN_LIMIT_S:
            is_hurried = True
            process.send_signal(signal.SIGINT)
        time.sleep(_LOOK_S)


def _draining_s(run: RunDirectory) -> float:
    """How long the run has waited for its queue; it does not grow any more when the queue was empty."""
    moments_ms = [sample.at_ms for sample in run.samples() if sample.phase == DRAIN]
    return (moments_ms[-1] - moments_ms[0]) / 1000 if moments_ms else 0.0


def _summary(results: Path, code: int) -> Summary:
    path = results / "latest" / "summary.json"
    if not path.exists():
        last = (results / "load.log").read_text(errors="replace").strip()[-_LAST_CHARACTERS:]
        raise SetupError(
            f"`lambdalab load` ended with exit code {code} and closed no books; its last lines were:\n{last}\n",
            next_step="mend what it names and run the benchmark again",
        )
    return msgspec.json.decode(path.read_bytes(), type=Summary)
