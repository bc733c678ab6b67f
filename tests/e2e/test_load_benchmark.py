"""A short ``python -m benchmarks.load --end-to-end`` on a real stack."""

import json
import subprocess
import sys
from pathlib import Path

from samples import ROOT

from benchmarks.load.processes import PARTS
from benchmarks.load.stack import MAXIMUM_CONCURRENCY

RATE, SECONDS = 20, 2


def test_a_step_tells_rates_backlog_drain_and_cpu_and_leaves_nothing_up(
    project: Path, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.load", "--end-to-end", "--languages", "go", "--json", str(file)]
    done = subprocess.run(
        [*command, "--rates", str(RATE), "--seconds", str(SECONDS)],
        cwd=project, env=clean_environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        timeout=480,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "| go | lab | 20.0 | " in done.stdout
    (step,) = json.loads(file.read_bytes())["steps"]
    assert (step["sent"], step["processed"], step["lost"], step["faults"]) == (RATE * SECONDS, RATE * SECONDS, 0, [])
    assert 0 < step["environments"] <= MAXIMUM_CONCURRENCY
    assert step["drain_s"] is not None
    assert set(step["use"]["cpu"]) == set(PARTS)
    assert all(cores > 0 for cores in step["use"]["cpu"].values()), step
    assert not (project / ".lambdalab" / "stack.json").exists()
