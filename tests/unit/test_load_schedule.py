"""When messages of a load run are due: rates, shapes, ratios, the split over workers, and what is refused."""

from collections import Counter
from itertools import islice, pairwise
from typing import Any

import msgspec
import pytest
from scipy import stats

from lambdalab.errors import LoadPlanError
from lambdalab.planning.load_schedule import (
    Arrival,
    Arrivals,
    LoadPlan,
    Message,
    Shape,
    arrivals,
    check_plan,
    expected_messages,
    length_s,
    segments,
)

SMALL = Message(label="SMALL", size_bytes=1024, count=100)
LARGE = Message(label="LARGE", size_bytes=65536, count=100)


def due(**plan: Any) -> list[Arrival]:
    made = LoadPlan(**plan)
    check_plan(made)
    return list(arrivals(made))


def messages_between(found: list[Arrival], begin_s: float, end_s: float) -> int:
    return sum(len(one.messages) for one in found if begin_s <= one.at_s < end_s)


@pytest.mark.parametrize("rate", [0.7, 1, 3.3, 10, 100, 500])
def test_constant_arrivals_are_at_equal_distances_and_as_many_as_the_rate_says(rate: float) -> None:
    found = due(rate=rate, duration_s=30.0)
    assert len(found) == pytest.approx(30 * rate, abs=1)
    assert len(found) == round(30 * rate)
    assert found[0].at_s == 0
    assert found[-1].at_s < 30
    assert [b.at_s - a.at_s for a, b in pairwise(found)] == pytest.approx([1 / rate] * (len(found) - 1))
    assert [one.number for one in found] == list(range(len(found)))


def test_poisson_arrivals_are_a_poisson_process() -> None:
    found = due(rate=100.0, duration_s=100.0, arrivals=Arrivals.POISSON, seed=7)
    low, high = stats.poisson.interval(0.999, 100 * 100)
    assert low <= len(found) <= high
    gaps = [b.at_s - a.at_s for a, b in pairwise(found)]
    assert stats.kstest(gaps, "expon", args=(0, 1 / 100)).pvalue > 0.001
    correlation = stats.pearsonr(gaps[:-1], gaps[1:])
    assert correlation.pvalue > 0.001, "one gap says nothing of the next"


def test_the_number_of_poisson_arrivals_is_in_its_95_percent_band_as_often_as_it_must_be() -> None:
    low, high = stats.poisson.interval(0.95, 200)
    counts = [len(due(rate=20.0, duration_s=10.0, arrivals=Arrivals.POISSON, seed=seed)) for seed in range(400)]
    within = len([count for count in counts if low <= count <= high])
    assert stats.binomtest(within, 400, stats.poisson.cdf(high, 200) - stats.poisson.cdf(low - 1, 200)).pvalue > 0.001


def test_a_poisson_process_whose_rate_changes_has_that_rate_in_each_step() -> None:
    found = due(shape=Shape.STEPS, rates=(5.0, 20.0, 80.0), hold_s=100.0, arrivals=Arrivals.POISSON, seed=3)
    for step, rate in enumerate((5, 20, 80), 1):
        low, high = stats.poisson.interval(0.999, rate * 100)
        assert low <= sum(one.step == step for one in found) <= high
    assert all(100 * (one.step - 1) <= one.at_s < 100 * one.step for one in found)


def test_a_seed_gives_the_same_arrivals_again_and_another_seed_others() -> None:
    plan = LoadPlan(arrivals=Arrivals.POISSON, seed=11, mix=(SMALL, LARGE))
    assert list(arrivals(plan)) == list(arrivals(plan))
    assert list(arrivals(plan)) != list(arrivals(msgspec.structs.replace(plan, seed=12)))


