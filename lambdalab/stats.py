"""Estimators with exact intervals, without assumptions about the distribution. Pure."""

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence

from lambdalab.model import Estimate


def median_estimate(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Estimate the median, with the interval between two order statistics that holds for any distribution.

    Of n independent samples, the number below the true median is binomial(n, 1/2). So the interval from the r-th
    smallest to the r-th largest covers the median with probability 1 - 2 P(X <= r - 1), and r is the largest rank
    that keeps this at or above ``level`` (David & Nagaraja, Order Statistics, 3rd ed., section 7.1). The coverage is
    usually more than ``level``, for ranks are whole. For n = 10 and 0.95 it is the 2nd to the 9th.

    Args:
        values: the samples, in any order and unit; none may be trimmed.
        level: the least coverage asked for, between 0 and 1.

    Returns:
        The estimate; its ends are None below ``smallest_n(level)`` samples.

    Raises:
        ValueError: no value, a value that is not finite, or a level outside (0, 1).
    """
    _check_level(level)
    if not values:
        raise ValueError("the median of no values does not exist")
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is not a finite number")
    ordered = sorted(values)
    rank = _lower_rank(len(ordered), level)
    return Estimate(
        n=len(ordered),
        median=statistics.median(ordered),
        low=ordered[rank - 1] if rank else None,
        high=ordered[-rank] if rank else None,
        minimum=ordered[0],
        maximum=ordered[-1],
        level=level,
    )


def smallest_n(level: float) -> int:
    """Find the fewest samples that give the median an interval: the least n with 1 - 2^(1 - n) >= level.

    It is 6 for 0.95 and 8 for 0.99; with fewer, even the whole range of the samples misses the median too often.
    """
    _check_level(level)
    return math.ceil(1 - math.log2(1 - level))


def _lower_rank(n: int, level: float) -> int:
    """Count the k with P(X <= k) <= (1 - level) / 2 for X ~ binomial(n, 1/2): the lower rank from 1, 0 for none."""
    from scipy.special import bdtr  # here, because the import takes 0.6 s and most commands never need it

    return bisect_right(range(n), (1 - level) / 2, key=lambda k: float(bdtr(k, n, 0.5)))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, but a coverage lies between 0 and 1")
