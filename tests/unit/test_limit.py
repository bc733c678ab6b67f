"""Which limit is named, by the figures of a run: one case for each rule, and for each pair of rules the earlier one."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec
import pytest
from samples import make_facts

from lambdalab.analysis.load_limit import figures_between, limit_now, limit_of, sender_limits, verdicts
from lambdalab.records.load import Figures, Limit, PipelineSample, QueueSample

TWO = {arm: make_facts(arm, maximum_concurrency=2, reserved_concurrency=None) for arm in ("go", "python")}
IDLE = QueueSample(visible=0, in_flight=0, dead_letters=0)


def look(at_s: float, sent: int = 0, **changes: Any) -> PipelineSample:
    sample = PipelineSample(
        at_ms=at_s * 1000, phase="hold", step=1, intended=sent, sent=sent, given_up=0, done=0, arms={"go": IDLE}
    )
    return msgspec.structs.replace(sample, **changes)


def figures(**changes: Any) -> Figures:
    """Of a step of 8 s in which python's queue grew and nothing reached its limit."""
    quiet = Figures(
        seconds=8.0,
        cores=2,
        machine=0.6,
        cpu={
            "emulator": 0.5,
            "plane": 0.2,
            "functions": 0.3,
            "sender": 0.05,
            "bookkeeper": 0.05,
            "other programs": 0.1,
        },
        work={"emulator": 0.6, "plane": 0.3},
        late=0.0,
        backlog_per_s={"go": 0.0, "python": 14.2},
        concurrency={"go": 1, "python": 2},
        places={"go": 2, "python": 2},
        places_busy={"go": 0.4, "python": 0.5},
    )
    return msgspec.structs.replace(quiet, **changes)


def named(
    found: Figures | None, *, behind: Collection[str] | None = ("python",), sender: tuple[str, ...] = (), **facts: Any
) -> Limit:
    functions = {arm: msgspec.structs.replace(one, **facts) for arm, one in TWO.items()}
    return limit_of(found, functions, sender=sender, behind=behind, step=3)


FULL_PLACES = {"places_busy": {"go": 0.4, "python": 0.98}}
OWN_CPU = FULL_PLACES | {"cpu_used": {"python": 0.97}}
STARVED = {"work": {"emulator": 0.97, "plane": 0.3}, "cpu": {"emulator": 0.17, "plane": 0.2}}
FULL_MACHINE = {
    "machine": 0.99,
    "cpu": {"emulator": 0.30, "plane": 0.82, "functions": 0.76, "sender": 0.06, "other programs": 0.04},
}
OWN_CORE = {"cpu": {"emulator": 0.97, "plane": 0.2}, "work": {"emulator": 1.0, "plane": 0.3}}
PYTHON = "2 of 2 environments of python were busy 98% of the time"
GREW = "backlog grew 14.2/s"
THROTTLED = f"were throttled a second, {GREW}"
CORES = "both cores 60% busy: emulator 25%, functions 15%, plane 10%, other programs 5%, sender 2%, bookkeeper 2%"
MACHINE = "both cores 99% busy: plane 41%, functions 38%, emulator 15%, sender 3%, other programs 2%"


@pytest.mark.parametrize(
    ("found", "what", "sentence"),
    [
        (figures(**OWN_CORE), "emulator", "the emulator in step 3: its process used 97% of one core"),
        (
            figures(cpu={"emulator": 0.91, "plane": 0.95}),
            "plane",
            "the plane in step 3: its process used 95% of one core",
        ),
        (figures(**FULL_MACHINE), "machine", f"the machine in step 3: {MACHINE}"),
        (
            figures(**STARVED),
            "emulator",
            "the emulator in step 3: its process had work 97% of the time, 17% on a core and 80% waiting for one",
        ),
        (
            figures(**FULL_PLACES),
            "concurrency",
            f"MaximumConcurrency in step 3: {PYTHON}, {GREW}",
        ),
        (
            figures(**OWN_CPU),
            "concurrency",
            f"MaximumConcurrency in step 3: {PYTHON} with 97% of the CPU that 128 MB allow, {GREW}",
        ),
        (
            figures(),
            "unknown",
            f"something that is not known in step 3: {GREW}; {CORES}",
        ),
    ],
)
def test_each_limit_is_named_with_its_figure(found: Figures, what: str, sentence: str) -> None:
    limit = named(found)
    assert (limit.what, limit.sentence) == (what, f"Limited by {sentence}.")
    assert (limit.step, limit.figures) == (3, found)


