"""The median's interval: published ranks, exact coverage, and no interval where there is none."""

import math
import random
import statistics
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from lambdalab.statistics.estimates import (
    binomial_cdf,
    interval_ranks,
    median_estimate,
    midranks,
    rank_correlation,
    smallest_n,
)

RANKS: dict[float, dict[int, tuple[int, int] | None]] = {
    0.95: {6: (1, 6), 8: (1, 8), 10: (2, 9), 20: (6, 15), 30: (10, 21), 50: (18, 33), 100: (40, 61), 200: (86, 115)},
    0.99: {6: None, 8: (1, 8), 10: (1, 10), 20: (4, 17), 30: (8, 23), 50: (16, 35), 100: (37, 64), 200: (82, 119)},
}


@pytest.mark.parametrize(
    ("level", "n", "ranks"), [(level, n, r) for level, row in RANKS.items() for n, r in row.items()]
)
def test_the_interval_has_the_published_ranks(level: float, n: int, ranks: tuple[int, int] | None) -> None:
    values = list(range(1, n + 1))  # so that each value is its own rank
    random.Random(1).shuffle(values)
    estimate = median_estimate(values, level)
    assert (estimate.low, estimate.high) == (ranks or (None, None))
    assert (estimate.n, estimate.median, estimate.minimum, estimate.maximum) == (n, (n + 1) / 2, 1, n)
    assert estimate.level == level


def coverage(n: int, rank: int) -> Fraction:
    """Exact probability that the ``rank``-th smallest and largest of n samples enclose the median."""
    return 1 - Fraction(2 * sum(math.comb(n, k) for k in range(rank)), 2**n)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95, 0.99, 0.999])
def test_the_interval_covers_as_asked_and_no_narrower_one_does(level: float) -> None:
    for n in range(1, 260):
        low = median_estimate(range(1, n + 1), level).low
        if low is None:
            assert coverage(n, 1) < level
        else:
            assert coverage(n, int(low)) >= level > coverage(n, int(low) + 1)


def test_many_samples_take_no_longer_way() -> None:
    estimate = median_estimate(range(1, 1_000_001))
    assert estimate.low is not None
    assert estimate.low == pytest.approx(500_000.5 - 1.96 * math.sqrt(1_000_000) / 2, abs=2)


def test_the_smallest_n_with_an_interval() -> None:
    assert (smallest_n(0.95), smallest_n(0.99)) == (6, 8)
    for level in (0.5, 0.8, 0.9, 0.95, 0.99, 0.999):
        n = smallest_n(level)
        assert median_estimate(range(n), level).low is not None
        assert n == 1 or median_estimate(range(n - 1), level).low is None


def test_one_sample_is_a_median_without_interval() -> None:
    estimate = median_estimate([7.5])
    assert (estimate.median, estimate.low, estimate.high) == (7.5, None, None)


def test_the_estimate_follows_scale_and_reflection() -> None:
    draw = random.Random(3)
    values = [draw.lognormvariate(0, 1) for _ in range(31)]
    plain, doubled, mirrored = (median_estimate([f * v for v in values]) for f in (1, 2, -1))
    assert (doubled.low, doubled.median) == (2 * (plain.low or 0), 2 * plain.median)
    assert (mirrored.low, mirrored.high) == (-(plain.high or 0), -(plain.low or 0))


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 1.0]])
def test_no_median_is_made_up(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no values|not a finite number"):
        median_estimate(values)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, math.nan])
def test_a_level_is_a_probability(level: float) -> None:
    with pytest.raises(ValueError, match="level is"):
        median_estimate([1.0], level)
    with pytest.raises(ValueError, match="level is"):
        smallest_n(level)


def test_importing_the_module_does_not_load_scipy() -> None:
    program = "import sys, lambdalab.statistics.estimates; sys.exit('scipy' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# any quantile


@pytest.mark.parametrize(
    ("q", "level", "least"),
    [(0.5, 0.95, 6), (0.5, 0.99, 8), (0.95, 0.95, 59), (0.95, 0.99, 90), (0.99, 0.95, 299), (0.99, 0.99, 459)],
)
def test_a_quantile_has_an_interval_from_the_published_n_on(q: float, level: float, least: int) -> None:
    assert smallest_n(level, q) == smallest_n(level, 1 - q) == least
    assert interval_ranks(least - 1, q, level) is None
    assert interval_ranks(least, q, level) is not None


def exact_coverage(n: int, q: Fraction, low: int, high: int) -> Fraction:
    """Exact probability that the q-quantile lies between the ``low``-th and the ``high``-th smallest of n samples."""
    return sum((math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(low, high)), Fraction())


