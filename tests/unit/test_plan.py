"""A plan: its arithmetic, what it learns from an earlier run, and what it says of what it cannot know."""

from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError
from fake_target import FakeTarget
from samples import PRICES, make_facts, make_lines, make_manifest, make_result, make_trials

from lambdalab.design.arms import Caps, Factors, Mode, Protocol, Stop
from lambdalab.errors import PriceSheetError, UsageError
from lambdalab.planning.plan import Expected, Experience, Plan, find_experience, make_plan, with_enough_blocks
from lambdalab.planning.spending import LabUse, lab_use, most_usd, read_units
from lambdalab.records.conditions import Conditions
from lambdalab.records.manifest import MessageManifest, QueuedFunction
from lambdalab.records.trial_files import RunDirectory
from lambdalab.run.account import UNCHECKED, account_limits
from lambdalab.statistics.comparison import needed_blocks

MACHINE = {"processor": "mine", "cores": "2"}
FUNCTIONS = {name: make_facts(name) for name in ("python", "go")}


def planned(manifest: MessageManifest, *, stop: Stop | None = None, caps: Caps | None = None, **options: Any) -> Plan:
    protocol = msgspec.structs.replace(manifest.protocol, stop=stop, caps=caps or Caps())
    return make_plan(protocol, manifest.functions, PRICES, **{"target": "aws"} | options)


def finished_run(folder: Path, run_id: str, **changes: Any) -> MessageManifest:
    """Two blocks of 10 s a trial, 15.74 ms each."""
    manifest = make_manifest(blocks=2, run_id=run_id, **{"machine": MACHINE} | changes)
    store = RunDirectory.create(folder, manifest)
    results = [make_result(trial) for trial in make_trials(manifest)]
    for result in results:
        store.append_trial(result)
    store.append_log_lines([line for result in results for line in make_lines(result)])
    return manifest


def learned(
    results: Path, protocol: Protocol, functions: dict[str, QueuedFunction] | None = None, **changes: Any
) -> Experience | None:
    conditions = {"target": "local", "region": "us-east-1", "machine": MACHINE, "cpu_limit": "cgroup v2"} | changes
    return find_experience(results, protocol, functions or FUNCTIONS, Conditions(**conditions))


def learned_from(results: Path, protocol: Protocol, **changes: Any) -> str | None:
    found = learned(results, protocol, **changes)
    return None if found is None else found.run_id


def test_messages_and_items_are_those_of_the_protocol() -> None:
    plan = planned(make_manifest(blocks=7))
    assert (plan.blocks_least, plan.blocks_most) == (7, 7)
    assert (plan.messages_least, plan.messages_most) == (28, 28)
    assert (plan.items_least, plan.items_most) == (7 * 2 * 101, 7 * 2 * 101)
    assert [(arm.arm, arm.messages, arm.items) for arm in plan.arms] == [("python", 2, 101), ("go", 2, 101)]
    assert plan.minutes_least == plan.minutes_most


def test_an_arm_with_a_batch_size_sends_so_many_messages_to_each_invocation() -> None:
    plan = planned(make_manifest(blocks=7, factors=Factors(language=("go",), batch_size=(1, 10))))
    assert [(arm.arm, arm.messages, arm.items) for arm in plan.arms] == [("go-1msg", 2, 101), ("go-10msg", 20, 1010)]
    assert (plan.messages_most, plan.items_most) == (7 * 22, 7 * 1111)
    one, ten = plan.arms
    assert one.seconds < ten.seconds
    assert one.usd < ten.usd < 10 * one.usd
    # as below, with 2,000 units and ten times the log; still one execution and three requests of less than 64 KB
    by_hand = Decimal("0.00062500125") + Decimal("0.0000002") + Decimal("0.00125") + Decimal("0.0000012")
    small = make_manifest().protocol.loads[1]
    most = most_usd(PRICES, FUNCTIONS["go"], small, messages=10)
    assert most == by_hand + Decimal(40960) / 2**30 * Decimal("0.50")


