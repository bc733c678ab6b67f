"""The whole Python function, with the real boto3 against a scripted DynamoDB. Go: service_test.go."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from writer import CONCURRENCY, Batch

from .fake_dynamodb import FakeDynamoDB, without_clock

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/python/ingest"


def context(remaining_ms: int = 60_000) -> SimpleNamespace:
    return SimpleNamespace(aws_request_id="request-1", get_remaining_time_in_millis=lambda: remaining_ms)


CONTEXT = context()


@pytest.fixture
def validator() -> Callable[[str], Validator]:
    def load(name: str) -> Validator:
        schema = json.loads((ROOT / "contracts" / name).read_text(encoding="utf-8"))
        Draft202012Validator.check_schema(schema)
        return Draft202012Validator(schema)

    return load


def test_scenario(
    scenario: dict[str, Any],
    function: ModuleType,
    dynamodb: FakeDynamoDB,
    validator: Callable[[str], Validator],
    capsys: pytest.CaptureFixture[str],
) -> None:
    dynamodb.answers = scenario["dynamodb"]
    for invocation in scenario["invocations"]:
        answer = function.handler(invocation["event"], context(invocation.get("remaining_ms", 60_000)))
        assert without_clock(answer) == without_clock(invocation["answer"])

    puts = dynamodb.puts
    if not scenario.get("puts_in_order", True):
        for list_of_puts in (puts, scenario["puts"]):
            list_of_puts.sort(key=lambda put: str(put["Item"]["sk"]["S"]))
    assert puts == scenario["puts"]
    lines = capsys.readouterr().out.splitlines()
    records = [json.loads(line) for line in lines]
    assert [without_clock(record) for record in records] == [without_clock(record) for record in scenario["log"]]
    assert lines == [json.dumps(record, separators=(",", ":")) for record in records]
    for record in records:
        validator("log_record.schema.json").validate(record)
        assert_metrics_are_complete(record)
    for put in puts:
        calls = put["RequestItems"]["items"] if "RequestItems" in put else [{"PutRequest": put}]
        for call in calls:
            item = call["PutRequest"]["Item"]
            assert item.pop("t_start_ms") == {"N": "<clock>"}
            validator("item.schema.json").validate({**item, "t_start_ms": {"N": "1"}})


def assert_metrics_are_complete(record: dict[str, Any]) -> None:
    """Check the rules of Embedded Metric Format that a schema cannot state: targets are root members."""
    (directive,) = record["_aws"]["CloudWatchMetrics"]
    metrics = {metric["Name"] for metric in directive["Metrics"]}
    possible = {"written", "duplicates", "batch_elapsed_ms", "consumed_wru", "rejected"}
    assert metrics
    assert metrics == possible & record.keys()
    assert all(isinstance(record[name], int | float) for name in metrics)
    assert all(isinstance(record[name], str) for names in directive["Dimensions"] for name in names)


def test_times_are_in_order_and_of_this_moment(
    function: ModuleType, dynamodb: FakeDynamoDB, capsys: pytest.CaptureFixture[str]
) -> None:
    before = time.time_ns() // 1_000_000
    answer = function.lambda_handler({"batch_id": "b", "size_bytes": 1, "count": 30}, CONTEXT)
    after = time.time_ns() // 1_000_000
    assert before <= answer["started_ms"] <= answer["finished_ms"] <= after
    quantiles = answer["put_ms"]
    assert 0 < quantiles["p50"] <= quantiles["p95"] <= quantiles["max"] <= answer["batch_elapsed_ms"]
    assert answer["batch_elapsed_ms"] <= after - before + 1
    record = json.loads(capsys.readouterr().out)
    assert record.pop("_aws")["Timestamp"] == answer["finished_ms"]
    assert record == answer


def test_quantiles_are_nearest_rank() -> None:
    puts = [n * 1_000_000 for n in range(20, 0, -1)]
    assert Batch(put_ns=puts).summary()["put_ms"] == {"n": 20, "p50": 10, "p95": 19, "max": 20}
    assert Batch(put_ns=puts[:1]).summary()["put_ms"] == {"n": 1, "p50": 20, "p95": 20, "max": 20}
    assert Batch().summary()["put_ms"] is None


def test_an_unexpected_exception_shows_only_its_type(
    function: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(function._service._writer, "_put", fail)
    answer = function.handler({"batch_id": "b"}, CONTEXT)
    assert answer == {"error": {"code": "InternalError", "message": "internal error"}}
    log = capsys.readouterr()
    assert json.loads(log.out)["error_type"] == "ZeroDivisionError"
    assert "secret" not in log.out + log.err


def test_the_client_retries_waits_and_keeps_connections_as_documented(function: ModuleType) -> None:
    config = function._service._writer._client.meta.config
    assert config.retries == {"mode": "standard", "total_max_attempts": 3}
    assert (config.connect_timeout, config.read_timeout) == (2, 5)
    assert config.max_pool_connections == CONCURRENCY == 8


def test_a_missing_table_name_ends_init_with_one_line() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TABLE_NAME"}
    ended = subprocess.run(
        [sys.executable, "-c", "import handler"],
        cwd=SOURCE, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr == "TABLE_NAME is not set: it must name the DynamoDB table to write to\n"


def test_the_parser_needs_no_aws_sdk() -> None:
    code = "import sys, message; assert not {'boto3', 'botocore'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=SOURCE, timeout=60, check=True)


@pytest.mark.parametrize(
    ("name", "failed"),
    [("small", 0), ("large", 0), ("warmup", 0), ("malformed", 1), ("batch", 1)],
)
def test_sample_events_do_what_their_name_says(
    name: str, failed: int, function: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    event = json.loads((ROOT / f"events/sqs-{name}.json").read_text(encoding="utf-8"))
    answer = function.handler(event, CONTEXT)
    assert len(answer["batchItemFailures"]) == failed
    assert len(capsys.readouterr().out.splitlines()) == len(event["Records"])


def test_the_sample_direct_event_is_answered_with_a_summary(function: ModuleType) -> None:
    event = json.loads((ROOT / "events/direct-small.json").read_text(encoding="utf-8"))
    assert function.handler(event, CONTEXT)["written"] == event["count"]


def test_the_sample_direct_event_that_is_bad_is_answered_with_the_field(function: ModuleType) -> None:
    event = json.loads((ROOT / "events/direct-bad.json").read_text(encoding="utf-8"))
    assert function.handler(event, CONTEXT)["error"]["field"] == "count"
