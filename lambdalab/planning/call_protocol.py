"""A factorial protocol file to a seeded, ordered schedule: every call is known before the first.

The design is randomised blocks, as in ``lambdalab.planning.protocol``: a block holds every cell of every design once.
Each block draws an order of its own, so that a slow drift of the machine or the service meets all cells alike.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from lambdalab.design.cells import (
    CALLERS,
    LAB_FACTORS,
    LANGUAGE,
    MEMORY_MB,
    RESERVED_CONCURRENCY,
    Cell,
    Design,
    FactorialProtocol,
    Level,
)
from lambdalab.design.fractions import FEWEST_FACTORS, FRACTIONS, fractionated
from lambdalab.errors import ProtocolError
from lambdalab.planning.protocol import LABEL, MAX_BLOCKS, caps_faults, protocol_file, refuse_faults, stop_faults
from lambdalab.planning.protocol import MEMORY_MB as MEMORY_SIZES
from lambdalab.scenario.base import CallScenario
from lambdalab.scenario.found import call_scenario, call_scenarios
from lambdalab.settings_file import choose, read

MAX_INVOCATIONS: Final = 10_000
MAX_CALLS: Final = 1_000_000
_CALLERS: Final = range(1, 1001)
"""At most the concurrency an account has by default."""
_RESERVED: Final = range(1000)
_SEEDS: Final = 2**53
"""What every reader of JSON keeps exactly."""


class PlannedCall(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One call; ``seed`` is its own."""

    call_id: str
    seed: int
    warmup: bool


class PlannedCell(msgspec.Struct, frozen=True, kw_only=True):
    """A cell in a block, ``place`` from 1. Its calls in order: first those that warm up, one for each caller."""

    block: int
    place: int
    cell: Cell
    design: Design
    calls: tuple[PlannedCall, ...]


def load_protocol(name_or_path: str | Path, scenario: str | None = None) -> FactorialProtocol:
    """Reads and checks a protocol.

    Args:
        name_or_path: as for ``lambdalab.planning.protocol.protocol_file``.
        scenario: likewise.

    Raises:
        ProtocolError: the file is absent or something in it is wrong; tells file, key, value and next step.
        UsageError: its scenario's Python is wrong.
    """
    path = protocol_file(name_or_path, scenario)
    protocol = read(path, FactorialProtocol, ProtocolError)
    if protocol.function_prefix is not None or any(design.functions for design in protocol.designs):
        raise ProtocolError(
            f"{path} names functions", next_step="leave functions and function_prefix out, and use --function-prefix"
        )
    check_protocol(protocol, str(path))
    return protocol


def check_protocol(protocol: FactorialProtocol, source: str) -> None:
    """Refuses a protocol that cannot be run.

    Raises:
        ProtocolError: something in it is wrong; tells the source, key, value and next step.
    """
    refuse_faults(_faults(protocol), source)


def schedule(protocol: FactorialProtocol, seed: int) -> Iterator[PlannedCell]:
    """Plans block after block; the same protocol and seed always give the same plan, however much of it is executed.

    Order and seeds come from ``random.Random(seed).random()``, as in ``protocol.planned_blocks``. Blocks, places and
    calls count from 1; the fourth call of the seventeenth cell of block 2 is ``b02-017-0004``, and the
    first of those that warm it up ``b02-017-w001``.
    """
    draw = random.Random(seed).random  # noqa: S311 - an experiment's order, not a secret
    width = max(2, len(str(protocol.blocks)))
    designs = {design.label: design for design in protocol.designs}
    for block in range(1, protocol.blocks + 1):
        for place, cell in enumerate(sorted(protocol.cells, key=lambda _: draw()), start=1):
            design = designs[cell.design]
            ids = [f"w{number:03d}" for number in range(1, cell.callers + 1)]
            ids += [f"{number:04d}" for number in range(1, design.invocations + 1)]
            yield PlannedCell(
                block=block,
                place=place,
                cell=cell,
                design=design,
                calls=tuple(
                    PlannedCall(
                        call_id=f"b{block:0{width}d}-{place:03d}-{number}",
                        seed=int(draw() * _SEEDS),
                        warmup=number.startswith("w"),
                    )
                    for number in ids
                ),
            )


