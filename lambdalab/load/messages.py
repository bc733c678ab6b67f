"""The messages of a load run while it is under way: how many are due, sent and done, and how long they took. Pure."""

import math
from bisect import insort
from collections.abc import Iterable
from typing import Final

from lambdalab.analysis.load_limit import LATE_MS
from lambdalab.planning.load_schedule import LoadPlan, Shape, arrivals
from lambdalab.records.load import Quantiles
from lambdalab.records.trials import TrialResult

_EARLY_AT_MOST: Final = 100_000
"""Records kept whose messages nobody has told of yet: far more than come until somebody does."""


class Due:
    """How many messages the schedule wanted sent until a moment.

    When it began, the first message that is told of says; before that nothing is known to be due, and in the shape
    ``strict``, where the answers say when the next one comes, never.
    """

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._coming = iter(()) if plan.shape is Shape.STRICT else arrivals(plan)
        self._next = next(self._coming, None)
        self._began_ms: float | None = None
        self._count = 0

    def begin(self, number: int, intended_ms: float) -> None:
        """Takes the first message told of: its number in the plan, and when it was due."""
        if self._began_ms is None:
            for arrival in arrivals(self._plan):
                if number < arrival.number + len(arrival.messages):
                    self._began_ms = intended_ms - arrival.at_s * 1000
                    return

    def until(self, moment_ms: float) -> int:
        """How many; moments must not go back."""
        while self._began_ms is not None and self._next and self._began_ms + self._next.at_s * 1000 <= moment_ms:
            self._count += len(self._next.messages)
            self._next = next(self._coming, None)
        return self._count


class EndToEnd:
    """How long messages took: of a message's sending and its record, the first to come is kept until the other does."""

    def __init__(self) -> None:
        self._intended_ms: dict[str, float] = {}
        self._finished_ms: dict[str, float] = {}
        self._took_ms: list[float] = []  # in order

    def sent(self, batch_id: str, intended_ms: float) -> None:
        """Takes a message that its sender told of."""
        finished_ms = self._finished_ms.pop(batch_id, None)
        if finished_ms is None:
            self._intended_ms[batch_id] = intended_ms
        else:
            self._take(intended_ms, finished_ms)

    def finished(self, batch_id: str, finished_ms: float) -> None:
        """Takes a record that says a message was done; of several of one message the first counts."""
        intended_ms = self._intended_ms.pop(batch_id, None)
        if intended_ms is not None:
            self._take(intended_ms, finished_ms)
            return
        self._finished_ms.setdefault(batch_id, finished_ms)
        if len(self._finished_ms) > _EARLY_AT_MOST:  # of other runs, or done twice
            del self._finished_ms[next(iter(self._finished_ms))]

    @property
    def done(self) -> int:
        """How many messages are known to be sent and done."""
        return len(self._took_ms)

    def quantiles(self) -> Quantiles | None:
        """Of the messages of which both have come."""
        values = self._took_ms
        if not values:
            return None
        p50, p95, p99 = (values[-(-len(values) * percent // 100) - 1] for percent in (50, 95, 99))
        return Quantiles(n=len(values), p50=p50, p95=p95, p99=p99, max=values[-1])

    def _take(self, intended_ms: float, finished_ms: float) -> None:
        insort(self._took_ms, max(finished_ms - intended_ms, 0.0))


class Messages:
    """What the senders have told so far, and what the schedule says of the rest."""

    def __init__(self, arms: Iterable[str], plan: LoadPlan, times: EndToEnd) -> None:
        self.told = self.sent = self.late = 0
        self.step, self.phase = 1, "hold"
        self._newest_ms = 0.0
        self._sent_ms: dict[str, list[float]] = {arm: [] for arm in arms}
        self._due = Due(plan)
        self._times = times
        self._stopped_ms = math.inf
        self._offered: int | None = None

    def add(self, results: Iterable[TrialResult]) -> None:
        for result in results:
            sending = result.sending
            if sending is None:
                continue
            self.told += 1
            self.late += sending.began_at_ms - sending.intended_at_ms > LATE_MS
            self._due.begin(int(result.trial.trial_id.rpartition("-")[2]), sending.intended_at_ms)
            self._times.sent(result.batch_id, sending.intended_at_ms)
            if sending.intended_at_ms >= self._newest_ms:
                self._newest_ms, self.step, self.phase = sending.intended_at_ms, sending.step, sending.phase
            if result.message_id is not None:
                self.sent += 1
                insort(self._sent_ms[result.trial.arm], sending.began_at_ms)

    def stop(self, now_ms: float, offered: int | None) -> None:
        """Nothing is due from now on; ``offered`` is how many were, as the senders say, None if they did not."""
        self._stopped_ms, self._offered = now_ms, offered

    def intended(self, now_ms: float) -> int:
        """How many were due until now; what was sent was due, however the clocks differ."""
        due = self._due.until(min(now_ms, self._stopped_ms)) if self._offered is None else self._offered
        return max(due, self.told)

    def done(self, held: int, now_ms: float) -> int | None:
        """How many of those sent are not among so many that the queues hold; None where these cannot all be the run's.

        The queues may hold more than were told of as sent: their senders tell later, or never got the answer. But those
        were due; only before the first is told of it is not known what is due.
        """
        if self.told and held > self.intended(now_ms):
            return None
        return max(self.sent - held, 0)

    def age_ms(self, arm: str, depth: int, now_ms: float) -> float | None:
        """An estimate of the age of the oldest of so many messages in a queue, as if the last sent are still there."""
        sent_ms = self._sent_ms[arm]
        return max(now_ms - sent_ms[-depth], 0.0) if 0 < depth <= len(sent_ms) else None
