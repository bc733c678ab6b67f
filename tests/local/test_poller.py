"""Partial-batch answers: every row of the contract; how batches are split and how many run at once."""

import json
from typing import Any

import pytest

from lambdalab.errors import PlaneError
from lambdalab.local.batches import Batch, failed_message_ids, tens
from lambdalab.local.poller import Concurrency, Mapping

QUEUE_ARN = "arn:aws:sqs:eu-west-1:123456789012:q"

ALL = {"a", "b", "c"}


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (b'{"batchItemFailures":[{"itemIdentifier":"a"}]}', {"a"}),
        (b'{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"c"}]}', {"a", "c"}),
        (b'{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"a"}]}', {"a"}),
        (b'{"batchItemFailures":[{"itemIdentifier":"a","more":1}],"more":2}', {"a"}),
        (b'{"batchItemFailures":[]}', set()),
        (b'{"batchItemFailures":null}', set()),
        (b"{}", set()),
        (b'{"statusCode":200}', set()),
        (b"null", set()),
        (b"", set()),
        (b" \n", set()),
        (b"{", ALL),
        (b"done", ALL),
        (b"\xff", ALL),
        (b"[" * 100_000, ALL),
        (b'"done"', ALL),
        (b"[]", ALL),
        (b"17", ALL),
        (b'{"batchItemFailures":{}}', ALL),
        (b'{"batchItemFailures":"a"}', ALL),
        (b'{"batchItemFailures":["a"]}', ALL),
        (b'{"batchItemFailures":[null]}', ALL),
        (b'{"batchItemFailures":[{"itemIdentifier":""}]}', ALL),
        (b'{"batchItemFailures":[{"itemIdentifier":null}]}', ALL),
        (b'{"batchItemFailures":[{"itemIdentifier":1}]}', ALL),
        (b'{"batchItemFailures":[{"itemidentifier":"a"}]}', ALL),
        (b'{"batchItemFailures":[{}]}', ALL),
        (b'{"batchItemFailures":[{"itemIdentifier":"d"}]}', ALL),
        (b'{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"d"}]}', ALL),
    ],
    ids=repr,
)
def test_partial_batch_contract(answer: bytes, failed: set[str]) -> None:
    assert failed_message_ids(answer, ALL) == failed


def message(name: str, size: int) -> Any:
    return {"MessageId": name, "ReceiptHandle": "r", "Body": "x" * size, "MD5OfBody": "m"}


def batch(*sizes: int, most_bytes: int) -> Batch:
    found = Batch(QUEUE_ARN, 0, most_bytes)
    for number, size in enumerate(sizes):
        found.add(message(str(number), size))
    return found


def size_of(*sizes: int) -> int:
    """The size of one payload that holds these bodies."""
    ((payload, _),) = batch(*sizes, most_bytes=10**9).parts()
    return len(payload)


@pytest.mark.parametrize(
    ("sizes", "most_bytes", "parts"),
    [
        ((), 1000, []),
        ((1,), 1000, [["0"]]),
        ((100, 100, 100), size_of(100, 100, 100), [["0", "1", "2"]]),
        ((100, 100, 100), size_of(100, 100, 100) - 1, [["0", "1"], ["2"]]),
        ((100, 100, 100), size_of(100, 100) - 1, [["0"], ["1"], ["2"]]),
        ((1, 900, 1, 1), size_of(900), [["0"], ["1"], ["2", "3"]]),
    ],
)
def test_payloads_stay_within_the_limit_and_in_order(
    sizes: tuple[int, ...], most_bytes: int, parts: list[list[str]]
) -> None:
    found = list(batch(*sizes, most_bytes=most_bytes).parts())
    assert [[m["MessageId"] for m in messages] for _, messages in found] == parts
    for payload, messages in found:
        assert len(payload) <= most_bytes
        assert [r["messageId"] for r in json.loads(payload)["Records"]] == [m["MessageId"] for m in messages]


