"""A page of a run made by hand: two arms, cold and warm, one sample redelivered, and text that wants to be markup."""

from typing import Any

import msgspec
from samples import LOADS, PRICES, make_lines, make_manifest, make_report, make_results, record_line

from lambdalab.analysis.bill import Terms, bill_of_run
from lambdalab.analysis.message_analysis import Summary, summarise
from lambdalab.analysis.message_rows import join
from lambdalab.design.arms import Load, Start
from lambdalab.logs.observations import observe
from lambdalab.logs.platform_lines import render_report
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trials import InvocationRow, LogLine
from lambdalab.report.html import render_html

HOSTILE = "<script>document.title='broken'</script>\"'&<b onclick=x>"
HOSTILE_LOAD = Load(label=HOSTILE, size_bytes=65536, count=100, start=Start.WARM)
Run = tuple[Summary, MessageManifest, list[InvocationRow]]


def make_run(
    blocks: int = 8,
    *,
    loads: tuple[Load, ...] = (*LOADS, HOSTILE_LOAD),
    terms: Terms = Terms(),  # noqa: B008 - frozen
    **changes: Any,
) -> Run:
    """Python four times as slow as Go, every block a little slower; the last message of Go is received twice."""
    manifest = make_manifest(blocks=blocks, loads=loads, **changes)
    manifest = msgspec.structs.replace(
        manifest,
        versions={"lambdalab": "0.1.0", "sdk": HOSTILE},
        protocol=msgspec.structs.replace(manifest.protocol, description=HOSTILE),
    )
    results = make_results(manifest)
    last = [result for result in results if result.trial.arm.startswith("go")][-1]
    lines: list[LogLine] = []
    for result in results:
        trial = result.trial
        cold = trial.load.start is Start.COLD
        factor = (4 if trial.arm == "python" else 1) * (1 + ((trial.block * 7) % 11) * 0.013)
        duration_ms = round((10 if cold else 400 + trial.load.size_bytes / 100) * factor, 2)
        init_ms = round((500 if trial.arm == "python" else 50) * factor, 2) if cold else None
        billed_ms = -int(-(duration_ms + (init_ms or 0)) // 1)
        report = make_report(result, duration_ms=duration_ms, init_ms=init_ms, billed_ms=billed_ms)
        record = record_line(result, receive_count=2 if result is last else 1)
        lines += make_lines(result, record, render_report(report))
    rows = join(manifest, results, observe(lines), PRICES)
    summary = summarise(manifest, results, rows)
    bill = bill_of_run(manifest, results, rows, PRICES, terms)
    return msgspec.structs.replace(summary, bill=bill), manifest, rows


def make_page(run: Run | None = None) -> str:
    return render_html(*(run or make_run()))
