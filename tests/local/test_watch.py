"""What a watched invocation wrote, found among the lines of all."""

import asyncio

import pytest

from lambdalab.local import watch as module
from lambdalab.local.watch import Watches


async def test_lines_are_found_by_the_stream_that_started_the_invocation() -> None:
    watches = Watches()
    watches.emit("a", "nobody watches\n")
    watches.open("one")
    for stream, line in (
        ("a", "init of a\n"),
        ("b", "START RequestId: two Version: $LATEST\n"),
        ("a", "START RequestId: one Version: $LATEST\n"),
        ("b", "of two\n"),
        ("a", "of one\n"),
        ("b", "REPORT RequestId: two\tDuration\n"),
        ("a", "REPORT RequestId: one\tDuration\n"),
        ("a", "of the next\n"),
    ):
        watches.emit(stream, line)
    found = await watches.read("one", 0)
    starts = [line.split("\t")[0].strip() for line in found["lines"]]
    assert starts == ["init of a", "START RequestId: one Version: $LATEST", "of one", "REPORT RequestId: one"]
    assert (found["next"], found["skipped"], found["done"]) == (4, 0, False)
    watches.close("one")
    assert await watches.read("one", 3) == {"lines": found["lines"][3:], "skipped": 0, "next": 4, "done": True}


async def test_reader_may_come_first_and_waits_for_a_line() -> None:
    watches = Watches()
    reading = asyncio.create_task(watches.read("one", 0))
    await asyncio.sleep(0)
    watches.open("one")
    watches.add("one", "first")
    assert (await reading)["lines"] == ["first"]


async def test_unknown_invocation_has_no_lines_and_is_not_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.0)
    assert await Watches().read("none", 5) == {"lines": [], "skipped": 0, "next": 5, "done": False}


async def test_what_is_not_kept_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_LINES", 3)
    watches = Watches()
    watches.open("one")
    for number in range(10):
        watches.add("one", str(number))
    found = await watches.read("one", 2)
    assert (found["lines"], found["skipped"], found["next"]) == (["7", "8", "9"], 5, 10)


async def test_what_was_kept_is_forgotten_some_time_after_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_S", 0.0)
    monkeypatch.setattr(module, "_WAIT_S", 0.0)
    watches = Watches()
    watches.open("one")
    watches.emit("a", "before\n")
    watches.close("one")
    await asyncio.sleep(0.01)
    assert (await watches.read("one", 0))["done"] is False
    assert vars(watches) == {"_watches": {}, "_before": {}, "_running": {}}
