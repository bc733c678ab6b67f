"""Settings and builds side by side over the real stack, and the functions as they were afterwards."""

import csv
import json
import math
import platform
import shutil
import signal
from pathlib import Path
from statistics import median
from typing import Any

from lambdalab.aws.package import build_package
from lambdalab.build.deployment import ARCHITECTURES

from .conftest import Begin, Run
from .test_aws_target import clients
from .test_bench import rows_of, wait_for_trials

BURNT_MS = 200
BLOCKS = 7
"""The fewest for 3 comparisons: Duration of two loads, and cost of the warm one."""
CANDIDATE = f"""

import time

_handler = handler


def handler(event, context):
    begin = time.process_time()
    while time.process_time() - begin < {BURNT_MS / 1000}:
        pass
    print("this is the candidate")
    return _handler(event, context)
"""
PROTOCOL = """
name = "builds"
scenario = "ingest"
description = "For tests."
blocks = 1
[factors]
language = ["python"]
[[loads]]
label = "COLD"
size_bytes = 1
count = 1
start = "cold"
[[loads]]
label = "WARM"
size_bytes = 1
count = 1
start = "warm"
"""


def settings(variables: dict[str, str], language: str) -> dict[str, Any]:
    lambda_, name = clients(variables, "lambda"), f"lambdalab-local-{language}-ingest"
    found = lambda_.get_function_configuration(FunctionName=name)
    (mapping,) = lambda_.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
    named = {key: found.get(key) for key in ("MemorySize", "CodeSha256", "Environment", "Architectures")}
    return named | {"BatchSize": mapping["BatchSize"]}


def test_a_slower_build_is_a_regression_with_default_settings(
    lambdalab: Run, project: Path, local_stack: dict[str, str]
) -> None:
    before = settings(local_stack, "python")
    shutil.copytree(project / ".aws-sam" / "local", project / "candidate")
    with (project / "candidate" / "PythonIngest" / "handler.py").open("a") as file:
        file.write(CANDIDATE)
    (project / "builds.toml").write_text(PROTOCOL)

    done = lambdalab("run", "--protocol", "builds.toml", "--build", "baseline", "--build", "candidate=candidate")

    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{BLOCKS} blocks instead of 1" in done.stderr
    assert "Verdict: regression: python-candidate has " in done.stdout
    judged = lambdalab("compare", "latest", "--markdown")
    assert (judged.returncode, judged.stdout.startswith("**regression: ")) == (1, True), judged.stdout + judged.stderr
    run = project / "results" / "latest"
    functions = json.loads((run / "run.json").read_text())["functions"]
    assert functions["python-baseline"]["code_sha256"] == before["CodeSha256"]
    assert functions["python-candidate"]["code_sha256"] not in (None, before["CodeSha256"])
    rows = rows_of(run)
    assert [row["valid"] for row in rows] == ["true"] * 4 * BLOCKS
    blocks = [{row["arm"] for row in rows if row["block"] == str(block + 1)} for block in range(BLOCKS)]
    assert blocks == [{"python-baseline", "python-candidate"}] * BLOCKS
    times = {
        arm: [float(row["duration_ms"]) for row in rows if (row["arm"], row["label"]) == (arm, "WARM")]
        for arm in ("python-baseline", "python-candidate")
    }
    assert min(times["python-candidate"]) >= BURNT_MS, "no clock runs slower than the CPU time it holds"
    lines = [json.loads(line) for line in (run / "platform.jsonl").read_text().splitlines()]
    said = [line for line in lines if line["message"].strip() == "this is the candidate"]
    assert len(said) == 2 * BLOCKS, "one for each invocation of the candidate"
    assert settings(local_stack, "python") == before


def test_a_build_that_lacks_the_function_is_refused(lambdalab: Run, project: Path, local_stack: dict[str, str]) -> None:
    (project / "empty").mkdir()
    known = set((project / "results").glob("2*"))
    done = lambdalab("run", "--build", "candidate=empty")
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"lambdalab: {project}/empty/PythonIngest holds no built function; build it with `sam"
    )
    assert len(done.stderr.splitlines()) == 1
    assert set((project / "results").glob("2*")) == known


