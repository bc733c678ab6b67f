"""Runs of messages and runs of calls say the same of the same conditions: what one kind knows, the other knows."""

from typing import Any

import msgspec
import pytest
import sample_factorial
import samples
from test_analysis import lines_with_duration
from test_factorial_analysis import CELL, ONE, SCENARIO

from lambdalab.analysis.call_analysis import summarise as summarise_calls
from lambdalab.analysis.call_rows import judge
from lambdalab.analysis.call_summary import FactorialSummary
from lambdalab.analysis.message_analysis import summarise as summarise_messages
from lambdalab.analysis.message_rows import join
from lambdalab.analysis.summary import Summary
from lambdalab.design.arms import Protocol
from lambdalab.design.cells import FactorialProtocol
from lambdalab.logs.observations import observe
from lambdalab.machine_load import BlockLoad
from lambdalab.records.calls import CallRow
from lambdalab.records.manifest import CallManifest, Manifest, MessageManifest
from lambdalab.records.trials import InvocationRow

LATENCY = {"name": "test", "date": "2026-11-21", "seed": 7}
BUSY = [BlockLoad(block=1, others_cpu_s=5, capacity_cpu_s=10)]


def of_messages(loads: list[BlockLoad], **changes: Any) -> Summary:
    """Ten blocks that become slower."""
    manifest = samples.make_manifest(blocks=10, arms=("go",), loads=samples.LOADS[1:])
    manifest = msgspec.structs.replace(manifest, **changes)
    results = samples.make_results(manifest)
    lines = [line for one in results for line in lines_with_duration(one, 100.0 + 10 * one.trial.block)]
    rows = join(manifest, results, observe(lines), samples.PRICES)
    return summarise_messages(manifest, results, rows, block_loads=loads)


def of_calls(loads: list[BlockLoad], **changes: Any) -> FactorialSummary:
    """Ten calls of a cell that become slower."""
    manifest = msgspec.structs.replace(sample_factorial.make_manifest((ONE,), blocks=10), **changes)
    calls = [
        sample_factorial.make_call(
            ONE, CELL, call_id=f"b{n:02}-001-0000", block=n, sent_at_ms=samples.BEGAN_MS + n, latency_ms=100.0 + 10 * n
        )
        for n in range(1, 11)
    ]
    rows = judge(manifest, calls, SCENARIO, samples.PRICES)
    return summarise_calls(manifest, rows, SCENARIO, samples.PRICES, block_loads=loads)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "local times: they describe this machine"),
        ({"target": "aws", "cpu_limit": "unknown"}, "http://127.0.0.1:4567 is not AWS"),
        ({"cpu_limit": "none"}, "whole cores"),
        ({"cpu_scale": 2.0}, "cpu scale 2: every function had that many times"),
        ({"latency": LATENCY}, "latency model test 2026-11-21, seed 7: adds latencies"),
        ({"template_runtimes": {"go": "provided.al2"}}, "go ran on provided.al2023; the template's default is"),
    ],
    ids=["local", "no AWS", "no limit", "CPU scale", "latency", "runtime"],
)
def test_both_kinds_caution_against_the_same_conditions(changes: dict[str, Any], said: str) -> None:
    of_each = [
        [caution for caution in summary.cautions if said in caution]
        for summary in (
            of_messages([], endpoint="http://127.0.0.1:4567", **changes),
            of_calls([], endpoint="http://127.0.0.1:4567", **changes),
        )
    ]
    assert len(of_each[0]) == 1
    assert of_each[0] == of_each[1]


def test_both_kinds_say_what_others_took_and_that_a_cell_drifted() -> None:
    summaries: list[Summary | FactorialSummary] = [of_messages(BUSY), of_calls(BUSY)]
    for summary in summaries:
        assert any("took" in caution and "50" in caution for caution in summary.cautions), summary.cautions
        moved = [caution for caution in summary.cautions if " drifted: in the second half of the run 1." in caution]
        assert len(moved) == 1, summary.cautions
        assert moved[0].startswith(max(summary.drift, key=lambda one: one.correlation or 0).cell)


def test_what_a_manifest_says_it_says_of_every_kind() -> None:
    """A kind adds its name, and under load its plan; it has no fact of its own about where and how it ran."""
    of_all = set(Manifest.__struct_fields__)
    assert set(CallManifest.__struct_fields__) - of_all == {"kind"}
    assert set(MessageManifest.__struct_fields__) - of_all == {"kind", "load"}


def test_a_protocol_of_every_kind_can_say_when_its_run_ends() -> None:
    messages, calls = set(Protocol.__struct_fields__), set(FactorialProtocol.__struct_fields__)
    assert messages & calls == {"name", "scenario", "description", "blocks", "stop", "caps"}
    assert messages - calls == {"factors", "loads", "cold"}
    assert calls - messages == {"designs", "function_prefix"}


def test_rows_of_both_kinds_have_the_columns_that_every_invocation_has() -> None:
    """Those of one kind alone are about how work got in, or what a scenario measured."""
    messages, calls = set(InvocationRow.__struct_fields__), set(CallRow.__struct_fields__)
    assert messages - calls == {
        *("arm", "mode", "batch_size", "trial", "label", "started_at", "invocation_messages", "log_bytes"),
        *("queue_wait_ms", "end_to_end_ms", "written", "duplicates", "sdk_retries", "receive_count", "wru"),
        *("cost_lambda_usd", "cost_dynamodb_usd", "cost_sqs_usd", "cost_logs_usd", "cost_per_item_usd"),
    }
    assert calls - messages == {
        *("design", "cell", "function_name", "levels", "call_id", "attempt", "warmup", "started_at_ms"),
        *("elapsed_ms", "throttled", "measures", "costs_usd"),
    }
