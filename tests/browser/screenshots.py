"""``python -m tests.browser.screenshots REPORT FOLDER``: pictures of a report as people see it (`make screenshots`)."""

import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pypdfium2
from PIL import Image

from browser.browser import chromium

VIEWS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 1400}, "color_scheme": "light", "device_scale_factor": 2},
}
LAST_SECTION = {"desktop": "#cold", "dark": "#cost"}
"""Where a picture ends: the rest is tables, and whoever wants those opens a report."""
COLUMNS = 3
SHEETS = 3


def main(report: Path, folder: Path) -> None:
    """Writes ``report-<view>.png`` for every view; of the phone's screens and of paper the first ones, side by side.

    Of a factorial run only ``factorial-report.png``: from the top to the main effects of its first design.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        page = browser.new_page(**VIEWS["desktop"])
        page.goto(report.resolve().as_uri())
        if (mains := page.locator(".mains")).count():
            box = mains.first.bounding_box()
            assert box is not None
            whole = Image.open(BytesIO(page.screenshot(full_page=True)))
            shrink(folder / "factorial-report.png", whole.crop((0, 0, whole.width, int(box["y"] + box["height"]) + 16)))
            return
        page.close()
        for name, options in VIEWS.items():
            page = browser.new_page(**options)
            page.goto(report.resolve().as_uri())
            whole = Image.open(BytesIO(page.screenshot(full_page=True)))
            if name in LAST_SECTION:
                box = page.locator(LAST_SECTION[name]).bounding_box()
                assert box is not None
                shrink(folder / f"report-{name}.png", whole.crop((0, 0, whole.width, int(box["y"] + box["height"]))))
            else:
                height = options["viewport"]["height"] * options["device_scale_factor"]
                screens = [whole.crop((0, i * height, whole.width, (i + 1) * height)) for i in range(COLUMNS)]
                shrink(folder / f"report-{name}.png", side_by_side(screens))
            page.close()
        page = browser.new_page()
        page.goto(report.resolve().as_uri())
        pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    sheets = [sheet.render(scale=1.3).to_pil() for sheet in pypdfium2.PdfDocument(pdf)]
    shrink(folder / "report-print.png", side_by_side(sheets[:SHEETS]))


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    gap = 20
    found = Image.new("RGB", (sum(p.width + gap for p in pictures) - gap, pictures[0].height), "grey")
    for number, picture in enumerate(pictures):
        found.paste(picture, (number * (picture.width + gap), 0))
    return found


def shrink(path: Path, picture: Image.Image) -> None:
    """Keeps 128 colours, rare ones too: a report has few, and the repository holds the pictures."""
    picture.convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
