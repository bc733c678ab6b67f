"""What a run will ask for before anything is spent: messages, minutes, money, and on what that figure rests. Pure.

Times come from the newest run here of the same loads, arms and code under the same conditions; where there is none,
from assumptions, and the plan says which.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from lambdalab.analysis.message_rows import MeasuredRun, read_run
from lambdalab.analysis.pairing import is_gate, judged_comparisons
from lambdalab.design.arms import Arm, Load, Protocol, Start
from lambdalab.errors import LambdalabError, UsageError
from lambdalab.planning.spending import DRAIN_GRACE_S, MOST_MINUTES, MOST_USD, invocation_usd, lab_use, most_usd
from lambdalab.pricing.costs import PriceSheet
from lambdalab.records.conditions import Conditions, run_alike
from lambdalab.records.manifest import QueuedFunction
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import TrialResult
from lambdalab.statistics.comparison import MARGIN, fewest_blocks, needed_blocks

EFFECT: Final = 0.05
ASSUMED_INIT_MS: Final = 600.0
ASSUMED_ITEM_MS: Final = 25.0
"""Of one put at 128 MB; more memory is taken to shorten it in proportion, up to one vCPU at 1,769 MB."""
ASSUMED_CV: Final = 0.2
"""Standard deviation over mean of a cell's durations."""
ASSUMED_OVERHEAD_S: Final = {"local": 0.5, "aws": 5.0}
"""Around an invocation: queue, drain, verification; once more for a cold start."""
_VCPU_MB: Final = 1769
_SMALLEST_MB: Final = 128


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What one trial of a cell takes; ``cv`` is of its durations."""

    seconds: float
    usd: Decimal
    cv: float


class Experience(msgspec.Struct, frozen=True, kw_only=True):
    """What an earlier run of the same loads and arms took, by arm and label."""

    run_id: str
    blocks: int
    cells: dict[tuple[str, str], Expected]


class PlannedArm(msgspec.Struct, frozen=True, kw_only=True):
    """One arm in one block. ``cv`` is that of its widest load."""

    arm: str
    memory_mb: int
    messages: int
    items: int
    seconds: float
    usd: Decimal
    usd_at_most: Decimal
    cv: float


class Needed(msgspec.Struct, frozen=True, kw_only=True):
    """How many blocks find a change of ``effect`` under one load with probability 0.8; ``cv`` of its widest arm."""

    label: str
    effect: float
    cv: float
    blocks: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A run before it happens. ``least`` and ``most`` differ when a stop rule or a cap may end it early.

    ``usd`` are what is expected of the most blocks, ``usd_at_most`` when every invocation runs into its timeout and
    everything comes as late as the lab waits for it; of both, the ``lab_usd`` are the lab's own requests. They are what
    AWS would bill, also of a local run, which costs nothing.
    """

    scenario: str
    protocol: str
    target: str
    region: str
    price_sheet: str
    blocks_least: int
    blocks_most: int
    messages_least: int
    messages_most: int
    items_least: int
    items_most: int
    minutes_least: float
    minutes_most: float
    usd: Decimal
    usd_at_most: Decimal
    lab_usd: Decimal
    lab_usd_at_most: Decimal
    arms: tuple[PlannedArm, ...]
    fewest_blocks: int | None
    """Of blocks with which any difference can be found, however large; None when there is nothing to compare."""
    comparisons: int
    """How many have a verdict."""
    needed: tuple[Needed, ...]
    """Empty when there is nothing to compare."""
    assumptions: tuple[str, ...]
    limits: tuple[str, ...] = ()
    """What the account allows, where that was asked."""
    unchecked: tuple[str, ...] = ()


