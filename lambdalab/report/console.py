"""What a command shows beside its result while it works: a console of the right width, steps, progress over trials."""

import os
import select
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from lambdalab.design.arms import Protocol
from lambdalab.design.cells import FactorialProtocol
from lambdalab.logs.platform_lines import is_platform_line, parse_failure

if TYPE_CHECKING:
    from rich.progress import Progress

PIPED_WIDTH: Final = 120
_LINE_EVERY_S: Final = 5.0
_COLOURS: Final = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")


class RunProgress(NamedTuple):
    """What a run tells while it works."""

    step: Callable[[int, int, str], None]
    """Before each trial or cell: its block, how many of the run were done before it, its name."""
    standing: Callable[[str], None]
    """How far the stop rule is, after each block."""


@contextmanager
def run_progress(protocol: Protocol | FactorialProtocol, steps: int) -> Iterator[RunProgress]:
    """Progress of a run: a bar on a terminal, a line per block where there is none.

    Args:
        protocol: of the run.
        steps: how many trials or cells a block has.
    """
    console = make_console(stderr=True)
    blocks = protocol.blocks if protocol.stop is None else f"at most {protocol.blocks}"
    told = ""

    def standing(text: str) -> None:
        nonlocal told
        told = f", {text}" if text else ""

    if not console.is_terminal:
        last_block = 0

        def line(block: int, _: int, __: str) -> None:
            nonlocal last_block
            if block != last_block:
                last_block = block
                say(f"block {block} of {blocks}{told}")

        yield RunProgress(line, standing)
        return
    with _bar(console) as bar:
        task = bar.add_task("", total=protocol.blocks * steps)

        def show(block: int, done: int, name: str) -> None:
            bar.update(task, completed=done, description=f"block {block} of {blocks}{told}, {name}")

        yield RunProgress(show, standing)


@contextmanager
def counted_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Progress over things, told how many are done: a bar, or now and then a line where there is no terminal."""
    console = make_console(stderr=True)
    if console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    said_at = time.monotonic()

    def line(done: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= _LINE_EVERY_S:
            said_at = time.monotonic()
            say(f"{what}: {done} of {total}")

    yield line


def _bar(console: Console) -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def reader_is_gone() -> bool:
    """True if the program that read standard output or standard error through a pipe has ended."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def make_console(*, stderr: bool = False) -> Console:
    """Colour and width of the terminal; piped, a width at which no table breaks."""
    console = Console(stderr=stderr, highlight=False, markup=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


def print_line(console: Console, line: str, *, function: str | None = None, timestamp_ms: int | None = None) -> None:
    """A line of a function's log; on a terminal the function has a colour, what Lambda wrote is dim, failures red."""
    moment = "" if timestamp_ms is None else f"{datetime.fromtimestamp(timestamp_ms / 1000):%H:%M:%S.%f}"[:-3] + " "
    name = "" if function is None else f"{function} "
    line = line.rstrip("\n") if parse_failure(line) else line.removesuffix("\n")
    if not console.is_terminal:  # rich would expand the tabs
        typer.echo(f"{moment}{name}{line}", file=console.file)
        return
    colour = _COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]
    style = "red" if parse_failure(line) else "dim" if is_platform_line(line) else ""
    text = Text.assemble((moment, "dim"), (name, colour), (line, style))
    console.print(text, soft_wrap=True)


def say(text: str) -> None:
    """A line about what is being done, beside the output."""
    typer.echo(f"{text} ...", err=True)
