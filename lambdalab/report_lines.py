r"""REPORT lines by the million: blocks of log lines into columns, without an object for each line. Pure.

One expression over the messages of a block finds the lines that are exactly an ordinary REPORT line of Lambda's (its
fields in Lambda's order, no status). Those whose numbers also pass every check of ``platform_log.parse_report`` become
columns; every other line is left to that tolerant reader. So the result is the same as reading line by line; a
differential test holds the two together.
"""

import re
from array import array
from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING, Final

import msgspec

from lambdalab.model import LogLine
from lambdalab.platform_log import BINARY_SLACK_MS, PRINT_SLACK_MS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_END: Final = "\0"
"""Closes a message; a block in which a message holds it is read line by line."""
_TIME: Final = r"([0-9]{1,12}\.[0-9]{1,6}) ms"
_ORDINARY: Final = re.compile(
    rf"REPORT RequestId: ([0-9A-Za-z-]+)\tDuration: {_TIME}\tBilled Duration: ([0-9]{{1,12}}) ms"
    rf"\tMemory Size: ([1-9][0-9]{{0,11}}) MB\tMax Memory Used: ([1-9][0-9]{{0,11}}) MB"
    rf"(?:\tInit Duration: {_TIME})?\t?\r?\n?{_END}|([^{_END}]*){_END}"
)


class Reports(msgspec.Struct, frozen=True):
    """Ordinary reports as columns, in the order of their lines; ``init_ms`` is NaN where none is printed."""

    request_id: Sequence[str]
    duration_ms: "Floats"
    billed_ms: "Floats"
    memory_mb: "Floats"
    max_memory_mb: "Floats"
    init_ms: "Floats"


class Block(msgspec.Struct, frozen=True):
    """Some log lines: for each whether it is an ordinary report; those as columns, the others as they are."""

    ordinary: Sequence[bool]
    reports: Reports | None
    log_groups: Sequence[str] = ()
    began_ms: Sequence[int] = ()
    message_bytes: Sequence[int] = ()
    others: Sequence[LogLine] = ()


def read_block(lines: Sequence[LogLine]) -> Block:
    """Read the ordinary REPORT lines among log lines of any kind."""
    ordinary, reports = _read_reports(lines)
    if reports is None:
        return Block(ordinary, None, others=lines)
    taken = lines if all(ordinary) else list(compress(lines, ordinary))
    return Block(
        ordinary,
        reports,
        log_groups=[line.log_group for line in taken],
        began_ms=array("q", [line.timestamp_ms for line in taken]),
        message_bytes=array("q", [len(line.message) for line in taken]),  # an ordinary report is ASCII
        others=[] if taken is lines else [line for line, was in zip(lines, ordinary, strict=True) if not was],
    )


def _read_reports(lines: Sequence[LogLine]) -> tuple[list[bool], Reports | None]:
    import numpy as np  # here, because most commands never need it

    rows = _ORDINARY.findall(_END.join([line.message for line in lines]) + _END)
    if len(rows) != len(lines):  # a message holds the character that should close it
        return [False] * len(lines), None
    ids, durations, billed, memory, peaks, inits, _ = zip(*rows, strict=True) if rows else [()] * 7
    found = [True] * len(rows) if all(ids) else [bool(request_id) for request_id in ids]
    if not any(found):
        return found, None
    if not all(found):
        ids, durations, billed, memory, peaks, inits, _ = zip(*compress(rows, found), strict=True)
    reports = Reports(
        request_id=ids,
        duration_ms=np.array([*map(float, durations)]),
        billed_ms=np.array([*map(float, billed)]),
        memory_mb=np.array([*map(float, memory)]),
        max_memory_mb=np.array([*map(float, peaks)]),
        init_ms=np.array([float(init) if init else np.nan for init in inits]),
    )
    good = _passes(reports)
    if good.all():
        return found, reports
    passed = iter(good.tolist())
    kept = Reports(
        request_id=list(compress(ids, good)),
        **{name: getattr(reports, name)[good] for name in Reports.__struct_fields__[1:]},
    )
    return [was and next(passed) for was in found], kept


def _passes(reports: Reports) -> "NDArray[np.bool_]":
    """Whether ``parse_report`` would take the report for a measurement; the same arithmetic, term by term."""
    import numpy as np

    cold = ~np.isnan(reports.init_ms)
    total = reports.duration_ms + np.where(cold, reports.init_ms, 0) + 0
    slack = np.where(cold, 2 * PRINT_SLACK_MS, PRINT_SLACK_MS)
    least = np.ceil(total - slack - BINARY_SLACK_MS)
    most = np.ceil(total + slack - BINARY_SLACK_MS)
    billed = reports.billed_ms
    passed: NDArray[np.bool_] = (least <= billed) & (billed <= most) & (reports.max_memory_mb != reports.memory_mb)
    return passed
