"""The books of a load run: what became of every message, where the pipeline kept up, and how long each way took. Pure.

Every message that SQS took is in exactly one of four: processed, dead-lettered, still queued, lost. The rules are those
of docs/books.md; the numbers follow from the files of the run alone.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from lambdalab.analysis.fates import Message, fates
from lambdalab.analysis.figures import Curve, curve_of
from lambdalab.analysis.load_limit import (
    BUSY,
    SERVERS,
    falls_behind,
    figures_between,
    limit_of,
    looks_between,
    verdicts,
)
from lambdalab.records.load import Ending, Figures, Limit, PipelineSample
from lambdalab.records.manifest import QueuedFunction
from lambdalab.records.trials import Estimate, InvocationRow, TrialResult
from lambdalab.statistics.estimates import LEVEL, median_estimate

ALL: Final = "all"
"""Of every arm together."""
DRAIN: Final = "drain"
METRICS: Final = ("queue_wait_ms", "duration_ms", "end_to_end_ms")


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """The messages of one step and arm; ``step`` None is the whole run, ``arm`` ``all`` every arm.

    ``intended`` were to be sent, ``dropped`` of them never begun (known of all arms together only), ``given_up`` not
    taken by SQS. ``sent`` were taken, and each of these is ``processed``, ``dead_lettered``,
    ``still_queued`` or ``lost``. ``duplicates`` counts further deliveries of processed messages that were done again;
    ``items_expected`` and ``items_found`` are of the processed messages, the second None where they were not counted.
    ``offered_per_s`` is the rate at which messages were intended, ``sent_per_s`` at which they were sent and
    ``achieved_per_s`` at which any were finished, all in the step's own time; ``backlog`` is how many had been sent and
    not begun when it ended. ``keeps_up`` is None where there is no telling.
    """

    step: int | None
    arm: str
    begins_ms: float
    seconds: float
    intended: int
    dropped: int | None
    given_up: int
    sent: int
    processed: int
    dead_lettered: int
    still_queued: int
    lost: int
    duplicates: int
    items_expected: int
    items_found: int | None
    offered_per_s: float | None
    sent_per_s: float | None
    achieved_per_s: float | None
    backlog: int
    keeps_up: bool | None

    @property
    def balances(self) -> bool:
        """Whether nothing is lost and the table holds what was processed."""
        return self.lost == 0 and self.items_found in (None, self.items_expected)


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """How long messages took in one phase: ``ramp``, ``hold``, or ``drain`` for those begun after the last was sent.

    ``queue_wait_ms`` is from SQS's SentTimestamp to the begin of the work, ``end_to_end_ms`` from when the schedule
    wanted the message sent to the end of the work. ``duration_ms`` is REPORT's, of the invocations of these messages.
    """

    phase: str
    arm: str
    n: int
    queue_wait_ms: Estimate | None
    duration_ms: Estimate | None
    end_to_end_ms: Estimate | None


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a load run that its messages' rows do not say; ``load`` in ``summary.json``.

    ``flows`` begin with the whole run of all arms. ``knees`` has the first step of each arm that did not keep up, None
    where all did. ``drain_s`` is from the last answered send until every queue was empty. ``curves`` are distributions,
    with the phase as their label. ``emulator_busy`` and ``plane_busy`` are the largest share of a step in which each
    had work. ``limit`` names what held back the work. ``bound`` says why the run must not be used, when a part of the
    measurement itself was the limit.
    """

    flows: tuple[Flow, ...]
    knees: dict[str, int | None]
    times: tuple[Times, ...]
    curves: tuple[Curve, ...]
    drain_s: float | None
    emulator_busy: float | None
    plane_busy: float | None
    limit: Limit
    bound: tuple[str, ...]
    cautions: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def whole(self) -> Flow:
        """The whole run, all arms."""
        return self.flows[0]

    def steps(self, arm: str = ALL) -> list[Flow]:
        """The steps of one arm, or of all together."""
        return [flow for flow in self.flows if flow.step is not None and flow.arm == arm]


