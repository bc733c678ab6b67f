"""Prints tables whole: where the terminal is narrower, it breaks the lines, and no number loses a digit."""

from typing import Final

from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table

_WIDEST: Final = 1000


def print_whole(console: Console, parts: Group) -> None:
    """Prints texts at the console's width and tables at theirs."""
    width = console.width
    unbounded = console.options.update(max_width=_WIDEST)
    for part in parts.renderables:
        if isinstance(part, Table):
            console.width = max(width, Measurement.get(console, unbounded, part).maximum)
        console.print(part)
        console.width = width