@pytest.mark.parametrize("q", [Fraction(1, 20), Fraction(1, 4), Fraction(1, 2), Fraction(95, 100), Fraction(99, 100)])
def test_the_ranks_of_every_quantile_cover_as_asked(q: Fraction) -> None:
    for n in (6, 10, 30, 59, 60, 72, 73, 100, 200, 299, 320, 460):
        ranks = interval_ranks(n, float(q))
        if ranks is None:
            assert exact_coverage(n, q, 1, n) < 0.95
        else:
            assert exact_coverage(n, q, *ranks) >= 0.95
            assert 1 <= ranks[0] < ranks[1] <= n


def test_ranks_of_mirrored_quantiles_mirror_each_other() -> None:
    for n in (59, 100, 300):
        low, high = interval_ranks(n, 0.95) or (0, 0)
        assert interval_ranks(n, 0.05) == (n + 1 - high, n + 1 - low)


def test_a_percentile_without_enough_samples_says_how_many_are_missing() -> None:
    few, enough = median_estimate(range(1, 11)), median_estimate(range(1, 60))
    assert (few.p95, few.p95_low, few.p95_high, few.p95_more, few.p99_more) == (None, None, None, 49, 289)
    assert (enough.p95_more, enough.p99, enough.p99_more) == (0, None, 240)
    assert enough.p95 == pytest.approx(56.1)
    assert enough.p95_high == 59, "the largest of them"
    assert enough.p95_low is not None
    assert 45 < enough.p95_low < 54


def test_quartiles_and_spread_are_numpys() -> None:
    estimate = median_estimate([1, 2, 3, 4, 5, 6, 7, 8, 10])
    assert (estimate.q1, estimate.q3) == (3, 7)
    assert estimate.cv == pytest.approx(statistics.stdev([1, 2, 3, 4, 5, 6, 7, 8, 10]) / (46 / 9))
    assert median_estimate([5]).cv is None
    assert median_estimate([0, 0]).cv is None


@pytest.mark.parametrize(("cv", "typical"), [(0.1, 30), (0.2, 125), (0.3, 250), (0.5, 600)])
def test_the_n_for_five_per_cent_is_the_published_one(cv: float, typical: int) -> None:
    draw, sigma = random.Random(11), math.sqrt(math.log(1 + cv * cv))
    needed = [median_estimate([draw.lognormvariate(0, sigma) for _ in range(400)]).needed_n or 0 for _ in range(60)]
    assert statistics.median(needed) == pytest.approx(typical, rel=0.3)


def test_no_n_is_made_up_and_none_is_below_ten() -> None:
    assert median_estimate([1, 2, 3]).needed_n is None
    assert median_estimate([0] * 8).needed_n is None
    assert median_estimate([7] * 8).needed_n == 10
    assert median_estimate([7] * 8).relative_width == 0
    assert median_estimate([7] * 3).relative_width is None


STEADY = [100 + (i * 7) % 10 / 100 for i in range(40)]


def test_outliers_are_counted_and_stay() -> None:
    estimate = median_estimate([*STEADY, 180.0, 20.0])
    assert (estimate.outliers, estimate.minimum, estimate.maximum, estimate.n) == (2, 20, 180, 42)
    assert median_estimate(STEADY).outliers == 0
    assert median_estimate([3.0] * 20).outliers == 0
    assert median_estimate([*[3.0] * 20, 4.0]).outliers == 1, "where more than half are equal the fence decides"


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        ([90, 110] * 10, "the standard deviation is 10% of the mean"),
        ([*STEADY, 160.0], "the largest is 58% away from the mean"),
        ([*STEADY, 30.0], "the smallest is 69% away from the mean"),
        ([0.99, *[1.01] * 20], "the smallest is 0.99 ms, and less than 1 ms is hard to time"),
        ([96, 104] * 10, "259 samples would make the mean certain to 1%, there are 20"),
        ([150, *STEADY], "the first sample is an outlier: warming up was not complete"),
    ],
)
def test_what_is_unstable_is_warned_of(values: list[float], warning: str) -> None:
    assert warning in median_estimate(values).warnings


def test_steady_times_need_no_warning_and_money_is_no_time() -> None:
    assert median_estimate(STEADY).warnings == ()
    assert median_estimate([0.0000123] * 20, in_ms=False).warnings == ()


@pytest.mark.parametrize("seed", range(20))
def test_ranks_and_their_correlation_are_scipys_with_and_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = (rng.integers(0, 5 + 20 * seed, 30).astype(float) for _ in range(2))
    assert midranks(one) == pytest.approx(stats.rankdata(one), abs=1e-12)
    assert rank_correlation(list(one), list(other)) == pytest.approx(stats.spearmanr(one, other).statistic)


@pytest.mark.parametrize("n", [1, 2, 30, 500, 501, 5000])
@pytest.mark.parametrize("q", [0.01, 0.05, 0.5, 0.95, 0.999])
def test_binomial_probabilities_are_scipys(n: int, q: float) -> None:
    for k in {0, n // 3, n // 2, n - 1}:
        assert binomial_cdf(k, n, q) == pytest.approx(stats.binom.cdf(k, n, q), rel=1e-9)
