"""A headless Chromium of this machine; Playwright only drives it and downloads nothing."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

from conftest import BROWSERS


@contextmanager
def chromium() -> Iterator[Browser]:
    """Starts one, and ends it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=next(filter(None, map(shutil.which, BROWSERS))))
        try:
            yield browser
        finally:
            browser.close()


def cut_labels(page: Page, figures: str) -> list[str]:
    """Texts in figures that reach out of them."""
    found: list[str] = page.eval_on_selector_all(
        figures,
        """figures => figures.flatMap(figure => {
            const box = figure.getBoundingClientRect();
            return [...figure.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()])
                .filter(([, r]) => r.width && (r.left < box.left - 1 || r.right > box.right + 12))
                .map(([name]) => name);
        })""",
    )
    return found
