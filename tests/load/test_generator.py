"""The generator keeps its rate whatever answers, counts what it could not, and says when it was the limit itself."""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import numpy as np
import pytest
from scipy import stats

from lambdalab.load import generator
from lambdalab.load.generator import (
    BY_HAND,
    OVER,
    STOPPED,
    TIME_OVER,
    Generator,
    GeneratorReport,
    Request,
    Share,
    Tally,
    percentiles,
)
from lambdalab.load.sender import Outcome
from lambdalab.planning.load_schedule import Arrival, Arrivals, LoadPlan, Shape, arrivals, length_s
from lambdalab.records.load import Send

TAKEN = Outcome("m", None, 1)


class Sent:
    """A share that is run, and what came of it."""

    def __init__(
        self, plan: LoadPlan, send: Callable[[Arrival], Sequence[Outcome]] | None = None, **options: Any
    ) -> None:
        self.requests: list[Request] = []
        options.setdefault("until_s", (length_s(plan) or 0) + 10)
        self.generator = Generator(
            0, arrivals(plan), send or (lambda one: [TAKEN] * len(one.messages)), self.requests.append, **options
        )

    def run(self) -> "Sent":
        self.generator.run()
        return self

    @property
    def share(self) -> Share:
        return self.generator.share()

    def began_s(self) -> list[float]:
        """When each was begun, after the first was due."""
        start_ms = min(one.due_ms - one.arrival.at_s * 1000 for one in self.requests)
        return sorted((one.began_ms - start_ms) / 1000 for one in self.requests)


def test_every_constant_rate_is_held_within_two_percent_or_one_message() -> None:
    seconds = 5.0
    rates = (1, 10, 100, 500)
    all_sent = {rate: Sent(LoadPlan(rate=float(rate), duration_s=seconds)) for rate in rates}
    gevent.joinall([gevent.spawn(sent.run) for sent in all_sent.values()], raise_error=True)
    for rate, sent in all_sent.items():
        began = sent.began_s()
        assert len(began) == rate * seconds
        in_time = sum(at < seconds for at in began)
        assert abs(in_time - rate * seconds) <= max(1, 0.02 * rate * seconds), f"{in_time} at {rate}/s"
        assert all(one.began_ms >= one.due_ms for one in sent.requests), "nothing is sent before it is due"


def test_poisson_arrivals_are_poisson_in_the_times_they_are_really_sent() -> None:
    seconds = 5.0
    rates = (10, 100, 500)
    plans = {rate: LoadPlan(rate=float(rate), duration_s=seconds, arrivals=Arrivals.POISSON, seed=3) for rate in rates}
    all_sent = {rate: Sent(plan) for rate, plan in plans.items()}
    gevent.joinall([gevent.spawn(sent.run) for sent in all_sent.values()], raise_error=True)
    for rate, sent in all_sent.items():
        began = sent.began_s()
        low, high = stats.poisson.interval(0.95, rate * seconds)
        assert low <= len(began) <= high
        # Given how many there are, the times of a Poisson process are uniform; and counts vary as much as their mean.
        assert stats.kstest(began, "uniform", args=(0, seconds)).pvalue > 0.01, rate
        counts, _ = np.histogram(began, bins=50, range=(0, seconds))
        dispersion = counts.var(ddof=1) / counts.mean() * 49
        assert stats.chi2.ppf(0.005, 49) < dispersion < stats.chi2.ppf(0.995, 49), rate


@pytest.mark.parametrize("places", [1000, 5])
def test_a_target_that_stands_still_for_two_seconds_shows_them_in_the_percentiles(places: int) -> None:
    """With few places what is due meanwhile is begun late, and would look fast from when it was begun."""
    frozen_until = 0.0

    def send(arrival: Arrival) -> list[Outcome]:
        nonlocal frozen_until
        if arrival.number == 100:
            frozen_until = time.monotonic() + 2
        gevent.sleep(max(0.0, frozen_until - time.monotonic()))
        return [TAKEN]

    tally = Tally(1)
    sent = Sent(LoadPlan(rate=100.0, duration_s=4.0), send, places=places).run()
    assert len(sent.requests) == 400, "everything is sent all the same"
    tally.add(0, [_as_send(one) for one in sent.requests])
    tally.end(sent.share)
    latency = tally.report().latency_ms
    assert latency is not None
    # 200 of 400 were due while it stood still, and waited between 2 s and nothing, in even steps.
    assert latency.maximum >= 1990
    assert latency.p99 is not None
    assert latency.p99 >= 2000 - 0.01 * 400 / 100 * 1000 - 10
    assert latency.p90 is not None
    assert latency.p90 >= 2000 - 0.1 * 400 / 100 * 1000 - 10


