"""The report's figures: which records of summary and rows are drawn, and what they show in words."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec

from lambdalab.analysis.figures import POINTS_AT_MOST, STEPS
from lambdalab.analysis.message_analysis import Cell, Summary
from lambdalab.design.arms import Load, Start
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trials import InvocationRow
from lambdalab.report import charts
from lambdalab.report.drawing import Record, draw
from lambdalab.report.words import JOURNEY, MARKS, METRICS, PER_EXECUTION, interval, median, ms, quotient, usd


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """A figure: its heading, its drawing, and in words what the drawing shows."""

    heading: str
    svg: str
    text: str


class Panels:
    """The figures of a run, section by section."""

    points_at_most = POINTS_AT_MOST
    steps = STEPS

    def __init__(self, summary: Summary, manifest: MessageManifest, rows: Sequence[InvocationRow]) -> None:
        self.summary = summary
        self.rows = rows
        self.arms = [arm.name for arm in manifest.protocol.arms]
        self.loads = manifest.protocol.loads
        self._thinned = {curve.label for curve in summary.figures.curves}

    @property
    def thinned(self) -> bool:
        """Whether there are loads whose samples are too many to be drawn one by one."""
        return bool(self._thinned)

    @property
    def pointed(self) -> bool:
        """Whether there are loads whose samples are drawn one by one."""
        return any(load.label not in self._thinned for load in self.loads)

    @property
    def comparisons(self) -> Iterator[Panel]:
        """One for each pair of arms under each load."""
        for (label, arm, over), group in groupby(
            self.summary.comparisons, key=lambda one: (one.label, one.arm, one.over)
        ):
            compared = list(group)
            records: list[Record] = [
                {
                    "name": METRICS[one.metric],
                    "ratio": one.ratio,
                    "low": one.low,
                    "high": one.high,
                    "mark": MARKS[one.verdict],
                }
                for one in compared
                if one.ratio
            ]
            if not records:
                continue
            heading = f"{arm} / {over}, {label}"
            said = [
                f"{METRICS[one.metric]} {one.verdict}, {quotient(one.ratio)}"
                f"{'' if one.low is None else f', interval {quotient(one.low)} - {quotient(one.high)}'}"
                for one in compared
            ]
            spec = charts.ratios(records, compared[0].margin, f"{arm} / {over}, log scale")
            yield Panel(heading=heading, svg=draw(spec), text=_sentence(heading, said))

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
            bars = [
                {"arm": arm, "median": e.median, "low": e.low, "high": e.high, "q1": e.q1, "q3": e.q3}
                for arm, e in estimates
            ]
            spec = charts.samples(self.arms, points, bars, "ms")
        return Panel(heading=heading, svg=draw(spec), text=_sentence(heading, said))

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
                for metric, field in JOURNEY.items()
                if (found := getattr(cell, field)) is not None
            ]
            metrics = list(dict.fromkeys(record["metric"] for record in records))
            said = [f"{r['arm']} {r['metric']} median {ms(r['median'])} ms" for r in records]
            spec = charts.estimates(self.arms, metrics, records, "ms")
            heading = f"From send to commit, {load.label}"
            yield Panel(heading=heading, svg=draw(spec), text=_sentence(heading, said))

    @property
    def costs(self) -> Iterator[Panel]:
        bill = self.summary.bill
        for load in self.loads:
            records: list[Record] = [
                {"arm": cell.arm, "part": part, "position": position, "value": amount}
                for cell in (() if bill is None else bill.cells)
                if cell.label == load.label and cell.million_items is not None
                for position, (part, field) in enumerate(PER_EXECUTION.items())
                if (amount := getattr(cell.million_items, field)) is not None
            ]
            if records:
                heading = f"Cost of a million items, {load.label}"
                said = [f"{record['arm']} {record['part']} {usd(record['value'])} USD" for record in records]
                spec = charts.stack(self.arms, list(PER_EXECUTION), records, "USD per million items")
                yield Panel(heading=heading, svg=draw(spec), text=_sentence(heading, said))

    @property
    def fronts(self) -> Iterator[Panel]:
        for frontier in self.summary.frontiers:
            records: list[Record] = [
                {
                    "arm": point.arm.name,
                    "on_front": point.on_front,
                    "ms": point.duration_ms.median,
                    "ms_low": point.duration_ms.low,
                    "ms_high": point.duration_ms.high,
                    "usd": point.usd_per_million.median,
                    "usd_low": point.usd_per_million.low,
                    "usd_high": point.usd_per_million.high,
                }
                for point in frontier.points
            ]
            heading = f"Cost against latency, {frontier.label}"
            said = [
                f"{point.arm.name} {ms(point.duration_ms.median)} ms, {point.usd_per_million.median:,.2f} USD"
                f"{', on the front' if point.on_front else ''}"
                for point in frontier.points
            ]
            spec = charts.front([record["arm"] for record in records], records)
            yield Panel(heading=heading, svg=draw(spec), text=_sentence(heading, said))

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
                executed = [row for row in self.rows if row.label == load.label]
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
            yield Panel(heading=heading, svg=draw(spec), text=_sentence(heading, said))

    def _loads(self, start: str) -> list[Load]:
        return [load for load in self.loads if load.start.value == start]

    def _cells(self, load: Load) -> list[Cell]:
        return [cell for cell in self.summary.cells if cell.label == load.label]

    def _valid(self, load: Load) -> Iterable[InvocationRow]:
        return (row for row in self.rows if row.valid and row.label == load.label)


def _shaded(rows: Sequence[InvocationRow]) -> Iterator[dict[str, Any]]:
    """Every other block, from half a position before its first row to half a position after its last."""
    positions = enumerate(rows, start=1)
    for number, (_, group) in enumerate(groupby(positions, key=lambda pair: pair[1].block)):
        inside = [position for position, _ in group]
        if number % 2:
            yield {"begin": inside[0] - 0.5, "end": inside[-1] + 0.5}


def _sentence(heading: str, said: Sequence[str]) -> str:
    return f"{heading}: {'; '.join(said) or 'nothing was measured'}."