def _faults(protocol: FactorialProtocol) -> Iterator[tuple[str, object, str]]:
    """Finds what types cannot say: the key, its value, and what to write instead."""
    if protocol.scenario not in call_scenarios():
        yield "scenario", protocol.scenario, choose(protocol.scenario, call_scenarios())
        return
    scenario = call_scenario(protocol.scenario)
    if not LABEL.fullmatch(protocol.name):
        yield "name", protocol.name, "use 1 to 64 letters, digits and . _ : -"
    if not 1 <= protocol.blocks <= MAX_BLOCKS:
        yield "blocks", protocol.blocks, f"write a number from 1 to {MAX_BLOCKS}"
    if protocol.stop is not None:
        yield from stop_faults(protocol.stop, protocol.blocks)
    for name in ("samples", "attempts"):
        if (value := getattr(protocol.caps, name)) is not None:
            yield f"caps.{name}", value, "leave it out; calls are capped by minutes and usd, and counted by the design"
    yield from caps_faults(protocol.caps)
    if not protocol.designs:
        yield "designs", [], "describe at least one in a [[designs]] table"
    labels = [design.label for design in protocol.designs]
    for i, design in enumerate(protocol.designs):
        if design.label in labels[:i]:
            yield f"designs[{i}].label", design.label, "give each design its own label; results are grouped by it"
        yield from _design_faults(design, f"designs[{i}]", scenario)
    if protocol.calls > MAX_CALLS:
        yield "calls", protocol.calls, f"ask for {MAX_CALLS:,} at most: blocks x invocations x cells"


def _design_faults(design: Design, key: str, scenario: CallScenario) -> Iterator[tuple[str, object, str]]:
    if not LABEL.fullmatch(design.label):
        yield f"{key}.label", design.label, "use 1 to 64 letters, digits and . _ : -"
    if not 1 <= design.invocations <= MAX_INVOCATIONS:
        yield f"{key}.invocations", design.invocations, f"write a number from 1 to {MAX_INVOCATIONS}"
    if not design.factors.get(LANGUAGE):
        yield (
            f"{key}.factors.{LANGUAGE}",
            design.factors.get(LANGUAGE),
            f"name at least one of: {', '.join(scenario.languages)}",
        )
    for name, levels in design.factors.items():
        if not levels:
            yield f"{key}.factors.{name}", [], "name at least one level, or leave the factor out"
        for i, level in enumerate(levels):
            at = f"{key}.factors.{name}[{i}]"
            if level in levels[:i]:
                yield at, level, "name each level once; a block holds every cell once"
            if (told := _level_fault(name, level, design, scenario)) is not None:
                yield at, level, told
    if (told := _fraction_fault(design)) is not None:
        yield f"{key}.fraction", design.fraction, told
        return  # without it there are no cells to look at
    for name in LAB_FACTORS:
        if name in design.settings:
            yield f"{key}.settings.{name}", design.settings[name], f"write it as factors.{name}, with one level"
    yield from scenario.faults(design, key)
    for cell in design.cells:
        least_mb = scenario.least_memory_mb(design, cell)
        if cell.memory_mb is not None and cell.memory_mb < least_mb:
            yield f"{key}.factors.{MEMORY_MB}", cell.memory_mb, f"cell {cell.name} needs {least_mb} MB at least"


def _fraction_fault(design: Design) -> str | None:
    """What to write instead of a fraction; None when it is right."""
    if design.fraction == 1:
        return None
    if design.fraction not in FRACTIONS:
        return f"write {' or '.join(map(str, FRACTIONS))} for a half or a third of the cells, or leave it out"
    over = fractionated(design.factors, design.fraction)
    if len(over) < FEWEST_FACTORS:
        return (
            f"it takes {FEWEST_FACTORS} factors whose number of levels is a multiple of {design.fraction}, and "
            f"{design.label} has {' and '.join(over) or 'none'}; give more factors as many, or leave it out"
        )
    return None


def _level_fault(name: str, level: Level, design: Design, scenario: CallScenario) -> str | None:
    """What to write instead of a level of a factor of the lab; None when it is right, or the scenario's."""
    if name == LANGUAGE:
        return None if level in scenario.languages else choose(str(level), scenario.languages)
    ranges = {MEMORY_MB: MEMORY_SIZES, CALLERS: _CALLERS, RESERVED_CONCURRENCY: _RESERVED}
    if name not in ranges:
        return None
    if not isinstance(level, int) or level not in ranges[name]:
        none = ", 0 being none" if name == RESERVED_CONCURRENCY else ""
        return f"write a number from {ranges[name][0]} to {ranges[name][-1]}{none}"
    if name == CALLERS and level > design.invocations:
        return f"write at most invocations, which is {design.invocations}: more callers would have nothing to do"
    return None
