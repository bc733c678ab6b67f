"""Reading by the block is reading line by line: the same result for every line, in every order."""

import multiprocessing
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import BEGAN_MS, make_manifest

from lambdalab.errors import StorageError
from lambdalab.logs.observations import Observations, Observed, observe_blocks, observe_run
from lambdalab.logs.platform_lines import FULL_MEMORY, INIT_APART
from lambdalab.logs.report_lines import Block, read_block
from lambdalab.records import record_files
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import LogLine

ID = "8f507cfc-xmpl-4697-b07a-ac58fc914c95"
FIELDS = [
    *("Duration: 15.74 ms", "Duration: 2.00 ms", "Duration: 15 ms", "Duration: 1e3 ms", "Duration: 15.74"),
    *("Billed Duration: 147 ms", "Billed Duration: 16 ms", "Billed Duration: 2 ms", "Billed Duration: 3 ms"),
    *("Memory Size: 128 MB", "Memory Size: 0 MB", "Max Memory Used: 56 MB", "Max Memory Used: 0 MB"),
    *("Max Memory Used: 128 MB", "Init Duration: 130.49 ms", "Init Duration: 130 ms", "Init Duration: nan ms"),
    *("Init Duration: ms", "Duration: ms", "Billed Duration: ms", "Memory Size: MB"),
    *("Restore Duration: 398.97 ms", "Billed Restore Duration: 182 ms", "Status: timeout", "Status: error"),
    *("Error Type: Runtime.ExitError", "XRAY TraceId: 1-5e34", "Colour Depth: 24 bit", ""),
]
GOOD = [
    ["Duration: 15.74 ms", "Billed Duration: 16 ms", "Memory Size: 128 MB", "Max Memory Used: 56 MB"],
    [
        *("Duration: 15.74 ms", "Billed Duration: 147 ms", "Memory Size: 128 MB", "Max Memory Used: 56 MB"),
        "Init Duration: 130.49 ms",
    ],
    ["Duration: 2.00 ms", "Billed Duration: 3 ms", "Memory Size: 128 MB", "Max Memory Used: 56 MB"],
    ["Duration: 2.00 ms", "Billed Duration: 4 ms", "Memory Size: 128 MB", "Max Memory Used: 56 MB"],
    ["Duration: 15.74 ms", "Billed Duration: 16 ms", "Memory Size: 128 MB", "Max Memory Used: 128 MB"],
    [
        "Duration: 15.74 ms",
        "Billed Duration: 16 ms",
        "Memory Size: 128 MB",
        "Max Memory Used: 56 MB",
        "Init Duration: ms",
    ],
]
FEW_IDS = st.sampled_from([ID, "a", "b", "c-d", "\u00e9", "", "two words"])
ENDS = st.sampled_from(["", "\n", "\t\n", "\r\n", "\t", "\n\n", "\0", " "])
REPORTS = st.builds(
    lambda request_id, fields, end: "\t".join([f"REPORT RequestId: {request_id}", *fields]) + end,
    FEW_IDS,
    st.one_of(st.sampled_from(GOOD), st.sampled_from(GOOD).flatmap(st.permutations), st.lists(st.sampled_from(FIELDS))),
    ENDS,
)
OTHERS = st.one_of(
    st.builds("START RequestId: {} Version: $LATEST\n".format, FEW_IDS),
    st.builds('{{"_aws":{{}},"request_id":"{}","lang":"go","cold_start":true}}\n'.format, FEW_IDS),
    st.text(),
)
LINES = st.lists(
    st.builds(
        LogLine,
        log_group=st.sampled_from(["/aws/lambda/one", "/aws/lambda/two"]),
        log_stream=st.just("s"),
        timestamp_ms=st.one_of(st.integers(0, 2**50), st.integers(10**12 - 2, 10**13 + 2)),
        message=st.one_of(REPORTS, REPORTS, OTHERS),
        event_id=st.just("e"),
    )
)


def found(observations: Observations) -> tuple[int, list[Observed]]:
    return observations.damaged_lines, list(observations)


def written(lines: list[LogLine]) -> bytes:
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def line_by_line(lines: list[LogLine]) -> Observations:
    return observe_blocks([Block(None, [line], [0]) for line in lines])


@settings(max_examples=400, deadline=None)
@given(LINES)
def test_blocks_and_single_lines_give_the_same(lines: list[LogLine]) -> None:
    half = len(lines) // 2
    blocks = observe_blocks([read_block(written(lines[:half])), read_block(written(lines[half:]))])
    assert found(blocks) == found(line_by_line(lines))


def decoded(content: bytes) -> list[LogLine] | None:
    """Whole lines; None when one of them is no log line."""
    try:
        return [msgspec.json.decode(line, type=LogLine) for line in content.split(b"\n")[:-1]]
    except ValueError:
        return None