def balance(
    trials: Sequence[TrialResult],
    rows: Iterable[InvocationRow],
    samples: Sequence[PipelineSample],
    ending: Ending | None,
    functions: Mapping[str, QueuedFunction],
) -> Books | None:
    """Closes the books.

    Args:
        trials: every message, as it was sent.
        rows: every invocation of one.
        samples: the pipeline, moment by moment.
        ending: what was left; None when the run was killed before it ended, and then nothing is known to be lost.
        functions: how the function of each arm was configured.

    Returns:
        None when no message was even tried.
    """
    messages = fates(trials, rows, ending)
    if not messages:
        return None
    last_sent_ms = max(message.sent_ms for message in messages)
    arms = sorted({message.arm for message in messages})
    named = [ALL, *arms] if len(arms) > 1 else [ALL]
    windows = _windows(messages)
    whole = (windows[0][1], windows[-1][2])
    dropped = {} if ending is None else ending.dropped

    def flows_of(spans: Iterable[tuple[int | None, float, float]]) -> list[Flow]:
        return [
            _flow(step, arm, (begin, end), _of(messages, arm), _dropped(dropped, step, arm))
            for arm in named
            for step, begin, end in spans
        ]

    flows = [*flows_of([(None, *whole)]), *flows_of(windows)]
    knees = {
        arm: next((flow.step for flow in flows if flow.step and flow.arm == arm and flow.keeps_up is False), None)
        for arm in named
    }
    in_steps = {step: figures_between(looks_between(samples, begin, end)) for step, begin, end in windows}
    work = {
        name: max((found.work[name] for found in in_steps.values() if found and name in found.work), default=None)
        for name in SERVERS
    }
    sender = () if ending is None else ending.generator_limits
    bound = tuple(verdicts(sender, work))
    drained_at_ms = None if ending is None else ending.drained_at_ms
    in_phases = [message._replace(phase=_phase(message, last_sent_ms)) for message in messages]
    return Books(
        flows=tuple(flows),
        knees=knees,
        times=tuple(_times(in_phases, named)),
        curves=tuple(_curves(in_phases)),
        drain_s=None if drained_at_ms is None else max(drained_at_ms - last_sent_ms, 0.0) / 1000,
        emulator_busy=work["emulator"],
        plane_busy=work["plane"],
        limit=_limit(flows, in_steps, figures_between(looks_between(samples, *whole)), functions, sender),
        bound=bound,
        cautions=tuple(_cautions(flows[0], messages, ending)),
        faults=(*bound, *_faults(flows[0], ending)),
    )


def _windows(messages: Sequence[Message]) -> list[tuple[int, float, float]]:
    """Each step with its begin and end: from its first intended message to that of the next step.

    The last one ends a mean gap after its last message, as the next would have come then.
    """
    instants: dict[int, list[float]] = {}
    for message in messages:
        instants.setdefault(message.step, []).append(message.intended_ms)
    begins = {step: min(of_step) for step, of_step in instants.items()}
    in_order = sorted(begins, key=begins.__getitem__)
    last = sorted(set(instants[in_order[-1]]))
    gap = (last[-1] - last[0]) / (len(last) - 1) if len(last) > 1 else 0.0
    ends = [*(begins[step] for step in in_order[1:]), last[-1] + gap]
    return [(step, begins[step], end) for step, end in zip(in_order, ends, strict=True)]


def _of(messages: Sequence[Message], arm: str) -> list[Message]:
    return [message for message in messages if arm in (ALL, message.arm)]


def _dropped(dropped: dict[int, int], step: int | None, arm: str) -> int | None:
    return (sum(dropped.values()) if step is None else dropped.get(step, 0)) if arm == ALL else None


def _flow(
    step: int | None, arm: str, window: tuple[float, float], of_arm: Sequence[Message], dropped: int | None
) -> Flow:
    """Counts of a step; its rates and its backlog are of the moments in its window, whatever step a message is of."""
    begin, end = window
    mine = [message for message in of_arm if step in (None, message.step)]
    left = Counter(message.left for message in mine if message.left is not None)
    processed = [message for message in mine if message.left == "processed"]
    counted = [message.items_found for message in processed]
    seconds = (end - begin) / 1000
    sent = [message for message in of_arm if message.left is not None]
    finished = sorted(message.finished_ms for message in sent if message.finished_ms is not None)

    def rate(count: int) -> float | None:
        return count / seconds if seconds > 0 else None

    def within(moments: Sequence[float]) -> int:
        return bisect_left(moments, end) - bisect_left(moments, begin)

    return Flow(
        step=step,
        arm=arm,
        begins_ms=begin,
        seconds=seconds,
        intended=len(mine) + (dropped or 0),
        dropped=dropped,
        given_up=len(mine) - sum(left.values()),
        sent=sum(left.values()),
        processed=left["processed"],
        dead_lettered=left["dead_lettered"],
        still_queued=left["still_queued"],
        lost=left["lost"],
        duplicates=sum(max(message.done_times - 1, 0) for message in mine),
        items_expected=sum(message.items_expected for message in processed),
        items_found=None if None in counted else sum(found for found in counted if found is not None),
        offered_per_s=rate(len(mine) + (dropped or 0)),
        sent_per_s=rate(within(sorted(message.sent_ms for message in sent))),
        achieved_per_s=rate(within(finished)) if finished else None,
        backlog=_waiting(sent, end),
        keeps_up=None if step is None or not finished else _keeps_up(sent, begin, end),
    )


def _waiting(sent: Sequence[Message], moment_ms: float) -> int:
    """How many had been sent and not begun. When a dead letter left its queue is not known, so it is not counted."""
    return sum(
        message.sent_ms <= moment_ms and (message.started_ms is None or message.started_ms > moment_ms)
        for message in sent
        if message.started_ms is not None or message.left in ("still_queued", "lost")
    )


