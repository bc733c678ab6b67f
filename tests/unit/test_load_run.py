"""A load run is a run like any other: its rows, its cells, its comparisons, its report; by hand."""

from decimal import Decimal
from io import StringIO
from typing import Any

import msgspec
import pytest
from rich.console import Console
from sample_load import LOAD, RATES, make_load_manifest, make_load_page, make_load_run, make_message, make_sweep
from samples import (
    BEGAN_MS,
    PRICES,
    make_lines,
    make_manifest,
    make_report,
    make_result,
    make_trials,
    record_line,
)

from lambdalab.analysis.bill import Terms, bill_of_run
from lambdalab.analysis.books import ALL, balance
from lambdalab.analysis.message_analysis import summarise
from lambdalab.analysis.message_rows import NO_REPORT, join, missing_reports, read_run
from lambdalab.analysis.pairing import compare_arms, compare_runs, differences
from lambdalab.errors import UsageError
from lambdalab.load.messages import EndToEnd
from lambdalab.load.pipeline import Logs
from lambdalab.logs.observations import observe
from lambdalab.logs.platform_lines import render_report
from lambdalab.pricing.costs import ingested_bytes
from lambdalab.records.load import Ending
from lambdalab.records.trial_files import RunDirectory
from lambdalab.report.load import LoadChapter
from lambdalab.report.terminal import render
from lambdalab.run.experiment import trials_left
from lambdalab.statistics.comparison import Metric

RECORD: dict[str, Any] = {"count": 10, "written": 10, "consumed_wru": 20.0}


def test_an_invocation_is_valid_cold_or_warm_and_cold_ones_count_apart() -> None:
    summary, _, rows = make_load_run()
    assert all(row.valid for row in rows)
    cold = [row for row in rows if row.label == "TEN-cold"]
    assert sorted(row.arm for row in cold) == ["go", "python"]
    assert all(row.cold_start for row in cold)
    assert not any(row.cold_start for row in rows if row.label == "TEN")
    cells = {(cell.label, cell.arm): cell for cell in summary.cells}
    assert cells["TEN-cold", "go"].init_ms is not None
    assert cells["TEN", "go"].init_ms is None
    assert cells["TEN", "go"].n_total == sum(RATES) * 5 // 2 - 1
    assert summary.bill is not None
    assert all(cell.execution_usd is not None for cell in summary.bill.cells)
    assert (summary.trials_done, summary.trials_planned) == (140, 140)
    assert (summary.items_found, summary.items_expected) == (1400, 1400)
    assert summary.faults == ()


def test_an_invocation_that_left_no_record_belongs_to_no_message() -> None:
    """Where one message is sent at a time it belongs to the one under way; here many are."""
    manifest = make_load_manifest()
    trials, lines = make_sweep()
    silent = [make_lines(trials[0], render_report(msgspec.structs.replace(_report(), request_id="silent")))[0]]
    some = observe([line for line in lines if "message-0" not in line.event_id] + silent)
    rows = join(manifest, trials, some, PRICES)
    assert [(row.trial, row.request_id, row.reason) for row in rows if not row.valid] == [("0-0", None, NO_REPORT)]
    assert [r.batch_id for r in missing_reports(manifest, trials, observe(silent))] == [r.batch_id for r in trials]


