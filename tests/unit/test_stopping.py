"""When a run ends: on precision, at a cap, and never inside a block or on lines that have not come yet."""

import math
import random
import statistics
from bisect import insort
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_target import FakeTarget
from samples import BEGAN_MS, PRICES, make_lines, make_manifest, make_report, make_result, make_trials, record_line

from lambdalab.analysis.message_analysis import Summary
from lambdalab.analysis.message_rows import join
from lambdalab.design.arms import Caps, Factors, Stop
from lambdalab.errors import StorageError
from lambdalab.logs.observations import observe
from lambdalab.logs.platform_lines import render_report
from lambdalab.planning.spending import MOST_MINUTES, lab_use, most_usd
from lambdalab.planning.stopping import StoppingRule, minutes_under_way, spent_usd
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import Trial, TrialResult
from lambdalab.run import runner
from lambdalab.run.experiment import conclude, execute, resume_run, trials_left
from lambdalab.statistics.estimates import median_estimate

Duration = Callable[[Trial], float]
BEGAN_S = BEGAN_MS / 1000


def wanted(*, blocks: int = 30, stop: Stop | None = None, caps: Caps | None = None, **changes: Any) -> MessageManifest:
    manifest = make_manifest(blocks=blocks, arms=("python",), **changes)
    protocol = msgspec.structs.replace(manifest.protocol, stop=stop, caps=caps or Caps())
    return msgspec.structs.replace(manifest, protocol=protocol)


