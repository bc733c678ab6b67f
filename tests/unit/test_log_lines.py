"""Reading a log group with Logs Insights: no line is lost, however many come at once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_logs import FakeLogs
from samples import BEGAN_MS, make_manifest

from lambdalab.aws.clients import Aws
from lambdalab.aws.stack import Stack
from lambdalab.errors import AccessError
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import LogLine
from lambdalab.run.target import AwsTarget

CROWDED = "^up to 1,000 lines of log group lab could not be read: they share a millisecond with 10,000 others, and"


def target_of(logs: FakeLogs) -> AwsTarget:
    aws = Aws(endpoint_url="http://127.0.0.1:9")
    aws.__dict__["logs"] = logs
    target = AwsTarget(aws, Stack(name="lab", outputs={}, parameters={}, resources={}, types={}))
    target.poll_s = 0.0
    return target


def read(logs: FakeLogs, since_ms: int = BEGAN_MS) -> Iterator[LogLine]:
    return target_of(logs).log_lines("lab", since_ms)


@pytest.mark.parametrize("page_rows", [10_000, 3_000])
def test_a_second_with_more_lines_than_a_query_returns_is_read_whole(page_rows: int) -> None:
    before = [BEGAN_MS + 17 * i for i in range(8_000)]
    crowd = [BEGAN_MS + 200_000 + i // 12 for i in range(12_000)]  # twelve a millisecond, a second long
    after = [BEGAN_MS + 300_000 + i for i in range(5_000)]
    logs = FakeLogs([*after, *crowd, *before], page_rows)
    lines = list(read(logs))
    assert sorted(line.timestamp_ms for line in lines) == [*before, *crowd, *after]
    assert len({line.event_id for line in lines}) == 25_000, "each once"
    assert logs.queries == 3


@pytest.mark.parametrize("count", [0, 1, 9_999, 10_000, 10_001])
def test_every_number_of_lines_is_read(count: int) -> None:
    assert len(list(read(FakeLogs([BEGAN_MS + i // 2 for i in range(count)])))) == count


def test_lines_before_the_moment_are_left_out_within_its_second_too() -> None:
    logs = FakeLogs([BEGAN_MS + 400, BEGAN_MS + 500, BEGAN_MS + 600])
    assert [line.timestamp_ms - BEGAN_MS for line in read(logs, BEGAN_MS + 500)] == [500, 600]


def test_a_millisecond_with_more_lines_than_a_query_returns_says_how_many_are_missing(tmp_path: Path) -> None:
    logs = FakeLogs([BEGAN_MS, *[BEGAN_MS + 5] * 11_000, *[BEGAN_MS + 6 + i for i in range(3)]])
    store = RunDirectory.create(tmp_path, make_manifest())
    with pytest.raises(AccessError, match=CROWDED):
        store.append_log_lines(read(logs))
    kept = store.log_lines()
    assert len(kept) >= 1 + 10_000 + 3, "what can be read is kept"
    assert kept[-1].timestamp_ms == BEGAN_MS + 8
    with pytest.raises(AccessError):
        store.append_log_lines(read(logs))