def _as_send(one: Request, **changes: Any) -> Send:
    (outcome,) = one.outcomes
    of_send: dict[str, Any] = {
        "batch_id": "b", "arm": "go", "label": "x", "step": 1, "phase": "hold", "message_bytes": 1, "items": 1,
        "intended_at_ms": one.due_ms, "began_at_ms": one.began_ms, "answered_at_ms": one.answered_ms,
        "attempts": outcome.attempts, "message_id": outcome.message_id, "error": outcome.error,
    }  # fmt: skip
    return Send(**(of_send | changes))


def test_a_stop_ends_what_waits_and_cuts_short_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "STOP_S", 0.2)

    def never(_: Arrival) -> list[Outcome]:
        gevent.sleep(1e6)
        raise AssertionError

    sent = Sent(LoadPlan(rate=50.0, duration_s=1e6, max_messages=2**53, max_s=1e7), never, until_s=1e6)
    running = gevent.spawn(sent.run)
    gevent.sleep(0.5)
    sent.generator.stop()
    running.get(timeout=5)
    assert len(sent.requests) >= 2
    assert {one.outcomes[0].error for one in sent.requests} == {STOPPED}
    assert {one.answered_ms for one in sent.requests} == {None}
    assert sent.share.ended_by == BY_HAND


def test_what_cannot_be_begun_is_late_then_dropped_and_always_offered() -> None:
    def slow(_: Arrival) -> list[Outcome]:
        gevent.sleep(0.1)
        return [TAKEN]

    plan = LoadPlan(shape=Shape.STEPS, rates=(50.0, 100.0), hold_s=1.0)
    sent = Sent(plan, slow, places=2, until_s=2.5).run()
    share = sent.share
    assert share.dropped == 150 - len(sent.requests)
    assert share.dropped > 50
    assert share.dropped_of_step[2] > 50
    assert share.pool_waits > 10
    assert share.pool_wait_ms > 1000
    assert share.ended_by == OVER, "all was due"
    tally = Tally(1)
    tally.add(0, [_as_send(one) for one in sent.requests])
    tally.end(share)
    report = tally.report()
    assert report.offered == 150
    assert report.late > 10
    assert [limit.split(" ")[3] for limit in report.limits][:2] == ["messages", "messages"]


def test_a_message_under_way_at_an_interrupt_is_counted() -> None:
    def interrupted(_: Arrival) -> list[Outcome]:
        raise KeyboardInterrupt

    sent = Sent(LoadPlan(rate=50.0, duration_s=1.0), interrupted, until_s=2.0)
    with pytest.raises(KeyboardInterrupt):
        sent.run()
    assert [request.outcomes[0].error for request in sent.requests] == [STOPPED]


@pytest.mark.parametrize(("busy_s", "dropped"), [(0.5, 0), (2.0, 50)])
def test_what_an_interrupt_keeps_from_being_begun_is_not_dropped(busy_s: float, dropped: int) -> None:
    sent = Sent(LoadPlan(rate=50.0, duration_s=1e6, max_messages=2**53, max_s=1e7), until_s=1e6)
    running = gevent.spawn(sent.run)
    gevent.sleep(0.5)
    time.sleep(busy_s)  # of this whole process, as what handles a signal may take it
    sent.generator.stop()
    running.get(timeout=5)
    assert sent.share.dropped == pytest.approx(dropped, abs=10)


def test_nothing_is_begun_after_the_hard_stop() -> None:
    plan = LoadPlan(rate=20.0, duration_s=100.0, max_s=200.0)
    sent = Sent(plan, until_s=1.0).run()
    assert max(one.began_ms - one.due_ms + one.arrival.at_s * 1000 for one in sent.requests) <= 1000
    assert len(sent.requests) in (20, 21)


