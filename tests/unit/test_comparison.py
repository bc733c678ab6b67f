"""Verdicts of hand-made samples: what is claimed, what is not, and what needs more blocks."""

import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from samples import make_manifest
from scipy import stats

from lambdalab.design.arms import Factors, Mode
from lambdalab.statistics.comparison import (
    Comparison,
    Metric,
    Samples,
    Verdict,
    arm_pairs,
    compare,
    fewest_blocks,
    holm,
    needed_blocks,
    ratio_interval,
)


def noisy(n: int, *, cv: float = 0.01, factor: float = 1.0, seed: int = 1) -> list[float]:
    draw = random.Random(seed)
    return [100 * factor * draw.lognormvariate(0, cv) for _ in range(n)]


def one_of(
    values: Sequence[float], base: Sequence[float], metric: Metric = Metric.DURATION, resolution: float | None = None
) -> Samples:
    return Samples("SMALL", metric, "b", "a", dict(enumerate(values)), dict(enumerate(base)), resolution)


def judged(values: Sequence[float], base: Sequence[float], **options: object) -> Comparison:
    (found,) = compare([one_of(values, base)], seed=7, **options)  # type: ignore[arg-type]
    return found


# verdicts


@pytest.mark.parametrize(
    ("factor", "gated", "between_languages"),
    [
        (1.05, Verdict.REGRESSION, Verdict.SLOWER),
        (1 / 1.05, Verdict.IMPROVEMENT, Verdict.FASTER),
        (1.0, Verdict.NO_CHANGE, Verdict.NO_CHANGE),
    ],
)
@pytest.mark.parametrize("paired", [True, False])
def test_the_three_verdicts(factor: float, gated: Verdict, between_languages: Verdict, paired: bool) -> None:
    values, base = noisy(40, factor=factor), noisy(40, seed=2)
    assert judged(values, base, paired=paired).verdict is gated
    assert judged(values, base, paired=paired, gate=False).verdict is between_languages


def test_a_cost_is_more_expensive_or_cheaper() -> None:
    up, down = (one_of(noisy(40, factor=f), noisy(40, seed=2), Metric.COST) for f in (1.2, 0.8))
    assert [found.verdict for found in compare([up, down], seed=1, gate=False)] == [
        Verdict.MORE_EXPENSIVE,
        Verdict.CHEAPER,
    ]


def test_too_wide_an_interval_is_inconclusive_and_never_no_change() -> None:
    found = judged(noisy(10, cv=0.3), noisy(10, cv=0.3, seed=2))
    assert found.p_adjusted is not None
    assert found.p_adjusted > 0.05, "not significant"
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.needed_blocks is not None
    assert found.needed_blocks > 100


def test_a_significant_difference_below_the_margin_is_no_regression() -> None:
    values, base = noisy(60, factor=1.015, cv=0.005), noisy(60, seed=2, cv=0.005)
    found = judged(values, base)
    assert found.p_adjusted is not None
    assert found.p_adjusted < 1e-6
    assert found.verdict is Verdict.NO_CHANGE, "its interval is inside the margin"
    assert judged(values, base, margin=0.01).verdict is Verdict.REGRESSION


def test_nothing_is_claimed_below_what_an_a_a_run_can_resolve() -> None:
    values, base = noisy(40, factor=1.05), noisy(40, seed=2)
    verdicts = [compare([one_of(values, base, resolution=r)], seed=7)[0].verdict for r in (0.01, 0.08)]
    assert verdicts == [Verdict.REGRESSION, Verdict.INCONCLUSIVE]


