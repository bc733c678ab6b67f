"""When each message of a load run is due, where it goes and what it asks for. Pure, and the same on every worker.

The model is open: what is due does not depend on how fast anything answers. Every rate is messages a second. A shape is
a row of segments in which the rate is constant or changes linearly; an arrival is due where the rate, summed up over
time, reaches a whole number (constant arrivals) or the next point of a Poisson process of rate 1 (which makes a Poisson
process of the shape's rate: Cinlar, Introduction to Stochastic Processes, 1975, 4.7).
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from itertools import count, pairwise
from typing import Final, Literal, TypeVar

import msgspec

from lambdalab.design.arms import Items, Mode
from lambdalab.errors import LoadPlanError
from lambdalab.planning.protocol import LANGUAGES_OF_SCENARIO, items_faults

MAX_BATCH: Final = 10
"""Entries of one SendMessageBatch (Amazon SQS API reference)."""
MAX_RATE: Final = 100_000.0
MAX_USD: Final = 10_000.0
MAX_SHARE: Final = 100
LANGUAGES: Final = LANGUAGES_OF_SCENARIO["ingest"]

_ROUNDING: Final = 1e-9
"""A sum of rates may miss the whole number it stands for by this share of a message."""

Phase = Literal["ramp", "hold"]
Choice = TypeVar("Choice")


class Shape(StrEnum):
    """How the offered rate goes; what each reads of a plan is told there."""

    CONSTANT = "constant"
    STEPS = "steps"
    RAMP = "ramp"
    SPIKE = "spike"
    SOAK = "soak"
    REPLAY = "replay"
    STRICT = "strict"


class Arrivals(StrEnum):
    """How messages are spread at a given rate: at equal distances, or at random and independently of each other."""

    CONSTANT = "constant"
    POISSON = "poisson"


class Message(Items, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of message in a mix: ``share`` of it among the shares of all."""

    mode: Mode = Mode.SEQUENTIAL
    share: int = 1


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a load run offers. Rates are messages a second, times seconds.

    ============  =====================================================================================
    shape         reads
    ============  =====================================================================================
    ``constant``  ``rate`` for ``duration_s``
    ``steps``     each of ``rates`` for ``hold_s``, one step each
    ``ramp``      from 0 to ``rate`` within ``ramp_s`` (phase ramp), then ``rate`` for ``duration_s``
    ``spike``     ``rate`` for ``hold_s``, ``peak_rate`` for ``peak_s``, ``rate`` for ``hold_s``
    ``soak``      ``rate`` for ``duration_s`` in steps of ``hold_s``, so that a drift shows between them
    ``replay``    one message at each of ``times_s`` after the start
    ``strict``    ``blocks`` times every language and every message, one after the other has drained
    ============  =====================================================================================

    ``languages`` and the shares of ``mix`` are ratios that hold exactly over every block of their sums, in an order
    drawn from ``seed``. ``batch_size`` messages are due together and go in one request, to one queue; 1 is SendMessage.
    Neither more than ``max_messages`` are sent, nor any after ``max_s``; nor, on AWS, when
    more than ``max_usd`` may have been spent.
    """

    shape: Shape = Shape.CONSTANT
    arrivals: Arrivals = Arrivals.CONSTANT
    seed: int = 0
    rate: float = 10.0
    duration_s: float = 60.0
    rates: tuple[float, ...] = ()
    hold_s: float = 30.0
    ramp_s: float = 30.0
    peak_rate: float = 50.0
    peak_s: float = 10.0
    times_s: tuple[float, ...] = ()
    blocks: int = 10
    languages: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(LANGUAGES, 1))
    mix: tuple[Message, ...] = (Message(label="1024Bx10", size_bytes=1024, count=10),)
    batch_size: int = 1
    max_messages: int = 1_000_000
    max_s: float = 14_400.0
    max_usd: float = 10.0


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a shape in which the rate changes linearly, or not. ``step`` counts from 1."""

    step: int
    phase: Phase
    begins_s: float
    seconds: float
    from_rate: float
    to_rate: float

    @property
    def messages(self) -> float:
        """How many are offered in it, on average."""
        return (self.from_rate + self.to_rate) / 2 * self.seconds

    def reached_s(self, messages: float) -> float:
        """When so many of its messages have been offered, in seconds after the start of the run."""
        slope = (self.to_rate - self.from_rate) / self.seconds
        root = math.sqrt(self.from_rate**2 + 2 * slope * messages)
        return self.begins_s + (2 * messages / (self.from_rate + root) if messages else 0.0)


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """One request that is due: its messages go to one queue together.

    ``number`` counts the messages of all workers before it, ``at_s`` is from the start of the run, and ``messages`` are
    places in the plan's mix. In the shape ``strict`` nothing is due at a time: ``at_s`` is 0.
    """

    number: int
    at_s: float
    step: int
    phase: Phase
    arm: str
    messages: tuple[int, ...]


