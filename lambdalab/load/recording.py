"""The run directory of a load run: made before the first message, kept while they come, closed when all have gone.

Whoever sends has a ``Recording`` and tells it of every message. Each run has a process of its own (this module, started
with the folder) that looks at the pipeline every second, waits for the drain, counts what arrived and closes the books;
it does so as well when the sender is killed.
"""

import atexit
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Final
from typing import Protocol as Interface

import msgspec
from msgspec.structs import replace

from lambdalab import ingest
from lambdalab.collection import missing_reports
from lambdalab.console import make_console
from lambdalab.design import Factors, Load, Protocol, Start, as_cold
from lambdalab.errors import AccessError, InvalidRunError, LambdalabError, PlaneError, SetupError
from lambdalab.experiment import conclude, new_run
from lambdalab.load.ledger import Ending, PipelineSample, Send, Sending
from lambdalab.load.pipeline import CLOCK_SKEW_MS, Pipeline
from lambdalab.load.schedule import LoadPlan, arrivals, length_s
from lambdalab.local.stack import running_stack
from lambdalab.model import Manifest, Trial, TrialResult
from lambdalab.observations import observe_run
from lambdalab.report.terminal import show
from lambdalab.spending import DRAIN_GRACE_S, MISSING_ITEMS_POLLS
from lambdalab.store import RunDirectory
from lambdalab.target import AwsTarget, LocalTarget, aws_target, local_target

SAMPLE_S: Final = 1.0
BLOCKS_AT_MOST: Final = 100
_COUNTERS: Final = 8
_READY_S: Final = 0.05


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """What the sender says when it sends no more: why, and what its generator says of itself (``ledger.Ending``)."""

    why: str
    dropped: dict[int, int] = {}
    generator_limits: tuple[str, ...] = ()
    generator: dict[str, object] | None = None


class Report(Interface):
    """What is read of a generator's report (``generator.GeneratorReport``, whose module brings gevent)."""

    @property
    def offered(self) -> int: ...

    @property
    def dropped_of_step(self) -> dict[int, int]: ...

    @property
    def limits(self) -> tuple[str, ...]: ...


