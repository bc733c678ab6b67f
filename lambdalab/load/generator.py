"""Sends what is due when it is due, and watches itself: a generator that cannot keep the rate must say so.

One process's share is a ``Generator``; what all of them sent is added up by a ``Tally``.
"""

import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

import gevent
import msgspec
import numpy as np
from gevent import GreenletExit
from gevent.event import Event
from gevent.pool import Pool

from lambdalab.analysis.load_limit import LATE_MS, sender_limits
from lambdalab.load.sender import Outcome
from lambdalab.planning.load_schedule import Arrival
from lambdalab.records.load import Send

PLACES: Final = 1000
"""Requests one process has under way at most; what is due while none is free is sent late."""
GRACE_S: Final = 10.0
"""What is not begun so long after the last message was due is dropped."""
STOP_S: Final = 3.0
"""How long requests under way may take to end after a stop."""
CPU_WINDOW_S: Final = 5.0
INTERRUPT_S: Final = 1.0
"""What came due so shortly before a stop by hand was not offered any more: an interrupt itself takes part of it."""
STOPPED: Final = "the run was stopped while it was under way"
OVER: Final = "the plan was over"
TIME_OVER: Final = "--max-time was over"
BY_HAND: Final = "stopped by hand"

_CPU_LOOK_S: Final = 0.5


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request that has ended. Times are milliseconds since 1970; ``answered_ms`` is None when it was cut short."""

    arrival: Arrival
    due_ms: float
    began_ms: float
    answered_ms: float | None
    outcomes: Sequence[Outcome]


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one process did of its share. ``dropped`` messages were due and never begun.

    ``pool_waits`` is how often no place was free, ``pool_wait_ms`` how long that took in all; ``cpu_share`` the largest
    share of a core the process used over five seconds, None of a shorter run. ``ended_by`` is ``OVER`` when
    everything was due, ``TIME_OVER`` when no more might be, ``BY_HAND`` after a stop.
    """

    worker: int
    dropped: int
    dropped_of_step: dict[int, int]
    pool_waits: int
    pool_wait_ms: float
    cpu_share: float | None
    ended_by: str


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Of ``n`` times in milliseconds, at full precision and by nearest rank; None where n is too small for one."""

    n: int
    minimum: float
    p50: float
    p90: float | None
    p95: float | None
    p99: float | None
    p999: float | None
    maximum: float


class GeneratorReport(msgspec.Struct, frozen=True, kw_only=True):
    """What all processes of a run offered, and how well.

    ``offered`` messages were due until the run ended, ``attempted`` of them begun, ``accepted`` by the queue,
    ``failed`` given up, ``dropped`` never begun; ``unknown`` are of lost workers, which did not tell. ``late`` were
    begun more than 50 ms after they were due. ``latency_ms`` is from when a message was due to its answer, ``lag_ms``
    to its first attempt. ``limits`` says what kept the generator from offering what was asked; empty when nothing did.
    ``ended_by`` is why no more was offered.
    """

    workers: int
    lost_workers: tuple[int, ...]
    offered: int
    attempted: int
    accepted: int
    failed: int
    retried: int
    late: int
    dropped: int
    unknown: int
    dropped_of_step: dict[int, int]
    pool_waits: int
    pool_wait_ms: float
    cpu_share: float | None
    latency_ms: Percentiles | None
    lag_ms: Percentiles | None
    errors: dict[str, int]
    limits: tuple[str, ...]
    ended_by: str


class Generator:
    """One process's share of a run.

    Args:
        worker: which process, from 0.
        arrivals: what is due, in order of time.
        send: does one request, and says what became of each of its messages.
        note: told of each request when it has ended.
        until_s: nothing is begun so long after the start.
        drained: for a run that is not open: asked after each request until it is so, and only then comes the next.
        poll_s: how often ``drained`` is asked.
        places: requests under way at most.
    """

    def __init__(
        self,
        worker: int,
        arrivals: Iterable[Arrival],
        send: Callable[[Arrival], Sequence[Outcome]],
        note: Callable[[Request], None],
        *,
        until_s: float,
        drained: Callable[[Arrival], bool] | None = None,
        poll_s: float = 0.05,
        places: int = PLACES,
    ) -> None:
        self._worker = worker
        self._arrivals = iter(arrivals)
        self._send, self._note = send, note
        self._until_s = until_s
        self._drained, self._poll_s = drained, poll_s
        self._pool = Pool(places)
        self._stopping, self._ended = Event(), Event()
        self._dropped: Counter[int] = Counter()
        self._pool_waits, self._pool_wait_s = 0, 0.0
        self._cpu = _CpuShare()
        self._ended_by: str = OVER
        # One clock for all times of this process: one that is set back would make latencies negative.
        self._epoch_s = time.time() - time.monotonic()

    def run(self) -> None:
        """Sends until everything is sent, the time is over or ``stop`` is called; then nothing is under way."""
        start = time.monotonic()
        watch = gevent.spawn(self._watch)
        try:
            for arrival in self._arrivals:
                if not self._goes_on(arrival, start):
                    until_s = time.monotonic() - start - (INTERRUPT_S if self._stopping.is_set() else 0)
                    self._drop(chain([arrival], self._arrivals), until_s)
                    break
                self._begin(arrival, start)
            self._pool.join(STOP_S if self._stopping.is_set() else None)
        finally:
            self._pool.kill()
            watch.kill()
            self._cpu.look()
            self._ended.set()

    def stop(self) -> None:
        """Ends the run. Returns when nothing is under way any more, after a few seconds at most."""
        self._stopping.set()
        self._ended.wait(STOP_S + 1)

    def share(self) -> Share:
        """What was done so far."""
        return Share(
            worker=self._worker,
            dropped=self._dropped.total(),
            dropped_of_step=dict(self._dropped),
            pool_waits=self._pool_waits,
            pool_wait_ms=self._pool_wait_s * 1000,
            cpu_share=self._cpu.largest,
            ended_by=self._ended_by,
        )

    def _goes_on(self, arrival: Arrival, start: float) -> bool:
        """Waits until an arrival is due and there is a place for it; False when it will not be sent."""
        due = start + arrival.at_s
        while (wait_s := due - time.monotonic()) > 0 and not self._stopping.wait(wait_s):
            pass
        if self._pool.full():
            self._pool_waits += 1
            began = time.monotonic()
            while self._pool.full() and not self._stopping.is_set():
                self._pool.wait_available(timeout=0.1)
            self._pool_wait_s += time.monotonic() - began
        return not self._stopping.is_set() and time.monotonic() <= start + self._until_s

    def _begin(self, arrival: Arrival, start: float) -> None:
        if self._drained is None:
            self._pool.spawn(self._one, arrival, start + arrival.at_s)
            return
        self._pool.spawn(self._one, arrival, time.monotonic())
        self._pool.join()
        until = start + self._until_s
        while not self._drained(arrival) and time.monotonic() < until and not self._stopping.wait(self._poll_s):
            pass

    def _one(self, arrival: Arrival, due: float) -> None:
        began, answered_ms, interrupt = time.monotonic(), None, None
        try:
            outcomes = self._send(arrival)
            answered_ms = self._epoch_ms(time.monotonic())
        except GreenletExit:
            outcomes = [Outcome(None, STOPPED, 1)] * len(arrival.messages)
        except KeyboardInterrupt as error:  # Ctrl-C comes to whichever greenlet runs; SQS may have the message
            outcomes, interrupt = [Outcome(None, STOPPED, 1)] * len(arrival.messages), error
        self._note(Request(arrival, self._epoch_ms(due), self._epoch_ms(began), answered_ms, outcomes))
        if interrupt is not None:
            raise interrupt

    def _epoch_ms(self, at: float) -> float:
        return (self._epoch_s + at) * 1000

    def _drop(self, arrivals: Iterator[Arrival], elapsed_s: float) -> None:
        """Counts what was due by then and will not be begun."""
        for arrival in arrivals:
            if self._drained is not None or arrival.at_s > elapsed_s:
                self._ended_by = BY_HAND if self._stopping.is_set() else TIME_OVER
                return
            self._dropped[arrival.step] += len(arrival.messages)

    def _watch(self) -> None:
        while True:
            self._cpu.look()
            gevent.sleep(_CPU_LOOK_S)


class Tally:
    """What all processes of a run told, added up.

    Args:
        workers: how many there are.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._shares: dict[int, Share] = {}
        self._told: Counter[int] = Counter()
        self._lost: dict[int, int] = {}
        self._why_lost: dict[int, str] = {}
        self._latency_ms, self._lag_ms = array("d"), array("d")
        self._accepted = self._retried = self._late = 0
        self._errors: Counter[str] = Counter()

    def add(self, worker: int, sends: Sequence[Send]) -> None:
        """Takes messages that were sent, or given up."""
        self._told[worker] += len(sends)
        for send in sends:
            lag_ms = send.began_at_ms - send.intended_at_ms
            self._lag_ms.append(lag_ms)
            self._late += lag_ms > LATE_MS
            self._retried += send.attempts > 1
            if send.answered_at_ms is not None:
                self._latency_ms.append(send.answered_at_ms - send.intended_at_ms)
            if send.error is None:
                self._accepted += 1
            else:
                self._errors[send.error] += 1

    def end(self, share: Share) -> None:
        """Takes the last word of a process."""
        self._shares[share.worker] = share

    def lose(self, worker: int, due: int, why: str) -> None:
        """Notes that a process does not tell its share to the end, of which so many messages were due until now."""
        self._lost[worker] = due
        self._why_lost.setdefault(worker, why)

    def waiting(self) -> set[int]:
        """The processes that have not ended yet."""
        return set(range(self._workers)) - self._shares.keys() - self._lost.keys()

    def report(self) -> GeneratorReport:
        """The sums, and what limited the generator."""
        shares = self._shares.values()
        attempted = len(self._lag_ms)
        unknown = sum(max(due - self._told[worker], 0) for worker, due in self._lost.items())
        dropped = sum((Counter(share.dropped_of_step) for share in shares), Counter[int]())
        ended_by = {share.ended_by for share in shares}
        report = GeneratorReport(
            workers=self._workers,
            lost_workers=tuple(sorted(self._lost)),
            offered=attempted + dropped.total() + unknown,
            attempted=attempted,
            accepted=self._accepted,
            failed=self._errors.total(),
            retried=self._retried,
            late=self._late,
            dropped=dropped.total(),
            unknown=unknown,
            dropped_of_step=dict(dropped),
            pool_waits=sum(share.pool_waits for share in shares),
            pool_wait_ms=sum(share.pool_wait_ms for share in shares),
            cpu_share=max((s.cpu_share for s in shares if s.cpu_share is not None), default=None),
            latency_ms=percentiles(self._latency_ms),
            lag_ms=percentiles(self._lag_ms),
            errors=dict(self._errors.most_common(20)),
            limits=(),
            ended_by=next((why for why in (BY_HAND, TIME_OVER, OVER) if why in ended_by), "no worker was left"),
        )
        lost = (f"worker {worker} {self._why_lost[worker]}" for worker in report.lost_workers)
        limits = sender_limits(
            offered=report.offered,
            late=report.late,
            dropped=report.dropped,
            unknown=report.unknown,
            longest_lag_ms=0.0 if report.lag_ms is None else report.lag_ms.maximum,
            pool_waits=report.pool_waits,
            cpu_share=report.cpu_share,
        )
        return msgspec.structs.replace(report, limits=(*lost, *limits))


