"""Tables in the terminal, printed whole: where it is narrower, it breaks the lines, and no number loses a digit."""

from collections.abc import Iterable
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table

_WIDEST: Final = 1000


def new_table(*words: str, numbers: Iterable[str]) -> Table:
    """An empty table: the headings of its columns of words, then of its columns of numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for heading in words:
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def print_whole(console: Console, parts: Group) -> None:
    """Prints texts at the console's width and tables at theirs."""
    width = console.width
    unbounded = console.options.update(max_width=_WIDEST)
    for part in parts.renderables:
        if isinstance(part, Table):
            console.width = max(width, Measurement.get(console, unbounded, part).maximum)
        console.print(part)
        console.width = width