def test_the_messages_of_an_invocation_share_its_cost() -> None:
    """Three messages in one invocation, sent ten with a request, and a fourth of another run among them."""
    load = {"shape": "steps", "batch_size": 10}
    manifest = msgspec.structs.replace(make_load_manifest(), load=load)
    trials = [make_message(number, "go", 1, BEGAN_MS) for number in range(3)]
    request_id = "request-of-message-0"
    records = [
        record_line(trials[0], request_id=request_id, batch_id=batch_id, **RECORD)
        for batch_id in (*(trial.batch_id for trial in trials), "of another run")
    ]
    report = make_report(trials[0], request_id=request_id, duration_ms=99.5, billed_ms=100)
    lines = make_lines(trials[0], *records, render_report(report))
    rows = join(manifest, trials, observe(lines), PRICES)

    assert [row.reason for row in rows] == ["one of 4 messages of its invocation"] * 3
    assert {(row.invocation_messages, row.billed_ms, row.request_id) for row in rows} == {(4, 100, request_id)}
    lambda_usd = Decimal("0.1") * Decimal("0.125") * PRICES.lambda_.usd_per_gb_s["x86_64"] + Decimal("0.0000002")
    logs_usd = Decimal(ingested_bytes(line.message for line in lines)) / 2**30 / 2
    slack = Decimal("1e-17")
    assert sum(row.cost_lambda_usd or 0 for row in rows) == pytest.approx(lambda_usd * 3 / 4, abs=slack)
    assert sum(row.cost_logs_usd or 0 for row in rows) == pytest.approx(logs_usd * 3 / 4, abs=slack)
    assert {row.cost_dynamodb_usd for row in rows} == {Decimal("0.0000125")}, "20 units of its own"
    per_request = Decimal("0.0000004")
    assert {row.cost_sqs_usd for row in rows} == {per_request / 10 + 2 * per_request / 4}
    bill = bill_of_run(manifest, trials, rows, PRICES, Terms())
    parts = lambda_usd + logs_usd + 4 * (per_request / 10 + 2 * per_request / 4 + Decimal("0.0000125"))
    assert bill.samples_usd == pytest.approx(parts * 3 / 4, abs=4 * slack)
    assert bill.assumptions[2] == "10 messages are sent with one request; each is received and deleted alone"

    logs = Logs({"/aws/lambda/lab-go": "x86_64"}, PRICES, EndToEnd(), sent_together=10)
    logs.add(lines)
    assert logs.cost_usd == pytest.approx(parts, abs=slack), "and so does the cost that is shown while it runs"


def test_what_invocations_without_a_record_cost_is_said(tmp_path: Any) -> None:
    manifest = make_load_manifest()
    store = RunDirectory.create(tmp_path, manifest)
    done, lost = (make_message(number, "go", 1, BEGAN_MS + number) for number in range(2))
    store.append_trials([done, lost])
    timeout = make_report(lost, duration_ms=300_000.0, billed_ms=300_000, status="timeout")
    store.append_log_lines([*make_lines(done), *make_lines(lost, render_report(timeout))])
    run = read_run(store)
    assert run.books is not None
    (said,) = [caution for caution in run.books.cautions if "no record" in caution]
    # 300 s x 0.125 GB x 0.0000166667, the request, and some bytes of log
    assert said == (
        "invocations that left no record, as after a timeout or a crash: 1; no row has them, nor the 0.000625 USD that "
        "they cost for compute, requests and logs"
    )
    assert said in summarise(manifest, run.trials, run.rows, books=run.books).cautions


def test_a_block_counts_once_in_a_comparison_however_many_messages_it_holds() -> None:
    summary, manifest, rows = make_load_run()
    found = {one.metric: one for one in summary.comparisons if one.label == "TEN"}
    assert found[Metric.DURATION].n_blocks == 15
    assert found[Metric.DURATION].ratio == pytest.approx(201.5 / 21.5)
    assert compare_runs((manifest, rows), (manifest, rows))[0].n_blocks == 15


def test_a_block_stands_for_the_median_of_its_messages() -> None:
    _, manifest, rows = make_load_run()
    durations = [10.0, 30.0, 90.0, 20.0, 20.0, 20.0]
    places = [("go", 1)] * 3 + [("python", 1)] * 3
    made = [
        msgspec.structs.replace(row, arm=arm, block=block, label="TEN", duration_ms=duration, valid=True)
        for row, (arm, block), duration in zip(rows, places, durations, strict=False)
    ]
    (found,) = (one for one in compare_arms(manifest, made) if (one.label, one.metric) == ("TEN", Metric.DURATION))
    assert (found.n_blocks, found.ratio) == (1, 20 / 30)


