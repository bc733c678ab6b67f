"""Estimators with exact intervals, without assumptions about the distribution. Pure.

Outliers are counted and warned of, never removed. numpy and scipy are imported where they are used: that takes 0.6 s,
and most commands never need them.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from lambdalab.records.trials import Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL: Final = 0.95
PRECISION: Final = 0.05
"""Half-width of the median's interval, as a share of the median, that is precise enough (Copik et al., 2021)."""
LEAST_N: Final = 10
"""No cell is precise with fewer samples, whatever they say."""
_FEW: Final = 500
"""Samples whose binomial probabilities are added up one by one."""
_MODIFIED_Z: Final = 14.826
"""|x - median| / MAD beyond which hyperfine calls a sample an outlier: ten robust standard deviations."""
_IQR_FENCE: Final = 1.5


class Quantile(NamedTuple):
    """A quantile and its exact interval; all None when n is too small, and then ``more`` samples are missing."""

    value: float | None
    low: float | None
    high: float | None
    more: int


def median_estimate(values: Sequence[float], level: float = LEVEL, *, in_ms: bool = True) -> Estimate:
    """Estimate the median with its interval, and describe the samples around it.

    The interval is the one between two order statistics that holds for any distribution (``interval_ranks``). Below
    ``smallest_n(level)`` samples there is none.

    Args:
        values: the samples in the order they were measured; none may be trimmed.
        level: the least coverage asked for, between 0 and 1.
        in_ms: whether they are times in milliseconds, of which some are too short to time.

    Raises:
        ValueError: no value, a value that is not finite, or a level outside (0, 1).
    """
    import numpy as np

    if not values:
        raise ValueError("the median of no values does not exist")
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is not a finite number")
    measured = np.asarray(values, dtype=float)
    ordered = np.sort(measured)
    q1, median, q3 = (float(value) for value in np.quantile(ordered, (0.25, 0.5, 0.75)))
    ranks = interval_ranks(len(ordered), 0.5, level)
    low, high = (float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1])) if ranks else (None, None)
    p95, p99 = quantile_estimate(ordered, 0.95, level), quantile_estimate(ordered, 0.99, level)
    mean = float(measured.mean())
    cv = float(measured.std(ddof=1)) / mean if len(measured) > 1 and mean > 0 else None
    is_outlier = _outliers(measured, q1, median, q3)
    return Estimate(
        n=len(ordered),
        median=median,
        low=low,
        high=high,
        minimum=float(ordered[0]),
        maximum=float(ordered[-1]),
        level=level,
        q1=q1,
        q3=q3,
        cv=cv,
        p95=p95.value,
        p95_low=p95.low,
        p95_high=p95.high,
        p95_more=p95.more,
        p99=p99.value,
        p99_low=p99.low,
        p99_high=p99.high,
        p99_more=p99.more,
        needed_n=needed_n(len(ordered), median, low, high),
        outliers=int(is_outlier.sum()),
        warnings=tuple(_warnings(measured, mean, cv, first_is_outlier=bool(is_outlier[0]), in_ms=in_ms)),
    )


def quantile_estimate(ordered: "Sequence[float] | NDArray[np.float64]", q: float, level: float = LEVEL) -> Quantile:
    """Estimate a quantile of sorted samples; the point is interpolated as numpy does by default."""
    import numpy as np

    ranks = interval_ranks(len(ordered), q, level)
    if ranks is None:
        return Quantile(None, None, None, more=smallest_n(level, q) - len(ordered))
    low, high = ranks
    return Quantile(float(np.quantile(ordered, q)), float(ordered[low - 1]), float(ordered[high - 1]), more=0)


