"""Effects of factors: against a table worked by hand, and against simulated runs of which the truth is known."""

import math
import random
from collections.abc import Mapping, Sequence
from itertools import product

import pytest

from lambdalab.design.cells import Level
from lambdalab.statistics.effects import BlockCell, Effects, Study, estimate_effects

TWO: Mapping[str, Sequence[Level]] = {"a": ("a1", "a2"), "b": ("b1", "b2")}
THREE: Mapping[str, Sequence[Level]] = {"memory_mb": (512, 2048), "callers": (1, 4), "language": ("python", "go")}
T3_975 = 3.182446305284263
"""Student's t with 3 degrees of freedom, 0.975: any table has it."""


def study(
    values: Mapping[BlockCell, float],
    factors: Mapping[str, Sequence[Level]] = TWO,
    blocks: Sequence[int] = (1, 2),
) -> Study:
    return Study("events", "latency_ms", "latency", "ms", True, factors, blocks, values)


def effects(of: Study) -> Effects:
    (found,) = estimate_effects([of])
    return found


def by_hand() -> dict[BlockCell, float]:
    """Logarithms that make every sum of squares an exact fraction."""
    cells = [("a1", "b1"), ("a2", "b1"), ("a1", "b2"), ("a2", "b2")]
    logs = {1: (0, 2, 1, 5), 2: (1, 3, 2, 7)}
    return {
        (block, cell): math.exp(value) for block, row in logs.items() for cell, value in zip(cells, row, strict=True)
    }


def test_intervals_of_means_hold_for_these_blocks_however_far_apart_they_are() -> None:
    """As docs/method.md says: a drift that all cells share moves a mean and widens nothing."""
    apart = {(block, cell): value * 100**block for (block, cell), value in by_hand().items()}
    for near, far in zip(effects(study(by_hand())).terms, effects(study(apart)).terms, strict=True):
        for one, other in zip(near.means, far.means, strict=True):
            assert other.mean == pytest.approx(one.mean * 1000)
            assert other.high / other.low == pytest.approx(one.high / one.low)


def p_of_t3(t: float) -> float:
    """Two-sided, by the closed form of three degrees of freedom."""
    x = t / math.sqrt(3)
    return 1 - 2 / math.pi * (x / (1 + x * x) + math.atan(x))


def test_a_table_worked_by_hand() -> None:
    """Sums of squares: a 21.125, b 10.125, a x b 3.125, blocks 3.125, the rest 0.375 with 3 degrees of freedom."""
    found = effects(study(by_hand()))
    shares = [term.share for term in found.terms]
    assert shares == pytest.approx([part / 37.875 for part in (21.125, 10.125, 3.125)])
    assert (found.block_share, found.residual_share) == pytest.approx((3.125 / 37.875, 0.375 / 37.875))
    assert (found.higher_share, found.residual_df) == (0, 3)
    assert found.spread == pytest.approx(math.exp(math.sqrt(0.125)))
    one, other, both = found.terms
    assert [term.factors for term in found.terms] == [("a",), ("b",), ("a", "b")]
    assert one.partial == pytest.approx(21.125 / 21.5)
    assert [term.p_value for term in found.terms] == pytest.approx([p_of_t3(13), p_of_t3(9), p_of_t3(5)], rel=1e-6)
    assert [term.p_adjusted for term in found.terms] == pytest.approx(
        [3 * p_of_t3(13), 2 * p_of_t3(9), p_of_t3(5)], rel=1e-6
    )
    assert all(term.is_claimed for term in found.terms)
    first, second = one.means
    assert (first.levels, first.ratio, second.levels) == (("a1",), None, ("a2",))
    assert (first.mean, second.mean) == pytest.approx((math.exp(1), math.exp(4.25)))
    assert (first.low, first.high) == pytest.approx(
        (math.exp(1 - T3_975 * math.sqrt(0.125 / 4)), math.exp(1 + T3_975 * math.sqrt(0.125 / 4)))
    )
    assert second.ratio == pytest.approx(math.exp(3.25))
    assert (second.ratio_low, second.ratio_high) == pytest.approx(
        (math.exp(3.25 - T3_975 * 0.25), math.exp(3.25 + T3_975 * 0.25))
    )
    assert other.means[1].ratio == pytest.approx(math.exp(2.25))
    (contrast,) = both.contrasts
    assert contrast.levels == ("a2", "b2")
    assert contrast.ratio == pytest.approx(math.exp(2.5))
    assert (contrast.low, contrast.high) == pytest.approx((math.exp(2.5 - T3_975 * 0.5), math.exp(2.5 + T3_975 * 0.5)))


def simulated(seed: int, logs: Mapping[str, float], *, both: float = 0, blocks: int = 4, spread: float = 0.1) -> Study:
    """A run of 2^3 cells: known effects of second levels, one interaction, blocks that drift, log-normal noise."""
    draw = random.Random(seed)
    values = {}
    for block in range(1, blocks + 1):
        moved = draw.gauss(0, 0.3)
        for cell in product(*THREE.values()):
            is_second = {name: level == THREE[name][1] for name, level in zip(THREE, cell, strict=True)}
            value = 4 + moved + sum(logs[name] for name in logs if is_second[name]) + draw.gauss(0, spread)
            value += both if is_second["memory_mb"] and is_second["callers"] else 0
            values[block, cell] = math.exp(value)
    return study(values, THREE, range(1, blocks + 1))


