"""The command load: Locust, with this project's load and on loopback."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from lambdalab import loopback
from lambdalab.cli.app import app
from lambdalab.console import say
from lambdalab.project import project_root


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example:  lambdalab load --up --headless --rate 50 --duration 60s --languages go",
)
def load(
    context: typer.Context,
    up: Annotated[
        bool, typer.Option("--up", help="Bring a local stack up with samconfig's load settings when none is up.")
    ] = False,
) -> None:
    """Put load on the pipeline with Locust: its web UI on 127.0.0.1:8089, or --headless.

    Every other option is Locust's, or one of those that `locust -f load --help` lists first.
    """
    command = _locust(context.args)
    if not up:
        os.execve(command[0], command, loopback.own_variables())  # noqa: S606 - Locust takes this process over, and every signal with it
    from lambdalab.local.stack import stack_for_a_while

    with stack_for_a_while(say, settings="load"):
        raise typer.Exit(_run(command))


def _locust(arguments: list[str]) -> list[str]:
    """Locust's command line; its settings file is this project's wherever it is called from."""
    root = project_root()
    program = Path(sys.executable).with_name("locust")
    return [str(program), "-f", str(root / "load"), "--config", str(root / "pyproject.toml"), *arguments]


def _run(command: list[str]) -> int:
    """Runs Locust to its end. Ctrl-C reaches it by itself, and the stack is needed until it has ended."""
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: FrameType | None) -> None:
        if process is not None and number == signal.SIGTERM:
            process.terminate()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        process = subprocess.Popen(command, env=loopback.own_variables())
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
