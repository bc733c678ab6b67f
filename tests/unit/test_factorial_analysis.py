"""From calls as they came to rows, numbers and files; golden numbers by hand."""

import csv
import io
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from rich.console import Console
from sample_factorial import BATCH, EVENTS, RUN_ID, make_call, make_calls, make_function, make_manifest, make_run
from samples import BEGAN_MS, PRICES

from lambdalab.analysis.bill import Terms
from lambdalab.analysis.call_analysis import summarise
from lambdalab.analysis.call_rows import judge, read_calls
from lambdalab.analysis.call_summary import FactorialSummary
from lambdalab.design.cells import Cell, Design
from lambdalab.errors import LambdalabError, StorageError
from lambdalab.logs.platform_lines import FULL_MEMORY, INIT_APART
from lambdalab.planning.call_protocol import load_protocol
from lambdalab.records.calls import Call, CallRow
from lambdalab.records.manifest import CallManifest
from lambdalab.report.call_terminal import show
from lambdalab.run.call_conclusion import conclude
from lambdalab.scenario.found import call_scenario

SCENARIO = call_scenario("s3-ingest")
ONE = Design(
    label="events",
    invocations=3,
    factors={"language": ("go",), "memory_mb": (512,), "batch_events": (1, 100), "callers": (1, 2)},
    settings={"workload": "events", "event_bytes": 1024},
)
MANIFEST = make_manifest((ONE,), blocks=2)
CELL, *OTHERS = ONE.cells
HOSTILE = "<script>document.title='broken'</script>"


def call(number: int = 0, **changes: Any) -> Call:
    return make_call(ONE, CELL, call_id=f"b01-001-{number:04}", **{"block": 1, **changes})


def rows_of(*calls: Call, manifest: CallManifest = MANIFEST) -> list[CallRow]:
    return judge(manifest, calls, SCENARIO, PRICES)


def row_of(given: Call) -> CallRow:
    (row,) = rows_of(given)
    return row


def summary_of(*calls: Call, manifest: CallManifest = MANIFEST) -> FactorialSummary:
    return summarise(manifest, rows_of(*calls, manifest=manifest), SCENARIO, PRICES)


def with_tail(old: str, new: str) -> Call:
    good = call()
    assert good.log_tail is not None
    assert old in good.log_tail
    return msgspec.structs.replace(good, log_tail=good.log_tail.replace(old, new))


def test_a_good_call_has_what_lambda_and_the_function_say() -> None:
    row = row_of(call(latency_ms=40.0))
    assert (row.valid, row.reason) == (True, None)
    assert (row.duration_ms, row.billed_ms, row.init_ms, row.cold_start) == (48.0, 48, None, False)
    assert (row.memory_mb, row.max_memory_mb, row.language) == (512, 90, "go")
    assert row.levels == {"language": "go", "memory_mb": 512, "batch_events": 1, "callers": 1}
    assert row.measures["latency_ms"] == 40.0
    assert row.measures["object_bytes"] == 1024


def test_calls_as_a_real_stack_answered_them() -> None:
    """Of a run of the reduced protocol on the local stack: each language and workload, cold warm-up and warm call."""
    lines = (Path(__file__).parent / "factorial_calls.jsonl").read_bytes().splitlines()
    batch = msgspec.structs.replace(BATCH, factors={**BATCH.factors, "multipart_mb": (8, 16)})
    rows = rows_of(*(msgspec.json.decode(line, type=Call) for line in lines), manifest=make_manifest((EVENTS, batch)))
    # the first one's init took more than the 10 s that Lambda gives it, and was made again inside the call
    (reset,) = (row for row in rows if not row.valid)
    assert reset.reason == "initialised inside the invocation, after a reset"
    assert (reset.warmup, reset.cold_start) == (True, False)
    rows.remove(reset)
    summary = summarise(make_manifest((EVENTS, batch)), [reset, *rows], SCENARIO, PRICES)
    assert "1 of 4 warm-up calls are not valid; metrics.csv says why" in summary.cautions
    assert [row.reason for row in rows] == [None] * 7
    assert {(row.design, row.language, row.cold_start) for row in rows} == {
        (design, language, cold)
        for design in ("events", "batch")
        for language in ("python", "go")
        for cold in (True, False)
        if (design, language, cold) != ("events", "python", True)
    }
    for row in rows:
        assert row.cold_start is row.warmup
        assert (row.init_ms is not None) is row.warmup
        assert row.cost_total_usd is not None, "their logs are shorter than 4 KB"
        assert row.duration_ms is not None
        taken_ms = row.measures["latency_ms"]
        assert taken_ms is not None
        assert taken_ms < row.duration_ms < row.elapsed_ms


