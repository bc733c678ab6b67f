"""When a factorial run ends before its last block: its caps, asked after whole blocks, of what is on disk."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from decimal import Decimal

import msgspec

from lambdalab.analysis.call_rows import read_calls
from lambdalab.planning.call_plan import call_usd, make_plan
from lambdalab.planning.call_protocol import schedule
from lambdalab.planning.spending import MOST_MINUTES, MOST_USD
from lambdalab.planning.stopping import MINUTES_CAP, USD_CAP, minutes_between
from lambdalab.pricing.costs import PriceSheet
from lambdalab.records.call_files import FactorialDirectory
from lambdalab.records.calls import CallRow
from lambdalab.records.manifest import CallManifest
from lambdalab.scenario.base import CallScenario


def reached_cap(
    store: FactorialDirectory, scenario: CallScenario, *, spends: bool, now_s: Callable[[], float] = time.time
) -> str | None:
    """Why to end now, or None: to go on.

    Args:
        store: the run; everything is read from its files.
        scenario: of it.
        spends: whether it costs money, so that ``caps.usd`` counts: the run ends before the block that would pass it.
        now_s: the time, in seconds since 1970.
    """
    manifest = store.manifest()
    caps = manifest.protocol.caps
    calls = store.calls()
    ends = [call.sent_at_ms + call.elapsed_ms for call in calls]
    begins = (manifest.started_at, *manifest.resumed_at)
    if calls and minutes_between(begins, ends, now_s()) >= (caps.minutes or MOST_MINUTES):
        return MINUTES_CAP
    if spends:
        spent, dearest = spent_usd(store, scenario)
        if spent + dearest > (caps.usd or MOST_USD):
            return USD_CAP
    return None


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
    per_block = manifest.protocol.calls // manifest.protocol.blocks
    made = Counter(call.block for call in store.calls() if call.finished and not call.warmup)
    whole = [usd for block, usd in of_block.items() if made[block] >= per_block]
    return sum(of_block.values(), lab), max(whole) if whole else _planned_usd(manifest, scenario, prices)


def _planned_usd(manifest: CallManifest, scenario: CallScenario, prices: PriceSheet) -> Decimal:
    """Of one block."""
    one = msgspec.structs.replace(manifest.protocol, blocks=1)
    cells = list(schedule(one, manifest.seed))
    return make_plan(one, scenario, manifest.functions, prices, cells, target=manifest.target).usd
