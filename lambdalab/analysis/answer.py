"""The first lines of a report: which arm is faster on warm work, what each costs and why, cold start, memory. Pure.

Only facts: ``report/answer.py`` has the words.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from lambdalab.analysis.bill import Bill, Parts
from lambdalab.analysis.pairing import judged_comparisons
from lambdalab.analysis.summary import Answer, Cell, ColdStart, Contrast, Level, Share
from lambdalab.design.arms import Arm, Start
from lambdalab.records.manifest import CallManifest, Manifest, MessageManifest
from lambdalab.statistics.comparison import Comparison, Metric, Verdict, fewest_blocks

MILLION: Final = 1_000_000


def answer_of(
    manifest: MessageManifest, cells: Sequence[Cell], comparisons: Sequence[Comparison], bill: Bill | None
) -> Answer:
    """Find what the first lines say.

    Args:
        manifest: what was asked.
        cells: of every arm and load.
        comparisons: of the run.
        bill: of the run; without one no component is named.
    """
    warm = [cell for cell in cells if cell.start == Start.WARM]
    labels = warm_labels(manifest)
    return Answer(
        is_warm=bool(warm),
        levels=tuple(_levels(manifest.protocol.arms, warm or cells)),
        times=contrasts(comparisons, Metric.DURATION, warm=labels),
        costs=contrasts(comparisons, Metric.COST, warm=labels),
        shares=tuple(_shares(bill, warm or cells)),
        cold_starts=tuple(_cold_starts(cells)),
        peak_mb=tuple(_peaks(cells)),
        aa_commands=tuple(_aa_commands(manifest, comparisons)),
    )


def warm_labels(manifest: Manifest) -> set[str]:
    """What is compared of warm work: the warm loads of a run of messages, all cells of a run of calls."""
    if isinstance(manifest, MessageManifest):
        return {load.label for load in manifest.protocol.loads if load.start is Start.WARM}
    return {cell.name for cell in manifest.protocol.cells} if isinstance(manifest, CallManifest) else set()


def contrasts(comparisons: Iterable[Comparison], metric: Metric, *, warm: Container[str]) -> tuple[Contrast, ...]:
    """The judged comparisons of a metric, each from the side of the arm that takes or costs more.

    Args:
        comparisons: of a run, or of two.
        metric: which of them.
        warm: the labels of warm work.
    """
    found = []
    for one in comparisons:
        if one.metric is not metric or one.verdict is Verdict.NOT_JUDGED:
            continue
        if one.ratio is None or one.arm_median is None or one.over_median is None:
            continue
        scale = MILLION if metric is Metric.COST else 1
        sides = [(one.arm_median * scale, one.arm), (one.over_median * scale, one.over)]
        (less_median, less), (more_median, more) = sides if one.ratio < 1 else sides[::-1]
        times = max(one.ratio, 1 / one.ratio)
        found.append(
            Contrast(
                label=one.label,
                is_warm=one.label in warm,
                more=more,
                less=less,
                more_median=more_median,
                less_median=less_median,
                times=times,
                surplus=times - 1,
                margin=one.margin,
                verdict=one.verdict,
                lacks_blocks=one.lacks_blocks,
                needed_blocks=one.needed_blocks,
            )
        )
    return tuple(found)


def _levels(arms: Iterable[Arm], cells: Iterable[Cell]) -> Iterator[Level]:
    messages = {arm.name: arm.messages for arm in arms}
    for cell in cells:
        time, usd = cell.duration_ms, cell.cost_per_execution_usd
        if time is not None:
            yield Level(
                arm=cell.arm,
                label=cell.label,
                duration_ms=time.median,
                low_ms=time.low,
                high_ms=time.high,
                usd_per_million=None if usd is None else float(usd * MILLION / messages[cell.arm]),
            )


def _shares(bill: Bill | None, warm: Sequence[Cell]) -> Iterator[Share]:
    """The largest component of each cell, and how large it is in the cells where it is the same."""
    wanted = {(cell.arm, cell.label) for cell in warm}
    found: dict[str, list[tuple[str, str, float]]] = {}
    for cell in () if bill is None else bill.cells:
        total = cell.execution_usd
        if (cell.arm, cell.label) not in wanted or not total:
            continue
        parts = {name: getattr(cell.execution, name) or Decimal(0) for name in Parts.__struct_fields__}
        largest = max(parts, key=parts.__getitem__)
        found.setdefault(largest, []).append((cell.arm, cell.label, float(parts[largest] / total)))
    for component, cells in found.items():
        shares = [share for *_, share in cells]
        named = tuple((arm, label) for arm, label, _ in cells)
        yield Share(component=component, cells=named, least=min(shares), most=max(shares))


def _cold_starts(cells: Iterable[Cell]) -> Iterator[ColdStart]:
    for cell in cells:
        if cell.start == Start.COLD and cell.init_ms is not None:
            both = cell.init_and_first_ms
            yield ColdStart(
                arm=cell.arm,
                label=cell.label,
                init_ms=cell.init_ms.median,
                init_and_first_ms=None if both is None else both.median,
            )


def _peaks(cells: Iterable[Cell]) -> Iterator[tuple[str, int]]:
    highest: dict[str, int] = {}
    for cell in cells:
        if cell.max_memory_mb is not None:
            highest[cell.arm] = max(cell.max_memory_mb, highest.get(cell.arm, 0))
    yield from highest.items()


def _aa_commands(manifest: MessageManifest, comparisons: Sequence[Comparison]) -> Iterator[str]:
    """What to type for each language; nothing where resolutions are known or `lambdalab aa` has no such design."""
    factors = manifest.protocol.factors
    several = len(factors.mode) > 1 or factors.memory_mb or factors.batch_size or factors.architecture
    if manifest.target != "local" or manifest.load is not None or several:
        return
    if all(one.resolution is not None for one in comparisons):
        return
    blocks = max(one.n_blocks for one in comparisons)
    for language in factors.language:
        of_itself = replace(factors, language=(language,), build=("a", "b"))
        if blocks < fewest_blocks(judged_comparisons(replace(manifest.protocol, factors=of_itself))):
            continue  # `lambdalab aa` refuses so few
        yield f"lambdalab aa --protocol {manifest.protocol.name} --language {language} --blocks {blocks}"
