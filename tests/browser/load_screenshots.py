"""``python -m browser.load_screenshots FOLDER``: pictures of Locust's form and the page Pipeline during a real run.

The run is a sweep over the local stack that is up (`make load-screenshots` brings one up).
"""

import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page

from browser.browser import chromium
from browser.load_ui import fill_in, load_ui, start, wait_for_state
from browser.screenshots import COLUMNS, VIEWS, shrink, side_by_side


def main(folder: Path) -> None:
    """Writes ``load-form.png``, and ``pipeline-<view>.png`` as it is when the sweep has drained."""
    desktop: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
    with (
        tempfile.TemporaryDirectory() as results,
        load_ui(Path.cwd(), "--results", results) as ui,
        chromium() as browser,
    ):
        form = browser.new_page(**desktop)
        form.goto(ui.url)
        fill_in(form, shape="steps", rates="5,10,20,40", hold="15s", arrivals="poisson")
        form.wait_for_timeout(500)  # a heading of the form moves
        shrink(folder / "load-form.png", _picture(form))
        start(form)
        pages = {name: browser.new_page(**options) for name, options in VIEWS.items()}
        for page in pages.values():
            page.goto(f"{ui.url}/pipeline")
        for name, page in pages.items():
            wait_for_state(page, "closed", 600)
            picture = _picture(page)
            if name == "phone":
                height = VIEWS[name]["viewport"]["height"] * VIEWS[name]["device_scale_factor"]
                screens = range(min(COLUMNS, picture.height // height))
                picture = side_by_side(
                    [picture.crop((0, i * height, picture.width, (i + 1) * height)) for i in screens]
                )
            shrink(folder / f"pipeline-{name}.png", picture)


def _picture(page: Page) -> Image.Image:
    return Image.open(BytesIO(page.screenshot(full_page=True)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
