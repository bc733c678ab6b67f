"""The chapter on a load run in a real browser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page
from sample_load import make_load_page

from browser.browser import cut_labels

pytestmark = pytest.mark.needs("browser")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "report.html"
    path.write_text(make_load_page())
    return path


def test_the_knee_is_drawn_for_all_and_for_each(open_report: Callable[..., Page]) -> None:
    page = open_report(viewport={"width": 1280, "height": 800})
    figures = page.locator("#load figure")
    assert [one.inner_text() for one in figures.locator("figcaption").all()] == [
        "Offered, achieved and backlog, all arms",
        "Offered, achieved and backlog, go",
        "Offered, achieved and backlog, python",
        "queue wait, by phase",
        "Duration, by phase",
        "end to end, by phase",
    ]
    for i, marked in enumerate((True, False, True)):
        drawing = figures.nth(i).locator("svg")
        box = drawing.bounding_box()
        assert box is not None
        assert box["width"] > 250
        assert (drawing.locator(".mark-rule.role-mark line").count() > 0) is marked, "the step above the knee"
        assert drawing.locator(".mark-line path").count() == 2
        assert drawing.locator(".mark-rect.role-mark path").count() == 3


@pytest.mark.parametrize("width", [320, 1280])
def test_it_fits_phones_and_desks(open_report: Callable[..., Page], width: int) -> None:
    page = open_report(viewport={"width": width, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert cut_labels(page, "#load figure") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_report: Callable[..., Page], scheme: Any) -> None:
    found = Axe().run(open_report(viewport={"width": 360, "height": 740}, color_scheme=scheme))
    assert found.response["passes"], "axe looked at nothing"
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found.response["violations"]] == []