def test_ctrl_c_puts_settings_back_and_the_sweep_goes_on(
    lambdalab: Run, begin: Begin, project: Path, local_stack: dict[str, str]
) -> None:
    before = settings(local_stack, "go")
    process = begin("sweep", "--memory", "256,512", "--language", "go", "--blocks", "6", "--count", "10")
    run = wait_for_trials(project, process, 3)
    assert settings(local_stack, "go")["MemorySize"] in (256, 512)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"go on with `lambdalab sweep --resume {run.name} --target local`" in errors
    assert settings(local_stack, "go") == before

    done = lambdalab("sweep", "--resume", run.name, "--max-usd-per-million", "1000")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1024Bx10: take go-" in done.stdout
    valid = [row for row in rows_of(run) if row["valid"] == "true"]
    assert len(valid) == 24
    assert {(row["arm"], row["memory_mb"]) for row in valid} == {("go-256MB", "256"), ("go-512MB", "512")}
    with (run / "cells.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert [(cell["label"], cell["memory_mb"], cell["n"]) for cell in cells] == [
        (label, memory_mb, "6") for label in ("WARMUP", "1024Bx10") for memory_mb in ("256", "512")
    ]
    assert settings(local_stack, "go") == before


def test_one_invocation_gets_a_whole_batch_and_ctrl_c_puts_the_batch_size_back(
    lambdalab: Run, begin: Begin, project: Path, local_stack: dict[str, str]
) -> None:
    before = settings(local_stack, "go")
    assert before["BatchSize"] == 1
    asked = ("--batch-size", "2,5", "--memory", "512", "--language", "go", "--count", "10", "--blocks", "6")
    process = begin("sweep", *asked)
    run = wait_for_trials(project, process, 3)
    assert settings(local_stack, "go")["BatchSize"] in (2, 5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert settings(local_stack, "go") == before

    done = lambdalab("sweep", "--resume", run.name)

    assert done.returncode == 0, done.stdout + done.stderr
    assert settings(local_stack, "go") == before
    rows = [row for row in rows_of(run) if not row["reason"].startswith("repeated after an interruption")]
    assert [row["reason"] for row in rows] == [""] * 24, "no batch was split"
    for row in rows:
        messages, items = int(row["batch_size"]), 1 if row["label"] == "WARMUP" else 10
        assert row["arm"] == f"go-{messages}msg"
        assert row["written"] == str(messages * items)
        assert row["wru"] == f"{2 * messages * items}.0"
        assert row["cost_sqs_usd"] == "0.000001200000000000"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["items_found"] == summary["items_expected"] == 6 * (2 + 5) * (1 + 10)
    with (run / "cells.csv").open(newline="") as file:
        cells = {(cell["label"], cell["batch_size"]): cell for cell in csv.DictReader(file)}
    assert {cell["n"] for cell in cells.values()} == {"6"}
    for label in ("WARMUP", "1024Bx10"):
        of_label = [row for row in rows if (row["label"], row["batch_size"]) == (label, "5")]
        paid = median(float(row["cost_total_usd"]) for row in of_label)
        assert math.isclose(float(cells[label, "5"]["usd_per_million"]), paid * 1e6 / 5, rel_tol=1e-9)


def test_an_architecture_is_built_for_the_stack_and_the_deployed_code_put_back(
    lambdalab: Run, project: Path, local_stack: dict[str, str]
) -> None:
    before = settings(local_stack, "python")
    own = ARCHITECTURES[platform.machine()]  # the plane stands in as Lambda, and runs no other
    source = project / "src" / "python" / "ingest" / "handler.py"
    deployed = source.read_text()
    source.write_text(deployed + "# so that a build of now is not the deployed one\n")
    try:
        done = lambdalab(
            "sweep", "--target", "aws", "--stack-name", "lambdalab-local", "--yes", "--architecture", own,
            "--memory", "128", "--language", "python", "--count", "1", "--blocks", "1", **local_stack,
        )  # fmt: skip
    finally:
        source.write_text(deployed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"building the functions for {own} ...\n" in done.stderr
    built = project / ".lambdalab" / "builds" / own / "PythonIngest"
    facts = json.loads((project / "results" / "latest" / "run.json").read_text())["functions"]["python"]
    assert facts["architecture"] == own
    assert facts["code_sha256"] == build_package(built, own).code_sha256 != before["CodeSha256"]
    assert settings(local_stack, "python") == before
