"""When a run of calls ends: its stop rule and its caps, asked after whole blocks, of what is on disk."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable
from decimal import Decimal

import msgspec

from lambdalab.analysis.call_rows import read_calls
from lambdalab.analysis.pairing import warm_durations
from lambdalab.planning.call_plan import call_usd, make_plan
from lambdalab.planning.call_protocol import schedule
from lambdalab.planning.spending import MOST_MINUTES, MOST_USD
from lambdalab.planning.stopping import MINUTES_CAP, PRECISION_REACHED, USD_CAP, minutes_between, precision_of
from lambdalab.pricing.costs import PriceSheet
from lambdalab.records.call_files import FactorialDirectory
from lambdalab.records.calls import Call, CallRow
from lambdalab.records.manifest import CallManifest
from lambdalab.scenario.base import CallScenario


class CallStoppingRule:
    """Why a run of calls should end now, if it should.

    Args:
        store: the run; everything is read from its files.
        scenario: of it.
        spends: whether it costs money, so that ``caps.usd`` counts: the run ends before the block that would pass it.
        now_s: the time, in seconds since 1970.
    """

    def __init__(
        self,
        store: FactorialDirectory,
        scenario: CallScenario,
        *,
        spends: bool,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._scenario, self._spends, self._now_s = store, scenario, spends, now_s
        self.standing = ""
        """How far the run is, for whoever waits; empty until there is something to tell."""

    def reason(self) -> str | None:
        """Why to end, or None: to go on. The precision is that of the blocks that are whole."""
        manifest, calls = self._store.manifest(), self._store.calls()
        caps, stop = manifest.protocol.caps, manifest.protocol.stop
        if stop is not None and (whole := _whole_blocks(manifest, calls)):
            self.standing, reached = precision_of(self._durations(whole), stop)
            if reached:
                return PRECISION_REACHED
        ends = [call.sent_at_ms + call.elapsed_ms for call in calls]
        begins = (manifest.started_at, *manifest.resumed_at)
        if calls and minutes_between(begins, ends, self._now_s()) >= (caps.minutes or MOST_MINUTES):
            return MINUTES_CAP
        if self._spends:
            spent, dearest = spent_usd(self._store, self._scenario)
            if spent + dearest > (caps.usd or MOST_USD):
                return USD_CAP
        return None

    def _durations(self, whole: Container[int]) -> dict[str, list[float]]:
        """The median of each cell in each of these blocks."""
        manifest, _, rows = read_calls(self._store, self._scenario)
        medians = warm_durations(row for row in rows if row.block in whole)
        return {cell.name: list(medians.get(cell.name, {}).values()) for cell in manifest.protocol.cells}


def _whole_blocks(manifest: CallManifest, calls: Iterable[Call]) -> set[int]:
    per_block = manifest.protocol.calls // manifest.protocol.blocks
    made = Counter(block for block, _ in {(c.block, c.call_id) for c in calls if c.finished and not c.warmup})
    return {block for block, count in made.items() if count >= per_block}


def spent_usd(store: FactorialDirectory, scenario: CallScenario) -> tuple[Decimal, Decimal]:
    """What a run has cost so far, and what its dearest whole block cost; before there is one, what is planned of one.

    A call whose cost is not known is taken to have run into its timeout; a throttled one is not billed.
    """
    manifest, prices, rows = read_calls(store, scenario)
    cells = {cell.name: cell for cell in manifest.protocol.cells}
    of_block: defaultdict[int, Decimal] = defaultdict(Decimal)

    def most(row: CallRow) -> Decimal:
        cell = cells[row.cell]
        function = manifest.functions[cell.called]
        design = manifest.protocol.design(cell)
        return sum(call_usd(scenario, function, design, cell, prices, function.timeout_s * 1000).values(), Decimal())

    for row in rows:
        if not row.throttled:
            of_block[row.block] += most(row) if row.cost_total_usd is None else row.cost_total_usd
    lab = scenario.lab_usd(msgspec.convert(manifest.prices, PriceSheet), calls=len(rows), cells=0) or Decimal()
    done = _whole_blocks(manifest, store.calls())
    whole = [usd for block, usd in of_block.items() if block in done]
    return sum(of_block.values(), lab), max(whole) if whole else _planned_usd(manifest, scenario, prices)


def _planned_usd(manifest: CallManifest, scenario: CallScenario, prices: PriceSheet) -> Decimal:
    """Of one block."""
    one = msgspec.structs.replace(manifest.protocol, blocks=1)
    cells = list(schedule(one, manifest.seed))
    return make_plan(one, scenario, manifest.functions, prices, cells, target=manifest.target).usd
