"""What became of every message of a load run: in which of four places it is, and when it was begun and done. Pure."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from lambdalab.records.load import Ending
from lambdalab.records.trials import InvocationRow, TrialResult


class Message(NamedTuple):
    """What is known of one message. ``left`` tells where it is: one of the four, or None when SQS never took it.

    One that its sender gave up, for want of an answer, may have been taken all the same: then it is somewhere.
    """

    arm: str
    step: int
    phase: str
    intended_ms: float
    sent_ms: float
    left: str | None
    started_ms: float | None
    finished_ms: float | None
    done_times: int
    queue_wait_ms: float | None
    duration_ms: float | None
    request_id: str | None
    items_expected: int
    items_found: int | None


def fates(trials: Iterable[TrialResult], rows: Iterable[InvocationRow], ending: Ending | None) -> list[Message]:
    """Every message with what became of it, in the order it was to be sent."""
    done: dict[str, list[InvocationRow]] = {}
    for row in rows:
        if row.written is not None:
            done.setdefault(row.trial, []).append(row)
    dead = frozenset(() if ending is None else ending.dead_letters)
    messages = []
    for trial in trials:
        sending = trial.sending
        if sending is None:
            continue
        complete = [row for row in done.get(trial.trial.trial_id, ()) if _wrote_all(row, trial)]
        first = min(complete, key=lambda row: row.started_at or "", default=None)
        in_table = trial.items_found is not None and trial.items_found >= trial.items_expected
        left = "dead_lettered" if trial.batch_id in dead else "processed" if first or in_table else None
        if left is None and trial.message_id is not None:
            left = "missing"
        started_ms = None if first is None else _epoch_ms(first.started_at)
        messages.append(
            Message(
                arm=trial.trial.arm,
                step=sending.step,
                phase=sending.phase,
                intended_ms=sending.intended_at_ms,
                sent_ms=sending.began_at_ms if sending.answered_at_ms is None else sending.answered_at_ms,
                left=left,
                started_ms=started_ms,
                finished_ms=_finished_ms(first, started_ms),
                done_times=len(complete),
                queue_wait_ms=None if first is None else first.queue_wait_ms,
                duration_ms=None if first is None else first.duration_ms,
                request_id=None if first is None else first.request_id,
                items_expected=trial.items_expected,
                items_found=trial.items_found,
            )
        )
    messages.sort(key=lambda message: message.intended_ms)
    return _placed(messages, ending)


def _placed(messages: list[Message], ending: Ending | None) -> list[Message]:
    """Tells what is still queued from what is lost.

    A queue tells how many messages it holds, not which, since looking would count as receiving; they are taken to be
    the last ones sent. Where a run has no ending its queues are not known, and everything missing may be in them.
    """
    places = {i for i, message in enumerate(messages) if message.left == "missing"}
    queued = set(places) if ending is None else set()
    for arm, depth in (ending.queued if ending else {}).items():
        mine = [i for i in sorted(places) if messages[i].arm == arm]
        queued.update(mine[max(len(mine) - depth, 0) :])
    return [
        message._replace(left="still_queued" if i in queued else "lost") if i in places else message
        for i, message in enumerate(messages)
    ]


def _wrote_all(row: InvocationRow, trial: TrialResult) -> bool:
    return row.written is not None and row.written + (row.duplicates or 0) == trial.items_expected


def _epoch_ms(timestamp: str | None) -> float | None:
    return None if timestamp is None else datetime.fromisoformat(timestamp).timestamp() * 1000


def _finished_ms(row: InvocationRow | None, started_ms: float | None) -> float | None:
    """When the work was done; not known where two clocks disagree so much that a time would be negative."""
    if row is None or started_ms is None or row.end_to_end_ms is None or row.queue_wait_ms is None:
        return None
    return started_ms + row.end_to_end_ms - row.queue_wait_ms
