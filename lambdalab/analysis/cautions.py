"""What to know before a run of any kind is believed: the cautions that every kind has, and how a cell drifts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Final

from lambdalab.analysis.summary import Drift
from lambdalab.machine_load import BlockLoad, load_cautions
from lambdalab.records import cpu_limit
from lambdalab.records.manifest import Manifest
from lambdalab.statistics.estimates import LEVEL, PRECISION, rank_correlation, smallest_n

CPU_LIMIT_UNKNOWN: Final = "unknown"
"""What holds functions to their share of CPU where it is neither Lambda nor the lab's plane."""
FIXED_BLOCKS: Final = "all blocks done"
BLOCKS_CAP: Final = "blocks cap"
_STEADY: Final = 0.5
"""A correlation with the order of execution from which on a movement is steady (docs/method.md)."""


def cautions_of(
    manifest: Manifest,
    own: Iterable[str],
    *,
    block_loads: Sequence[BlockLoad],
    drift: Iterable[Drift],
    valid_per_cell: Sequence[int],
    widths: Mapping[str, float | None],
    stopped: str | None,
    not_valid: tuple[int, int, str],
) -> tuple[str, ...]:
    """All cautions of a run. Whatever one kind of run has to say here, every kind says.

    Args:
        manifest: of the run.
        own: what only this kind of run can say.
        block_loads: what other programs took of the machine, block by block.
        drift: how each cell moved over the run.
        valid_per_cell: how many valid samples each cell has.
        widths: by cell, how far the further end of its interval is from its median, as a share.
        stopped: why the run ended, None while it has not.
        not_valid: how many samples are not valid, of how many, and what a sample is called.
    """
    few = sum(0 < count < smallest_n(LEVEL) for count in valid_per_cell)
    refused, total, samples = not_valid
    return (
        *load_cautions(block_loads),
        *_of_conditions(manifest),
        *_of_runtimes(manifest),
        *own,
        *_off_target(manifest, widths, stopped),
        *([_few_samples(few, len(valid_per_cell))] if few else []),
        *(_drifted(one) for one in drift if _is_notable(one)),
        *([f"{refused:,} of {total:,} {samples} are not valid"] if refused else []),
    )


def ended_by(manifest: Manifest, *, is_done: bool) -> str | None:
    """Why a run ended: what its manifest says, or that all of it was measured; None of an interrupted one."""
    if manifest.stopped is not None or not is_done:
        return manifest.stopped
    return FIXED_BLOCKS if manifest.protocol.stop is None else BLOCKS_CAP


def drift_of(cell: str, values: Sequence[float]) -> Drift:
    """How the duration of a cell moved over the run.

    Args:
        cell: its name.
        values: its durations, in the order of execution.
    """
    correlation = halves = None
    if len(values) >= smallest_n(LEVEL) and min(values) != max(values):
        correlation = rank_correlation(range(len(values)), values)
        middle = len(values) // 2
        first = median(values[:middle])
        halves = median(values[-middle:]) / first if first > 0 else None
    return Drift(cell=cell, correlation=correlation, halves=halves)


def _of_conditions(manifest: Manifest) -> Iterator[str]:
    """What to know of the times of a run because of where and under which conditions it ran."""
    if manifest.target == "local":
        yield "local times: they describe this machine and are not comparable with AWS times"
    elif manifest.cpu_limit == CPU_LIMIT_UNKNOWN:
        yield f"{manifest.endpoint} is not AWS: the times are of what answers there, not of Lambda"
    if manifest.cpu_limit == cpu_limit.NONE:
        yield cpu_limit.CAUTION
    if manifest.cpu_scale != 1:
        yield (
            f"cpu scale {manifest.cpu_scale:g}: every function had that many times the CPU its memory gives it"
            if manifest.cpu_limit != cpu_limit.NONE
            else f"cpu scale {manifest.cpu_scale:g} had no effect: there was no CPU limit to scale"
        )
    if manifest.latency_model is not None:
        yield (
            f"latency model {manifest.latency_model}: adds latencies to DynamoDB, SQS and S3, so these "
            "times are not comparable with times without it"
        )


def _of_runtimes(manifest: Manifest) -> Iterator[str]:
    """Which functions ran on another runtime than the template would give them."""
    for name, function in manifest.functions.items():
        wanted = manifest.template_runtimes.get(name)
        if wanted is not None and wanted != function.runtime:
            yield f"{name} ran on {function.runtime}; the template's default is {wanted}"


def _off_target(manifest: Manifest, widths: Mapping[str, float | None], stopped: str | None) -> Iterator[str]:
    """Says that the precision that was asked for was not reached, if so, and where it is worst."""
    stop = manifest.protocol.stop
    if stop is None:
        return
    known = {cell: width for cell, width in widths.items() if width is not None}
    ended = "interrupted" if stopped is None else f"ended by: {stopped}"
    if len(known) < len(widths):
        yield f"target not reached: {len(widths) - len(known)} cells have no interval ({ended})"
    elif (worst := max(known, key=known.__getitem__)) and known[worst] > stop.precision:
        yield (
            f"target not reached: the widest interval is ±{known[worst]:.1%} of its median ({worst}), "
            f"and ±{stop.precision:.1%} was asked ({ended})"
        )


def _few_samples(few: int, cells: int) -> str:
    return (
        f"{few} of {cells} cells have fewer than {smallest_n(LEVEL)} valid samples, "
        f"so their medians have no {LEVEL:.0%} interval"
    )


def _is_notable(drift: Drift) -> bool:
    """A movement that is steady, and more than what is called precise (docs/method.md)."""
    if drift.correlation is None or drift.halves is None:
        return False
    return abs(drift.correlation) >= _STEADY and not 1 / (1 + PRECISION) <= drift.halves <= 1 + PRECISION


def _drifted(drift: Drift) -> str:
    return (
        f"{drift.cell} drifted: in the second half of the run {drift.halves:.2f} times the first, "
        f"correlation with order {drift.correlation:.2f}"
    )
