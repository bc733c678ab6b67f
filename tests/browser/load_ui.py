"""Locust's web UI with this project's load, as people use it."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from load.conftest import free_port
from playwright.sync_api import Page


class LoadUi:
    """``lambdalab load`` in a project's folder."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name("lambdalab"), "load", "--web-port", str(port), *arguments],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "LOCUST_"))},
            stdin=subprocess.DEVNULL,
        )

    def samples(self) -> dict[str, Any]:
        """What the page is told when it begins to ask."""
        with urllib.request.urlopen(f"{self.url}/pipeline/samples", timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(120)


@contextlib.contextmanager
def load_ui(folder: Path, *arguments: str) -> Iterator[LoadUi]:
    """Starts one, waits until it answers, and ends it."""
    ui = LoadUi(folder, *arguments)
    try:
        deadline = time.monotonic() + 240
        while True:
            with contextlib.suppress(OSError):
                ui.samples()
                break
            assert ui.process.poll() is None, "it ended"
            assert time.monotonic() < deadline, "it does not answer"
            time.sleep(0.1)
        yield ui
    finally:
        ui.end()


def fill_in(page: Page, **values: str) -> None:
    """Fills in Locust's form, which is open."""
    page.get_by_text("Custom parameters").click()
    for name, value in values.items():
        field = page.get_by_label(re.compile(rf"^{name.replace('_', ' ')} \(", re.IGNORECASE))
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def start(page: Page) -> None:
    page.get_by_role("button", name="Start").click()


def wait_for_state(page: Page, state: str, seconds: float = 180) -> None:
    """Waits until the page Pipeline says so."""
    page.locator(f"#status[data-state={state}]").wait_for(timeout=seconds * 1000)