def test_what_a_call_costs_by_hand() -> None:
    """48 ms billed x 512 MB on x86; one PUT; 1,024 bytes for two of thirty days; the log, 26 bytes more a line."""
    given = call(latency_ms=40.0)
    row = row_of(given)
    assert given.log_tail is not None
    lines = given.log_tail.count("\n")
    assert lines == 4
    gb_s = Decimal("0.048") * 512 / 1024
    assert PRICES.s3 is not None
    expected = {
        "lambda": gb_s * PRICES.lambda_.usd_per_gb_s["x86_64"] + PRICES.lambda_.usd_per_million_requests / 10**6,
        "logs": Decimal(len(given.log_tail.encode()) + 26 * lines) / 2**30 * PRICES.logs.usd_per_gb,
        "requests": PRICES.s3.usd_per_million_puts / 10**6,
        "storage": Decimal(1024) / 2**30 * 2 / 30 * PRICES.s3.usd_per_gb_month,
    }
    for part, amount in row.costs_usd.items():
        assert amount is not None
        assert float(amount) == pytest.approx(float(expected[part]), abs=1e-18), part
    assert row.cost_total_usd == sum(amount for amount in row.costs_usd.values() if amount is not None)


def text_of(summary: FactorialSummary) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    show(summary, console)
    return console.export_text()


def test_a_month_of_a_cell_by_hand() -> None:
    """10 calls a second for 730 hours: 26,280,000 calls of 48 ms at 512 MB, by the price sheet of the tests."""
    terms = Terms(per_month=Decimal(10))
    rows = rows_of(call(latency_ms=40.0), call(1, latency_ms=40.0))
    month = summarise(MANIFEST, rows, SCENARIO, PRICES, terms=terms).month
    assert month is not None
    (cell,) = month.cells
    calls, gb_s = Decimal(26_280_000), Decimal("0.048") / 2
    price = PRICES.lambda_.usd_per_gb_s["x86_64"]
    assert cell.cell == CELL.name
    assert cell.usd["compute"] == calls * gb_s * price
    assert cell.usd["invocations"] == calls * PRICES.lambda_.usd_per_million_requests / 10**6
    for part in ("logs", "requests", "storage"):
        assert cell.usd[part] == calls * (rows[0].costs_usd[part] or 0), part
    assert cell.usd["custom metrics"] == SCENARIO.monthly_usd(PRICES, (ONE,))["custom metrics"]
    assert cell.total_usd == sum(amount for amount in cell.usd.values() if amount is not None)

    free = summarise(MANIFEST, rows, SCENARIO, PRICES, terms=Terms(per_month=Decimal(10), free_tier=True)).month
    assert free is not None
    assert free.cells[0].usd["compute"] == (calls * gb_s - PRICES.lambda_.free_gb_s) * price
    assert "the free tier of Lambda is unused and applied" in free.assumptions


def test_a_month_is_shown_with_its_sum_and_what_is_assumed(tmp_path: Path) -> None:
    store = make_run(tmp_path, MANIFEST, [call()])
    summary = conclude(store, SCENARIO, Terms(per_month=Decimal(10)))
    said = text_of(summary)
    assert "USD a month at 10 calls/s, by component" in said
    assert "assumed: 10 calls/s all through a month of 730 hours" in said
    assert summary.month is not None
    total = f"{summary.month.cells[0].total_usd:,.2f}"
    assert total in said
    assert total in (store.folder / "report.html").read_text()
    assert "a month at" not in text_of(conclude(store, SCENARIO))


def test_a_log_that_was_cut_has_an_unknown_cost_and_so_has_the_total() -> None:
    good = call()
    assert good.log_tail is not None
    row = row_of(msgspec.structs.replace(good, log_tail=good.log_tail.split("\n", 1)[1]))
    assert row.valid
    assert (row.costs_usd["logs"], row.cost_total_usd) == (None, None)
    assert row.costs_usd["lambda"] is not None


