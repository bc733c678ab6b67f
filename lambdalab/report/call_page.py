"""``report.html`` of a factorial run, made from summary, manifest and rows: no arithmetic."""

from collections.abc import Iterator, Sequence

from lambdalab.analysis.call_summary import FactorialSummary
from lambdalab.records.calls import CallRow
from lambdalab.records.manifest import CallManifest
from lambdalab.report import call_charts
from lambdalab.report.call_tables import (
    FactorialTables,
    estimated,
    factor,
    level,
    mean_in_words,
    measured,
    number,
    range_of,
    refusals,
    share,
    shares,
)
from lambdalab.report.drawing import Record, draw
from lambdalab.report.html import render_template
from lambdalab.report.panels import Panel
from lambdalab.report.tables import ROWS_AT_MOST, Table, drift_table, facts_table, functions_table, plain
from lambdalab.report.words import altered, p_value, quotient, usd
from lambdalab.statistics.effects import Effects, Term

_RAW = (
    "call_id", "block", "cell", "warmup", "cold_start", "elapsed_ms", "duration_ms", "billed_ms", "init_ms",
    "max_memory_mb", "cost_total_usd", "valid", "reason", "request_id",
)  # fmt: skip
_NUMBERS = {"block", "elapsed_ms", "duration_ms", "billed_ms", "init_ms", "max_memory_mb", "cost_total_usd"}


def render_page(summary: FactorialSummary, manifest: CallManifest, rows: Sequence[CallRow]) -> str:
    """Makes the page.

    Args:
        summary: every number.
        manifest: what was asked, and where it ran.
        rows: every call, valid or not, in the order they began.
    """
    return render_template(
        "factorial.html.j2",
        summary=summary,
        manifest=manifest,
        designs=[Chapter(summary, group.design) for group in summary.designs],
        tables=FactorialTables(summary),
        drift=drift_table(summary.drift),
        asked=_asked(manifest),
        functions=functions_table(manifest.functions),
        surroundings=facts_table(manifest),
        raw=_raw(rows),
        refusals=list(refusals(summary)),
        altered=list(altered(summary)),
        usd=usd,
    )


class Chapter:
    """What the page says of one design."""

    def __init__(self, summary: FactorialSummary, label: str) -> None:
        self.label = label
        self.effects = estimated(summary, label)
        self._tables = FactorialTables(summary)

    @property
    def sentences(self) -> Iterator[str]:
        """What each level of each factor does to the first response, the strongest factor first."""
        for one in self.effects[:1]:
            for term in sorted(one.mains, key=lambda term: -term.share):
                name, (first, *others) = term.factors[0], term.means
                changes = [
                    f"{factor(name)} {level(name, mean.levels[0])} instead of {level(name, first.levels[0])}: "
                    f"{quotient(mean.ratio)} times the {one.words} "
                    f"({quotient(mean.ratio_low)} - {quotient(mean.ratio_high)})"
                    for mean in others
                ]
                together = "," if len(others) == 1 else "; all levels together"
                change = f"{'; '.join(changes)}{together} {share(term.share)} of the variation"
                yield (change if term.is_claimed else f"{change}; not claimed, p is {p_value(term.p_adjusted)}")

    @property
    def mains(self) -> Iterator[Panel]:
        return map(_mains, self.effects)

    @property
    def explained(self) -> Iterator[Panel]:
        return map(_explained, self.effects)

    @property
    def interactions(self) -> Iterator[Panel]:
        """All pairs of factors for the first response."""
        return (_interaction(one, term) for one in self.effects[:1] for term in one.interactions)

    @property
    def tables(self) -> dict[str, Table]:
        found = {name: getattr(self._tables, name) for name in ("mains", "interactions", "explained", "cells", "costs")}
        return {name: of(self.label) for name, of in found.items()}


def _mains(of: Effects) -> Panel:
    records: list[Record] = [
        {
            "name": f"{factor(term.factors[0])} {level(term.factors[0], mean.levels[0])}",
            "arm": factor(term.factors[0]),
            "place": place,
            "mean": mean.mean,
            "low": mean.low,
            "high": mean.high,
        }
        for term in of.mains
        for place, mean in enumerate(term.means)
    ]
    factors = [factor(term.factors[0]) for term in of.mains]
    spec = call_charts.main_effects([record["name"] for record in records], factors, records, measured(of))
    said = [mean_in_words(term.factors[0], mean) for term in of.mains for mean in term.means]
    return Panel(heading=measured(of), svg=draw(spec), text=f"{measured(of)}: {'; '.join(said)}.")


def _explained(of: Effects) -> Panel:
    claimed = {" x ".join(map(factor, term.factors)): term.is_claimed for term in of.terms}
    records: list[Record] = [
        {"name": name, "share": part, "text": share(part), "claimed": claimed.get(name, False)}
        for name, part in shares(of)
    ]
    spec = call_charts.explained([record["name"] for record in records], records)
    said = [f"{record['name']} {record['text']}" for record in records]
    return Panel(heading=measured(of), svg=draw(spec), text=f"{measured(of)}, explained by: {'; '.join(said)}.")


def _interaction(of: Effects, term: Term) -> Panel:
    """The factor with more levels lies along the axis."""
    one, other = sorted(range(2), key=lambda i: -len({mean.levels[i] for mean in term.means}))
    along, lines = term.factors[one], term.factors[other]
    records: list[Record] = [
        {
            "level": level(along, mean.levels[one]),
            "arm": f"{factor(lines)} {level(lines, mean.levels[other])}",
            "mean": mean.mean,
            "low": mean.low,
            "high": mean.high,
        }
        for mean in term.means
    ]
    levels, others = (list(dict.fromkeys(record[key] for record in records)) for key in ("level", "arm"))
    spec = call_charts.interaction(levels, others, records, factor=factor(along), title=measured(of))
    said = [
        f"{factor(along)} {record['level']}, {record['arm']} {number(record['mean'])} "
        f"({range_of(record['low'], record['high'])})"
        for record in records
    ]
    heading = f"{factor(along)} x {factor(lines)}"
    return Panel(heading=heading, svg=draw(spec), text=f"{heading}, {measured(of)}: {'; '.join(said)}.")


def _asked(manifest: CallManifest) -> Table:
    return Table(
        name="asked",
        caption="What was asked: every combination of the levels, or a fraction of them, in each block",
        columns=("design", "factor or setting", "levels"),
        numeric=(False, False, False),
        rows=[
            row
            for design in manifest.protocol.designs
            for row in (
                *(
                    [design.label, factor(name), ", ".join(level(name, value) for value in levels)]
                    for name, levels in design.factors.items()
                ),
                *([design.label, name.replace("_", " "), str(value)] for name, value in design.settings.items()),
                [design.label, "cells", design.cells_in_words],
                [design.label, "calls of a cell in a block", f"{design.invocations:,}"],
            )
        ],
    )


def _raw(rows: Sequence[CallRow]) -> Table:
    shown = rows[:ROWS_AT_MOST]
    every = f"All {len(shown):,} calls" if len(shown) == len(rows) else f"The first {len(shown):,} calls"
    return Table(
        name="raw",
        caption=f"{every} of {len(rows):,}, in the order they began",
        columns=[name.replace("_", " ") for name in _RAW],
        numeric=[name in _NUMBERS for name in _RAW],
        rows=[[plain(getattr(row, name)) for name in _RAW] for row in shown],
        heads=1,
    )
