"""From the rows of a factorial run to every number that is shown. Pure: no clock, no network, nothing that measures."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from statistics import fmean, median
from typing import Final, NamedTuple, TypeVar

import msgspec

from lambdalab.analysis.bill import Terms
from lambdalab.analysis.call_bill import bill_of_calls
from lambdalab.analysis.call_rows import LOGS, REPEATED, counted
from lambdalab.analysis.call_summary import FactorialSummary, Group, Order, VolumeWords, Words
from lambdalab.analysis.cautions import cautions_of, drift_of, ended_by
from lambdalab.analysis.pairing import warm_durations
from lambdalab.design.cells import CALLERS, LAB_FACTORS, LANGUAGE, MEMORY_MB, Cell, Design
from lambdalab.machine_load import BlockLoad
from lambdalab.pricing.costs import PriceSheet
from lambdalab.records.calls import INTERRUPTED, CallRow
from lambdalab.records.manifest import CallManifest
from lambdalab.records.trials import Estimate
from lambdalab.scenario.base import CallScenario, Response, Volume
from lambdalab.statistics.effects import Study, estimate_effects
from lambdalab.statistics.estimates import LEVEL, median_estimate

DURATION: Final = Response(measure="duration_ms", words="Duration", unit="ms")
"""What every call has a REPORT line of, whatever its scenario measures."""
COST: Final = Response(measure="million_calls_usd", words="cost of a million calls", unit="USD")
_MILLION: Final = 10**6
_OF_FUNCTION: Final = (LANGUAGE, MEMORY_MB)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Paces = Mapping[str, Mapping[int, float]]
"""What a cell did by the second, by measure and block."""


class _Rate(NamedTuple):
    """Something that is counted by the second, over the wall time of a cell in a block."""

    measure: str
    words: str
    unit: str
    amount: Callable[[CallRow], float | None]


def summarise(
    manifest: CallManifest,
    rows: Sequence[CallRow],
    scenario: CallScenario,
    prices: PriceSheet,
    *,
    block_loads: Sequence[BlockLoad] = (),
    terms: Terms = Terms(),  # noqa: B008 - frozen
) -> FactorialSummary:
    """Everything that can be said of a factorial run.

    Args:
        manifest: what was asked.
        rows: every call, valid or not.
        scenario: what its measures mean.
        prices: the price sheet of the run.
        block_loads: what other programs took of the machine meanwhile.
        terms: how to bill a month.
    """
    protocol = manifest.protocol
    calls = list(counted(rows))
    responses = (*scenario.responses, DURATION)
    rates = _rates(scenario.volumes)
    resumed = [datetime.fromisoformat(moment).timestamp() * 1000 for moment in manifest.resumed_at]
    of_cells = _by(rows, lambda row: row.cell)
    medians = warm_durations(rows)
    made = sum(not _is_unfinished(row) for row in calls)
    paces = {cell: _paces(counted(of_cells[cell]), rates, resumed) for cell in of_cells}

    def groups(is_shared: Callable[[str, Design], bool]) -> Iterator[Group]:
        """Cells that are alike in the factors that are shared."""
        for design in protocol.designs:
            shared = [name for name in design.factors if is_shared(name, design)]
            alike = _by(design.cells, lambda cell: tuple((name, cell.levels[name]) for name in shared))  # noqa: B023
            for levels, cells in alike.items():
                name = Cell(design=design.label, levels=dict(levels)).name
                of_group = [row for cell in cells for row in of_cells.get(cell.name, ())]
                group = _group(design.label, name, of_group, responses, scenario.volumes)
                pace = paces.get(name, {}) if len(shared) == len(design.factors) else {}
                yield msgspec.structs.replace(
                    group,
                    levels=dict(levels),
                    rates={measure: _estimate(of.values(), in_ms=False) for measure, of in pace.items() if of},
                )

    summary = FactorialSummary(
        run_id=manifest.run_id,
        scenario=protocol.scenario,
        protocol=protocol.name,
        target=manifest.target,
        cpu_limit=manifest.cpu_limit,
        latency_model=manifest.latency_model,
        cpu_scale=manifest.cpu_scale,
        price_sheet=manifest.price_sheet,
        seed=manifest.seed,
        blocks=protocol.blocks if manifest.stopped is None else max((row.block for row in rows), default=0),
        level=LEVEL,
        stopped=ended_by(manifest, is_done=made == protocol.calls),
        calls_planned=protocol.calls,
        calls_made=made,
        rows_valid=sum(row.valid for row in calls),
        rows_repeated=sum(_is_repeated(row) for row in rows),
        warmups=sum(row.warmup for row in rows),
        throttled=sum(row.throttled for row in calls),
        spent_usd=sum((row.cost_total_usd for row in rows if row.cost_total_usd is not None), Decimal()),
        cost_unknown=sum(row.cost_total_usd is None and not row.throttled for row in rows),
        monthly_usd=scenario.monthly_usd(prices, protocol.designs),
        responses=tuple(Words(measure=one.measure, words=one.words, unit=one.unit) for one in responses),
        rates=tuple(Words(measure=one.measure, words=one.words, unit=one.unit) for one in rates),
        volumes=tuple(
            VolumeWords(
                measure=one.measure,
                words=one.words,
                unit=one.rate.removesuffix("/s"),
                unit_divisor=one.rate_divisor,
            )
            for one in scenario.volumes
        ),
        designs=tuple(groups(lambda *_: False)),
        functions=tuple(groups(lambda name, design: name != CALLERS if design.functions else name in _OF_FUNCTION)),
        pivot=tuple(groups(lambda name, _: name in _OF_FUNCTION or name not in LAB_FACTORS)),
        cells=tuple(groups(lambda *_: True)),
        effects=estimate_effects(
            study
            for design in protocol.designs
            for study in _studies(design, sorted({row.block for row in calls}), calls, responses, rates, paces)
        ),
        order=tuple(_order(calls)),
        drift=tuple(
            drift_of(name, _durations(of_cells.get(name, ())))
            for name in dict.fromkeys(cell.name for cell in protocol.cells)
        ),
        month=bill_of_calls(manifest, rows, scenario, prices, terms),
        invalid_reasons=_reasons(calls),
        notes=scenario.notes(),
        cautions=(),
        faults=(),
    )
    return msgspec.structs.replace(
        summary,
        cautions=cautions_of(
            manifest,
            _cautions(manifest, rows, calls, summary),
            block_loads=block_loads,
            drift=summary.drift,
            valid_per_cell=[cell.warm for cell in summary.cells],
            stopped=summary.stopped,
            widths={cell.name: _width(medians.get(cell.name, {}).values()) for cell in protocol.cells},
            not_valid=(len(calls) - summary.rows_valid, len(calls), "calls"),
        ),
        faults=tuple(_faults(summary)),
    )


def _by(items: Iterable[V], key: Callable[[V], K]) -> dict[K, list[V]]:
    found: dict[K, list[V]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def _is_repeated(row: CallRow) -> bool:
    return row.reason is not None and row.reason.startswith(REPEATED)


def _is_unfinished(row: CallRow) -> bool:
    return row.reason is not None and row.reason.startswith(INTERRUPTED)


def _reasons(rows: Iterable[CallRow]) -> dict[str, int]:
    return dict(Counter(row.reason for row in rows if row.reason is not None).most_common())


def _value(row: CallRow, measure: str) -> float | None:
    """A measure of the scenario, or of the lab."""
    if measure == COST.measure:
        return None if row.cost_total_usd is None else float(row.cost_total_usd * _MILLION)
    found = row.measures[measure] if measure in row.measures else getattr(row, measure, None)
    return None if found is None else float(found)


def _known(rows: Iterable[CallRow], measure: str) -> list[float]:
    return [value for row in rows if (value := _value(row, measure)) is not None]


def _estimate(values: Iterable[float], *, in_ms: bool) -> Estimate:
    return median_estimate(list(values), LEVEL, in_ms=in_ms)


def _group(
    design: str, name: str, rows: Sequence[CallRow], responses: Sequence[Response], volumes: Sequence[Volume]
) -> Group:
    calls = list(counted(rows))
    valid = [row for row in calls if row.valid]
    warm = [row for row in valid if not row.cold_start]
    cold = [
        row for row in rows if row.cold_start and row.duration_ms is not None and (row.valid or row.reason == REPEATED)
    ]
    functions = {row.function_name for row in rows}
    values = {one: found for one in responses if (found := _known(warm, one.measure))}
    sums = {one.measure: sum(found) for one in volumes if (found := _known(valid, one.measure))}
    costs = {part: _million_usd(row.costs_usd.get(part) for row in valid) for part in _parts(valid)}
    known = [amount for amount in costs.values() if amount is not None]
    cost = sum(known, Decimal()) if known and len(known) == len(costs) else None
    inits = [row.init_ms for row in cold if row.init_ms is not None]
    both = [row.init_ms + row.duration_ms for row in cold if row.init_ms is not None and row.duration_ms is not None]
    return Group(
        design=design,
        name=name,
        levels={},
        function_name=functions.pop() if len(functions) == 1 else None,
        calls=len(calls),
        valid=len(valid),
        throttled=sum(row.throttled for row in calls),
        warm=len(warm),
        reasons=_reasons(calls),
        responses={one.measure: _estimate(found, in_ms=one.unit == "ms") for one, found in values.items()},
        means={one.measure: fmean(found) for one, found in values.items()},
        sums=sums,
        rates={},
        cold=len(cold),
        init_ms=_estimate(inits, in_ms=True) if inits else None,
        init_and_first_ms=_estimate(both, in_ms=True) if both else None,
        max_memory_mb=max((row.max_memory_mb for row in valid if row.max_memory_mb is not None), default=None),
        million_usd=costs,
        million_total_usd=cost,
        usd_per_volume={
            one.measure: _per_volume(cost, len(valid), sums.get(one.measure, 0), one.divisor) for one in volumes
        },
    )


def _parts(rows: Iterable[CallRow]) -> list[str]:
    return list(dict.fromkeys(part for row in rows for part in row.costs_usd))


def _million_usd(amounts: Iterable[Decimal | None]) -> Decimal | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal()) * _MILLION / len(known) if known else None


def _per_volume(cost: Decimal | None, calls: int, amount: float, divisor: int) -> Decimal | None:
    return None if cost is None or not amount else cost / _MILLION * calls * divisor / Decimal(str(amount))


def _rates(volumes: Sequence[Volume]) -> tuple[_Rate, ...]:
    def of(volume: Volume) -> _Rate:
        def amount(row: CallRow) -> float | None:
            found = _value(row, volume.measure)
            return None if found is None else found / volume.rate_divisor

        return _Rate(f"{volume.measure}_per_s", "throughput", volume.rate, amount)

    return tuple(map(of, volumes))


def _paces(rows: Iterable[CallRow], rates: Sequence[_Rate], resumed: Sequence[float]) -> Paces:
    """What valid calls brought in each block, by the second from the first begin to the last end of all its calls.

    A block in which the cell was interrupted and gone on with later has none, and one without a valid call neither.
    """
    found: dict[str, dict[int, float]] = {rate.measure: {} for rate in rates}
    for block, calls in _by(rows, lambda row: row.block).items():
        begin = min(row.started_at_ms for row in calls)
        end = max(row.started_at_ms + row.elapsed_ms for row in calls)
        valid = [row for row in calls if row.valid]
        if end <= begin or not valid or any(begin < moment < end for moment in resumed):
            continue
        for rate in rates:
            if amounts := [amount for row in valid if (amount := rate.amount(row)) is not None]:
                found[rate.measure][block] = sum(amounts) / ((end - begin) / 1000)
    return found


def _studies(
    design: Design,
    blocks: Sequence[int],
    calls: Iterable[CallRow],
    responses: Sequence[Response],
    rates: Sequence[_Rate],
    paces: Mapping[str, Paces],
) -> Iterator[Study]:
    """Every response of a design: medians of the warm calls of a cell in a block, and what it did by the second."""
    warm = [row for row in calls if row.design == design.label and row.valid and not row.cold_start]
    of_block_cell = _by(warm, lambda row: (row.block, tuple(row.levels.values())))
    for one in (*responses, COST):
        values = {key: median(found) for key, rows in of_block_cell.items() if (found := _known(rows, one.measure))}
        if values or not warm:  # else it is no measure of this design
            said = (one.measure, one.words, one.unit, one.lower_is_better)
            yield Study(design.label, *said, design.factors, blocks, values, design.fraction)
    for rate in rates:
        values = {
            (block, tuple(cell.levels.values())): value
            for cell in design.cells
            for block, value in paces.get(cell.name, {}).get(rate.measure, {}).items()
        }
        if values or not warm:
            said = (rate.measure, rate.words, rate.unit, False)
            yield Study(design.label, *said, design.factors, blocks, values, design.fraction)


def _order(calls: Iterable[CallRow]) -> Iterator[Order]:
    for block, rows in sorted(_by(calls, lambda row: row.block).items()):
        yield Order(block=block, cells=tuple(dict.fromkeys(row.cell for row in rows)))


def _width(values: Iterable[float]) -> float | None:
    """How far the further end of the interval of a median is from it, as a share."""
    known = list(values)
    return _estimate(known, in_ms=True).relative_width if known else None


def _durations(rows: Iterable[CallRow]) -> list[float]:
    """Those of the valid warm calls of a cell, in the order of execution."""
    return _known((row for row in counted(rows) if row.valid and not row.cold_start), DURATION.measure)


def _cautions(
    manifest: CallManifest, rows: Iterable[CallRow], calls: Sequence[CallRow], summary: FactorialSummary
) -> Iterator[str]:
    valid = [row for row in calls if row.valid]
    ended_early = summary.stopped is not None and summary.calls_made < summary.calls_planned
    if ended_early and manifest.protocol.stop is None:  # else that is what was asked, or the target was not reached
        yield f"ended by: {summary.stopped}, after {summary.calls_made:,} of {summary.calls_planned:,} calls"
    if unlogged := sum(row.costs_usd.get(LOGS) is None for row in valid):
        yield (
            f"{unlogged:,} of {len(valid):,} valid calls logged more than the 4 KB that Invoke returns, so what their "
            "log costs is not known; means of costs are by component, over the calls of which it is known"
        )
    estimated = [one for one in summary.effects if one.refused is None]
    yield from dict.fromkeys(f"{one.design}: {said}, and is in no effect" for one in estimated for said in one.left_out)
    yield from dict.fromkeys(f"{one.design}: {said}" for one in estimated for said in one.aliased)
    for design in manifest.protocol.designs:
        yield from design.cautions
    if summary.throttled:
        yield f"{summary.throttled:,} of {len(calls):,} calls were throttled; they are no samples, and count as failed"
    if (cold := sum(bool(row.cold_start) for row in valid)) > 0:
        yield f"{cold:,} calls met a cold start after the warm-up; they are in rates and costs, and in no other number"
    if unwarmed := sum(row.warmup and not row.valid and not _is_repeated(row) for row in rows):
        yield f"{unwarmed:,} of {summary.warmups:,} warm-up calls are not valid; metrics.csv says why"


def _faults(summary: FactorialSummary) -> Iterator[str]:
    if summary.stopped is None and summary.calls_made < summary.calls_planned:
        yield f"interrupted: only {summary.calls_made:,} of {summary.calls_planned:,} calls were made"
    empty = [cell.name for cell in summary.cells if not cell.valid]
    if empty:
        more = f" and {len(empty) - 3} more cells" if len(empty) > 3 else ""
        yield f"no valid sample of {', '.join(empty[:3])}{more}"
