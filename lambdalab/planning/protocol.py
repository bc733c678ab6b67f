"""A protocol file to a seeded, ordered schedule: every trial is known before anything is spent.

The design is randomised interleaved blocks: one block holds every arm once, in an order drawn anew for each block,
so that a slow drift of the machine or the service meets all arms alike (Abedi & Brecht, ICPE 2017; Grambow et al.,
WoSC 2023). Inside an arm the loads keep the order of the file.
"""

import itertools
import random
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lambdalab.design.arms import Caps, Factors, Items, Load, Mode, Protocol, Start, Stop
from lambdalab.errors import ProtocolError
from lambdalab.project import PROTOCOLS, scenario_folder, scenario_folders
from lambdalab.records.trials import Trial
from lambdalab.settings_file import choose, locate, read
from lambdalab.statistics.estimates import smallest_n

LANGUAGES_OF_SCENARIO = {"ingest": ("python", "go")}
"""In which languages each scenario has a function."""

MEMORY_MB = range(128, 10_241)
"""What Lambda offers."""

BATCH_SIZES = range(1, 11)
"""What a mapping takes without a batching window, and one SendMessageBatch."""

MAX_BLOCKS = 10_000
MIN_PRECISION = 0.001
MAX_SIZE_BYTES = 400_000  # this and the next two: what contracts/message.schema.json lets a message ask for
MAX_COUNT = 4_096
MAX_VOLUME_BYTES = 67_108_864  # size x count

_BUILD = re.compile(r"[A-Za-z0-9.]{1,32}")
LABEL = re.compile(r"[A-Za-z0-9._:-]{1,64}")
"""The characters of a batch_id, which is made from it."""


class _Header(msgspec.Struct):
    """As much of a protocol file as those of every scenario have."""

    scenario: str


def protocol_file(name_or_path: str | Path, scenario: str | None = None) -> Path:
    """The file of a protocol: ``strict`` means ``protocols/strict.toml`` of a scenario, anything else is a path.

    Args:
        name_or_path: which.
        scenario: the one whose protocols come first; by default that of the current folder. Those of the others
            follow, so that a command for the wrong scenario can be told the right one.

    Raises:
        ProtocolError: no scenario has a protocol of that name.
    """

    def roots() -> list[Path]:
        folders = scenario_folders()
        first = scenario_folder() if scenario is None else folders.get(scenario, scenario_folder())
        return [first, *(folder for folder in folders.values() if folder != first)]

    return locate(name_or_path, PROTOCOLS, ProtocolError, roots)


def scenario_of(name_or_path: str | Path, scenario: str | None = None) -> str:
    """For which scenario a protocol is, whatever else it says. Arguments and errors are those of ``load_protocol``."""
    return read(protocol_file(name_or_path, scenario), _Header, ProtocolError).scenario


def load_protocol(name_or_path: str | Path, scenario: str | None = None) -> Protocol:
    """Read and check a protocol.

    Args:
        name_or_path: as for ``protocol_file``.
        scenario: as for ``protocol_file``.

    Raises:
        ProtocolError: the file is absent or something in it is wrong; tells file, key, value and next step.
    """
    path = protocol_file(name_or_path, scenario)
    protocol = read(path, Protocol, ProtocolError)
    check_protocol(protocol, str(path))
    return protocol


def check_protocol(protocol: Protocol, source: str) -> None:
    """Refuses a protocol that cannot be run.

    Raises:
        ProtocolError: something in it is wrong; tells the source, key, value and next step.
    """
    refuse_faults(_faults(protocol), source)


def refuse_faults(faults: Iterator[tuple[str, object, str]], source: str) -> None:
    """Words the first fault: the key, its value, and what to write instead.

    Raises:
        ProtocolError: there is one.
    """
    for key, value, next_step in faults:
        shown = f'"{value}"' if isinstance(value, str) else "missing" if value is None else value
        shown = list(shown) if isinstance(shown, tuple) else shown
        raise ProtocolError(f"{source}: {key} is {shown}", next_step=next_step)


def schedule(protocol: Protocol, seed: int) -> tuple[Trial, ...]:
    """Plan all trials in order of execution: those of ``planned_blocks``, to the last block there may be."""
    return tuple(trial for block in planned_blocks(protocol, seed) for trial in block)


def planned_blocks(protocol: Protocol, seed: int) -> Iterator[tuple[Trial, ...]]:
    """Plan block after block; the same protocol and seed always give the same ones, however many are executed.

    The order of the arms is a sort by keys from ``random.Random(seed).random()``: that sequence is the only one the
    Python documentation promises to keep across versions ("Notes on Reproducibility"), which ``shuffle`` is not.
    Blocks count from 1, positions from 0; a trial is called ``b01-python-WARMUP``.
    """
    draw = random.Random(seed).random  # noqa: S311 - an experiment's order, not a secret
    width = max(2, len(str(protocol.blocks)))
    positions = itertools.count()
    names = [arm.name for arm in protocol.arms]
    for block in range(1, protocol.blocks + 1):
        yield tuple(
            Trial(
                trial_id=f"b{block:0{width}d}-{arm}-{load.label}",
                block=block,
                position=next(positions),
                arm=arm,
                load=load,
            )
            for arm in sorted(names, key=lambda _: draw())
            for load in protocol.loads
        )