def test_a_cell_takes_means_by_component_and_says_of_how_many_the_log_is_unknown() -> None:
    good, whole = call(0, latency_ms=40.0), call(1, latency_ms=60.0)
    assert whole.log_tail is not None
    cut = msgspec.structs.replace(whole, sent_at_ms=BEGAN_MS + 100, log_tail=whole.log_tail.split("\n", 1)[1])
    one, two = rows_of(good, cut)
    cell = summary_of(good, cut).cells[0]
    assert two.costs_usd["logs"] is None
    assert one.costs_usd["logs"] is not None
    assert cell.million_usd["logs"] == one.costs_usd["logs"] * 10**6
    assert one.costs_usd["lambda"] is not None
    assert two.costs_usd["lambda"] is not None
    assert cell.million_usd["lambda"] == (one.costs_usd["lambda"] + two.costs_usd["lambda"]) * 10**6 / 2
    assert cell.million_total_usd == sum(amount for amount in cell.million_usd.values() if amount is not None)
    assert cell.usd_per_volume["events_generated"] == cell.million_total_usd, "one event in each call"
    assert any(
        said.startswith("1 of 2 valid calls logged more than the 4 KB") for said in summary_of(good, cut).cautions
    )


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            call(throttled=True, answer=msgspec.Raw(b"null"), log_tail=None, error="TooManyRequestsException"),
            "throttled: Lambda answered TooManyRequestsException",
        ),
        (call(error="interrupted: given up", answer=msgspec.Raw(b"null"), log_tail=None), "interrupted: given up"),
        (call(error="read timed out", answer=msgspec.Raw(b"null"), log_tail=None), "read timed out"),
        (call(log_tail=None), "no REPORT line was found"),
        (call(found=False), "what the function says it wrote is not there, or not as it says"),
        (call(function_error="Unhandled"), "the function failed: Unhandled"),
        (
            call(record={"ok": False, "error": {"code": "UploadFailed", "message": "AccessDenied"}, "failed": 1}),
            "UploadFailed: AccessDenied",
        ),
        (
            with_tail("\tMax Memory Used: 90 MB", "\tMax Memory Used: 90 MB\tStatus: timeout"),
            "ended with status timeout",
        ),
        (with_tail("Billed Duration: 60 ms", "Billed Duration: 70 ms"), "the REPORT line is no measurement: Billed "),
        (with_tail("Memory Size: 512 MB", "Memory Size: much"), "Memory Size is 'much', in "),
        (call(answer=msgspec.Raw(b'"done"')), "the answer is none of this scenario: "),
        (call(record={"workload": "turbo"}), "its answer says workload 'turbo' where events was asked"),
        (call(record={"lang": "perl", "batch_events": 7}), "its answer says batch_events '7' where 1 was asked; its"),
    ],
)
def test_a_call_that_does_not_count_says_why_and_stays(given: Call, reason: str) -> None:
    row = row_of(given)
    assert not row.valid
    assert row.reason is not None
    assert row.reason.startswith(reason)


def test_cautions_are_those_of_every_kind_of_run() -> None:
    python = msgspec.structs.replace(make_function("python"), runtime="python3.11")
    functions = {"python": python, "go": make_function("go")}
    runtimes = {"python": "python3.12", "go": "provided.al2023"}
    manifest = msgspec.structs.replace(MANIFEST, functions=functions, template_runtimes=runtimes)
    cautions = summary_of(call(), manifest=manifest).cautions
    assert "python ran on python3.11; the template's default is python3.12" in cautions
    assert f"1 of {len(ONE.cells)} cells have fewer than 6 valid samples, so their medians have no 95% interval" in (
        cautions
    )
    six = [call(number, sent_at_ms=BEGAN_MS + number) for number in range(6)]
    assert not any("fewer than" in said for said in summary_of(*six, manifest=manifest).cautions)


def test_another_requests_report_is_not_taken() -> None:
    good = call()
    other = call(7)
    assert row_of(msgspec.structs.replace(good, log_tail=other.log_tail)).reason == "no REPORT line was found"


def test_two_reports_of_one_request_are_refused() -> None:
    good = call()
    assert good.log_tail is not None
    row = row_of(msgspec.structs.replace(good, log_tail=good.log_tail + good.log_tail))
    assert row.reason == "2 REPORT lines for one request"