def percentiles(times_ms: Sequence[float]) -> Percentiles | None:
    """Percentiles by nearest rank, each where there are samples beyond it; None of nothing."""
    if not len(times_ms):
        return None
    ordered = np.sort(np.asarray(times_ms))
    n = len(ordered)

    def at(per_mille: int) -> float | None:
        return float(ordered[-(-n * per_mille // 1000) - 1]) if n * (1000 - per_mille) >= 1000 else None

    return Percentiles(
        n=n,
        minimum=float(ordered[0]),
        p50=float(ordered[(n + 1) // 2 - 1]),
        p90=at(900),
        p95=at(950),
        p99=at(990),
        p999=at(999),
        maximum=float(ordered[-1]),
    )


class _CpuShare:
    """The largest share of a core this process used over some seconds."""

    def __init__(self) -> None:
        self._looks = deque([(time.monotonic(), time.process_time())])
        self.largest: float | None = None

    def look(self) -> None:
        now, used_s = time.monotonic(), time.process_time()
        while len(self._looks) > 1 and now - self._looks[1][0] >= CPU_WINDOW_S:
            self._looks.popleft()
        before, used_before_s = self._looks[0]
        if now - before >= CPU_WINDOW_S:  # over less, starting up would count
            self.largest = max(self.largest or 0.0, (used_s - used_before_s) / (now - before))
        self._looks.append((now, used_s))