def segments(plan: LoadPlan) -> tuple[Segment, ...]:
    """The shape as stretches of time; of ``replay`` one at its mean rate, of ``strict``, which has no rate, none."""
    found: list[Segment] = []

    def add(seconds: float, to_rate: float, from_rate: float | None = None, step: int | None = None) -> None:
        last = found[-1] if found else None
        found.append(
            Segment(
                step=step or (last.step + 1 if last else 1),
                phase="hold" if from_rate is None else "ramp",
                begins_s=last.begins_s + last.seconds if last else 0.0,
                seconds=seconds,
                from_rate=to_rate if from_rate is None else from_rate,
                to_rate=to_rate,
            )
        )

    match plan.shape:
        case Shape.CONSTANT:
            add(plan.duration_s, plan.rate)
        case Shape.STEPS:
            for rate in plan.rates:
                add(plan.hold_s, rate)
        case Shape.RAMP:
            add(plan.ramp_s, plan.rate, from_rate=0.0)
            add(plan.duration_s, plan.rate, step=1)
        case Shape.SPIKE:
            add(plan.hold_s, plan.rate)
            add(plan.peak_s, plan.peak_rate)
            add(plan.hold_s, plan.rate)
        case Shape.SOAK:
            whole, rest = divmod(plan.duration_s, plan.hold_s)
            for seconds in (*[plan.hold_s] * int(whole), *([rest] if rest > _ROUNDING else [])):
                add(seconds, plan.rate)
        case Shape.REPLAY:
            length_s = max(plan.times_s[-1], 1.0)
            add(length_s, len(plan.times_s) / length_s)
    return tuple(found)


def expected_messages(plan: LoadPlan) -> float:
    """How many messages the plan offers; of Poisson arrivals, on average."""
    if plan.shape is Shape.STRICT:
        return float(plan.blocks * len(plan.languages) * len(plan.mix))
    return sum(segment.messages for segment in segments(plan))


def length_s(plan: LoadPlan) -> float | None:
    """How long it offers messages; None for ``strict``, which takes as long as they take."""
    found = segments(plan)
    return found[-1].begins_s + found[-1].seconds if found else None


def arrivals(plan: LoadPlan, worker: int = 0, workers: int = 1) -> Iterator[Arrival]:
    """What one worker of several has to send, in order of time: every ``workers``-th arrival, from its own number on.

    All workers together send exactly what one alone would. ``strict`` is one message at a time and all worker 0's.

    Args:
        plan: one that ``check_plan`` accepts.
        worker: which one, from 0.
        workers: how many there are.
    """
    if plan.shape is Shape.STRICT:
        yield from _strict(plan) if worker == 0 else ()
        return
    arms = _in_ratio(plan.languages, _draw(plan.seed, 1))
    kinds = _in_ratio({place: message.share for place, message in enumerate(plan.mix)}, _draw(plan.seed, 2))
    number = 0
    for position, (at_s, step, phase) in enumerate(_instants(plan)):
        arm = next(arms)
        messages = tuple(next(kinds) for _ in range(min(plan.batch_size, plan.max_messages - number)))
        if position % workers == worker:
            yield Arrival(number, at_s, step, phase, arm, messages)
        number += len(messages)
        if number >= plan.max_messages:
            return


def check_plan(plan: LoadPlan) -> None:
    """Refuses a plan that cannot be run.

    Raises:
        LoadPlanError: something in it is wrong, or contradicts something else; tells name, value and next step.
    """
    for name, value, next_step in _faults(plan):
        shown = f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else value
        raise LoadPlanError(f"load: {name} is {shown}", next_step=next_step)


def _instants(plan: LoadPlan) -> Iterator[tuple[float, int, Phase]]:
    """When requests are due, with step and phase."""
    if plan.shape is Shape.REPLAY:
        yield from ((at_s, 1, "hold") for at_s in plan.times_s)
        return
    draw = _draw(plan.seed, 0)
    gap: Callable[[], float] = (lambda: 1.0) if plan.arrivals is Arrivals.CONSTANT else lambda: -math.log(1.0 - draw())
    due = 0.0 if plan.arrivals is Arrivals.CONSTANT else gap()  # both in requests
    before = 0.0
    for segment in segments(plan):
        end = before + segment.messages / plan.batch_size
        while due < end - _ROUNDING:
            yield segment.reached_s(max(due - before, 0.0) * plan.batch_size), segment.step, segment.phase
            due += gap()
        before = end


def _strict(plan: LoadPlan) -> Iterator[Arrival]:
    """Every language once in a block, in an order drawn anew, and inside it the messages in the order of the mix."""
    draw, number = _draw(plan.seed, 1), count()
    for block in range(1, plan.blocks + 1):
        for arm in sorted(plan.languages, key=lambda _: draw()):
            for place in range(len(plan.mix)):
                if (position := next(number)) < plan.max_messages:
                    yield Arrival(position, 0.0, block, "hold", arm, (place,))


