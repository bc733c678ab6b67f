"""The same odd input to both languages: messages to the parsers, faulty answers of DynamoDB to the whole functions.

Every outcome must be the same to the letter.
"""

import base64
import importlib
import json
import random
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from errors import IngestError
from message import parse_text

from lambdalab.build.deployment import go_variables

from .conftest import set_environment
from .fake_dynamodb import FakeDynamoDB, without_clock
from .test_ingest import context

GO_SOURCE = Path(__file__).parents[2] / "src/go/ingest"
SEED = 20261121
COUNT = 3000
SCENARIO_COUNT = 80

NAMES = [
    "batch_id", "size_bytes", "count", "label", "mode",
    "Count", "batch_Id", "x", "\\u0063ount", "", "é", "😀", "\uffff",
]  # fmt: skip
VALUES = [
    "1", "100", "0", "-1", "-0", "4096", "4097", "400000", "400001", "1.0", "1e2", "1E+2", "0.1e1", "1e999", "01", "1.",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "9" * 5000, "-" + "1" * 25,
    "true", "false", "null", "NaN", "Infinity", "-Infinity", "[]", "{}", "[1]", '{"a":1}', '{"a":1,"a":2}',
    '""', '"b"', '"run:1"', '"a b"', '"b\\n"', '"\\u0062"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\ude00\\ud83d"',
    '"\\\\ud800"', '"\\ud800\\\\"', '"\u0661"', '"é"', '"\ufeff"', '"sequential"', '"concurrent"', '"batch"', '"Batch"',
    '"' + "a" * 64 + '"', '"' + "a" * 65 + '"', '"' + "a" * 256 + '"', '"' + "a" * 257 + '"',
    "[" * 31 + "]" * 31, "[" * 32 + "]" * 32, "[" * 2000 + "]" * 2000, "[" * 12000 + "]" * 12000,
]  # fmt: skip
SPACES = ["", "", "", " ", "\n", "\t", "\r", "\f", "\u00a0", "\u2028", "\ufeff", "\x00"]
BYTES = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"u", b"0", b"e", b".", b"-", b"\n", b"\xff", b"\xed\xa0\x80"]


def odd_body(chance: random.Random) -> bytes:
    """Make a message of likely and unlikely parts, then perhaps damage its bytes."""

    def space() -> str:
        return chance.choice(SPACES) if chance.random() < 0.05 else ""

    fields = ['"batch_id":"b"'] if chance.random() < 0.7 else []
    fields += [
        f'{space()}"{chance.choice(NAMES[:5] if chance.random() < 0.8 else NAMES)}"{space()}:{chance.choice(VALUES)}'
        for _ in range(chance.randrange(4))
    ]
    chance.shuffle(fields)
    body = f"{space()}{{{','.join(fields)}}}{space()}".encode()
    for _ in range(chance.choice([0, 0, 0, 1, 2])):
        at = chance.randrange(len(body) + 1)
        body = body[:at] + chance.choice([b"", *BYTES]) + body[at + chance.randrange(3) :]
    return body


def faulty_answer(chance: random.Random, mode: str) -> dict[str, Any]:
    """Make an answer DynamoDB may give. Throttling is left to the table of scenarios: both SDKs wait up to seconds."""
    units = {"TableName": "items", "CapacityUnits": chance.choice([1.0, 0.5, 25.0])}
    good: dict[str, Any] = {"ConsumedCapacity": [units] if mode == "batch" else units} if chance.random() < 0.8 else {}
    kind = chance.choice(["good"] * 4 + ["leave"] * 3 + ["server", "server", "exists", "denied", "drop", "no code"])
    if kind == "leave" and mode == "batch":
        return {"status": 200, "body": good, "leave": chance.choice([1, 2, 24, 25])}
    code = {"server": "InternalServerError", "exists": "ConditionalCheckFailedException", "denied": "a#Denied<>"}
    if kind == "exists" and mode == "batch":
        kind = "denied"
    if kind in code:
        return {"status": 500 if kind == "server" else 400, "body": {"__type": code[kind], "message": "m"}}
    if kind == "drop":
        return {"drop": True}
    return {"status": 400, "body": {"message": "m"}} if kind == "no code" else {"status": 200, "body": good}


def faulty_scenario(chance: random.Random, number: int) -> dict[str, Any]:
    """Make a message and a script; of concurrent puts the order is open, so those get one item or one answer."""
    mode = chance.choice(["sequential", "concurrent", "batch", "batch"])
    answers = [faulty_answer(chance, mode) for _ in range(chance.randrange(1, 7))]
    last: dict[str, Any] = {"ConsumedCapacity": []} if mode == "batch" else {}
    count = chance.choice([1, 2, 25, 26, 60])
    if mode == "concurrent" and chance.random() < 0.5:
        answers = []
    elif mode == "concurrent":
        count = 1
    event = {"batch_id": f"r:{number}", "size_bytes": chance.randrange(1, 9), "count": count, "mode": mode}
    remaining_ms = chance.choice([1000, 60_000, 60_000])
    return {"event": event, "dynamodb": [*answers, {"status": 200, "body": last}], "remaining_ms": remaining_ms}


