"""A load run made by hand: a sweep of three steps in two languages, of which one is not fast enough for the last."""

import json

import msgspec
from samples import BEGAN_MS, PRICES, RUN_ID, make_lines, make_manifest

from lambdalab.analysis.bill import Terms, bill_of_run
from lambdalab.analysis.books import balance
from lambdalab.analysis.message_analysis import Summary, summarise
from lambdalab.analysis.message_rows import join
from lambdalab.design.arms import Load, Start, as_cold
from lambdalab.logs.observations import observe
from lambdalab.logs.platform_lines import render_report
from lambdalab.records.load import Ending, PipelineSample, Sending
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trials import InvocationRow, LogLine, PlatformReport, Trial, TrialResult
from lambdalab.report.html import render_html

LOAD = Load(label="TEN", size_bytes=1024, count=10, start=Start.WARM)
TAKES_MS = {"python": 200, "go": 20}
RATES = (4, 8, 16)
HOLD_S = 5
Run = tuple[Summary, MessageManifest, list[InvocationRow]]


def make_load_manifest() -> MessageManifest:
    return make_manifest(
        loads=(LOAD, as_cold(LOAD)),
        blocks=HOLD_S * len(RATES),
        load={"shape": "steps", "rates": list(RATES), "hold_s": HOLD_S},
        stopped="the plan was over",
    )


def make_sweep() -> tuple[list[TrialResult], list[LogLine]]:
    """Each language has one environment, which does one message after the other; the first is a cold start."""
    free_ms = dict.fromkeys(TAKES_MS, 0.0)
    trials: list[TrialResult] = []
    lines: list[LogLine] = []
    for step, rate in enumerate(RATES, start=1):
        for i in range(rate * HOLD_S):
            arm = ("python", "go")[i % 2]
            at_ms = BEGAN_MS + (step - 1) * HOLD_S * 1000 + i * 1000 / rate
            number = len(trials)
            result = make_message(number, arm, step, at_ms)
            cold = not free_ms[arm]
            begun_ms = max(at_ms + 5 + (300 if cold else 0), free_ms[arm])
            free_ms[arm] = begun_ms + TAKES_MS[arm]
            trials.append(result)
            lines += make_lines(result, *logged(result, begun_ms, cold=cold))
    return trials, lines


def make_message(number: int, arm: str, step: int, at_ms: float) -> TrialResult:
    block = int((at_ms - BEGAN_MS) // 1000) + 1
    return TrialResult(
        trial=Trial(trial_id=f"0-{number}", block=block, position=number, arm=arm, load=LOAD),
        batch_id=f"{RUN_ID}-0-{number}",
        message_id=f"message-{number}",
        sent_at_ms=round(at_ms),
        drained_at_ms=BEGAN_MS + 60_000,
        message_bytes=110,
        items_expected=10,
        items_found=10,
        reason=None,
        sending=Sending(
            step=step,
            phase="ramp" if step == 1 else "hold",
            intended_at_ms=at_ms,
            began_at_ms=at_ms,
            answered_at_ms=at_ms + 1,
            attempts=1,
        ),
    )  # fmt: skip


def logged(result: TrialResult, begun_ms: float, *, cold: bool) -> tuple[str, str]:
    """The function's record of a message, and the platform's of its invocation."""
    took_ms = TAKES_MS[result.trial.arm]
    request_id = f"request-of-{result.message_id}"
    record = {
        "_aws": {},
        "lang": result.trial.arm,
        "request_id": request_id,
        "batch_id": result.batch_id,
        "count": 10,
        "written": 10,
        "duplicates": 0,
        "consumed_wru": 20.0,
        "sdk_retries": 0,
        "cold_start": cold,
        "receive_count": 1,
        "sent_ms": result.sent_at_ms,
        "started_ms": round(begun_ms),
        "finished_ms": round(begun_ms) + took_ms,
    }
    report = PlatformReport(
        request_id=request_id,
        duration_ms=took_ms + 1.5,
        billed_ms=took_ms + (302 if cold else 2),
        memory_mb=128,
        max_memory_mb=40,
        init_ms=299.5 if cold else None,
    )
    return json.dumps(record) + "\n", render_report(report)


def make_load_run(ending: Ending | None = None) -> Run:
    manifest = make_load_manifest()
    trials, lines = make_sweep()
    rows = join(manifest, trials, observe(lines), PRICES)
    ended = ending or Ending(drained_at_ms=BEGAN_MS + 20_000, queued={"python": 0, "go": 0}, dead_letters=())
    samples = [
        PipelineSample(
            at_ms=BEGAN_MS + second * 1000, phase="hold", step=1, intended=0, sent=0, given_up=0, done=0, arms={},
            emulator_cpu_s=second * 0.3, plane_cpu_s=second * 0.1, idle_s=0.0,
        )
        for second in range(HOLD_S * len(RATES))
    ]  # fmt: skip
    summary = summarise(manifest, trials, rows, books=balance(trials, rows, samples, ended, manifest.functions))
    bill = bill_of_run(manifest, trials, rows, PRICES, Terms())
    return msgspec.structs.replace(summary, bill=bill), manifest, rows


def make_load_page() -> str:
    return render_html(*make_load_run())