def test_full_memory_counts_unless_an_emulator_wrote_for_the_function() -> None:
    full = with_tail("Max Memory Used: 90 MB", "Max Memory Used: 512 MB")
    assert (row_of(full).valid, row_of(full).max_memory_mb) == (True, 512)
    emulated = call(1, block=2)
    assert emulated.log_tail is not None
    tail = emulated.log_tail.replace("\tDuration", "\tInit Duration: 1.00 ms\tDuration")
    rows = rows_of(full, msgspec.structs.replace(emulated, log_tail=tail))
    assert [row.valid for row in rows] == [False, False]
    assert {row.call_id: row.reason for row in rows}[
        full.call_id
    ] == f"the REPORT line is no measurement: {FULL_MEMORY}"


def test_provisioned_concurrency_is_shown_and_not_priced() -> None:
    first = with_tail(" MB\t\n", " MB\tInit Duration: 130.49 ms\t\n")
    warm = call(1, block=2)
    rows = rows_of(first, warm)
    assert [row.reason for row in rows] == [f"the REPORT line is not priced: {INIT_APART}"] * 2
    assert [(row.init_ms, row.costs_usd["lambda"]) for row in rows] == [(130.49, None), (None, None)]
    assert rows[0].duration_ms == rows[1].duration_ms


def test_a_call_made_again_counts_once_and_both_stay() -> None:
    lost = call(0, error="interrupted", answer=msgspec.Raw(b"null"), log_tail=None)
    again = call(0, attempt=2, sent_at_ms=BEGAN_MS + 5000)
    summary = summary_of(lost, again)
    first, second = rows_of(lost, again)
    assert first.reason == "repeated after an interruption; interrupted"
    assert second.valid
    assert (summary.calls_made, summary.rows_repeated) == (1, 1)
    assert summary.cells[0].calls == 1


def test_throughput_is_over_the_wall_time_of_the_cell_in_the_block() -> None:
    """Block 1: two callers side by side, 3 valid of 4 calls in 200 ms; block 2: one call in 50 ms; no warm-ups."""
    cell = OTHERS[-1]
    assert (cell.levels["batch_events"], cell.callers) == (100, 2)

    def of(number: int, block: int, at_ms: int, **changes: Any) -> Call:
        made = make_call(ONE, cell, call_id=f"b{block:02}-001-{number:04}", block=block, sent_at_ms=BEGAN_MS + at_ms)
        return msgspec.structs.replace(made, **changes)

    calls = [
        of(0, 1, -900, warmup=True, elapsed_ms=800),
        of(1, 1, 0, elapsed_ms=100),
        of(2, 1, 0, elapsed_ms=150),
        of(3, 1, 100, elapsed_ms=100),
        of(4, 1, 150, elapsed_ms=20, throttled=True, answer=msgspec.Raw(b"null"), log_tail=None),
        of(5, 2, 10_000, elapsed_ms=50),
    ]
    found = summary_of(*calls).cells[-1]
    assert (found.calls, found.valid, found.throttled, found.failed) == (5, 4, 1, 1)
    per_s = {measure: (one.n, one.minimum, one.maximum, one.median) for measure, one in found.rates.items()}
    assert per_s["objects_per_s"] == pytest.approx((2, 15, 20, 17.5))
    assert per_s["events_generated_per_s"] == pytest.approx((2, 1500, 2000, 1750))
    size = 100 * 1025 - 1
    assert per_s["object_bytes_per_s"] == pytest.approx((2, 15 * size / 2**20, 20 * size / 2**20, 17.5 * size / 2**20))
    # gone on with in the middle of block 1: its wall time holds the pause
    resumed = msgspec.structs.replace(MANIFEST, resumed_at=("2026-11-21T10:00:00.120+00:00",))
    assert summary_of(*calls, manifest=resumed).cells[-1].rates["objects_per_s"].n == 1
    assert found.sums["object_bytes"] == 4 * size