def python_record(scenario: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """Run one scenario in a fresh environment; Go: TestRecords."""
    dynamodb = FakeDynamoDB()
    dynamodb.answers = scenario["dynamodb"]
    try:
        with pytest.MonkeyPatch.context() as patch:
            set_environment(patch, dynamodb)
            sys.modules.pop("handler", None)
            answer = importlib.import_module("handler").handler(scenario["event"], context(scenario["remaining_ms"]))
    finally:
        dynamodb.close()
    log = json.loads(capsys.readouterr().out)
    return f"{without_clock(answer)} {without_clock(log)} {len(dynamodb.puts)}".replace('"python"', '"go"')


def test_both_functions_write_the_same_records_whatever_dynamodb_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    scenarios = [faulty_scenario(chance, number) for number in range(SCENARIO_COUNT)]
    scenarios_file, records_file = tmp_path / "scenarios", tmp_path / "records"
    scenarios_file.write_text(json.dumps(scenarios), encoding="utf-8")
    go_test("TestRecords", INGEST_SCENARIOS=str(scenarios_file), INGEST_RECORDS=str(records_file))
    go_records = records_file.read_text(encoding="utf-8").splitlines()
    python_records = [python_record(scenario, capsys) for scenario in scenarios]
    differing = [
        (scenario, in_python, in_go)
        for scenario, in_python, in_go in zip(scenarios, python_records, go_records, strict=True)
        if in_python != in_go
    ]
    assert differing == []
    for text in ("unprocessed until the time was up", '"code":"WriteFailed"', "Denied??", "no valid answer"):
        assert any(text in record for record in go_records), text
    assert sum('"error"' not in record for record in go_records) > SCENARIO_COUNT // 10


def python_outcome(body: bytes) -> dict[str, object]:
    try:
        return {"message": asdict(parse_text(body.decode("utf-8", "surrogateescape")))}
    except IngestError as error:
        return {"error": error.as_dict()}


def go_test(name: str, **variables: str) -> None:
    subprocess.run(
        ["go", "test", "-count=1", f"-run=^{name}$", "./internal/ingest"],
        cwd=GO_SOURCE, env=go_variables() | variables, check=True, timeout=300,
    )  # fmt: skip


def test_both_build_their_client_in_init(tmp_path: Path) -> None:
    """A setting that only the client reads ends both programs, though there is no runtime that could invoke them."""
    go = tmp_path / "bootstrap"
    subprocess.run(["go", "build", "-o", str(go), "."], cwd=GO_SOURCE, env=go_variables(), check=True, timeout=300)
    settings = {"TABLE_NAME": "items", "AWS_REGION": "us-east-1", "AWS_DEFAULTS_MODE": "wrong"}
    for program in ([str(go)], [sys.executable, "-c", "import handler"]):
        ended = subprocess.run(
            program, cwd=GO_SOURCE.parents[1] / "python/ingest", env=settings, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert ended.returncode == 1
        assert re.search(r"invalid (AWS_DEFAULTS_MODE value|defaults mode): wrong", ended.stderr), ended.stderr


def test_both_parsers_agree_on_odd_messages(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    bodies = [odd_body(chance) for _ in range(COUNT)]
    bodies_file, outcomes_file = tmp_path / "bodies", tmp_path / "outcomes"
    bodies_file.write_bytes(b"".join(base64.b64encode(body) + b"\n" for body in bodies))
    go_test("TestOutcomes", INGEST_BODIES=str(bodies_file), INGEST_OUTCOMES=str(outcomes_file))
    go_outcomes = [json.loads(line) for line in outcomes_file.read_text(encoding="utf-8").splitlines()]
    python_outcomes = [python_outcome(body) for body in bodies]
    assert len(go_outcomes) == COUNT
    differing = [
        (body[:200], in_python, in_go)
        for body, in_python, in_go in zip(bodies, python_outcomes, go_outcomes, strict=True)
        if in_python != in_go
    ]
    assert differing == []
    codes = {str(outcome["error"]["code"]) for outcome in go_outcomes if "error" in outcome}
    assert codes == {
        "InvalidJson", "UnknownField", "MissingField", "InvalidType", "InvalidValue",
    }  # fmt: skip
    assert sum("message" in outcome for outcome in go_outcomes) > COUNT // 20
