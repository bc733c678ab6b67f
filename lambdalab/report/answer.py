"""The first lines of a report in words: what an engineer would tell a colleague. Every number is the summary's."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from lambdalab.analysis.message_analysis import Summary
from lambdalab.analysis.summary import Contrast, Level
from lambdalab.records import cpu_limit
from lambdalab.report.words import PARTS
from lambdalab.statistics.comparison import Verdict

T = TypeVar("T")
Line = tuple[str, str]
"""What a line is about, and the line."""
NO_LAMBDA_INIT: Final = (
    "Lambda's own part of Init is missing here (a Go hello-world inits in about 40 ms on Lambda), so this is not the "
    "ratio on Lambda"
)
"""maxday/lambda-perf, data/last.json of 2024-10-23: arm64, 128 MB, 10 cold starts, median 40.2 ms (docs/method.md)."""
_LARGE: Final = 1.5
"""From here on a ratio is said as times, below as a percentage more."""
_COMPONENT: Final = {field: name for name, field in PARTS.items()}
_FEW: Final = 2
"""Pairs of arms that are told one by one; of more, only the extremes."""


def gate_line(summary: Summary) -> Iterator[Line]:
    """The verdict, which comes first where builds are compared."""
    if len({arm.build for arm in summary.arms}) > 1:
        yield "Verdict", summary.verdict


def answer_lines(summary: Summary) -> Iterator[Line]:
    """Warm work, cost, cold start, memory, and what is not known yet; nothing of a run that must not be used."""
    if summary.faults:
        return
    answer = summary.answer
    are_few = len(_by_pair(answer.times)) <= _FEW
    if answer.times and are_few:
        yield from contrast_lines(answer.times, answer.costs, shares=_shares(summary))
    elif answer.levels:
        work = "Warm work" if answer.is_warm else "Cold work"
        yield work, f"{_levels(answer.levels, lambda level: level.duration_ms, time, 'fastest', 'slowest')}."
        priced = [level for level in answer.levels if level.usd_per_million is not None]
        if priced:
            said = _levels(priced, lambda level: level.usd_per_million or 0, money, "cheapest", "most expensive")
            yield "Cost", f"{said}, USD per million messages; {_shares(summary)}".removesuffix("; ") + "."
    if answer.cold_starts:
        inits = _ends(
            answer.cold_starts, lambda start: start.init_ms, lambda of: f"{time(of.init_ms)} for {name(of.arm)}"
        )
        yield "Cold start", f"Init {inits}. {NO_LAMBDA_INIT + '.' if summary.target == 'local' else ''}".rstrip()
    if answer.peak_mb:
        size = f", of {summary.memory_mb[0]} MB" if len(summary.memory_mb) == 1 else ""
        peaks = _ends(answer.peak_mb, lambda peak: peak[1], lambda peak: f"{peak[1]} MB for {name(peak[0])}")
        yield "Memory", f"peak {peaks}{size}."
    if unknown := list(_unknown(summary)):
        yield "Not known yet", f"{'; '.join(unknown)}."


def contrast_lines(times: Sequence[Contrast], costs: Sequence[Contrast], *, shares: str = "") -> Iterator[Line]:
    """Which arm is faster and which is cheaper, pair by pair."""
    for about, is_warm in (("Warm work", True), ("First invocation", False)):
        pairs = _by_pair(of for of in times if of.is_warm is is_warm)
        if pairs:
            yield about, f"{'; '.join(_pair(of, _time_claim) for of in pairs)}."
    if costs:
        said = "; ".join(_pair(of, _cost_claim) for of in _by_pair(costs))
        yield "Cost", f"{said}{'; ' * bool(shares)}{shares}."


def name(arm: str) -> str:
    """A language with a capital; arms with settings as they are called everywhere else."""
    return arm.capitalize() if arm.isalpha() else arm


def time(ms: float) -> str:
    """Milliseconds below a second, else seconds."""
    if ms >= 1000:
        return f"{ms / 1000:,.2f} s"
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"


def money(usd: float) -> str:
    """Whole dollars from a hundred on."""
    return f"{usd:,.0f}" if usd >= 100 else f"{usd:,.2f}"


def _by_pair(contrasts: Iterable[Contrast]) -> list[list[Contrast]]:
    found: dict[frozenset[str], list[Contrast]] = {}
    for one in contrasts:
        found.setdefault(frozenset((one.more, one.less)), []).append(one)
    return list(found.values())


def _pair(contrasts: Sequence[Contrast], claim: Callable[[Sequence[Contrast]], str]) -> str:
    """What is claimed, by the arm it is claimed of; then what is equal; then what is open."""
    arms = _and([name(arm) for arm in sorted((contrasts[0].more, contrasts[0].less))])
    claimed: dict[tuple[str, Verdict], list[Contrast]] = {}
    for one in contrasts:
        if one.verdict not in (Verdict.NO_CHANGE, Verdict.INCONCLUSIVE):
            claimed.setdefault((one.more, one.verdict), []).append(one)
    said = [claim(of) for of in claimed.values()]
    equal = [one for one in contrasts if one.verdict is Verdict.NO_CHANGE]
    if equal:
        who = "the same" if said else f"{arms} are the same within {equal[0].margin:.1%}"
        said.append(f"{who} for {_labels(equal)}")
    open_ = [one for one in contrasts if one.verdict is Verdict.INCONCLUSIVE]
    for why, of in (
        (f"too few blocks to compare {arms}", [one for one in open_ if one.lacks_blocks]),
        (f"no difference of {arms} found, and none ruled out,", [one for one in open_ if not one.lacks_blocks]),
    ):
        if of:
            said.append(f"{why} for {_labels(of)}")
    return ", ".join(said)


def _time_claim(contrasts: Sequence[Contrast]) -> str:
    one = contrasts[0]
    sides = ", ".join(f"{of.label} {time(of.less_median)} against {time(of.more_median)}" for of in contrasts)
    if one.verdict is Verdict.REGRESSION:
        return f"{name(one.more)} takes {_times(contrasts)} as long as {name(one.less)} ({sides}): regression"
    gain = ": improvement" if one.verdict is Verdict.IMPROVEMENT else ""
    if min(of.times for of in contrasts) >= _LARGE:
        return f"{name(one.less)} is {_times(contrasts)} faster than {name(one.more)} ({sides}){gain}"
    return f"{name(one.more)} takes {_percent(contrasts)} longer than {name(one.less)} ({sides}){gain}"


def _cost_claim(contrasts: Sequence[Contrast]) -> str:
    one = contrasts[0]
    sides = ", ".join(
        f"{of.label} USD {money(of.more_median)} against {money(of.less_median)} per million" for of in contrasts
    )
    amount = _times(contrasts) if min(of.times for of in contrasts) >= _LARGE else _percent(contrasts)
    said = f"{amount} as much as" if amount.endswith("x") else f"{amount} more than"
    verdict = f": {one.verdict}" if one.verdict in (Verdict.REGRESSION, Verdict.IMPROVEMENT) else ""
    return f"{name(one.more)} costs {said} {name(one.less)} ({sides}){verdict}"


def _times(contrasts: Sequence[Contrast]) -> str:
    return _range([of.times for of in contrasts], lambda value: f"{value:.1f}x" if value < 10 else f"{value:.0f}x")


def _percent(contrasts: Sequence[Contrast]) -> str:
    return _range([of.surplus for of in contrasts], lambda value: f"{value:.0%}")


def _range(values: Sequence[float], written: Callable[[float], str]) -> str:
    ends = list(dict.fromkeys((written(min(values)), written(max(values)))))
    return " to ".join(ends)


def _labels(contrasts: Iterable[Contrast]) -> str:
    return _and([of.label for of in contrasts])


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _levels(
    levels: Sequence[Level], value: Callable[[Level], float], written: Callable[[float], str], least: str, most: str
) -> str:
    """Load by load: the value of the only arm, or the arms at both ends."""
    said = []
    for label in dict.fromkeys(level.label for level in levels):
        ordered = sorted((level for level in levels if level.label == label), key=value)
        low, high = ordered[0], ordered[-1]
        if low is high:
            said.append(f"{name(low.arm)} {label} {written(value(low))}")
        else:
            ends = (
                f"{name(low.arm)} is {least} ({written(value(low))}), {name(high.arm)} {most} ({written(value(high))})"
            )
            said.append(f"{label}: {ends}")
    return "; ".join(said)


def _shares(summary: Summary) -> str:
    """Which component costs most, where it is the same everywhere; else where each does."""
    shares = summary.answer.shares
    said = [(f"{_COMPONENT[of.component]} is {_range((of.least, of.most), '{:.0%}'.format)}", of) for of in shares]
    if len(said) == 1:
        arms = {arm for arm, _ in shares[0].cells}
        return f"{said[0][0]} of {'both' if len(arms) == 2 else 'it'}"
    return ", ".join(f"{text} of {_and([f'{arm} {label}' for arm, label in of.cells])}" for text, of in said)


def _ends(of: Sequence[T], value: Callable[[T], float], written: Callable[[T], str]) -> str:
    """All of them, or of many the two ends."""
    ordered = sorted(of, key=value)
    if len(of) > 2 * _FEW:
        return f"from {written(ordered[0])} to {written(ordered[-1])}"
    return _and([written(one) for one in of])


def _unknown(summary: Summary) -> Iterator[str]:
    if summary.target == "local":
        yield "the times on AWS (these are this machine's)"
    if summary.cpu_limit == cpu_limit.NONE:
        yield "how memory size changes times (there was no CPU limit)"
    answer = summary.answer
    open_ = [of for of in (*answer.times, *answer.costs) if of.verdict is Verdict.INCONCLUSIVE]
    if open_:
        most = max(open_, key=lambda of: (of.lacks_blocks, of.needed_blocks))
        yield f"what is inconclusive (about {most.needed_blocks:,} blocks would decide)"
    if answer.aa_commands:
        yield "the smallest difference that this machine resolves (A/A runs tell)"
