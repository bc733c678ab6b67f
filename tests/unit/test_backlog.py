"""The overlay of the emulator's queues: the same answers as a list that is walked from end to end."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdalab.local.emulator_server.backlog import Backlog

Message = dict[str, Any]
SECONDS = st.integers(0, 2)
RECEIPT = st.integers(0, 3)
MOVES = st.one_of(
    st.tuples(st.just("send"), SECONDS),
    st.tuples(st.just("take"), st.integers(1, 3), SECONDS),
    st.tuples(st.just("delete"), RECEIPT),
    st.tuples(st.just("hide"), RECEIPT, SECONDS),
    st.tuples(st.just("wait"), SECONDS),
    st.tuples(st.just("give_up"), st.integers(2, 3)),
    st.tuples(st.just("expire"), st.integers(3, 9)),
)


def message(name: int, now: float, delay_s: float = 0) -> Message:
    return {
        "id": name, "sent_at": now, "visible_at": now + delay_s,
        "receipt_handle": None, "receive_count": 0, "first_receive_at": None,
    }  # fmt: skip


class Walked:
    """What SQS does to a queue, written as plainly as it can be."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def delete(self, receipt: str) -> bool:
        found = [m for m in self.messages if m["receipt_handle"] == receipt]
        self.messages = [m for m in self.messages if m["receipt_handle"] != receipt]
        return bool(found)

    def hide(self, receipt: str, until: float) -> bool:
        found = [m for m in self.messages if m["receipt_handle"] == receipt]
        for m in found:
            m["visible_at"] = until
        return bool(found)

    def give_up(self, most: int, now: float) -> list[int]:
        gone = [m for m in self.messages if m["visible_at"] <= now and m["receive_count"] >= most]
        self.messages = [m for m in self.messages if m not in gone]
        return sorted(m["id"] for m in gone)

    def expire(self, before: float) -> None:
        self.messages = [m for m in self.messages if m["sent_at"] > before]

    def counts(self, now: float) -> tuple[int, int, int]:
        hidden = [m for m in self.messages if m["visible_at"] > now]
        in_flight = sum(m["receive_count"] > 0 for m in hidden)
        return len(self.messages) - len(hidden), in_flight, len(hidden) - in_flight


@settings(max_examples=400, deadline=None)
@given(st.lists(MOVES, min_size=20, max_size=40))
def test_answers_are_those_of_a_list_that_is_walked(moves: list[tuple[Any, ...]]) -> None:
    backlog, walked = Backlog(), Walked()
    now, names, receipts = 1000.0, itertools.count(), itertools.count()
    given_out: list[str] = []
    for move, *how in moves:
        match move:
            case "send":
                name = next(names)
                backlog.append(message(name, now, how[0]))
                walked.messages.append(message(name, now, how[0]))
            case "take":
                taken = backlog.take(how[0], now, how[1], lambda: f"receipt-{next(receipts)}")
                visible = {m["id"]: m for m in walked.messages if m["visible_at"] <= now}
                assert len(taken) == min(how[0], len(visible))
                assert len({m["id"] for m in taken}) == len(taken)
                for m in taken:  # which of the visible ones come, SQS leaves open; then both go on with the same
                    same = visible[m["id"]]
                    same |= {"receive_count": same["receive_count"] + 1, "receipt_handle": m["receipt_handle"]}
                    same |= {"visible_at": now + how[1], "first_receive_at": same["first_receive_at"] or now}
                    given_out.append(m["receipt_handle"])
            case "delete" if given_out:
                receipt = given_out[-1 - how[0] % len(given_out)]
                assert backlog.delete(receipt) == walked.delete(receipt)
            case "hide" if given_out:
                receipt = given_out[-1 - how[0] % len(given_out)]
                assert backlog.hide(receipt, now + how[1]) == walked.hide(receipt, now + how[1])
            case "wait":
                now += how[0]
            case "give_up":
                assert sorted(m["id"] for m in backlog.give_up(how[0], now)) == walked.give_up(how[0], now)
            case "expire":
                backlog.expire(now - how[0])
                walked.expire(now - how[0])
        assert list(backlog) == walked.messages
        assert len(backlog) == len(walked.messages)
        assert backlog.counts(now) == walked.counts(now)


def test_first_sent_is_received_first_and_what_came_back_before_it() -> None:
    backlog = Backlog(message(name, 1000) for name in range(6))
    receipts = map(str, itertools.count())
    taken = backlog.take(2, 1000, 5, lambda: next(receipts))
    assert [m["id"] for m in taken] == [0, 1]
    assert [m["id"] for m in backlog.take(10, 1005, 5, lambda: next(receipts))] == [0, 1, 2, 3, 4, 5]


def test_a_call_looks_at_few_of_many_messages() -> None:
    looks = 0

    class Counted(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            nonlocal looks
            looks += 1
            return super().__getitem__(key)

    backlog = Backlog(Counted(message(name, 1000)) for name in range(20_000))
    backlog.take(1, 1000, 30, lambda: "first")
    looks = 0
    receipts = [str(number) for number in range(10)]
    taken = backlog.take(10, 1001, 30, iter(receipts).__next__)
    backlog.give_up(3, 1001)
    backlog.expire(0)
    assert all(map(backlog.delete, receipts))
    assert len(taken) == 10
    assert looks < 200


def test_messages_that_are_gone_leave_nothing_behind() -> None:
    backlog = Backlog()
    for name in range(20_000):  # hidden for half an hour, as a load run's are
        backlog.append(message(name, 1000))
        (taken,) = backlog.take(1, 1000, 1800, lambda: "receipt")
        assert backlog.delete(taken["receipt_handle"])
    assert len(backlog._hidden) + len(backlog._by_age) < 3000


def test_it_is_a_list_to_the_emulators_other_code() -> None:
    first, last = message(0, 1000), message(1, 1000)
    backlog = Backlog([first, last])
    assert backlog[-1] is last
    assert backlog[0] is first
    backlog.remove(first)
    assert list(backlog) == [last]
    with pytest.raises(ValueError, match="no such message"):
        backlog.remove(first)
    backlog.clear()
    assert not backlog


def test_another_version_of_the_emulator_keeps_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend("lambdalab/local/emulator_server")
    from lambdalab.local.emulator_server.overlay import install

    source = tmp_path / "sqs.py"
    source.write_text("# another version")
    module = SimpleNamespace(__file__=str(source), _HANDLERS={})
    assert "not that of the pinned version" in str(install(module))
    assert vars(module) == {"__file__": str(source), "_HANDLERS": {}}