def test_throughput_of_the_default_protocol_can_follow_its_callers() -> None:
    """Every call takes 100 ms, however many there are at once: then so many callers do so many times as much."""
    designs = load_protocol("s3-ingest").designs
    calls = [
        msgspec.structs.replace(
            make_call(design, cell, call_id=f"{cell.name} {number}", block=1), elapsed_ms=100.0,
            sent_at_ms=BEGAN_MS + number // cell.callers * 100,
        )
        for design in designs
        for cell in design.cells
        for number in range(design.invocations)
    ]  # fmt: skip
    found = summary_of(*calls, manifest=make_manifest(designs, blocks=1))
    paces = {cell.name: cell.rates["objects_per_s"].median for cell in found.cells}
    for cell in (cell for design in designs for cell in design.cells):
        alone = Cell(design=cell.design, levels={**cell.levels, "callers": 1})
        assert paces[cell.name] / paces[alone.name] == pytest.approx(cell.callers), cell.name


def test_a_design_whose_callers_throughput_cannot_follow_is_a_caution() -> None:
    assert [said for said in summary_of(call()).cautions if said in ONE.cautions] == list(ONE.cautions)
    assert len(list(ONE.cautions)) == 2


def test_a_cell_whose_calls_take_no_time_has_no_rate() -> None:
    assert summary_of(call(elapsed_ms=0.0)).cells[0].rates == {}


def test_cold_calls_are_told_apart_and_in_no_time_of_the_cell() -> None:
    calls = [
        call(0, warmup=True, init_ms=180.0, latency_ms=90.0),
        call(1, init_ms=200.0, latency_ms=100.0),
        call(2, latency_ms=40.0),
    ]
    summary = summary_of(*calls)
    cell = summary.cells[0]
    assert (cell.calls, cell.valid, cell.warm, cell.cold) == (2, 2, 1, 2)
    assert cell.responses["latency_ms"].median == 40.0
    assert cell.init_ms is not None
    assert cell.init_ms.median == 190.0
    assert cell.init_and_first_ms is not None
    assert cell.init_and_first_ms.median == pytest.approx((180 + 105.5 + 200 + 117) / 2)
    assert any(said.startswith("1 calls met a cold start after the warm-up") for said in summary.cautions)


def test_a_warm_up_that_failed_is_no_cold_start_and_one_that_was_made_again_is() -> None:
    late = {"ok": False, "failed": 1, "error": {"code": "UploadFailed", "message": "timed out"}}
    calls = [
        call(0, warmup=True, init_ms=180.0, latency_ms=90.0),
        call(1, warmup=True, init_ms=400.0, latency_ms=60_000.0, record=late),
        call(2, warmup=True, init_ms=190.0, latency_ms=90.0),
        call(2, warmup=True, init_ms=200.0, latency_ms=90.0, attempt=2, sent_at_ms=BEGAN_MS + 5000),
        call(3, warmup=True, init_ms=400.0, latency_ms=60_000.0, record=late),
        call(3, warmup=True, init_ms=210.0, latency_ms=90.0, attempt=2, sent_at_ms=BEGAN_MS + 5000),
    ]
    cell = summary_of(*calls).cells[0]
    assert cell.cold == 4
    assert cell.init_ms is not None
    assert (cell.init_ms.median, cell.init_ms.maximum) == (195.0, 210.0)
    assert cell.init_and_first_ms is not None
    assert cell.init_and_first_ms.maximum == pytest.approx(210 + 105.5)


def test_percentiles_come_from_raw_rows_of_all_cells_that_are_pooled() -> None:
    """Two cells of 40 calls have no p95 of their own; their 80 together do, which is no mean of anything."""
    cells = [cell for cell in ONE.cells if cell.levels["batch_events"] == 1]
    calls = [
        make_call(ONE, cell, call_id=f"b01-{place:03}-{number:04}", block=1, latency_ms=float(1 + number + 100 * place))
        for place, cell in enumerate(cells)
        for number in range(40)
    ]
    summary = summary_of(*calls)
    assert [cell.responses["latency_ms"].p95 for cell in summary.cells[:2]] == [None, None]
    pooled = summary.pivot[0]
    assert pooled.levels == {"language": "go", "memory_mb": 512, "batch_events": 1}
    assert pooled.responses["latency_ms"].p95 == pytest.approx(136.05)  # numpy's rank 0.95 * 79 = 75.05 of 101 ... 140