def test_nothing_limits_a_run_that_kept_its_rate() -> None:
    kept = named(figures(**FULL_PLACES), behind=())
    assert (kept.what, kept.sentence) == ("nothing", "Limited by nothing in step 3: the offered rate was kept.")
    assert named(figures(**FULL_MACHINE), behind=()).what == "nothing", "a full machine that keeps the rate is no limit"


def test_the_sender_comes_first_and_a_full_machine_is_said_beside_it() -> None:
    late = "20 of 1000 messages were begun more than 50 ms after they were due"
    assert named(figures(**OWN_CORE), sender=(late,)).sentence == f"Limited by the sender in step 3: {late}."
    full = named(figures(**FULL_MACHINE), sender=(late,))
    assert (full.what, full.sentence) == ("sender", f"Limited by the sender in step 3: {late}; {MACHINE}.")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (OWN_CORE | OWN_CPU, "concurrency"),
        (FULL_MACHINE | OWN_CPU, "concurrency"),
        (STARVED | OWN_CPU, "concurrency"),
        (FULL_MACHINE | OWN_CPU | {"cpu_used": {"python": 3.1}}, "machine"),
        (FULL_MACHINE | OWN_CPU | {"places_busy": {"python": 0.5}}, "machine"),
        (OWN_CORE | {"machine": 0.99}, "emulator"),
        (FULL_MACHINE | FULL_PLACES, "machine"),
        (STARVED | {"machine": 0.99}, "machine"),
        (STARVED | FULL_PLACES, "emulator"),
    ],
)
def test_the_earlier_rule_wins(changes: dict[str, Any], what: str) -> None:
    assert named(figures(**changes)).what == what


def test_a_full_machine_on_which_the_emulator_waits_for_a_core_names_both() -> None:
    found = figures(**STARVED | {"machine": 1.0})
    waited = "the emulator had work 97% of the time, 17% on a core and 80% waiting for one"
    assert named(found).sentence == (
        f"Limited by the machine in step 3: both cores 100% busy: plane 10%, emulator 8%; {waited}."
    )


@pytest.mark.parametrize(("changes", "what"), [(OWN_CORE, "emulator"), (STARVED | {"machine": 0.99}, "machine")])
def test_a_part_that_does_all_the_work_is_a_limit_though_the_rate_was_kept(changes: dict[str, Any], what: str) -> None:
    assert named(figures(**changes), behind=()).what == what


@pytest.mark.parametrize(
    ("changes", "facts", "sentence"),
    [
        (
            {"throttles_per_s": {"python": 35.0}},
            {"reserved_concurrency": 1},
            f"ReservedConcurrency in step 3: 35.0 invocations of python, which may have 1 environment, {THROTTLED}",
        ),
        (
            {"throttles_per_s": {"python": 3.0}},
            {},
            f"the account's concurrency in step 3: 3.0 invocations of python {THROTTLED}",
        ),
        (
            FULL_PLACES | {"places": {"python": 27}},
            {"maximum_concurrency": None},
            f"the scaling of the mapping in step 3: its 27 environments of python were busy 98% of the time, {GREW}",
        ),
        (  # on AWS CloudWatch has how many ran at once, and no CPU time is known
            {"places": {}, "places_busy": {}, "cpu": {}, "work": {}, "machine": None, "cores": None},
            {},
            f"MaximumConcurrency in step 3: 2 of 2 environments of python ran at once, {GREW}",
        ),
        (
            {"places": {}, "places_busy": {}, "cpu": {}, "work": {}, "machine": None, "cores": None},
            {"maximum_concurrency": 10},
            f"something that is not known in step 3: {GREW}; CPU was not measured",
        ),
    ],
)
def test_the_setting_that_bounds_the_functions_is_named(
    changes: dict[str, Any], facts: dict[str, Any], sentence: str
) -> None:
    assert named(figures(**changes), **facts).sentence == f"Limited by {sentence}."