@pytest.mark.parametrize("fields", GOOD[:2], ids=["warm", "cold"])
def test_an_ordinary_line_with_any_byte_taken_out_changed_or_put_in(fields: list[str]) -> None:
    """Also when that makes it no JSON, or two lines."""
    ordinary = written(
        [
            LogLine(
                log_group="/aws/lambda/one",
                log_stream="2026/11/21/[$LATEST]0",
                timestamp_ms=BEGAN_MS,
                message="\t".join([f"REPORT RequestId: {ID}", *fields]) + "\t\n",
                event_id="e",
            )
        ]
    )
    whole, lines = [ordinary], decoded(ordinary) or []
    for place in range(len(ordinary) - 1):
        for put in (
            b"",
            b"0",
            b"7",
            b"/",
            b":",
            b".",
            b",",
            b" ",
            b"m",
            b'"',
            b"\\",
            b"\n",
            b"\0",
            b"\x7f",
            b"\xc3\xa9",
        ):
            for after in (place, place + 1):
                changed = ordinary[:place] + put + ordinary[after:]
                if (read := decoded(changed)) is not None:
                    whole.append(changed)
                    lines += read
                else:
                    with pytest.raises(ValueError):  # noqa: PT011 - the store says where it is
                        read_block(changed)
    assert len(lines) > 1000
    assert found(observe_blocks([read_block(b"".join(whole))])) == found(line_by_line(lines))


@dataclass
class Log:
    store: RunDirectory
    lines: list[LogLine]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    """Some hundred lines, in pieces of 1,000 bytes."""
    monkeypatch.setattr(record_files, "_SPAN_BYTES", 1000)
    store = RunDirectory.create(tmp_path / "results", make_manifest())
    lines = [
        LogLine(
            log_group="/aws/lambda/one",
            log_stream="s",
            timestamp_ms=BEGAN_MS + n,
            message="\t".join([f"REPORT RequestId: request-{n % 150}", *GOOD[n % 5]]) + "\t\n",
            event_id=f"{n}",
        )
        for n in range(200)
    ]
    store.append_log_lines(lines)
    return Log(store, lines)


@pytest.mark.parametrize("large", [1, 10**6], ids=["several processes", "one process"])
def test_a_file_in_pieces_is_read_whole_and_in_order(log: Log, monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(record_files, "_LARGE_SPANS", large)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    with (log.store.folder / "platform.jsonl").open("ab") as file:
        file.write(b'{"log_group":"cut off by a cra')
    assert found(observe_run(log.store)) == found(line_by_line(log.lines))


@pytest.mark.parametrize("large", [1, 10**6], ids=["several processes", "one process"])
def test_a_damaged_line_is_named_by_its_number(log: Log, monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(record_files, "_LARGE_SPANS", large)
    path = log.store.folder / "platform.jsonl"
    lines: list[Any] = path.read_bytes().split(b"\n")
    lines[122] = b"{not JSON"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(StorageError, match=r"platform\.jsonl, line 123, is damaged"):
        list(log.store.log_blocks(read_block))


def ended_elsewhere(content: bytes) -> Block:
    """Reads lines, but ends every process that is not the test's own."""
    if multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return read_block(content)


def test_a_worker_that_somebody_ends_is_not_awaited(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_files, "_LARGE_SPANS", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    blocks = log.store.log_blocks(ended_elsewhere)
    assert found(observe_blocks(blocks)) == found(line_by_line(log.lines))


def test_ordinary_lines_are_read_by_the_block(log: Log) -> None:
    block = read_block(written(log.lines))
    assert block.reports is not None
    assert len(block.reports.request_ids.split(" ")) == len(block.reports.init_ms) == 160, (
        "four of five pass all checks"
    )
    assert block.others == [line for n, line in enumerate(log.lines) if n % 5 == 3]
    assert block.places == [n for n in range(200) if n % 5 == 3]


def test_full_memory_is_judged_by_the_whole_group() -> None:
    emulated = (
        "REPORT RequestId: b\tInit Duration: 0.11 ms\tDuration: 95.41 ms\tBilled Duration: 96 ms\tMemory Size: 128 MB"
    )
    apart = "\t".join(["REPORT RequestId: c", *GOOD[0], "Init Duration: 130.49 ms"])
    full = "\t".join(["REPORT RequestId: a", *GOOD[4]]) + "\t\n"

    def judged(*messages: str) -> tuple[str | None, str | None]:
        lines = [as_line(message) for message in messages]
        both = [observe_blocks([read_block(written(lines))]), line_by_line(lines)]
        (first, again) = ([found for found in each if found.request_id == "a"] for each in both)
        assert first == again
        ((observed,),) = [first]
        (report,) = observed.reports
        return report.refused, report.unpriced

    assert judged(full) == (None, None)
    assert judged(full, emulated) == judged(emulated, full) == (FULL_MEMORY, None)
    assert judged(full, apart) == judged(apart, full) == (None, INIT_APART)


def as_line(message: str) -> LogLine:
    return LogLine(log_group="/aws/lambda/one", log_stream="s", timestamp_ms=BEGAN_MS, message=message, event_id="e")
