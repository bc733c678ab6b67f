"""The tables of a factorial run, as terminal and page show them: numbers of the summary, no arithmetic."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from lambdalab.analysis.call_summary import FactorialSummary, Group, Words
from lambdalab.design.cells import RESERVED_CONCURRENCY, Level
from lambdalab.records.trials import Estimate
from lambdalab.report.tables import Table
from lambdalab.report.words import ABSENT, cents, p_value, quotient, usd
from lambdalab.statistics.effects import Effects, Mean, Term

_SAID: Final = ("", "", "")
"""Of further levels of a term, which is tested as a whole, and said with the first."""
_MB: Final = "_mb"


def number(value: float | None) -> str:
    """Four significant digits, thousands apart."""
    if value is None:
        return ABSENT
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#,.4g}".rstrip(".") if value else "0"


def amount(value: float) -> str:
    """A sum, whole where it is."""
    return f"{value:,.0f}" if value == int(value) else number(value)


def share(value: float | None) -> str:
    """As a percentage."""
    return ABSENT if value is None else f"{value:.1%}"


def range_of(low: float | None, high: float | None) -> str:
    """Both ends of an interval of a measure."""
    return "none" if low is None or high is None else f"{number(low)} - {number(high)}"


def percentile(value: float | None, more: int) -> str:
    """Or how many samples are missing for it."""
    return f"too few samples ({more:,} more)" if value is None else number(value)


def factor(name: str) -> str:
    """A factor as people call it."""
    return name.removesuffix(_MB).replace("_", " ")


def level(name: str, value: Level) -> str:
    """A level with its unit; 0 of a reserved concurrency is none."""
    if name == RESERVED_CONCURRENCY and value == 0:
        return "none"
    return f"{value} MB" if name.endswith(_MB) else str(value)


def measured(one: Effects | Words) -> str:
    """What a measure is, with its unit."""
    return f"{one.words}, {one.unit}"


def estimated(summary: FactorialSummary, design: str) -> list[Effects]:
    """The responses of a design whose effects could be estimated."""
    return [one for one in summary.effects if one.design == design and one.refused is None]


def refusals(summary: FactorialSummary) -> Iterator[str]:
    """Why there are no effects of some responses; a reason is said once."""
    why: dict[tuple[str, str], list[str]] = {}
    for one in summary.effects:
        if one.refused is not None:
            why.setdefault((one.design, one.refused), []).append(measured(one))
    for (design, reason), names in why.items():
        every = all(one.refused == reason for one in summary.effects if one.design == design)
        of = "" if every else f" on {'; '.join(names)}"
        yield f"{design}: no effects{of}: {reason}"


class FactorialTables:
    """The tables, section by section."""

    def __init__(self, summary: FactorialSummary) -> None:
        self.summary = summary

    @property
    def totals(self) -> Table:
        volumes = self.summary.volumes
        return Table(
            name="totals",
            caption="Calls, and what the valid ones wrote",
            columns=("design", "calls", "valid", "failed", "throttled", *(volume.unit for volume in volumes)),
            numeric=(False, *(True for _ in range(4 + len(volumes)))),
            rows=[
                [
                    group.design,
                    *(f"{count:,}" for count in (group.calls, group.valid, group.failed, group.throttled)),
                    *(amount(group.sums.get(volume.measure, 0) / volume.unit_divisor) for volume in volumes),
                ]
                for group in self.summary.designs
            ],
            heads=1,
        )

    def mains(self, design: str) -> Table:
        """What each factor changes, of every response."""
        return Table(
            name=f"mains-{design}",
            caption=f"{design}: what each factor changes, all else equal; ratios to its first level",
            columns=("of", "factor", "level", "mean", "ratio", "95 % interval", "explains", "p (Holm)", "claimed"),
            numeric=(False, False, False, True, True, True, True, True, False),
            rows=[
                [
                    measured(one),
                    factor(term.factors[0]),
                    f"{level(term.factors[0], mean.levels[0])} / {level(term.factors[0], term.means[0].levels[0])}",
                    number(mean.mean),
                    quotient(mean.ratio),
                    _interval(mean.ratio_low, mean.ratio_high),
                    *(_tested(term) if place == 0 else _SAID),
                ]
                for one in estimated(self.summary, design)
                for term in one.mains
                for place, mean in enumerate(term.means[1:])
            ],
            heads=3,
        )

    def interactions(self, design: str, *, only_claimed: bool = False) -> Table:
        """How far two factors together are from each alone, of every response."""
        return Table(
            name=f"interactions-{design}",
            caption=f"{design}: what two factors do together beyond what each does; 1 is nothing",
            columns=("of", "factors", "levels", "ratio", "95 % interval", "explains", "p (Holm)", "claimed"),
            numeric=(False, False, False, True, True, True, True, False),
            rows=[
                [
                    measured(one),
                    " x ".join(map(factor, term.factors)),
                    " and ".join(map(level, term.factors, contrast.levels)),
                    quotient(contrast.ratio),
                    _interval(contrast.low, contrast.high),
                    *(_tested(term) if place == 0 else _SAID),
                ]
                for one in estimated(self.summary, design)
                for term in one.interactions
                if term.is_claimed or not only_claimed
                for place, contrast in enumerate(term.contrasts)
            ],
            heads=3,
        )

    def explained(self, design: str) -> Table:
        """Where the variation is from, of every response."""
        found = estimated(self.summary, design)
        names = list(dict.fromkeys(name for one in found for name, _ in shares(one)))
        return Table(
            name=f"explained-{design}",
            caption=f"{design}: shares of the variation of logarithms between cells and blocks (eta squared)",
            columns=("of", *names, "unexplained spread"),
            numeric=(False, *(True for _ in names), True),
            rows=[
                [
                    measured(one),
                    *(share(dict(shares(one)).get(name)) for name in names),
                    ABSENT if one.spread is None else f"x {one.spread:.3f}",
                ]
                for one in found
            ],
            heads=1,
        )

    def cells(self, design: str) -> Table:
        """Every cell: the first response, and what it did by the second."""
        summary = self.summary
        response = summary.responses[0]
        groups = [cell for cell in summary.cells if cell.design == design]
        factors = list(groups[0].levels)
        return Table(
            name=f"cells-{design}",
            caption=f"{design}: {measured(response)} of warm calls; throughput: medians over blocks",
            columns=(
                *map(factor, factors), "valid", "median", f"{summary.level:.0%} interval", "p95", "p99",
                *(rate.unit for rate in summary.rates), "peak MB",
            ),
            numeric=(*(False for _ in factors), *(True for _ in range(6 + len(summary.rates)))),
            rows=[
                [
                    *(level(name, cell.levels[name]) for name in factors),
                    f"{cell.valid}/{cell.calls}",
                    *_estimate(cell.responses.get(response.measure)),
                    *(number(None if found is None else found.median) for found in _rates(summary, cell)),
                    ABSENT if cell.max_memory_mb is None else str(cell.max_memory_mb),
                ]
                for cell in groups
            ],
            heads=len(factors),
        )  # fmt: skip

    @property
    def functions(self) -> Table:
        summary = self.summary
        response = summary.responses[0]
        return Table(
            name="by-function",
            caption=f"Functions over all their cells: {measured(response)} of warm calls",
            columns=(
                "design", "levels", "function", "calls", "failed", "throttled",
                "average", "median", f"{summary.level:.0%} interval", "p95", "p99",
            ),
            numeric=(False, False, False, *(True for _ in range(8))),
            rows=[
                [
                    group.design,
                    named(group),
                    group.function_name or ABSENT,
                    *(f"{count:,}" for count in (group.calls, group.failed, group.throttled)),
                    number(group.means.get(response.measure)),
                    *_estimate(group.responses.get(response.measure)),
                ]
                for group in summary.functions
            ],
        )  # fmt: skip

    @property
    def cold(self) -> Table:
        """Cold starts, those of warm-ups among them."""
        return Table(
            name="cold",
            caption="Cold starts, warm-up calls among them: medians in ms with their intervals",
            columns=("design", "levels", "cold starts", "Init", "interval", "Init + first", "interval"),
            numeric=(False, False, *(True for _ in range(5))),
            rows=[
                [
                    group.design,
                    named(group),
                    f"{group.cold:,}",
                    *_median(group.init_ms),
                    *_median(group.init_and_first_ms),
                ]
                for group in self.summary.functions
            ],
        )

    def costs(self, design: str) -> Table:
        """What a call of each cell costs, and what its volumes."""
        groups = [cell for cell in self.summary.cells if cell.design == design]
        factors = list(groups[0].levels)
        parts = list(dict.fromkeys(part for cell in groups for part in cell.million_usd))
        volumes = [v for v in self.summary.volumes if any(cell.usd_per_volume.get(v.measure) for cell in groups)]
        return Table(
            name=f"costs-{design}",
            caption=f"{design}: USD of a million calls, by component: means of the valid ones; and per volume",
            columns=(*map(factor, factors), *parts, "sum", *(f"per {volume.words}" for volume in volumes)),
            numeric=(*(False for _ in factors), *(True for _ in range(len(parts) + 1 + len(volumes)))),
            rows=[
                [
                    *(level(name, cell.levels[name]) for name in factors),
                    *(usd(cell.million_usd.get(part)) for part in parts),
                    usd(cell.million_total_usd),
                    *(usd(cell.usd_per_volume.get(volume.measure)) for volume in volumes),
                ]
                for cell in groups
            ],
            heads=len(factors),
        )

    @property
    def month(self) -> Table | None:
        """What each cell costs in a month; None when no rate was given."""
        bill = self.summary.month
        if bill is None:
            return None
        parts = list(dict.fromkeys(part for cell in bill.cells for part in cell.usd))
        return Table(
            name="month",
            caption=f"USD a month at {bill.terms.per_month} calls/s, by component",
            columns=("cell", *parts, "sum"),
            numeric=(False, *(True for _ in parts), True),
            rows=[
                [cell.cell, *(cents(cell.usd.get(part)) for part in parts), cents(cell.total_usd)]
                for cell in bill.cells
            ],
            heads=1,
        )

    @property
    def reasons(self) -> Table:
        return Table(
            name="reasons",
            caption="Why calls are not valid",
            columns=("reason", "calls"),
            numeric=(False, True),
            rows=[[reason, f"{count:,}"] for reason, count in self.summary.invalid_reasons.items()],
            heads=1,
        )

    @property
    def order(self) -> Table:
        return Table(
            name="order",
            caption="Cells in the order they were measured",
            columns=("block", "place", "cell"),
            numeric=(True, True, False),
            rows=[
                [str(block.block), str(place), cell]
                for block in self.summary.order
                for place, cell in enumerate(block.cells, start=1)
            ],
        )


def named(group: Group) -> str:
    """Its levels in words."""
    return ", ".join(f"{factor(name)} {level(name, value)}" for name, value in group.levels.items()) or "all"


def shares(of: Effects) -> Iterator[tuple[str, float]]:
    """What explains which share of the variation, the largest that factors have last: blocks and the rest."""
    yield from ((" x ".join(map(factor, term.factors)), term.share) for term in of.terms)
    if of.higher_share:
        yield "other interactions" if of.aliased else "more than two", of.higher_share
    yield "blocks", of.block_share or 0
    yield "what remains", of.residual_share or 0


def mean_in_words(name: str, mean: Mean) -> str:
    """A level and its mean with its interval."""
    return f"{factor(name)} {level(name, mean.levels[0])} {number(mean.mean)} ({range_of(mean.low, mean.high)})"


def _tested(term: Term) -> Sequence[str]:
    return share(term.share), p_value(term.p_adjusted), "yes" if term.is_claimed else "no"


def _interval(low: float | None, high: float | None) -> str:
    return "none" if low is None else f"{quotient(low)} - {quotient(high)}"


def _estimate(found: Estimate | None) -> Sequence[str]:
    if found is None:
        return [ABSENT] * 4
    return (
        number(found.median),
        range_of(found.low, found.high),
        percentile(found.p95, found.p95_more),
        percentile(found.p99, found.p99_more),
    )


def _median(found: Estimate | None) -> Sequence[str]:
    return [ABSENT] * 2 if found is None else (number(found.median), range_of(found.low, found.high))


def _rates(summary: FactorialSummary, cell: Group) -> Iterable[Estimate | None]:
    return (cell.rates.get(rate.measure) for rate in summary.rates)