def test_only_an_arm_that_fell_behind_is_held_back_by_its_concurrency() -> None:
    full_go = figures(places_busy={"go": 0.98, "python": 0.5})
    assert named(full_go).what == "unknown"
    assert "environments of go" in named(full_go, behind=("go", "python")).sentence


def test_what_was_not_looked_at_and_what_is_not_known_is_said() -> None:
    assert named(None).sentence == (
        "Limited by something that is not known in step 3: the growth of the backlog was not measured; "
        "CPU was not measured."
    )
    assert named(None, behind=None).sentence == (
        "Limited by something that is not known in step 3: no message is known to have been done."
    )


def test_figures_are_changes_a_second_from_the_first_look_to_the_last() -> None:
    """Two cores for 4 s: 6 s busy and 2 s idle; the emulator had a core for 2 s and waited 1 s for one."""
    before = look(
        10, sent=100, late=5, emulator_cpu_s=50.0, emulator_wait_s=7.0, plane_cpu_s=20.0, functions_cpu_s=30.0,
        sender_cpu_s=1.0, bookkeeper_cpu_s=0.5, busy_s=1000.0, idle_s=500.0,
        arms={
            "go": QueueSample(
                visible=3, in_flight=1, dead_letters=0, throttles=2, places=5, places_s=80.0, places_busy_s=40.0,
                cpu_s=9.0, cpu_allowed_s=10.0,
            )
        },
    )  # fmt: skip
    after = look(
        14, sent=130, given_up=10, late=9, emulator_cpu_s=52.0, emulator_wait_s=8.0, plane_cpu_s=21.0,
        functions_cpu_s=31.2, sender_cpu_s=1.4, bookkeeper_cpu_s=0.6, busy_s=1006.0, idle_s=502.0,
        arms={
            "go": QueueSample(
                visible=17, in_flight=7, dead_letters=0, throttles=10, places=7, places_s=104.0, places_busy_s=58.0,
                concurrency=6, cpu_s=10.2, cpu_allowed_s=11.5,
            )
        },
    )  # fmt: skip
    found = figures_between([before, look(12), after])
    assert found is not None
    assert (found.seconds, found.cores, found.machine, found.late) == (4, 2, 0.75, 0.1)
    assert found.cpu == pytest.approx(
        {"emulator": 0.5, "plane": 0.25, "functions": 0.3, "sender": 0.1, "bookkeeper": 0.025, "other programs": 0.325}
    )
    assert found.work == pytest.approx({"emulator": 0.75, "plane": 0.25})
    assert (found.backlog_per_s, found.throttles_per_s) == ({"go": 5}, {"go": 2})
    # for 4 s there were 6 places in the mean, 24 s, and 18 s of these were taken
    assert (found.concurrency, found.places, found.places_busy) == ({"go": 6}, {"go": 7}, {"go": 0.75})
    assert found.cpu_used == pytest.approx({"go": 0.8})


def test_what_was_not_measured_is_absent() -> None:
    found = figures_between([look(1), look(3, sent=10)])
    assert found == Figures(seconds=2.0, backlog_per_s={"go": 0.0})
    assert figures_between([look(1)]) is None


