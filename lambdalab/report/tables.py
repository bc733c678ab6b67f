"""The report's tables: every number of the summary, the run's surroundings, and the rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from lambdalab.analysis.summary import Drift, Summary
from lambdalab.records.manifest import FunctionFacts, Manifest, MessageManifest
from lambdalab.records.trials import Estimate, InvocationRow
from lambdalab.report.words import (
    ABSENT,
    JOURNEY,
    MARKS,
    METRICS,
    interval,
    median,
    ms,
    p_value,
    quotient,
    resolution,
    usd,
)

ROWS_AT_MOST: Final = 1_000
"""Rows in the page; a browser takes seconds to lay out more. All are in the CSV beside it."""
_RAW: Final = (
    "trial",
    "block",
    "label",
    "arm",
    "cold_start",
    "duration_ms",
    "billed_ms",
    "init_ms",
    "queue_wait_ms",
    "end_to_end_ms",
    "max_memory_mb",
    "written",
    "wru",
    "cost_total_usd",
    "valid",
    "reason",
    "request_id",
)
_TEXT_COLUMNS: Final = {"trial", "label", "arm", "cold_start", "valid", "reason", "request_id"}
_BLOCKS: Final = ("blocks", "to decide")
_SPREAD: Final = ("q1", "q3", "minimum", "maximum")


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table: ``numeric`` tells for every column whether it is aligned right, ``heads`` how many name the row."""

    name: str
    caption: str
    columns: Sequence[str]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[str]]
    heads: int = 2


class Tables:
    """The tables of a run, section by section."""

    def __init__(self, summary: Summary, manifest: MessageManifest, rows: Sequence[InvocationRow]) -> None:
        self.summary = summary
        self.manifest = manifest
        self.rows = rows

    @property
    def comparison_table(self) -> Table:
        """The arms have a column of their own only where there are several pairs, for the sake of phones and paper."""
        compared = self.summary.comparisons
        pairs = list(dict.fromkeys(f"{one.arm} / {one.over}" for one in compared))
        several = len(pairs) > 1
        head = ("load", "arms", "of") if several else ("load", "of")
        return Table(
            name="comparisons",
            caption=f"{', '.join(pairs)}: ratios of medians, their {self.summary.level:.0%} intervals, verdicts",
            columns=(*head, "verdict", "ratio", "interval", "p (Holm)", "effect", *_BLOCKS, "resolution"),
            numeric=(*(False for _ in head), False, *(True for _ in range(7))),
            rows=[
                [
                    one.label,
                    *([f"{one.arm} / {one.over}"] if several else []),
                    METRICS[one.metric],
                    f"{MARKS[one.verdict]} {one.verdict}",
                    quotient(one.ratio),
                    "none" if one.low is None else f"{quotient(one.low)} - {quotient(one.high)}",
                    p_value(one.p_adjusted),
                    ABSENT if one.effect is None else f"{one.effect:+.2f}",
                    f"{one.n_blocks:,}",
                    f"{one.needed_blocks:,}" if one.needed_blocks else ABSENT,
                    resolution(one.resolution),
                ]
                for one in compared
            ],
            heads=len(head),
        )

    @property
    def duration_table(self) -> Table:
        return self._estimates("durations", "Duration in ms of valid samples", "duration_ms")

    @property
    def cold_tables(self) -> Iterator[Table]:
        yield self._estimates("init", "Init Duration in ms of valid samples", "init_ms")
        yield self._estimates("first", "Init + first invocation in ms of valid samples", "init_and_first_ms")

    def _estimates(self, name: str, caption: str, field: str) -> Table:
        return Table(
            name=name,
            caption=f"{caption}: median, its {self.summary.level:.0%} interval, quartiles, extremes, 95th percentile",
            columns=("load", "arm", "start", "valid", "median", "interval", "q1", "q3", "min", "max", "p95"),
            numeric=(False, False, False, *(True for _ in range(8))),
            rows=[
                [
                    cell.label,
                    cell.arm,
                    cell.start,
                    f"{cell.n_valid}/{cell.n_total}",
                    median(found),
                    interval(found),
                    *(ABSENT if found is None else ms(getattr(found, end)) for end in _SPREAD),
                    _p95(found),
                ]
                for cell in self.summary.cells
                if (found := getattr(cell, field)) is not None or field == "duration_ms"
            ],
        )

    @property
    def precision_table(self) -> Table:
        return Table(
            name="precision",
            caption="Precision of the median of Duration",
            columns=("load", "arm", "samples", "within", "for 5 %", "variation", "outliers", "warnings"),
            numeric=(False, False, True, True, True, True, True, False),
            rows=[
                [
                    cell.label,
                    cell.arm,
                    f"{found.n:,}",
                    ABSENT if found.relative_width is None else f"\u00b1{found.relative_width:.1%}",
                    ABSENT if found.needed_n is None else f"{found.needed_n:,}",
                    ABSENT if found.cv is None else f"{found.cv:.0%}",
                    f"{found.outliers:,}",
                    "\n".join(found.warnings) or "none",
                ]
                for cell in self.summary.cells
                if (found := cell.duration_ms) is not None
            ],
        )

    @property
    def journey_table(self) -> Table:
        return Table(
            name="journey",
            caption=f"Times in ms: medians with their {self.summary.level:.0%} intervals",
            columns=("load", "arm", *JOURNEY, "Billed"),
            numeric=(False, False, *(True for _ in JOURNEY), True),
            rows=[
                [
                    cell.label,
                    cell.arm,
                    *(
                        ABSENT if found is None else f"{ms(found.median)}\n{interval(found)}"
                        for found in (getattr(cell, field) for field in (*JOURNEY.values(), "billed_ms"))
                    ),
                ]
                for cell in self.summary.cells
            ],
        )

    @property
    def front_table(self) -> Table:
        return Table(
            name="front",
            caption=f"Medians with their {self.summary.level:.0%} intervals, and which settings no other beats",
            columns=("load", "arm", "Duration in ms", "interval", "USD per million", "interval", "on the front"),
            numeric=(False, False, True, True, True, True, False),
            rows=[
                [
                    frontier.label,
                    point.arm.name,
                    median(point.duration_ms),
                    interval(point.duration_ms),
                    f"{point.usd_per_million.median:,.2f}",
                    "none"
                    if point.usd_per_million.low is None
                    else f"{point.usd_per_million.low:,.2f} - {point.usd_per_million.high:,.2f}",
                    "yes" if point.on_front else "no",
                ]
                for frontier in self.summary.frontiers
                for point in frontier.points
            ],
        )

    @property
    def resource_table(self) -> Table:
        return Table(
            name="resources",
            caption="Peak memory, and medians of write units, billed time and cost",
            columns=("load", "arm", "peak MB", "write units", "billed ms", "USD/execution", "USD/item"),
            numeric=(False, False, True, True, True, True, True),
            rows=[
                [
                    cell.label,
                    cell.arm,
                    ABSENT if cell.max_memory_mb is None else str(cell.max_memory_mb),
                    ABSENT if cell.wru is None else f"{cell.wru:,g}",
                    median(cell.billed_ms),
                    usd(cell.cost_per_execution_usd),
                    usd(cell.cost_per_item_usd),
                ]
                for cell in self.summary.cells
            ],
        )

    @property
    def reasons(self) -> Table:
        return Table(
            name="reasons",
            caption="Why samples are not valid",
            columns=("reason", "samples"),
            numeric=(False, True),
            rows=[[reason, f"{count:,}"] for reason, count in self.summary.invalid_reasons.items()],
            heads=1,
        )

    @property
    def functions(self) -> Table:
        return functions_table(self.manifest.functions)

    @property
    def surroundings(self) -> Table:
        return facts_table(self.manifest)

    @property
    def raw(self) -> Table:
        shown = self.rows[:ROWS_AT_MOST]
        every = f"All {len(shown):,} rows" if len(shown) == len(self.rows) else f"The first {len(shown):,} rows"
        return Table(
            name="raw",
            caption=f"{every} of {len(self.rows):,}, in the order of execution",
            columns=[name.replace("_", " ") for name in _RAW],
            numeric=[name not in _TEXT_COLUMNS for name in _RAW],
            rows=[[plain(getattr(row, name)) for name in _RAW] for row in shown],
            heads=1,
        )


