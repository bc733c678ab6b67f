"""Verdicts: whether an arm is slower or costs more than another by more than noise. Pure; docs/method.md has the rules.

An effect first: the ratio of medians, with a bootstrap interval over whole blocks. Then a test (Wilcoxon signed-rank on
log ratios when paired by block, else Mann-Whitney), adjusted by Holm for every judged comparison. A difference is
claimed when both agree and it is at least the margin, and never below what an A/A run of this machine could resolve.
scipy.stats takes 1.7 s to import, so only rare cases use it.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from statistics import NormalDist
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from lambdalab.design.arms import Arm
from lambdalab.statistics.estimates import LEVEL, midranks, smallest_n

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES: Final = 10_000
MARGIN: Final = 0.025
"""Half of the 5 % that a gate must find: then such a change is claimed by its size as often as by its significance."""
_MOST_BLOCKS: Final = 1_000_000
_RESAMPLES_AT_ONCE: Final = 1000
_MOST_DRAWS: Final = 10_000_000
"""Of one interval: with more than a thousand blocks it takes fewer resamples, and its own noise is small then."""
_MOST_EXACT: Final = 50
"""Differing blocks for which Wilcoxon's p is exact; with more the normal approximation is as good."""
_MEDIAN_ERROR: Final = math.sqrt(math.pi / 2)
"""Standard error of a median over that of the mean, of samples whose logarithm is normal."""


class Metric(StrEnum):
    """What is compared."""

    DURATION = "duration"
    BILLED = "billed"
    INIT = "init"
    END_TO_END = "end_to_end"
    COST = "cost"


class Verdict(StrEnum):
    """What a comparison found.

    ``slower`` and ``faster``, of cost ``more expensive`` and ``cheaper``, are of arms that are not two builds of one
    function. ``not judged`` is what is shown beside the family of judged comparisons (docs/method.md).
    """

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    SLOWER = "slower"
    FASTER = "faster"
    MORE_EXPENSIVE = "more expensive"
    CHEAPER = "cheaper"
    NO_CHANGE = "no change"
    INCONCLUSIVE = "inconclusive"
    NOT_JUDGED = "not judged"