def test_known_effects_are_found_and_shares_add_up() -> None:
    logs = {"memory_mb": math.log(0.5), "callers": math.log(2), "language": 0.0}
    found = effects(simulated(7, logs, both=math.log(1.5), blocks=10, spread=0.02))
    memory, callers, language = (term.means[1].ratio for term in found.mains)
    # the interaction is half of the cells' at each level of the other factor
    assert memory == pytest.approx(0.5 * math.sqrt(1.5), rel=0.02)
    assert callers == pytest.approx(2 * math.sqrt(1.5), rel=0.02)
    assert language == pytest.approx(1, rel=0.02)
    assert found.interactions[0].contrasts[0].ratio == pytest.approx(1.5, rel=0.03)
    assert [term.is_claimed for term in found.terms] == [True, True, False, True, False, False]
    assert found.block_share is not None
    assert found.higher_share is not None
    assert found.residual_share is not None
    assert math.fsum(
        [*(term.share for term in found.terms), found.block_share, found.higher_share, found.residual_share]
    ) == pytest.approx(1)


def test_intervals_cover_what_is_true_as_often_as_they_say_and_no_effect_is_claimed_as_seldom() -> None:
    """Bounds are four standard errors of a share of 0.95, or of 0.05, over the runs."""
    runs, truth = 160, {"memory_mb": math.log(0.5), "callers": math.log(1.2), "language": 0.0}
    covered = dict.fromkeys(truth, 0)
    covered_both = false = 0
    for seed in range(runs):
        found = effects(simulated(seed, truth))
        for term in found.mains:
            mean = term.means[1]
            assert mean.ratio_low is not None
            assert mean.ratio_high is not None
            covered[term.factors[0]] += mean.ratio_low <= math.exp(truth[term.factors[0]]) <= mean.ratio_high
        contrast = found.interactions[0].contrasts[0]
        covered_both += contrast.low <= 1 <= contrast.high
        false += any(term.is_claimed for term in found.terms if term.factors not in (("memory_mb",), ("callers",)))
    error = 4 * math.sqrt(0.05 * 0.95 / runs)
    for share in (*(count / runs for count in covered.values()), covered_both / runs):
        assert 0.95 - error <= share <= 0.95 + error
    # Holm holds the chance of any false claim among the four that are nothing to 5 % at most
    assert false / runs <= 0.05 + error
    assert false > 0, "a test that never errs has no power either"


def test_holm_counts_every_term_of_every_response() -> None:
    alone = effects(study(by_hand()))
    first, _ = estimate_effects([study(by_hand()), study(by_hand())])
    assert first.terms[0].p_adjusted == pytest.approx(6 * alone.terms[0].p_value)


def test_a_block_that_lacks_a_cell_is_left_out_and_said() -> None:
    values = by_hand() | {(3, cell): math.exp(3) for _, cell in list(by_hand())[:3]}
    found = effects(study(values, blocks=(1, 2, 3)))
    assert found.blocks == (1, 2)
    assert found.left_out == ("block 3 has no value of a=a2 b=b2",)
    assert found.terms == effects(study(by_hand())).terms


def test_factors_of_one_level_are_no_factors() -> None:
    values = {(block, (*cell, "x")): value for (block, cell), value in by_hand().items()}
    found = effects(study(values, {**TWO, "c": ("x",)}))
    assert [term.name for term in found.terms] == ["a", "b", "a x b"]


CELLS = [cell for _, cell in list(by_hand())[:4]]


@pytest.mark.parametrize(
    ("values", "factors", "reason"),
    [
        ({}, TWO, "nothing was measured"),
        ({(1, ("x",)): 1.0, (2, ("x",)): 2.0}, {"a": ("x",)}, "no factor has two levels"),
        (
            {key: value for key, value in by_hand().items() if key[1] != ("a2", "b2")},
            TWO,
            "without a value of a=a2 b=b2 effects cannot be told apart",
        ),
        (
            {key: value for key, value in by_hand().items() if key != (2, ("a2", "b2"))},
            TWO,
            "1 of 2 blocks are complete, and it takes at least 2",
        ),
        (by_hand() | {(1, ("a1", "b1")): 0.0}, TWO, "a ratio needs values above 0, and one is 0"),
        (dict.fromkeys(by_hand(), 3.5), TWO, "it is 3.5 everywhere"),
        (
            {(block, cell): float(place) for block in (1, 2) for place, cell in enumerate(CELLS, start=1)},
            TWO,
            "its blocks do not differ, so there is nothing by which an effect could be told from chance",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_estimated_is_refused_with_the_reason(
    values: Mapping[BlockCell, float], factors: Mapping[str, Sequence[Level]], reason: str
) -> None:
    found = effects(study(values, factors))
    assert found.refused == reason
    assert found.terms == ()
