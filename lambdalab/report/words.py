"""How numbers are written: the same on every page and table."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

from lambdalab.comparison import Comparison, Metric
from lambdalab.model import Estimate

ABSENT: Final = "-"
JOURNEY: Final = {
    "queue wait": "queue_wait_ms",
    "Init": "init_ms",
    "Duration": "duration_ms",
    "end to end": "end_to_end_ms",
}
"""The times of a message on its way, as people and as cells call them."""


def ms(value: float | None) -> str:
    """One decimal, thousands apart."""
    return ABSENT if value is None else f"{value:,.1f}"


def quotient(value: float | None) -> str:
    """Two decimals."""
    return ABSENT if value is None else f"{value:.2f}"


def usd(amount: Decimal | None) -> str:
    """Four significant digits, never in scientific notation."""
    if amount is None:
        return ABSENT
    return f"{amount:.{max(2, 3 - amount.adjusted())}f}" if amount else "0"


def median(estimate: Estimate | None) -> str:
    """The median in milliseconds."""
    return ms(None if estimate is None else estimate.median)


def interval(estimate: Estimate | None) -> str:
    """Both ends; ``none`` where there are too few samples for an interval."""
    if estimate is None:
        return ABSENT
    if estimate.low is None or estimate.high is None:
        return "none"
    return f"{ms(estimate.low)} - {ms(estimate.high)}"


def medians_in_words(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """A sentence per load and pair of arms: what was seen. Whether it is more than noise the verdicts say."""
    pairs: dict[tuple[str, str, str], dict[Metric, str]] = {}
    for of in comparisons:
        ratios = pairs.setdefault((of.label, of.arm, of.over), {})
        if of.ratio is not None:
            ratios[of.metric] = quotient(of.ratio)
    for (label, arm, over), ratios in pairs.items():
        said = []
        if Metric.DURATION in ratios:
            said.append(f"takes {ratios[Metric.DURATION]} times as long as {over} (Duration)")
        if Metric.INIT in ratios:
            said.append(f"{ratios[Metric.INIT]} times as long to initialise")
        if Metric.COST in ratios:
            said.append(f"costs {ratios[Metric.COST]} times as much")
        yield f"{label}: {arm} {', '.join(said) or f'and {over} cannot be compared'}"


def ratio(of: Comparison) -> str:
    """The ratio of medians and its interval, with three decimals."""
    if of.ratio is None:
        return ABSENT
    return f"{of.ratio:.3f}" if of.low is None or of.high is None else f"{of.ratio:.3f} [{of.low:.3f}, {of.high:.3f}]"


def p_value(value: float | None) -> str:
    """Four decimals; smaller ones are not told apart."""
    return ABSENT if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def resolution(value: float | None) -> str:
    """As a percentage of difference."""
    return ABSENT if value is None else f"{value:.1%}"
