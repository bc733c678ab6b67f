"""``python -m tests.browser.screenshots REPORT FOLDER``: pictures of a report as people see it (`make screenshots`)."""

import sys
from pathlib import Path
from typing import Any

import pypdfium2
from PIL import Image

from browser.browser import chromium

VIEWS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "color_scheme": "light", "device_scale_factor": 2},
}
PHONE_SCREENS = 3


def main(report: Path, folder: Path) -> None:
    """Writes ``report-<view>.png`` for every view, and the first printed pages side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for name, options in VIEWS.items():
            page = browser.new_page(**options)
            page.goto(report.resolve().as_uri())
            picture = folder / f"report-{name}.png"
            page.screenshot(path=picture, full_page=True)
            _shrink(picture, Image.open(picture))
            page.close()
        page = browser.new_page()
        page.goto(report.resolve().as_uri())
        pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    sheets = [sheet.render(scale=1.3).to_pil() for sheet in pypdfium2.PdfDocument(pdf)]
    side_by_side = Image.new("RGB", (sum(sheet.width for sheet in sheets[:3]) + 40, sheets[0].height), "grey")
    for number, sheet in enumerate(sheets[:3]):
        side_by_side.paste(sheet, (number * (sheet.width + 20), 0))
    _shrink(folder / "report-print.png", side_by_side)


def _shrink(path: Path, picture: Image.Image) -> None:
    """Keeps 256 colours: a report has few, and the repository holds the pictures."""
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
