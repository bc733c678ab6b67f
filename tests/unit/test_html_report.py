"""The page: whole without a network, sound in structure, escaped, and without a number of its own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import msgspec
import pytest
from sample_page import HOSTILE, HOSTILE_LOAD, make_page, make_run
from samples import LOADS, NUMBER, ROOT, make_manifest, values_in
from test_figures import large

from lambdalab.analysis.bill import Terms
from lambdalab.analysis.frontier import frontiers
from lambdalab.analysis.message_analysis import Summary, summarise
from lambdalab.design.arms import Factors, Stop
from lambdalab.report.answer import NO_LAMBDA_INIT, answer_lines, money, time
from lambdalab.report.drawing import ARM_COLOURS
from lambdalab.report.html import render_html
from lambdalab.report.tables import ROWS_AT_MOST
from lambdalab.report.words import MARKS, PER_EXECUTION, cents, ms, p_value, quotient, units, usd
from lambdalab.statistics.comparison import Metric, Verdict

VOID = {"meta", "link", "br"}
STYLE = (ROOT / "lambdalab/report/templates/report.css").read_text()


class Element:
    def __init__(self, tag: str, attributes: dict[str, str | None], parent: "Element | None") -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Element | str] = []

    def __iter__(self) -> Iterator["Element"]:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child

    def all(self, *tags: str) -> list["Element"]:
        return [element for element in self if element.tag in tags]

    def one(self, name: str) -> "Element":
        (found,) = [element for element in self if element.attributes.get("id") == name]
        return found

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def texts(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield from child.texts

    @property
    def texts_outside_drawings(self) -> Iterator[str]:
        """Without the ticks of axes, which Vega chooses."""
        for child in self.children:
            if isinstance(child, str):
                yield child
            elif child.tag != "svg":
                yield from child.texts_outside_drawings


class Tree(HTMLParser):
    """Strict: every element that is opened is closed, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.root = self._at = Element("", {}, None)
        self.feed(page)
        self.close()
        assert self._at is self.root, f"{self._at.tag} is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), self._at)
        self._at.children.append(element)
        if tag not in VOID:
            self._at = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._at.children.append(Element(tag, dict(attrs), self._at))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self._at.tag, f"</{tag}> ends <{self._at.tag}>"
        assert self._at.parent is not None
        self._at = self._at.parent

    def handle_data(self, data: str) -> None:
        self._at.children.append(data)


@pytest.fixture(scope="module")
def page() -> str:
    return make_page()


@pytest.fixture(scope="module")
def tree(page: str) -> Element:
    return Tree(page).root


def table(tree: Element, name: str) -> list[list[str]]:
    """The texts of a table's body."""
    caption = tree.one(f"{name}-caption")
    assert caption.parent is not None
    (body,) = caption.parent.all("tbody")
    return [[cell.text for cell in row.all("th", "td")] for row in body.all("tr")]


def test_the_page_refers_to_nothing_outside_its_run_directory(page: str, tree: Element) -> None:
    targets = {str(e.attributes[a]) for e in tree for a in ("src", "href", "xlink:href", "data") if a in e.attributes}
    outside = {target for target in targets if not target.startswith("#")}
    assert outside == {"metrics.csv", "metrics.parquet", "summary.json", "trials.jsonl", "platform.jsonl", "run.json"}
    assert "url(" not in page
    assert "@import" not in page