def test_the_unit_of_effects_is_the_median_of_a_cell_in_a_block() -> None:
    """An outlier among three calls moves no effect."""
    draws = {1: 1.0, 2: 1.1}
    calls = []
    for place, cell in enumerate(ONE.cells):
        for block, drift in draws.items():
            base = 40.0 * drift * (2 if cell.callers == 2 else 1) * (1 + 0.01 * ((place + block) % 2))
            outlier = 50 if (place, block) == (0, 1) else 1.01
            for number, latency_ms in enumerate((base * 0.99, base, base * outlier)):
                calls.append(
                    make_call(
                        ONE, cell, call_id=f"b{block:02}-{place:03}-{number:04}", block=block, latency_ms=latency_ms
                    )
                )
    found = next(one for one in summary_of(*calls).effects if one.measure == "latency_ms")
    callers = next(term for term in found.mains if term.factors == ("callers",))
    assert callers.means[1].ratio == pytest.approx(2, rel=1e-4)
    assert callers.means[1].ratio_high is not None
    assert callers.means[1].ratio_high < 2.1
    assert callers.is_claimed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FactorialSummary]:
    store = make_run(tmp_path_factory.mktemp("results"))
    return store.folder, conclude(store)


def test_known_effects_come_out_of_the_files(run: tuple[Path, FactorialSummary]) -> None:
    _, summary = run
    assert summary.faults == ()
    assert (summary.calls_made, summary.calls_planned, summary.rows_valid) == (576, 576, 576)
    assert summary.warmups == 6 * 2 * 2 * 2 * (1 + 4) + 6 * 2 * 2 * 2 * (1 + 2)
    events = next(one for one in summary.effects if (one.design, one.measure) == ("events", "latency_ms"))
    ratios = {term.name: term.means[1].ratio for term in events.mains}
    assert ratios["language"] == pytest.approx(0.5, rel=0.03)
    assert ratios["batch_events"] == pytest.approx(1.5, rel=0.03)
    (both,) = (term for term in events.interactions if term.is_claimed)
    assert both.name == "memory_mb x callers"
    assert both.contrasts[0].ratio == pytest.approx(1 / 1.3, rel=0.05)
    assert [one.refused for one in summary.effects if one.refused] == []
    measures = {
        design: {one.measure for one in summary.effects if one.design == design} for design in ("events", "batch")
    }
    assert measures["events"] - measures["batch"] == {"events_generated_per_s"}, "large objects hold no events"


def test_metrics_have_a_column_for_every_factor_measure_and_component(run: tuple[Path, FactorialSummary]) -> None:
    folder, _ = run
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 576 + 384
    first = next(row for row in rows if row["design"] == "events")
    assert {"batch_events", "multipart_mb", "callers", "latency_ms", "object_bytes", "cost_storage_usd"} <= first.keys()
    assert first["multipart_mb"] == ""
    assert Decimal(first["cost_total_usd"]) == sum(
        Decimal(first[f"cost_{part}_usd"]) for part in ("lambda", "logs", "requests", "storage")
    )
    table = parquet.read_table(folder / "metrics.parquet")
    assert table.column_names == list(rows[0])
    assert table.num_rows == len(rows)
    assert str(table.schema.field("memory_mb").type) == "int64"
    assert table["cost_total_usd"].to_pylist() == [Decimal(row["cost_total_usd"]) for row in rows]


def test_tables_and_text_hold_what_is_asked(run: tuple[Path, FactorialSummary]) -> None:
    folder, summary = run
    with (folder / "pivot.csv").open() as file:
        pivot = list(csv.DictReader(file))
    assert list(pivot[0]) == [
        "design", "language", "memory_mb", "batch_events=1", "batch_events=100", "multipart_mb=8", "multipart_mb=24"
    ]  # fmt: skip
    assert [(line["design"], line["language"], line["memory_mb"]) for line in pivot[:2]] == [
        ("events", "python", "512"),
        ("events", "python", "2048"),
    ]
    with (folder / "p95_analysis.csv").open() as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == len(EVENTS.cells) + len(BATCH.cells)
    assert cells[1]["setting"] == "batch_events=1"
    assert (cells[1]["callers"], cells[1]["n"], cells[1]["p95_ms"]) == ("4", "24", "")
    assert cells[1]["object_bytes_sum"] == "24576.0"
    assert float(cells[1]["throughput_objects_per_s"]) == summary.cells[1].rates["objects_per_s"].median
    text = (folder / "summary.txt").read_text()
    assert "invocations: 576 total, 576 successful, 0 failed, 0 of them throttled" in text
    assert "transferred: 384 objects, " in text
    assert "language=go memory_mb=2048 (lambdalab-s3-local-go)" in text
    assert re.search(r"average [\d.,]+ ms, p50 [\d.,]+ ms, p95 [\d.,]+ ms, p99 takes 203 more calls", text)
    said = json.loads((folder / "summary.json").read_text())
    assert said["seed"] == 7
    assert len(said["order"][0]["cells"]) == 32
    page = (folder / "report.html").read_text()
    assert '<h2 id="result-h">' in page
    assert "a warm call is assumed" not in page + "".join(summary.notes), "every time was measured"


