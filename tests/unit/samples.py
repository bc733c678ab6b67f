"""Runs made by hand: a manifest, trials, and the log lines Lambda and a function would have written of them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from lambdalab.design.arms import Factors, Load, Protocol, Start
from lambdalab.logs.platform_lines import render_end, render_report, render_start
from lambdalab.planning.protocol import schedule
from lambdalab.pricing.costs import load_price_sheet
from lambdalab.records.manifest import MessageManifest, QueuedFunction
from lambdalab.records.trial_files import SCHEMA_VERSION
from lambdalab.records.trials import LogLine, PlatformReport, Trial, TrialResult

ROOT = Path(__file__).parents[2]
PRICES = load_price_sheet(ROOT / "prices" / "us-east-1.toml")
RUN_ID = "20261121-100000-ingest-abcd"
BEGAN_MS = 1_795_255_200_000
"""2026-11-21T10:00:00Z"""

LOADS = (
    Load(label="WARMUP", size_bytes=1024, count=1, start=Start.COLD),
    Load(label="SMALL", size_bytes=1024, count=100, start=Start.WARM),
)


def make_manifest(
    *,
    blocks: int = 1,
    arms: tuple[str, ...] = ("python", "go"),
    factors: Factors | None = None,
    loads: tuple[Load, ...] = LOADS,
    **changes: Any,
) -> MessageManifest:
    protocol = Protocol(
        name="tiny",
        scenario="ingest",
        description="Made by hand.",
        blocks=blocks,
        factors=factors or Factors(language=arms),
        loads=loads,
    )
    manifest = MessageManifest(
        schema_version=SCHEMA_VERSION,
        run_id=RUN_ID,
        started_at="2026-11-21T10:00:00.000+00:00",
        protocol=protocol,
        seed=7,
        target="local",
        stack_name="lambdalab-local",
        region="us-east-1",
        endpoint="http://127.0.0.1:4567",
        price_sheet="us-east-1 2026-11-20",
        prices=msgspec.to_builtins(PRICES),
        parameters={},
        functions={arm.name: make_facts(arm.language, batch_size=arm.messages) for arm in protocol.arms},
        cpu_limit="cgroup v2",
        interpreters={},
        template_runtimes={"python": "python3.12", "go": "provided.al2023"},
        versions={},
        machine={},
    )
    return msgspec.structs.replace(manifest, **changes)


def make_facts(arm: str, **changes: Any) -> QueuedFunction:
    facts = QueuedFunction(
        function_name=f"lab-{arm}",
        language=arm,
        runtime={"python": "python3.12", "go": "provided.al2023"}[arm],
        architecture="x86_64",
        memory_mb=128,
        timeout_s=300,
        log_group=f"/aws/lambda/lab-{arm}",
        code_sha256=f"digest of {arm}",
        batch_size=1,
        maximum_concurrency=None,
        reserved_concurrency=1,
        visibility_timeout_s=1800,
        max_receive_count=5,
    )
    return msgspec.structs.replace(facts, **changes)


def make_trials(manifest: MessageManifest) -> tuple[Trial, ...]:
    return schedule(manifest.protocol, manifest.seed)


def make_result(trial: Trial, *, attempt: int = 1, **changes: Any) -> TrialResult:
    """A trial that went well, ten seconds after the one before it."""
    sent_at_ms = BEGAN_MS + 10_000 * trial.position + 1_000_000 * (attempt - 1)
    result = TrialResult(
        trial=trial,
        batch_id=f"{RUN_ID}:{trial.trial_id}" + (f":{attempt}" if attempt > 1 else ""),
        message_id=f"message-{trial.position}-{attempt}",
        sent_at_ms=sent_at_ms,
        drained_at_ms=sent_at_ms + 1000,
        message_bytes=101,
        items_expected=trial.load.count,
        items_found=trial.load.count,
        reason=None,
    )
    return msgspec.structs.replace(result, **changes)


def make_results(manifest: MessageManifest) -> list[TrialResult]:
    """A run that went well."""
    return [make_result(trial) for trial in make_trials(manifest)]


def request_id(result: TrialResult) -> str:
    return f"request-of-{result.message_id}"


def make_report(result: TrialResult, **changes: Any) -> PlatformReport:
    """What Lambda would have printed: 15.74 ms, and 130.49 ms of init where the load wants a cold start."""
    cold = result.trial.load.start is Start.COLD
    report = PlatformReport(
        request_id=request_id(result),
        duration_ms=15.74,
        billed_ms=147 if cold else 16,
        memory_mb=128,
        max_memory_mb=56,
        init_ms=130.49 if cold else None,
    )
    return msgspec.structs.replace(report, **changes)


def record_line(result: TrialResult, **changes: Any) -> str:
    """The function's own record; a change to None leaves the member out."""
    assert result.sent_at_ms is not None
    count = result.trial.load.count
    record = {
        "_aws": {},
        "lang": result.trial.arm.partition("-")[0],
        "run_id": RUN_ID,
        "request_id": request_id(result),
        "batch_id": result.batch_id,
        "count": count,
        "written": count,
        "duplicates": 0,
        "consumed_wru": 2.0 * count,
        "sdk_retries": 0,
        "cold_start": result.trial.load.start is Start.COLD,
        "receive_count": 1,
        "sent_ms": result.sent_at_ms,
        "started_ms": result.sent_at_ms + 60,
        "finished_ms": result.sent_at_ms + 80,
    } | changes
    return json.dumps({key: value for key, value in record.items() if value is not None}) + "\n"


def make_lines(result: TrialResult, *messages: str) -> list[LogLine]:
    """Log events of one invocation; by default those it has when all went well, of a single message four."""
    assert result.sent_at_ms is not None
    name = request_id(result)
    written = messages or (
        render_start(name),
        *(record_line(result, batch_id=batch_id) for batch_id in result.batch_ids),
        render_end(name),
        render_report(make_report(result)),
    )
    return [
        LogLine(
            log_group=f"/aws/lambda/lab-{result.trial.arm}",
            log_stream="2026/11/21/[$LATEST]0",
            timestamp_ms=result.sent_at_ms + 50 + i,
            message=message,
            event_id=f"{name}/{i}",
        )
        for i, message in enumerate(written)
    ]


NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?")
"""A number as reports write them."""


def values_in(summary: msgspec.Struct) -> Iterator[int | float | str]:
    """Every number and text that the JSON of a summary holds, names of members as well."""

    def within(value: Any) -> Iterator[int | float | str]:
        match value:
            case dict():
                for key, member in value.items():
                    yield key
                    yield from within(member)
            case list():
                for member in value:
                    yield from within(member)
            case bool() | None:
                pass
            case _:
                yield value

    return within(json.loads(msgspec.json.encode(summary)))