def midranks(values: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Find the rank of each value, from 1; values that are equal share the mean of their ranks."""
    import numpy as np

    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Correlate the ranks of two samples (Spearman's rho), neither of which is constant."""
    import numpy as np

    return float(np.corrcoef(midranks(np.asarray(one)), midranks(np.asarray(other)))[0, 1])


def interval_ranks(n: int, q: float, level: float = LEVEL) -> tuple[int, int] | None:
    """Find the ranks, from 1, of the samples that enclose the q-quantile with a probability of at least ``level``.

    Of n independent samples the number below the quantile is binomial(n, q), so the l-th and the u-th smallest enclose
    it with probability P(l <= X <= u - 1) (David & Nagaraja, Order Statistics, 3rd ed., section 7.1). The tails
    get (1 - level) / 2 each; where the sample has no room for that beyond an extreme, the extreme is the end
    and the other tail gets what is left. For n = 10 and the median it is the 2nd to the 9th.

    Returns:
        The ranks; None when even the whole range of the samples covers less than ``level``.
    """
    if n < smallest_n(level, q):
        return None
    below, above = _rank(n, q, (1 - level) / 2), _rank(n, 1 - q, (1 - level) / 2)
    if above == 0:
        below, above = max(1, _rank(n, q, 1 - level - q**n)), 1
    elif below == 0:
        below, above = 1, max(1, _rank(n, 1 - q, 1 - level - (1 - q) ** n))
    return below, n + 1 - above


def smallest_n(level: float, q: float = 0.5) -> int:
    """Find the fewest samples that give the q-quantile an interval: the least n with q^n + (1 - q)^n <= 1 - level.

    It is 6 for the median at 0.95 and 8 at 0.99; 59 and 90 for the 95th percentile, 299 and 459 for the 99th.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, but a coverage lies between 0 and 1")
    if not 0 < q < 1:
        raise ValueError(f"q is {q}, but a quantile lies between 0 and 1")
    n = math.ceil(math.log(1 - level) / math.log(max(q, 1 - q)))
    while q**n + (1 - q) ** n > 1 - level:
        n += 1
    return n


def needed_n(n: int, median: float, low: float | None, high: float | None, precision: float = PRECISION) -> int | None:
    """Estimate how many samples bring the median's interval within ``precision`` of it: widths shrink with 1/sqrt(n).

    Returns:
        At least ``LEAST_N``; None without an interval, or when the median is not above 0.
    """
    if low is None or high is None or median <= 0:
        return None
    return max(LEAST_N, math.ceil(n * (max(high - median, median - low) / median / precision) ** 2))


def binomial_cdf(k: int, n: int, q: float) -> float:
    """P(X <= k) for X ~ binomial(n, q), with q between 0 and 1.

    Few terms are added up here: scipy.special takes half a second to import.
    """
    if n > _FEW:
        from scipy.special import bdtr

        return float(bdtr(k, n, q))
    all_ways, log_q, log_rest = math.lgamma(n + 1), math.log(q), math.log1p(-q)
    logs = (
        all_ways - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * log_q + (n - i) * log_rest for i in range(k + 1)
    )
    return math.fsum(map(math.exp, logs))


def _rank(n: int, q: float, tail: float) -> int:
    """Count the k with P(X <= k) <= tail for X ~ binomial(n, q): the lower rank from 1, 0 for none."""
    return bisect_right(range(n), tail, key=lambda k: binomial_cdf(k, n, q))


def _outliers(values: "NDArray[np.float64]", q1: float, median: float, q3: float) -> "NDArray[np.bool_]":
    import numpy as np

    deviation = np.abs(values - median)
    beyond_fence = (values < q1 - _IQR_FENCE * (q3 - q1)) | (values > q3 + _IQR_FENCE * (q3 - q1))
    mad = float(np.median(deviation))
    return beyond_fence | (deviation > _MODIFIED_Z * mad) if mad > 0 else beyond_fence


def _warnings(
    values: "NDArray[np.float64]", mean: float, cv: float | None, *, first_is_outlier: bool, in_ms: bool
) -> Iterator[str]:
    """The rules by which pyperf calls a benchmark unstable, and hyperfine's about the first sample."""
    if cv is not None and cv >= 0.1:
        yield f"the standard deviation is {cv:.0%} of the mean"
    for name, extreme in (("smallest", float(values.min())), ("largest", float(values.max()))):
        if mean > 0 and abs(extreme - mean) >= 0.5 * mean:
            yield f"the {name} is {abs(extreme / mean - 1):.0%} away from the mean"
    if in_ms and values.min() < 1:
        yield f"the smallest is {values.min():.2f} ms, and less than 1 ms is hard to time"
    if cv is not None and len(values) < (enough := math.ceil(4 * (1.96 * cv / 0.01) ** 2)):
        yield f"{enough} samples would make the mean certain to 1%, there are {len(values)}"
    if first_is_outlier and len(values) >= LEAST_N:
        yield "the first sample is an outlier: warming up was not complete"