def _keeps_up(sent: Sequence[Message], begin: float, end: float) -> bool:
    """Whether no backlog grows in the second half of a step; in the first one environments may still be starting."""
    middle = (begin + end) / 2
    arrived = sum(middle < message.sent_ms <= end for message in sent)
    return not falls_behind(_waiting(sent, end) - _waiting(sent, middle), arrived)


def _phase(message: Message, last_sent_ms: float) -> str:
    begun_late = message.started_ms is not None and message.started_ms > last_sent_ms
    return DRAIN if begun_late else message.phase


def _values(messages: Sequence[Message], metric: str) -> list[float]:
    """One value for each message, of Duration one for each invocation."""
    if metric == "end_to_end_ms":
        return [m.finished_ms - m.intended_ms for m in messages if m.finished_ms is not None]
    if metric == "queue_wait_ms":
        return [m.queue_wait_ms for m in messages if m.queue_wait_ms is not None]
    of_requests = {m.request_id: m.duration_ms for m in messages if m.duration_ms is not None}
    return list(of_requests.values())


def _in_phases(messages: Sequence[Message]) -> Iterator[tuple[str, list[Message]]]:
    for phase in ("ramp", "hold", DRAIN):
        of_phase = [message for message in messages if message.phase == phase and message.started_ms is not None]
        if of_phase:
            yield phase, of_phase


def _times(messages: Sequence[Message], arms: Iterable[str]) -> Iterator[Times]:
    for arm in arms:
        for phase, of_phase in _in_phases(_of(messages, arm)):
            estimates = {
                metric: median_estimate(values, LEVEL) if (values := _values(of_phase, metric)) else None
                for metric in METRICS
            }
            yield Times(phase=phase, arm=arm, n=len(of_phase), **estimates)


def _curves(messages: Sequence[Message]) -> Iterator[Curve]:
    for phase, of_phase in _in_phases(messages):
        for metric in METRICS:
            yield from curve_of(ALL, phase, metric, _values(of_phase, metric))


def _limit(
    flows: Sequence[Flow],
    in_steps: Mapping[int, Figures | None],
    in_all: Figures | None,
    functions: Mapping[str, QueuedFunction],
    sender: Sequence[str],
) -> Limit:
    """The limit of the whole run when it is the sender, else of the first step that did not keep up.

    Where every step kept up, it is that of the step in which the emulator or the plane had the most work.
    """
    arms = {flow.arm for flow in flows} - {ALL} or functions.keys()
    if sender:
        return limit_of(in_all, functions, sender=sender, behind=())
    known = [flow for flow in flows if flow.keeps_up is not None]
    above = next((step for step in in_steps if any(f.step == step and f.keeps_up is False for f in known)), None)
    if above is not None:
        behind = {flow.arm for flow in known if flow.step == above and flow.keeps_up is False} - {ALL} or arms
        return limit_of(in_steps[above], functions, sender=(), behind=behind, step=above)
    at_work = {step: max(figures.work.values(), default=0.0) for step, figures in in_steps.items() if figures}
    busiest = max(at_work, key=at_work.__getitem__, default=None)
    if busiest is not None and at_work[busiest] > BUSY:
        return limit_of(in_steps[busiest], functions, sender=(), behind=(), step=busiest)
    return limit_of(in_all, functions, sender=(), behind=() if known else None)


def _cautions(whole: Flow, messages: Sequence[Message], ending: Ending | None) -> Iterator[str]:
    if whole.dropped:
        yield f"{whole.dropped} of {whole.intended} messages were due and never begun"
    if whole.given_up:
        yield f"{whole.given_up} of {whole.intended} messages were given up before SQS took them"
    if whole.dead_lettered:
        yield f"{whole.dead_lettered} of {whole.sent} messages are in the dead-letter queue"
    if whole.duplicates:
        yield f"{whole.duplicates} deliveries were of messages that had been done already"
    if ending is not None and ending.strange_dead_letters:
        yield f"{ending.strange_dead_letters} messages in the dead-letter queues are not of this run"
    unseen = sum(message.left == "processed" and message.finished_ms is None for message in messages)
    if unseen:
        yield f"when {unseen} processed messages were begun and done is not known, so rates and times leave them out"


def _faults(whole: Flow, ending: Ending | None) -> Iterator[str]:
    if whole.lost:
        yield f"{whole.lost} of {whole.sent} messages are lost: neither processed nor in any queue"
    if whole.still_queued and ending is not None:
        yield f"{whole.still_queued} of {whole.sent} messages were still queued when the wait for them ended"
    if whole.items_found is not None and whole.items_found != whole.items_expected:
        yield f"{whole.items_found} of the {whole.items_expected} items of processed messages are in the tables"
    if not whole.processed:
        yield "no message was processed"
