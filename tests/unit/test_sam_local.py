"""What counts as a difference between a function in a container and one in the plane."""

from typing import Any

import pytest

from lambdalab.invoke.sam_local import difference
from lambdalab.run.ingest import batch_ids_in

ITEM = {"pk": {"S": "batch_id#a"}, "sk": {"S": "seq#1"}, "t_start_ms": {"N": "1"}, "cold_start": {"BOOL": True}}
OUTCOME: dict[str, Any] = {"answer": {"written": 1, "request_id": "a"}, "failed": False, "items": [ITEM]}


def changed(**members: Any) -> dict[str, Any]:
    return OUTCOME | members


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (OUTCOME, None),
        (changed(answer={"written": 1, "request_id": "b"}), None),
        (changed(items=[ITEM | {"t_start_ms": {"N": "2"}, "cold_start": {"BOOL": False}}]), None),
        (changed(answer={"written": 2, "request_id": "b"}), "answer.written is 2, in the plane 1"),
        (changed(answer={"written": 1}), "answer.request_id is absent, unlike in the plane"),
        (changed(answer=OUTCOME["answer"] | {"more": 1}), "answer.more is there, unlike in the plane"),
        (changed(answer="text"), 'answer is "text", in the plane {"written": 1, "request_id": "a"}'),
        (changed(failed=True), "failed is true, in the plane false"),
        (changed(items=[]), "items has 0, in the plane 1"),
        (changed(items=[ITEM | {"sk": {"S": "seq#2"}}]), 'items[0].sk.S is "seq#2", in the plane "seq#1"'),
    ],
)
def test_what_is_a_difference(found: dict[str, Any], said: str | None) -> None:
    assert difference(OUTCOME, found) == said


def test_messages_of_an_event_by_either_entry() -> None:
    assert batch_ids_in(b'{"batch_id": "a:1", "count": 2}') == ["a:1"]
    assert batch_ids_in(rb'{"Records": [{"body": "{\"batch_id\":\"a\"}"}, {"body": "{\"batch_id\": \"b\"}"}]}') == [
        "a",
        "b",
    ]
    assert batch_ids_in(b"[]") == []
