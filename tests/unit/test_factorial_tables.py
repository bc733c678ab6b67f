"""What page and terminal say of factors with more than two levels, and of intervals."""

import random
import re
from pathlib import Path

import pytest
from rich.console import Console
from sample_factorial import make_call, make_manifest, make_run

from lambdalab.analysis.call_summary import FactorialSummary
from lambdalab.design.cells import Design
from lambdalab.report.call_page import Chapter
from lambdalab.report.call_tables import FactorialTables
from lambdalab.report.call_terminal import show
from lambdalab.run.call_conclusion import conclude

THREE = Design(
    label="events",
    invocations=1,
    factors={"language": ("go",), "memory_mb": (512, 1024, 2048), "batch_events": (1, 100)},
    settings={"workload": "events", "event_bytes": 1024},
)
BOTH = 1.5
"""By how much more 100 events take with the middle memory; half of it each way, so that memory alone is as said."""
FIRST = "time in calls to S3, ms"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FactorialSummary]:
    """Memory 512 / 1024 / 2048 takes 1 / 0.5 / 1 times as long: the last level is as the first."""
    draw = random.Random(7)
    manifest = make_manifest((THREE,))
    calls = [
        make_call(
            THREE, cell, call_id=f"b{block:02}-{place:03}-0001", block=block,
            latency_ms=1000 * block * draw.gauss(1, 0.001)
            * (0.5 * BOTH ** (0.5 if cell.levels["batch_events"] == 100 else -0.5) if cell.memory_mb == 1024 else 1),
        )
        for block in range(1, 7)
        for place, cell in enumerate(THREE.cells)
    ]  # fmt: skip
    store = make_run(tmp_path_factory.mktemp("results"), manifest, calls)
    return store.folder, conclude(store)


def test_every_level_of_a_factor_is_said(run: tuple[Path, FactorialSummary]) -> None:
    said = next(said for said in Chapter(run[1], "events").sentences if said.startswith("memory"))
    assert re.fullmatch(
        r"memory 1024 MB instead of 512 MB: 0\.(50|49)\d* times the time in calls to S3 \(0\.\d+ - 0\.\d+\); "
        r"memory 2048 MB instead of 512 MB: (1\.00|0\.99)\d* times the time in calls to S3 \([01]\.\d+ - 1\.\d+\); "
        r"all levels together \d+\.\d% of the variation",
        said,
    ), said


def test_what_is_tested_of_a_factor_as_a_whole_stands_once(run: tuple[Path, FactorialSummary]) -> None:
    tables = FactorialTables(run[1])
    one, other = (row for row in tables.mains("events").rows if row[:2] == [FIRST, "memory"])
    assert (one[2], other[2]) == ("1024 MB / 512 MB", "2048 MB / 512 MB")
    assert one[6].endswith("%")
    assert (one[-1], other[-3:]) == ("yes", ["", "", ""])
    for table in (tables.interactions("events"), tables.interactions("events", only_claimed=True)):
        one, other = (row for row in table.rows if row[0] == FIRST)
        assert (one[2], other[2]) == ("1024 MB and 100", "2048 MB and 100")
        assert (one[-1], other[-3:]) == ("yes", ["", "", ""])


def test_the_terminal_has_every_level_of_what_is_claimed(
    run: tuple[Path, FactorialSummary], capsys: pytest.CaptureFixture[str]
) -> None:
    show(run[1], Console(width=140))
    told = capsys.readouterr().out.split("; those that are claimed")[1].split("Functions over all")[0]
    assert "1024 MB and 100" in told
    assert "2048 MB and 100" in told


def test_the_page_says_what_its_intervals_are_of(run: tuple[Path, FactorialSummary]) -> None:
    page = (run[0] / "report.html").read_text()
    assert page.count("drift between blocks") == 2
    assert "the intervals of its levels are single ones" in page