def functions_table(functions: Mapping[str, FunctionFacts]) -> Table:
    """The functions of a run, by arm or by language."""
    fields = [
        field
        for field in next(iter(functions.values())).__struct_fields__
        if field not in ("log_group", "function_name", "language")
    ]
    return Table(
        name="functions",
        caption="The functions as they were configured when the run began",
        columns=("setting", *functions),
        numeric=(False, *(False for _ in functions)),
        rows=[
            [field.replace("_", " "), *(plain(getattr(function, field)) for function in functions.values())]
            for field in ("function_name", *fields)
        ],
        heads=1,
    )


def drift_table(drift: Iterable[Drift]) -> Table:
    """How far each cell moved over the run."""
    return Table(
        name="drift",
        caption="Drift of Duration over the run",
        columns=("cell", "correlation with order", "second half / first"),
        numeric=(False, True, True),
        rows=[
            [one.cell, ABSENT if one.correlation is None else f"{one.correlation:+.2f}", quotient(one.halves)]
            for one in drift
        ],
    )


def facts_table(manifest: Manifest) -> Table:
    """Where and with what a run was measured."""
    facts: dict[str, object] = {
        "started": manifest.started_at,
        "resumed": ", ".join(manifest.resumed_at) or "never",
        "target": manifest.target,
        "stack": manifest.stack_name,
        "region": manifest.region,
        "endpoint": manifest.endpoint,
        "cpu limit": manifest.cpu_limit,
        "cpu scale": f"{manifest.cpu_scale:g}",
        "latency model": manifest.latency_model or "none",
        "cold starts": manifest.cold_mode,
        "price sheet": manifest.price_sheet,
        "seed": manifest.seed,
    }
    facts |= {f"machine: {key.replace('_', ' ')}": value for key, value in manifest.machine.items()}
    facts |= {f"version: {key}": value for key, value in manifest.versions.items()}
    return Table(
        name="surroundings",
        caption="Where and with what it ran",
        columns=("what", "value"),
        numeric=(False, False),
        rows=[[what, plain(value)] for what, value in facts.items()],
        heads=1,
    )


def _p95(estimate: Estimate | None) -> str:
    """The 95th percentile, or how many samples are missing for one."""
    if estimate is None:
        return ABSENT
    return f"too few samples ({estimate.p95_more:,} more)" if estimate.p95 is None else ms(estimate.p95)


def plain(value: object) -> str:
    """A value of a row or a manifest as it is."""
    match value:
        case None:
            return ABSENT
        case bool():
            return "yes" if value else "no"
        case Decimal():
            return f"{value:f}"
        case _:
            return str(value)