@pytest.mark.parametrize("workers", [2, 3, 7])
@pytest.mark.parametrize(
    "plan",
    [
        LoadPlan(rate=33.0, duration_s=10.0, mix=(SMALL, LARGE)),
        LoadPlan(rate=33.0, duration_s=10.0, arrivals=Arrivals.POISSON, batch_size=10, max_messages=301),
        LoadPlan(shape=Shape.REPLAY, times_s=(0.0, 0.5, 0.5, 4.0)),
        LoadPlan(shape=Shape.STRICT, blocks=3, mix=(SMALL, LARGE)),
    ],
)
def test_workers_together_send_exactly_what_one_would(plan: LoadPlan, workers: int) -> None:
    shares = [list(arrivals(plan, worker, workers)) for worker in range(workers)]
    alone = list(arrivals(plan))
    assert sorted((one for share in shares for one in share), key=lambda one: one.number) == alone
    if plan.shape is Shape.STRICT:
        assert shares[0] == alone
    else:
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_steps_hold_each_rate_and_are_told_apart() -> None:
    found = due(shape=Shape.STEPS, rates=(5.0, 10.0, 20.0, 40.0), hold_s=10.0)
    assert Counter(one.step for one in found) == {1: 50, 2: 100, 3: 200, 4: 400}
    assert {one.phase for one in found} == {"hold"}
    assert [next(one.at_s for one in found if one.step == step) for step in (1, 2, 3, 4)] == [0, 10, 20, 30]


def test_a_ramp_rises_evenly_and_then_holds() -> None:
    found = due(shape=Shape.RAMP, rate=20.0, ramp_s=10.0, duration_s=5.0)
    assert Counter(one.phase for one in found) == {"ramp": 100, "hold": 100}
    ramp = [one.at_s for one in found if one.phase == "ramp"]
    assert [sum(at_s < second for at_s in ramp) for second in (2.5, 5, 7.5)] == pytest.approx([6.25, 25, 56.25], abs=1)
    assert min(one.at_s for one in found if one.phase == "hold") == 10


def test_a_spike_is_three_steps() -> None:
    found = due(shape=Shape.SPIKE, rate=10.0, hold_s=10.0, peak_rate=100.0, peak_s=2.0)
    assert Counter(one.step for one in found) == {1: 100, 2: 200, 3: 100}
    assert messages_between(found, 10, 12) == 200


def test_a_soak_is_one_rate_in_steps_and_the_last_may_be_shorter() -> None:
    found = due(shape=Shape.SOAK, rate=10.0, duration_s=25.0, hold_s=10.0)
    assert Counter(one.step for one in found) == {1: 100, 2: 100, 3: 50}


def test_a_replay_sends_at_the_times_given() -> None:
    assert [one.at_s for one in due(shape=Shape.REPLAY, times_s=(0.0, 0.1, 0.1, 2.0))] == [0, 0.1, 0.1, 2]


def test_strict_holds_every_language_once_in_a_block_and_the_mix_in_order() -> None:
    found = due(shape=Shape.STRICT, blocks=20, mix=(SMALL, LARGE))
    assert len(found) == 80
    blocks = [[(one.arm, one.messages) for one in found if one.step == block] for block in range(1, 21)]
    assert all(sorted(block) == [("go", (0,)), ("go", (1,)), ("python", (0,)), ("python", (1,))] for block in blocks)
    assert all([messages for _, messages in block] == [(0,), (1,), (0,), (1,)] for block in blocks)
    assert {block[0][0] for block in blocks} == {"python", "go"}, "in an order drawn anew"


def test_ratios_hold_exactly_over_every_block_of_their_sum() -> None:
    mix = (msgspec.structs.replace(SMALL, share=3), LARGE)
    found = due(rate=100.0, duration_s=6.0, languages={"python": 2, "go": 1}, mix=mix)
    for i in range(0, 600, 3):
        assert Counter(one.arm for one in found[i : i + 3]) == {"python": 2, "go": 1}
    for i in range(0, 600, 4):
        assert Counter(one.messages for one in found[i : i + 4]) == {(0,): 3, (1,): 1}
    assert len({tuple(one.arm for one in found[i : i + 3]) for i in range(0, 600, 3)}) == 3, "in every order"


def test_a_batch_is_due_together_and_the_rate_stays_one_of_messages() -> None:
    found = due(rate=40.0, duration_s=10.0, batch_size=10)
    assert len(found) == 40
    assert {len(one.messages) for one in found} == {10}
    assert [one.at_s for one in found[:3]] == pytest.approx([0, 0.25, 0.5])
    assert [one.number for one in found[:3]] == [0, 10, 20]


