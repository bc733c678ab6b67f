"""When a factorial run ends before its last block: its caps, asked after whole blocks, of what is on disk."""

import time
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal

import msgspec

from lambdalab.cost import PriceSheet
from lambdalab.factorial.collection import read_calls
from lambdalab.factorial.model import CallRow
from lambdalab.factorial.plan import call_usd
from lambdalab.factorial.scenario import CallScenario
from lambdalab.factorial.store import FactorialDirectory
from lambdalab.spending import MOST_MINUTES, MOST_USD
from lambdalab.stopping import MINUTES_CAP, USD_CAP, minutes_between


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
    if not calls:
        return None
    ends = [call.sent_at_ms + call.elapsed_ms for call in calls]
    begins = (manifest.started_at, *manifest.resumed_at)
    if minutes_between(begins, ends, now_s()) >= (caps.minutes or MOST_MINUTES):
        return MINUTES_CAP
    if spends:
        spent, dearest = spent_usd(store, scenario)
        if spent + dearest > (caps.usd or MOST_USD):
            return USD_CAP
    return None


def spent_usd(store: FactorialDirectory, scenario: CallScenario) -> tuple[Decimal, Decimal]:
    """What a run has cost so far, and what its dearest block cost.

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
    return sum(of_block.values(), lab), max(of_block.values(), default=Decimal())
