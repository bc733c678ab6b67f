"""Which settings no other beats, and which to take under a limit."""

from collections.abc import Sequence
from decimal import Decimal

import pytest
from msgspec.structs import replace
from samples import LOADS, PRICES, make_lines, make_manifest, make_result, make_results, make_trials

from lambdalab.analysis.frontier import Frontier, Limits, SweptCell, frontiers, swept_cells
from lambdalab.analysis.message_rows import join
from lambdalab.design.arms import Factors
from lambdalab.logs.observations import observe
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trials import InvocationRow

MEMORY_MB = (128, 256, 512, 1024)
MANIFEST = make_manifest(blocks=60, factors=Factors(language=("go",), memory_mb=MEMORY_MB))
TIMES_MS = {128: 400.0, 256: 200.0, 512: 100.0, 1024: 100.0}
USD = {128: "0.000002", 256: "0.000002", 512: "0.000003", 1024: "0.000006"}


def rows_of(manifest: MessageManifest = MANIFEST) -> list[InvocationRow]:
    """Durations as Lambda's CPU law gives them, with a spread of 10 %; half the memory costs as much until one core."""
    results = make_results(manifest)
    lines = [line for result in results for line in make_lines(result)]
    found = []
    for row in join(manifest, results, observe(lines), PRICES):
        memory_mb = int(row.arm.split("-")[1].removesuffix("MB"))
        duration_ms = TIMES_MS[memory_mb] * (1 + (row.block % 10) / 100)
        found.append(replace(row, duration_ms=duration_ms, cost_total_usd=Decimal(USD[memory_mb])))
    return found


def warm(found: Sequence[Frontier]) -> Frontier:
    return next(frontier for frontier in found if frontier.label == "SMALL")


def test_the_front_holds_what_no_other_beats() -> None:
    found = frontiers(MANIFEST.protocol, rows_of())
    assert [frontier.label for frontier in found] == [load.label for load in LOADS]
    frontier = warm(found)
    assert [(point.arm.name, point.on_front) for point in frontier.points] == [
        ("go-128MB", False),  # 256 MB is as cheap and faster
        ("go-256MB", True),
        ("go-512MB", True),
        ("go-1024MB", False),  # 512 MB is as fast and cheaper
    ]
    assert [(point.n, point.usd_per_million.median) for point in frontier.points][:2] == [(60, 2.0), (60, 2.0)]
    assert frontier.points[1].duration_ms.median == pytest.approx(209)
    assert (frontier.recommended, frontier.because) == (
        None,
        "no limit was given, so any point of the front may be the right one",
    )


@pytest.mark.parametrize(
    ("max_p95_ms", "max_usd", "recommended", "because"),
    [
        (220, None, "go-256MB", "the cheapest of 3 that keep p95 of Duration at most 220 ms"),
        (217, None, "go-512MB", "the cheapest of 2 that keep p95 of Duration at most 217 ms"),
        (50, None, None, "no setting keeps p95 of Duration at most 50 ms with its whole interval"),
        (None, 2.5, "go-256MB", "the fastest of 2 that keep at most 2.5 USD per million messages"),
        (120, 2.5, None, "no setting keeps p95 of Duration at most 120 ms and at most 2.5 USD per million messages"),
        (500, 3, "go-128MB", "the cheapest of 3 that keep p95 of Duration at most 500 ms and at most 3 USD"),
    ],
)
def test_what_to_take_under_a_limit(
    max_p95_ms: float | None, max_usd: float | None, recommended: str | None, because: str
) -> None:
    found = warm(frontiers(MANIFEST.protocol, rows_of(), Limits(max_p95_ms=max_p95_ms, max_usd_per_million=max_usd)))
    assert found.recommended == recommended
    assert found.because.startswith(because)


def test_cost_is_that_of_a_message_since_a_larger_batch_does_more_work() -> None:
    manifest = make_manifest(blocks=6, factors=Factors(language=("go",), batch_size=(1, 5, 10)))
    messages = {arm.name: arm.messages for arm in manifest.protocol.arms}
    results = [make_result(trial, messages=messages[trial.arm]) for trial in make_trials(manifest)]
    lines = [line for result in results for line in make_lines(result)]
    of_batch = {"go-1msg": (20.0, "0.000002"), "go-5msg": (100.0, "0.000010"), "go-10msg": (120.0, "0.000010")}
    rows = []
    for row in join(manifest, results, observe(lines), PRICES):
        duration_ms, usd = of_batch[row.arm]
        rows.append(replace(row, duration_ms=duration_ms, cost_total_usd=Decimal(usd)))
    found = frontiers(manifest.protocol, rows, Limits(max_usd_per_million=1.5))
    assert [
        (point.batch_size, point.n, point.usd_per_million.median, point.on_front) for point in warm(found).points
    ] == [(1, 6, 2.0, True), (5, 6, 2.0, False), (10, 6, 1.0, True)]
    assert warm(found).recommended == "go-10msg"
    lines_of_csv = swept_cells(manifest.protocol, found)
    assert [(line.arm, line.batch_size, line.usd_per_million) for line in lines_of_csv[3:]] == [
        ("go-1msg", 1, 2.0), ("go-5msg", 5, 2.0), ("go-10msg", 10, 1.0),
    ]  # fmt: skip


def test_with_too_few_samples_no_percentile_is_made_up() -> None:
    few = replace(MANIFEST, protocol=replace(MANIFEST.protocol, blocks=50))
    found = warm(frontiers(few.protocol, rows_of(few), Limits(max_p95_ms=1000)))
    assert found.recommended is None
    assert found.because == "a 95th percentile with an interval needs 9 more samples in a cell"


def test_with_too_few_samples_for_any_interval_none_is_said_to_keep_a_limit_or_not() -> None:
    few = replace(MANIFEST, protocol=replace(MANIFEST.protocol, blocks=5))
    found = warm(frontiers(few.protocol, rows_of(few), Limits(max_usd_per_million=1000)))
    assert (found.recommended, found.because) == (None, "a median with an interval needs 1 more samples in a cell")


def test_samples_that_do_not_count_are_left_out() -> None:
    rows = [
        replace(row, valid=False) if row.arm == "go-256MB" else replace(row, cost_total_usd=None) if n % 2 else row
        for n, row in enumerate(rows_of())
    ]
    points = frontiers(MANIFEST.protocol, rows)[0].points
    assert [point.arm.name for point in points] == ["go-128MB", "go-512MB", "go-1024MB"]
    assert frontiers(MANIFEST.protocol, []) == ()


def test_every_cell_is_a_line_and_what_was_not_measured_is_absent() -> None:
    rows = [replace(row, valid=row.arm != "go-1024MB") for row in rows_of()]
    found = frontiers(MANIFEST.protocol, rows, Limits(max_usd_per_million=2.5))
    lines = swept_cells(MANIFEST.protocol, found)
    assert [(line.label, line.arm) for line in lines] == [
        (load.label, f"go-{memory_mb}MB") for load in LOADS for memory_mb in MEMORY_MB
    ]
    assert lines[-1] == SweptCell(label="SMALL", arm="go-1024MB", language="go", mode="sequential")
    line = lines[len(MEMORY_MB) + 1]
    assert (line.arm, line.n, line.on_front, line.recommended) == ("go-256MB", 60, True, True)
    assert (line.usd_per_million, line.usd_per_million_low, line.usd_per_million_high) == (2.0, 2.0, 2.0)
    assert line.duration_ms == pytest.approx(209)
    assert line.p95_ms_high == pytest.approx(218)
    assert [line.recommended for line in lines].count(True) == len(LOADS)