def _in_ratio(shares: Mapping[Choice, int], draw: Callable[[], float]) -> Iterator[Choice]:
    """Choices without end: every block of as many as the sum of shares holds each exactly its share of times."""
    block = [choice for choice, share in shares.items() for _ in range(share)]
    while len(block) == 1:
        yield block[0]
    while True:
        yield from sorted(block, key=lambda _: draw())


def _draw(seed: int, stream: int) -> Callable[[], float]:
    """Numbers in [0, 1) whose sequence the Python documentation promises to keep ("Notes on Reproducibility")."""
    return random.Random(seed * 3 + stream).random  # noqa: S311 - an experiment's arrivals, not a secret


def _faults(plan: LoadPlan) -> Iterator[tuple[str, object, str]]:
    """Find what types cannot say: the name, its value, and what to write instead."""
    yield from _number_faults(plan)
    yield from _message_faults(plan)
    yield from _shape_faults(plan)
    offered, seconds = expected_messages(plan), length_s(plan)
    if offered > plan.max_messages:
        yield "max messages", plan.max_messages, f"the plan offers {offered:.0f}: lower its rate or time, or raise this"
    if seconds is not None and seconds > plan.max_s:
        yield "max time", plan.max_s, f"the plan takes {seconds:g} s: shorten it, or raise this"


def _number_faults(plan: LoadPlan) -> Iterator[tuple[str, object, str]]:
    above_0 = f"write a number above 0, {MAX_RATE:g} at most"
    rates = {"rate": plan.rate, "peak rate": plan.peak_rate} | {f"rates[{i}]": r for i, r in enumerate(plan.rates)}
    seconds = {"duration": plan.duration_s, "hold": plan.hold_s, "ramp": plan.ramp_s, "peak time": plan.peak_s}
    for name, rate in rates.items():
        if not 0 < rate <= MAX_RATE:  # refuses nan as well
            yield name, rate, above_0
    for name, length in (seconds | {"max time": plan.max_s}).items():
        if not 0 < length < math.inf:
            yield name, length, "write a time above 0"
    if not 0 < plan.max_usd <= MAX_USD:
        yield "max usd", plan.max_usd, f"write USD above 0, {MAX_USD:g} at most"
    if not 1 <= plan.max_messages <= 2**53:
        yield "max messages", plan.max_messages, "write a number from 1"
    if plan.seed < 0:
        yield "seed", plan.seed, "write a number from 0"
    if not 1 <= plan.blocks <= 10_000:
        yield "blocks", plan.blocks, "write a number from 1 to 10000"
    if not 1 <= plan.batch_size <= MAX_BATCH:
        yield "batch size", plan.batch_size, f"write a number from 1 to {MAX_BATCH}, the most of one SendMessageBatch"


def _message_faults(plan: LoadPlan) -> Iterator[tuple[str, object, str]]:
    if not plan.languages:
        yield "languages", "", f"name at least one of: {', '.join(LANGUAGES)}"
    for language, share in plan.languages.items():
        if language not in LANGUAGES:
            yield "languages", language, f"there are: {', '.join(LANGUAGES)}"
        if not 1 <= share <= MAX_SHARE:
            yield f"share of {language}", share, f"write a whole number from 1 to {MAX_SHARE}"
    if not plan.mix:
        yield "mix", "", "name at least one message"
    labels = [message.label for message in plan.mix]
    for i, message in enumerate(plan.mix):
        yield from items_faults(f"mix[{i}]", message)
        if message.label in labels[:i]:
            yield f"mix[{i}].label", message.label, "name each kind once, with its share; results are grouped by label"
        if not 1 <= message.share <= MAX_SHARE:
            yield f"mix[{i}].share", message.share, f"write a whole number from 1 to {MAX_SHARE}"


def _shape_faults(plan: LoadPlan) -> Iterator[tuple[str, object, str]]:
    """Find the numbers of a shape that contradict each other or are missing."""
    match plan.shape:
        case Shape.STEPS if not plan.rates:
            yield "rates", "", "write the rate of each step, such as 5,10,20,40"
        case Shape.SPIKE if plan.peak_rate <= plan.rate:
            yield "peak rate", plan.peak_rate, f"write one above the rate, {plan.rate:g}"
        case Shape.SOAK if plan.hold_s > plan.duration_s:
            yield "hold", plan.hold_s, f"write at most the duration, {plan.duration_s:g} s"
        case Shape.REPLAY:
            times = plan.times_s
            if not times:
                yield "replay", "", "name a file with at least one timestamp"
            if any(not 0 <= at_s < math.inf for at_s in times) or any(a > b for a, b in pairwise(times)):
                yield "replay", "out of order", "write timestamps in ascending order"
            if plan.batch_size != 1:
                yield "batch size", plan.batch_size, "write 1: a replay has a time for each message"
        case Shape.STRICT if plan.batch_size != 1:
            yield "batch size", plan.batch_size, "write 1: strict is one message at a time"
        case Shape.STRICT if max(plan.languages.values()) > 1 or any(message.share > 1 for message in plan.mix):
            yield "share", "above 1", "leave shares out: strict sends every language and message once in a block"
