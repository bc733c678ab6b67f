"""From a run directory's rows to every number that is shown. Pure: no clock, no network, nothing that measures."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from statistics import median
from typing import Final, TypeVar

import msgspec

from lambdalab.analysis.answer import answer_of
from lambdalab.analysis.bill import Bill as Bill
from lambdalab.analysis.bill import Parts as Parts
from lambdalab.analysis.books import Books as Books
from lambdalab.analysis.figures import figures
from lambdalab.analysis.frontier import Frontier as Frontier
from lambdalab.analysis.message_rows import REPEATED
from lambdalab.analysis.pairing import Resolutions, compare_arms, in_a_sentence
from lambdalab.analysis.summary import Answer as Answer
from lambdalab.analysis.summary import Cell as Cell
from lambdalab.analysis.summary import Drift as Drift
from lambdalab.analysis.summary import Summary as Summary
from lambdalab.design.arms import Protocol, Stop
from lambdalab.machine_load import BlockLoad, load_cautions
from lambdalab.records import cpu_limit
from lambdalab.records.calls import FactorialManifest
from lambdalab.records.trials import Estimate, InvocationRow, Manifest, TrialResult
from lambdalab.statistics.comparison import Comparison
from lambdalab.statistics.estimates import LEVEL, PRECISION, median_estimate, rank_correlation, smallest_n

FIXED_BLOCKS: Final = "all blocks done"
BLOCKS_CAP: Final = "blocks cap"
CPU_LIMIT_UNKNOWN: Final = "unknown"
"""What holds functions to their share of CPU where it is neither Lambda nor the lab's plane."""
Number = TypeVar("Number", float, Decimal)


def summarise(
    manifest: Manifest,
    trials: Sequence[TrialResult],
    rows: Sequence[InvocationRow],
    *,
    damaged_lines: int = 0,
    resolutions: Resolutions | None = None,
    books: Books | None = None,
    bill: Bill | None = None,
    fronts: tuple[Frontier, ...] = (),
    block_loads: Sequence[BlockLoad] = (),
) -> Summary:
    """Everything that can be said of a run.

    Args:
        manifest: what was asked.
        trials: what the runner saw.
        rows: the joined samples, valid or not.
        damaged_lines: how many log lines could not be read.
        resolutions: what A/A runs of this machine and design could tell from no difference.
        books: of a load run; of one without, nothing was sent.
        bill: what it costs.
        fronts: cost against latency.
        block_loads: what other programs took of the machine meanwhile.
    """
    protocol = manifest.protocol
    current = [row for row in rows if row.reason is None or not row.reason.startswith(REPEATED)]
    names = [arm.name for arm in protocol.arms]
    cells = tuple(_cell(arm, load.label, load.start.value, current) for load in protocol.loads for arm in names)
    comparisons = compare_arms(manifest, current, resolutions=resolutions)
    last = {trial.trial.trial_id: trial for trial in trials}
    reasons = Counter(row.reason for row in current if row.reason is not None)
    done = sum(trial.finished for trial in last.values())
    ended_early = manifest.stopped is not None  # after a whole block: then that is all that was planned
    blocks = max((trial.trial.block for trial in trials), default=0) if ended_early else protocol.blocks
    per_load = blocks * len(protocol.arms)
    planned = per_load * len(protocol.loads)
    items_expected = blocks * sum(arm.messages for arm in protocol.arms) * sum(load.count for load in protocol.loads)
    if manifest.load is not None:  # one trial is one message, and was written down when it was to be sent
        planned = sum(trial.message_id is not None for trial in trials)
        items_expected = sum(trial.items_expected for trial in trials if trial.message_id is not None)
    summary = Summary(
        run_id=manifest.run_id,
        scenario=protocol.scenario,
        protocol=protocol.name,
        target=manifest.target,
        cpu_limit=manifest.cpu_limit,
        latency_model=manifest.latency_model,
        cpu_scale=manifest.cpu_scale,
        memory_mb=tuple(sorted({f.memory_mb for f in manifest.functions.values()})),
        architecture=tuple(sorted({f.architecture for f in manifest.functions.values()})),
        price_sheet=manifest.price_sheet,
        blocks=blocks,
        stopped=manifest.stopped or (_all_blocks(protocol) if manifest.load is None and done == planned else None),
        cold_mode=manifest.cold_mode,
        level=LEVEL,
        trials_planned=planned,
        trials_done=done,
        reports_found=len({row.trial for row in current if row.duration_ms is not None}),
        reports_expected=sum(trial.message_id is not None for trial in last.values()),
        items_found=sum(trial.items_found or 0 for trial in last.values()),
        items_expected=items_expected,
        rows_valid=sum(row.valid for row in current),
        rows_total=len(current),
        rows_repeated=len(rows) - len(current),
        damaged_lines=damaged_lines,
        cells=cells,
        arms=protocol.arms,
        comparisons=comparisons,
        verdict=in_a_sentence(comparisons),
        answer=answer_of(manifest, cells, comparisons, bill),
        drift=tuple(_drift(arm, load.label, current) for load in protocol.loads for arm in names),
        invalid_reasons=dict(reasons.most_common()),
        figures=figures(protocol, current),
        cautions=(),
        faults=(),
        load=books,
        bill=bill,
        frontiers=fronts,
    )
    return msgspec.structs.replace(
        summary,
        cautions=(*load_cautions(block_loads), *_cautions(manifest, summary)),
        faults=tuple(_faults(manifest, summary)),
    )