@pytest.mark.parametrize(
    ("stop", "caps", "least", "most"),
    [
        (Stop(min_blocks=10), Caps(), 10, 60),
        (None, Caps(attempts=20), 20, 20),
        (Stop(min_blocks=10), Caps(attempts=8), 8, 8),
        (None, Caps(samples=15), 15, 60),
        (Stop(min_blocks=10), Caps(samples=15, attempts=45), 10, 45),
    ],
)
def test_a_stop_rule_and_caps_give_a_range(stop: Stop | None, caps: Caps, least: int, most: int) -> None:
    plan = planned(make_manifest(blocks=60), stop=stop, caps=caps)
    assert (plan.blocks_least, plan.blocks_most) == (least, most)
    assert (plan.messages_least, plan.messages_most) == (least * 4, most * 4)


def test_minutes_end_a_block_after_their_cap() -> None:
    free = planned(make_manifest(blocks=100))
    capped = planned(make_manifest(blocks=100), caps=Caps(minutes=2.0))
    assert capped.minutes_most == pytest.approx(2 + free.minutes_most / 100)


def test_the_most_an_invocation_costs_by_hand() -> None:
    # 300 s x 0.125 GB x 0.0000166667 + 0.0000002; 100 items of 1,024 + 512 bytes are 200 units at 0.625 a million;
    # three requests at 0.40 a million; 4 KB of log at 0.50 a GB
    by_hand = Decimal("0.00062500125") + Decimal("0.0000002") + Decimal("0.000125") + Decimal("0.0000012")
    small = make_manifest().protocol.loads[1]
    assert most_usd(PRICES, FUNCTIONS["go"], small) == by_hand + Decimal(4096) / 2**30 * Decimal("0.50")


def test_what_the_lab_asks_by_hand() -> None:
    warmup, small = make_manifest().protocol.loads
    assert read_units(small) == 38 + 1, "153,600 bytes in units of 4,096, and one page"
    use = lab_use([warmup, small], blocks=1, minutes=3, queues=2)
    assert use == LabUse(queue_requests=3 * (60 + 2 * 15), read_units=2 + 39, scanned_bytes=2 * 4096 * (2 + 2))
    assert LabUse(queue_requests=10**6, read_units=10**6, scanned_bytes=2**30).usd(PRICES) == Decimal("0.530")
    most = lab_use([warmup, small], blocks=1, minutes=3, queues=2, at_most=True)
    assert most.read_units == 20 * 41


def test_a_plan_is_the_sum_of_its_arms_and_the_lab() -> None:
    plan = planned(make_manifest(blocks=7))
    assert plan.usd == 7 * sum(arm.usd for arm in plan.arms) + plan.lab_usd
    assert plan.usd_at_most == 7 * sum(arm.usd_at_most for arm in plan.arms) + plan.lab_usd_at_most
    assert 0 < plan.lab_usd < plan.lab_usd_at_most
    assert plan.usd < plan.usd_at_most


def test_a_sheet_without_the_labs_own_prices_is_refused() -> None:
    sheet = msgspec.structs.replace(PRICES, logs=msgspec.structs.replace(PRICES.logs, usd_per_gb_scanned=None))
    with pytest.raises(PriceSheetError, match=r"add dynamodb\.usd_per_million_rru and logs\.usd_per_gb_scanned"):
        make_plan(make_manifest().protocol, FUNCTIONS, sheet, target="aws")


def test_more_memory_is_assumed_to_be_faster_up_to_one_vcpu() -> None:
    def seconds(memory_mb: int) -> float:
        facts = {name: make_facts(name, memory_mb=memory_mb) for name in FUNCTIONS}
        return planned(make_manifest(functions=facts)).arms[0].seconds

    assert seconds(128) > seconds(512) > seconds(1769) == seconds(3008)


