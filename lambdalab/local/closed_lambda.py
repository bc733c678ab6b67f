"""Starts the emulator with its own Lambda closed (docs/decisions/0017-one-lambda.md)."""

from pathlib import Path
from typing import Final

_SITE: Final = """\
import os
import sys

if os.path.basename(sys.orig_argv[-1]) == "_worker.py":
    os.write(2, b"functions run in the plane only\\n")
    os._exit(1)
"""
"""What every Python of the emulator imports first: one that is to run a function ends."""


def closed_lambda(folder: Path) -> dict[str, str]:
    """The variables by which MiniStack runs no function.

    It then runs functions in containers only and finds no Docker. For a Python function behind a WebSocket API it
    starts ``_worker.py`` all the same, and that process ends before it reads the function.

    Args:
        folder: the emulator's own; a file is written to it.
    """
    site = folder / "emulator-site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_SITE)
    return {
        "LAMBDA_STRICT": "1",
        "DOCKER_HOST": "unix:///nonexistent/lambdalab-closed",
        "PYTHONPATH": str(site),
    }