def _cell(arm: str, label: str, start: str, rows: Iterable[InvocationRow]) -> Cell:
    of_cell = [row for row in rows if row.arm == arm and row.label == label]
    valid = sorted((row for row in of_cell if row.valid), key=lambda row: row.block)

    def estimate(value: Callable[[InvocationRow], float | Decimal | None], *, in_ms: bool = True) -> Estimate | None:
        values = [float(v) for row in valid if (v := value(row)) is not None]
        return median_estimate(values, LEVEL, in_ms=in_ms) if values else None

    return Cell(
        arm=arm,
        label=label,
        start=start,
        n_valid=len(valid),
        n_total=len(of_cell),
        duration_ms=estimate(lambda row: row.duration_ms),
        billed_ms=estimate(lambda row: row.billed_ms),
        init_ms=estimate(lambda row: row.init_ms),
        init_and_first_ms=estimate(lambda row: row.init_and_first_ms),
        queue_wait_ms=estimate(lambda row: row.queue_wait_ms),
        end_to_end_ms=estimate(lambda row: row.end_to_end_ms),
        cost_usd=estimate(lambda row: row.cost_total_usd, in_ms=False),
        max_memory_mb=max((row.max_memory_mb for row in valid if row.max_memory_mb is not None), default=None),
        wru=_median(row.wru for row in valid),
        cost_per_execution_usd=_median(row.cost_total_usd for row in valid),
        cost_per_item_usd=_median(row.cost_per_item_usd for row in valid),
    )


def _median(values: Iterable[Number | None]) -> Number | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _drift(arm: str, label: str, rows: Iterable[InvocationRow]) -> Drift:
    of_cell = [row for row in rows if row.valid and (row.arm, row.label) == (arm, label)]
    values = [row.duration_ms for row in sorted(of_cell, key=lambda row: row.block) if row.duration_ms is not None]
    correlation = halves = None
    if len(values) >= smallest_n(LEVEL) and min(values) != max(values):
        correlation = rank_correlation(range(len(values)), values)
        middle = len(values) // 2
        first = median(values[:middle])
        halves = median(values[-middle:]) / first if first > 0 else None
    return Drift(arm=arm, label=label, correlation=correlation, halves=halves)


def condition_cautions(manifest: Manifest | FactorialManifest) -> Iterable[str]:
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


def runtime_cautions(manifest: Manifest | FactorialManifest) -> Iterable[str]:
    """Which functions ran on another runtime than the template would give them."""
    for name, function in manifest.functions.items():
        wanted = manifest.template_runtimes.get(name)
        if wanted is not None and wanted != function.runtime:
            yield f"{name} ran on {function.runtime}; the template's default is {wanted}"


def few_samples_caution(few: int, cells: int) -> Iterable[str]:
    """How many of the cells have samples, but too few of them for an interval."""
    if few:
        yield (
            f"{few} of {cells} cells have fewer than {smallest_n(LEVEL)} valid samples, "
            f"so their medians have no {LEVEL:.0%} interval"
        )


