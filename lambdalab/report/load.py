"""The chapter on a load run, on the page and in the terminal: its books, where it kept up, how long messages took."""

from collections.abc import Iterator
from typing import Final

from rich import box
from rich import table as rich
from rich.console import RenderableType
from rich.text import Text

from lambdalab.analysis.books import ALL, Flow
from lambdalab.analysis.message_analysis import Books
from lambdalab.report import charts
from lambdalab.report.drawing import Record, draw
from lambdalab.report.panels import Panel
from lambdalab.report.tables import Table
from lambdalab.report.words import ABSENT, interval, ms

WAYS: Final = {"queue wait": "queue_wait_ms", "Duration": "duration_ms", "end to end": "end_to_end_ms"}
"""What a message spends its time with, as people and as books call it."""
_LATE: Final = ("p95", "p99", "maximum")


class LoadChapter:
    """What is said of a load run, in text, figures and tables."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.arms = list(books.knees)
        self.phases = list(dict.fromkeys(curve.label for curve in books.curves))

    @property
    def sentences(self) -> Iterator[str]:
        """The books, the drain, the knees and the limit."""
        whole = self.books.whole
        counted = "not counted" if whole.items_found is None else f"{whole.items_found:,}"
        yield (
            f"Sent {whole.sent:,} = processed {whole.processed:,} + dead-lettered {whole.dead_lettered:,} + still "
            f"queued {whole.still_queued:,} + lost {whole.lost:,}; items of the processed messages in the tables: "
            f"{counted} of {whole.items_expected:,}; {whole.duplicates:,} duplicates."
        )
        yield (
            "The queues were not empty when the wait for them ended."
            if self.books.drain_s is None
            else f"The queues were empty {self.books.drain_s:,.1f} s after the last message was sent."
        )
        for arm in self.arms:
            yield self._kept_up(arm)
        yield self.books.limit.sentence
        for name, share in (("emulator", self.books.emulator_busy), ("plane", self.books.plane_busy)):
            if share is not None and not any(f"the {name} had work" in why for why in self.books.bound):
                yield f"The {name} had work for at most {share:.0%} of a step."

    @property
    def steps(self) -> Iterator[Panel]:
        """Offered and achieved rates over the backlog, of all arms and of each."""
        most = max(flow.backlog for flow in self.books.flows)
        for arm in self.arms:
            flows = self.books.steps(arm)
            names = [_step(flow) for flow in flows]
            rates: list[Record] = [
                {"step": _step(flow), "what": what, "value": value}
                for flow in flows
                for what, value in (("offered", flow.offered_per_s), ("achieved", flow.achieved_per_s))
                if value is not None
            ]
            backlogs: list[Record] = [{"step": _step(f), "what": "backlog", "value": f.backlog} for f in flows]
            knee = next((_step(flow) for flow in flows if flow.step == self.books.knees[arm]), None)
            heading = f"Offered, achieved and backlog, {_of(arm)}"
            said = [
                f"step {_step(flow)} offered {_rate(flow.offered_per_s)}/s, achieved {_rate(flow.achieved_per_s)}/s, "
                f"backlog {flow.backlog:,}"
                for flow in flows
            ]
            text = f"{heading}: {'; '.join(said)}. {self._kept_up(arm)}"
            yield Panel(heading=heading, svg=draw(charts.steps(names, rates, backlogs, knee, most)), text=text)

    @property
    def distributions(self) -> Iterator[Panel]:
        """Each way's times, the phases apart."""
        for what, metric in WAYS.items():
            curves = [curve for curve in self.books.curves if curve.metric == metric]
            points: list[Record] = [
                {"arm": curve.label, "value": value, "share": share}
                for curve in curves
                for share, value in zip(curve.shares, curve.values_ms, strict=True)
            ]
            said = [f"{curve.label} {curve.n:,} values" for curve in curves]
            text = f"{what} in ms: {'; '.join(said) or 'nothing was measured'}."
            spec = charts.curves(self.phases, points, "ms")
            yield Panel(heading=f"{what}, by phase", svg=draw(spec), text=text)

    @property
    def books_table(self) -> Table:
        flows = [flow for flow in self.books.flows if flow.step is None or flow.arm == ALL]
        return Table(
            name="books",
            caption="Books: every message sent is in exactly one of four places",
            columns=(
                *("arm", "step", "sent", "processed", "dead-lettered", "still queued", "lost"),
                *("given up", "duplicates", "items", "asked", "balance"),
            ),
            numeric=(False, False, *(True for _ in range(9)), False),
            rows=[
                [
                    flow.arm,
                    _step(flow),
                    *(f"{count:,}" for count in (flow.sent, flow.processed, flow.dead_lettered, flow.still_queued)),
                    *(f"{count:,}" for count in (flow.lost, flow.given_up, flow.duplicates)),
                    ABSENT if flow.items_found is None else f"{flow.items_found:,}",
                    f"{flow.items_expected:,}",
                    "yes" if flow.balances else "no",
                ]
                for flow in flows
            ],
        )

    @property
    def rates_table(self) -> Table:
        return Table(
            name="rates",
            caption="Messages a second, and how many waited when the step ended",
            columns=("arm", "step", "seconds", "offered", "sent", "achieved", "backlog", "keeps up"),
            numeric=(False, False, *(True for _ in range(5)), False),
            rows=[
                [
                    flow.arm,
                    _step(flow),
                    f"{flow.seconds:,.1f}",
                    *map(_rate, (flow.offered_per_s, flow.sent_per_s, flow.achieved_per_s)),
                    f"{flow.backlog:,}",
                    {None: ABSENT, True: "yes", False: "no"}[flow.keeps_up],
                ]
                for arm in self.arms
                for flow in self.books.steps(arm)
            ],
        )

    @property
    def times_table(self) -> Table:
        return Table(
            name="ways",
            caption="Times in ms by phase: median, its 95 % interval, 95th and 99th percentile, longest",
            columns=("phase", "arm", "of", "n", "median", "interval", "p95", "p99", "max"),
            numeric=(False, False, False, *(True for _ in range(6))),
            rows=[
                [
                    times.phase,
                    times.arm,
                    what,
                    f"{found.n:,}",
                    ms(found.median),
                    interval(found),
                    *(ms(getattr(found, end)) for end in _LATE),
                ]
                for times in self.books.times
                for what, metric in WAYS.items()
                if (found := getattr(times, metric)) is not None
            ],
            heads=3,
        )

    def _kept_up(self, arm: str) -> str:
        flows = self.books.steps(arm)
        knee = self.books.knees[arm]
        if knee is None:
            known = all(flow.keeps_up is not None for flow in flows)
            return f"{_of(arm).capitalize()}: {'every step kept up.' if known else 'whether it kept up is not known.'}"
        above = next(flow for flow in flows if flow.step == knee)
        return (
            f"{_of(arm).capitalize()}: step {knee} is above the knee: {_rate(above.offered_per_s)}/s were offered, "
            f"{_rate(above.achieved_per_s)}/s achieved, and {above.backlog:,} messages waited when it ended."
        )


def render_load(books: Books) -> Iterator[RenderableType]:
    """The chapter for a terminal."""
    chapter = LoadChapter(books)
    for sentence in chapter.sentences:
        yield Text(sentence)
    yield Text()
    for table in (chapter.books_table, chapter.rates_table, chapter.times_table):
        shown = rich.Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
        for column, numeric in zip(table.columns, table.numeric, strict=True):
            shown.add_column(column, justify="right" if numeric else "left", no_wrap=True)
        for row in table.rows:
            shown.add_row(*row)
        yield Text(table.caption, style="bold")
        yield shown
        yield Text()


def _of(arm: str) -> str:
    return "all arms" if arm == ALL else arm


def _step(flow: Flow) -> str:
    return "all" if flow.step is None else str(flow.step)


def _rate(value: float | None) -> str:
    """Messages a second, two decimals."""
    return ABSENT if value is None else f"{value:,.2f}"
