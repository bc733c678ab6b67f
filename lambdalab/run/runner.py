"""Executes a schedule on a target, one batch of messages at a time, and writes down everything as it happens.

Inside a block every arm runs its loads in order: a cold start is forced before the cold load, the messages of one batch
(one, unless the protocol sets the batch size) are sent, the queue drains, the items are counted, then the next. A run
that was interrupted goes on with the first arm of a block that is not complete, since the warm loads need the
environment their cold load made.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Final

from msgspec.structs import replace

from lambdalab.analysis.message_rows import missing_reports
from lambdalab.design.arms import Arm, Start
from lambdalab.errors import InvalidRunError, LambdalabError, StackError
from lambdalab.logs.observations import observe, observe_run
from lambdalab.planning.spending import DRAIN_GRACE_S, MISSING_ITEMS_POLLS
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import Trial, TrialResult, message_batch_ids
from lambdalab.run import ingest
from lambdalab.run.target import CLOCK_SKEW_MS, AwsTarget, Resources

LOOK_AT_LOGS_S: Final = 10.0
"""A message that has not drained by then may have failed; its own record tells."""
EMPTY_QUEUE_WAIT_S: Final = 10.0
"""What an interrupted run sent last may still be at work."""
LEAST_LOG_WAIT_S: Final = 0.25
INTERRUPTED: Final = "interrupted"
Progress = Callable[[Trial], None]
"""Told each trial before it begins."""


def remaining(schedule: Sequence[Trial], done: Iterable[TrialResult]) -> list[Trial]:
    """What is left to do: every arm of a block that is not complete, from its cold load on."""
    finished = {result.trial.trial_id for result in done if result.finished}
    left: list[Trial] = []
    for _, group in groupby(schedule, key=lambda trial: (trial.block, trial.arm)):
        trials = list(group)
        if not all(trial.trial_id in finished for trial in trials):
            left += trials
    return left


def kept_trials(store: RunDirectory) -> list[TrialResult]:
    """The trials of a run, without those of a local run whose REPORT line is missing.

    A plane that is killed takes the last log lines with it, so these trials have to be measured again.
    """
    manifest, trials = store.manifest(), store.trials()
    if manifest.target != "local":
        return trials
    lost = {trial.batch_id for trial in missing_reports(manifest, trials, observe_run(store))}
    return [trial for trial in trials if trial.batch_id not in lost]


def require_empty_queues(target: AwsTarget, arms: Iterable[Arm]) -> None:
    """Waits a while until the arms' queues and dead-letter queues are empty, since a message must be alone.

    Raises:
        StackError: one is not.
    """
    deadline = time.monotonic() + EMPTY_QUEUE_WAIT_S
    for of_arm in map(target.resources, arms):
        for url in (of_arm.queue_url, of_arm.dead_letter_queue_url):
            while (depth := target.queue_depth(url)) > 0:
                if time.monotonic() > deadline:
                    raise StackError(
                        f"queue {url} is not empty ({depth} messages), and a run's own must be the only ones",
                        next_step=target.emptying(url),
                    )
                time.sleep(target.poll_s)


class Runner:
    """One run on one target.

    Args:
        target: where messages go.
        store: where results go.
        progress: told each trial before it begins.
        stop: asked before every block, and after the last, whether to end there, and why.
    """

    def __init__(
        self, target: AwsTarget, store: RunDirectory, progress: Progress, stop: Callable[[], str | None] = lambda: None
    ) -> None:
        self._target = target
        self._store = store
        self._progress = progress
        self._stop = stop
        self._manifest = store.manifest()
        self._arms = {arm.name: arm for arm in self._manifest.protocol.arms}
        self._resources = {arm.name: target.resources(arm) for arm in self._manifest.protocol.arms}
        began = datetime.fromisoformat(self._manifest.started_at)
        self._begin_ms = round(began.timestamp() * 1000) - CLOCK_SKEW_MS
        self._attempts = Counter(result.trial.trial_id for result in store.trials())

    def run(self, schedule: Sequence[Trial]) -> None:
        """Executes what is left of the schedule, or until ``stop`` says why not, then collects.

        Collecting ends when every REPORT is found or a deadline passes.

        However it ends, what was measured is on disk and the functions have their configuration back; where that fails
        too, the error carries a note.

        Raises:
            StackError: a queue is not empty at the start.
            InvalidRunError: a message did not drain; the messages after it would not be alone.
            AccessError, PlaneError, StorageError: the target or the disk cannot go on.
        """
        require_empty_queues(self._target, self._manifest.protocol.arms)
        try:
            with self._target.naming_what_ended():
                self._measure(schedule)
        except BaseException as error:
            for clean_up in (self._target.restore, lambda: self._collect(self._begin_ms)):
                try:
                    clean_up()
                except LambdalabError as second:
                    error.add_note(str(second))
            raise
        try:
            self._target.restore()
        finally:
            self._collect_rest()

    def _measure(self, schedule: Sequence[Trial]) -> None:
        for block, trials in groupby(remaining(schedule, kept_trials(self._store)), key=lambda trial: trial.block):
            if self._stop() is not None:
                break
            block_began_ms = _now_ms()
            with self._target.watching_cpu(block, self._store.append_block_load):
                for trial in trials:
                    self._progress(trial)
                    self._execute(trial)
            self._collect(block_began_ms - CLOCK_SKEW_MS - round(self._target.log_delay_s * 1000))
        else:
            self._stop()

    def _execute(self, trial: Trial) -> None:
        arm, of_arm = self._arms[trial.arm], self._resources[trial.arm]
        if trial.load.start is Start.COLD:
            self._target.configure(arm)
            self._target.start_cold(of_arm)
        # A killed runner may have sent a message it did not write down: every resumption counts as an attempt.
        attempt = max(self._attempts[trial.trial_id], len(self._manifest.resumed_at)) + 1
        batch_id = f"{self._manifest.run_id}:{trial.trial_id}" + (f":{attempt}" if attempt > 1 else "")
        bodies = [ingest.message(id_, trial.load, arm.mode) for id_ in message_batch_ids(batch_id, arm.messages)]
        result = TrialResult(
            trial=trial,
            batch_id=batch_id,
            message_id=None,
            sent_at_ms=_now_ms(),
            drained_at_ms=None,
            message_bytes=sum(len(body.encode()) for body in bodies),
            items_expected=trial.load.count * arm.messages,
            items_found=None,
            reason=INTERRUPTED,
            messages=arm.messages,
        )
        before = self._target.plane_counts()
        try:
            result = replace(result, message_id=self._target.send(of_arm, bodies))
            drained, items_found, reason = self._drain(of_arm, result)
            drained_at_ms = _now_ms() if drained else None
            after = self._target.plane_counts()
            if drained and before is not None and after is not None:
                faults = after.faults(before, own=1, cpu_limit=self._manifest.cpu_limit)
                reason = "; ".join([*([] if reason is None else [reason]), *faults]) or None
            result = replace(result, drained_at_ms=drained_at_ms, items_found=items_found, reason=reason)
        finally:
            self._store.append_trial(result)
        if not drained:
            raise InvalidRunError(
                f"trial {trial.trial_id} did not finish: {reason}",
                next_step=f"see the log group {of_arm.log_group}; "
                f"empty the queue {of_arm.queue_url} before the next run",
            )

    def _drain(self, of_arm: Resources, sent: TrialResult) -> tuple[bool, int | None, str | None]:
        """Waits until the queue is empty and the items are there.

        Returns:
            Whether the queue drained, how many items were found, and why the trial is not valid, if so.
        """
        begin = time.monotonic()
        sent_ms = _now_ms()
        limit_s = self._manifest.functions[sent.trial.arm].timeout_s + DRAIN_GRACE_S
        look_at_logs = begin + LOOK_AT_LOGS_S
        readings = 0
        while True:
            time.sleep(self._target.poll_s)
            self._target.require_alive()
            readings = readings + 1 if self._target.queue_depth(of_arm.queue_url) == 0 else 0
            if readings >= self._target.empty_readings:
                found = ingest.count_items(self._target.aws, of_arm, sent.batch_ids)
                if found == sent.items_expected:
                    return True, found, None
                # On AWS the queue may read empty before the message shows; time tells.
                if time.monotonic() > begin + self._target.poll_s * MISSING_ITEMS_POLLS:
                    return True, found, f"{found} of {sent.items_expected} items are in the table"
            now = time.monotonic()
            if now > look_at_logs:
                look_at_logs = now + LOOK_AT_LOGS_S
                if (failure := self._reported_failure(of_arm, sent, sent_ms)) is not None:
                    return False, None, failure
            if now > begin + limit_s:
                return False, None, f"its queue was not empty after {now - begin:.0f} s"

    def _reported_failure(self, of_arm: Resources, sent: TrialResult, sent_ms: int) -> str | None:
        """What went wrong with a message, when its function has said so."""
        lines = self._target.log_lines(of_arm.log_group, sent_ms - CLOCK_SKEW_MS)
        for observed in observe(lines):
            for record in observed.records:
                if record.batch_id in sent.batch_ids and record.error is not None:
                    return f"the function reported {record.error.code}: {record.error.message}"
        return None

    def _collect(self, since_ms: int) -> None:
        for log_group in dict.fromkeys(of_arm.log_group for of_arm in self._resources.values()):
            self._store.append_log_lines(self._target.log_lines(log_group, since_ms))

    def _collect_rest(self) -> None:
        """Collects until nothing is missing or the deadline passes; what is missing then is said in the result."""
        deadline = time.monotonic() + self._target.log_delay_s
        trials = self._store.trials()
        since_ms = self._begin_ms
        while True:
            self._collect(since_ms)
            missing = missing_reports(self._manifest, trials, observe_run(self._store))
            if not missing or time.monotonic() > deadline:
                return
            since_ms = min(trial.sent_at_ms or self._begin_ms for trial in missing) - CLOCK_SKEW_MS
            time.sleep(max(self._target.poll_s, LEAST_LOG_WAIT_S))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
