"""How fast messages go through a local stack: SQS, plane, function and DynamoDB, at constant rates, step by step.

Each step has a stack of its own, with load settings and warm environments, and is a run of ``lambdalab load``; its
figures are those of the run's books.
"""

import os
import platform
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.load.processes import PARTS
from benchmarks.load.profiles import Profile, profile, require_py_spy
from benchmarks.load.stack import MAXIMUM_CONCURRENCY, Emulator
from benchmarks.load.step import DRAIN_LIMIT_S, Asked, Step, measure
from lambdalab.report.console import say

RATES: Final = {"go": (100, 200, 400, 800, 1000, 1600), "python": (50, 100, 200, 300)}
"""Messages per second of the steps of each language."""
SECONDS: Final = 10
_HEADS: Final = (
    *("function", "emulator", "offered/s", "sent/s", "done/s", "backlog", "empty after s"),
    *(f"{part}, cores" for part in (*PARTS, "others")),
    "limit",
)


class Result(msgspec.Struct, kw_only=True):
    """Everything that was measured, and on what; the file of ``--json``. ``load`` is the machine's as it began."""

    date: str
    cores: int
    system: str
    python: str
    load: float
    maximum_concurrency: int = MAXIMUM_CONCURRENCY
    steps: list[Step] = []
    profiles: list[tuple[Asked, Profile]] = []


def run(
    languages: Sequence[str],
    rates: Sequence[int] | None,
    seconds: int,
    emulators: Sequence[Emulator],
    *,
    json_file: Path | None,
    profiled: bool,
) -> None:
    """Measures every step and prints it.

    Args:
        languages: of the functions.
        rates: messages per second of the steps; None is ``RATES`` of each language.
        seconds: how long each is offered.
        emulators: how the emulator is served; with two, each step is measured with both, in turns.
        json_file: where the figures are written after every step.
        profiled: profile the highest step of each language once more.

    Raises:
        LambdalabError: a stack cannot be brought up, a run closed no books, or py-spy does not work.
    """
    if profiled:
        require_py_spy()
    result = Result(
        date=str(date.today()),
        cores=os.cpu_count() or 1,
        system=f"Linux {platform.release()}",
        python=platform.python_version(),
        load=os.getloadavg()[0],
    )
    print(f"{result.date}, {result.cores} cores, {result.system}, Python {result.python}, load {result.load:.1f}")
    print(f"messages of one item of 1,024 bytes, MaximumConcurrency {MAXIMUM_CONCURRENCY}, {seconds} s each\n")
    print(f"| {' | '.join(_HEADS)} |\n|{'---|' * len(_HEADS)}", flush=True)
    for asked in steps(languages, rates, seconds, emulators):
        step = measure(asked)
        result.steps.append(step)
        _write(json_file, result)
        print(row(step), flush=True)
        for fault in step.faults:
            say(f"{asked}: {fault}")
    for step in highest(result.steps) if profiled else ():
        found = profile(step)
        result.profiles.append((step.asked, found))
        _write(json_file, result)
        print(f"\n{step.asked}: own time in the {found.part}, {found.samples:,} samples\n")
        print("| own time | function |\n|---|---|")
        for function, share in found.top:
            print(f"| {share:.1%} | `{function}` |", flush=True)


def steps(
    languages: Sequence[str], rates: Sequence[int] | None, seconds: int, emulators: Sequence[Emulator]
) -> Iterator[Asked]:
    """The steps in the order they are measured. Which of two emulators is first changes from rate to rate."""
    for language in languages:
        for number, rate in enumerate(rates or RATES[language]):
            for emulator in emulators if number % 2 == 0 else reversed(emulators):
                yield Asked(language=language, emulator=emulator, rate=rate, seconds=seconds)


def row(step: Step) -> str:
    """A step as a line of the table."""
    drain = f"over {DRAIN_LIMIT_S:.0f}" if step.drain_s is None else f"{step.drain_s:.1f}"
    rates = ["-" if rate is None else f"{rate:,.1f}" for rate in (step.offered_per_s, step.sent_per_s, step.done_per_s)]
    cores = [f"{use:.2f}" for use in (*(step.use.cpu[part] for part in PARTS), step.use.others)]
    asked = [step.asked.language, str(step.asked.emulator)]
    limit = ", ".join(step.limits) or "none"
    return f"| {' | '.join([*asked, *rates, f'{step.backlog:,}', drain, *cores, limit])} |"


def highest(measured: Sequence[Step]) -> list[Step]:
    """The step with the highest rate of each language and emulator."""
    found: dict[tuple[str, Emulator], Step] = {}
    for step in sorted(measured, key=lambda step: step.asked.rate):
        found[step.asked.language, step.asked.emulator] = step
    return list(found.values())


def _write(json_file: Path | None, result: Result) -> None:
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
