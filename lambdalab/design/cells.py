"""What a factorial protocol asks for: designs, their factors, the cells these make. Frozen; numbers carry units.

Words: a *factor* is what varies, a *level* one of its values, a *cell* one combination of levels, a *design* the cells
of one kind of work, a *block* every cell once, in an order drawn anew.
"""

import math
from collections.abc import Iterator
from typing import Final

import msgspec

from lambdalab.design.arms import Caps, Stop
from lambdalab.design.fractions import combined

Level = int | str
LANGUAGE: Final = "language"
MEMORY_MB: Final = "memory_mb"
CALLERS: Final = "callers"
RESERVED_CONCURRENCY: Final = "reserved_concurrency"
LAB_FACTORS: Final = (LANGUAGE, MEMORY_MB, CALLERS, RESERVED_CONCURRENCY)
"""What the lab itself varies. The function's memory; how many callers call at once, each waiting for its answer; and
the reserved concurrency, 0 being none. Every other factor is the scenario's, and travels in the event."""


_FEW_ROUNDS: Final = 4
"""Fewer calls of each caller in a cell, and how late the last one ends is much of the time of all."""


class Design(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cells of one kind of work.

    ``invocations`` is how many calls a cell gets in each block, ``settings`` what is the same in all its cells;
    ``fraction`` 2 or 3 measures a half or a third of the combinations (``fractions.py``), 1 all. ``functions`` were
    found, with their levels (``discovery.py``); then they are the cells, each at every number of callers.
    """

    label: str
    invocations: int
    factors: dict[str, tuple[Level, ...]]
    settings: dict[str, Level] = {}
    fraction: int = 1
    functions: dict[str, dict[str, Level]] = {}

    @property
    def languages(self) -> tuple[str, ...]:
        """Of its functions."""
        return tuple(str(level) for level in self.factors[LANGUAGE])

    @property
    def cells(self) -> "tuple[Cell, ...]":
        """Every combination of the factors' levels that is measured, the last factor varying fastest."""
        if self.functions:
            return tuple(
                Cell(design=self.label, levels={**levels, CALLERS: callers}, function=name)
                for name, levels in self.functions.items()
                for callers in self.factors[CALLERS]
            )
        names = tuple(self.factors)
        return tuple(
            Cell(design=self.label, levels=dict(zip(names, levels, strict=True)))
            for levels in combined(self.factors, self.fraction)
        )

    @property
    def cautions(self) -> Iterator[str]:
        """What its numbers of callers do to throughput, which is over the time from first begin to last end."""
        many = [int(callers) for callers in self.factors.get(CALLERS, ()) if int(callers) > 1]
        rounds = {callers: math.ceil(self.invocations / callers) for callers in many}
        for callers, of in rounds.items():
            if self.invocations % callers:
                yield (
                    f"{self.label}: {self.invocations} invocations are no multiple of {callers} callers, some of whom "
                    f"have none in the last round, so throughput can grow {self.invocations / of:.3g} times at most"
                )
        if few := [f"{of} with {callers} callers" for callers, of in rounds.items() if of < _FEW_ROUNDS]:
            yield (
                f"{self.label}: a cell is so few rounds of calls in a block ({', '.join(few)}) that one late call "
                "reads as poor scaling of throughput"
            )

    @property
    def cells_in_words(self) -> str:
        """How many are measured, and of how many when it is a fraction."""
        count = len(self.cells)
        return f"{count:,}" if self.fraction == 1 else f"{count:,} of {self.fraction * count:,}"


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One combination of levels; ``function`` when one was deployed for it, whose configuration is left alone."""

    design: str
    levels: dict[str, Level]
    function: str | None = None

    @property
    def name(self) -> str:
        """As it is called in files and on the page, such as ``events language=go memory_mb=512``."""
        return " ".join([self.design, *(f"{factor}={level}" for factor, level in self.levels.items())])

    @property
    def language(self) -> str:
        return str(self.levels[LANGUAGE])

    @property
    def called(self) -> str:
        """Under which name a run keeps whom it calls: the function that was found, else the language."""
        return self.function or self.language

    @property
    def memory_mb(self) -> int | None:
        """None: as deployed."""
        level = self.levels.get(MEMORY_MB)
        return None if level is None else int(level)

    @property
    def callers(self) -> int:
        return int(self.levels.get(CALLERS, 1))

    @property
    def reserved_concurrency(self) -> int | None:
        """None: as deployed; 0: none."""
        level = self.levels.get(RESERVED_CONCURRENCY)
        return None if level is None else int(level)


class FactorialProtocol(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A protocol file of a scenario whose functions are called directly.

    ``blocks`` is how many there are; with ``stop``, how many there may be.

    ``function_prefix`` is how functions were found; no file has it.
    """

    name: str
    scenario: str
    description: str
    blocks: int
    designs: tuple[Design, ...]
    stop: Stop | None = None
    caps: Caps = Caps()
    function_prefix: str | None = None

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Of all designs."""
        return tuple(cell for design in self.designs for cell in design.cells)

    def design(self, cell: Cell) -> Design:
        """To which a cell belongs."""
        return next(design for design in self.designs if design.label == cell.design)

    @property
    def calls(self) -> int:
        """How many are measured in all; the calls that warm up are not among them."""
        return self.blocks * sum(design.invocations * len(design.cells) for design in self.designs)
