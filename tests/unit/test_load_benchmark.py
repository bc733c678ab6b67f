"""``python -m benchmarks.load`` without a stack: arguments, order of the steps, table, CPU use and profiles."""

import os
import sys

import pytest

from benchmarks.load import __main__ as command
from benchmarks.load.end_to_end import RATES, highest, row, steps
from benchmarks.load.processes import PARTS, SINGLE, Reading, Use, use_between
from benchmarks.load.profiles import own_samples
from benchmarks.load.stack import Emulator
from benchmarks.load.step import Asked, Step

BOTH = (Emulator.LAB, Emulator.STOCK)
CORES = os.cpu_count() or 1


def asked(rate: int, emulator: Emulator = Emulator.LAB, language: str = "go") -> Asked:
    return Asked(language=language, emulator=emulator, rate=rate, seconds=10)


def used(idle: float = CORES / 2, **cpu: float) -> Use:
    return Use(cpu=dict.fromkeys(PARTS, 0.1) | cpu, wait=dict.fromkeys(SINGLE, 0.05), idle=idle)


def measured(drain_s: float | None = 1.25, of: Asked | None = None) -> Step:
    use = used(plane=0.87, idle=CORES - 1.52)
    return Step(
        asked=of or asked(1600), environments=60, offered_per_s=1600.0, sent_per_s=1599.5, done_per_s=654.25,
        sent=16_000, processed=16_000, still_queued=0, lost=0, backlog=9_450, drain_s=drain_s, use=use,
        limits=("plane",), faults=(),
    )  # fmt: skip


def test_two_emulators_are_measured_in_turns_at_every_rate() -> None:
    found = list(steps(("go", "python"), (10, 20), 3, BOTH))
    order = [(step.language, step.rate, step.emulator.value) for step in found]
    assert order == [
        *(("go", 10, "lab"), ("go", 10, "stock"), ("go", 20, "stock"), ("go", 20, "lab")),
        *(("python", 10, "lab"), ("python", 10, "stock"), ("python", 20, "stock"), ("python", 20, "lab")),
    ]
    assert {step.seconds for step in found} == {3}


def test_each_language_has_its_own_rates_unless_some_are_asked_for() -> None:
    assert [step.rate for step in steps(("go", "python"), None, 10, BOTH[:1])] == [*RATES["go"], *RATES["python"]]


def test_cpu_use_is_that_between_two_moments_also_where_no_reading_was_taken() -> None:
    def reading(at_s: float, cpu_s: float, wait_s: float) -> Reading:
        return Reading(at_s * 1000, dict.fromkeys((*PARTS, "idle"), cpu_s), dict.fromkeys(SINGLE, wait_s))

    readings = [reading(0, 5, 0), reading(2, 5, 0), reading(4, 6, 0.5), reading(6, 9, 0.5)]
    use = use_between(readings, 3000, 5000)
    assert use.cpu == dict.fromkeys(PARTS, 1.0)  # from 5.5 s to 7.5 s
    assert use.wait == dict.fromkeys(SINGLE, 0.125)
    assert use.idle == 1.0


@pytest.mark.parametrize(
    ("use", "limits"),
    [
        (used(), ()),
        (used(plane=0.84), ()),
        (used(plane=0.86), ("plane",)),
        (used(emulator=0.99, sender=0.9), ("emulator", "sender")),
        (used(functions=1.9), ()),
        (used(idle=0.05 * CORES, functions=1.5), (f"all {CORES} cores",)),
    ],
)
def test_a_limit_is_a_process_with_work_for_a_whole_core_or_a_machine_without_an_idle_one(
    use: Use, limits: tuple[str, ...]
) -> None:
    assert use.limits == limits


def test_a_step_is_a_row_of_the_table() -> None:
    cells = "0.10 | 0.87 | 0.10 | 0.10 | 0.10 | 0.25"
    assert row(measured()) == f"| go | lab | 1,600.0 | 1,599.5 | 654.2 | 9,450 | 1.2 | {cells} | plane |"
    assert "| 9,450 | over 60 |" in row(measured(drain_s=None))


def test_the_highest_rate_of_each_language_and_emulator_is_profiled() -> None:
    every = [asked(20), asked(10), asked(30, Emulator.STOCK), asked(5, language="python")]
    found = highest([measured(of=one) for one in every])
    assert {(s.asked.language, s.asked.emulator.value, s.asked.rate) for s in found} == {
        ("go", "lab", 20),
        ("go", "stock", 30),
        ("python", "lab", 5),
    }


def test_own_samples_are_those_of_the_innermost_frame() -> None:
    stacks = "main (a.py:1);run (b.py:2) 3\nmain (a.py:1) 2\nmain (a.py:1);call me (c.py:3);run (b.py:2) 4\n"
    assert own_samples(stacks) == {"run (b.py:2)": 7, "main (a.py:1)": 2}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--end-to-end", "--rates", "100,0"), "'0' is no whole number above 0"),
        (("--end-to-end", "--seconds", "1.5"), "'1.5' is no whole number above 0"),
        (("--end-to-end", "--languages", "go,rust"), "'rust' is no language; choose from go,python"),
        (("--end-to-end", "--stock-emulator", "none"), "invalid choice: 'none'"),
        (("--end-to-end", "--json", "/no/such/folder/a.json"), "there is no folder '/no/such/folder'"),
        (("--rates", "100"), "every other option needs --end-to-end"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["load", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
