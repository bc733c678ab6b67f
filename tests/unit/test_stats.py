"""The median's interval: published ranks, exact coverage, and no interval where there is none."""

import math
import random
import subprocess
import sys
from fractions import Fraction

import pytest

from lambdalab.stats import median_estimate, smallest_n

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
    program = "import sys, lambdalab.stats; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
