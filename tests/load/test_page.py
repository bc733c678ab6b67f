"""What the page Pipeline is told, state by state; the page itself is in tests/browser."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from samples import make_manifest

from lambdalab.load.page import answer_of
from lambdalab.records import trial_files
from lambdalab.records.load import PipelineSample, QueueSample
from lambdalab.records.trial_files import RunDirectory

PLAN = {"shape": "steps", "arrivals": "constant", "languages": {"go": 1}}


def sample(second: int) -> PipelineSample:
    queue = QueueSample(visible=second, in_flight=1, dead_letters=0)
    return PipelineSample(
        at_ms=1000 * second, phase="hold", step=1, intended=second, sent=second, given_up=0, done=0, arms={"go": queue}
    )


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    """As much of a recording as the page reads."""
    return SimpleNamespace(store=RunDirectory.create(tmp_path, make_manifest(load=PLAN)), is_open=True)


def test_without_a_run_there_is_nothing_to_tell() -> None:
    assert answer_of(None, None, 0).state == "off"
    nothing: Any = SimpleNamespace(store=None, is_open=False)
    assert (answer_of(nothing, None, 0).state, answer_of(nothing, None, 0).run_id) == ("idle", None)


def test_a_run_is_open_until_its_report_is_there_or_nobody_writes_it(kept: Any) -> None:
    assert answer_of(kept, None, 0).state == "open"
    kept.is_open = False
    assert answer_of(kept, None, 0).state == "broken"
    kept.store.write_report("page")
    assert answer_of(kept, None, 0).state == "closed"


def test_samples_go_on_where_the_last_answer_ended_and_begin_again_with_another_run(kept: Any) -> None:
    run_id = kept.store.folder.name
    kept.store.append_sample(sample(1))
    first = answer_of(kept, None, 0)
    assert (first.run_id, first.plan, first.samples) == (run_id, PLAN, [sample(1)])
    kept.store.append_sample(sample(2))
    second = answer_of(kept, run_id, first.position)
    assert (second.plan, second.samples) == (None, [sample(2)])
    assert answer_of(kept, run_id, second.position).samples == []
    assert answer_of(kept, "another", second.position).samples == [sample(1), sample(2)]
    assert answer_of(kept, run_id, -7).samples == [sample(1), sample(2)]


def test_a_long_run_comes_in_parts(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_files, "_SAMPLES_BYTES", 1000)
    for second in range(20):
        kept.store.append_sample(sample(second))
    found: list[PipelineSample] = []
    position = parts = 0
    while (answer := answer_of(kept, kept.store.folder.name, position)).samples:
        found += answer.samples
        position, parts = answer.position, parts + 1
    assert found == [sample(second) for second in range(20)]
    assert parts > 4
