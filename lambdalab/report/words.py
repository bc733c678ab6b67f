"""How numbers are written: the same on every page and table."""

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Final

from lambdalab.analysis.call_summary import FactorialSummary
from lambdalab.analysis.message_analysis import Parts, Summary
from lambdalab.records.trials import Estimate
from lambdalab.statistics.comparison import Comparison

ABSENT: Final = "-"
MISSING_AA: Final = "A/A: no such run of this machine and design yet; these commands make it:"
JOURNEY: Final = {
    "queue wait": "queue_wait_ms",
    "Init": "init_ms",
    "Duration": "duration_ms",
    "end to end": "end_to_end_ms",
}
"""The times of a message on its way, as people and as cells call them."""
PARTS: Final = {
    "Lambda compute": "lambda_compute_usd",
    "requests": "lambda_requests_usd",
    "DynamoDB": "dynamodb_usd",
    "SQS": "sqs_usd",
    "polling": "polling_usd",
    "logs": "logs_usd",
    "metrics": "metrics_usd",
    "X-Ray": "xray_usd",
}
"""The components of a bill, as people and as bills call them."""
BY_TIME: Final = ("polling", "metrics", "X-Ray")
"""Those that are paid by time, so that they are in a month only."""
PER_EXECUTION: Final = {part: field for part, field in PARTS.items() if part not in BY_TIME}

METRICS: Final = {
    "duration": "Duration",
    "billed": "Billed",
    "init": "Init",
    "end_to_end": "end to end",
    "cost": "cost",
}
"""What is compared, as people and as comparisons call it."""
MARKS: Final = {
    "regression": "▲",
    "slower": "▲",
    "more expensive": "▲",
    "improvement": "▼",
    "faster": "▼",
    "cheaper": "▼",
    "no change": "■",
    "inconclusive": "○",
    "not judged": "·",
}
"""Verdicts have a mark beside their word, the same in tables and figures."""


def altered(summary: Summary | FactorialSummary) -> Iterator[str]:
    """What makes the times of a run other than the machine's own, to stand under the title of every table."""
    if summary.latency_model is not None:
        yield f"with service times of latency model {summary.latency_model}"
    if summary.cpu_scale != 1:
        yield f"with CPU scale {summary.cpu_scale:g}"


def ms(value: float | Decimal | None) -> str:
    """One decimal, thousands apart."""
    return ABSENT if value is None else f"{value:,.1f}"


def quotient(value: float | None) -> str:
    """Three decimals."""
    return ABSENT if value is None else f"{value:,.3f}"


def usd(amount: Decimal | None) -> str:
    """Four significant digits, never in scientific notation."""
    if amount is None:
        return ABSENT
    return f"{amount:.{max(2, 3 - amount.adjusted())}f}" if amount else "0"


def cents(amount: Decimal | None) -> str:
    """Two decimals, thousands apart."""
    return ABSENT if amount is None else f"{amount:,.2f}"


def amounts(parts: Parts | None, fields: Iterable[str], written: Callable[[Decimal | None], str]) -> Iterator[str]:
    """Of these components, all absent where there is no sample."""
    return (written(None if parts is None else getattr(parts, field)) for field in fields)


def units(amount: Decimal | None) -> str:
    """A mean of units, up to six digits."""
    return ABSENT if amount is None else f"{float(amount):,.6g}"


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


def ratio(of: Comparison) -> str:
    """The ratio of medians and its interval, with three decimals."""
    if of.ratio is None:
        return ABSENT
    return f"{of.ratio:.3f}" if of.low is None or of.high is None else f"{of.ratio:.3f} [{of.low:.3f}, {of.high:.3f}]"


def judgement(of: Comparison) -> tuple[str, str, str, str, str, str]:
    """What was compared, its ratio, what that was judged by, and the verdict."""
    what = of.metric.replace("_", " ")
    return what, ratio(of), p_value(of.p_adjusted), str(of.n_blocks), resolution(of.resolution), str(of.verdict)


def p_value(value: float | None) -> str:
    """Four decimals; smaller ones are not told apart."""
    return ABSENT if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def resolution(value: float | None) -> str:
    """As a percentage of difference."""
    return ABSENT if value is None else f"{value:.1%}"