def test_an_earlier_run_is_learned_from(tmp_path: Path) -> None:
    manifest = finished_run(tmp_path, "20261120-100000-ingest-aaaa")
    found = learned(tmp_path, manifest.protocol)
    assert found is not None
    assert (found.run_id, found.blocks) == (manifest.run_id, 2)
    assert {cell.seconds for cell in found.cells.values()} == {10.0}, "from one message to the next"
    assert {cell.cv for cell in found.cells.values()} == {0.0}
    plan = planned(manifest, experience=found)
    assert [arm.seconds for arm in plan.arms] == [20.0, 20.0]
    assert plan.minutes_most == pytest.approx(2 * 40 / 60)
    assert plan.assumptions[0] == (
        "times, cost and spread are the medians of run 20261120-100000-ingest-aaaa, 2 blocks"
    )
    assert "assumed" in planned(manifest).assumptions[0]


def test_the_newest_run_that_fits_is_taken_and_damaged_ones_are_passed_over(tmp_path: Path) -> None:
    fits = finished_run(tmp_path, "20261120-100000-ingest-aaaa")
    finished_run(tmp_path, "20261121-100000-ingest-bbbb", machine={"processor": "another"})
    finished_run(tmp_path, "20261122-100000-ingest-cccc", target="aws")
    finished_run(tmp_path, "20261123-100000-ingest-dddd", loads=fits.protocol.loads[:1])
    finished_run(tmp_path, "20261124-100000-ingest-eeee", arms=("go",))
    batched = Factors(language=("python", "go"), batch_size=(5,))
    finished_run(tmp_path, "20261124-110000-ingest-eeef", factors=batched)
    more = {name: make_facts(name, memory_mb=512) for name in FUNCTIONS}
    finished_run(tmp_path, "20261125-100000-ingest-ffff", functions=more)
    finished_run(tmp_path, "20261126-100000-ingest-0000")
    (tmp_path / "20261126-100000-ingest-0000" / "trials.jsonl").write_text("{}\n")
    finished_run(tmp_path, "20261127-100000-ingest-1111", prices={})
    assert learned_from(tmp_path, fits.protocol) == fits.run_id
    assert learned_from(tmp_path, fits.protocol, target="aws") == "20261122-100000-ingest-cccc"
    assert learned(tmp_path / "nothing", fits.protocol) is None


LATENCY = {"name": "slow", "date": "2026-11-21", "seed": 1, "calls": []}


@pytest.mark.parametrize(
    "changes",
    [
        {"factors": Factors(language=("python", "go"), mode=(Mode.BATCH,))},
        {"factors": Factors(language=("python", "go"), build=("old",))},
        {"functions": {name: make_facts(name, architecture="arm64") for name in FUNCTIONS}},
        {"functions": {name: make_facts(name, runtime="another") for name in FUNCTIONS}},
        {"functions": {name: make_facts(name, code_sha256="other code") for name in FUNCTIONS}},
        {"cpu_scale": 0.5},
        {"cpu_limit": "none"},
        {"latency": LATENCY},
        {"target": "aws", "region": "eu-west-1"},
        {"load": {"shape": "constant"}},
    ],
)
def test_a_plan_learns_nothing_from_a_run_that_is_unlike(tmp_path: Path, changes: dict[str, Any]) -> None:
    target = changes.get("target", "local")
    fits = finished_run(tmp_path, "20261120-100000-ingest-aaaa", target=target)
    finished_run(tmp_path, "20261121-100000-ingest-bbbb", **changes)
    assert learned_from(tmp_path, fits.protocol, target=target) == fits.run_id
    only = finished_run(tmp_path / "only", "20261121-100000-ingest-bbbb", **changes)
    assert learned(tmp_path / "only", fits.protocol, target=target) is None
    if "load" not in changes:
        conditions = {name: changes[name] for name in Conditions.__struct_fields__ if name in changes}
        found = learned_from(tmp_path / "only", only.protocol, functions=only.functions, **conditions)
        assert found == only.run_id, "it is learned from by a plan that is like it"


def test_what_is_not_known_before_a_stack_is_up_hides_no_run(tmp_path: Path) -> None:
    fits = finished_run(tmp_path, "20261120-100000-ingest-aaaa")
    planned_code = {name: make_facts(name, code_sha256="") for name in FUNCTIONS}
    assert learned_from(tmp_path, fits.protocol, functions=planned_code, cpu_limit=None) == fits.run_id