def _faults(protocol: Protocol) -> Iterator[tuple[str, object, str]]:
    """Find what types cannot say: the key, its value, and what to write instead."""
    languages = LANGUAGES_OF_SCENARIO.get(protocol.scenario)
    if languages is None:
        yield "scenario", protocol.scenario, choose(protocol.scenario, LANGUAGES_OF_SCENARIO)
        return
    if not LABEL.fullmatch(protocol.name):
        yield "name", protocol.name, "use 1 to 64 letters, digits and . _ : -"
    if not 1 <= protocol.blocks <= MAX_BLOCKS:
        yield "blocks", protocol.blocks, f"write a number from 1 to {MAX_BLOCKS}"
    if protocol.stop is not None:
        yield from stop_faults(protocol.stop, protocol.blocks)
    yield from caps_faults(protocol.caps)
    yield from _factor_faults(protocol.factors, languages)
    if not protocol.loads:
        yield "loads", [], "describe at least one in a [[loads]] table"
    labels = [load.label for load in protocol.loads]
    for i, load in enumerate(protocol.loads):
        if load.label in labels[:i]:
            yield f"loads[{i}].label", load.label, "give each load its own label; results are grouped by it"
        yield from _load_faults(f"loads[{i}]", load, first=i == 0)


def stop_faults(stop: Stop, blocks: int) -> Iterator[tuple[str, object, str]]:
    """Find the faults of the stop rule."""
    if not MIN_PRECISION <= stop.precision < 1:
        yield "stop.precision", stop.precision, f"write a share of the median from {MIN_PRECISION} to below 1"
    if not smallest_n(0.95) <= stop.min_blocks <= blocks:
        yield (
            "stop.min_blocks",
            stop.min_blocks,
            f"write a number from {smallest_n(0.95)}, the fewest with a 95 % interval, to blocks",
        )


def caps_faults(caps: Caps) -> Iterator[tuple[str, object, str]]:
    """Find the faults of the caps: a cap of nothing is no run."""
    for name in ("samples", "attempts"):
        value = getattr(caps, name)
        if value is not None and not 1 <= value <= MAX_BLOCKS:
            yield f"caps.{name}", value, f"write a number from 1 to {MAX_BLOCKS}"
    for name in ("minutes", "usd"):
        value = getattr(caps, name)
        if value is not None and not 0 < float(value) <= MAX_BLOCKS:
            yield f"caps.{name}", value, f"write a number above 0, {MAX_BLOCKS} at most"


def _factor_faults(factors: Factors, languages: tuple[str, ...]) -> Iterator[tuple[str, object, str]]:
    """Find the faults of the factors: levels that are not there, and levels named twice."""
    for name in ("language", "mode"):
        if not getattr(factors, name):
            known = languages if name == "language" else tuple(Mode)
            yield f"factors.{name}", [], f"name at least one of: {', '.join(known)}"
    for i, language in enumerate(factors.language):
        if language not in languages:
            yield f"factors.language[{i}]", language, choose(language, languages)
    for i, memory_mb in enumerate(factors.memory_mb):
        if memory_mb not in MEMORY_MB:
            yield f"factors.memory_mb[{i}]", memory_mb, f"write a number from {MEMORY_MB[0]} to {MEMORY_MB[-1]}"
    for i, batch_size in enumerate(factors.batch_size):
        if batch_size not in BATCH_SIZES:
            told = f"write a number from {BATCH_SIZES[0]} to {BATCH_SIZES[-1]}; more needs a batching window"
            yield f"factors.batch_size[{i}]", batch_size, told
    for i, build in enumerate(factors.build):
        if not _BUILD.fullmatch(build):
            yield f"factors.build[{i}]", build, "use 1 to 32 letters, digits and ."
    if factors.build and factors.architecture:
        yield "factors.architecture", list(factors.architecture), "leave it or factors.build out; each is a build"
    for name in factors.__struct_fields__:
        levels = getattr(factors, name)
        for i, level in enumerate(levels):
            if level in levels[:i]:
                yield f"factors.{name}[{i}]", level, "name each level once; a block holds every arm once"


def _load_faults(key: str, load: Load, *, first: bool) -> Iterator[tuple[str, object, str]]:
    """Find the faults of one load: the first of an arm meets a new environment, the others the same one, warm."""
    yield from items_faults(key, load)
    if first and load.start is Start.WARM:
        yield f"{key}.start", load.start.value, 'write "cold"; the first load of an arm meets a new environment'
    if not first and load.start is Start.COLD:
        yield f"{key}.start", load.start.value, 'write "warm"; only the first load of an arm meets a new environment'


def items_faults(key: str, items: Items) -> Iterator[tuple[str, object, str]]:
    """Find what a message must not ask for: the key, its value, and what to write instead."""
    if not LABEL.fullmatch(items.label):
        yield f"{key}.label", items.label, "use 1 to 64 letters, digits and . _ : -"
    if not 1 <= items.size_bytes <= MAX_SIZE_BYTES:
        yield f"{key}.size_bytes", items.size_bytes, f"write a number from 1 to {MAX_SIZE_BYTES}"
    if not 1 <= items.count <= MAX_COUNT:
        yield f"{key}.count", items.count, f"write a number from 1 to {MAX_COUNT}"
    volume = items.size_bytes * items.count
    if volume > MAX_VOLUME_BYTES:
        yield f"{key}.size_bytes x count", volume, f"stay within {MAX_VOLUME_BYTES} bytes a message"
