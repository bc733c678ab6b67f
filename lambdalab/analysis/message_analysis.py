"""From a run directory's rows to every number that is shown. Pure: no clock, no network, nothing that measures."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from statistics import median
from typing import TypeVar

import msgspec

from lambdalab.analysis.answer import answer_of
from lambdalab.analysis.bill import Bill as Bill
from lambdalab.analysis.bill import Parts as Parts
from lambdalab.analysis.books import Books as Books
from lambdalab.analysis.cautions import cautions_of, drift_of, ended_by
from lambdalab.analysis.figures import figures
from lambdalab.analysis.frontier import Frontier as Frontier
from lambdalab.analysis.message_rows import REPEATED
from lambdalab.analysis.pairing import Resolutions, compare_arms, in_a_sentence
from lambdalab.analysis.summary import Answer as Answer
from lambdalab.analysis.summary import Cell as Cell
from lambdalab.analysis.summary import Drift as Drift
from lambdalab.analysis.summary import Summary as Summary
from lambdalab.machine_load import BlockLoad
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trials import Estimate, InvocationRow, TrialResult
from lambdalab.statistics.comparison import Comparison
from lambdalab.statistics.estimates import LEVEL, median_estimate

Number = TypeVar("Number", float, Decimal)


def summarise(
    manifest: MessageManifest,
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
        stopped=ended_by(manifest, is_done=manifest.load is None and done == planned),
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
        drift=tuple(
            drift_of(f"{arm} {load.label}", _durations(arm, load.label, current))
            for load in protocol.loads
            for arm in names
        ),
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
        cautions=cautions_of(
            manifest,
            _cautions(manifest, summary),
            block_loads=block_loads,
            drift=summary.drift,
            valid_per_cell=[cell.n_valid for cell in cells],
            stopped=summary.stopped,
            widths={
                f"{cell.arm} {cell.label}": None if cell.duration_ms is None else cell.duration_ms.relative_width
                for cell in cells
            },
            not_valid=(summary.rows_total - summary.rows_valid, summary.rows_total, "samples"),
        ),
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


def _durations(arm: str, label: str, rows: Iterable[InvocationRow]) -> list[float]:
    """The valid ones of a cell, in the order of execution."""
    of_cell = [row for row in rows if row.valid and (row.arm, row.label) == (arm, label)]
    return [row.duration_ms for row in sorted(of_cell, key=lambda row: row.block) if row.duration_ms is not None]


def _cautions(manifest: MessageManifest, summary: Summary) -> Iterable[str]:
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
    yield from _too_few_blocks(summary.comparisons)
    if summary.reports_found < summary.reports_expected:
        yield f"only {summary.reports_found} of {summary.reports_expected} REPORT lines were found"
    if summary.damaged_lines:
        yield f"{summary.damaged_lines} log lines are damaged and could not be read"


def _too_few_blocks(comparisons: Iterable[Comparison]) -> Iterable[str]:
    """Says that no difference can be found in this run, however large, if so."""
    short = [one for one in comparisons if one.lacks_blocks and one.n_blocks < one.fewest_blocks]
    if short:
        yield (
            f"{min(one.n_blocks for one in short)} blocks find no difference, however large: {len(short)} comparisons "
            f"need at least {short[0].fewest_blocks}"
        )


def _faults(manifest: MessageManifest, summary: Summary) -> Iterable[str]:
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