def test_runs_of_other_plans_are_unlike() -> None:
    one = make_load_manifest()
    assert list(differences(one, one)) == []
    other = msgspec.structs.replace(one, load={"shape": "steps", "rates": [5], "hold_s": 5, "seed": 3})
    assert list(differences(one, other)) == ["load plan: rates [4, 8, 16] and [5]"]
    strict = make_manifest(loads=one.protocol.loads)
    assert "load plan: shape steps and none" in list(differences(one, strict))


def test_a_run_without_its_books_says_that_it_has_none() -> None:
    manifest = msgspec.structs.replace(make_load_manifest(), stopped=None)
    assert summarise(manifest, [], []).faults == (
        "interrupted before its sender said that it had ended",
        "no message was sent",
    )


def test_strict_settings_are_warned_of(tmp_path: Any) -> None:
    summary, manifest, _ = make_load_run()  # its functions have reserved concurrency 1
    said = [caution for caution in summary.cautions if "reserved concurrency 1" in caution]
    assert len(said) == 2
    assert not any("one message at a time" in caution for caution in summary.cautions)
    store = RunDirectory.create(tmp_path, manifest)
    with pytest.raises(UsageError, match="is a load run, and those do not go on"):
        trials_left(store)


def test_the_chapter_says_where_each_arm_kept_up() -> None:
    summary, _, _ = make_load_run()
    assert summary.load is not None
    assert summary.load.knees == {ALL: 3, "go": None, "python": 3}
    said = list(LoadChapter(summary.load).sentences)
    assert said[0] == (
        "Sent 140 = processed 140 + dead-lettered 0 + still queued 0 + lost 0; items of the processed messages in the "
        "tables: 1,400 of 1,400; 0 duplicates."
    )
    assert said[1] == f"The queues were empty {(20_000 - 14_938.5) / 1000:.1f} s after the last message was sent."
    assert "Go: every step kept up." in said
    # python does one in 200 ms: of the 40 that come in the last 5 s, 25 are begun and 24 done
    assert (
        "Python: step 3 is above the knee: 8.00/s were offered, 4.80/s achieved, and 15 messages waited when it ended."
        in said
    )
    assert "The emulator had work for at most 30% of a step." in said
    assert [sentence for sentence in said if sentence.startswith("Limited by")] == [summary.load.limit.sentence]


def test_the_terminal_shows_the_books() -> None:
    console = Console(file=StringIO(), width=140)
    summary, _, _ = make_load_run()
    console.print(render(summary))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for expected in ("Books: every message", "Messages a second", "Times in ms by phase", "still queued", "drain"):
        assert expected in text


def test_the_page_has_a_chapter_on_the_load_and_nothing_that_holds_only_of_a_protocol() -> None:
    page = make_load_page()
    for expected in (
        '<section id="load"',
        "Offered, achieved and backlog, all arms",
        "pipeline.jsonl",
        "An open model",
    ):
        assert expected in page
    for wrong in ("One message at a time", "in random order", "started as its load demands"):
        assert wrong not in page
    assert LOAD.label in page


def test_a_run_that_lost_messages_is_invalid() -> None:
    manifest = make_load_manifest()
    trials, lines = make_sweep()
    gone = msgspec.structs.replace(trials[5], items_found=0)
    rows = join(manifest, trials, observe([line for line in lines if "message-5/" not in line.event_id]), PRICES)
    ending = Ending(drained_at_ms=BEGAN_MS + 20_000, queued={"python": 0, "go": 0}, dead_letters=())
    books = balance([*trials[:5], gone, *trials[6:]], rows, [], ending, manifest.functions)
    summary = summarise(manifest, trials, rows, books=books)
    assert summary.faults == ("1 of 140 messages are lost: neither processed nor in any queue",)


def _report() -> Any:
    return make_report(make_result(make_trials(make_manifest())[0]))
