"""A scenario that the lab has never heard of: the folder ``hashes`` beside this file, one function in one language.

It has its template, its settings, its function, a protocol and a few lines of ``scenario.py``.
"""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from local.whole import project as new_project

from .conftest import SHARED, Run, run_in

FOLDER = Path(__file__).with_name("hashes")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = new_project(tmp_path_factory.mktemp("project"), SHARED)
    shutil.copytree(FOLDER, found / "scenarios" / "hashes", ignore=shutil.ignore_patterns("__pycache__"))
    return found


@pytest.fixture(scope="module")
def run(place: Path, clean_environment: dict[str, str]) -> Run:
    return run_in(place, clean_environment)


@pytest.fixture(scope="module")
def up(run: Run) -> Iterator[None]:
    done = run("up", "hashes", "--port", "0")
    assert done.returncode == 0, done.stderr
    yield
    run("down")


def test_no_module_of_the_lab_knows_it() -> None:
    python = [FOLDER / "scenario.py", FOLDER / "src/python/hashes/handler.py"]
    assert sum(len(path.read_text().splitlines()) for path in python) < 100
    for path in (ROOT / "lambdalab").rglob("*.py"):
        assert "hash_ms" not in path.read_text(), path


def test_it_is_planned_while_no_stack_is_up(run: Run) -> None:
    done = run("plan", "hashes")
    assert done.returncode == 0, done.stderr
    assert "a warm call is assumed to run for 100 ms" in done.stdout
    assert "48 calls" in done.stdout, "4 in each of 6 blocks and 2 cells"


@pytest.mark.usefixtures("up")
def test_it_is_run_reported_and_compared_by_name_and_in_its_folder(run: Run, place: Path) -> None:
    runs = []
    for arguments, folder in ((("run", "hashes"), "."), (("run",), "scenarios/hashes")):
        done = run(*arguments, folder=folder)
        assert done.returncode == 0, done.stderr
        assert "rounds" in done.stdout
        runs.append((place / "results/latest").resolve())
    first, second = runs
    summary = json.loads((first / "summary.json").read_text())
    assert (summary["scenario"], summary["rows_valid"], summary["faults"]) == ("hashes", 48, [])
    (effect,) = [one for one in summary["effects"] if one["measure"] == "hash_ms"]
    assert effect["refused"] is None
    with (first / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["warmup"] == "false"]
    assert {row["rounds"] for row in rows} == {"1000", "100000"}
    assert all(float(row["hash_ms"]) > 0 and float(row["cost_total_usd"]) > 0 for row in rows)

    month = run("report", first.name, "--per-month", "5")
    assert month.returncode == 0, month.stderr
    assert "USD a month at 5 calls/s, by component" in month.stdout
    judged = run("compare", first.name, second.name)
    assert judged.returncode in (0, 1, 4), judged.stderr  # which it is the machine decides
    assert "python B/python A" in judged.stdout
    drawn = run("map", folder="scenarios/hashes")
    assert "PythonHashes" in drawn.stdout, drawn.stderr