def test_p_values_are_adjusted_for_every_comparison_made() -> None:
    changes = [0.001, 0.002, -0.003, 0.041, 0.042, 0.043, 0.044, 0.045, 0.046, 0.047]
    marginal = one_of([100 * (1 + change) for change in changes], [100] * 10)
    (alone,) = compare([marginal], seed=7)
    among, *others = compare([marginal, *[one_of([3] * 10, [3] * 10)] * 5], seed=7)
    assert alone.p_value == alone.p_adjusted == among.p_value == 10 / 1024, "5 of 2^10 rank sums are at most 3"
    assert alone.verdict is Verdict.REGRESSION
    assert among.p_adjusted == 6 * 10 / 1024, "Holm's first step"
    assert among.verdict is Verdict.INCONCLUSIVE
    assert {other.verdict for other in others} == {Verdict.NO_CHANGE}


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.02], [0.02]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.02, 0.021, 0.9], [0.06, 0.06, 0.9]),
        ([0.6, 0.5], [1.0, 1.0]),
    ],
)
def test_holms_method_by_hand(p_values: list[float], adjusted: list[float]) -> None:
    """The smallest times m, the next times m - 1, and so on; never below the one before, never above 1."""
    assert holm(p_values) == pytest.approx(adjusted)


# too few blocks


def test_a_huge_difference_in_too_few_blocks_lacks_blocks_and_says_how_many() -> None:
    def among(comparisons: int, blocks: int) -> Comparison:
        huge = one_of(noisy(blocks, factor=39), noisy(blocks, seed=2))
        return compare([huge, *[one_of([3] * blocks, [3] * blocks)] * (comparisons - 1)], seed=7)[0]

    found = among(26, 10)
    assert (found.verdict, found.lacks_blocks) == (Verdict.INCONCLUSIVE, True)
    assert found.fewest_blocks == found.needed_blocks == 11, "the decision's number, not the margin's"
    assert among(26, 11).verdict is Verdict.REGRESSION
    assert [among(8, blocks).verdict for blocks in (8, 9)] == [Verdict.INCONCLUSIVE, Verdict.REGRESSION]


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("comparisons", [1, 2, 4, 8, 26, 100])
def test_the_fewest_blocks_can_claim_a_huge_difference_and_one_less_cannot(comparisons: int, paired: bool) -> None:
    def verdict(blocks: int) -> Verdict:
        huge = one_of(noisy(blocks, factor=39), noisy(blocks, seed=2))
        others = [one_of([3] * blocks, [3] * blocks)] * (comparisons - 1)
        return compare([huge, *others], seed=7, paired=paired, resamples=100)[0].verdict

    fewest = fewest_blocks(comparisons, paired=paired)
    assert verdict(fewest) is Verdict.REGRESSION
    assert verdict(fewest - 1) is Verdict.INCONCLUSIVE


def test_a_difference_that_only_holm_leaves_open_lacks_blocks_and_any_other_is_noise() -> None:
    def found(change: float) -> Comparison:
        return judged([100 * (1 + change) * (1 + (-1) ** i * 0.2) for i in range(12)], [100.0] * 12)

    noise = found(0.08)
    assert (noise.verdict, noise.lacks_blocks, noise.may_be_worse) == (Verdict.INCONCLUSIVE, False, False)
    assert found(0.03).needed_blocks > noise.needed_blocks > 12

    changes = [0.001, 0.002, -0.003, 0.061, 0.062, 0.063, 0.064, 0.065, 0.066, 0.067]
    others = [one_of([3] * 10, [3] * 10)] * 5
    values = [100 * (1 + change) for change in changes]
    slower, *_ = compare([one_of(values, [100] * 10), *others], seed=7)
    faster, *_ = compare([one_of([100] * 10, values), *others], seed=7)
    assert (slower.verdict, slower.lacks_blocks, slower.may_be_worse) == (Verdict.INCONCLUSIVE, True, True)
    assert (faster.verdict, faster.lacks_blocks, faster.may_be_worse) == (Verdict.INCONCLUSIVE, True, False)


def test_what_is_not_judged_costs_nothing_and_has_no_verdict() -> None:
    changed = one_of(noisy(9, factor=2), noisy(9, seed=2))
    shown = changed._replace(is_judged=False)
    alone, *others = compare([changed, *[shown] * 25], seed=7)
    assert alone.verdict is Verdict.REGRESSION
    assert alone.p_adjusted == alone.p_value
    assert {(other.verdict, other.p_adjusted, other.lacks_blocks) for other in others} == {
        (Verdict.NOT_JUDGED, None, False)
    }
    assert {other.low for other in others} == {alone.low}


