"""Keeps the books of one load run: looks at the pipeline again and again, waits for the drain, counts what arrived.

A process of its own, started with the run's folder (``python -m lambdalab.load.bookkeeper``), so that looking does not
disturb whoever sends. It closes the books when its standard input ends, whether the sender said why or was killed.
"""

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from lambdalab.analysis.message_rows import missing_reports
from lambdalab.errors import AccessError, InvalidRunError, LambdalabError, PlaneError
from lambdalab.load.pipeline import Pipeline
from lambdalab.local.stack import running_stack
from lambdalab.logs.observations import observe_run
from lambdalab.planning.spending import DRAIN_GRACE_S, MISSING_ITEMS_POLLS
from lambdalab.records.load import Ending, PipelineSample
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import TrialResult
from lambdalab.report.console import make_console
from lambdalab.report.terminal import show
from lambdalab.run import ingest
from lambdalab.run.experiment import conclude
from lambdalab.run.local_target import LocalTarget, local_target
from lambdalab.run.target import CLOCK_SKEW_MS, AwsTarget, aws_target

SAMPLE_S: Final = 1.0
_DRAIN_SAMPLE_S: Final = 0.25
"""So that when a local queue was empty is known to as much; a target may ask for more."""
_COUNTERS: Final = 8


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """What the sender says when it sends no more: why, and what its generator says of itself (``ledger.Ending``).

    ``offered`` is how many messages were due.
    """

    why: str
    offered: int
    dropped: dict[int, int] = {}
    generator_limits: tuple[str, ...] = ()
    generator: dict[str, object] | None = None


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
        self._pipeline.stop(None if stopped is None else stopped.offered)
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
        try:
            self._collect([result for result in results if _is_complete(result)])
        except (AccessError, PlaneError) as error:  # what was counted is written already, and is worth a report
            self._complain(error)

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
            When they were seen empty; None if they were not, as when a part of the local stack has ended.
        """
        limit_s = max(function.timeout_s for function in self._manifest.functions.values()) + DRAIN_GRACE_S
        least, moved, empty_since, readings = math.inf, time.monotonic(), 0.0, 0
        while not self._hurry.is_set() and time.monotonic() < moved + limit_s:
            try:
                self._target.require_alive()
            except PlaneError as error:
                self._complain(error)
                return None
            sample = self._look(draining=True)
            if sample is not None:
                left = sum(queue.visible + queue.in_flight for queue in sample.arms.values())
                empty_since, readings = (empty_since or sample.at_ms, readings + 1) if left == 0 else (0.0, 0)
                if readings >= self._target.empty_readings:
                    return empty_since
                if left < least:
                    least, moved = left, time.monotonic()
            self._hurry.wait(max(self._target.poll_s, _DRAIN_SAMPLE_S))
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
            if not missing or self._hurry.is_set() or time.monotonic() > deadline:
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


def target_of(manifest: MessageManifest) -> AwsTarget:
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
        print(f"report: {os.path.relpath(store.folder)}/report.html", flush=True)
    except LambdalabError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return InvalidRunError.exit_code if summary.faults else 0


if __name__ == "__main__":
    sys.exit(main())