def _cautions(manifest: Manifest, summary: Summary) -> Iterable[str]:
    yield from condition_cautions(manifest)
    yield from runtime_cautions(manifest)
    messages = {arm.name: arm.messages for arm in manifest.protocol.arms}
    for arm, function in manifest.functions.items():
        if manifest.load is not None:
            if function.reserved_concurrency == 1 and manifest.load.get("shape") != "strict":
                yield (
                    f"{arm} ran with reserved concurrency 1, which under load throttles and in the end dead-letters; "
                    "deploy with the load settings"
                )
        elif (function.batch_size, function.reserved_concurrency) != (messages[arm], 1):
            at_once = "one message" if messages[arm] == 1 else f"one batch of {messages[arm]} messages"
            yield (
                f"{arm} ran with batch size {function.batch_size} and reserved concurrency "
                f"{function.reserved_concurrency or 'unset'}; {at_once} at a time needs {messages[arm]} and 1"
            )
    if manifest.load is not None:
        yield "messages under load wait for each other, so their times are less certain than the intervals say"
    if summary.load is not None:
        yield from summary.load.cautions
    if manifest.protocol.stop is not None:
        yield from _off_target(manifest.protocol.stop, summary)
    few = sum(0 < cell.n_valid < smallest_n(LEVEL) for cell in summary.cells)
    yield from few_samples_caution(few, len(summary.cells))
    yield from _too_few_blocks(summary.comparisons)
    for drift in summary.drift:
        if _is_notable(drift):
            yield (
                f"{drift.arm} {drift.label} drifted: in the second half of the run {drift.halves:.2f} times the first, "
                f"correlation with order {drift.correlation:.2f}"
            )
    if summary.reports_found < summary.reports_expected:
        yield f"only {summary.reports_found} of {summary.reports_expected} REPORT lines were found"
    if summary.damaged_lines:
        yield f"{summary.damaged_lines} log lines are damaged and could not be read"
    if summary.rows_valid < summary.rows_total:
        yield f"{summary.rows_total - summary.rows_valid} of {summary.rows_total} samples are not valid"


def _too_few_blocks(comparisons: Iterable[Comparison]) -> Iterable[str]:
    """Says that no difference can be found in this run, however large, if so."""
    short = [one for one in comparisons if one.lacks_blocks and one.n_blocks < one.fewest_blocks]
    if short:
        yield (
            f"{min(one.n_blocks for one in short)} blocks find no difference, however large: {len(short)} comparisons "
            f"need at least {short[0].fewest_blocks}"
        )


def _is_notable(drift: Drift) -> bool:
    """A movement that is steady, and more than what is called precise (docs/method.md)."""
    if drift.correlation is None or drift.halves is None:
        return False
    return abs(drift.correlation) >= 0.5 and not 1 / (1 + PRECISION) <= drift.halves <= 1 + PRECISION


def _all_blocks(protocol: Protocol) -> str:
    return FIXED_BLOCKS if protocol.stop is None else BLOCKS_CAP


def _off_target(stop: Stop, summary: Summary) -> Iterable[str]:
    """Says that the precision that was asked for was not reached, if so, and where it is worst."""
    widths = {cell: None if cell.duration_ms is None else cell.duration_ms.relative_width for cell in summary.cells}
    known = {cell: width for cell, width in widths.items() if width is not None}
    ended = "interrupted" if summary.stopped is None else f"ended by: {summary.stopped}"
    if len(known) < len(widths):
        yield f"target not reached: {len(widths) - len(known)} cells have no interval ({ended})"
    elif (worst := max(known, key=known.__getitem__)) and known[worst] > stop.precision:
        yield (
            f"target not reached: the widest interval is ±{known[worst]:.1%} of its median ({worst.arm} "
            f"{worst.label}), and ±{stop.precision:.1%} was asked ({ended})"
        )


def _faults(manifest: Manifest, summary: Summary) -> Iterable[str]:
    if manifest.load is not None:
        if manifest.stopped is None:
            yield "interrupted before its sender said that it had ended"
        yield from ("no message was sent",) if summary.load is None else summary.load.faults
        return
    if summary.stopped is None and manifest.protocol.stop is not None:
        yield f"interrupted after {summary.trials_done} trials, before its stop rule ended it"
    elif summary.trials_done < summary.trials_planned:
        yield f"only {summary.trials_done} of {summary.trials_planned} trials were run"
    empty = [f"{cell.arm} {cell.label}" for cell in summary.cells if cell.n_valid == 0]
    if empty:
        yield f"no valid sample of {', '.join(empty)}"
    if summary.items_found != summary.items_expected and summary.trials_done == summary.trials_planned:
        yield f"{summary.items_found} of {summary.items_expected} items are in the tables"
