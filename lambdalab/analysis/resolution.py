"""What an A/A run tells: whether equal things are found equal, and the smallest difference one can resolve. Pure.

``results/aa.json`` keeps the figures by machine and design; docs/method.md has the rules.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Final

import msgspec

from lambdalab.analysis.pairing import Resolutions
from lambdalab.design.arms import Load
from lambdalab.records.manifest import MessageManifest
from lambdalab.statistics.comparison import Comparison, Metric, Verdict
from lambdalab.statistics.estimates import LEVEL, binomial_cdf

_CHANCE: Final = 0.9
"""With which probability a sound lab passes its A/A check."""
_CLAIMS: Final = (Verdict.REGRESSION, Verdict.IMPROVEMENT)


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """What a resolution holds for: this machine, this function, these loads, so many blocks."""

    machine: dict[str, str]
    target: str
    cpu_limit: str
    cpu_scale: float
    latency_model: str | None
    language: str
    mode: str
    memory_mb: int
    architecture: str
    loads: tuple[Load, ...]
    blocks: int
    messages: int = 1


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest difference one metric of one load can resolve, as a share."""

    label: str
    metric: Metric
    difference: float


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What the A/A runs of one design gave: one entry of ``aa.json``. ``comparisons`` counts those with a verdict."""

    design: Design
    runs: tuple[str, ...]
    false_differences: int
    comparisons: int
    resolved: tuple[Resolved, ...]


def design_of(manifest: MessageManifest, arm_name: str, blocks: int) -> Design:
    """Find what the samples of one arm were measured with."""
    arm = next(arm for arm in manifest.protocol.arms if arm.name == arm_name)
    return Design(
        machine=manifest.machine if manifest.target == "local" else {"region": manifest.region},
        target=manifest.target,
        cpu_limit=manifest.cpu_limit,
        cpu_scale=manifest.cpu_scale,
        latency_model=manifest.latency_model,
        language=arm.language,
        mode=arm.mode,
        memory_mb=manifest.functions[arm_name].memory_mb,
        architecture=manifest.functions[arm_name].architecture,
        loads=manifest.protocol.loads,
        blocks=blocks,
        messages=arm.messages,
    )


def resolutions_of(records: Iterable[Record], manifest: MessageManifest, blocks: int) -> Resolutions:
    """Look up what A/A runs of the design of each arm resolved; the last record of a design counts."""
    found = [(record.design, record.resolved) for record in records]
    return {
        (arm.name, one.label, one.metric): one.difference
        for arm in manifest.protocol.arms
        for design, resolved in found
        if design == design_of(manifest, arm.name, blocks)
        for one in resolved
    }


def make_record(design: Design, runs: Mapping[str, Sequence[Comparison]]) -> Record:
    """Sum up A/A runs of one design.

    The resolution of a comparison is the half-width of its interval on the log scale, as a share: exp(ln(high / low)
    / 2) - 1. An interval that wide excludes 1 only when the ratio is at least that far from it. Of several runs it is
    the median.

    Args:
        design: of all of them.
        runs: by id, the comparisons of each, made without a resolution.
    """
    widths: dict[tuple[str, Metric], list[float]] = {}
    for comparisons in runs.values():
        for one in comparisons:
            if one.low is not None and one.high is not None:
                widths.setdefault((one.label, one.metric), []).append(math.sqrt(one.high / one.low) - 1)
    return Record(
        design=design,
        runs=tuple(runs),
        false_differences=sum(one.verdict in _CLAIMS for found in runs.values() for one in found),
        comparisons=sum(one.verdict is not Verdict.NOT_JUDGED for found in runs.values() for one in found),
        resolved=tuple(
            Resolved(label=label, metric=metric, difference=median(of)) for (label, metric), of in widths.items()
        ),
    )


def runs_that_differ(runs: Iterable[Sequence[Comparison]]) -> int:
    """Count the runs that claim a difference where there is none."""
    return sum(any(one.verdict in _CLAIMS for one in comparisons) for comparisons in runs)


def most_allowed(runs: int) -> int:
    """Find how many of so many A/A runs may claim a difference: as many as a sound lab stays within 9 times in 10.

    Holm's method lets a run claim any with a probability of at most 0.05, so the number is binomial(runs, 0.05) at
    worst: none of 2, one of 10, two of 20.
    """
    return next(claims for claims in range(runs + 1) if binomial_cdf(claims, runs, 1 - LEVEL) >= _CHANCE)