def lines_of(result: TrialResult, duration_ms: float) -> list[Any]:
    report = make_report(result)
    init = report.init_ms or 0
    report = msgspec.structs.replace(report, duration_ms=duration_ms, billed_ms=-int(-(duration_ms + init) // 1))
    return make_lines(result, record_line(result), render_report(report))


def run_of(
    folder: Path, manifest: MessageManifest, *, trials: int, duration: Duration = lambda _: 15.74
) -> RunDirectory:
    """A run after so many trials, each with its lines."""
    store = RunDirectory.create(folder, manifest)
    results = [make_result(trial) for trial in make_trials(manifest)[:trials]]
    for result in results:
        store.append_trial(result)
    store.append_log_lines([line for result in results for line in lines_of(result, duration(result.trial))])
    return store


def reason_of(store: RunDirectory, *, spends: bool = False, after_minutes: float = 1) -> str | None:
    return StoppingRule(store, spends=spends, now_s=lambda: BEGAN_S + 60 * after_minutes).reason()


def spread(*warm: float) -> Duration:
    """The warm durations of the blocks in turn; cold ones are all alike."""
    return lambda trial: 15.74 if trial.load.label == "WARMUP" else warm[(trial.block - 1) % len(warm)]


# precision

NARROW, WIDE = spread(100.25, 101.25, 99.25, 100.75, 99.75), spread(100.25, 150.25, 50.25, 125.25, 75.25)


def test_it_ends_when_every_interval_is_narrow_enough_and_not_before_the_least_blocks(tmp_path: Path) -> None:
    manifest = wanted(stop=Stop(precision=0.05, min_blocks=10))
    assert reason_of(run_of(tmp_path / "9", manifest, trials=18, duration=NARROW)) is None
    assert reason_of(run_of(tmp_path / "10", manifest, trials=20, duration=NARROW)) == "precision reached"


def test_damaged_prices_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"run\.json is damaged: Object missing required field `\w+` of prices"):
        reason_of(run_of(tmp_path, wanted(stop=Stop(), prices={}), trials=20))


def test_one_wide_cell_keeps_it_going(tmp_path: Path) -> None:
    store = run_of(tmp_path, wanted(stop=Stop()), trials=40, duration=WIDE)
    rule = StoppingRule(store, spends=False, now_s=lambda: BEGAN_S)
    assert rule.reason() is None
    assert rule.standing == "widest interval ±24.9% of ±5.0% (python SMALL)"


@pytest.mark.parametrize(("precision", "ended"), [(0.0401, True), (0.0399, False)])
def test_the_further_end_of_the_interval_counts(tmp_path: Path, precision: float, ended: bool) -> None:
    # of 10 the interval is the 2nd to the 9th: 99.25 and 104.25 around 100.25
    warm = spread(100.25, 100.25, 100.25, 100.25, 100.25, 100.25, 99.25, 99.25, 104.26, 104.26)
    store = run_of(tmp_path, wanted(stop=Stop(precision=precision)), trials=20, duration=warm)
    assert (reason_of(store) == "precision reached") is ended


def test_it_is_never_asked_inside_a_block_nor_before_the_first(tmp_path: Path) -> None:
    manifest = wanted(stop=Stop(), caps=Caps(minutes=0.5, attempts=1, samples=1))
    assert reason_of(run_of(tmp_path / "none", manifest, trials=0)) is None
    assert reason_of(run_of(tmp_path / "inside", manifest, trials=21)) is None
    assert reason_of(run_of(tmp_path / "whole", manifest, trials=22)) is not None


def test_a_block_with_a_missing_report_does_not_count_until_it_is_found(tmp_path: Path) -> None:
    store = run_of(tmp_path, wanted(stop=Stop()), trials=20)
    file = store.folder / "platform.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    assert "REPORT" in lines[-1]
    file.write_text("".join(lines[:-1]))
    assert reason_of(store) is None
    file.write_text("".join(lines))
    assert reason_of(store) == "precision reached"


def test_invalid_samples_do_not_count(tmp_path: Path) -> None:
    manifest = wanted(stop=Stop())
    store = run_of(tmp_path, manifest, trials=22)
    results = store.trials()
    spoiled = [msgspec.structs.replace(r, reason="99 of 100 items are in the table") for r in results[:2]]
    (store.folder / "trials.jsonl").unlink()
    for result in (*spoiled, *results[2:-2]):
        store.append_trial(result)
    assert reason_of(store) is None, "ten blocks, nine samples"
    for result in results[-2:]:
        store.append_trial(result)
    assert reason_of(store) == "precision reached"


# caps


def test_without_a_rule_and_without_caps_it_ends_at_the_default_ceilings_only(tmp_path: Path) -> None:
    store = run_of(tmp_path / "cheap", wanted(), trials=40)
    assert reason_of(store, spends=True, after_minutes=MOST_MINUTES - 1) is None
    assert reason_of(store, after_minutes=MOST_MINUTES) == "minutes cap"
    dear = wanted()
    sqs: Any = dear.prices["sqs"]
    prices = dear.prices | {"sqs": sqs | {"usd_per_million_requests": "1000000"}}
    store = run_of(tmp_path / "dear", msgspec.structs.replace(dear, prices=prices), trials=40)
    assert reason_of(store, spends=True) == "usd cap"
    assert reason_of(store, spends=False) is None, "a local run costs nothing"


def test_a_cap_of_the_protocol_takes_the_place_of_the_default(tmp_path: Path) -> None:
    longer = run_of(tmp_path, wanted(caps=Caps(minutes=MOST_MINUTES * 2)), trials=40)
    assert reason_of(longer, after_minutes=MOST_MINUTES + 1) is None


@pytest.mark.parametrize(
    ("caps", "trials", "reason"),
    [
        (Caps(samples=7), 12, None),
        (Caps(samples=7), 14, "samples cap"),
        (Caps(attempts=7), 12, None),
        (Caps(attempts=7), 14, "attempts cap"),
        (Caps(minutes=1.01), 14, None),
        (Caps(minutes=0.99), 14, "minutes cap"),
    ],
)
def test_a_cap(tmp_path: Path, caps: Caps, trials: int, reason: str | None) -> None:
    assert reason_of(run_of(tmp_path, wanted(stop=Stop(), caps=caps), trials=trials, duration=WIDE)) == reason


def test_attempts_count_what_samples_do_not(tmp_path: Path) -> None:
    store = run_of(tmp_path, wanted(caps=Caps(samples=3, attempts=4)), trials=6)
    for result in store.trials()[:2]:
        store.append_trial(msgspec.structs.replace(result, batch_id=result.batch_id + ":2"))
    assert reason_of(store) == "attempts cap", "three trials of each cell, and one of each again"


def test_precision_comes_before_a_cap_that_is_reached_as_well(tmp_path: Path) -> None:
    manifest = wanted(stop=Stop(), caps=Caps(attempts=10, minutes=0.1, samples=10))
    assert reason_of(run_of(tmp_path, manifest, trials=20)) == "precision reached"


def test_money_is_not_spent_beyond_its_cap_and_counts_only_where_it_is_spent(tmp_path: Path) -> None:
    def after(blocks: int, usd: str) -> str | None:
        manifest = wanted(caps=Caps(usd=Decimal(usd)))
        return reason_of(run_of(tmp_path / f"{blocks}-{usd}", manifest, trials=2 * blocks), spends=True)

    # A block: 101 x 2 write units, two requests and a few ms; 0.000129 USD, and some more for the lab's own requests.
    assert after(2, "0.001") is None
    assert after(5, "0.001") is None
    assert after(8, "0.001") == "usd cap", "a ninth block would cost more than is left"
    store = run_of(tmp_path / "local", wanted(caps=Caps(usd=Decimal("0.001"))), trials=20)
    assert reason_of(store, spends=False) is None


def test_what_is_not_known_yet_is_taken_to_cost_the_most(tmp_path: Path) -> None:
    store = run_of(tmp_path, wanted(caps=Caps(usd=Decimal("0.002"))), trials=4)
    assert reason_of(store, spends=True) is None
    (store.folder / "platform.jsonl").unlink()  # 300 s at 128 MB: 0.0006 USD each
    assert reason_of(store, spends=True) == "usd cap"


def test_a_batch_that_is_not_known_yet_is_taken_to_cost_the_most_of_all_its_messages() -> None:
    manifest = make_manifest(factors=Factors(language=("go",), batch_size=(5,)))
    results = [make_result(trial, messages=5) for trial in make_trials(manifest)]
    spent, _ = spent_usd(manifest, results, join(manifest, results, observe([]), PRICES), PRICES, BEGAN_S)
    one, hundred = manifest.protocol.loads
    of_go = manifest.functions["go"]
    batches = most_usd(PRICES, of_go, one, messages=5) + most_usd(PRICES, of_go, hundred, messages=5)
    assert spent == batches + lab_use([one] * 5 + [hundred] * 5, blocks=1, minutes=0, queues=1).usd(PRICES)


def test_the_time_of_an_interruption_is_left_out() -> None:
    manifest = msgspec.structs.replace(wanted(), resumed_at=("2026-11-21T12:00:00.000+00:00",))
    results = [make_result(trial) for trial in make_trials(manifest)[:3]]  # to 21 s after the beginning
    two_hours_and_a_minute = BEGAN_S + 2 * 3600 + 60
    assert minutes_under_way(manifest, results, two_hours_and_a_minute) == pytest.approx(81 / 60)


# the whole of it


class Run:
    """A run on a fake target, as the command line executes it."""

    def __init__(self, folder: Path, manifest: MessageManifest) -> None:
        self.target = FakeTarget()
        now = msgspec.structs.replace(manifest, started_at=datetime.now(UTC).isoformat(), cpu_limit="unknown")
        self.store = RunDirectory.create(folder, now)
        self.told: list[str] = []

    def go(self) -> Summary:
        execute(self.target, self.store, lambda _: None, self.told.append)
        return conclude(self.store)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "EMPTY_QUEUE_WAIT_S", 0.05)
    monkeypatch.setattr(runner, "LEAST_LOG_WAIT_S", 0.001)


