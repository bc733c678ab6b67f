"""The page Pipeline in a real browser: a run from Locust's form to the downloaded report, on a real local stack."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from load.conftest import Locust, aws, free_port, started  # noqa: F401 - two are fixtures
from load.fake_aws import FakeAws
from local.whole import ROOT, Up, processes_of, project
from playwright.sync_api import Browser, Page

from browser.load_ui import LoadUi, fill_in, load_ui, start, wait_for_state

pytestmark = pytest.mark.needs("browser")

FIRST_LINE = "[...document.querySelectorAll('figure:first-child .mark-line path')].map(path => path.getAttribute('d'))"


class Driven(msgspec.Struct):
    """A run that somebody made with the pages, and what they saw."""

    ui: LoadUi
    folder: Path
    page: Page
    listening: set[str]
    requests: list[str]
    complaints: list[str]
    drawn: list[list[str]]


def total(page: Page, name: str) -> str:
    return page.locator("#totals div", has=page.get_by_text(name, exact=True)).locator("dd").inner_text()


def wait_for_total(page: Page, name: str, more_than: int) -> None:
    page.wait_for_function(
        """([name, least]) => [...document.querySelectorAll('#totals div')].some(
            one => one.querySelector('dt').textContent === name
                && +one.querySelector('dd').textContent.replace(',', '') > least)""",
        arg=[name, more_than],
        timeout=60_000,
    )


def watched(page: Page, requests: list[str], complaints: list[str]) -> Page:
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    return page


@pytest.fixture(scope="module")
def driven(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    folder = project(tmp_path_factory.mktemp("project"))
    for name in ("load", "prices"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    up = Up.start(folder, "load", MaximumConcurrency="2")
    try:
        with load_ui(folder) as ui:
            yield drive(browser, ui, folder)
    finally:
        up.end()
    assert processes_of(folder) == []


def drive(browser: Browser, ui: LoadUi, folder: Path) -> Driven:
    """Fills in the form, starts, watches the page Pipeline, stops, and waits for the books."""
    requests: list[str] = []
    complaints: list[str] = []
    load = browser.new_page(viewport={"width": 1280, "height": 900})
    load.goto(ui.url)
    load.get_by_role("link", name="Pipeline").click()
    wait_for_state(load, "idle")
    load.get_by_role("link", name="Load").click()
    page = watched(browser.new_page(), requests, complaints)
    page.goto(f"{ui.url}/pipeline")
    wait_for_state(page, "idle")

    fill_in(load, shape="steps", rates="4,8", hold="5m", languages="go", mix="256Bx5", arrivals="poisson")
    start(load)
    drawn: list[list[str]] = []
    for messages in (0, 15, 30):
        wait_for_total(page, "done", messages)
        page.wait_for_function(f"before => {FIRST_LINE}.length === 2 && {FIRST_LINE}[0] !== before",
                               arg=drawn[-1][0] if drawn else "", timeout=60_000)  # fmt: skip
        drawn.append(page.evaluate(FIRST_LINE))
    assert page.locator("#links").is_hidden(), "there is no report yet"
    assert page.locator("#limit").inner_text().startswith("Last five seconds: Limited by ")
    locust = psutil.Process(ui.process.pid)
    listening = {
        connection.laddr.ip
        for process in (locust, *locust.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    load.get_by_role("button", name="Stop").click()
    wait_for_state(page, "closed")
    return Driven(ui, folder, page, listening, requests, complaints, drawn)


def test_a_run_is_started_watched_stopped_and_its_report_downloaded(driven: Driven, tmp_path: Path) -> None:
    found = driven.ui.samples()
    assert driven.page.locator("#run").inner_text() == f"Run {found['run_id']}: steps, poisson arrivals, go"
    assert found["plan"]["rates"] == [4.0, 8.0]
    assert [(one["size_bytes"], one["count"]) for one in found["plan"]["mix"]] == [(256, 5)]

    last = msgspec.json.decode((driven.folder / "results/latest/pipeline.jsonl").read_bytes().splitlines()[-1])
    assert last["intended"] >= last["sent"] == last["done"] > 30, "what was due when it was stopped may not have begun"
    assert int(total(driven.page, "offered")) == last["intended"]
    assert driven.page.locator("#limit").is_hidden(), "nothing is sent any more"
    assert int(total(driven.page, "done")) == last["done"]
    cells = driven.page.locator("#arms tr").first.locator("th, td").all_inner_texts()
    assert (cells[0], cells[1], cells[4], cells[8]) == ("go", "0", str(last["sent"]), "0")
    assert float(total(driven.page, "cost, USD")) == pytest.approx(float(last["cost_usd"]), rel=0.01)

    with driven.page.expect_download() as download:
        driven.page.get_by_role("link", name="Download report.html").click()
    assert download.value.suggested_filename == f"{found['run_id']}.html"
    download.value.save_as(tmp_path / "report.html")
    saved = (tmp_path / "report.html").read_bytes()
    assert saved == (driven.folder / "results" / found["run_id"] / "report.html").read_bytes()
    assert f"Sent {last['sent']} = processed {last['sent']} + dead-lettered 0".encode() in saved


def test_charts_move(driven: Driven) -> None:
    offered, achieved = zip(*driven.drawn, strict=True)
    assert len(set(offered)) == len(set(achieved)) == 3
    assert driven.page.locator("figure").count() == 9
    for figure in driven.page.locator("figure").all():
        box = figure.locator("svg").bounding_box()
        assert box is not None
        assert (box["width"] > 250, box["height"] > 100) == (True, True)
        if "Oldest" in figure.inner_text():
            continue  # where no message waits there is none, and no line
        assert any(figure.locator(".mark-line path").evaluate_all("lines => lines.map(one => one.getAttribute('d'))"))
        assert "-" not in figure.locator(".now b").all_inner_texts()


def test_nothing_is_asked_of_others_and_nothing_listens_for_them(driven: Driven) -> None:
    assert {url.partition("/pipeline")[0] for url in driven.requests} == {driven.ui.url}
    assert len(driven.requests) > 10
    assert driven.complaints == []
    assert driven.listening == {"127.0.0.1"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_axe_finds_nothing_and_it_fits(driven: Driven, browser: Browser, scheme: Any, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 740}, color_scheme=scheme)
    page.goto(f"{driven.ui.url}/pipeline")
    page.locator("figure .mark-line path").first.wait_for(state="attached")
    wait_for_state(page, "closed")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page)
    assert found.response["passes"], "axe looked at nothing"
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found.response["violations"]] == []
    page.close()


def test_everything_is_reached_by_keyboard(driven: Driven, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto(f"{driven.ui.url}/pipeline")
    wait_for_state(page, "closed")
    seen = []
    for _ in range(5):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent.trim().split('\\n')[0]"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    assert seen == ["Load", "Pipeline", "Download report.html", "Open the report", "Now, in each queue and function"]
    page.close()


def test_it_says_when_runs_are_not_kept_and_when_locust_is_gone(
    browser: Browser, aws: FakeAws, tmp_path: Path, started: list[Locust]  # noqa: F811
) -> None:  # fmt: skip
    port = free_port()
    locust = Locust(aws, tmp_path, "--web-port", str(port), headless=False)  # its --results is empty
    started.append(locust)
    page = browser.new_page()
    for _ in range(600):
        try:
            page.goto(f"http://127.0.0.1:{port}/pipeline")
            break
        except Exception:
            assert locust.process.poll() is None, locust.log
            page.wait_for_timeout(100)
    wait_for_state(page, "off")
    assert page.locator("#status").inner_text().startswith("Runs are not kept")
    locust.end()
    wait_for_state(page, "silent")
    page.close()