def test_the_blocks_an_effect_needs_follow_from_the_widest_spread() -> None:
    spreads = {("python", "WARMUP"): 0.1, ("go", "WARMUP"): 0.3, ("python", "SMALL"): 0.05, ("go", "SMALL"): 0.02}
    cells = {cell: Expected(seconds=1, usd=Decimal(0), cv=cv) for cell, cv in spreads.items()}
    experience = Experience(run_id="earlier", blocks=9, cells=cells)
    plan = planned(make_manifest(), experience=experience, effect=0.1)
    assert [(need.label, need.cv, need.blocks) for need in plan.needed] == [
        ("WARMUP", 0.3, needed_blocks(0.3, 0.1, comparisons=4)),
        ("SMALL", 0.05, needed_blocks(0.05, 0.1, comparisons=4)),
    ]
    assert (plan.comparisons, plan.fewest_blocks) == (4, 8)
    alone = planned(make_manifest(arms=("go",)))
    assert (alone.needed, alone.comparisons, alone.fewest_blocks) == ((), 0, None)


def test_a_comparison_of_builds_gets_the_blocks_it_needs() -> None:
    def enough(blocks: int, *, asked: bool = False, build: tuple[str, ...] = ("a", "b"), **changes: Any) -> Protocol:
        manifest = make_manifest(blocks=blocks, factors=Factors(language=("python", "go"), build=build))
        return with_enough_blocks(msgspec.structs.replace(manifest.protocol, **changes), asked=asked)

    assert enough(1).blocks == 8
    assert enough(30).blocks == 30
    assert enough(1, asked=True, build=("a",)).blocks == 1, "languages may be looked at with one block"
    assert enough(8, asked=True).blocks == 8
    assert enough(20, stop=Stop(min_blocks=6)).stop == Stop(min_blocks=8)
    with pytest.raises(UsageError, match=r"--blocks is 7, and 6 comparisons of builds find no difference"):
        enough(7, asked=True)
    with pytest.raises(UsageError, match=r"caps.samples is 5 blocks, and 6 comparisons"):
        enough(20, caps=Caps(samples=5))


@pytest.mark.parametrize("effect", [0.025, 0.0, -1.0, float("nan")])
def test_an_effect_that_is_never_claimed_is_refused(effect: float) -> None:
    with pytest.raises(UsageError, match="is never claimed: verdicts have a margin of"):
        planned(make_manifest(), effect=effect)


# the account


def account(total: int, unreserved: int) -> FakeTarget:
    target = FakeTarget()
    limit = {"ConcurrentExecutions": total, "UnreservedConcurrentExecutions": unreserved}
    target.aws = SimpleNamespace(lambda_=SimpleNamespace(get_account_settings=lambda: {"AccountLimit": limit}))
    return target


def test_the_accounts_concurrency_is_asked_for() -> None:
    limits, unchecked = account_limits(account(1000, 998), FUNCTIONS.values())
    assert limits == ("concurrency: 1000 in the account, 998 of them unreserved",)
    assert unchecked == UNCHECKED


def test_functions_that_cannot_run_are_warned_of() -> None:
    off = {"python": make_facts("python", reserved_concurrency=0), "go": make_facts("go", reserved_concurrency=None)}
    limits, _ = account_limits(account(10, 0), off.values())
    assert [line for line in limits if line.startswith("caution")] == [
        "caution: lab-python has reserved concurrency 0 and takes no invocation",
        "caution: 1 functions without reserved concurrency share 0 environments",
    ]


def test_what_may_not_be_asked_is_not_checked() -> None:
    def refuse() -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "GetAccountSettings")

    target = FakeTarget()
    target.aws = SimpleNamespace(lambda_=SimpleNamespace(get_account_settings=refuse))
    limits, unchecked = account_limits(target, FUNCTIONS.values())
    assert limits == ()
    assert unchecked[0].startswith("the account's concurrency: ")
    assert unchecked[1:] == UNCHECKED
