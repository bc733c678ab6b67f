"""What the modes of the Python function promise beyond the table of scenarios. Go: modes_test.go."""

import json
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from writer import BATCH_ITEMS, CONCURRENCY, FIRST_BACKOFF_S, LONGEST_BACKOFF_S, backoff_s

from .fake_dynamodb import FakeDynamoDB
from .test_ingest import CONTEXT

OK: dict[str, Any] = {"status": 200, "body": {"ConsumedCapacity": {"TableName": "items", "CapacityUnits": 1.0}}}
DENIED: dict[str, Any] = {"status": 400, "body": {"__type": "a.b#AccessDeniedException", "message": "no"}}


def seq_of(put: dict[str, Any]) -> int:
    return int(put["Item"]["seq"]["N"])


@pytest.fixture
def crowd(dynamodb: FakeDynamoDB) -> Iterator[list[int]]:
    """Let every put wait until as many are there as may be under way at once; keep how many there were."""
    lock, seen, inside = threading.Lock(), [0], [0]
    barrier = threading.Barrier(CONCURRENCY)

    def answer(put: dict[str, Any]) -> dict[str, Any]:
        with lock:
            inside[0] += 1
            seen.append(inside[0])
        barrier.wait(30)
        with lock:
            inside[0] -= 1
        return OK

    dynamodb.answer = answer  # type: ignore[method-assign]
    yield seen
    barrier.abort()


def test_as_many_puts_are_under_way_as_documented_and_never_more(
    function: ModuleType,
    crowd: list[int],
    dynamodb: FakeDynamoDB,
) -> None:
    count = 4 * CONCURRENCY
    for batch_id in ("b1", "b2"):
        answer = function.handler(
            {"batch_id": batch_id, "size_bytes": 1, "count": count, "mode": "concurrent"}, CONTEXT
        )
        assert (answer["written"], answer["consumed_wru"], answer["put_ms"]["n"]) == (count, count, count)
    assert sorted(map(seq_of, dynamodb.puts)) == sorted([*range(count)] * 2)
    assert max(crowd) == CONCURRENCY
    assert sum(thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate()) >= CONCURRENCY


def test_after_the_first_error_no_put_begins_and_those_under_way_are_awaited(
    function: ModuleType,
    dynamodb: FakeDynamoDB,
    capsys: pytest.CaptureFixture[str],
) -> None:
    all_there, refused = threading.Barrier(CONCURRENCY), threading.Event()

    def answer(put: dict[str, Any]) -> dict[str, Any]:
        if seq_of(put) < CONCURRENCY:
            all_there.wait(30)
        if seq_of(put) == 3:
            refused.set()
            return DENIED
        refused.wait(30)
        return OK

    dynamodb.answer = answer  # type: ignore[method-assign]
    found = function.handler({"batch_id": "b", "size_bytes": 1, "count": 4096, "mode": "concurrent"}, CONTEXT)
    puts = len(dynamodb.puts)
    assert found == {"error": {"code": "WriteFailed", "message": "item 3 could not be written: AccessDeniedException"}}
    record = json.loads(capsys.readouterr().out)
    assert CONCURRENCY <= puts < 4096
    assert record["written"] == record["put_ms"]["n"] == record["consumed_wru"] == puts - 1


def test_when_every_put_fails_each_thread_stops_at_its_first(
    function: ModuleType,
    dynamodb: FakeDynamoDB,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dynamodb.answers = [DENIED]
    found = function.handler({"batch_id": "b", "size_bytes": 1, "count": 100, "mode": "concurrent"}, CONTEXT)
    assert found["error"]["message"].endswith("could not be written: AccessDeniedException")
    assert len(dynamodb.puts) <= CONCURRENCY
    assert json.loads(capsys.readouterr().out)["written"] == 0


def test_an_unexpected_exception_in_a_thread_shows_only_its_type(
    function: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(function._service._writer, "_put", fail)
    answer = function.handler({"batch_id": "b", "mode": "concurrent"}, CONTEXT)
    assert answer == {"error": {"code": "InternalError", "message": "internal error"}}
    log = capsys.readouterr()
    assert json.loads(log.out)["error_type"] == "ZeroDivisionError"
    assert "secret" not in log.out + log.err


def test_the_largest_call_is_within_dynamodbs_16_mb(
    function: ModuleType,
    dynamodb: FakeDynamoDB,
) -> None:
    message = {"batch_id": "b" * 256, "label": "l" * 64, "size_bytes": 400_000, "count": BATCH_ITEMS, "mode": "batch"}
    assert function.handler(message, CONTEXT)["written"] == BATCH_ITEMS
    (call,) = dynamodb.puts
    assert len(json.dumps(call)) < 16_000_000


def test_the_wait_before_unprocessed_items_are_sent_again_doubles_up_to_its_bound() -> None:
    for tries in range(20):
        bound = min(FIRST_BACKOFF_S * 2**tries, LONGEST_BACKOFF_S)
        draws = [backoff_s(tries) for _ in range(1000)]
        assert bound * 0.9 < max(draws) <= bound
        assert 0 <= min(draws) < bound * 0.1
