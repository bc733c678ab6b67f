"""How much a load run on AWS may have cost by now, and when that ends it. Pure."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from lambdalab.planning.spending import lab_use, most_usd
from lambdalab.pricing.costs import PriceSheet
from lambdalab.records.load import PipelineSample
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trials import TrialResult

UNKNOWN_S: Final = 120.0
"""For so long a run may go on while nobody tells what it costs: two readings of its log."""


class Ceiling:
    """Ends a run that may have spent its USD, or of which that is not known.

    Args:
        usd: what it may spend at most.
        began_ms: when it began, or was looked at first.

    Attributes:
        reached: why nothing more may be sent; None while more may.
    """

    def __init__(self, usd: float, began_ms: float) -> None:
        self.reached: str | None = None
        self._usd = usd
        self._known_ms = began_ms

    def look(self, samples: Iterable[PipelineSample], now_ms: float) -> str | None:
        """Takes the samples that are new at a moment, and returns ``reached``."""
        known = [(sample.at_ms, sample.spent_usd) for sample in samples if sample.spent_usd is not None]
        self._known_ms = max([self._known_ms, *(at_ms for at_ms, _ in known)])
        spent = max((usd for _, usd in known), default=Decimal(0))
        if self.reached is None and spent >= Decimal(str(self._usd)):
            self.reached = f"usd ceiling: {spent:.4f} of {self._usd:g} USD may have been spent"
        elif self.reached is None and now_ms - self._known_ms > UNKNOWN_S * 1000:
            self.reached = f"usd ceiling: what it cost has not been known for {UNKNOWN_S:g} s"
        return self.reached


class Spent:
    """Bounds what a run has cost while most of it is not known yet, since REPORT lines come late.

    A message whose record has not been seen is taken to have run into its function's timeout, and to be as dear then as
    the messages of the run are on average.

    Args:
        manifest: of the run.
        prices: of its region.
    """

    def __init__(self, manifest: MessageManifest, prices: PriceSheet) -> None:
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
