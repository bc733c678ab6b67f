"""Rates against limits, by figures computed by hand; and where a duration comes from."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from samples import make_facts, make_manifest

from lambdalab.design.arms import Factors, Load, Mode, Start
from lambdalab.doctor.durations import Duration, find_duration
from lambdalab.doctor.examine import load_offered
from lambdalab.doctor.findings import Finding, Verdict
from lambdalab.doctor.rate import (
    Work,
    account_finding,
    function_findings,
    generator_finding,
    local_findings,
    table_findings,
    work_of,
)
from lambdalab.errors import LoadPlanError
from lambdalab.planning.load_schedule import Message
from lambdalab.records.conditions import Conditions
from lambdalab.records.trial_files import RunDirectory

TEN = Message(label="1024Bx10", size_bytes=1024, count=10)
MACHINE = {"processor": "this one"}


def a_work(seconds: float = 0.25, *, measured: bool = True, arguments: dict[str, str] | None = None, **of: Any) -> Work:
    plan = load_offered(**({"rate": "100", "languages": "go"} | (arguments or {})))
    settings = {"reserved_concurrency": None, "maximum_concurrency": 10} | of
    duration = Duration(seconds=seconds, source="run r", measured=measured)
    return work_of(plan, make_facts("go", **settings), {message.label: duration for message in plan.mix})


def by_name(findings: Any) -> dict[str, Finding]:
    return {finding.check.partition(" ")[2]: finding for finding in findings}


def of_function(work: Work, unreserved: int | None = 1000, in_flight: float | None = 120_000) -> dict[str, Finding]:
    return by_name(function_findings(work, unreserved=unreserved, in_flight=in_flight))


def test_what_is_offered_is_shared_as_the_load_shares_it() -> None:
    plan = load_offered(rate="40", languages="python:3,go:1", mix="1024Bx10*3,65536Bx100")
    seconds = {"1024Bx10": 0.1, "65536Bx100": 0.5}
    durations = {label: Duration(seconds=s, source=label, measured=True) for label, s in seconds.items()}
    work = work_of(plan, make_facts("go"), durations)
    assert (work.per_s, work.seconds, work.items) == (10, 0.2, 32.5)
    assert work.environments == 2
    # Two write units for 1,024 bytes with keys and names, 65 for 65,536 (docs/contracts.md, "Item").
    assert work.write_units == (3 * 10 * 2 + 100 * 65) / 4
    assert work.partition_writes_per_s == 100 * 65 / 0.5


@pytest.mark.parametrize(
    ("settings", "unreserved", "there"),
    [
        ({"maximum_concurrency": 10}, 1000, 10),
        ({"maximum_concurrency": 10, "reserved_concurrency": 4}, 1000, 4),
        ({"maximum_concurrency": None}, 20, 20),
        ({"maximum_concurrency": None, "reserved_concurrency": 30}, 20, 30),
        ({"maximum_concurrency": None}, None, 1250),
        ({"maximum_concurrency": None}, 5000, 1250),
    ],
)
def test_the_narrowest_limit_counts(settings: dict[str, Any], unreserved: int | None, there: int) -> None:
    found = of_function(a_work(**settings), unreserved)["environments"]
    assert (found.needed, found.there) == (25, there)
    assert found.verdict is (Verdict.OK if there >= 25 else Verdict.WRONG)


def test_beyond_the_limit_it_says_what_would_be_done_and_what_would_wait() -> None:
    found = of_function(a_work())["environments"]
    assert found.means == "about 40.0/s would be done, and the queue grows by 60.0/s"
    assert "100/s x 250 ms a message (run r) keep 25.0 environments busy; MaximumConcurrency 10" in found.found
    assert of_function(a_work(measured=False))["environments"].verdict is Verdict.WARNING


def test_growth_is_the_mappings() -> None:
    wide: dict[str, Any] = {"maximum_concurrency": 1000}
    few = of_function(a_work(0.05, **wide))["scaling"]
    assert (few.verdict, few.needed) == (Verdict.OK, 5)
    soon = of_function(a_work(0.5, **wide))["scaling"]  # 50 environments: 45 more, at 5 a second
    assert (soon.verdict, soon.needed) == (Verdict.OK, 9)
    late = of_function(a_work(2.0, **wide))["scaling"]  # 200: 195 more
    assert (late.verdict, late.needed) == (Verdict.WARNING, 39)
    # Until then 39 s x 195 / 2 environment seconds are missing, each half a message.
    assert "1,901 messages wait then" in late.found


def test_in_flight_when_all_is_well_and_when_all_fail() -> None:
    found = of_function(a_work(visibility_timeout_s=1000))["in flight"]
    assert (found.verdict, found.needed) == (Verdict.OK, 100_000)
    found = of_function(a_work(visibility_timeout_s=1800))["in flight"]
    assert (found.verdict, found.needed) == (Verdict.WARNING, 180_000)
    found = of_function(a_work(batch_size=10, visibility_timeout_s=1), in_flight=50)["in flight"]
    assert (found.verdict, found.needed) == (Verdict.WRONG, 100)
    assert "in flight" not in of_function(a_work(), in_flight=None)


def test_writes_of_a_table_and_of_a_partition() -> None:
    work = a_work()  # 100/s of ten items of two write units
    found = by_name(table_findings(work, quota=40_000, quota_source="who", most=None, warm=4000))
    assert {name: (one.verdict, one.needed) for name, one in found.items()} == {
        "writes": (Verdict.OK, 2000),
        "warm table": (Verdict.OK, 2000),
        "partition": (Verdict.OK, 80),
    }
    found = by_name(table_findings(work, quota=1999, quota_source="who", most=None, warm=1999))
    assert (found["writes"].verdict, found["warm table"].verdict) == (Verdict.WRONG, Verdict.WARNING)
    found = by_name(table_findings(work, quota=40_000, quota_source="who", most=100, warm=None))
    assert found["writes"].there == 100
    assert "the table's own setting" in found["writes"].found
    found = by_name(table_findings(a_work(0.01), quota=40_000, quota_source="who", most=None, warm=None))
    assert (found["partition"].verdict, found["partition"].needed) == (Verdict.WARNING, 2000)


def test_an_account_has_room_for_all_functions_together() -> None:
    works = [a_work(maximum_concurrency=None), a_work(maximum_concurrency=None)]
    assert account_finding(works, 50).verdict is Verdict.OK
    assert account_finding(works, 49).verdict is Verdict.WRONG
    assert account_finding([works[0], a_work(reserved_concurrency=25)], 25).verdict is Verdict.OK


def test_the_generator_and_the_cores() -> None:
    assert generator_finding(6_000, 1, 2).verdict is Verdict.OK
    assert generator_finding(7_000, 1, 2).verdict is Verdict.WARNING
    assert generator_finding(7_000, 10, 2).verdict is Verdict.OK
    cores, emulator = local_findings([a_work(arguments={"rate": "50"})], 2)
    assert emulator.needed == pytest.approx(50 * 10 * 1.4e-3)
    assert cores.needed == pytest.approx(50 * (0.28 + 0.144 + 10 * (1.4 + 0.35)) * 1e-3)
    assert (cores.verdict, emulator.verdict) == (Verdict.OK, Verdict.OK)
    cores, emulator = local_findings([a_work(arguments={"rate": "200"})], 2)
    assert (cores.verdict, emulator.verdict) == (Verdict.WRONG, Verdict.WRONG)


def test_a_load_that_cannot_be_is_refused_as_load_does() -> None:
    assert load_offered(rate="0.01").rate == 0.01
    assert load_offered(rate="100000").rate == 100_000
    for wrong in ({"rate": "nan"}, {"rate": "100001"}, {"languages": "rust"}, {"mix": ""}, {"batch_size": "11"}):
        with pytest.raises(LoadPlanError):
            load_offered(**wrong)


def measure(results: Path, run_id: str, median_ms: float, **changes: Any) -> None:
    """A run as its files say of it, in which Go did ten items of 1,024 bytes."""
    load = Load(label="TEN", size_bytes=1024, count=10, start=Start.WARM)
    manifest = make_manifest(**({"loads": (load,), "machine": MACHINE} | changes))
    RunDirectory.create(results, msgspec.structs.replace(manifest, run_id=run_id))
    unknown = ("low", "high", "cv", "p95", "p95_low", "p95_high", "p99", "p99_low", "p99_high", "needed_n")
    known = ("n", "minimum", "maximum", "level", "q1", "q3", "p95_more", "p99_more", "outliers")
    estimate = dict.fromkeys(unknown) | dict.fromkeys(known, 1) | {"median": median_ms, "warnings": []}
    protocol = manifest.protocol
    cells = [
        {"arm": arm.name, "label": each.label, "start": each.start, "duration_ms": estimate}
        for arm in protocol.arms
        for each in protocol.loads
    ]
    (results / run_id / "summary.json").write_text(json.dumps({"cells": cells, "other": 1}))


def duration(results: Path, message: Message = TEN, target: str = "local", **of: Any) -> Duration:
    here = Conditions(target=target, region="us-east-1", machine=MACHINE, cpu_limit="cgroup v2")
    return find_duration(results, make_facts("go", **of), message, here)


def test_a_duration_is_that_of_the_newest_run_that_fits(tmp_path: Path) -> None:
    measure(tmp_path, "20260101-a", 100)
    measure(tmp_path, "20260102-b", 80)
    measure(tmp_path, "20260103-another-machine", 1, machine={"processor": "that one"})
    measure(tmp_path, "20260104-another-size", 1, loads=(Load(label="T", size_bytes=1, count=10, start=Start.WARM),))
    measure(tmp_path, "20260105-cold", 1, loads=(Load(label="T", size_bytes=1024, count=10, start=Start.COLD),))
    measure(tmp_path, "20260106-damaged", 1)
    (tmp_path / "20260106-damaged" / "summary.json").write_text("{")
    measure(tmp_path, "20260106-deep", 1)
    (tmp_path / "20260106-deep" / "summary.json").write_text('{"other": ' + "[" * 100_000)
    measure(tmp_path, "20260107-foreign", 1)
    (tmp_path / "20260107-foreign" / "run.json").write_text("{}")
    measure(tmp_path, "20260108-scaled", 1, cpu_scale=0.5)
    measure(tmp_path, "20260109-slow-services", 1, latency={"name": "slow", "date": "2026-11-21", "seed": 1})
    measure(tmp_path, "20260110-no-limit", 1, cpu_limit="none")
    functions = {name: make_facts(name, code_sha256="other") for name in ("python", "go")}
    measure(tmp_path, "20260111-other-code", 1, functions=functions)
    found = duration(tmp_path)
    assert (found.seconds, found.source, found.measured) == (0.08, "median of run 20260102-b", True)
    assert not duration(tmp_path, target="aws").measured
    assert not duration(tmp_path, memory_mb=256).measured
    assert not duration(tmp_path, Message(label="x", size_bytes=1024, count=10, mode=Mode.BATCH)).measured


def test_a_batch_is_shared_by_its_messages(tmp_path: Path) -> None:
    measure(tmp_path, "20260101-a", 100, factors=Factors(language=("go",), batch_size=(5,)))
    assert duration(tmp_path).seconds == 0.02


def test_of_a_load_run_the_label_counts(tmp_path: Path) -> None:
    load = Load(label="1024Bx10", size_bytes=1024, count=10, start=Start.WARM)
    measure(tmp_path, "20260101-a", 100, loads=(load,), load={"rate": 1})
    assert duration(tmp_path).seconds == 0.1
    assert not duration(tmp_path, Message(label="1024Bx10-batch", size_bytes=1024, count=10, mode=Mode.BATCH)).measured
    measure(
        tmp_path,
        "20260102-b",
        50,
        loads=(load,),
        load={"rate": 1},
        functions={language: make_facts(language, batch_size=10) for language in ("python", "go")},
    )
    assert duration(tmp_path).seconds == 0.1, "of batches nobody knows how many messages they had"


def test_without_a_run_the_plans_assumption_is_taken_and_said(tmp_path: Path) -> None:
    found = duration(tmp_path)
    assert (found.seconds, found.measured) == (0.25, False)
    assert "assumed" in found.source
    assert duration(tmp_path, memory_mb=256).seconds == 0.125