# what it is made of


def test_pairs_take_away_what_both_sides_share() -> None:
    drift = [1 + block / 20 for block in range(20)]
    values = [v * d for v, d in zip(noisy(20, factor=1.05), drift, strict=True)]
    base = [v * d for v, d in zip(noisy(20, seed=2), drift, strict=True)]
    ratios = [a / b - 1 for a, b in zip(values, base, strict=True)]
    assert judged(values, base).p_value == pytest.approx(stats.wilcoxon(ratios).pvalue)
    assert judged(values, base, paired=False, margin=0.03).p_value == stats.mannwhitneyu(values, base).pvalue
    assert (judged(values, base).p_value or 1) < 0.001 < (judged(values, base, paired=False).p_value or 0)


@pytest.mark.parametrize("n", [6, 9, 11])
def test_wilcoxons_p_is_exact_where_differences_tie(n: int) -> None:
    draw = random.Random(n)
    steps = [draw.choice((-3, -2, -1, 1, 2, 3, 4)) for _ in range(n)]
    ranks = stats.rankdata([abs(step) for step in steps])
    seen = sum(rank for rank, step in zip(ranks, steps, strict=True) if step > 0)
    furthest = min(seen, sum(ranks) - seen)
    drawn = [sum(rank for rank, up in zip(ranks, ups, strict=True) if up) for ups in product((0, 1), repeat=n)]
    p_value = min(1, 2 * sum(one <= furthest for one in drawn) / len(drawn))
    assert judged([2.0**step for step in steps], [1.0] * n).p_value == pytest.approx(p_value)


def test_a_block_without_both_sides_is_no_pair() -> None:
    values, base = dict(enumerate(noisy(10))), dict(enumerate(noisy(10, seed=2)))
    del values[3], base[4]
    base[3] = 1e9
    (found,) = compare([Samples("SMALL", Metric.DURATION, "b", "a", values, base)], seed=7)
    assert found.n_blocks == 8
    assert found.ratio == pytest.approx(1, abs=0.02)


def test_the_effect_runs_from_all_smaller_to_all_larger() -> None:
    low, high = [1.0 + i / 10 for i in range(8)], [9.0 + i / 5 for i in range(8)]
    for paired, name in ((True, "rank-biserial correlation"), (False, "Cliff's delta")):
        larger, smaller = judged(high, low, paired=paired), judged(low, high, paired=paired)
        assert (larger.effect, smaller.effect, larger.effect_name) == (1, -1, name)


@pytest.mark.parametrize(("blocks", "has_interval"), [(5, False), (6, True)])
def test_below_six_blocks_there_is_a_ratio_and_no_interval(blocks: int, has_interval: bool) -> None:
    found = judged(noisy(blocks, factor=2), noisy(blocks))
    assert found.ratio == pytest.approx(2)
    assert (found.low is not None, found.high is not None, found.p_value is not None) == (has_interval,) * 3
    assert found.verdict is Verdict.INCONCLUSIVE or has_interval


def test_nothing_is_made_up_of_zeros_of_nothing_or_of_equals() -> None:
    nothing, zeros, some, equal = (
        judged(*sides) for sides in (([], []), ([0] * 8, [0] * 8), ([1] * 8, [0] * 8), ([3] * 8, [3] * 8))
    )
    assert (nothing.ratio, nothing.n_blocks, nothing.verdict) == (None, 0, Verdict.INCONCLUSIVE)
    assert (zeros.ratio, zeros.p_value, zeros.verdict) == (None, None, Verdict.INCONCLUSIVE)
    assert (some.ratio, some.verdict) == (None, Verdict.INCONCLUSIVE)
    assert (equal.ratio, equal.low, equal.high, equal.p_value, equal.effect) == (1, 1, 1, 1, 0)
    assert equal.verdict is Verdict.NO_CHANGE


