"""From rows to what is compared: the arms of one run, or the same arm or cell of two runs. Pure."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Final, TypeVar

from lambdalab.analysis.call_rows import counted
from lambdalab.design.arms import Load, Protocol, Start
from lambdalab.records.calls import CallRow
from lambdalab.records.manifest import CallManifest, Manifest, MessageManifest
from lambdalab.records.trials import InvocationRow
from lambdalab.statistics.comparison import MARGIN, Comparison, Metric, Samples, Verdict, arm_pairs, compare

Resolutions = Mapping[tuple[str, str, Metric], float]
"""By arm, label and metric: the smallest difference that A/A runs of this machine and design can tell from none."""

_VALUE_OF: Final[dict[Metric, Callable[[InvocationRow], float | None]]] = {
    Metric.DURATION: lambda row: row.duration_ms,
    Metric.BILLED: lambda row: row.billed_ms,
    Metric.INIT: lambda row: row.init_ms,
    Metric.END_TO_END: lambda row: row.end_to_end_ms,
    Metric.COST: lambda row: None if row.cost_total_usd is None else float(row.cost_total_usd),
}
_VALUE_OF_CALL: Final[dict[Metric, Callable[[CallRow], float | None]]] = {
    Metric.DURATION: lambda row: row.duration_ms,
    Metric.BILLED: lambda row: row.billed_ms,
    Metric.END_TO_END: lambda row: row.elapsed_ms,
    Metric.COST: lambda row: None if row.cost_total_usd is None else float(row.cost_total_usd),
}
_BY_WEIGHT: Final = (
    Verdict.REGRESSION,
    Verdict.SLOWER,
    Verdict.FASTER,
    Verdict.MORE_EXPENSIVE,
    Verdict.CHEAPER,
    Verdict.INCONCLUSIVE,
    Verdict.IMPROVEMENT,
    Verdict.NO_CHANGE,
    Verdict.NOT_JUDGED,
)
R = TypeVar("R", InvocationRow, CallRow)
_Cells = dict[tuple[str, str], list[InvocationRow]]


def compare_arms(
    manifest: MessageManifest,
    rows: Iterable[InvocationRow],
    *,
    margin: float = MARGIN,
    resolutions: Resolutions | None = None,
) -> tuple[Comparison, ...]:
    """Compare the arms of a run, paired by block; a difference between builds is a regression or an improvement.

    Args:
        manifest: whose arms and loads there are, and the seed.
        rows: the samples of the last attempts.
        margin: the smallest change that matters, as a share.
        resolutions: of the arms; a comparison has one when both its arms do, and then the larger.
    """
    protocol, cells = manifest.protocol, _cells(rows)
    samples = [
        Samples(
            label=load.label,
            metric=metric,
            arm=arm.name,
            over=over.name,
            values=_by_block(cells, arm.name, load.label, metric),
            base=_by_block(cells, over.name, load.label, metric),
            resolution=_larger(resolutions or {}, [arm.name, over.name], load.label, metric),
            is_judged=is_judged(metric, load, protocol.loads, gate=is_gate(protocol)),
        )
        for load in protocol.loads
        for arm, over in arm_pairs(protocol.arms)
        for metric in _metrics_of(load)
    ]
    return compare(samples, seed=manifest.seed, gate=is_gate(protocol), margin=margin)


def is_gate(protocol: Protocol) -> bool:
    """Whether a run compares builds of one function, so that a change is a regression or an improvement."""
    return len(protocol.factors.build) > 1


def is_judged(metric: Metric, load: Load, loads: Sequence[Load], *, gate: bool) -> bool:
    """Whether a comparison has a verdict: Duration, cost of warm work, and Init of different things.

    The family is small because every comparison in it costs the others power. Billed repeats Duration, and end to end
    adds the queue. Init of two builds has no verdict, and neither has the cost of a cold start, which contains it: a
    local Init lacks Lambda's own part, so its ratio is too large. Without a warm load, the cold one's cost is judged.
    """
    if metric is Metric.COST:
        return load.start is Start.WARM or all(other.start is Start.COLD for other in loads)
    return metric is Metric.DURATION or (metric is Metric.INIT and not gate)


def judged_comparisons(protocol: Protocol) -> int:
    """How many comparisons of a run have a verdict."""
    of_pair = sum(
        is_judged(metric, load, protocol.loads, gate=is_gate(protocol))
        for load in protocol.loads
        for metric in _metrics_of(load)
    )
    return len(arm_pairs(protocol.arms)) * of_pair


def compare_runs(
    base: tuple[MessageManifest, Iterable[InvocationRow]],
    candidate: tuple[MessageManifest, Iterable[InvocationRow]],
    *,
    margin: float = MARGIN,
) -> tuple[Comparison, ...]:
    """Compare cells of the same arm and load in two runs, not paired, for no block holds both.

    There is no resolution: an A/A run tells nothing of how a machine changes from one run to the next.

    Args:
        base: the run that is compared with.
        candidate: the run that is judged.
        margin: the smallest change that matters, as a share.
    """
    (before, before_rows), (after, after_rows) = base, candidate
    before_cells, after_cells = _cells(before_rows), _cells(after_rows)
    arms = {arm.name for arm in before.protocol.arms}
    loads = {load.label for load in before.protocol.loads}
    samples = [
        Samples(
            label=load.label,
            metric=metric,
            arm=f"{arm.name} B",
            over=f"{arm.name} A",
            values=_by_block(after_cells, arm.name, load.label, metric),
            base=_by_block(before_cells, arm.name, load.label, metric),
            is_judged=is_judged(metric, load, after.protocol.loads, gate=True),
        )
        for load in after.protocol.loads
        for arm in after.protocol.arms
        if arm.name in arms and load.label in loads
        for metric in _metrics_of(load)
    ]
    return compare(samples, seed=after.seed, paired=False, margin=margin)


def compare_call_runs(
    base: tuple[CallManifest, Iterable[CallRow]],
    candidate: tuple[CallManifest, Iterable[CallRow]],
    *,
    margin: float = MARGIN,
) -> tuple[Comparison, ...]:
    """Compare the cells that two runs of calls have in common: medians of the valid warm calls of a block, not paired.

    Args:
        base: the run that is compared with.
        candidate: the run that is judged.
        margin: the smallest change that matters, as a share.
    """
    (before, before_rows), (after, after_rows) = base, candidate
    before_cells, after_cells = _warm_calls(before_rows), _warm_calls(after_rows)
    known = {cell.name for cell in before.protocol.cells}
    samples = [
        Samples(
            label=cell.name,
            metric=metric,
            arm=f"{cell.called} B",
            over=f"{cell.called} A",
            values=_medians(after_cells.get(cell.name, ()), value),
            base=_medians(before_cells.get(cell.name, ()), value),
            is_judged=metric in (Metric.DURATION, Metric.COST),
        )
        for cell in after.protocol.cells
        if cell.name in known
        for metric, value in _VALUE_OF_CALL.items()
    ]
    return compare(samples, seed=after.seed, paired=False, margin=margin)


def warm_durations(rows: Iterable[CallRow]) -> dict[str, dict[int, float]]:
    """By cell and block, the median Duration in ms of the valid warm calls."""
    of_duration = _VALUE_OF_CALL[Metric.DURATION]
    return {cell: _medians(calls, of_duration) for cell, calls in _warm_calls(rows).items()}


def differences(base: Manifest, candidate: Manifest) -> Iterator[str]:
    """Say in what two runs of a kind are unlike, so that their times or costs are not comparable."""
    for what, one, two in (
        ("machine", _machine(base), _machine(candidate)),
        ("target", base.target, candidate.target),
        ("cpu limit", base.cpu_limit, candidate.cpu_limit),
        ("cpu scale", f"{base.cpu_scale:g}", f"{candidate.cpu_scale:g}"),
        ("price sheet", base.price_sheet, candidate.price_sheet),
        ("latency model", base.latency_model or "none", candidate.latency_model or "none"),
        ("cold starts", base.cold_mode or "unknown", candidate.cold_mode or "unknown"),
    ):
        if one != two:
            yield f"{what} {one} and {two}"
    if base.latency != candidate.latency and base.latency_model == candidate.latency_model:
        yield f"latency model {base.latency_model} and another of that name"
    if isinstance(base, MessageManifest) and isinstance(candidate, MessageManifest):
        yield from _unlike_messages(base, candidate)
    if isinstance(base, CallManifest) and isinstance(candidate, CallManifest):
        yield from _unlike_designs(base, candidate)
    for name in base.functions.keys() & candidate.functions.keys():
        for fact in ("memory_mb", "architecture", "batch_size"):
            was, is_now = (getattr(manifest.functions[name], fact, None) for manifest in (base, candidate))
            if was != is_now:
                yield f"{name} {fact} {was} and {is_now}"


def _unlike_messages(base: MessageManifest, candidate: MessageManifest) -> Iterator[str]:
    offered, asked = base.load or {}, candidate.load or {}
    for name in dict.fromkeys((*offered, *asked)):
        if name != "seed" and offered.get(name) != asked.get(name):
            yield f"load plan: {name} {offered.get(name, 'none')} and {asked.get(name, 'none')}"
    theirs = {load.label: load for load in candidate.protocol.loads}
    for load in base.protocol.loads:
        other = theirs.get(load.label)
        if other is not None and other != load:
            yield f"load {load.label} {_shape(load)} and {_shape(other)}"
    if set(theirs) != {load.label for load in base.protocol.loads}:
        yield f"loads {', '.join(load.label for load in base.protocol.loads)} and {', '.join(theirs)}"
    modes = [{arm.name: arm.mode.value for arm in manifest.protocol.arms} for manifest in (base, candidate)]
    for arm in base.functions.keys() & candidate.functions.keys():
        if modes[0].get(arm) != modes[1].get(arm):
            yield f"{arm} mode {modes[0].get(arm)} and {modes[1].get(arm)}"


def _unlike_designs(base: CallManifest, candidate: CallManifest) -> Iterator[str]:
    theirs = {design.label: design for design in candidate.protocol.designs}
    for design in base.protocol.designs:
        if (other := theirs.get(design.label)) is None:
            continue
        if design.invocations != other.invocations:
            yield f"{design.label}: {design.invocations} and {other.invocations} invocations of a cell in a block"
        for name in dict.fromkeys((*design.settings, *other.settings)):
            if (one := design.settings.get(name)) != (two := other.settings.get(name)):
                yield f"{design.label}: {name} {one} and {two}"


def in_a_sentence(comparisons: Sequence[Comparison]) -> str:
    """Say the verdict of all: a regression first, then what could not be decided, then the rest."""
    judged = [one for one in comparisons if one.verdict is not Verdict.NOT_JUDGED]
    if not judged:
        return "there are no two arms to compare"
    counts = Counter(one.verdict for one in judged)
    worst = min(judged, key=lambda one: (_BY_WEIGHT.index(one.verdict), -_distance(one.ratio)))
    of_each = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _BY_WEIGHT if verdict in counts)
    sentence = f"of {len(judged)} comparisons {of_each}"
    if worst.verdict is Verdict.REGRESSION:
        sentence = (
            f"regression: {worst.arm} has {worst.ratio:.3f} times the {worst.metric} of {worst.over} under "
            f"{worst.label} ({worst.low:.3f} to {worst.high:.3f}); {sentence}"
        )
    elif len(counts) == 1:
        sentence = (
            f"{worst.verdict} in {'the only comparison' if len(judged) == 1 else f'all {len(judged)} comparisons'}"
        )
    else:
        sentence = f"{worst.verdict}: {sentence}"
    if (needed := blocks_that_decide(judged)) is not None:
        there = min(one.n_blocks for one in judged if one.lacks_blocks)
        return f"{sentence}; about {needed:,} blocks would decide, there are {there:,}"
    return sentence


def blocks_that_decide(comparisons: Iterable[Comparison]) -> int | None:
    """About how many blocks a run needs to decide what it left open only for the lack of them; None: it lacks none."""
    return max((one.needed_blocks for one in comparisons if one.lacks_blocks), default=None)


def _cells(rows: Iterable[InvocationRow]) -> _Cells:
    cells: _Cells = {}
    for row in rows:
        if row.valid:
            cells.setdefault((row.arm, row.label), []).append(row)
    return cells


def _by_block(cells: _Cells, arm: str, label: str, metric: Metric) -> dict[int, float]:
    """One value for each block: under load, where a block holds many messages, their median."""
    return _medians(cells.get((arm, label), ()), _VALUE_OF[metric])


def _warm_calls(rows: Iterable[CallRow]) -> dict[str, list[CallRow]]:
    cells: dict[str, list[CallRow]] = {}
    for row in counted(rows):
        if row.valid and not row.cold_start:
            cells.setdefault(row.cell, []).append(row)
    return cells


def _medians(rows: Iterable[R], value: Callable[[R], float | None]) -> dict[int, float]:
    """By block."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if (measured := value(row)) is not None:
            found.setdefault(row.block, []).append(measured)
    return {block: median(values) for block, values in sorted(found.items())}


def _metrics_of(load: Load) -> list[Metric]:
    """An init is compared only where there is one."""
    return [metric for metric in Metric if metric is not Metric.INIT or load.start is Start.COLD]


def _larger(resolutions: Resolutions, arms: Sequence[str], label: str, metric: Metric) -> float | None:
    known = [resolutions[arm, label, metric] for arm in arms if (arm, label, metric) in resolutions]
    return max(known) if len(known) == len(arms) else None


def _distance(ratio: float | None) -> float:
    return abs(math.log(ratio)) if ratio else 0.0


def _machine(manifest: Manifest) -> str:
    """What was measured: locally the lab's own machine, on AWS the region."""
    if manifest.target != "local":
        return manifest.region
    names = ("processor", "cores", "memory_mb", "system", "architecture")
    return ", ".join(manifest.machine.get(name, "unknown") for name in names)


def _shape(load: Load) -> str:
    return f"{load.count} x {load.size_bytes} bytes {load.start}"
