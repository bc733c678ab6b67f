"""What a command shows beside its result while it works: a console of the right width, steps, progress over trials."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lambdalab.model import Protocol, Trial

PIPED_WIDTH: Final = 120


@contextmanager
def trial_progress(protocol: Protocol) -> Iterator[Callable[[Trial], None]]:
    """Progress over trials: a bar on a terminal, a line per block where there is none."""
    console = make_console(stderr=True)
    if not console.is_terminal:
        last_block = 0

        def line(trial: Trial) -> None:
            nonlocal last_block
            if trial.block != last_block:
                last_block = trial.block
                say(f"block {trial.block} of {protocol.blocks}")

        yield line
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=protocol.blocks * len(protocol.arms) * len(protocol.loads))
        yield lambda trial: bar.update(
            task,
            completed=trial.position,
            description=f"block {trial.block}/{protocol.blocks} {trial.arm} {trial.load.label}",
        )


def make_console(*, stderr: bool = False) -> Console:
    """Colour and width of the terminal; piped, a width at which no table breaks."""
    console = Console(stderr=stderr, highlight=False, markup=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


def say(text: str) -> None:
    """A line about what is being done, beside the output."""
    typer.echo(f"{text} ...", err=True)