def make_plan(
    protocol: Protocol,
    functions: Mapping[str, QueuedFunction],
    prices: PriceSheet,
    *,
    target: str,
    blocks: int | None = None,
    experience: Experience | None = None,
    effect: float = EFFECT,
) -> Plan:
    """Plans a run, or what is left of one.

    Args:
        protocol: what is asked.
        functions: the functions behind its arms, as configured.
        prices: of the region.
        target: ``local`` or ``aws``.
        blocks: how many are left; None for a run that has not begun.
        experience: of an earlier run; None to assume.
        effect: the change to find, as a share: 0.05 is 5 %.

    Raises:
        UsageError: the effect is so small that a comparison never claims it.
        PriceSheetError: a price is missing.
    """
    if not effect > MARGIN:
        raise UsageError(
            f"an effect of {effect:g} is never claimed: verdicts have a margin of {MARGIN:g}",
            next_step="ask for a larger one",
        )
    most = _most_blocks(protocol) if blocks is None else blocks
    least = min(most, protocol.caps.samples or most)
    if protocol.stop is not None:
        least = min(least, protocol.stop.min_blocks)
    arms = tuple(_planned_arm(arm, protocol, functions[arm.name], prices, target, experience) for arm in protocol.arms)
    block_s = sum(arm.seconds for arm in arms)
    minutes_most = most * block_s / 60
    minutes_most = min(minutes_most, (protocol.caps.minutes or MOST_MINUTES) + block_s / 60)
    most_s = sum(
        len(protocol.loads) * (functions[arm.name].timeout_s + DRAIN_GRACE_S) for arm in protocol.arms
    )  # of one block
    loads = [load for arm in protocol.arms for load in protocol.loads for _ in range(arm.messages)] * most
    queues = len({function.log_group for function in functions.values()})
    lab = lab_use(loads, blocks=most, minutes=minutes_most, queues=queues).usd(prices)
    lab_at_most = lab_use(loads, blocks=most, minutes=most * most_s / 60, queues=queues, at_most=True).usd(prices)
    comparisons = judged_comparisons(protocol)
    messages, items = sum(arm.messages for arm in arms), sum(arm.items for arm in arms)
    return Plan(
        scenario=protocol.scenario,
        protocol=protocol.name,
        target=target,
        region=prices.region,
        price_sheet=f"{prices.region} {prices.date}",
        blocks_least=least,
        blocks_most=most,
        messages_least=least * messages,
        messages_most=most * messages,
        items_least=least * items,
        items_most=most * items,
        minutes_least=min(least * block_s / 60, minutes_most),
        minutes_most=minutes_most,
        usd=most * sum((arm.usd for arm in arms), Decimal()) + lab,
        usd_at_most=most * sum((arm.usd_at_most for arm in arms), Decimal()) + lab_at_most,
        lab_usd=lab,
        lab_usd_at_most=lab_at_most,
        arms=arms,
        fewest_blocks=fewest_blocks(comparisons) if comparisons else None,
        comparisons=comparisons,
        needed=tuple(_needed(protocol, experience, effect)),
        assumptions=tuple(_assumptions(protocol, target, experience)),
    )


def find_experience(
    results: Path, protocol: Protocol, functions: Mapping[str, QueuedFunction], conditions: Conditions
) -> Experience | None:
    """The newest run in a folder that a plan can learn from; damaged and unlike runs are passed over.

    It has the same loads and arms, functions that run alike, and was made under the same conditions.
    """
    for folder in sorted((path.parent for path in results.glob("*/run.json")), reverse=True):
        if folder.is_symlink():
            continue
        store = RunDirectory(folder)
        try:
            manifest = store.manifest()
            if manifest.load is not None or manifest.protocol.loads != protocol.loads or not conditions.allow(manifest):
                continue
            theirs = {arm.name: arm for arm in manifest.protocol.arms}
            if all(
                arm.name in theirs
                and _asks_the_same(arm, theirs[arm.name])
                and run_alike(functions[arm.name], manifest.functions[arm.name])
                for arm in protocol.arms
            ) and (found := _experience(read_run(store), protocol)):
                return found
        except LambdalabError:
            continue
    return None


def _asks_the_same(one: Arm, other: Arm) -> bool:
    """Whether messages of two arms are the same work; their functions are compared apart."""
    return (one.mode, one.build, one.messages) == (other.mode, other.build, other.messages)


def _experience(run: MeasuredRun, protocol: Protocol) -> Experience | None:
    """What a run took; None when a cell has fewer than two valid samples."""
    rows = [row for row in run.rows if row.valid]
    seconds = _seconds(run.trials)
    cells = {}
    for arm in protocol.arms:
        for load in protocol.loads:
            mine = [row for row in rows if (row.arm, row.label) == (arm.name, load.label)]
            durations = [row.duration_ms for row in mine if row.duration_ms is not None]
            costs = [row.cost_total_usd for row in mine if row.cost_total_usd is not None]
            steps = seconds.get((arm.name, load.label), [])
            if len(durations) < 2 or not costs or not steps:
                return None
            cells[arm.name, load.label] = Expected(
                seconds=statistics.median(steps),
                usd=statistics.median(costs),
                cv=statistics.stdev(durations) / statistics.mean(durations),
            )
    return Experience(run_id=run.manifest.run_id, blocks=len({row.block for row in rows}), cells=cells)


def _seconds(trials: Iterable[TrialResult]) -> dict[tuple[str, str], list[float]]:
    """From one message to the next, everything between them inside; an interruption is no step."""
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for one, two in pairwise(trials):
        follows = one.finished and two.trial.position == one.trial.position + 1
        if follows and one.sent_at_ms is not None and two.sent_at_ms is not None:
            found[one.trial.arm, one.trial.load.label].append((two.sent_at_ms - one.sent_at_ms) / 1000)
    return found


