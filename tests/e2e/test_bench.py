"""The main job: the strict protocol over the real template, the real runtimes and the real emulator."""

import base64
import csv
import json
import math
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from pyarrow import parquet

from .conftest import Begin, Run

LABELS = ("WARMUP", "SMALL_1KBx100", "LARGE_64KBx100")


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_blocks_on_a_machine_where_nothing_is_up(lambdalab: Run, project: Path) -> None:
    done = lambdalab(
        "run", "ingest", "--protocol", "strict", "--target", "local", "--up", "--blocks", "2", "--seed", "7"
    )

    assert done.returncode == 0, done.stdout + done.stderr
    run = project / "results" / "latest"
    rows = rows_of(run)
    assert len(rows) == 2 * 2 * 3
    assert sorted({(r["language"], r["label"]) for r in rows}) == sorted(
        (a, b) for a in ("go", "python") for b in LABELS
    )
    for row in rows:
        assert row["valid"] == "true", row["reason"]
        cold = row["label"] == "WARMUP"
        assert (row["init_ms"] != "") is cold
        assert row["cold_start"] == str(cold).lower()
        init_ms = float(row["init_ms"] or 0)
        assert int(row["billed_ms"]) == math.ceil(round(init_ms + float(row["duration_ms"]), 2))
        assert row["written"] == ("1" if cold else "100")
        assert row["receive_count"] == "1"
        assert int(row["queue_wait_ms"]) < int(row["end_to_end_ms"])
        parts = [float(row[f"cost_{part}_usd"]) for part in ("lambda", "dynamodb", "sqs", "logs")]
        assert math.isclose(sum(parts), float(row["cost_total_usd"]))
    wru = {(r["label"], r["wru"]) for r in rows}
    assert wru == {("WARMUP", "2.0"), ("SMALL_1KBx100", "200.0"), ("LARGE_64KBx100", "6500.0")}
    peaks = {lang: max(int(r["max_memory_mb"]) for r in rows if r["language"] == lang) for lang in ("python", "go")}
    assert peaks["python"] > peaks["go"] > 0
    assert parquet.read_table(run / "metrics.parquet").num_rows == len(rows)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["items_found"] == summary["items_expected"] == 2 * 2 * 201
    assert summary["reports_found"] == summary["reports_expected"] == 12
    assert summary["faults"] == []
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["seed"] == 7
    assert manifest["parameters"]["MaxReceiveCount"] == "5"
    for arm in ("python", "go"):
        facts = manifest["functions"][arm]
        assert (facts["batch_size"], facts["reserved_concurrency"], facts["maximum_concurrency"]) == (1, 1, None)
        assert (facts["visibility_timeout_s"], facts["max_receive_count"]) == (1800, 5)
        assert len(base64.b64decode(facts["code_sha256"])) == 32
    assert "local times" in done.stdout
    assert f"cpu_limit: {manifest['cpu_limit']}" in done.stdout
    assert lambdalab("status").returncode == 3, "the stack this run brought up must be gone"


def test_arms_are_interleaved_in_the_order_of_the_seed(project: Path) -> None:
    rows = rows_of(project / "results" / "latest")
    per_block = [
        [r["label"] for r in rows if r["block"] == str(b) and r["language"] == lang]
        for b in (1, 2)
        for lang in ("go", "python")
    ]
    assert per_block == [list(LABELS)] * 4


def test_ctrl_c_leaves_a_run_that_goes_on(
    lambdalab: Run, begin: Begin, project: Path, local_stack: dict[str, str]
) -> None:
    process = begin("run", "--blocks", "2")
    run = wait_for_trials(project, process, 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 130, errors
    assert f"--resume {run.name}" in errors
    assert "Traceback" not in errors
    before = trials_of(run)
    assert 2 <= len(before) < 12
    assert len(rows_of(run)) == len(before)

    done = lambdalab("run", "--resume", run.name)

    assert done.returncode == 0, done.stdout + done.stderr
    after = trials_of(run)
    assert after[: len(before)] == before, "what was measured stays as it was"
    valid = [row for row in rows_of(run) if row["valid"] == "true"]
    assert len(valid) == 12
    assert len({row["trial"] for row in valid}) == 12


def test_kill_of_the_runner_loses_no_trial(
    lambdalab: Run, begin: Begin, project: Path, local_stack: dict[str, str]
) -> None:
    process = begin("run", "--blocks", "1")
    run = wait_for_trials(project, process, 1)
    process.kill()
    process.communicate()

    assert lambdalab("report", run.name).returncode == 4
    done = lambdalab("run", "--resume", run.name)
    assert done.returncode == 0, done.stdout + done.stderr


def wait_for_trials(project: Path, process: "subprocess.Popen[str]", count: int) -> Path:
    """Waits until a new run has measured so many trials; returns its folder."""
    known = set((project / "results").glob("2*"))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        new = set((project / "results").glob("2*")) - known
        if new and len(trials_of(next(iter(new)))) >= count:
            return next(iter(new))
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    raise AssertionError("the run did not measure anything")


def trials_of(run: Path) -> list[Any]:
    file = run / "trials.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