class Recording:
    """Keeps load runs, one after the other, seen from whoever sends (``shape.Recorder``).

    Args:
        results: the folder of run directories.

    Attributes:
        store: the directory of the run that is under way, or of the last one; None before the first.
    """

    def __init__(self, results: Path) -> None:
        self.store: RunDirectory | None = None
        self._results = results

    @property
    def is_open(self) -> bool:
        """Whether the books of ``store`` are being kept or closed."""
        return self.store is not None and self._process.poll() is None

    def begin(self, plan: LoadPlan, target: AwsTarget) -> str:
        """Makes the run's directory and starts the process that keeps its books; returns the run's id.

        Raises:
            StackError, AccessError, StorageError: see ``new_run``; the queues must be empty.
            SetupError: the process cannot work; why has been said.
        """
        store = new_run(target, protocol_of(plan), self._results, seed=plan.seed, load=msgspec.to_builtins(plan))
        self._manifest = store.manifest()
        self._loads = {load.label: load for load in self._manifest.protocol.loads}
        self._began_ms = datetime.fromisoformat(self._manifest.started_at).timestamp() * 1000
        self._block_ms = block_seconds(plan) * 1000
        self._plan, self._told = plan, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lambdalab.load.recording", str(store.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the sender, which then ends the run
        )
        self.store = store
        atexit.register(self.hurry)
        while not store.is_watched:  # else the first messages would be in no count
            if self._process.poll() is not None:
                raise SetupError(
                    f"the books of run {self._manifest.run_id} cannot be kept, as its own process said",
                    next_step="repair that, and begin again",
                )
            time.sleep(_READY_S)
        return self._manifest.run_id

    def sends(self, sends: Sequence[Send]) -> None:
        """Writes down how messages were sent, in any order."""
        assert self.store is not None
        self.store.append_trials([self._as_trial(send, self._told + i) for i, send in enumerate(sends)])
        self._told += len(sends)

    def end(self, report: Report) -> None:
        """Nothing is sent any more: waits for the drain and until the books are closed.

        Ctrl-C or ``hurry`` ends the wait: the books are then closed with what is still queued.

        Raises:
            InvalidRunError: the result must not be used; ``summary.json`` says why.
            SetupError: the books could not be closed; why has been said.
        """
        stopped = Stopped(
            why="the plan was over" if self._is_over(report) else "stopped by hand",
            dropped=report.dropped_of_step,
            generator_limits=report.limits,
            generator=msgspec.to_builtins(report),
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; its exit code tells
            self._process.stdin.write(msgspec.json.encode(stopped) + b"\n")
            self._process.stdin.close()
        try:
            code = self._process.wait()
        except KeyboardInterrupt:
            code = self.hurry()
        run_id = self._manifest.run_id
        if code == InvalidRunError.exit_code:
            raise InvalidRunError(
                f"run {run_id} is invalid", next_step=f"see why with `lambdalab report {run_id}`, and run it again"
            )
        if code:
            raise SetupError(
                f"the books of run {run_id} were not closed",
                next_step=f"see what there is with `lambdalab report {run_id}`",
            )

    def hurry(self) -> int:
        """Closes the books of a run that is under way without waiting for the drain.

        Returns:
            The exit code of the process that keeps them; 0 where no run has begun.
        """
        if self.store is None:
            return 0
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.terminate()
        return self._process.wait()

    def _as_trial(self, send: Send, position: int) -> TrialResult:
        """What is known of a message when it has been sent."""
        return TrialResult(
            trial=Trial(
                trial_id=send.batch_id.removeprefix(self._manifest.run_id)[1:],
                block=max(int((send.intended_at_ms - self._began_ms) / self._block_ms), 0) + 1,
                position=position,
                arm=send.arm,
                load=self._loads[send.label],
            ),
            batch_id=send.batch_id,
            message_id=send.message_id,
            sent_at_ms=round(send.began_at_ms),
            drained_at_ms=None,
            message_bytes=send.message_bytes,
            items_expected=send.items,
            items_found=None,
            reason=None if send.error is None else f"not sent: {send.error}",
            sending=Sending(**{name: getattr(send, name) for name in Sending.__struct_fields__}),
        )

    def _is_over(self, report: Report) -> bool:
        """Whether everything in the plan was due."""
        messages = accumulate(len(arrival.messages) for arrival in arrivals(self._plan))
        return all(number <= report.offered for number in messages)


def protocol_of(plan: LoadPlan) -> Protocol:
    """A load run as a protocol: an arm for each language, each message twice, as warm and as cold invocations.

    A block is a stretch of at least a second; comparisons take its median, since neighbours are not independent.
    """
    seconds = length_s(plan)
    loads = [
        Load(label=message.label, size_bytes=message.size_bytes, count=message.count, start=Start.WARM)
        for message in plan.mix
    ]
    return Protocol(
        name="load",
        scenario="ingest",
        description=f"Load of shape {plan.shape}, {plan.arrivals} arrivals, whether the target keeps up or not.",
        blocks=1 if seconds is None else math.ceil(seconds / block_seconds(plan)),
        factors=Factors(language=tuple(plan.languages)),
        loads=(*loads, *map(as_cold, loads)),
    )


def block_seconds(plan: LoadPlan) -> float:
    """How long a block is: a second, or in a long run a hundredth of it."""
    return max(1.0, (length_s(plan) or 0.0) / BLOCKS_AT_MOST)


class Bookkeeper:
    """One load run, seen from the process that keeps its books.

    Args:
        target: where it runs.
        store: the run.
        hurry: ends the wait for the drain when it is set.
    """

    def __init__(self, target: AwsTarget, store: RunDirectory, hurry: threading.Event) -> None:
        self._target = target
        self._store = store
        self._hurry = hurry
        self._manifest = store.manifest()
        self._arms = {arm.name: target.resources(arm) for arm in self._manifest.protocol.arms}
        self._pipeline = Pipeline(target, store, self._complain)
        self._said: set[str] = set()

    def watch(self, ended: threading.Event) -> None:
        """Looks at the pipeline until the sender has ended.

        Raises:
            AccessError, PlaneError: the target does not answer the first time.
        """
        self._pipeline.sample()
        while not ended.wait(SAMPLE_S):
            self._look(draining=False)

    def close(self, stopped: Stopped | None) -> None:
        """Waits for the drain, counts what arrived, collects what was logged, and writes it down.

        Args:
            stopped: what the sender said; None when it was killed.

        Raises:
            AccessError, PlaneError, StorageError: the target or the disk cannot go on.
        """
        drained_at_ms = self._drain()
        results = self._store.trials()
        # In this order: what moves on meanwhile is then found where it is, and never missing from both places.
        queued = {arm: self._target.queue_depth(of_arm.queue_url) for arm, of_arm in self._arms.items()}
        dead, strange = self._dead_letters({result.batch_id for result in results})
        results = self._counted(results, dead, again=drained_at_ms is not None)
        now_ms = round(time.time() * 1000)
        results = [
            replace(result, drained_at_ms=now_ms if result.batch_id in dead or _is_complete(result) else None)
            for result in results
        ]
        self._collect([result for result in results if _is_complete(result)])
        self._store.write_trials(results)
        self._store.write_ending(
            Ending(
                drained_at_ms=drained_at_ms,
                queued=queued,
                dead_letters=tuple(sorted(dead)),
                strange_dead_letters=strange,
                dropped={} if stopped is None else stopped.dropped,
                generator_limits=() if stopped is None else stopped.generator_limits,
                generator=None if stopped is None else stopped.generator,
            )
        )
        if stopped is not None:
            self._store.write_manifest(replace(self._manifest, stopped=stopped.why))

    def _look(self, *, draining: bool) -> PipelineSample | None:
        """One sample; None where the target does not answer, which may pass."""
        try:
            return self._pipeline.sample(draining=draining)
        except (AccessError, PlaneError) as error:
            self._complain(error)
            return None

    def _complain(self, error: LambdalabError) -> None:
        """Says what is wrong, once."""
        if str(error) not in self._said:
            self._said.add(str(error))
            print(error, file=sys.stderr, flush=True)

    def _drain(self) -> float | None:
        """Waits until every queue is empty, or nothing has left one for longer than an invocation can take.

        Returns:
            When they were seen empty; None if they were not.
        """
        limit_s = max(function.timeout_s for function in self._manifest.functions.values()) + DRAIN_GRACE_S
        least, moved, empty_since, readings = math.inf, time.monotonic(), 0.0, 0
        while not self._hurry.is_set() and time.monotonic() < moved + limit_s:
            sample = self._look(draining=True)
            if sample is not None:
                left = sum(queue.visible + queue.in_flight for queue in sample.arms.values())
                empty_since, readings = (empty_since or sample.at_ms, readings + 1) if left == 0 else (0.0, 0)
                if readings >= self._target.empty_readings:
                    return empty_since
                if left < least:
                    least, moved = left, time.monotonic()
            self._hurry.wait(max(self._target.poll_s, SAMPLE_S / 4))
        return None

    def _dead_letters(self, batch_ids: set[str]) -> tuple[set[str], int]:
        """Batches of this run that lie in dead-letter queues, and how many other messages do."""
        mine, others = set(), 0
        for of_arm in self._arms.values():
            for body in self._target.bodies(of_arm.dead_letter_queue_url):
                batch_id = _batch_id(body)
                if batch_id in batch_ids:
                    mine.add(batch_id)
                else:
                    others += 1
        return mine, others

    def _counted(self, results: list[TrialResult], dead: set[str], *, again: bool) -> list[TrialResult]:
        """Counts the items of every message; where some are missing again for a while, as queues may seem empty."""
        found: dict[str, TrialResult] = {}
        left = results
        with ThreadPoolExecutor(_COUNTERS) as threads:
            for _ in range(MISSING_ITEMS_POLLS if again else 1):
                found |= {result.batch_id: result for result in threads.map(self._count, left)}
                left = [
                    r for r in found.values() if not (_is_complete(r) or r.batch_id in dead or r.message_id is None)
                ]
                if not left:
                    break
                time.sleep(self._target.poll_s)
        return [_judged(found[result.batch_id], dead) for result in results]

    def _count(self, result: TrialResult) -> TrialResult:
        of_arm = self._arms[result.trial.arm]
        return replace(result, items_found=ingest.count_items(self._target.aws, of_arm, result.batch_ids))

    def _collect(self, results: Sequence[TrialResult]) -> None:
        """Collects until the REPORT of every message that was done is found, or the deadline passes."""
        deadline = time.monotonic() + self._target.log_delay_s
        since_ms: int | None = None
        while True:
            self._pipeline.collect(since_ms)
            missing = missing_reports(self._manifest, results, observe_run(self._store))
            if not missing or time.monotonic() > deadline:
                return
            since_ms = min(result.sent_at_ms or 0 for result in missing) - CLOCK_SKEW_MS
            self._hurry.wait(max(self._target.poll_s, SAMPLE_S))


def _is_complete(result: TrialResult) -> bool:
    return result.items_found is not None and result.items_found >= result.items_expected


def _judged(result: TrialResult, dead: Iterable[str]) -> TrialResult:
    """Says why a message's sample is not valid, where its items already tell."""
    if result.reason is not None:
        return result
    if result.batch_id in dead:
        return replace(result, reason="dead-lettered")
    if result.items_found != result.items_expected:
        return replace(result, reason=f"{result.items_found} of {result.items_expected} items are in the table")
    return result


def _batch_id(body: str) -> str | None:
    try:
        message = json.loads(body)
    except ValueError:
        return None
    return message.get("batch_id") if isinstance(message, dict) else None


def target_of(manifest: Manifest) -> AwsTarget:
    """Where a run was begun.

    Raises:
        PlaneError, StackError, AccessError: it is not there any more.
    """
    if manifest.target != LocalTarget.name:
        return aws_target(manifest.stack_name)
    local = running_stack()
    if local is None:
        raise PlaneError("no local stack is up", next_step="start one with `lambdalab up`")
    return local_target(local)


def main() -> int:
    """Keeps the books of the run in the folder given, until standard input ends; then closes them and shows them."""
    store = RunDirectory(Path(sys.argv[1]))
    hurry, ended, said = threading.Event(), threading.Event(), bytearray()
    signal.signal(signal.SIGTERM, lambda *_: hurry.set())

    def listen() -> None:
        while part := os.read(sys.stdin.fileno(), 65536):
            said.extend(part)
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        keeper = Bookkeeper(target_of(store.manifest()), store, hurry)
        keeper.watch(ended)
        keeper.close(msgspec.json.decode(said, type=Stopped) if said.endswith(b"\n") else None)
        summary = conclude(store)
        show(summary, make_console())
        print(f"page: {os.path.relpath(store.folder)}/report.html", flush=True)
    except LambdalabError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return InvalidRunError.exit_code if summary.faults else 0


if __name__ == "__main__":
    sys.exit(main())