class Samples(NamedTuple):
    """What one comparison is made from: valid values by block, of the candidate and of what it is compared with.

    ``resolution`` is the smallest difference that an A/A run of this machine and design can tell from none.
    ``is_judged`` False: shown without a verdict, so that it costs the others no power.
    """

    label: str
    metric: Metric
    arm: str
    over: str
    values: Mapping[int, float]
    base: Mapping[int, float]
    resolution: float | None = None
    is_judged: bool = True


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One arm against another under one load: ``ratio`` is median of ``arm`` over median of ``over``.

    The medians are ``arm_median`` and ``over_median``, in ms, or USD per execution. ``n_blocks`` counts the pairs, or
    the smaller side when there are none. What cannot be known is None: no interval and no test below 6 blocks, no test
    when a value is not above 0. ``fewest_blocks`` is the least with which any difference can be claimed,
    ``needed_blocks`` about how many would decide: tell the measured difference from noise, or, where it is within the
    margin, bring the interval inside the margin. ``effect`` runs from -1, all smaller, to 1, all larger.
    """

    label: str
    metric: Metric
    arm: str
    over: str
    arm_median: float | None
    over_median: float | None
    ratio: float | None
    low: float | None
    high: float | None
    p_value: float | None
    p_adjusted: float | None
    effect_name: str
    effect: float | None
    n_blocks: int
    fewest_blocks: int
    needed_blocks: int
    margin: float
    resolution: float | None
    verdict: Verdict
    is_paired: bool = True

    @property
    def lacks_blocks(self) -> bool:
        """Whether only the number of blocks stands against a claim.

        No difference can be claimed with so few; or twice the margin was measured, which a gate must find, and the test
        would find it if it were the only comparison. Any other difference without a verdict is within the noise.
        """
        if self.verdict is not Verdict.INCONCLUSIVE or self.ratio is None:
            return False
        if self.n_blocks < self.fewest_blocks or self.p_value is None:
            return True
        return self.p_value < 1 - LEVEL and abs(math.log(self.ratio)) >= math.log1p(2 * self.margin)

    @property
    def may_be_worse(self) -> bool:
        """Whether ``arm`` may be slower or cost more, and only the number of blocks leaves it open."""
        return self.lacks_blocks and (self.n_blocks < self.fewest_blocks or (self.ratio or 0) > 1)


def arm_pairs(arms: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    """Find which arm is set over which: arms that differ in one factor only.

    It is the first of build, language, mode, memory and architecture that has several levels. Of builds the later is
    set over the first, which is the baseline; of the others the first over each later one.
    """
    for factor in ("build", "language", "mode", "memory_mb", "architecture"):
        if len({getattr(arm, factor) for arm in arms}) == 1:
            continue
        groups: dict[Arm, list[Arm]] = {}
        for arm in arms:
            groups.setdefault(msgspec.structs.replace(arm, name="", **{factor: None}), []).append(arm)
        found = [(first, other) for first, *others in groups.values() for other in others]
        return [(other, first) for first, other in found] if factor == "build" else found
    return []


def compare(
    samples: Iterable[Samples],
    *,
    seed: int,
    paired: bool = True,
    gate: bool = True,
    margin: float = MARGIN,
    resamples: int = RESAMPLES,
) -> tuple[Comparison, ...]:
    """Compare, and judge all together: p-values are adjusted for the number of judged comparisons by Holm's method.

    Args:
        samples: one comparison each.
        seed: of the bootstrap; the same seed and samples give the same intervals.
        paired: whether a block holds both sides, measured one after the other.
        gate: whether a change is a regression or an improvement, or, of different things, only slower or faster.
        margin: the smallest change that matters, as a share; 0.025 is 2.5 %.
        resamples: of the bootstrap.
    """
    samples = list(samples)
    measured = [_measure(of, seed, margin, paired=paired, resamples=resamples) for of in samples]
    family = [one for of, one in zip(samples, measured, strict=True) if of.is_judged]
    fewest = fewest_blocks(max(1, len(family)), paired=paired)
    adjusted = iter(holm([1.0 if one.p_value is None else one.p_value for one in family]))
    judged = []
    for of, one in zip(samples, measured, strict=True):
        one = msgspec.structs.replace(one, fewest_blocks=fewest)
        if of.is_judged:
            p_adjusted = next(adjusted)
            one = msgspec.structs.replace(one, p_adjusted=None if one.p_value is None else p_adjusted)
            one = msgspec.structs.replace(one, verdict=_verdict(one, gate=gate))
            one = msgspec.structs.replace(one, needed_blocks=_blocks_to_decide(one, len(family)))
        judged.append(one)
    return tuple(judged)


def ratio_interval(
    values: "NDArray[np.float64]",
    base: "NDArray[np.float64]",
    *,
    seed: int,
    paired: bool = True,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Interval of the ratio of medians: percentile bootstrap, which draws whole blocks when paired."""
    import numpy as np

    n = max(len(values), len(base))
    left = max(min(resamples, _RESAMPLES_AT_ONCE), min(resamples, _MOST_DRAWS // n))
    at_once = max(1, min(_RESAMPLES_AT_ONCE, _MOST_DRAWS // n))
    rng = np.random.default_rng(seed)
    ratios = []
    while left > 0:
        some = min(left, at_once)
        drawn = rng.integers(len(values), size=(some, len(values)))
        drawn_base = drawn if paired else rng.integers(len(base), size=(some, len(base)))
        ratios.append(np.median(values[drawn], axis=1) / np.median(base[drawn_base], axis=1))
        left -= some
    low, high = np.quantile(np.concatenate(ratios), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def needed_blocks(cv: float, effect: float, power: float = 0.8, *, comparisons: int = 1, margin: float = MARGIN) -> int:
    """How many blocks find a change of ``effect`` in paired arms with probability ``power``.

    For log-normal times whose coefficient of variation in an arm is ``cv``, drift aside, the log ratio of a block has
    the standard deviation s = sqrt(2 ln(1 + cv²)). A verdict has three conditions, and each asks for an n; t(p) is
    Student's with n - 1 degrees of freedom, m the number of comparisons, a = 0.05 and z = t(1 - (1 - power) / 2), for
    the conditions together may miss no more than 1 - power:

    - Wilcoxon, 3/π as efficient as a mean, at Holm's first step: ln(1 + effect) >= (t(1 - a/2m) + z) s √(π/3) / √n
    - an interval of medians without 1, which is also the resolution: ln(1 + effect) >= (t(1 - a/2) + z) s √(π/2) / √n
    - a ratio beyond the margin: ln(1 + effect) - ln(1 + margin) >= z s √(π/2) / √n

    And the exact test of n blocks knows no p below 2^(1 - n). tests/unit/test_simulation.py shows that the largest of
    these n keeps the promise.

    Args:
        cv: standard deviation over mean of one arm's times.
        effect: the change to find, as a share: 0.05 is 5 %.
        power: the probability of finding it.
        comparisons: how many are made in the run.
        margin: of the verdict.

    Raises:
        ValueError: the effect is not above the margin, so that it would never be claimed; or no probability.
    """
    if effect <= margin:
        raise ValueError(f"a change of {effect:g} is not above the margin {margin:g}")
    if not 0 < power < 1:
        raise ValueError(f"power is {power}, but a probability lies between 0 and 1")
    from scipy.special import stdtrit

    alpha, missed = 1 - LEVEL, (1 - power) / 2
    spread = math.sqrt(2 * math.log1p(cv * cv))
    change = math.log1p(effect)

    def is_enough(n: int) -> bool:
        def reach(tail: float) -> float:
            """In standard errors of n log ratios: to this tail, and on until it is missed only as often as allowed."""
            return float(stdtrit(n - 1, 1 - tail)) + float(stdtrit(n - 1, 1 - missed))

        error = spread / math.sqrt(n)
        return (
            change >= reach(alpha / 2 / comparisons) * error * math.sqrt(math.pi / 3)
            and change >= reach(alpha / 2) * error * _MEDIAN_ERROR
            and change - math.log1p(margin) >= reach(0.5) * error * _MEDIAN_ERROR
        )

    return bisect_left(range(_MOST_BLOCKS), True, lo=fewest_blocks(comparisons), key=is_enough)


def fewest_blocks(comparisons: int, *, paired: bool = True) -> int:
    """Find how many blocks a claim needs, however large the difference.

    The exact tests of n blocks have a smallest p: 2^(1 - n) of Wilcoxon's, 2 / C(2n, n) of Mann and Whitney's. Holm's
    first step multiplies it by the number of comparisons.
    """
    n = smallest_n(LEVEL)
    while comparisons * (2.0 ** (1 - n) if paired else 2 / math.comb(2 * n, n)) >= 1 - LEVEL:
        n += 1
    return n


def _measure(of: Samples, seed: int, margin: float, *, paired: bool, resamples: int) -> Comparison:
    """Everything of one comparison but the judgement."""
    import numpy as np

    if paired:
        blocks = sorted(of.values.keys() & of.base.keys())
        values, base = np.array([of.values[b] for b in blocks]), np.array([of.base[b] for b in blocks])
    else:
        values, base = np.array(list(of.values.values())), np.array(list(of.base.values()))
    n = min(len(values), len(base))
    ratio = float(np.median(values) / np.median(base)) if n and np.median(base) > 0 else None
    low = high = p_value = effect = None
    if n >= smallest_n(LEVEL) and values.min() > 0 and base.min() > 0:
        low, high = ratio_interval(values, base, seed=seed, paired=paired, resamples=resamples)
        p_value, effect = _signed_rank(np.log(values / base)) if paired else _rank_sum(values, base)
    return Comparison(
        label=of.label,
        metric=of.metric,
        arm=of.arm,
        over=of.over,
        arm_median=float(np.median(values)) if n else None,
        over_median=float(np.median(base)) if n else None,
        ratio=ratio,
        low=low,
        high=high,
        p_value=p_value,
        p_adjusted=None,
        effect_name="rank-biserial correlation" if paired else "Cliff's delta",
        effect=effect,
        n_blocks=n,
        fewest_blocks=0,
        needed_blocks=0,
        margin=margin,
        resolution=of.resolution,
        verdict=Verdict.INCONCLUSIVE if of.is_judged else Verdict.NOT_JUDGED,
        is_paired=paired,
    )


def _signed_rank(log_ratios: "NDArray[np.float64]") -> tuple[float, float]:
    """Two-sided p of Wilcoxon's test, and the matched-pairs rank-biserial correlation: (W+ - W-) / (W+ + W-).

    Up to ``_MOST_EXACT`` differing blocks p is exact, also where differences tie: each sign is as likely as the other,
    so the chance of every rank sum follows from adding one block at a time. Midranks are doubled to be whole numbers.
    """
    import numpy as np

    differing = log_ratios[log_ratios != 0]
    if not len(differing):
        return 1.0, 0.0
    ranks = np.rint(2 * midranks(np.abs(differing))).astype(int)
    positive, total = int(ranks[differing > 0].sum()), int(ranks.sum())
    effect = 2 * positive / total - 1
    if len(differing) > _MOST_EXACT:
        from scipy.stats import wilcoxon

        return float(wilcoxon(differing).pvalue), effect
    chance = np.zeros(total + 1)
    chance[0] = 1.0
    for rank in ranks:
        chance[rank:] = (chance[rank:] + chance[: total + 1 - rank]) / 2
        chance[:rank] /= 2
    return min(1.0, 2 * float(chance[: min(positive, total - positive) + 1].sum())), effect


def _rank_sum(values: "NDArray[np.float64]", base: "NDArray[np.float64]") -> tuple[float, float]:
    """Two-sided p of Mann and Whitney's test, and Cliff's delta: P(value > base) - P(value < base)."""
    from scipy.stats import mannwhitneyu

    found = mannwhitneyu(values, base)
    return float(found.pvalue), float(2 * found.statistic / (len(values) * len(base)) - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics 6, 1979), in the order given."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for done, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - done) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _blocks_to_decide(of: Comparison, comparisons: int) -> int:
    """About how many blocks give a verdict, if the medians stay what they are: intervals shrink with 1/sqrt(n).

    A difference beyond the margin is claimed when the interval leaves out 1, at the level of Holm's first step, and
    when it is beyond the resolution. One within the margin is no change when the interval is no wider than the margins.
    """
    if of.ratio is None or of.low is None or of.high is None or not of.margin:
        return of.fewest_blocks
    change = abs(math.log(of.ratio))
    if change >= math.log1p(of.margin):
        alpha = (1 - LEVEL) / 2
        reach = math.log(of.ratio / of.low) if of.ratio > 1 else math.log(of.high / of.ratio)
        adjusted = reach * NormalDist().inv_cdf(alpha / comparisons) / NormalDist().inv_cdf(alpha)
        share = max(adjusted, math.log1p(of.resolution or 0)) / change
    else:
        share = math.log(of.high / of.low) / 2 / math.log1p(of.margin)
    more = of.n_blocks + 1 if of.verdict is Verdict.INCONCLUSIVE else 0
    return max(of.fewest_blocks, more, math.ceil(of.n_blocks * share**2))


def _verdict(of: Comparison, *, gate: bool) -> Verdict:
    """Needs significance and size for a claim, and the whole interval inside the margin for its absence."""
    if of.ratio is None or of.low is None or of.high is None or of.p_adjusted is None:
        return Verdict.INCONCLUSIVE
    least = 1 + max(of.margin, of.resolution or 0)
    significant = of.p_adjusted < 1 - LEVEL
    if significant and of.low > 1 and of.ratio >= least:
        return Verdict.REGRESSION if gate else Verdict.MORE_EXPENSIVE if of.metric is Metric.COST else Verdict.SLOWER
    if significant and of.high < 1 and of.ratio <= 1 / least:
        return Verdict.IMPROVEMENT if gate else Verdict.CHEAPER if of.metric is Metric.COST else Verdict.FASTER
    if of.low >= 1 / (1 + of.margin) and of.high <= 1 + of.margin:
        return Verdict.NO_CHANGE
    return Verdict.INCONCLUSIVE