def with_enough_blocks(protocol: Protocol, *, asked: bool) -> Protocol:
    """The protocol with at least the blocks that its comparisons of builds need to find any difference.

    Args:
        protocol: what is asked; without several builds it stays as it is.
        asked: whether its blocks were asked for, so that they must not be changed.

    Raises:
        UsageError: fewer were asked for, or a cap ends the run before.
    """
    if not is_gate(protocol):
        return protocol
    comparisons = judged_comparisons(protocol)
    needed = fewest_blocks(comparisons)
    why = f"{comparisons} comparisons of builds find no difference, however large, in fewer than {needed}"
    for name in ("samples", "attempts"):
        cap = getattr(protocol.caps, name)
        if cap is not None and cap < needed:
            raise UsageError(
                f"protocol {protocol.name}: caps.{name} is {cap} blocks, and {why}",
                next_step=f"write {needed} or more, or leave it out",
            )
    if protocol.blocks < needed and asked:
        raise UsageError(f"--blocks is {protocol.blocks}, and {why}", next_step=f"ask for {needed} or more")
    enough = msgspec.structs.replace(protocol, blocks=max(needed, protocol.blocks))
    if protocol.stop is None:
        return enough
    stop = msgspec.structs.replace(protocol.stop, min_blocks=max(needed, protocol.stop.min_blocks))
    return msgspec.structs.replace(enough, stop=stop)


def _most_blocks(protocol: Protocol) -> int:
    """Every block is an attempt of every cell; what does not count as a sample may need another."""
    return min(protocol.blocks, protocol.caps.attempts or protocol.blocks)


def _planned_arm(
    arm: Arm,
    protocol: Protocol,
    function: QueuedFunction,
    prices: PriceSheet,
    target: str,
    experience: Experience | None,
) -> PlannedArm:
    expected: Sequence[Expected] = [
        _assume(function, load, prices, target, arm.messages)
        if experience is None
        else experience.cells[arm.name, load.label]
        for load in protocol.loads
    ]
    return PlannedArm(
        arm=arm.name,
        memory_mb=function.memory_mb,
        messages=len(protocol.loads) * arm.messages,
        items=sum(load.count for load in protocol.loads) * arm.messages,
        seconds=sum(one.seconds for one in expected),
        usd=sum((one.usd for one in expected), Decimal()),
        usd_at_most=sum(
            (most_usd(prices, function, load, messages=arm.messages) for load in protocol.loads), Decimal()
        ),
        cv=max(one.cv for one in expected),
    )


def _needed(protocol: Protocol, experience: Experience | None, effect: float) -> Iterable[Needed]:
    comparisons = judged_comparisons(protocol)
    if not comparisons:
        return
    for load in protocol.loads:
        cv = (
            ASSUMED_CV
            if experience is None
            else max(experience.cells[arm.name, load.label].cv for arm in protocol.arms)
        )
        blocks = needed_blocks(cv, effect, comparisons=comparisons)
        yield Needed(label=load.label, effect=effect, cv=cv, blocks=blocks)


def assumed_item_ms(memory_mb: int) -> float:
    """What one put is assumed to take where nobody measured it."""
    return ASSUMED_ITEM_MS * _SMALLEST_MB / min(memory_mb, _VCPU_MB)


def _assume(function: QueuedFunction, load: Load, prices: PriceSheet, target: str, messages: int) -> Expected:
    cold = load.start is Start.COLD
    billed_ms = messages * load.count * assumed_item_ms(function.memory_mb) + (ASSUMED_INIT_MS if cold else 0)
    return Expected(
        seconds=billed_ms / 1000 + ASSUMED_OVERHEAD_S[target] * (2 if cold else 1),
        usd=invocation_usd(prices, function, load, billed_ms=billed_ms, messages=messages),
        cv=ASSUMED_CV,
    )


def _assumptions(protocol: Protocol, target: str, experience: Experience | None) -> Iterable[str]:
    if experience is not None:
        yield f"times, cost and spread are the medians of run {experience.run_id}, {experience.blocks} blocks"
    else:
        yield (
            f"assumed, since there is no earlier run of these loads and arms here: {ASSUMED_INIT_MS:g} ms of init, "
            f"{ASSUMED_ITEM_MS:g} ms a put at {_SMALLEST_MB} MB and less in proportion with more memory, "
            f"{ASSUMED_OVERHEAD_S[target]:g} s around each message and once more for a cold start, "
            f"durations that vary by {ASSUMED_CV:.0%} (standard deviation over mean)"
        )
    yield "at most means: every invocation runs into its timeout, and items and log lines come as late as is waited for"
    yield (
        "prices are of the first tier, without free tier, taxes and discounts; storage is left out; that a mapping "
        "asks its queue 15 times a minute is an assumption"
    )
    if target == "local":
        yield "a local run costs nothing: the money is what AWS would bill if times were the same there"
    if protocol.stop is not None:
        yield f"ends as soon as every median is known within ±{protocol.stop.precision:.1%}; else at a cap"
    caps = {name: value for name in protocol.caps.__struct_fields__ if (value := getattr(protocol.caps, name))}
    ceilings = {"minutes": MOST_MINUTES} | ({"usd": MOST_USD} if target == "aws" else {})
    caps = {name: f"{value:g} (default)" for name, value in ceilings.items() if name not in caps} | caps
    if caps:
        yield "caps: " + ", ".join(f"{name} {value}" for name, value in caps.items())
