r"""REPORT lines by the million: blocks of ``platform.jsonl`` into columns, without an object for each line. Pure.

One expression over the bytes of a block finds the lines that are exactly an ordinary REPORT line of Lambda's (its
fields in Lambda's order, no status) as ``RunDirectory`` writes it, so these are never decoded. Those whose numbers also
pass every check of ``platform_log.parse_report`` become columns; every other line is left to the JSON decoder and that
tolerant reader. So the result is the same as reading line by line; a differential test holds the two together.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Final

import msgspec

from lambdalab.model import LogLine
from lambdalab.platform_log import BINARY_SLACK_MS, PRINT_SLACK_MS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_TEXT: Final = r"[ !#-\[\]-~]*"
"""What stands in JSON as it is: printable ASCII without quote and backslash."""
_TIME: Final = r"([0-9]{1,12}\.[0-9]{1,6}) ms"
_ORDINARY: Final = re.compile(
    rf'{{"log_group":"({_TEXT})","log_stream":"{_TEXT}","timestamp_ms":(0|[1-9][0-9]{{0,14}}),"message":"'
    rf"(REPORT RequestId: ([0-9A-Za-z-]+)\\tDuration: {_TIME}\\tBilled Duration: ([0-9]{{1,12}}) ms"
    rf"\\tMemory Size: ([1-9][0-9]{{0,11}}) MB\\tMax Memory Used: ([1-9][0-9]{{0,11}}) MB"
    rf"(?:\\tInit Duration: {_TIME})?(?:\\t)?(?:\\r)?(?:\\n)?)"
    rf'","event_id":"{_TEXT}"}}\n|([^\n]*)\n'.encode()
)
_DECODER: Final = msgspec.json.Decoder(LogLine)


class Reports(msgspec.Struct, frozen=True):
    """Ordinary reports as columns, in the order of their lines.

    ``request_ids`` are joined by spaces, because a million texts are slow to send to another process. ``log_group``
    holds places in ``log_groups``; ``init_ms`` is NaN where none is printed.
    """

    request_ids: str
    log_groups: Sequence[str]
    log_group: "Integers"
    began_ms: "Integers"
    message_bytes: "Integers"
    duration_ms: "Floats"
    billed_ms: "Floats"
    memory_mb: "Floats"
    max_memory_mb: "Floats"
    init_ms: "Floats"


class Block(msgspec.Struct, frozen=True):
    """Some log lines: the ordinary reports as columns, the others as they are, and which of all lines these are."""

    reports: Reports | None
    others: Sequence[LogLine] = ()
    places: Sequence[int] = ()
    """Of the others, among all lines of the block."""


def read_block(content: bytes) -> Block:
    """Read whole lines of ``platform.jsonl``, each with its line end.

    Raises:
        ValueError: a line is not JSON, not UTF-8, or no log line.
    """
    import numpy as np  # here, because most commands never need it

    rows = _ORDINARY.findall(content)
    ordinary = np.array([bool(row[1]) for row in rows], bool)
    reports, others = None, [row[-1] for row in compress(rows, ~ordinary)]
    if reported := list(compress(rows, ordinary)) if others else rows:
        reports, passed = _columns(reported)
        ordinary[ordinary] = passed
        if not passed.all():
            others = list(compress(content.split(b"\n"), ~ordinary))
    return Block(reports, [_DECODER.decode(line) for line in others], np.flatnonzero(~ordinary).tolist())


def _columns(rows: Sequence[tuple[bytes, ...]]) -> "tuple[Reports | None, NDArray[np.bool_]]":
    """The reports that pass every check, and which these are."""
    import numpy as np

    groups, began, messages, ids, durations, billed, memory, peaks, inits, _ = zip(*rows, strict=True)
    names: dict[bytes, int] = {}
    columns = {
        "log_group": np.array([names.setdefault(group, len(names)) for group in groups], np.int64),
        "began_ms": np.array([*map(int, began)], np.int64),
        "message_bytes": np.array([len(message) - message.count(b"\\") for message in messages], np.int64),
        "duration_ms": np.array([*map(float, durations)]),
        "billed_ms": np.array([*map(float, billed)]),
        "memory_mb": np.array([*map(float, memory)]),
        "max_memory_mb": np.array([*map(float, peaks)]),
        "init_ms": np.array([float(init or b"nan") for init in inits]),
    }
    passed = _passes(columns)
    if not passed.all():
        ids = tuple(compress(ids, passed))
        columns = {name: column[passed] for name, column in columns.items()}
    if not ids:
        return None, passed
    return Reports(b" ".join(ids).decode(), [name.decode() for name in names], **columns), passed


def _passes(columns: "Mapping[str, Floats]") -> "NDArray[np.bool_]":
    """Whether ``parse_report`` would take the report for a measurement; the same arithmetic, term by term."""
    import numpy as np

    init_ms, billed_ms = columns["init_ms"], columns["billed_ms"]
    cold = ~np.isnan(init_ms)
    total = columns["duration_ms"] + np.where(cold, init_ms, 0) + 0
    slack = np.where(cold, 2 * PRINT_SLACK_MS, PRINT_SLACK_MS)
    least = np.ceil(total - slack - BINARY_SLACK_MS)
    most = np.ceil(total + slack - BINARY_SLACK_MS)
    passed: NDArray[np.bool_] = (
        (least <= billed_ms) & (billed_ms <= most) & (columns["max_memory_mb"] != columns["memory_mb"])
    )
    return passed
