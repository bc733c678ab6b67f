"""A headless Chromium of this machine; Playwright only drives it and downloads nothing."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from conftest import BROWSERS
from playwright.sync_api import Browser, sync_playwright


@contextmanager
def chromium() -> Iterator[Browser]:
    """Starts one, and ends it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=next(filter(None, map(shutil.which, BROWSERS))))
        try:
            yield browser
        finally:
            browser.close()
