"""From rows to the summary: every number, every caution, every fault."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from samples import (
    LOADS,
    PRICES,
    make_facts,
    make_lines,
    make_manifest,
    make_report,
    make_result,
    make_results,
    make_trials,
    record_line,
)

from lambdalab.analysis.message_analysis import Cell, Summary, summarise
from lambdalab.analysis.message_rows import join
from lambdalab.design.arms import Factors, Start
from lambdalab.logs.observations import observe
from lambdalab.logs.platform_lines import render_report
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trials import LogLine, Trial, TrialResult
from lambdalab.statistics.comparison import Metric, Verdict


def summary_of(
    manifest: MessageManifest, results: list[TrialResult], lines: list[LogLine] | None = None, **options: Any
) -> Summary:
    logged = [line for result in results for line in make_lines(result)] if lines is None else lines
    rows = join(manifest, results, observe(logged), PRICES)
    return summarise(manifest, results, rows, **options)


def good_run(manifest: MessageManifest) -> Summary:
    return summary_of(manifest, make_results(manifest))


def lines_with_duration(result: TrialResult, duration_ms: float) -> list[LogLine]:
    report = make_report(result, duration_ms=duration_ms, billed_ms=int(duration_ms) + 1, init_ms=None)
    return make_lines(result, record_line(result, cold_start=False), render_report(report))


def run_with_durations(manifest: MessageManifest, duration_ms: Callable[[Trial], float]) -> Summary:
    """A run whose warm trials took so long."""
    results = make_results(manifest)
    lines: list[LogLine] = []
    for result in results:
        warm = result.trial.load.start is Start.WARM
        lines += lines_with_duration(result, duration_ms(result.trial)) if warm else make_lines(result)
    return summary_of(manifest, results, lines)


def cell_of(summary: Summary, arm: str, label: str) -> Cell:
    return next(cell for cell in summary.cells if (cell.arm, cell.label) == (arm, label))


def test_a_good_run() -> None:
    summary = good_run(make_manifest(blocks=6))
    assert (summary.trials_done, summary.trials_planned) == (24, 24)
    assert (summary.reports_found, summary.reports_expected) == (24, 24)
    assert (summary.items_found, summary.items_expected) == (6 * 2 * 101, 6 * 2 * 101)
    assert (summary.rows_valid, summary.rows_total, summary.rows_repeated) == (24, 24, 0)
    assert (summary.memory_mb, summary.architecture, summary.level) == ((128,), ("x86_64",), 0.95)
    assert summary.invalid_reasons == {}
    assert summary.faults == ()
    assert summary.cautions == ("local times: they describe this machine and are not comparable with AWS times",)
    assert [(cell.label, cell.arm, cell.start, cell.n_valid) for cell in summary.cells] == [
        ("WARMUP", "python", "cold", 6),
        ("WARMUP", "go", "cold", 6),
        ("SMALL", "python", "warm", 6),
        ("SMALL", "go", "warm", 6),
    ]


def test_a_median_is_that_of_the_valid_samples_with_its_exact_interval() -> None:
    durations = [50.5, 10.5, 90.5, 20.5, 70.5, 30.5, 80.5, 40.5, 60.5, 1000.5]
    manifest = make_manifest(blocks=10, arms=("python",))

    cell = cell_of(run_with_durations(manifest, lambda trial: durations[trial.block - 1]), "python", "SMALL")

    assert cell.duration_ms is not None
    assert (cell.duration_ms.n, cell.duration_ms.median) == (10, 55.5)
    assert (cell.duration_ms.low, cell.duration_ms.high) == (20.5, 90.5), "the 2nd and the 9th of ten"
    assert (cell.duration_ms.minimum, cell.duration_ms.maximum) == (10.5, 1000.5), "nothing is trimmed"
    assert cell.billed_ms is not None
    assert cell.billed_ms.median == 56
    assert cell.init_ms is None
    assert (cell.max_memory_mb, cell.wru) == (56, 200.0)


@pytest.mark.parametrize(("blocks", "has_interval"), [(5, False), (6, True)])
def test_six_samples_are_the_fewest_with_an_interval(blocks: int, has_interval: bool) -> None:
    summary = good_run(make_manifest(blocks=blocks))
    for cell in summary.cells:
        assert cell.duration_ms is not None
        assert (cell.duration_ms.low is not None) is has_interval
        assert (cell.duration_ms.high is not None) is has_interval
    caution = "4 of 4 cells have fewer than 6 valid samples, so their medians have no 95% interval"
    assert (caution in summary.cautions) is not has_interval


def test_a_ratio_is_the_first_arm_over_each_other() -> None:
    durations = {"python": 300.5, "go": 100.25}
    summary = run_with_durations(make_manifest(arms=("python", "go")), lambda trial: durations[trial.arm])

    ratios = {(of.label, of.metric): of.ratio for of in summary.comparisons}
    assert {(of.arm, of.over) for of in summary.comparisons} == {("python", "go")}
    assert ratios["WARMUP", Metric.DURATION] == ratios["WARMUP", Metric.INIT] == 1
    assert ("SMALL", Metric.INIT) not in ratios
    assert ratios["SMALL", Metric.DURATION] == 300.5 / 100.25
    assert ratios["SMALL", Metric.BILLED] == 301 / 101
    python, go = cell_of(summary, "python", "SMALL"), cell_of(summary, "go", "SMALL")
    assert python.cost_per_execution_usd is not None
    assert go.cost_per_execution_usd is not None
    assert ratios["SMALL", Metric.COST] == float(python.cost_per_execution_usd) / float(go.cost_per_execution_usd)
    assert summary.verdict == ("inconclusive in all 4 comparisons; about 8 blocks would decide, there are 1")


def two_builds(factor: float, *, blocks: int = 10) -> Summary:
    """Of one function, the candidate that many times as slow, every block a little different."""
    manifest = make_manifest(blocks=blocks, factors=Factors(language=("python",), build=("baseline", "candidate")))
    factors = {"python-baseline": 1.0, "python-candidate": factor}
    return run_with_durations(manifest, lambda trial: round(100 * factors[trial.arm] + 0.1 * trial.block, 2))


def test_a_slower_build_is_a_regression_and_said_first() -> None:
    summary = two_builds(1.2)
    (found,) = [of for of in summary.comparisons if (of.label, of.metric) == ("SMALL", Metric.DURATION)]
    assert (found.arm, found.over, found.n_blocks) == ("python-candidate", "python-baseline", 10)
    assert found.verdict is Verdict.REGRESSION
    assert summary.verdict.startswith("regression: python-candidate has 1.1")
    assert "of python-baseline under SMALL (1.1" in summary.verdict


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "no change"), (0.8, "improvement")])
def test_an_equal_build_is_no_change_and_a_faster_one_an_improvement(factor: float, verdict: str) -> None:
    assert two_builds(factor).verdict.startswith(verdict)


def test_a_movement_over_the_run_is_seen_and_a_caution() -> None:
    manifest = make_manifest(blocks=10, arms=("go",))
    results = make_results(manifest)
    lines = [
        line
        for result in results
        for line in (
            make_lines(result)
            if result.trial.load.label == "WARMUP"
            else lines_with_duration(result, 100.5 + 10 * result.trial.block)
        )
    ]
    summary = summary_of(manifest, results, lines)
    cold, warm = summary.drift
    assert (cold.correlation, cold.halves) == (None, None), "nothing varies"
    assert warm.correlation == pytest.approx(1)
    assert warm.halves == 180.5 / 130.5
    caution = "go SMALL drifted: in the second half of the run 1.38 times the first, correlation with order 1.00"
    assert caution in summary.cautions


def test_the_median_of_a_cost_is_exact() -> None:
    summary = good_run(make_manifest(blocks=2, arms=("go",)))
    cost = cell_of(summary, "go", "SMALL").cost_per_execution_usd
    assert isinstance(cost, Decimal)
    assert cost > Decimal("0.000125")


def test_one_arm_has_no_comparison() -> None:
    summary = good_run(make_manifest(arms=("go",)))
    assert summary.comparisons == ()
    assert summary.verdict == "there are no two arms to compare"
    assert summary.faults == ()


def test_a_time_of_zero_is_no_division() -> None:
    manifest = make_manifest()
    results = make_results(manifest)
    lines = [line for result in results for line in lines_with_duration(result, 0.0)]
    summary = summary_of(manifest, results, lines)
    assert [of.ratio for of in summary.comparisons if of.metric is Metric.DURATION] == [None, None]


def test_a_run_of_which_nothing_was_measured() -> None:
    summary = summary_of(make_manifest(), [])
    assert all(cell.duration_ms is None and cell.cost_per_item_usd is None for cell in summary.cells)
    assert {(of.ratio, of.verdict) for of in summary.comparisons} == {
        (None, Verdict.INCONCLUSIVE),
        (None, Verdict.NOT_JUDGED),
    }
    assert summary.faults == (
        "only 0 of 4 trials were run",
        "no valid sample of python WARMUP, go WARMUP, python SMALL, go SMALL",
    )


# cautions


@pytest.mark.parametrize(
    ("changes", "caution"),
    [
        (
            {"target": "local"},
            "local times: they describe this machine and are not comparable with AWS times",
        ),
        (
            {"target": "aws", "cpu_limit": "unknown", "endpoint": "http://127.0.0.1:1"},
            "http://127.0.0.1:1 is not AWS: the times are of what answers there, not of Lambda",
        ),
        (
            {"cpu_limit": "none"},
            (
                "cpu_limit: none - functions get whole cores and all memory, so times do not depend on the memory "
                "size; run as root, or with `systemd-run --user --scope -p Delegate=yes` under cgroup v2; "
                "`lambdalab doctor` says why nothing limits them"
            ),
        ),
        (
            {"cpu_limit": "cgroup v2", "cpu_scale": 0.5},
            "cpu scale 0.5: every function had that many times the CPU its memory gives it",
        ),
        (
            {"cpu_limit": "none", "cpu_scale": 2.0},
            "cpu scale 2 had no effect: there was no CPU limit to scale",
        ),
        (
            {"functions": {"python": make_facts("python", runtime="python3.11"), "go": make_facts("go")}},
            "python ran on python3.11; the template's default is python3.12",
        ),
        (
            {"functions": {"python": make_facts("python"), "go": make_facts("go", reserved_concurrency=None)}},
            "go ran with batch size 1 and reserved concurrency unset; one message at a time needs 1 and 1",
        ),
        (
            {"functions": {"python": make_facts("python", batch_size=10), "go": make_facts("go")}},
            "python ran with batch size 10 and reserved concurrency 1; one message at a time needs 1 and 1",
        ),
        (
            {
                "factors": Factors(language=("go",), batch_size=(5,)),
                "functions": {"go": make_facts("go", batch_size=5, reserved_concurrency=2)},
            },
            "go ran with batch size 5 and reserved concurrency 2; one batch of 5 messages at a time needs 5 and 1",
        ),
    ],
)
def test_cautions_of_the_place(changes: dict[str, Any], caution: str) -> None:
    assert caution in good_run(make_manifest(blocks=6, **changes)).cautions


def test_a_run_with_batches_is_good_and_expects_the_items_of_all_their_messages() -> None:
    manifest = make_manifest(blocks=6, factors=Factors(language=("go",), batch_size=(1, 5)))
    messages = {arm.name: arm.messages for arm in manifest.protocol.arms}
    results = [
        make_result(trial, messages=(n := messages[trial.arm]), items_found=n * trial.load.count)
        for trial in make_trials(manifest)
    ]
    summary = summary_of(manifest, results)
    assert (summary.items_found, summary.items_expected, summary.reports_found) == (6 * 6 * 101, 6 * 6 * 101, 24)
    assert (summary.rows_valid, summary.rows_total, summary.faults) == (24, 24, ())
    assert len(summary.cautions) == 1, "only that it is local"
    assert summary.verdict == "there are no two arms to compare", "batches of another size are other work"


def test_a_run_on_aws_itself_needs_no_caution() -> None:
    assert good_run(make_manifest(blocks=6, target="aws", cpu_limit="AWS Lambda")).cautions == ()


def test_a_sample_that_is_not_valid_is_a_caution_and_counts_in_no_statistic() -> None:
    manifest = make_manifest(blocks=7)
    results = make_results(manifest)
    bad = results[-1]
    lines = [line for result in results[:-1] for line in make_lines(result)]
    lines += make_lines(bad, record_line(bad, receive_count=2), render_report(make_report(bad, duration_ms=9e6)))
    summary = summary_of(manifest, results, lines)

    assert "1 of 28 samples are not valid" in summary.cautions
    (reason,) = summary.invalid_reasons
    assert reason.endswith("received 2 times")
    assert summary.faults == ()
    cell = cell_of(summary, bad.trial.arm, "SMALL")
    assert (cell.n_valid, cell.n_total) == (6, 7)
    assert cell.duration_ms is not None
    assert cell.duration_ms.maximum == 15.74


@pytest.mark.parametrize("with_record", [True, False])
def test_a_report_that_was_not_found_is_said(with_record: bool) -> None:
    manifest = make_manifest(blocks=7)
    results = make_results(manifest)
    lines = [line for result in results[:-1] for line in make_lines(result)]
    lines += make_lines(results[-1], record_line(results[-1])) if with_record else []
    summary = summary_of(manifest, results, lines)
    assert "only 27 of 28 REPORT lines were found" in summary.cautions
    assert summary.faults == (), "the cell has enough others"


def test_damaged_lines_are_said() -> None:
    manifest = make_manifest()
    results = make_results(manifest)
    summary = summary_of(manifest, results, damaged_lines=3)
    assert "3 log lines are damaged and could not be read" in summary.cautions


# faults


def test_a_cell_without_a_valid_sample_is_a_fault() -> None:
    manifest = make_manifest(blocks=6)
    results = make_results(manifest)
    lines = [
        line
        for result in results
        for line in make_lines(result)
        if not (result.trial.arm == "go" and result.trial.load.label == "SMALL" and "REPORT" in line.message)
    ]
    assert summary_of(manifest, results, lines).faults == ("no valid sample of go SMALL",)


def test_items_that_are_missing_are_a_fault() -> None:
    manifest = make_manifest(blocks=6)
    results = make_results(manifest)
    results[5] = msgspec.structs.replace(results[5], items_found=99, reason="99 of 100 items are in the table")
    summary = summary_of(manifest, results)
    assert summary.faults == ("1211 of 1212 items are in the tables",)
    assert (summary.items_found, summary.items_expected) == (1211, 1212)


def unfinished(trial: Trial) -> TrialResult:
    return make_result(trial, message_id=None, drained_at_ms=None, items_found=None, reason="interrupted")


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_that_was_ended_early_is_a_fault(interrupted: bool) -> None:
    manifest = make_manifest(blocks=6)
    trials = make_trials(manifest)
    results = [make_result(trial) for trial in trials[:23]] + ([unfinished(trials[23])] if interrupted else [])
    summary = summary_of(manifest, results, [line for r in results[:23] for line in make_lines(r)])
    assert summary.faults == ("only 23 of 24 trials were run",)
    assert (summary.reports_found, summary.reports_expected) == (23, 23), "what was not sent is not expected"


def test_after_a_resumed_run_only_the_last_attempt_counts() -> None:
    manifest = make_manifest(blocks=6)
    trials = make_trials(manifest)
    first = [make_result(trials[0]), unfinished(trials[1])]
    second = [make_result(trial, attempt=2) for trial in trials[:2]] + [make_result(trial) for trial in trials[2:]]
    logged = [line for result in (first[0], *second) for line in make_lines(result)]
    summary = summary_of(manifest, [*first, *second], logged)
    assert summary.faults == ()
    assert (summary.trials_done, summary.reports_found, summary.reports_expected) == (24, 24, 24)
    assert (summary.rows_valid, summary.rows_total, summary.rows_repeated) == (24, 24, 2)
    assert summary.items_found == summary.items_expected
    assert {(cell.n_valid, cell.n_total) for cell in summary.cells} == {(6, 6)}
    assert summary.invalid_reasons == {}


def test_the_loads_of_the_samples_are_one_cold_and_one_warm() -> None:
    assert [load.start.value for load in LOADS] == ["cold", "warm"]
