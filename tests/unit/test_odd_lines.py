"""Whatever stands in a log: the readers raise nothing but their own error, and a broken line costs only itself."""

import json
import re
from typing import Any

import msgspec
from fuzz import examples
from hypothesis import given
from hypothesis import strategies as st

from lambdalab.logs.observations import Observations, observe, observe_blocks
from lambdalab.logs.platform_lines import (
    INIT_APART,
    MalformedLineError,
    billed_ms,
    is_platform_line,
    parse_record,
    parse_report,
    render_report,
    request_id_of,
)
from lambdalab.logs.report_lines import read_block
from lambdalab.records.trials import FunctionRecord, LogLine, PlatformReport

ID = "8f507cfc-xmpl-4697-b07a-ac58fc914c95"
OTHER_IDS = ("a", "b", "c")
REPORT = (
    f"REPORT RequestId: {ID}\tDuration: 15.74 ms\tBilled Duration: 147 ms\tMemory Size: 128 MB\tMax Memory Used: 56 MB"
    "\tInit Duration: 130.49 ms\tStatus: error\tError Type: Runtime.ExitError\n"
)
JSON_REPORT = json.dumps(
    {
        "time": "2026-11-21T10:00:00.000Z",
        "type": "platform.report",
        "record": {
            "requestId": ID,
            "status": "success",
            "metrics": {"durationMs": 15.74, "billedDurationMs": 147, "memorySizeMB": 128, "maxMemoryUsedMB": 56}
            | {"initDurationMs": 130.49},
        },
    }
)
RECORD = json.dumps(
    {
        "_aws": {"Timestamp": 1, "CloudWatchMetrics": []},
        "lang": "go",
        "request_id": ID,
        "batch_id": "b",
        "written": 1,
        "put_ms": {"n": 1, "p50": 1.5, "p95": 1.5, "max": 1.5},
        "consumed_wru": 2.0,
        "cold_start": True,
        "started_ms": 1,
        "finished_ms": 2,
        "error": {"code": "X", "message": "m"},
    }
)
START = f"START RequestId: {ID} Version: $LATEST\n"
ANY_CHARACTER = st.characters(exclude_categories=())
PIECES = st.one_of(
    st.text(ANY_CHARACTER, max_size=6),
    st.sampled_from(["\t", "\n", "\r", " ms", " MB", ": ", '"', "{", "}", "[" * 5000, "null", "-", "e9", "9" * 400]),
    st.sampled_from(["NaN", "1e400", "0.0000000001", "Duration: 1.00 ms", "REPORT RequestId: ", "\ud800", "\x00"]),
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A line of Lambda's or a function's, of which something is lost, changed or more."""
    line = draw(st.sampled_from([REPORT, JSON_REPORT, RECORD, START]))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(line)))
        line = line[:at] + draw(PIECES) + line[at + draw(st.sampled_from([0, 0, 1, 2, 30])) :]
    return line


ODD_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(ANY_CHARACTER, max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)


def wrong_member(value: Any, path: list[str | int], other: object) -> Any:
    """A value with another at a path."""
    if not path:
        return other
    copy: Any = list(value) if isinstance(value, list) else dict(value)
    copy[path[0]] = wrong_member(value[path[0]], path[1:], other)
    return copy


def paths(value: Any) -> list[list[str | int]]:
    """Every place in a JSON value."""
    members: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [[], *([key, *path] for key, member in members for path in paths(member))]


WRONG = st.sampled_from([JSON_REPORT, RECORD]).flatmap(
    lambda line: st.builds(
        lambda path, other: json.dumps(wrong_member(json.loads(line), path, other)),
        st.sampled_from(paths(json.loads(line))),
        ODD_JSON,
    )
)
LINES = st.one_of(damaged(), damaged(), WRONG, st.text(ANY_CHARACTER))


def read(message: str) -> PlatformReport | FunctionRecord | None:
    """All that a reader finds in a line; what it raises is its own error, and shows the line."""
    try:
        return parse_report(message) or parse_record(message)
    except MalformedLineError as error:
        assert len(str(error)) < 2500  # noqa: PT017 - of the 300 characters it shows each may be ten
        assert "\n" not in str(error)  # noqa: PT017
        return None


@examples(1500)
@given(LINES)
def test_any_line_is_read_or_refused(message: str) -> None:
    found = read(message)
    is_platform_line(message)
    owner = request_id_of(message)
    if isinstance(found, FunctionRecord):
        assert owner == found.request_id
    if isinstance(found, PlatformReport):
        assert found.duration_ms >= 0
        assert found.billed_ms is None or found.billed_ms >= 0
        assert found.memory_mb is None or found.memory_mb > 0
        assert isinstance(found.request_id, str)
        assert found.request_id


TIMES = st.integers(0, 90_000_000).map(lambda hundredths: hundredths / 100)
REPORTS = st.builds(
    lambda duration_ms, init_ms, end, **given: PlatformReport(
        duration_ms=duration_ms, init_ms=init_ms, billed_ms=billed_ms(duration_ms, init_ms), **given, **end
    ),
    duration_ms=TIMES,
    init_ms=st.none() | TIMES,
    request_id=st.from_regex(r"[0-9A-Za-z-]{1,40}", fullmatch=True),
    memory_mb=st.integers(129, 10_240),
    max_memory_mb=st.none() | st.integers(1, 128),
    end=st.sampled_from([{}, {"status": "timeout"}, {"status": "error", "error_type": "Runtime.ExitError"}]),
)


@examples(500)
@given(REPORTS)
def test_what_is_rendered_is_read_back(report: PlatformReport) -> None:
    assert parse_report(render_report(report)) == report


def as_line(number: int, message: str) -> LogLine:
    return LogLine(log_group="/aws/lambda/one", log_stream="s", timestamp_ms=number, message=message, event_id="e")


def of_good_ones(observations: Observations) -> list[object]:
    return [observed for observed in observations if observed.request_id in OTHER_IDS]


@examples(400)
@given(st.lists(LINES, max_size=4), st.randoms(use_true_random=False))
def test_a_broken_line_costs_only_itself(broken: list[str], order: Any) -> None:
    good = [
        as_line(number, text.replace(ID, name))
        for number, name in enumerate(OTHER_IDS)
        for text in (REPORT, JSON_REPORT, RECORD, START)
    ]
    # one that came to bear the name of a good one would be of that one
    unlike = [line for line in broken if request_id_of(line) not in OTHER_IDS and not lone(line) and not apart(line)]
    odd = [as_line(9, line) for line in unlike]
    alone = of_good_ones(observe(good))
    lines = list(good)
    for line in odd:
        lines.insert(order.randrange(len(lines) + 1), line)
    content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    for observations in (observe(lines), observe_blocks([read_block(content)])):
        assert of_good_ones(observations) == alone
        assert observations.damaged_lines == sum(damages(line.message) for line in odd)


def apart(text: str) -> bool:
    """Whether a text became a line of provisioned concurrency, which tells of its whole group."""
    found = read(text)
    return isinstance(found, PlatformReport) and found.unpriced == INIT_APART


def lone(text: str) -> bool:
    """Whether a text has a lone surrogate: no log line read from a file can."""
    return re.search("[\ud800-\udfff]", text) is not None


def damages(message: str) -> bool:
    try:
        parse_report(message) or parse_record(message)
    except MalformedLineError:
        return True
    return False


BLOCK = b"".join(
    msgspec.json.encode(as_line(number, text)) + b"\n"
    for number, text in enumerate((REPORT, JSON_REPORT, RECORD, START))
)


@examples(800)
@given(st.lists(st.tuples(st.integers(0, len(BLOCK)), st.binary(max_size=4), st.integers(0, 20)), max_size=4))
def test_any_bytes_are_read_or_refused_with_a_value_error(changes: list[tuple[int, bytes, int]]) -> None:
    content = BLOCK
    for at, put, lost in changes:
        content = content[:at] + put + content[at + lost :]
    content = content[: content.rfind(b"\n") + 1]
    try:
        block = read_block(content)
    except ValueError:
        return
    assert len(list(observe_blocks([block]))) <= content.count(b"\n")
