"""The page of a factorial run in a real browser."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from sample_factorial import make_run

from browser.browser import cut_labels
from browser.conftest import Open
from lambdalab.run.call_conclusion import conclude

pytestmark = pytest.mark.needs("browser")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = make_run(tmp_path_factory.mktemp("results"))
    conclude(store)
    return store.report_file


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_main_effects_are_drawn_with_their_intervals(open_report: Open, scheme: str) -> None:
    page = open_report(viewport={"width": 1280, "height": 900}, color_scheme=scheme, offline=True)
    assert page.locator("h1").inner_text() == "s3-ingest: events / batch"
    paper = page.eval_on_selector("body", "body => getComputedStyle(body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]
    for design, responses in (("#design-1", 8), ("#design-2", 7)):
        figures = page.locator(f"{design} .mains figure")
        assert figures.count() == responses
        # four factors of two levels: as many points and bars, and a line each
        assert figures.first.locator(".role-mark.mark-symbol path").count() == 8
        assert figures.first.locator(".role-mark.mark-rule line").count() == 8
        assert figures.first.locator(".mark-line.role-mark path").count() == 4
        box = figures.first.locator("svg").bounding_box()
        assert box is not None
        assert box["width"] > 250
    words = page.locator("#design-1 .mains .drawing").first.get_attribute("aria-label")
    assert words is not None
    assert words.startswith("time in calls to S3, ms: language python ")
    assert page.locator("#result .pairs li").count() == 8


def test_it_fits_a_phone(open_report: Open) -> None:
    page = open_report(viewport={"width": 360, "height": 740})
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert cut_labels(page, "figure") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_report: Open, scheme: str) -> None:
    page = open_report(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    found = Axe().run(page)
    assert found.response["passes"], "axe looked at nothing"
    assert [(v["id"], v["impact"], v["nodes"][0]["html"][:200]) for v in found.response["violations"]] == []
