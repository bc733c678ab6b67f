"""The first lines of a report: of two arms, of many, of one, of builds and of runs that decide nothing."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
from samples import PRICES, make_lines, make_manifest, make_report, make_results, record_line

from lambdalab.analysis.bill import Terms, bill_of_run
from lambdalab.analysis.message_analysis import Summary, summarise
from lambdalab.analysis.message_rows import join
from lambdalab.design.arms import Arm, Factors, Mode
from lambdalab.logs.observations import observe
from lambdalab.logs.platform_lines import render_report
from lambdalab.report.answer import answer_lines, gate_line

Factor = Callable[[Arm], float]


def run(factor: Factor, *, blocks: int = 10, **changes: Any) -> Summary:
    """A run in which an arm takes so many times 100 ms, and a little more in every block."""
    manifest = make_manifest(blocks=blocks, **changes)
    results = make_results(manifest)
    arms = {arm.name: arm for arm in manifest.protocol.arms}
    lines = []
    for result in results:
        cold = result.trial.load.start == "cold"
        ms = round(100 * factor(arms[result.trial.arm]) + 0.1 * result.trial.block, 2)
        init_ms = 500.0 if cold else None
        report = make_report(result, duration_ms=ms, init_ms=init_ms, billed_ms=-int(-(ms + (init_ms or 0)) // 1))
        language = arms[result.trial.arm].language
        lines += make_lines(result, record_line(result, lang=language), render_report(report))
    rows = join(manifest, results, observe(lines), PRICES)
    return summarise(manifest, results, rows, bill=bill_of_run(manifest, results, rows, PRICES, Terms()))


def told(summary: Summary) -> dict[str, str]:
    return dict([*gate_line(summary), *answer_lines(summary)])


def test_two_languages() -> None:
    lines = told(run(lambda arm: 4 if arm.language == "python" else 1))
    assert list(lines) == ["Warm work", "First invocation", "Cost", "Cold start", "Memory", "Not known yet"]
    assert lines["Warm work"] == "Go is 4.0x faster than Python (SMALL 101 ms against 401 ms)."
    assert lines["Cost"] == "Go and Python are the same within 2.5% for SMALL; DynamoDB is 98% to 99% of both."
    assert lines["Memory"] == "peak 56 MB for Python and 56 MB for Go, of 128 MB."


def test_a_local_init_is_said_with_what_is_missing_and_its_ratio_never() -> None:
    here = told(run(lambda _: 1))["Cold start"]
    assert here.startswith("Init 500 ms for Python and 500 ms for Go. Lambda's own part of Init is missing here (a Go ")
    there = told(run(lambda _: 1, target="aws", cpu_limit="AWS Lambda"))
    assert there["Cold start"] == "Init 500 ms for Python and 500 ms for Go."
    assert "Not known yet" not in there


def test_a_small_difference_is_a_percentage() -> None:
    lines = told(run(lambda arm: 1.2 if arm.language == "python" else 1))
    assert lines["Warm work"] == "Python takes 20% longer than Go (SMALL 101 ms against 121 ms)."


def test_builds_begin_with_the_verdict() -> None:
    builds = Factors(language=("python",), build=("baseline", "candidate"))
    lines = told(run(lambda arm: 39 if arm.build == "candidate" else 1, factors=builds))
    assert next(iter(lines)) == "Verdict"
    assert lines["Verdict"].startswith("regression: python-candidate has 38.")
    assert lines["Warm work"] == (
        "python-candidate takes 39x as long as python-baseline (SMALL 101 ms against 3.90 s): regression."
    )
    better = told(run(lambda arm: 0.5 if arm.build == "candidate" else 1, factors=builds))
    assert better["Warm work"].endswith(
        "python-candidate is 2.0x faster than python-baseline (SMALL 51 ms against 101 ms): improvement."
    )


def test_one_arm_and_many_arms_are_told_without_a_comparison() -> None:
    assert told(run(lambda _: 1, arms=("go",)))["Warm work"] == "Go SMALL 101 ms."
    modes = Factors(language=("python", "go"), mode=tuple(Mode))
    speed = {Mode.SEQUENTIAL: 4, Mode.CONCURRENT: 2, Mode.BATCH: 1}
    lines = told(run(lambda arm: speed[arm.mode] * (2 if arm.language == "python" else 1), blocks=2, factors=modes))
    assert lines["Warm work"] == "SMALL: go-batch is fastest (100 ms), python-sequential slowest (800 ms)."
    assert lines["Cold start"].startswith("Init from 500 ms for ")


def test_too_few_blocks_claim_nothing_and_say_how_many_would() -> None:
    lines = told(run(lambda arm: 4 if arm.language == "python" else 1, blocks=7))
    assert lines["Warm work"] == "too few blocks to compare Go and Python for SMALL."
    assert "what is inconclusive (about 8 blocks would decide)" in lines["Not known yet"]


def test_a_run_that_must_not_be_used_and_one_without_money_say_nothing_of_it() -> None:
    summary = run(lambda _: 1)
    assert told(msgspec.structs.replace(summary, faults=("broken",))) == {}
    unpriced = msgspec.structs.replace(summary.answer, shares=(), costs=())
    assert "Cost" not in told(msgspec.structs.replace(summary, answer=unpriced))


def test_levels_are_of_a_message() -> None:
    batches = run(lambda _: 1, arms=("go",))
    (level,) = batches.answer.levels
    cost = next(cell.cost_per_execution_usd for cell in batches.cells if cell.label == "SMALL")
    assert level.usd_per_million == float((cost or Decimal(0)) * 1_000_000)