def test_the_seed_decides_the_interval() -> None:
    values, base = noisy(15, cv=0.2), noisy(15, cv=0.2, seed=2)
    first, again, other = (compare([one_of(values, base)], seed=seed)[0] for seed in (1, 1, 2))
    assert (first.low, first.high) == (again.low, again.high)
    assert (first.low, first.high) != (other.low, other.high)


# which arm over which


@pytest.mark.parametrize(
    ("factors", "pairs"),
    [
        (Factors(language=("go",)), []),
        (Factors(language=("python", "go")), ["python over go"]),
        (Factors(language=("go",), build=("old", "new", "next")), ["go-new over go-old", "go-next over go-old"]),
        (
            Factors(language=("python", "go"), build=("a", "b")),
            ["python-b over python-a", "go-b over go-a"],
        ),
        (
            Factors(language=("python", "go"), memory_mb=(128, 512)),
            ["python-128MB over go-128MB", "python-512MB over go-512MB"],
        ),
        (
            Factors(language=("go",), memory_mb=(128, 512), mode=(Mode.SEQUENTIAL, Mode.BATCH)),
            ["go-128MB-sequential over go-128MB-batch", "go-512MB-sequential over go-512MB-batch"],
        ),
        (Factors(language=("go",), memory_mb=(128, 512, 1024)), ["go-128MB over go-512MB", "go-128MB over go-1024MB"]),
    ],
)
def test_what_is_compared_differs_in_one_factor(factors: Factors, pairs: list[str]) -> None:
    arms = make_manifest(factors=factors).protocol.arms
    assert [f"{arm.name} over {over.name}" for arm, over in arm_pairs(arms)] == pairs


# blocks that a plan asks for


def test_more_noise_comparisons_and_power_and_a_smaller_effect_need_more_blocks() -> None:
    usual = needed_blocks(0.05, 0.05)
    assert 30 < usual < 45
    assert needed_blocks(0.10, 0.05) == pytest.approx(4 * usual, rel=0.1)
    assert needed_blocks(0.05, 0.03) > needed_blocks(0.05, 0.05, 0.95) > usual
    assert needed_blocks(0.05, 0.05, comparisons=13) > usual
    assert needed_blocks(0.0, 0.05, comparisons=13) == 10, "no fewer can be significant: 2^(1-10) < 0.05/13 < 2^(1-9)"


def test_an_effect_within_the_margin_cannot_be_found() -> None:
    with pytest.raises(ValueError, match=r"0\.02 is not above the margin 0\.025"):
        needed_blocks(0.05, 0.02)
    with pytest.raises(ValueError, match="power is 1"):
        needed_blocks(0.05, 0.05, 1)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("n", [6, 13, 2000])
def test_the_interval_of_a_ratio_is_the_one_of_scipys_bootstrap(n: int, paired: bool) -> None:
    rng = np.random.default_rng(n)
    values, base = rng.lognormal(size=n), rng.lognormal(size=n if paired else n + 1)
    expected = stats.bootstrap(
        (values, base), lambda one, two, axis: np.median(one, axis=axis) / np.median(two, axis=axis), paired=paired,
        method="percentile", n_resamples=1500, batch=1000, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    assert ratio_interval(values, base, seed=5, paired=paired, resamples=1500) == pytest.approx(tuple(expected))


def test_a_verdict_of_a_run_loads_no_scipy_stats() -> None:
    """Its import takes longer than everything else of a report."""
    values = {block: 1 + block / 100 for block in range(10)}
    program = (
        "import sys; from lambdalab.analysis.resolution import most_allowed\n"
        "from lambdalab.statistics.comparison import *\n"
        f"values = {values}\n"
        "compare([Samples('WARM', Metric.DURATION, 'go', 'python', values, values)], seed=1)\n"
        "most_allowed(10); sys.exit('scipy.stats' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_importing_the_module_loads_no_library_of_statistics() -> None:
    program = "import sys, lambdalab.statistics.comparison; sys.exit(any(m in sys.modules for m in ('scipy', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
