"""How much a load run on AWS may have cost by now. Pure."""

from collections.abc import Iterable
from decimal import Decimal

from lambdalab.cost import PriceSheet
from lambdalab.model import Manifest, TrialResult
from lambdalab.spending import lab_use, most_usd


class Spent:
    """Bounds what a run has cost while most of it is not known yet, since REPORT lines come late.

    A message whose record has not been seen is taken to have run into its function's timeout, and to be as dear then as
    the messages of the run are on average.

    Args:
        manifest: of the run.
        prices: of its region.
    """

    def __init__(self, manifest: Manifest, prices: PriceSheet) -> None:
        self._prices = prices
        self._queues = len(manifest.functions)
        loads = {load.label: load for load in manifest.protocol.loads}
        self._most = {
            (arm, label): most_usd(prices, function, load)
            for arm, function in manifest.functions.items()
            for label, load in loads.items()
        }
        self._lab = {
            label: lab_use([load], blocks=1, minutes=0, queues=self._queues).usd(prices)
            for label, load in loads.items()
        }
        self._sent = 0
        self._at_most = self._by_lab = Decimal(0)

    def add(self, results: Iterable[TrialResult]) -> None:
        """Takes messages whose sending was told; those that SQS did not take cost nothing."""
        for label, arm in ((r.trial.load.label, r.trial.arm) for r in results if r.message_id is not None):
            self._sent += 1
            self._at_most += self._most[arm, label]
            self._by_lab += self._lab[label]

    def usd(self, *, billed: Decimal, done: int, minutes: float) -> Decimal:
        """What may have been spent.

        Args:
            billed: what the invocations cost whose REPORT has been seen.
            done: how many messages are known to be done.
            minutes: for how long the run has been under way.
        """
        unknown = self._at_most * max(self._sent - done, 0) / max(self._sent, 1)
        around = lab_use([], blocks=0, minutes=minutes, queues=self._queues).usd(self._prices)
        return billed + unknown + self._by_lab + around
