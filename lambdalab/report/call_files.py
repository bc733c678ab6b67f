"""The files that a factorial run's analysis leaves beside its calls: rows, pivot, percentiles, and a summary as text.

::

    metrics.csv, metrics.parquet   one row per call, one column per factor, measure and component of the cost
    summary.json, summary.txt      every number that is shown; the totals and what each function did, as text
    pivot.csv                      p95 by design, language and memory against the scenario's own factors
    p95_analysis.csv               one row per cell: p50, p95, p99, throughput and volumes
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from lambdalab.analysis.call_rows import row_columns, row_values
from lambdalab.analysis.call_summary import FactorialSummary, Group
from lambdalab.design.cells import CALLERS, LAB_FACTORS, LANGUAGE, MEMORY_MB, RESERVED_CONCURRENCY
from lambdalab.records.calls import CallRow
from lambdalab.records.manifest import CallManifest
from lambdalab.records.record_files import replacing
from lambdalab.records.run_directory import write_csv, write_parquet
from lambdalab.report.call_tables import amount
from lambdalab.report.words import ms

_LAB_COLUMNS: Final = (CALLERS, RESERVED_CONCURRENCY)


def write_rows(folder: Path, rows: Sequence[CallRow], manifest: CallManifest) -> None:
    """Replaces ``metrics.csv`` and ``metrics.parquet``.

    Raises:
        StorageError: one cannot be written.
    """
    columns = row_columns(rows, manifest)
    values = [row_values(row) for row in rows]
    write_csv(folder / "metrics.csv", list(columns), ([row.get(name) for name in columns] for row in values))
    write_parquet(folder / "metrics.parquet", columns, values)


def write_tables(folder: Path, summary: FactorialSummary) -> None:
    """Replaces ``pivot.csv``, ``p95_analysis.csv`` and ``summary.txt``.

    Raises:
        StorageError: one cannot be written.
    """
    settings = list(dict.fromkeys(map(setting, summary.pivot)))
    lines: dict[tuple[object, ...], dict[str, float | None]] = {}
    for group in summary.pivot:
        key = (group.design, group.levels.get(LANGUAGE), group.levels.get(MEMORY_MB))
        lines.setdefault(key, {})[setting(group)] = _p95(summary, group)
    write_csv(
        folder / "pivot.csv",
        ["design", LANGUAGE, MEMORY_MB, *settings],
        ([*key, *(line.get(name) for name in settings)] for key, line in lines.items()),
    )
    columns = list(_percentile_columns(summary))
    write_csv(folder / "p95_analysis.csv", columns, (_percentiles(summary, cell).values() for cell in summary.cells))
    with replacing(folder / "summary.txt") as file:
        file.write("".join(f"{line}\n" for line in _text(summary)).encode())


def setting(group: Group) -> str:
    """The levels of the scenario's own factors, in words."""
    own = [f"{name}={level}" for name, level in group.levels.items() if name not in LAB_FACTORS]
    return " ".join(own) or "all"


def _p95(summary: FactorialSummary, group: Group) -> float | None:
    found = group.responses.get(summary.responses[0].measure)
    return None if found is None else found.p95


def _percentile_columns(summary: FactorialSummary) -> Iterator[str]:
    return iter(_percentiles(summary, summary.cells[0]))


def _percentiles(summary: FactorialSummary, cell: Group) -> dict[str, object]:
    """A cell as a row of ``p95_analysis.csv``; a percentile is of the warm calls of all blocks, None where too few."""
    found = cell.responses.get(summary.responses[0].measure)
    unit = summary.responses[0].unit
    return {
        "run_id": summary.run_id,
        "design": cell.design,
        **{name: cell.levels.get(name) for name in (LANGUAGE, MEMORY_MB)},
        "setting": setting(cell),
        **{name: cell.levels.get(name) for name in _LAB_COLUMNS},
        "calls": cell.calls,
        "failed": cell.failed,
        "throttled": cell.throttled,
        "n": 0 if found is None else found.n,
        f"p50_{unit}": None if found is None else found.median,
        f"p95_{unit}": None if found is None else found.p95,
        f"p95_low_{unit}": None if found is None else found.p95_low,
        f"p95_high_{unit}": None if found is None else found.p95_high,
        f"p99_{unit}": None if found is None else found.p99,
        **{
            f"throughput_{rate.unit.replace('/', '_per_')}": (
                None if rate.measure not in cell.rates else cell.rates[rate.measure].median
            )
            for rate in summary.rates
        },
        **{f"{volume.measure}_sum": cell.sums.get(volume.measure) for volume in summary.volumes},
    }


def _text(summary: FactorialSummary) -> Iterator[str]:
    yield f"{summary.run_id}: {summary.scenario}, protocol {summary.protocol}, target {summary.target}"
    yield from (f"invalid run: {fault}" for fault in summary.faults)
    calls = sum(design.calls for design in summary.designs)
    yield (
        f"invocations: {calls:,} total, {summary.rows_valid:,} successful, {calls - summary.rows_valid:,} failed, "
        f"{summary.throttled:,} of them throttled"
    )
    for design in summary.designs:
        yield ""
        yield f"{design.name}: {_counts(design)}"
        yield f"  {_latency(summary, design)}"
        yield f"  transferred: {transferred(summary, design)}"
        for function in summary.functions:
            if function.design == design.design and function.levels:
                yield f"  {function.name.removeprefix(design.name).strip()} ({function.function_name or 'not called'})"
                yield f"    {_counts(function)}"
                yield f"    {_latency(summary, function)}"
                yield f"    transferred: {transferred(summary, function)}"
    if summary.invalid_reasons:
        yield ""
        yield "failed because"
        yield from (f"  {count:,} x {reason}" for reason, count in summary.invalid_reasons.items())
    if summary.cautions:
        yield ""
        yield from (f"caution: {caution}" for caution in summary.cautions)


def _counts(group: Group) -> str:
    ended = f"{group.valid:,} successful, {group.failed:,} failed, {group.throttled:,} throttled"
    return f"{group.calls:,} invocations, {ended}"


def _latency(summary: FactorialSummary, group: Group) -> str:
    response = summary.responses[0]
    found = group.responses.get(response.measure)
    if found is None:
        return f"{response.words}: not measured"
    p95 = f"{ms(found.p95)} {response.unit}" if found.p95 is not None else f"takes {found.p95_more} more calls"
    p99 = f"{ms(found.p99)} {response.unit}" if found.p99 is not None else f"takes {found.p99_more} more calls"
    return (
        f"{response.words}, {found.n:,} warm calls: average {ms(group.means[response.measure])} {response.unit}, "
        f"p50 {ms(found.median)} {response.unit}, p95 {p95}, p99 {p99}"
    )


def transferred(summary: FactorialSummary, group: Group) -> str:
    """The volumes of the valid calls, those there are any of."""
    return (
        ", ".join(
            f"{amount(total / volume.unit_divisor)} {volume.unit}"
            for volume in summary.volumes
            if (total := group.sums.get(volume.measure))
        )
        or "nothing"
    )