def test_headings_and_landmarks(tree: Element) -> None:
    levels = [int(element.tag[1]) for element in tree.all("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert all(two <= one + 1 for one, two in pairwise(levels))
    assert [len(tree.all(tag)) for tag in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]
    assert tree.all("html")[0].attributes["lang"] == "en"
    for section in tree.all("section"):
        assert tree.one(str(section.attributes["aria-labelledby"])).tag == "h2"
    for link in tree.all("nav")[0].all("a"):
        tree.one(str(link.attributes["href"])[1:])
    names = [element.attributes["id"] for element in tree if "id" in element.attributes]
    assert len(names) == len(set(names))


def test_every_table_has_a_caption_and_headings_for_rows_and_columns(tree: Element) -> None:
    assert len(tree.all("table")) >= 8
    for found in tree.all("table"):
        assert found.all("caption")[0].text
        assert all(th.attributes.get("scope") in ("row", "col") for th in found.all("th"))
        widths = {len(row.all("th", "td")) for row in found.all("tr")}
        assert len(widths) == 1
        assert all(row.all("th") for row in found.all("tbody")[0].all("tr"))


def test_every_figure_is_told_in_words_and_is_sound_xml(page: str, tree: Element) -> None:
    figures = tree.all("figure")
    # 2 warm loads; init and with the first invocation; 3 each of ratios, times, cost and order
    assert len(figures) == 2 + 2 + 4 * 3
    for figure in figures:
        assert figure.all("figcaption")[0].text
        (drawing,) = [e for e in figure if e.attributes.get("role") == "img"]
        assert re.search(r"\d", str(drawing.attributes["aria-label"]))
        assert drawing.all("svg")
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == len(figures)
    for drawing_text in drawings:
        ElementTree.fromstring(drawing_text)  # noqa: S314 - made here


def test_what_others_wrote_stays_text(page: str, tree: Element) -> None:
    assert "<b onclick" not in page
    assert [script.text for script in tree.all("script")] == [
        (ROOT / "lambdalab/report/templates/report.js").read_text()
    ]
    captions = [caption.text for caption in tree.all("figcaption")]
    assert f"Duration, {HOSTILE}" in captions
    assert HOSTILE in [cell for row in table(tree, "durations") for cell in row]


def numbers_in(summary: Summary) -> Iterator[str]:
    """Every number of a summary, in each way the page may write it."""
    for value in values_in(summary):
        if isinstance(value, str):
            yield from NUMBER.findall(value)
            with suppress(InvalidOperation):
                amount = Decimal(value)
                yield from (usd(amount), ms(amount), cents(amount), units(amount))
        else:
            yield from (f"{value:,}", ms(value), quotient(value), f"{value:,g}", p_value(value), f"{abs(value):.2f}")
            yield from (f"{value:{digits}%}".rstrip("%") for digits in (".0", ".1"))
            yield from (time(value).split()[0], money(value), f"{value:.1f}")


def test_every_number_of_results_is_in_summary_json(tree: Element) -> None:
    summary, _, _ = make_run()
    known = {*numbers_in(summary), *NUMBER.findall(NO_LAMBDA_INIT)}
    estimates = [cell.duration_ms for cell in summary.cells if cell.duration_ms is not None]
    known |= {f"{found.relative_width:.1%}".rstrip("%") for found in estimates if found.relative_width is not None}
    drawn = [str(e.attributes["aria-label"]) for e in tree if e.attributes.get("role") == "img"]
    written = [
        text
        for name in ("result", "comparison", "cold", "journey", "cost", "order", "validity")
        for text in tree.one(name).texts_outside_drawings
    ]
    written += [cell for row in table(tree, "precision") for cell in row]
    shown = [number for text in (*written, *drawn) for number in NUMBER.findall(text)]
    assert len(shown) > 250
    assert set(shown) - known == set()
    assert "4,321.0" not in known


def test_the_answer_comes_first_and_every_comparison_has_word_and_mark(tree: Element) -> None:
    summary, _, _ = make_run()
    told = [(e.all("dt")[0].text, e.all("dd")[0].text) for e in tree.one("result").all("div") if e.all("dt")]
    assert told == list(answer_lines(summary))
    assert [about for about, _ in told][:2] == ["Warm work", "First invocation"]
    shown = table(tree, "comparisons")
    assert [row[2] for row in shown] == [f"{MARKS[one.verdict]} {one.verdict}" for one in summary.comparisons]
    assert [row[0] for row in shown] == [one.label for one in summary.comparisons]
    assert {row[2] for row in shown} == {"▲ slower", "▲ more expensive", "■ no change", "· not judged"}
    assert MARKS.keys() == set(Verdict)
    (duration,) = [one for one in summary.comparisons if (one.label, one.metric) == ("SMALL", Metric.DURATION)]
    assert duration.ratio == pytest.approx(4, abs=1e-3)
    assert shown[5][3:5] == ["4.000", f"{quotient(duration.low)} - {quotient(duration.high)}"]


def test_a_difference_is_claimed_by_word_and_mark() -> None:
    tree = Tree(render_html(*make_run(14, loads=LOADS))).root
    assert {row[2] for row in table(tree, "comparisons")} == {"▲ slower", "■ no change", "· not judged"}
    (first, _) = [e for e in tree.one("comparison") if e.attributes.get("role") == "img"]
    assert "Init slower, 40.000, interval 40.000 - 40.000" in str(first.attributes["aria-label"])


def test_several_pairs_are_told_apart() -> None:
    tree = Tree(
        render_html(*make_run(2, loads=LOADS, factors=Factors(language=("python", "go"), memory_mb=(128, 256))))
    ).root
    assert {row[1] for row in table(tree, "comparisons")} == {
        "python-128MB / go-128MB",
        "python-256MB / go-256MB",
    }


def test_every_ratio_is_drawn_with_its_interval_and_the_margin(tree: Element) -> None:
    summary, _, _ = make_run()
    for drawing, label in zip(tree.one("comparison").all("svg"), ("WARMUP", "SMALL", HOSTILE), strict=True):
        compared = [one for one in summary.comparisons if one.label == label]
        marks = {
            kind: [e for e in drawing if f"mark-{kind} role-mark" in _class(e)] for kind in ("symbol", "rule", "rect")
        }
        assert len(marks["symbol"][0].all("path")) == len(compared)
        no_difference, intervals = marks["rule"]
        assert len(no_difference.all("line")) == 1
        assert len(intervals.all("line")) == len(compared)
        (margin,) = marks["rect"][0].all("path")
        begin, width = re.match(r"M([\d.]+),[\d.]+h([\d.]+)", str(margin.attributes["d"])).groups()  # type: ignore[union-attr]
        (one,) = re.findall(r"translate\(([\d.]+)", str(no_difference.all("line")[0].attributes["transform"]))
        assert float(begin) < float(one) < float(begin) + float(width)


def test_drift_is_told_of_every_cell(tree: Element) -> None:
    summary, _, _ = make_run()
    assert [row[0] for row in table(tree, "drift")] == [f"{cell.arm} {cell.label}" for cell in summary.cells]
    assert [row[2] for row in table(tree, "drift")] == [quotient(drift.halves) for drift in summary.drift]


def test_a_sweep_shows_cost_against_latency_with_the_front() -> None:
    factors = Factors(language=("python", "go"), memory_mb=(128, 256))
    summary, manifest, rows = make_run(6, loads=LOADS, factors=factors)
    swept = msgspec.structs.replace(summary, frontiers=frontiers(manifest.protocol, rows))
    tree = Tree(render_html(swept, manifest, rows)).root
    points = [point for frontier in swept.frontiers for point in frontier.points]
    assert len(points) == 8
    assert [row[-1] for row in table(tree, "front")] == ["yes" if point.on_front else "no" for point in points]
    drawings = [e for e in tree.one("front") if e.attributes.get("role") == "img"]
    for drawing, frontier in zip(drawings, swept.frontiers, strict=True):
        marks = [e for e in drawing if "mark-symbol role-mark" in _class(e)]
        assert sum(len(e.all("path")) for e in marks) == 4
        on_front = [point.arm.name for point in frontier.points if point.on_front]
        assert str(drawing.attributes["aria-label"]).count("on the front") == len(on_front) > 0
        assert frontier.because in tree.one("front").text
    assert "Cost against latency" not in Tree(render_html(summary, manifest, rows)).root.text


def test_why_the_run_ended_is_told_with_what_was_asked() -> None:
    _, manifest, rows = make_run(2, loads=LOADS)
    protocol = msgspec.structs.replace(manifest.protocol, stop=Stop(precision=0.03, min_blocks=12))
    ended = msgspec.structs.replace(manifest, protocol=protocol, stopped="minutes cap")
    tree = Tree(render_html(summarise(ended, [], rows), ended, rows)).root
    assert "Ended by: minutes cap." in tree.all("header")[0].text
    assert "target not reached: 4 cells have no interval (ended by: minutes cap)" in tree.one("result").text
    assert "at least 12 valid samples" in tree.one("method").text
    assert "within ±3.0%, and ended by: minutes cap" in tree.one("method").text


def test_a_month_and_the_studys_formula_are_shown_when_asked_for() -> None:
    summary, manifest, rows = make_run(terms=Terms(per_month=Decimal(50), seed_formula=True))
    tree = Tree(render_html(summary, manifest, rows)).root
    assert summary.bill is not None
    (cell,) = [cell for cell in summary.bill.cells if (cell.arm, cell.label) == ("go", "SMALL")]
    (month,) = [row for row in table(tree, "month") if row[:2] == ["SMALL", "go"]]
    # 50 messages/s in 2,628,000 s, 200 units each of 0.625 USD a million
    assert (month[4], month[-1]) == ("16,425.00", cents(cell.month_usd))
    assert "USD a month at 50 messages/s" in tree.one("month-caption").text
    (study,) = [row for row in table(tree, "seed") if row[:2] == ["SMALL", "go"]]
    assert study[2:4] == ["100", "200"]
    assert all(said in tree.one("cost").text for said in (*summary.bill.assumptions, *summary.bill.seed_differences))


def test_costs_are_drawn_and_told_for_a_million_items(tree: Element) -> None:
    labels = [str(e.attributes["aria-label"]) for e in tree.one("cost") if e.attributes.get("role") == "img"]
    (small,) = [label for label in labels if label.startswith("Cost of a million items, SMALL")]
    assert "go DynamoDB 1.250 USD" in small  # 200 units of 0.625 USD a million for 100 items
    assert [row[6] for row in table(tree, "cost") if row[:3] == ["SMALL", "go", "million items"]] == ["0.01200"]


def test_figures_hold_one_mark_for_every_valid_sample(tree: Element) -> None:
    summary, _, _ = make_run()
    points = [e for e in tree.one("warm") if e.attributes.get("aria-label") is None and "role-mark" in _class(e)]
    marks = [path for group in points if "symbol" in _class(group) for path in group.all("path")]
    assert len(marks) == sum(cell.n_valid for cell in summary.cells if cell.start == "warm") == 31


def _class(element: Element) -> str:
    return element.attributes.get("class") or ""


def test_a_sample_that_is_not_valid_is_crossed_and_its_reason_told(tree: Element) -> None:
    assert tree.one("order").text.count("✕") == 1
    assert table(tree, "reasons") == [["received 2 times", "1"]]
    assert [row[14:16] for row in table(tree, "raw") if row[14] == "no"] == [["no", "received 2 times"]]


def test_the_rows_are_those_of_the_csv(tree: Element) -> None:
    _, _, rows = make_run()
    shown = table(tree, "raw")
    assert [row[0] for row in shown] == [row.trial for row in rows]
    assert [row[5] for row in shown] == [str(row.duration_ms) for row in rows]
    assert [row[13] for row in shown] == [f"{row.cost_total_usd:f}" for row in rows]


def test_the_same_run_gives_the_same_page(page: str) -> None:
    assert make_page() == page


def test_many_rows_are_thinned_and_the_page_says_so() -> None:
    manifest, rows = large(1_500)
    summary = summarise(manifest, [], rows)
    text = render_html(summary, manifest, rows)
    tree = Tree(text).root
    assert len(text) < 2_000_000
    assert "more than 2,000 samples" in tree.one("warm").text
    assert len(table(tree, "raw")) == ROWS_AT_MOST
    assert "The first 1,000 rows of 3,000" in tree.one("rows").text
    (drawing,) = tree.one("warm").all("svg")
    assert [e for e in drawing if "mark-line" in _class(e)]
    assert not [e for e in drawing if "mark-symbol role-mark" in _class(e)]


def test_a_run_without_any_sample_claims_nothing() -> None:
    manifest = make_manifest()
    tree = Tree(render_html(summarise(manifest, [], []), manifest, [])).root
    assert "Invalid run: do not use these numbers." in tree.one("result").text
    assert table(tree, "durations")[0] == ["WARMUP", "python", "cold", "0/0", *["-"] * 7]
    assert tree.one("result").all("dt") == []
    labels = [str(e.attributes["aria-label"]) for e in tree if e.attributes.get("role") == "img"]
    assert all("nothing was measured" in label or "0/0 samples valid, median - ms" in label for label in labels)


def test_one_arm_alone() -> None:
    summary, manifest, rows = make_run(arms=("go",), loads=(*LOADS, HOSTILE_LOAD))
    tree = Tree(render_html(summary, manifest, rows)).root
    assert "times as" not in tree.one("result").text
    assert len(table(tree, "durations")) == 3


def palette(name: str) -> dict[str, str]:
    """The colours of a theme: light is written first, dark replaces all of them."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    return dict(re.findall(r"--([\w-]+): (#\w{6})", dark if name == "dark" else light))


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, two: str) -> float:
    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_can_be_told_from_paper(theme: str) -> None:
    colours = palette(theme)
    for text in ("ink", "muted", "link", "bad"):
        assert contrast(colours[text], colours["paper"]) >= 4.5
    for ground in ("raised", "note-paper", "bad-paper"):
        assert contrast(colours["ink"], colours[ground]) >= 4.5
    marks = [name for name in colours if name.startswith(("arm-", "part-"))]
    assert len(marks) == ARM_COLOURS + len(PER_EXECUTION)
    for mark in marks:
        assert contrast(colours[mark], colours["paper"]) >= 3, mark


def test_other_commands_do_not_pay_for_the_page() -> None:
    script = "import sys, lambdalab.cli, lambdalab.run.experiment; print({'jinja2', 'vl_convert'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
