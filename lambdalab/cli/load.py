"""The command load: Locust, with this project's load and on loopback."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from lambdalab import loopback
from lambdalab.cli.app import app
from lambdalab.project import project_root
from lambdalab.report.console import say

if TYPE_CHECKING:
    from lambdalab.lock import Lock


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
    from lambdalab.lock import hold_stack

    _refuse_early(context.args)
    with hold_stack() as lock, stack_for_a_while(say, folder=project_root(), settings="load"):
        raise typer.Exit(_run(command, lock))


def _refuse_early(arguments: list[str]) -> None:
    """Ends with what Locust, or the plan of a run without a page, refuses, before a stack is brought up for it."""
    from lambdalab.load.arguments import check_typed

    if "--headless" in arguments:
        check_typed(arguments)
    command = _locust([*arguments, "--list"])  # which ends once the arguments are read
    checked = subprocess.run(command, stdout=subprocess.DEVNULL, env=loopback.own_variables(), check=False)
    if checked.returncode != 0:
        raise typer.Exit(checked.returncode)


def _locust(arguments: list[str]) -> list[str]:
    """Locust's command line; its settings file is this project's wherever it is called from."""
    root = project_root()
    program = Path(sys.executable).with_name("locust")
    return [str(program), "-f", str(root / "load"), "--config", str(root / "pyproject.toml"), *arguments]


def _run(command: list[str], lock: "Lock") -> int:
    """Runs Locust to its end, and waits until the books of its last run are closed: they need the stack.

    Ctrl-C reaches Locust by itself. When only the bookkeeper is left, as after a kill of Locust, a signal hurries it.
    """
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: FrameType | None) -> None:
        if process is None:
            raise KeyboardInterrupt
        if process.returncode is None:
            if number == signal.SIGTERM:
                process.terminate()
        elif (holder := lock.holder) is not None and holder.bookkeeper_pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder.bookkeeper_pid, signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        process = subprocess.Popen(command, pass_fds=(lock.fd,), env=loopback.own_variables() | lock.variables)
        code = process.wait()
        lock.await_children()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
