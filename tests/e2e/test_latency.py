"""A run with a latency model, from the command line to every file that must say so."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run

MODEL = """\
name = "slow"
date = 2026-11-21
seed = 3
[[calls]]
service = "dynamodb"
operation = "PutItem"
p50_ms = 200
p50_source = "assumption: far above what the emulator takes"
p99_ms = 200
p99_source = "assumption: so that every draw is the same"
"""
LABEL = "slow 2026-11-21, seed 3"


@pytest.fixture(scope="module")
def slow(project: Path) -> str:
    (project / "slow.toml").write_text(MODEL)
    return "slow.toml"


def test_every_put_takes_its_time_and_everything_says_so(lambdalab: Run, project: Path, tiny: str, slow: str) -> None:
    done = lambdalab("run", "--protocol", tiny, "--up", "--latency", slow)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"caution: with service times of latency model {LABEL}") == 3
    assert f"caution: latency model {LABEL}: " in done.stdout
    run = project / "results" / "latest"
    manifest = json.loads((run / "run.json").read_text())
    assert (manifest["latency"]["seed"], manifest["latency"]["calls"][0]["p50_ms"]) == (3, 200)
    assert json.loads((run / "summary.json").read_text())["latency_model"] == LABEL
    with (run / "metrics.csv").open(newline="") as file:
        assert {row["latency_model"] for row in csv.DictReader(file)} == {LABEL}
    records = list(records_of(run))
    assert sorted((record["lang"], record["put_ms"]["n"]) for record in records) == [
        *(("go", 1), ("go", 5)),
        *(("python", 1), ("python", 5)),
    ]
    assert min(record["put_ms"]["p50"] for record in records) >= 200


def test_a_run_goes_on_only_with_the_model_it_began_with(
    lambdalab: Run, project: Path, tiny: str, slow: str, local_stack: dict[str, str]
) -> None:
    resumed = lambdalab("run", "--resume", (project / "results" / "latest").resolve().name)
    assert f"began with latency model {LABEL}, and now it is none; set it back, or start" in resumed.stderr
    assert resumed.returncode == 2
    other = lambdalab("run", "--protocol", tiny, "--up", "--latency", slow)
    assert "--latency slow.toml is not what the local stack that is up was brought up with; end that" in other.stderr
    assert other.returncode == 2


def records_of(run: Path) -> list[dict[str, Any]]:
    """What the functions logged of their messages."""
    lines = [json.loads(line)["message"] for line in (run / "platform.jsonl").read_text().splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]
