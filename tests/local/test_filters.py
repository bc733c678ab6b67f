"""Body filters: every rule, every form, and what Lambda would refuse."""

import json
from typing import Any

import pytest

from lambdalab.errors import PlaneError
from lambdalab.local.filters import body_filter


def passes(wanted: Any, body: str) -> bool:
    return body_filter([json.dumps({"body": wanted})])(body)


@pytest.mark.parametrize(
    ("wanted", "body", "passed"),
    [
        # exact values
        ({"a": ["x"]}, {"a": "x", "b": 1}, True),
        ({"a": ["x"]}, {"a": "X"}, False),
        ({"a": ["x"]}, {"b": "x"}, False),
        ({"a": ["x", "y"]}, {"a": "y"}, True),
        ({"a": [1]}, {"a": 1.0}, True),
        ({"a": [1]}, {"a": "1"}, False),
        ({"a": [1]}, {"a": True}, False),
        ({"a": [True]}, {"a": 1}, False),
        ({"a": [True]}, {"a": True}, True),
        ({"a": [None]}, {"a": None}, True),
        ({"a": [None]}, {}, False),
        ({"a": [""]}, {"a": ""}, True),
        # AND inside, nested objects
        ({"a": ["x"], "b": [2]}, {"a": "x", "b": 2}, True),
        ({"a": ["x"], "b": [2]}, {"a": "x", "b": 3}, False),
        ({"a": {"b": ["x"]}}, {"a": {"b": "x"}}, True),
        ({"a": {"b": ["x"]}}, {"a": "x"}, False),
        ({"a": ["x"]}, {"a": {"b": "x"}}, False),
        # arrays of the body: one element is enough
        ({"a": ["x"]}, {"a": ["w", "x"]}, True),
        ({"a": ["x"]}, {"a": []}, False),
        ({"a": {"b": ["x"]}}, {"a": [{"b": "w"}, {"b": "x"}]}, True),
        ({"a": {"b": [1], "c": [2]}}, {"a": [{"b": 1, "c": 0}, {"b": 0, "c": 2}]}, False),
        # prefix, suffix, equals-ignore-case
        ({"a": [{"prefix": "ab"}]}, {"a": "abc"}, True),
        ({"a": [{"prefix": "ab"}]}, {"a": "xabc"}, False),
        ({"a": [{"prefix": "1"}]}, {"a": 12}, False),
        ({"a": [{"suffix": "bc"}]}, {"a": "abc"}, True),
        ({"a": [{"suffix": "bc"}]}, {"a": "abcx"}, False),
        ({"a": [{"equals-ignore-case": "aB"}]}, {"a": "Ab"}, True),
        ({"a": [{"equals-ignore-case": "aB"}]}, {"a": "Abc"}, False),
        # anything-but
        ({"a": [{"anything-but": "x"}]}, {"a": "y"}, True),
        ({"a": [{"anything-but": "x"}]}, {"a": "x"}, False),
        ({"a": [{"anything-but": ["x", "y"]}]}, {"a": "y"}, False),
        ({"a": [{"anything-but": [1]}]}, {"a": 2}, True),
        ({"a": [{"anything-but": 1}]}, {"a": 1}, False),
        ({"a": [{"anything-but": "x"}]}, {}, False),
        ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "xy"}, False),
        ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "yx"}, True),
        # numeric
        ({"a": [{"numeric": ["=", 5]}]}, {"a": 5.0}, True),
        ({"a": [{"numeric": [">", 5]}]}, {"a": 5}, False),
        ({"a": [{"numeric": [">=", 5]}]}, {"a": 5}, True),
        ({"a": [{"numeric": ["<", -1.5]}]}, {"a": -2}, True),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5}, True),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 0}, False),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 6}, False),
        ({"a": [{"numeric": [">", 0]}]}, {"a": "5"}, False),
        ({"a": [{"numeric": [">", 0]}]}, {"a": True}, False),
        # exists
        ({"a": [{"exists": True}]}, {"a": None}, True),
        ({"a": [{"exists": True}]}, {"b": 1}, False),
        ({"a": [{"exists": False}]}, {"b": 1}, True),
        ({"a": [{"exists": False}]}, {"a": 0}, False),
        ({"a": {"b": [{"exists": False}]}}, {"c": 1}, True),
        ({"a": ["x", {"exists": False}]}, {"a": "x"}, True),
        ({"a": ["x", {"exists": False}]}, {"a": "y"}, False),
        # $or
        ({"$or": [{"a": ["x"]}, {"b": [1]}]}, {"b": 1}, True),
        ({"$or": [{"a": ["x"]}, {"b": [1]}]}, {"a": "y", "b": 2}, False),
        ({"c": [1], "$or": [{"a": ["x"]}, {"b": [1]}]}, {"a": "x", "c": 1}, True),
        ({"c": [1], "$or": [{"a": ["x"]}, {"b": [1]}]}, {"a": "x", "c": 2}, False),
    ],
    ids=repr,
)
def test_rules_against_a_json_body(wanted: Any, body: Any, passed: bool) -> None:
    assert passes(wanted, json.dumps(body)) is passed


@pytest.mark.parametrize(
    ("wanted", "body", "passed"),
    [
        (["hello"], "hello", True),
        (["hello"], "Hello", False),
        ([{"prefix": "he"}], "hello", True),
        ([{"anything-but": "hello"}], "world", True),
        # the other form is dropped, whatever the rule says
        (["hello"], '{"a": 1}', False),
        ([{"prefix": "{"}], '{"a": 1}', False),
        ([{"prefix": "{"}], '{"a": NaN}', True),
        ({"a": [{"exists": False}]}, "hello", False),
        ({"a": [{"exists": False}]}, "", False),
        ({"a": [1]}, '{"a": 1', False),
        ({"a": [1]}, "[" * 100_000, False),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_plain_text_and_mismatched_forms(wanted: Any, body: str, passed: bool) -> None:
    assert passes(wanted, body) is passed


def test_one_filter_of_several_is_enough_and_none_passes_everything() -> None:
    several = body_filter(['{"body": {"a": [1]}}', '{"body": ["plain"]}'])
    assert [several(body) for body in ('{"a": 1}', "plain", '{"a": 2}', "other")] == [True, True, False, False]
    assert body_filter([])("anything")


@pytest.mark.parametrize(
    "pattern",
    [
        "{",
        "[]",
        "{}",
        '{"attributes": {"a": [1]}}',
        '{"body": ["x"], "messageId": ["y"]}',
        '{"body": "x"}',
        '{"body": []}',
        '{"body": {}}',
        '{"body": {"a": 1}}',
        '{"body": {"a": [[1]]}}',
        '{"body": {"a": [{"like": "x"}]}}',
        '{"body": {"a": [{"prefix": 1}]}}',
        '{"body": {"a": [{"prefix": "x", "suffix": "y"}]}}',
        '{"body": {"a": [{"numeric": [">"]}]}}',
        '{"body": {"a": [{"numeric": ["!", 1]}]}}',
        '{"body": {"a": [{"numeric": [">", "1"]}]}}',
        '{"body": {"a": [{"numeric": [">", 1, "<", 2, "=", 3]}]}}',
        '{"body": {"a": [{"exists": "yes"}]}}',
        '{"body": {"a": [{"anything-but": []}]}}',
        '{"body": {"a": [{"anything-but": {"like": "x"}}]}}',
        '{"body": {"$or": [{"a": [1]}]}}',
    ],
)
def test_patterns_that_lambda_refuses(pattern: str) -> None:
    with pytest.raises(PlaneError, match="refuse"):
        body_filter([pattern])