def test_the_terminal_tells_effects_cells_costs_and_cautions(
    run: tuple[Path, FactorialSummary], capsys: pytest.CaptureFixture[str]
) -> None:
    show(run[1], Console(width=120))
    told = capsys.readouterr().out
    assert "events: what each factor changes, all else equal; ratios to its first level" in told
    assert "2048 MB / 512 MB" in told
    assert "memory x callers" in told
    assert "batch events x callers" not in told.split("batch: what each factor")[0], "only claimed interactions"
    assert "custom metrics" in told
    assert "caution: local times" in told


def test_a_cell_without_a_valid_call_makes_the_run_invalid() -> None:
    calls = [one for one in make_calls(MANIFEST) if one.cell != CELL.name]
    lost = [call(number, block=1 + number // 3, found=False) for number in range(6)]
    summary = summary_of(*calls, *lost)
    assert summary.faults == ("no valid sample of events language=go memory_mb=512 batch_events=1 callers=1",)
    assert all(one.refused is not None for one in summary.effects)
    assert summary.invalid_reasons == {"what the function says it wrote is not there, or not as it says": 6}


def test_an_interrupted_run_says_so_and_one_that_a_ceiling_ended_does_not() -> None:
    calls = [one for one in make_calls(MANIFEST) if one.block == 1]
    assert summary_of(*calls).faults == ("interrupted: only 12 of 24 calls were made",)
    capped = summary_of(*calls, manifest=msgspec.structs.replace(MANIFEST, stopped="minutes cap"))
    assert capped.faults == ()
    assert "ended by: minutes cap, after 12 of 24 calls" in capped.cautions


def test_a_run_without_any_call_is_told_in_words(tmp_path: Path) -> None:
    summary = conclude(make_run(tmp_path, MANIFEST, []))
    assert summary.faults[0] == "interrupted: only 0 of 24 calls were made"
    assert (tmp_path / RUN_ID / "report.html").exists()


def test_what_others_wrote_is_text_on_the_page(tmp_path: Path) -> None:
    store = make_run(tmp_path, MANIFEST, [call(error=HOSTILE, answer=msgspec.Raw(b"null"), log_tail=None)])
    conclude(store)
    page = store.report_file.read_text()
    assert HOSTILE not in page
    assert "&lt;script&gt;document.title" in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prices": {}}, "run.json is damaged: Object missing required field"),
        ({"functions": {}}, "run.json is damaged: it has no function 'go'"),
    ],
)
def test_a_damaged_manifest_is_one_sentence(tmp_path: Path, change: Mapping[str, Any], said: str) -> None:
    store = make_run(tmp_path, msgspec.structs.replace(MANIFEST, **change), [call()])
    with pytest.raises(StorageError, match=said):
        read_calls(store, SCENARIO)


def test_a_call_of_no_cell_is_one_sentence(tmp_path: Path) -> None:
    store = make_run(tmp_path, MANIFEST, [msgspec.structs.replace(call(), cell="events language=rust")])
    with pytest.raises(StorageError, match="'events language=rust' is no cell of the run"):
        read_calls(store, SCENARIO)


GOOD = msgspec.json.encode(call())


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, len(GOOD) - 1), put=st.binary(max_size=3), cut=st.integers(0, 30))
def test_whatever_is_in_a_line_ends_in_rows_or_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, at: int, put: bytes, cut: int
) -> None:
    store = make_run(tmp_path_factory.mktemp("odd"), MANIFEST, [])
    (store.folder / "calls.jsonl").write_bytes(GOOD[:at] + put + GOOD[at + cut :] + b"\n")
    try:
        _, _, rows = read_calls(store, SCENARIO)
    except LambdalabError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right
    else:
        assert len(rows) <= 1
