"""The seam between the lab and a scenario whose functions are called: all that the lab asks of one.

A scenario's ``scenario.py``, beside its template, has a ``SCENARIO`` of a class of its own, made from ``CallScenario``;
no list names it. What the class leaves out has the meaning that most scenarios need.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from lambdalab.design.cells import LAB_FACTORS, LANGUAGE, Cell, Design, Level
from lambdalab.pricing.costs import PriceSheet
from lambdalab.records.calls import Call, Outcome

LEAST_MEMORY_MB: Final = 128
EXPECTED_MS: Final = 100.0
_DESIGN: Final = "design"
_NO_SETTINGS: Final = (_DESIGN, LANGUAGE, "project")
"""Tags that the lab reads or every stack of the project has; those with a colon are AWS's own."""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A measure whose effects are estimated: its name in ``measures``, its words, its unit (``ms``, ``MB/s``).

    ``lower_is_better`` None: neither is.
    """

    measure: str
    words: str
    unit: str
    lower_is_better: bool | None = True


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """What costs and throughput are related to, such as bytes by the GB: sum of a measure over valid calls, divided.

    ``rate`` is how it is written per second (``MB/s``), with ``rate_divisor`` for that unit.
    """

    measure: str
    words: str
    divisor: int
    rate: str
    rate_divisor: int


class CallScenario:
    """What the lab asks of a scenario. Faults are triples as in ``protocol.py``: key, value, next step.

    ``aws`` is a ``clients.Aws``, untyped so that whoever reads results needs no AWS; its failures may pass.
    """

    languages: tuple[str, ...] = ("python",)
    """Those there is a function of."""
    default_protocol: str = ""
    """What is run without ``--protocol``; empty: the one of the scenario's name."""
    sources: Mapping[str, str] = {}
    """The folder of each language's function, which pins its SDK; relative to the scenario's."""
    responses: tuple[Response, ...] = ()
    volumes: tuple[Volume, ...] = ()

    def function_output(self, language: str) -> str:
        """The stack's output that names the function of a language."""
        return f"{language.capitalize()}FunctionName"

    def log_group_output(self, language: str) -> str:
        """The stack's output that names its log group."""
        return f"{language.capitalize()}LogGroupName"

    def deployed(
        self,
        variables: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> tuple[str, Mapping[str, Level | None]]:
        """Of a function that was deployed for one cell: its design, and all its settings; None of what it lacks.

        By default both come from its tags: ``design``, and a tag for each setting.
        """
        settings = {name: _level(text) for name, text in tags.items() if name not in _NO_SETTINGS and ":" not in name}
        return tags.get(_DESIGN, ""), settings

    def faults(self, design: Design, key: str) -> Iterator[tuple[str, object, str]]:
        """What is wrong with a design's factors and settings, those of the lab left out."""
        yield from ()

    def least_memory_mb(self, design: Design, cell: Cell) -> int:
        """What the function needs for a cell, as far as it is known before."""
        return LEAST_MEMORY_MB

    def event(self, design: Design, cell: Cell, *, run_id: str, seed: int) -> Mapping[str, object]:
        """The event of one call; ``seed`` is drawn for each call and the same when the run is repeated.

        By default the design's settings and the cell's levels, without those of the lab.
        """
        return {**design.settings, **{name: level for name, level in cell.levels.items() if name not in LAB_FACTORS}}

    def read(self, answer: object) -> Outcome:
        """What an answer, decoded, says. Never raises: what cannot be read is a fault."""
        return Outcome(measures={}, amounts={"calls": 1})

    def ready(self, aws: Any, outputs: Mapping[str, str]) -> None:
        """Looks whether what the functions need beside themselves is there, before the first call.

        Raises:
            StackError: it is not.
        """

    def verify(self, aws: Any, design: Design, cell: Cell, calls: list[Call]) -> dict[str, bool]:
        """Whether what the calls of a cell wrote is there, exactly as asked, and nothing else is left of them.

        By ``call_id``; calls that wrote nothing and left nothing are left out.
        """
        return {}

    def remove(self, aws: Any, calls: list[Call]) -> None:
        """Deletes what calls wrote; only asked where an emulator keeps it in memory."""

    def orphans(
        self,
        aws: Any,
        outputs: Mapping[str, str],
        run_id: str,
        calls: list[Call],
        *,
        remove: bool,
    ) -> list[str]:
        """What calls of a run began to write and neither ended nor answered for, such as those that ran out of time.

        ``remove``: it is done away with, too.
        """
        return []

    def costs_usd(self, sheet: PriceSheet, amounts: Mapping[str, int]) -> dict[str, Decimal | None]:
        """What a call costs beside Lambda and its log, by component (``requests`` …)."""
        return {}

    def monthly_usd(self, sheet: PriceSheet, designs: tuple[Design, ...]) -> dict[str, Decimal | None]:
        """What is billed by the month as soon as one call was made, however many, by component."""
        return {}

    def lab_usd(self, sheet: PriceSheet, *, calls: int, cells: int) -> Decimal | None:
        """What verifying so many calls in so many cells costs."""
        return Decimal()

    def expected_amounts(self, design: Design, levels: Mapping[str, Level]) -> Mapping[str, int]:
        """Of one call of a cell, for the plan."""
        return {}

    def expected_ms(self, design: Design, levels: Mapping[str, Level], memory_mb: int) -> float:
        """How long one warm call is assumed to run where nobody measured it."""
        return EXPECTED_MS

    def notes(self) -> tuple[str, ...]:
        """What a reader of the costs must know: what is assumed, and what is not in them."""
        return ()

    def assumed(self) -> str:
        """What ``expected_ms`` assumes, for whoever reads a plan."""
        return f"a warm call is assumed to run for {EXPECTED_MS:g} ms, since nobody measured one"


def _level(text: str) -> Level:
    return int(text) if text.isdecimal() else text
