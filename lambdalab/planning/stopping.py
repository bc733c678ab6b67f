"""When a run ends: its stop rule and its caps, asked after whole blocks, of what is on disk.

The rule is on the width of intervals, never on a p-value: testing until something is significant finds a difference
where there is none (docs/method.md).
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Final

import msgspec

from lambdalab.analysis.message_rows import REPEATED, read_run
from lambdalab.design.arms import Stop
from lambdalab.planning.spending import MOST_MINUTES, MOST_USD, lab_use, most_usd
from lambdalab.pricing.costs import PriceSheet
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import InvocationRow, TrialResult
from lambdalab.statistics.estimates import LEVEL, median_estimate

PRECISION_REACHED: Final = "precision reached"
SAMPLES_CAP: Final = "samples cap"
ATTEMPTS_CAP: Final = "attempts cap"
MINUTES_CAP: Final = "minutes cap"
USD_CAP: Final = "usd cap"
Cell = tuple[str, str]
"""Arm and label."""


class StoppingRule:
    """Why a run should end now, if it should.

    Only blocks count whose REPORT lines have all been found, so that a log that comes late cannot end a run early.

    Args:
        store: the run; everything is read from its files.
        spends: whether the run costs money, so that ``caps.usd`` counts.
        now_s: the time, in seconds since 1970.
    """

    def __init__(self, store: RunDirectory, *, spends: bool, now_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._spends = spends
        self._now_s = now_s
        self.standing = ""
        """How far the run is, for whoever waits; empty until there is something to tell."""

    def reason(self) -> str | None:
        """Why to end, or None: to go on. It is None inside a block, and before the first."""
        manifest, trials = self._store.manifest(), self._store.trials()
        protocol = manifest.protocol
        done = _whole_blocks(manifest, trials)
        if not done:
            return None
        if self._looks_at_rows(manifest, trials, done):
            run = read_run(self._store)
            if (reason := self._by_rows(manifest, trials, run.rows, run.prices)) is not None:
                return reason
        caps = protocol.caps
        attempts = Counter((result.trial.arm, result.trial.load.label) for result in trials)
        if caps.attempts is not None and max(attempts.values()) >= caps.attempts:
            return ATTEMPTS_CAP
        if minutes_under_way(manifest, trials, self._now_s()) >= (caps.minutes or MOST_MINUTES):
            return MINUTES_CAP
        return None

    def _looks_at_rows(self, manifest: MessageManifest, trials: Sequence[TrialResult], done: int) -> bool:
        """Reading everything anew takes longer the longer a run is: beyond 200 blocks, every hundredth part of it."""
        caps = manifest.protocol.caps
        if self._spends and (caps.usd is not None or self._may_pass(manifest, trials)):
            return True
        return (manifest.protocol.stop is not None or caps.samples is not None) and done % max(1, done // 100) == 0

    def _may_pass(self, manifest: MessageManifest, trials: Sequence[TrialResult]) -> bool:
        """Whether another block might pass the default ceiling, if every invocation ran into its timeout."""
        prices = msgspec.convert(manifest.prices, PriceSheet)
        spent, _ = spent_usd(manifest, trials, (), prices, self._now_s())
        messages = {arm.name: arm.messages for arm in manifest.protocol.arms}
        most = Counter((result.trial.arm, result.trial.load) for result in trials)
        billed = sum(
            count * most_usd(prices, manifest.functions[arm], load, messages=messages[arm])
            for (arm, load), count in most.items()
        )
        return spent + 2 * billed > MOST_USD

    def _by_rows(
        self,
        manifest: MessageManifest,
        trials: Sequence[TrialResult],
        rows: Sequence[InvocationRow],
        prices: PriceSheet,
    ) -> str | None:
        stop, caps = manifest.protocol.stop, manifest.protocol.caps
        cells = _durations(manifest, rows)
        least = min(map(len, cells.values()))
        if stop is not None:
            self.standing, reached = precision_of({" ".join(cell): values for cell, values in cells.items()}, stop)
            if reached:
                return PRECISION_REACHED
        if caps.samples is not None and least >= caps.samples:
            return SAMPLES_CAP
        if self._spends:
            spent, dearest = spent_usd(manifest, trials, rows, prices, self._now_s())
            self.standing = f"{self.standing}, about {spent:.4f} USD spent".removeprefix(", ")
            if spent + dearest > (caps.usd or MOST_USD):
                return USD_CAP
        return None


def precision_of(cells: Mapping[str, Sequence[float]], stop: Stop) -> tuple[str, bool]:
    """How far a run is from the precision that its stop rule asks for.

    Args:
        cells: by name, one value for each sample that counts.
        stop: the rule.

    Returns:
        That in words, and whether it is reached.
    """
    widths = {cell: _relative_width(values) for cell, values in cells.items()}
    least = min(map(len, cells.values()))
    known = {cell: width for cell, width in widths.items() if width is not None}
    if len(known) < len(widths):
        return f"no interval yet ({least} of at least {stop.min_blocks} samples)", False
    cell, width = max(known.items(), key=lambda item: item[1])
    standing = f"widest interval ±{width:.1%} of ±{stop.precision:.1%} ({cell})"
    return standing, least >= stop.min_blocks and width <= stop.precision


def minutes_under_way(manifest: MessageManifest, trials: Iterable[TrialResult], now_s: float) -> float:
    """For how long a run has been under way; the time between an interruption and the resumption is left out."""
    ends = [result.drained_at_ms or result.sent_at_ms or 0 for result in trials]
    return minutes_between((manifest.started_at, *manifest.resumed_at), ends, now_s)


def minutes_between(begins: Sequence[str], ends: Sequence[float], now_s: float) -> float:
    """How many minutes lie between each begin and the last end before the next, and between the last begin and now.

    Args:
        begins: when a run began and went on, in ISO 8601.
        ends: when something of it ended, in ms since 1970.
        now_s: the time, in seconds since 1970.
    """
    moments = [datetime.fromisoformat(begin).timestamp() * 1000 for begin in begins]
    earlier = sum(
        max((end for end in ends if begin <= end < next_begin), default=begin) - begin
        for begin, next_begin in pairwise(moments)
    )
    return (earlier + now_s * 1000 - moments[-1]) / 60_000


def spent_usd(
    manifest: MessageManifest,
    trials: Sequence[TrialResult],
    rows: Iterable[InvocationRow],
    prices: PriceSheet,
    now_s: float,
) -> tuple[Decimal, Decimal]:
    """What a run has cost so far, the lab's own requests with it, and what its dearest block cost.

    An invocation whose cost is not known yet is taken to have run into its timeout.
    """
    of_block: defaultdict[int, Decimal] = defaultdict(Decimal)
    loads = {load.label: load for load in manifest.protocol.loads}
    messages = {arm.name: arm.messages for arm in manifest.protocol.arms}
    for row in rows:
        unknown = row.cost_total_usd is None
        function, load = manifest.functions[row.arm], loads[row.label]
        most = most_usd(prices, function, load, messages=messages[row.arm]) if unknown else Decimal()
        of_block[row.block] += most if row.cost_total_usd is None else row.cost_total_usd
    minutes = minutes_under_way(manifest, trials, now_s)
    sent = [result.trial.load for result in trials for _ in range(result.messages)]
    queues = len({function.log_group for function in manifest.functions.values()})
    lab = lab_use(sent, blocks=len(of_block), minutes=minutes, queues=queues).usd(prices)
    dearest = max(of_block.values(), default=Decimal()) + lab / max(1, len(of_block))
    return sum(of_block.values(), Decimal()) + lab, dearest


def _whole_blocks(manifest: MessageManifest, trials: Iterable[TrialResult]) -> int:
    """How many blocks are complete; 0 while one is not."""
    protocol = manifest.protocol
    finished = Counter(block for block, _ in {(r.trial.block, r.trial.trial_id) for r in trials if r.finished})
    whole = len(protocol.arms) * len(protocol.loads)
    return len(finished) if all(count == whole for count in finished.values()) else 0


def _durations(manifest: MessageManifest, rows: Sequence[InvocationRow]) -> dict[Cell, list[float]]:
    """The valid durations of every cell, of the blocks whose REPORT lines have all been found."""
    current = [row for row in rows if row.reason is None or not row.reason.startswith(REPEATED)]
    found = {row.trial for row in current if row.duration_ms is not None}
    late = {row.block for row in current if row.trial not in found}
    cells: dict[Cell, list[float]] = {
        (arm.name, load.label): [] for arm in manifest.protocol.arms for load in manifest.protocol.loads
    }
    for row in current:
        if row.valid and row.block not in late and row.duration_ms is not None:
            cells[row.arm, row.label].append(row.duration_ms)
    return cells


def _relative_width(values: Sequence[float]) -> float | None:
    return median_estimate(values, LEVEL).relative_width if values else None
