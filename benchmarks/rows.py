"""The rows of a large run: ``python -m benchmarks.rows [INVOCATIONS]``.

A seeded run directory with one invocation for every trial and its four log lines (START, the function's record, END,
REPORT). Each step runs in a process of its own: reading it into rows, and that and writing ``metrics.csv`` and
``metrics.parquet``. Half of the invocations are cold.
"""

import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import msgspec

from lambdalab.analysis.message_rows import read_run
from lambdalab.design.arms import Factors, Load, Protocol, Start
from lambdalab.logs.platform_lines import billed_ms, render_end, render_report, render_start
from lambdalab.planning.protocol import schedule
from lambdalab.pricing.costs import load_price_sheet
from lambdalab.records.manifest import MessageManifest, QueuedFunction
from lambdalab.records.trial_files import SCHEMA_VERSION, RunDirectory
from lambdalab.records.trials import LogLine, PlatformReport, Trial, TrialResult

INVOCATIONS: Final = 100_000
BEGAN_MS: Final = 1_795_255_200_000
STEPS: Final = ("read", "read and write")


def main() -> int:
    """Generates, measures, prints."""
    if len(sys.argv) == 4 and sys.argv[1] == "--step":
        _step(sys.argv[2], RunDirectory(Path(sys.argv[3])))
        return 0
    invocations = int(sys.argv[1]) if len(sys.argv) > 1 else INVOCATIONS
    with tempfile.TemporaryDirectory(prefix="lambdalab-bench-") as folder:
        store = _generate(Path(folder), invocations)
        size_mb = (store.folder / "platform.jsonl").stat().st_size / 1e6
        print(f"{date.today()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}")
        print(f"{invocations:,} invocations, {size_mb:,.0f} MB of log lines; load {os.getloadavg()[0]:.1f}")
        for step in STEPS:
            command = [sys.executable, "-m", "benchmarks.rows", "--step", step, str(store.folder)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            if (found["rows"], found["valid"]) != (invocations, invocations):
                raise RuntimeError(f"{step}: {found['valid']} valid of {found['rows']} rows")
            print(f"{step:16} {found['seconds']:8.1f} s {found['peak_mb']:8,.0f} MB at the peak")
    return 0


def _step(step: str, store: RunDirectory) -> None:
    began = time.perf_counter()
    rows = read_run(store).rows
    if step == "read and write":
        store.write_rows(rows)
    seconds = time.perf_counter() - began
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    valid = sum(row.valid for row in rows)
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "rows": len(rows), "valid": valid}))


def _generate(results: Path, invocations: int) -> RunDirectory:
    manifest = _manifest(invocations)
    store = RunDirectory.create(results, manifest)
    draw = random.Random(2026_11_21)  # noqa: S311 - test data
    encode = msgspec.json.Encoder().encode
    with (store.folder / "trials.jsonl").open("wb") as trials, (store.folder / "platform.jsonl").open("wb") as lines:
        for trial in schedule(manifest.protocol, manifest.seed)[:invocations]:
            result = TrialResult(
                trial=trial,
                batch_id=f"{manifest.run_id}:{trial.trial_id}",
                message_id=str(uuid.UUID(int=draw.getrandbits(128))),
                sent_at_ms=BEGAN_MS + 2000 * trial.position,
                drained_at_ms=BEGAN_MS + 2000 * trial.position + 1900,
                message_bytes=101,
                items_expected=trial.load.count,
                items_found=trial.load.count,
                reason=None,
            )
            trials.write(encode(result) + b"\n")
            for line in _lines(manifest, trial, result, draw):
                lines.write(encode(line) + b"\n")
    return store


def _lines(manifest: MessageManifest, trial: Trial, result: TrialResult, draw: random.Random) -> Iterator[LogLine]:
    cold = trial.load.start is Start.COLD
    request_id = str(uuid.UUID(int=draw.getrandbits(128)))
    duration_ms = round(draw.lognormvariate(3, 1), 2)
    init_ms = round(draw.uniform(50, 300), 2) if cold else None
    report = PlatformReport(
        request_id=request_id,
        duration_ms=duration_ms,
        billed_ms=billed_ms(duration_ms, init_ms),
        memory_mb=128,
        max_memory_mb=draw.randint(40, 120),
        init_ms=init_ms,
    )
    sent_ms = BEGAN_MS + 2000 * trial.position
    count = trial.load.count
    record = {
        "_aws": {"Timestamp": sent_ms, "CloudWatchMetrics": [{"Namespace": "lambdalab", "Dimensions": [["lang"]]}]},
        "lang": trial.arm,
        "run_id": manifest.run_id,
        "request_id": request_id,
        "batch_id": result.batch_id,
        "label": trial.load.label,
        "count": count,
        "size_bytes": trial.load.size_bytes,
        "written": count,
        "duplicates": 0,
        "batch_elapsed_ms": duration_ms,
        "put_ms": {"n": count, "p50": duration_ms / 100, "p95": duration_ms / 90, "max": duration_ms / 80},
        "consumed_wru": 2.0 * count,
        "sdk_retries": 0,
        "cold_start": cold,
        "receive_count": 1,
        "sent_ms": sent_ms,
        "started_ms": sent_ms + 60,
        "finished_ms": sent_ms + 60 + int(duration_ms),
    }
    messages = (
        render_start(request_id),
        json.dumps(record, separators=(",", ":")) + "\n",
        render_end(request_id),
        render_report(report),
    )
    for number, message in enumerate(messages):
        yield LogLine(
            log_group=manifest.functions[trial.arm].log_group,
            log_stream=f"2026/11/21/[$LATEST]{trial.position // 1000:032x}",
            timestamp_ms=sent_ms + 50 + number,
            message=message,
            event_id=f"{4 * trial.position + number:056d}",
        )


def _manifest(invocations: int) -> MessageManifest:
    loads = (
        Load(label="WARMUP", size_bytes=1024, count=1, start=Start.COLD),
        Load(label="SMALL", size_bytes=1024, count=100, start=Start.WARM),
    )
    protocol = Protocol(
        name="large",
        scenario="ingest",
        description="Made by benchmarks.rows.",
        blocks=-(-invocations // 4),
        factors=Factors(language=("python", "go")),
        loads=loads,
    )
    prices = load_price_sheet("us-east-1")
    return MessageManifest(
        schema_version=SCHEMA_VERSION,
        run_id="20261121-100000-ingest-abcd",
        started_at=datetime.fromtimestamp(BEGAN_MS / 1000, UTC).isoformat(timespec="milliseconds"),
        protocol=protocol,
        seed=7,
        target="local",
        stack_name="lambdalab-local",
        region=prices.region,
        endpoint="http://127.0.0.1:4567",
        price_sheet=f"{prices.region} {prices.date}",
        prices=msgspec.to_builtins(prices),
        parameters={},
        functions={arm.name: _facts(arm.language) for arm in protocol.arms},
        cpu_limit="cgroup v2",
        interpreters={},
        template_runtimes={},
        versions={},
        machine={},
    )


def _facts(language: str) -> QueuedFunction:
    return QueuedFunction(
        function_name=f"lab-{language}",
        language=language,
        runtime="provided.al2023" if language == "go" else "python3.12",
        architecture="x86_64",
        memory_mb=128,
        timeout_s=300,
        log_group=f"/aws/lambda/lambdalab-{language}-ingest",
        code_sha256="",
        batch_size=1,
        maximum_concurrency=None,
        reserved_concurrency=1,
        visibility_timeout_s=1800,
        max_receive_count=5,
    )


if __name__ == "__main__":
    sys.exit(main())
