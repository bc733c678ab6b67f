"""What the estimators promise, kept on simulated samples: coverage, false differences, and the power of a plan.

The seeds are fixed, so that each figure is always the same. Figures are printed; ``pytest -s`` shows them.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from lambdalab.statistics.comparison import Metric, Samples, Verdict, compare, needed_blocks, ratio_interval
from lambdalab.statistics.estimates import interval_ranks

Draw = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]


def lognormal(rng: np.random.Generator, shape: tuple[int, int], cv: float = 0.5) -> NDArray[np.float64]:
    """Skewed: mean 12 % above the median."""
    return rng.lognormal(0, math.sqrt(math.log(1 + cv * cv)), shape)


def bimodal(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Every fourth sample takes twice as long, as after a page fault or a throttled slice."""
    return rng.lognormal(0, 0.1, shape) * np.where(rng.random(shape) < 0.25, 2, 1)


SHAPES = {"log-normal": lognormal, "bimodal": bimodal}
ONES = dict.fromkeys(range(8), 1.0)
QUANTILES = [(0.5, 10), (0.5, 30), (0.5, 100), (0.95, 100)]


@pytest.mark.parametrize("draw", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("q", "n"), QUANTILES)
def test_order_statistics_cover_as_the_binomial_says(draw: Draw, q: float, n: int) -> None:
    rng = np.random.default_rng(2026)
    truth = float(np.quantile(draw(rng, (1, 4_000_000)), q))
    ranks = interval_ranks(n, q)
    assert ranks is not None
    low, high = ranks
    samples = np.sort(draw(rng, (40_000, n)), axis=1)
    covered = float(np.mean((samples[:, low - 1] <= truth) & (truth <= samples[:, high - 1])))
    exact = float(binom.cdf(high - 1, n, q) - binom.cdf(low - 1, n, q))
    assert exact >= 0.95
    assert covered >= 0.95
    assert covered == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("draw", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("n", [10, 30, 100])
@pytest.mark.parametrize("paired", [True, False], ids=["paired", "unpaired"])
def test_the_bootstrap_of_ratios_covers_between_93_and_98_per_cent(draw: Draw, n: int, paired: bool) -> None:
    rng = np.random.default_rng(2026)
    truth, runs = 1.3, 500
    values, base = truth * draw(rng, (runs, n)), draw(rng, (runs, n))
    covered = 0
    for run in range(runs):
        low, high = ratio_interval(values[run], base[run], seed=run, paired=paired, resamples=500)
        covered += low <= truth <= high
    assert 0.93 <= covered / runs <= 0.98


# A/A and A/B under a slow drift


def run_of(rng: np.random.Generator, n: int, *, cv: float, drift_sd: float, factor: float = 1.0) -> list[list[float]]:
    """Two arms of n trials in the order they were run, interleaved or one arm after the other, under a random walk.

    Returns:
        Of both designs the values of both arms; the same noise and drift meet both.
    """
    sigma = math.sqrt(math.log(1 + cv * cv))
    drift = np.exp(np.cumsum(rng.normal(0, drift_sd / math.sqrt(n), 2 * n)))
    noise = rng.lognormal(0, sigma, (2, n))
    first_in_block = rng.integers(0, 2, n)
    blocks = np.arange(n)
    one, two = factor * noise[0] * drift[2 * blocks + first_in_block], noise[1] * drift[2 * blocks + 1 - first_in_block]
    after_one_another = factor * noise[0] * drift[n:], noise[1] * drift[:n]
    return [list(map(float, side)) for side in (one, two, *after_one_another)]


def claimed(values: list[float], base: list[float], seed: int, *, paired: bool, margin: float) -> bool:
    of = Samples("SMALL", Metric.DURATION, "b", "a", dict(enumerate(values)), dict(enumerate(base)))
    (found,) = compare([of], seed=seed, paired=paired, margin=margin, resamples=500)
    return found.verdict in (Verdict.REGRESSION, Verdict.IMPROVEMENT)


@pytest.mark.parametrize(("n", "blocked_at_least"), [(30, 0.10), (100, 0.25)])
def test_interleaved_a_a_runs_differ_rarely_and_runs_in_blocked_order_often(n: int, blocked_at_least: float) -> None:
    """Without a margin, which would hide what the design does."""
    rng = np.random.default_rng(2026)
    runs = interleaved = blocked = 0
    for runs in range(1, 401):
        one, two, later, earlier = run_of(rng, n, cv=0.10, drift_sd=0.05)
        interleaved += claimed(one, two, runs, paired=True, margin=0)
        blocked += claimed(later, earlier, runs, paired=False, margin=0)
    print(
        f"n = {n}: false differences interleaved {interleaved / runs:.1%}, one arm after the other {blocked / runs:.1%}"
    )
    assert interleaved / runs <= 0.07
    assert blocked / runs >= blocked_at_least


@pytest.mark.parametrize(("cv", "comparisons"), [(0.03, 1), (0.05, 13)])
def test_a_plan_finds_five_per_cent_as_often_as_it_says_and_a_third_of_it_does_not(cv: float, comparisons: int) -> None:
    """The comparisons beside the one that changed are of equal arms, so that only Holm's method feels them."""
    n = needed_blocks(cv, 0.05, 0.8, comparisons=comparisons)

    others = [Samples("LARGE", Metric.INIT, "b", "a", ONES, ONES)] * (comparisons - 1)

    def found(n: int, runs: int = 80) -> float:
        rng, count = np.random.default_rng(2026), 0
        for run in range(runs):
            one, two, *_ = run_of(rng, n, cv=cv, drift_sd=0.05, factor=1.05)
            of = Samples("SMALL", Metric.DURATION, "b", "a", dict(enumerate(one)), dict(enumerate(two)))
            count += compare([of, *others], seed=run, resamples=500)[0].verdict is Verdict.REGRESSION
        return count / runs

    enough = found(n)
    print(f"CV {cv:.0%}, {comparisons} comparisons: {n} blocks find 5% in {enough:.0%} of runs")
    assert enough >= 0.8
    assert found(n // 3) < 0.7