def blocks_of(results: Sequence[TrialResult]) -> list[int]:
    return sorted({result.trial.block for result in results})


def test_a_run_that_is_precise_enough_ends_there_and_is_complete(tmp_path: Path) -> None:
    run = Run(tmp_path, wanted(stop=Stop(min_blocks=7)))
    summary = run.go()
    assert (summary.stopped, summary.blocks, summary.faults) == ("precision reached", 7, ())
    assert (summary.trials_planned, summary.trials_done, summary.items_expected) == (14, 14, 7 * 101)
    assert not any("target not reached" in caution for caution in summary.cautions)
    assert blocks_of(run.store.trials()) == [*range(1, 8)]
    assert run.store.manifest().stopped == "precision reached"
    assert run.told[-1] == "widest interval ±0.0% of ±5.0% (python WARMUP)"
    assert trials_left(run.store) == []

    resume_run(run.target, run.store)
    run.target.calls.clear()
    assert run.go() == summary
    assert not any(call.startswith("send") for call in run.target.calls)


def test_a_run_that_ends_at_a_cap_says_that_its_target_was_not_reached(tmp_path: Path) -> None:
    run = Run(tmp_path, wanted(stop=Stop(), caps=Caps(attempts=4)))
    summary = run.go()
    assert (summary.stopped, summary.blocks, summary.faults) == ("attempts cap", 4, ())
    assert "target not reached: 2 cells have no interval (ended by: attempts cap)" in summary.cautions


def test_a_run_that_does_all_its_blocks(tmp_path: Path) -> None:
    assert Run(tmp_path / "a", wanted(blocks=2)).go().stopped == "all blocks done"
    assert Run(tmp_path / "b", wanted(blocks=6, stop=Stop(min_blocks=7))).go().stopped == "blocks cap"
    assert Run(tmp_path / "c", wanted(blocks=6, stop=Stop(min_blocks=6))).go().stopped == "precision reached"


def test_an_interrupted_run_goes_on_to_its_stop_and_with_the_same_order(tmp_path: Path) -> None:
    run = Run(tmp_path / "one", wanted(stop=Stop(min_blocks=7)))
    run.target.faults["send python 8"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run.go()
    interrupted = conclude(run.store)
    assert interrupted.stopped is None
    assert interrupted.faults == ("interrupted after 7 trials, before its stop rule ended it",)
    run.target.faults.clear()
    resume_run(run.target, run.store)
    assert run.go().stopped == "precision reached"
    whole = Run(tmp_path / "two", wanted(stop=Stop(min_blocks=7)))
    whole.go()
    last = {result.trial.trial_id: result.trial for result in run.store.trials()}
    assert list(last.values()) == [result.trial for result in whole.store.trials()]


def test_at_the_stop_the_interval_holds_the_median_a_little_less_often_than_asked() -> None:
    """By simulation, seeded: log-normal times with a CV of 15 %; docs/method.md gives the figure."""
    ends = {n: median_estimate([float(rank) for rank in range(1, n + 1)], 0.95) for n in range(10, 201)}
    draw = random.Random(2026)
    sigma = math.sqrt(math.log1p(0.15**2))
    held = 0
    for _ in range(1000):
        ordered = sorted(draw.lognormvariate(0, sigma) for _ in range(9))
        for n in range(10, 201):
            insort(ordered, draw.lognormvariate(0, sigma))
            assert ends[n].low is not None
            rank = int(ends[n].low or 0)
            low, high = ordered[rank - 1], ordered[-rank]
            found = msgspec.structs.replace(ends[n], median=statistics.median(ordered), low=low, high=high)
            if (found.relative_width or 1) <= 0.05:
                break
        held += low <= 1 <= high
    assert 0.90 <= held / 1000 <= 0.95
