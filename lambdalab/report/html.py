"""``report.html``: one file that opens offline, made from the summary, the manifest and the rows.

No arithmetic: numbers are the summary's, points are the rows'. Everything others wrote is escaped, and the page forbids
itself to load or send anything.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

import msgspec

from lambdalab.analysis import Cell, Summary
from lambdalab.figures import POINTS_AT_MOST, STEPS
from lambdalab.model import InvocationRow, Load, Manifest, Start
from lambdalab.report import charts
from lambdalab.report.words import ABSENT, interval, median, ms, quotient, usd

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


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """A figure: its heading, its drawing, and in words what the drawing shows."""

    heading: str
    svg: str
    text: str


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table: ``numeric`` tells for every column whether it is aligned right, ``heads`` how many name the row."""

    name: str
    caption: str
    columns: Sequence[str]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[str]]
    heads: int = 2


def render_html(summary: Summary, manifest: Manifest, rows: Sequence[InvocationRow]) -> str:
    """Makes the page.

    Args:
        summary: every number.
        manifest: what was asked, and where it ran.
        rows: every sample, valid or not, in the order of execution.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # here, because most commands never need it
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("lambdalab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assert environment.loader is not None
    style, script = (environment.loader.get_source(environment, name)[0] for name in ("report.css", "report.js"))
    page = _Page(summary, manifest, rows)
    return environment.get_template("report.html.j2").render(
        summary=summary,
        manifest=manifest,
        page=page,
        style=Markup(style),  # noqa: S704 - the lab's own file
        script=Markup(script),  # noqa: S704 - the lab's own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        drawing=Markup,  # of what charts.draw returns, in which Vega has escaped every text
    )


class _Page:
    """What the template asks for, part by part."""

    points_at_most = POINTS_AT_MOST
    steps = STEPS

    def __init__(self, summary: Summary, manifest: Manifest, rows: Sequence[InvocationRow]) -> None:
        self.summary = summary
        self.manifest = manifest
        self.all_rows = rows
        self.arms = [arm.name for arm in manifest.protocol.arms]
        self.loads = manifest.protocol.loads
        self._thinned = {curve.label for curve in summary.figures.curves}

    @property
    def sentences(self) -> Iterator[str]:
        for ratio in self.summary.ratios:
            said = []
            if ratio.duration is not None:
                said.append(f"takes {quotient(ratio.duration)} times as long as {ratio.over} (Duration)")
            if ratio.init is not None:
                said.append(f"{quotient(ratio.init)} times as long to initialise")
            if ratio.cost is not None:
                said.append(f"costs {quotient(ratio.cost)} times as much")
            yield f"{ratio.label}: {ratio.arm} {', '.join(said) or f'and {ratio.over} cannot be compared'}."

    # -- durations

    @property
    def thinned(self) -> bool:
        """Whether there are loads whose samples are too many to be drawn one by one."""
        return bool(self._thinned)

    @property
    def pointed(self) -> bool:
        """Whether there are loads whose samples are drawn one by one."""
        return any(load.label not in self._thinned for load in self.loads)

    def durations(self, start: str) -> Iterator[Panel]:
        """The durations of each load that starts so."""
        for load in self._loads(start):
            yield self._distribution(load, "Duration", "duration_ms")

    @property
    def cold_starts(self) -> Iterator[Panel]:
        for load in self._loads(Start.COLD):
            yield self._distribution(load, "Init alone", "init_ms")
            yield self._distribution(load, "Init + first invocation", "init_and_first_ms")

    def _distribution(self, load: Load, what: str, name: str) -> Panel:
        """One time, which cells and rows call ``name``."""
        heading = f"{what}, {load.label}"
        cells = self._cells(load)
        estimates = [(cell.arm, found) for cell in cells if (found := getattr(cell, name)) is not None]
        said = [f"{arm} median {ms(e.median)} ms, interval {interval(e)}, {e.n} samples" for arm, e in estimates]
        if load.label in self._thinned:
            points = [
                {"arm": curve.arm, "value": reached, "share": share}
                for curve in self.summary.figures.curves
                if (curve.label, curve.metric) == (load.label, name)
                for share, reached in zip(curve.shares, curve.values_ms, strict=True)
            ]
            spec = charts.curves(self.arms, points, "ms")
        else:
            points = [
                {"arm": row.arm, "block": row.block, "value": found}
                for row in self._valid(load)
                if (found := getattr(row, name)) is not None
            ]
            bars = [{"arm": arm, "median": e.median, "low": e.low, "high": e.high} for arm, e in estimates]
            spec = charts.samples(self.arms, points, bars, "ms")
        return Panel(heading=heading, svg=charts.draw(spec), text=_sentence(heading, said))

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
            caption=f"{caption}: median, its {self.summary.level:.0%} interval, extremes",
            columns=("load", "arm", "start", "valid", "median", "interval", "min", "max"),
            numeric=(False, False, False, True, True, True, True, True),
            rows=[
                [
                    cell.label,
                    cell.arm,
                    cell.start,
                    f"{cell.n_valid}/{cell.n_total}",
                    median(found),
                    interval(found),
                    ms(None if found is None else found.minimum),
                    ms(None if found is None else found.maximum),
                ]
                for cell in self.summary.cells
                if (found := getattr(cell, field)) is not None or field == "duration_ms"
            ],
        )

    # -- the way of a message

    @property
    def journeys(self) -> Iterator[Panel]:
        for load in self.loads:
            records = [
                {
                    "arm": cell.arm,
                    "metric": metric,
                    "median": found.median,
                    "low": found.low,
                    "high": found.high,
                    "minimum": found.minimum,
                    "maximum": found.maximum,
                }
                for cell in self._cells(load)
                for metric, field in _JOURNEY.items()
                if (found := getattr(cell, field)) is not None
            ]
            metrics = list(dict.fromkeys(record["metric"] for record in records))
            said = [f"{r['arm']} {r['metric']} median {ms(r['median'])} ms" for r in records]
            spec = charts.estimates(self.arms, metrics, records, "ms")
            heading = f"From send to commit, {load.label}"
            yield Panel(heading=heading, svg=charts.draw(spec), text=_sentence(heading, said))

    @property
    def journey_table(self) -> Table:
        return Table(
            name="journey",
            caption=f"Times in ms: medians with their {self.summary.level:.0%} intervals",
            columns=("load", "arm", *_JOURNEY, "Billed"),
            numeric=(False, False, *(True for _ in _JOURNEY), True),
            rows=[
                [
                    cell.label,
                    cell.arm,
                    *(
                        ABSENT if found is None else f"{ms(found.median)}\n{interval(found)}"
                        for found in (getattr(cell, field) for field in (*_JOURNEY.values(), "billed_ms"))
                    ),
                ]
                for cell in self.summary.cells
            ],
        )

    # -- cost

    @property
    def costs(self) -> Iterator[Panel]:
        for load in self.loads:
            shares = [share for share in self.summary.figures.costs if share.label == load.label]
            records = [
                {"arm": share.arm, "part": part, "position": position, "value": amount}
                for share in shares
                for position, (part, amount) in enumerate((share.per_million_items_usd or {}).items())
            ]
            if records:
                parts = list(dict.fromkeys(record["part"] for record in records))
                heading = f"Cost of a million items, {load.label}"
                said = [f"{record['arm']} {record['part']} {usd(record['value'])} USD" for record in records]
                spec = charts.stack(self.arms, parts, records, "USD per million items")
                yield Panel(heading=heading, svg=charts.draw(spec), text=_sentence(heading, said))

    @property
    def cost_table(self) -> Table:
        shares = self.summary.figures.costs
        parts = list(dict.fromkeys(part for share in shares for part in share.per_execution_usd))
        rows = []
        for share in shares:
            one, million = share.per_execution_usd, share.per_million_items_usd or {}
            rows += [
                [share.label, share.arm, unit, *(usd(amounts.get(part)) for part in parts), usd(total)]
                for unit, amounts, total in (
                    ("execution", one, share.total_per_execution_usd),
                    ("million items", million, share.total_per_million_items_usd),
                )
            ]
        return Table(
            name="cost",
            caption=f"Mean cost in USD by component, prices of {self.summary.price_sheet}",
            columns=("load", "arm", "per", *parts, "total"),
            numeric=(False, False, False, *(True for _ in parts), True),
            rows=rows,
            heads=3,
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

    # -- order

    @property
    def orders(self) -> Iterator[Panel]:
        for load in self.loads:
            heading = f"Duration over the run, {load.label}"
            medians = [
                {"arm": cell.arm, "median": cell.duration_ms.median}
                for cell in self._cells(load)
                if cell.duration_ms is not None
            ]
            runs = [stretch for stretch in self.summary.figures.stretches if stretch.label == load.label]
            if runs:
                records = [
                    {
                        "arm": stretch.arm,
                        "block": stretch.first_block,
                        "median": stretch.median_ms,
                        "low": stretch.minimum_ms,
                        "high": stretch.maximum_ms,
                    }
                    for stretch in runs
                ]
                spec = charts.stretches(self.arms, records, "ms")
            else:
                executed = [row for row in self.all_rows if row.label == load.label]
                points = [
                    {"arm": row.arm, "position": position, "value": row.duration_ms, "valid": row.valid}
                    for position, row in enumerate(executed, start=1)
                    if row.duration_ms is not None
                ]
                spec = charts.order(self.arms, points, _shaded(executed), medians, "ms")
            said = [
                f"{cell.arm} {cell.n_valid}/{cell.n_total} samples valid, median {median(cell.duration_ms)} ms"
                for cell in self._cells(load)
            ]
            yield Panel(heading=heading, svg=charts.draw(spec), text=_sentence(heading, said))

    # -- validity, environment, rows

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
        facts = self.manifest.functions
        fields = [
            field
            for field in next(iter(facts.values())).__struct_fields__
            if field not in ("log_group", "function_name", "language")
        ]
        return Table(
            name="functions",
            caption="The functions as they were configured when the run began",
            columns=("setting", *facts),
            numeric=(False, *(False for _ in facts)),
            rows=[
                [field.replace("_", " "), *(_plain(getattr(function, field)) for function in facts.values())]
                for field in ("function_name", *fields)
            ],
            heads=1,
        )

    @property
    def surroundings(self) -> Table:
        manifest = self.manifest
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
            rows=[[what, _plain(value)] for what, value in facts.items()],
            heads=1,
        )

    @property
    def raw(self) -> Table:
        shown = self.all_rows[:ROWS_AT_MOST]
        every = f"All {len(shown):,} rows" if len(shown) == len(self.all_rows) else f"The first {len(shown):,} rows"
        return Table(
            name="raw",
            caption=f"{every} of {len(self.all_rows):,}, in the order of execution",
            columns=[name.replace("_", " ") for name in _RAW],
            numeric=[name not in _TEXT_COLUMNS for name in _RAW],
            rows=[[_plain(getattr(row, name)) for name in _RAW] for row in shown],
            heads=1,
        )

    def _loads(self, start: str) -> list[Load]:
        return [load for load in self.loads if load.start.value == start]

    def _cells(self, load: Load) -> list[Cell]:
        return [cell for cell in self.summary.cells if cell.label == load.label]

    def _valid(self, load: Load) -> Iterable[InvocationRow]:
        return (row for row in self.all_rows if row.valid and row.label == load.label)


_JOURNEY: Final = {"queue wait": "queue_wait_ms", "Init": "init_ms", "Duration": "duration_ms", "end to end": "end_to_end_ms"}


def _shaded(rows: Sequence[InvocationRow]) -> Iterator[dict[str, Any]]:
    """Every other block, from half a position before its first row to half a position after its last."""
    positions = enumerate(rows, start=1)
    for number, (_, group) in enumerate(groupby(positions, key=lambda pair: pair[1].block)):
        inside = [position for position, _ in group]
        if number % 2:
            yield {"begin": inside[0] - 0.5, "end": inside[-1] + 0.5}


def _sentence(heading: str, said: Sequence[str]) -> str:
    return f"{heading}: {'; '.join(said) or 'nothing was measured'}."


def _plain(value: object) -> str:
    match value:
        case None:
            return ABSENT
        case bool():
            return "yes" if value else "no"
        case Decimal():
            return f"{value:f}"
        case _:
            return str(value)
