"""The books of load runs small enough to be worked out by hand."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from samples import BEGAN_MS, RUN_ID, make_facts

from lambdalab.analysis.books import ALL, Books, Flow, Times, balance
from lambdalab.design.arms import Items, Load, Start
from lambdalab.planning.spending import MESSAGE_BYTES, LabUse, read_units
from lambdalab.pricing.costs import load_price_sheet
from lambdalab.records.load import Ending, PipelineSample, QueueSample, Sending
from lambdalab.records.trials import InvocationRow, Trial, TrialResult

LOAD = Load(label="TEN", size_bytes=1024, count=10, start=Start.WARM)
FUNCTIONS = {arm: make_facts(arm, maximum_concurrency=2, reserved_concurrency=None) for arm in ("go", "python")}
ENDED = Ending(drained_at_ms=BEGAN_MS + 60_000, queued={"go": 0, "python": 0}, dead_letters=())


def sent(
    number: int, at_s: float, *, arm: str = "go", step: int = 1, phase: str = "hold", **changes: Any
) -> TrialResult:
    """A message that SQS took 2 ms after it was due, and whose ten items are in the table."""
    due_ms = BEGAN_MS + at_s * 1000
    batch_id = f"{RUN_ID}:0-{number}"
    result = TrialResult(
        trial=Trial(trial_id=f"0-{number}", block=1, position=number, arm=arm, load=LOAD),
        batch_id=batch_id,
        message_id=f"message-{number}",
        sent_at_ms=round(due_ms),
        drained_at_ms=BEGAN_MS + 60_000,
        message_bytes=100,
        items_expected=10,
        items_found=10,
        reason=None,
        sending=Sending(
            step=step,
            phase=phase,
            intended_at_ms=due_ms,
            began_at_ms=due_ms + 1,
            answered_at_ms=due_ms + 2,
            attempts=1,
        ),
    )
    return msgspec.structs.replace(result, **changes)


def done(of: TrialResult, begun_s: float, took_ms: int = 100, **changes: Any) -> InvocationRow:
    """The invocation that did it: begun so many seconds after the run, SQS's SentTimestamp being when it was due."""
    assert of.sending is not None
    started_ms = BEGAN_MS + begun_s * 1000
    waited_ms = round(started_ms - of.sending.intended_at_ms)
    row = InvocationRow(
        run_id=RUN_ID,
        scenario="ingest",
        target="local",
        latency_model=None,
        cpu_scale=1.0,
        arm=of.trial.arm,
        language=of.trial.arm,
        mode="sequential",
        architecture="x86_64",
        batch_size=1,
        invocation_messages=1,
        memory_mb=128,
        trial=of.trial.trial_id,
        block=1,
        label="TEN",
        request_id=f"request of {of.trial.trial_id} at {begun_s}",
        started_at=datetime.fromtimestamp(started_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        cold_start=False,
        duration_ms=took_ms + 0.5,
        billed_ms=took_ms + 1,
        init_ms=None,
        max_memory_mb=50,
        queue_wait_ms=waited_ms,
        end_to_end_ms=waited_ms + took_ms,
        written=10,
        duplicates=0,
        sdk_retries=0,
        receive_count=1,
        wru=20.0,
        log_bytes=None,
        cost_lambda_usd=None,
        cost_dynamodb_usd=None,
        cost_sqs_usd=None,
        cost_logs_usd=None,
        cost_total_usd=None,
        cost_per_item_usd=None,
        valid=True,
        reason=None,
    )
    return msgspec.structs.replace(row, **changes)


def closed(
    trials: list[TrialResult], rows: list[InvocationRow], samples: list[PipelineSample], ending: Ending | None
) -> Books:
    books = balance(trials, rows, samples, ending, FUNCTIONS)
    assert books is not None
    return books


def counts(flow: Flow) -> tuple[int, int, int, int, int]:
    return flow.sent, flow.processed, flow.dead_lettered, flow.still_queued, flow.lost


def times_of(books: Books, phase: str, arm: str = ALL) -> Times:
    return next(one for one in books.times if (one.phase, one.arm) == (phase, arm))


def test_each_message_is_in_exactly_one_place() -> None:
    trials = [sent(i, i) for i in range(7)]
    for i in (1, 2, 3):  # dead-lettered, still queued, lost: nothing of them is in the table
        trials[i] = msgspec.structs.replace(trials[i], items_found=0)
    trials[4] = msgspec.structs.replace(trials[4], message_id=None, items_found=0, reason="not sent: refused")
    # 5 left no record, but its items are there; 6 was done twice
    rows = [done(trials[0], 0.1), done(trials[6], 6.1), done(trials[6], 6.5, written=0, duplicates=10)]
    ending = Ending(drained_at_ms=None, queued={"go": 1}, dead_letters=(trials[1].batch_id,))

    books = closed(trials, rows, [], ending)

    assert counts(books.whole) == (6, 3, 1, 1, 1)
    assert (books.whole.intended, books.whole.given_up, books.whole.duplicates) == (7, 1, 1)
    assert (books.whole.items_found, books.whole.items_expected) == (30, 30)
    assert not books.whole.balances
    assert books.faults == (
        "1 of 6 messages are lost: neither processed nor in any queue",
        "1 of 6 messages were still queued when the wait for them ended",
    )
    assert books.cautions == (
        "1 of 7 messages were given up before SQS took them",
        "1 of 6 messages are in the dead-letter queue",
        "1 deliveries were of messages that had been done already",
        "when 1 processed messages were begun and done is not known, so rates and times leave them out",
    )
    assert books.drain_s is None


def test_what_is_missing_is_the_last_sent_as_far_as_the_queue_holds_messages() -> None:
    """Two steps; of step 1 message 0, of step 2 messages 2 and 3 are missing, and one message is in the queue."""
    trials = [sent(i, i, step=1 + i // 2, items_found=10 if i == 1 else 0) for i in range(4)]
    ending = msgspec.structs.replace(ENDED, queued={"go": 1}, drained_at_ms=None)
    books = closed(trials, [done(trials[1], 1.1)], [], ending)
    assert [counts(flow) for flow in books.steps()] == [(2, 1, 0, 0, 1), (2, 0, 0, 1, 1)]
    # more in the queue than is missing: they are not of this run, or are deliveries of what has been done
    full = msgspec.structs.replace(ending, queued={"go": 9})
    assert counts(closed(trials, [done(trials[1], 1.1)], [], full).whole) == (4, 1, 0, 3, 0)


def test_a_queue_of_one_arm_explains_nothing_that_another_misses() -> None:
    trials = [sent(0, 0, arm="go", items_found=0), sent(1, 1, arm="python")]
    ending = msgspec.structs.replace(ENDED, queued={"go": 0, "python": 5})
    books = closed(trials, [done(trials[1], 1.1)], [], ending)
    assert counts(books.whole) == (2, 1, 0, 0, 1)


def test_a_dead_letter_counts_once_even_when_its_work_had_been_done() -> None:
    trials = [sent(0, 0), sent(1, 1)]
    ending = msgspec.structs.replace(ENDED, dead_letters=(trials[0].batch_id,))
    books = closed(trials, [done(trial, i + 0.1) for i, trial in enumerate(trials)], [], ending)
    assert counts(books.whole) == (2, 1, 1, 0, 0)
    assert books.faults == ()


def test_a_delivery_that_wrote_less_than_was_asked_does_not_process_its_message() -> None:
    trial = sent(0, 0, items_found=4)
    books = closed([trial, sent(1, 1)], [done(trial, 0.1, written=4)], [], ENDED)
    assert counts(books.whole) == (2, 1, 0, 0, 1)


def test_items_that_are_missing_from_the_table_are_a_fault_though_the_function_wrote_them() -> None:
    trials = [sent(0, 0, items_found=9), sent(1, 1)]
    books = closed(trials, [done(trial, 0.1) for trial in trials], [], ENDED)
    assert (books.whole.items_found, books.whole.items_expected) == (19, 20)
    assert books.faults == ("19 of the 20 items of processed messages are in the tables",)


def test_a_run_that_was_killed_loses_nothing_that_may_still_be_in_its_queues() -> None:
    trials = [sent(0, 0, items_found=None), sent(1, 1, items_found=None)]
    books = closed(trials, [done(trials[0], 0.1)], [], None)
    assert counts(books.whole) == (2, 1, 0, 1, 0)
    assert books.whole.items_found is None
    assert books.faults == ()  # that the run has no end, its summary says


def test_a_message_that_was_given_up_and_done_all_the_same_counts_as_sent() -> None:
    given_up = sent(0, 0, message_id=None, reason="not sent: no answer")
    books = closed([given_up, sent(1, 1)], [done(given_up, 0.5)], [], ENDED)
    assert (counts(books.whole), books.whole.given_up) == ((2, 2, 0, 0, 0), 0)


def test_messages_that_were_never_begun_were_offered_all_the_same() -> None:
    trials = [sent(i, i, step=1 + i // 5, arm="go" if i % 2 else "python") for i in range(10)]
    rows = [done(trial, i + 0.1) for i, trial in enumerate(trials)]
    books = closed(trials, rows, [], msgspec.structs.replace(ENDED, dropped={2: 5}))
    assert [(flow.intended, flow.dropped, flow.offered_per_s) for flow in books.steps()] == [(5, 0, 1), (10, 5, 2)]
    assert (books.whole.intended, books.whole.sent, books.whole.dropped) == (15, 10, 5)
    assert [(flow.intended, flow.dropped) for flow in books.steps("go")] == [(2, None), (3, None)]
    assert books.cautions == ("5 of 15 messages were due and never begun",)


def test_no_message_makes_no_books() -> None:
    assert balance([], [], [], ENDED, FUNCTIONS) is None


def sweep() -> tuple[list[TrialResult], list[InvocationRow]]:
    """Steps of 5, 10 and 20 messages/s for 10 s each, at a function that does 10 a second, one after the other."""
    due = [i / 5 for i in range(50)] + [10 + i / 10 for i in range(100)] + [20 + i / 20 for i in range(200)]
    trials = [sent(i, at_s, step=1 + (at_s >= 10) + (at_s >= 20)) for i, at_s in enumerate(due)]
    free_s, rows = 0.0, []
    for trial, at_s in zip(trials, due, strict=True):
        begun_s = max(free_s, at_s + 0.01)
        free_s = begun_s + 0.1
        rows.append(done(trial, begun_s))
    return trials, rows


def test_a_sweep_finds_the_knee() -> None:
    trials, rows = sweep()
    ending = msgspec.structs.replace(ENDED, drained_at_ms=BEGAN_MS + 40_052)

    books = closed(trials, rows, [], ending)

    below, at, above = books.steps()
    assert [flow.seconds for flow in books.steps()] == pytest.approx([10, 10, 10])
    assert [flow.offered_per_s for flow in books.steps()] == pytest.approx([5, 10, 20])
    assert (below.achieved_per_s, below.backlog, below.keeps_up) == (5, 0, True)
    # the message due at 19.9 is begun at 19.91 and done after the step
    assert at.achieved_per_s == pytest.approx(9.9)
    assert (at.backlog, at.keeps_up) == (0, True)
    # 200 come, 100 are done: at 30 s numbers 0 to 99 of them have begun, the last at 29.91
    assert above.achieved_per_s == pytest.approx(10)
    assert (above.backlog, above.keeps_up) == (100, False)
    assert books.knees == {ALL: 3}
    assert books.whole.achieved_per_s == pytest.approx(249 / 30)
    # the last was answered 2 ms after 29.95 s
    assert books.drain_s == pytest.approx(40.052 - 29.952)
    assert books.faults == ()


def test_phases_are_told_apart() -> None:
    """What is sent in a ramp and in a hold and begun meanwhile, and what is begun only after the last was sent."""
    trials = [sent(0, 0, phase="ramp"), sent(1, 1, phase="ramp"), sent(2, 2), sent(3, 3)]
    rows = [done(trials[0], 0.05), done(trials[1], 1.25), done(trials[2], 2.5), done(trials[3], 9, took_ms=400)]

    books = closed(trials, rows, [], ENDED)

    assert [(one.phase, one.n) for one in books.times] == [("ramp", 2), ("hold", 1), ("drain", 1)]
    ramp, hold, drain = (times_of(books, phase) for phase in ("ramp", "hold", "drain"))
    assert ramp.queue_wait_ms is not None
    assert hold.end_to_end_ms is not None
    assert drain.duration_ms is not None
    assert ramp.queue_wait_ms.median == (50 + 250) / 2
    assert hold.end_to_end_ms.median == 600
    assert drain.duration_ms.median == 400.5
    curve = next(c for c in books.curves if (c.label, c.metric) == ("ramp", "end_to_end_ms"))
    assert (curve.n, min(curve.values_ms), max(curve.values_ms)) == (2, 150, 350)


def test_end_to_end_counts_from_when_the_message_was_due_though_it_was_sent_late() -> None:
    trial = sent(0, 0)
    assert trial.sending is not None
    late = msgspec.structs.replace(trial.sending, began_at_ms=BEGAN_MS + 2000.0, answered_at_ms=BEGAN_MS + 2001.0)
    trial = msgspec.structs.replace(trial, sending=late)
    row = done(trial, 2.1, queue_wait_ms=99, end_to_end_ms=199)
    found = times_of(closed([trial], [row], [], ENDED), "drain")
    assert found.end_to_end_ms is not None
    assert found.queue_wait_ms is not None
    assert (found.end_to_end_ms.median, found.queue_wait_ms.median) == (2200, 99)


def test_several_messages_of_one_invocation_have_one_duration() -> None:
    trials = [sent(0, 0), sent(1, 1)]
    rows = [done(trial, 2, request_id="one") for trial in trials]
    found = times_of(closed(trials, rows, [], ENDED), "drain")
    assert found.duration_ms is not None
    assert found.queue_wait_ms is not None
    assert (found.duration_ms.n, found.queue_wait_ms.n) == (1, 2)


def test_arms_have_books_of_their_own() -> None:
    trials = [sent(i, i, arm="go" if i % 2 else "python") for i in range(4)]
    books = closed(trials, [done(trial, i + 0.1) for i, trial in enumerate(trials)], [], ENDED)
    assert {(flow.step, flow.arm, flow.sent) for flow in books.flows} == {
        (None, ALL, 4), (None, "go", 2), (None, "python", 2), (1, ALL, 4), (1, "go", 2), (1, "python", 2),
    }  # fmt: skip
    assert books.whole.offered_per_s == 1


def sample(
    at_s: float, emulator_cpu_s: float | None, plane_cpu_s: float | None = None, emulator_wait_s: float | None = None
) -> PipelineSample:
    return PipelineSample(
        at_ms=BEGAN_MS + at_s * 1000,
        phase="hold",
        step=1,
        intended=0,
        sent=0,
        given_up=0,
        done=0,
        arms={},
        emulator_cpu_s=emulator_cpu_s,
        plane_cpu_s=plane_cpu_s,
        emulator_wait_s=emulator_wait_s,
    )


def test_a_run_whose_emulator_was_the_limit_says_so_and_is_no_result() -> None:
    """In the second of two steps the emulator took 4.75 s of 5 s, the plane 1 s."""
    trials = [sent(i, i, step=1 + i // 5) for i in range(10)]
    rows = [done(trial, i + 0.1) for i, trial in enumerate(trials)]
    samples = [sample(0, 10, 1), sample(4.5, 11, 2), sample(5, 11.25, 2), sample(10, 16, 3)]

    books = closed(trials, rows, samples, ENDED)

    assert books.emulator_busy == pytest.approx(0.95)
    assert books.plane_busy == pytest.approx(0.2)
    said = "emulator-bound: the emulator had work for 95% of the time over a step, on a core or waiting for one"
    assert books.bound == (said,)
    assert books.faults == books.bound
    assert (books.limit.what, books.limit.step) == ("emulator", 2)
    assert books.limit.sentence == "Limited by the emulator in step 2: its process used 95% of one core."


@pytest.mark.parametrize(("waited_s", "busy", "bound"), [(0.0, 0.2, False), (3.4, 0.88, False), (3.6, 0.92, True)])
def test_an_emulator_that_waits_for_a_core_is_the_limit_as_one_that_has_it(
    waited_s: float, busy: float, bound: bool
) -> None:
    trials = [sent(i, i) for i in range(5)]
    rows = [done(trial, i + 0.1) for i, trial in enumerate(trials)]
    samples = [sample(0, 10, emulator_wait_s=2), sample(6, 11.2, emulator_wait_s=2 + waited_s * 1.2)]

    books = closed(trials, rows, samples, ENDED)

    assert books.emulator_busy == pytest.approx(busy)
    assert bool(books.bound) is bound


def test_a_run_whose_generator_was_the_limit_says_so_in_its_words() -> None:
    trials = [sent(i, i) for i in range(3)]
    rows = [done(trial, i + 0.1) for i, trial in enumerate(trials)]
    ending = msgspec.structs.replace(ENDED, generator_limits=("2.0% of the messages began late",))
    books = closed(trials, rows, [], ending)
    assert books.faults == ("generator-bound: 2.0% of the messages began late",)
    assert books.limit.sentence == "Limited by the sender: 2.0% of the messages began late."


def test_the_limit_is_that_of_the_first_step_that_did_not_keep_up() -> None:
    """Of the sweep of 5, 10 and 20 a second; from 20 s on the one arm's two places are taken."""
    trials, rows = sweep()
    samples = [
        msgspec.structs.replace(
            sample(at_s, emulator_cpu_s=at_s / 10),
            arms={"go": QueueSample(visible=round(max(at_s - 20, 0) * 10), in_flight=2, dead_letters=0, places=2,
                                    places_s=2.0 * at_s, places_busy_s=at_s + max(at_s - 20, 0))},
        )
        for at_s in range(31)
    ]  # fmt: skip
    books = closed(trials, rows, samples, ENDED)
    assert books.limit.sentence == (
        "Limited by MaximumConcurrency in step 3: 2 of 2 environments of go were busy 100% of the time, "
        "backlog grew 10.0/s."
    )
    assert (books.limit.what, books.limit.step, books.bound) == ("concurrency", 3, ())
    below = [i for i, trial in enumerate(trials) if trial.sending is not None and trial.sending.step < 3]
    kept = closed([trials[i] for i in below], [rows[i] for i in below], samples, ENDED)
    assert kept.limit.sentence == "Limited by nothing: the offered rate was kept."
    lost = closed([msgspec.structs.replace(trials[0], items_found=0)], [], samples, ENDED)
    assert lost.limit.sentence == "Limited by something that is not known: no message is known to have been done."


def test_what_the_books_cost_is_as_the_price_sheet_has_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "books.md").read_text()
    prices = load_price_sheet(Path(__file__).parents[2] / "prices" / "us-east-1.toml")
    assert f"prices of `prices/us-east-1.toml` of {prices.date}" in page
    rows = re.findall(r"^\| (\d+) items of ([\d,]+) bytes \| ([\d,]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert len(rows) == 3
    for count, size, units, usd in rows:
        asked = Items(label="any", size_bytes=int(size.replace(",", "")), count=int(count))
        use = LabUse(read_units=1000 * read_units(asked))
        assert (f"{use.read_units:,}", use.usd(prices)) == (units, Decimal(usd))
    looks = LabUse(queue_requests=3600 * 2 * 2).usd(prices)
    scanned = LabUse(scanned_bytes=1000 * MESSAGE_BYTES).usd(prices)
    letters = LabUse(queue_requests=10_000 // 10).usd(prices)
    for said in (f"{looks:.4f} an hour", f"{scanned:.5f} for every time", f"{letters:.4f} for 10,000 dead letters"):
        assert said in page