RECORDED = {
    "sweep": Figures(
        seconds=6.592,
        cores=2,
        machine=0.9561,
        cpu={
            "emulator": 0.2109, "plane": 0.0804, "functions": 0.2048, "sender": 0.0197, "bookkeeper": 0.0258,
            "other programs": 1.3744,
        },
        work={"emulator": 0.4262, "plane": 0.1516},
        late=0.0,
        backlog_per_s={"python": 1.2136, "go": 0.1517},
        throttles_per_s={"python": 0.0, "go": 0.0},
        concurrency={"python": 2, "go": 1},
        places={"python": 2, "go": 2},
        places_busy={"python": 0.992, "go": 0.3495},
        cpu_used={"python": 1.0253, "go": 1.1102},
    ),
    "all at once": Figures(
        seconds=3.0786,
        cores=2,
        machine=1.0,
        cpu={
            "emulator": 0.3443, "plane": 0.1137, "functions": 0.091, "sender": 0.1851, "bookkeeper": 0.0065,
            "other programs": 1.2668,
        },
        work={"emulator": 0.9888, "plane": 0.2406},
        late=1.0,
        backlog_per_s={"go": 289.7428},
        throttles_per_s={"go": 0.0},
        concurrency={"go": 2},
        places={"go": 2},
        places_busy={"go": 0.9563},
        cpu_used={"go": 0.5885},
    ),
    "starved emulator": Figures(
        seconds=2.3295,
        cores=2,
        machine=1.0,
        cpu={
            "emulator": 0.1631, "plane": 0.0558, "functions": 0.0687, "sender": 0.0472, "bookkeeper": 0.0129,
            "other programs": 1.6441,
        },
        work={"emulator": 0.9906, "plane": 0.1885},
        late=0.0,
        backlog_per_s={"go": 18.8884},
        throttles_per_s={"go": 0.0},
        concurrency={"go": 2},
        places={"go": 2},
        places_busy={"go": 0.9094},
        cpu_used={"go": 0.5097},
    ),
}  # fmt: skip
"""Figures of real runs on two cores that other programs kept busy (2026-11-30)."""


def test_what_the_documentation_shows_is_said_of_what_was_recorded() -> None:
    page = " ".join((Path(__file__).parents[2] / "docs" / "books.md").read_text().split())
    late = (
        "1000 of 1000 messages were begun more than 50 ms after they were due, at most 701 ms; 0 times no request "
        "could be begun because as many as may be were under way"
    )
    for limit, what in (
        (limit_of(RECORDED["sweep"], TWO, sender=(), behind={"python"}, step=2), "concurrency"),
        (limit_of(RECORDED["all at once"], TWO, sender=(late,), behind=()), "sender"),
        (limit_of(RECORDED["starved emulator"], TWO, sender=(), behind={"go"}, step=1), "machine"),
    ):
        assert limit.what == what
        assert limit.sentence in page


def waiting(visible: int, **changes: Any) -> dict[str, QueueSample]:
    return {"go": QueueSample(visible=visible, in_flight=2, dead_letters=0, **changes)}


@pytest.mark.parametrize(("grew", "what"), [(3, "nothing"), (10, "nothing"), (11, "concurrency")])
def test_now_work_falls_behind_when_the_queue_grows_by_a_twentieth_of_what_came(grew: int, what: str) -> None:
    first = look(1, sent=100, late=0, arms=waiting(0, places=2, places_s=4.0, places_busy_s=1.0))
    last = look(6, sent=300, late=2, arms=waiting(grew, places=2, places_s=14.0, places_busy_s=10.9))
    limit = limit_now([first, last], TWO)
    assert limit is not None
    assert (limit.what, limit.step, limit.figures) == (what, None, None)


def test_now_the_sender_is_named_when_messages_are_begun_late() -> None:
    limit = limit_now([look(1, sent=100, late=0), look(6, sent=300, late=24)], TWO)
    assert limit is not None
    assert limit.sentence == (
        "Limited by the sender: 12% of the messages were begun more than 50 ms after they were due."
    )
    assert limit_now([look(1)], TWO) is None


def test_verdicts_are_of_the_sender_and_of_the_parts_that_do_all_the_work() -> None:
    kept: dict[str, Any] = {"offered": 1000, "late": 0, "unknown": 0, "longest_lag_ms": 70.0, "pool_waits": 0}
    assert list(sender_limits(**kept, dropped=10, cpu_share=0.9)) == []
    said = list(sender_limits(**kept, dropped=11, cpu_share=0.91))
    assert said == ["11 of 1000 messages were never begun", "a process of the generator used 91% of a core"]
    assert list(verdicts(said[:1], {"emulator": 0.9, "plane": 0.93})) == [
        "generator-bound: 11 of 1000 messages were never begun",
        "emulator-bound: the plane had work for 93% of the time over a step, on a core or waiting for one",
    ]
