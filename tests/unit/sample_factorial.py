"""A factorial run made by hand: every call as its caller saw it, with effects that are known."""

import json
import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from samples import BEGAN_MS, PRICES

from lambdalab.design.cells import Cell, Design, FactorialProtocol
from lambdalab.logs.platform_lines import billed_ms, render_end, render_report, render_start
from lambdalab.records.call_files import SCHEMA_VERSION, FactorialDirectory
from lambdalab.records.calls import Call, Finding
from lambdalab.records.manifest import CallManifest, FunctionFacts
from lambdalab.records.trials import PlatformReport

RUN_ID = "20261121-100000-s3-ingest-abcd"
EVENTS = Design(
    label="events",
    invocations=4,
    factors={"language": ("python", "go"), "memory_mb": (512, 2048), "batch_events": (1, 100), "callers": (1, 4)},
    settings={"workload": "events", "event_bytes": 1024},
)
BATCH = Design(
    label="batch",
    invocations=2,
    factors={"language": ("python", "go"), "memory_mb": (512, 2048), "multipart_mb": (8, 24), "callers": (1, 2)},
    settings={"workload": "batch", "object_mb": 24, "parallelism": 1},
)
EFFECTS = {"language": 0.5, "memory_mb": 0.4, "batch_events": 1.5, "multipart_mb": 0.9, "callers": 1.0}
"""By how much the second level multiplies the time of the first."""
CALLERS_AT_LITTLE_MEMORY = 1.3
"""By how much more when there are more callers and the little memory."""


def make_function(language: str) -> FunctionFacts:
    return FunctionFacts(
        function_name=f"lambdalab-s3-local-{language}",
        language=language,
        runtime="python3.12" if language == "python" else "provided.al2023",
        architecture="x86_64",
        memory_mb=1024,
        timeout_s=900,
        log_group=f"/aws/lambda/lambdalab-s3-local-{language}",
        code_sha256="0" * 64,
        reserved_concurrency=None,
    )


def make_manifest(designs: tuple[Design, ...] = (EVENTS, BATCH), blocks: int = 6, **changes: Any) -> CallManifest:
    protocol = FactorialProtocol(
        name="s3-ingest", scenario="s3-ingest", description="Made by hand.", blocks=blocks, designs=designs
    )
    manifest = CallManifest(
        schema_version=SCHEMA_VERSION,
        kind=FactorialDirectory.kind,
        run_id=RUN_ID,
        started_at="2026-11-21T10:00:00.000+00:00",
        protocol=protocol,
        seed=7,
        target="local",
        stack_name="lambdalab-s3-local",
        region="us-east-1",
        endpoint="http://127.0.0.1:4566",
        price_sheet=PRICES.name,
        prices=msgspec.to_builtins(PRICES),
        parameters={},
        functions={language: make_function(language) for design in designs for language in design.languages},
        cpu_limit="cgroup v2",
        versions={"lambdalab": "0.1.0"},
        machine={"system": "Linux 6.1", "cores": "2"},
    )
    return msgspec.structs.replace(manifest, **changes)


def make_record(design: Design, cell: Cell, request_id: str, latency_ms: float, **changes: Any) -> dict[str, Any]:
    """What a function logs and answers (contracts/s3_record.schema.json), of a good call."""
    settings = {**design.settings, **cell.levels}
    is_batch = settings["workload"] == "batch"
    events = 0 if is_batch else int(settings["batch_events"])
    size = int(settings["object_mb"]) * 2**20 if is_batch else events * 1025 - 1
    parts = math.ceil(int(settings["object_mb"]) / int(settings["multipart_mb"])) if is_batch else 0
    record = {
        "ok": True,
        "lang": cell.language,
        "function_name": f"lambdalab-s3-local-{cell.language}",
        "request_id": request_id,
        "run_id": RUN_ID,
        "workload": settings["workload"],
        "latency_ms": round(latency_ms, 3),
        "generate_ms": round(latency_ms / 10, 3),
        "object_bytes": size,
        "events_generated": events,
        "multipart_parts": parts,
        "s3_requests": parts + 2 if is_batch else 1,
        "sdk_retries": 0,
        "throttles": 0,
        "s3_bucket": "objects",
        "s3_key": f"{settings['workload']}/{RUN_ID}/{BEGAN_MS}-{request_id}.jsonl",
        "is_cold_start": False,
    }
    return record | changes