def test_no_more_messages_than_allowed_are_due_however_random_their_number_is() -> None:
    counts = {
        len(due(rate=10.0, duration_s=10.0, arrivals=Arrivals.POISSON, seed=seed, max_messages=100))
        for seed in range(30)
    }
    assert max(counts) == 100
    assert min(counts) < 100
    assert len(due(rate=10.0, duration_s=10.0, batch_size=10, max_messages=100)) == 10


def test_the_plan_knows_how_much_and_how_long() -> None:
    plan = LoadPlan(shape=Shape.RAMP, rate=20.0, ramp_s=10.0, duration_s=5.0)
    assert (expected_messages(plan), length_s(plan)) == (200, 15)
    strict = LoadPlan(shape=Shape.STRICT, blocks=2, mix=(SMALL, LARGE))
    assert (expected_messages(strict), length_s(strict), segments(strict)) == (8, None, ())


def test_arrivals_are_drawn_one_by_one_so_that_a_long_run_begins_at_once() -> None:
    endless = LoadPlan(rate=100_000.0, duration_s=1e9, max_messages=2**53, max_s=1e9)
    assert len(list(islice(arrivals(endless), 1000))) == 1000


def test_a_plan_survives_json() -> None:
    plan = LoadPlan(shape=Shape.STEPS, rates=(1.0, 2.0), mix=(SMALL, LARGE), languages={"go": 3})
    assert msgspec.json.decode(msgspec.json.encode(plan), type=LoadPlan) == plan


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate": 0.0}, "rate is 0; write a number above 0"),
        ({"rate": -3.0}, "rate is -3; write a number above 0"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"rate": 1e6}, "rate is 1e+06; write a number above 0, 100000 at most"),
        ({"duration_s": 0.0}, "duration is 0; write a time above 0"),
        ({"duration_s": float("inf")}, "duration is inf"),
        ({"shape": Shape.STEPS}, 'rates is ""; write the rate of each step'),
        ({"shape": Shape.STEPS, "rates": (5.0, 0.0)}, "rates[1] is 0"),
        ({"shape": Shape.SPIKE, "rate": 50.0, "peak_rate": 50.0}, "peak rate is 50; write one above the rate, 50"),
        ({"shape": Shape.SOAK, "hold_s": 61.0}, "hold is 61; write at most the duration, 60 s"),
        ({"shape": Shape.REPLAY}, "name a file with at least one timestamp"),
        ({"shape": Shape.REPLAY, "times_s": (2.0, 1.0)}, "out of order"),
        ({"shape": Shape.REPLAY, "times_s": (1.0,), "batch_size": 2}, "batch size is 2; write 1: a replay"),
        ({"shape": Shape.STRICT, "batch_size": 2}, "batch size is 2; write 1: strict"),
        ({"shape": Shape.STRICT, "languages": {"go": 2}}, "leave shares out"),
        ({"batch_size": 11}, "batch size is 11; write a number from 1 to 10"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"languages": {}}, "name at least one of: python, go"),
        ({"languages": {"ruby": 1}}, 'languages is "ruby"; there are: python, go'),
        ({"languages": {"go": 0}}, "share of go is 0"),
        ({"mix": ()}, "name at least one message"),
        ({"mix": (SMALL, SMALL)}, 'mix[1].label is "SMALL"; name each kind once'),
        ({"mix": (Message(label="x", size_bytes=400_001, count=1),)}, "mix[0].size_bytes is 400001"),
        ({"mix": (Message(label="x", size_bytes=65536, count=4096),)}, "mix[0].size_bytes x count is 268435456"),
        ({"mix": (Message(label="x y", size_bytes=1, count=1),)}, 'mix[0].label is "x y"'),
        ({"mix": (Message(label="x", size_bytes=1, count=1, share=0),)}, "mix[0].share is 0"),
        ({"max_messages": 599}, "max messages is 599; the plan offers 600: lower its rate or time, or raise this"),
        ({"max_s": 59.0}, "max time is 59; the plan takes 60 s: shorten it, or raise this"),
        ({"seed": -1}, "seed is -1"),
        ({"blocks": 0}, "blocks is 0"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused_in_a_sentence(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(LoadPlanError) as refused:
        check_plan(LoadPlan(**changes))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
