"""The Python parser against the table of cases; the Go parser runs the same one in message_test.go."""

import base64
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from errors import IngestError
from jsonschema import Draft202012Validator
from message import Message, parse_text, parse_value

CONTRACTS = Path(__file__).parents[2] / "contracts"

# Integers to a schema, which sees the value and not how it is written.
WRITTEN_AS_FRACTION = ("1.0", "1e2", "1E0")


def body_of(case: dict[str, Any]) -> str:
    if "body" in case:
        return str(case["body"])
    return base64.b64decode(case["body_base64"]).decode("utf-8", "surrogateescape")


def outcome_of(parse: Any, value: object) -> dict[str, Any]:
    try:
        message: Message = parse(value)
    except IngestError as error:
        return {"error": error.as_dict()}
    return {"message": asdict(message)}


def test_a_body_is_accepted_or_refused_as_the_table_says(case: dict[str, Any]) -> None:
    assert outcome_of(parse_text, body_of(case)) == case["expect"]


def test_a_value_already_read_has_the_same_outcome(json_case: dict[str, Any]) -> None:
    assert outcome_of(parse_value, json.loads(body_of(json_case))) == json_case["expect"]


def test_a_value_already_read_is_checked_for_depth_and_surrogates() -> None:
    deep: object = 1
    for _ in range(32):
        deep = [deep]
    for value in ({"batch_id": deep}, [[deep]], {"batch_id": "\ud800"}, {"batch_id": "b", "\udfff": 1}):
        assert outcome_of(parse_value, value)["error"]["code"] == "InvalidJson"


def test_the_schema_agrees_with_the_parser(json_case: dict[str, Any]) -> None:
    schema = json.loads((CONTRACTS / "message.schema.json").read_text(encoding="utf-8"))
    error = json_case["expect"].get("error")
    valid = Draft202012Validator(schema).is_valid(json.loads(body_of(json_case)))
    beyond_schema = error is not None and (
        json_case["name"].endswith(WRITTEN_AS_FRACTION) or error["message"].startswith("size_bytes times count")
    )
    assert valid == (error is None or beyond_schema)


def test_bodies_that_would_exhaust_a_parser_are_refused() -> None:
    for body in ("[" * 500_000 + "]" * 500_000, '{"a":' * 150_000 + "1" + "}" * 150_000):
        assert outcome_of(parse_text, body)["error"]["code"] == "InvalidJson"
    many_digits = f'{{"batch_id":"b","count":{"9" * 500_000}}}'
    assert outcome_of(parse_text, many_digits)["error"]["code"] == "InvalidValue"