def test_strict_begins_the_next_when_the_queue_is_empty() -> None:
    waiting: list[int] = []

    def send(_: Arrival) -> list[Outcome]:
        assert not waiting
        waiting.append(3)
        return [TAKEN]

    def drained(_: Arrival) -> bool:
        waiting[0] -= 1
        if not waiting[0]:
            waiting.clear()
        return not waiting

    sent = Sent(LoadPlan(shape=Shape.STRICT, blocks=2), send, until_s=60.0, drained=drained).run()
    assert len(sent.requests) == 4
    assert sent.share.ended_by == OVER


def test_strict_does_not_wait_for_ever_for_a_queue_that_never_drains() -> None:
    sent = Sent(LoadPlan(shape=Shape.STRICT, blocks=2), until_s=0.3, drained=lambda _: False).run()
    assert len(sent.requests) == 1
    assert sent.share.ended_by == TIME_OVER


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, (1, None, None, None, None)),
        (9, (5, None, None, None, None)),
        (10, (5, 9, None, None, None)),
        (20, (10, 18, 19, None, None)),
        (100, (50, 90, 95, 99, None)),
        (999, (500, 900, 950, 990, None)),
        (1000, (500, 900, 950, 990, 999)),
    ],
)
def test_percentiles_are_nearest_ranks_and_only_where_something_lies_beyond(
    n: int, expected: tuple[float | None, ...]
) -> None:
    values = [float(value) for value in range(1, n + 1)]
    random.Random(n).shuffle(values)
    found = percentiles(values)
    assert found is not None
    assert (found.n, found.minimum, found.maximum) == (n, 1, n)
    assert (found.p50, found.p90, found.p95, found.p99, found.p999) == expected
    assert percentiles([]) is None


def _report(sends: Sequence[Send], share: dict[str, Any] | None = None, workers: int = 1) -> GeneratorReport:
    tally = Tally(workers)
    tally.add(0, sends)
    tally.end(Share(**(_SHARE | (share or {}))))
    return tally.report()


_SHARE: dict[str, Any] = {
    "worker": 0, "dropped": 0, "dropped_of_step": {}, "pool_waits": 0, "pool_wait_ms": 0.0,
    "cpu_share": 0.1, "ended_by": OVER,
}  # fmt: skip


def _sends(n: int, lag_ms: float = 1.0, error: str | None = None) -> list[Send]:
    request = Request(Arrival(0, 0.0, 1, "hold", "go", (0,)), 1000.0, 1000.0 + lag_ms, 1010.0 + lag_ms, [TAKEN])
    return [_as_send(request, error=error, message_id=None if error else "m")] * n


def test_a_run_that_went_well_has_no_limits() -> None:
    report = _report([*_sends(199), *_sends(1, lag_ms=60), *_sends(2, error="AccessDenied: no")])
    assert report.limits == ()
    assert (report.offered, report.attempted, report.accepted, report.failed, report.late) == (202, 202, 200, 2, 1)
    assert report.errors == {"AccessDenied: no": 2}


def test_more_than_one_percent_late_or_dropped_or_a_busy_process_is_the_generators_limit() -> None:
    assert (
        _report([*_sends(97), *_sends(3, lag_ms=60)])
        .limits[0]
        .startswith("3 of 100 messages were begun more than 50 ms")
    )
    dropped = _report(_sends(97), {"dropped": 3, "dropped_of_step": {2: 3}})
    assert dropped.limits == ("3 of 100 messages were never begun",)
    assert _report(_sends(10), {"cpu_share": 0.95}).limits == ("a process of the generator used 95% of a core",)


def test_a_worker_that_died_is_named_and_what_it_owed_is_counted() -> None:
    tally = Tally(2)
    tally.add(0, _sends(100))
    tally.add(1, _sends(30))
    tally.end(Share(**_SHARE))
    assert tally.waiting() == {1}
    tally.lose(1, due=40, why="died")
    tally.lose(1, due=100, why="did not tell all it sent")
    assert tally.waiting() == set()
    report = tally.report()
    assert (report.offered, report.unknown, report.lost_workers) == (200, 70, (1,))
    assert report.limits[:2] == (
        "worker 1 died",
        "70 of 200 messages were a lost worker's: sent and not told, or not sent",
    )