def make_tail(request_id: str, record: Mapping[str, Any], report: PlatformReport) -> str:
    line = json.dumps({**record, "_aws": {"Timestamp": BEGAN_MS, "CloudWatchMetrics": []}}, separators=(",", ":"))
    return render_start(request_id) + line + "\n" + render_end(request_id) + render_report(report)


def make_call(
    design: Design, cell: Cell, *, call_id: str, block: int, sent_at_ms: int = BEGAN_MS, latency_ms: float = 50.0,
    init_ms: float | None = None, record: Mapping[str, Any] | None = None, **changes: Any,
) -> Call:  # fmt: skip
    """A good call, as Lambda answers it."""
    request_id = f"00000000-0000-4000-8000-{abs(hash(call_id)) % 10**12:012d}"
    said = make_record(design, cell, request_id, latency_ms, **(record or {}))
    duration_ms = round(latency_ms * 1.15 + 2, 2)
    report = PlatformReport(
        request_id=request_id,
        duration_ms=duration_ms,
        billed_ms=billed_ms(duration_ms, init_ms),
        memory_mb=cell.memory_mb or 1024,
        max_memory_mb=90,
        init_ms=init_ms,
    )
    call = Call(
        call_id=call_id,
        block=block,
        cell=cell.name,
        sent_at_ms=sent_at_ms,
        elapsed_ms=duration_ms + (init_ms or 0) + 3,
        request_id=request_id,
        answer=msgspec.Raw(json.dumps(said).encode()),
        log_tail=make_tail(request_id, said, report),
        found=True,
    )
    return msgspec.structs.replace(call, **changes)


def make_calls(manifest: CallManifest, *, seed: int = 7, spread: float = 0.04) -> Iterator[Call]:
    """All calls of a run: a cold warm-up for each caller, then the calls, cell after cell in an order drawn anew."""
    draw = random.Random(seed)
    now_ms = float(BEGAN_MS)
    protocol = manifest.protocol
    for block in range(1, protocol.blocks + 1):
        cells = [(design, cell) for design in protocol.designs for cell in design.cells]
        draw.shuffle(cells)
        drift = 1 + 0.02 * block
        for place, (design, cell) in enumerate(cells, start=1):
            latency_ms = 40.0 if design is EVENTS else 400.0
            for factor, level in cell.levels.items():
                if level != design.factors[factor][0]:
                    latency_ms *= EFFECTS[factor]
            if cell.callers > 1 and cell.memory_mb == 512:
                latency_ms *= CALLERS_AT_LITTLE_MEMORY
            latency_ms *= drift * math.exp(draw.gauss(0, spread))
            free_ms = [now_ms] * cell.callers
            for number in range(cell.callers + design.invocations):
                warmup = number < cell.callers
                caller = free_ms.index(min(free_ms))
                call = make_call(
                    design,
                    cell,
                    call_id=f"b{block:02}-{place:03}-{number:04}",
                    block=block,
                    sent_at_ms=int(free_ms[caller]),
                    latency_ms=latency_ms * math.exp(draw.gauss(0, spread)),
                    init_ms=round((180 if cell.language == "python" else 45) * drift, 2) if warmup else None,
                    warmup=warmup,
                )
                free_ms[caller] += call.elapsed_ms
                yield call
            now_ms = max(free_ms) + 20


def make_run(
    results: Path, manifest: CallManifest | None = None, calls: list[Call] | None = None
) -> FactorialDirectory:
    """The same as files."""
    manifest = manifest or make_manifest()
    store = FactorialDirectory.create(results, manifest)
    calls = list(make_calls(manifest)) if calls is None else calls
    store.append_calls(calls)
    looked_for = [call for call in calls if call.found is not None]
    store.append_findings(
        Finding(call_id=call.call_id, attempt=call.attempt, found=bool(call.found)) for call in looked_for
    )
    return store
