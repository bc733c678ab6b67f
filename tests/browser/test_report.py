"""The report in a real browser: by eye, by keyboard, by screen reader, on a phone, in the dark and on paper."""

import pypdfium2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page
from sample_page import HOSTILE

from browser.browser import cut_labels
from browser.conftest import Open

pytestmark = pytest.mark.needs("browser")

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}


def colour(page: Page, selector: str, name: str = "color") -> str:
    return str(page.eval_on_selector(selector, f"element => getComputedStyle(element)['{name}']"))


def brightness(rgb: str) -> float:
    return sum(int(part) for part in rgb.removeprefix("rgb(").removesuffix(")").split(",")) / 3


def test_the_page_opens_offline_and_runs_nothing_of_others(open_report: Open) -> None:
    page = open_report(viewport=DESKTOP, offline=True)
    assert "lambdalab" in page.title()
    assert page.locator("h1").inner_text() == "ingest: python / go"
    assert page.get_by_text(HOSTILE, exact=True).count() > 0


def test_every_figure_is_drawn(open_report: Open) -> None:
    page = open_report(viewport=DESKTOP)
    boxes = [svg.bounding_box() for svg in page.locator("figure svg").all()]
    assert len(boxes) == 16
    for box in boxes:
        assert box is not None
        assert box["width"] > 250
        assert box["height"] > 50


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_the_page_never_scrolls_sideways(open_report: Open, width: int) -> None:
    page = open_report(viewport={"width": width, "height": 740})
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wider = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length"
    )
    assert wider > 0 or width == 1280, "no table was wide enough to show that it scrolls in its own box"


def test_labels_of_figures_are_not_cut(open_report: Open) -> None:
    page = open_report(viewport=PHONE)
    assert cut_labels(page, "figure") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(open_report: Open, scheme: str) -> None:
    page = open_report(viewport=DESKTOP, color_scheme=scheme)
    paper, ink = colour(page, "body", "background-color"), colour(page, "body")
    points = page.eval_on_selector_all(
        "#warm .role-mark.mark-symbol path", "paths => paths.map(path => getComputedStyle(path).fill)"
    )
    assert (brightness(paper) > brightness(ink)) is (scheme == "light")
    assert colour(page, "html", "colorScheme") == scheme, "scroll bars and the like follow too"
    label = colour(page, "#warm svg .role-axis-label text", "fill")
    assert label == ink, "figures follow the page"
    python = {"light": "rgb(11, 98, 164)", "dark": "rgb(90, 169, 230)"}[scheme]
    go = {"light": "rgb(194, 80, 15)", "dark": "rgb(240, 136, 74)"}[scheme]
    assert set(points) == {python, go}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(open_report: Open, scheme: str, viewport: dict[str, int]) -> None:
    page = open_report(viewport=viewport, color_scheme=scheme)
    page.locator("summary").click()
    # the page's own policy forbids foreign scripts, so axe is put in by the debugger, which it does not bind
    found = Axe().run(page)
    assert found.response["passes"], "axe looked at nothing"
    assert [(v["id"], v["impact"], v["nodes"][0]["html"][:200]) for v in found.response["violations"]] == []


def test_everything_is_reached_by_keyboard_and_shows_it(open_report: Open) -> None:
    page = open_report(viewport=PHONE)
    page.evaluate("document.querySelector('details').open = true")
    wanted = page.locator("a, summary, button, .scroll").count()
    page.locator("body").press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the result"
    assert page.locator(".skip").bounding_box()["x"] >= 0  # type: ignore[index]
    seen = []
    for _ in range(wanted):
        seen.append(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
        width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert width == "3px", page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        page.keyboard.press("Tab")
    assert len(set(seen)) == wanted
    assert seen == sorted(seen), "the order of Tab is the order of the page"


def test_rows_are_sorted_by_keyboard(open_report: Open) -> None:
    page = open_report(viewport=DESKTOP)
    page.locator("summary").press("Enter")
    rows = page.locator("#rows tbody tr")
    before = rows.count()
    column = page.get_by_role("columnheader", name="init ms")
    column.get_by_role("button").press("Enter")
    assert column.get_attribute("aria-sort") == "ascending"
    cells = page.locator("#rows tbody tr td:nth-child(8)").all_inner_texts()
    known = [float(text) for text in cells if text != "-"]
    assert known == sorted(known)
    assert len(set(known)) > 10
    assert cells[len(known) :] == ["-"] * (before - len(known)), "what was not measured stays last"
    column.get_by_role("button").press("Space")
    assert column.get_attribute("aria-sort") == "descending"
    cells = page.locator("#rows tbody tr td:nth-child(8)").all_inner_texts()
    assert [float(text) for text in cells if text != "-"] == known[::-1]
    assert cells[-1] == "-"


def test_without_scripts_nothing_is_missing(open_report: Open) -> None:
    page = open_report(viewport=DESKTOP, java_script_enabled=False)
    page.locator("summary").click()
    assert page.locator("#rows tbody tr").count() == 48
    assert page.locator("#rows tbody tr").last.is_visible()


def test_paper_is_light_whole_and_not_blank(open_report: Open) -> None:
    page = open_report(viewport=DESKTOP, color_scheme="dark")
    document = pypdfium2.PdfDocument(page.pdf(prefer_css_page_size=True, print_background=True))
    sheets = list(document)
    assert 3 <= len(sheets) <= 12
    text = ""
    for sheet in sheets:
        picture = sheet.render(scale=1).to_pil().convert("L")
        counts = picture.histogram()
        dark = sum(counts[:128]) / (picture.width * picture.height)
        assert 0.0005 < dark < 0.3, "a sheet is blank, or printed dark"
        assert max(range(256), key=counts.__getitem__) == 255, "the paper is not white"
        text += sheet.get_textpage().get_text_range()
    assert "From send to commit" in text
    assert "Where and with what it ran" in text
    # of every table the last column is on the paper
    for heading in ("max", "Billed", "total", "USD/item"):
        assert heading in text
    assert "Skip to the result" not in text
    width = sheets[0].get_width()
    for sheet in sheets:
        page_text = sheet.get_textpage()
        assert all(page_text.get_charbox(i)[2] <= width for i in range(page_text.count_chars()))