def test_batch_is_full_when_one_payload_cannot_hold_it() -> None:
    assert not batch(100, 100, most_bytes=size_of(100, 100) + 1).is_full
    assert batch(100, 100, most_bytes=size_of(100, 100) - 1).is_full


def test_requests_name_ten_messages_with_ids_of_their_own() -> None:
    requests = list(tens([message(str(i), 1) for i in range(23)], lambda name, m: {"Id": name, "is": m["MessageId"]}))
    assert [len(request) for request in requests] == [10, 10, 3]
    assert [entry["is"] for request in requests for entry in request] == [str(i) for i in range(23)]
    assert all(len({entry["Id"] for entry in request}) == len(request) for request in requests)


@pytest.mark.parametrize(
    ("maximum", "first", "after_a_minute", "at_last"),
    [
        (None, 5, 305, 1250),
        (2, 2, 2, 2),
        (100, 5, 100, 100),
        (1000, 5, 305, 1000),
    ],
)
def test_concurrency_grows_by_300_a_minute(maximum: int | None, first: int, after_a_minute: int, at_last: int) -> None:
    found = Concurrency(maximum)
    assert found.limit == first
    found.all_used(100)
    assert found.limit == first
    for now in range(101, 161):
        found.all_used(now)
    assert found.limit == after_a_minute
    for now in range(161, 500):
        found.all_used(now)
    assert found.limit == at_last
    found.queue_empty(running=0)
    assert found.limit == first
    found.all_used(2000)
    assert found.limit == first, "idle time is no backlog"


def test_one_moment_of_backlog_after_a_long_time_without_is_not_a_backlog_all_along() -> None:
    found = Concurrency(None)
    found.all_used(0)
    found.all_used(600)
    assert found.limit == 10


def test_concurrency_falls_back_no_further_than_what_runs() -> None:
    found = Concurrency(None)
    for now in range(11):
        found.all_used(now)
    found.queue_empty(running=30)
    assert found.limit == 30
    found.queue_empty(running=3)
    assert found.limit == 5


def test_throttles_and_errors_step_back() -> None:
    found = Concurrency(None)
    found.all_used(0)
    found.all_used(1)
    assert found.limit == 10
    found.throttled(2)
    assert found.limit == 9
    for _ in range(9):
        found.throttled(2)
    assert found.limit == 5
    limits = []
    for _ in range(4):
        found.failed(2)
        limits.append(found.limit)
    assert limits == [2, 1, 1, 1]
    found.throttled(2)
    assert found.limit == 1, "a throttle gives nothing back"
    found.all_used(3)
    assert found.limit == 6


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"batch_size": 0}, "BatchSize 0 is not between 1 and 10000"),
        ({"batch_size": 10_001, "window_s": 1}, "BatchSize 10001 is not between 1 and 10000"),
        ({"batch_size": 11}, "BatchSize 11 wants a window of 1 s or more"),
        ({"window_s": 301}, "a batching window of 301 s is not between 0 and 300"),
        ({"queue_arn": QUEUE_ARN + ".fifo", "batch_size": 11}, "BatchSize 11 is not between 1 and 10"),
        ({"queue_arn": QUEUE_ARN + ".fifo", "window_s": 1}, "a FIFO queue has no batching window"),
        ({"maximum_concurrency": 1}, "MaximumConcurrency 1 is not between 2 and 1000"),
        ({"maximum_concurrency": 1001}, "MaximumConcurrency 1001 is not between 2 and 1000"),
        ({"batch_size": 10_000, "window_s": 300, "maximum_concurrency": 1000}, None),
        ({"queue_arn": QUEUE_ARN + ".fifo", "maximum_concurrency": 2}, None),
    ],
    ids=repr,
)
def test_settings_that_lambda_refuses(settings: dict[str, Any], problem: str | None) -> None:
    mapping = Mapping(**({"uuid": "1", "function_name": "f", "queue_arn": QUEUE_ARN, "queue_url": ""} | settings))
    if problem is None:
        mapping.check()
        return
    with pytest.raises(PlaneError, match=problem):
        mapping.check()
