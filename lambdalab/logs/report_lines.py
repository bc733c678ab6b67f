r"""REPORT lines by the million: blocks of ``platform.jsonl`` into columns, without an object for each line. Pure.

An ordinary REPORT line, as Lambda prints it and ``RunDirectory`` writes it, is a row of known texts with a value
between each two. So its *marks* (quotes, backslashes, line ends) are known too: numpy finds the marks of a whole block
at once, sees whether every text stands where its marks say, and reads the values. Ordinary lines that also pass every
check of ``platform_log.parse_report`` become columns; every other line is left to the JSON decoder and that tolerant
reader. So the result is the same as reading line by line; a differential test holds the two together.
"""

import re
from collections.abc import Sequence
from itertools import accumulate, compress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lambdalab.logs.platform_lines import BINARY_SLACK_MS, PRINT_SLACK_MS
from lambdalab.records.trials import LogLine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]
    Flags = NDArray[np.bool_]

_BEGIN: Final = b"REPORT RequestId: "
_WARM: Final = (
    b'{"log_group":"',
    b'","log_stream":"',
    b'","timestamp_ms":',
    b',"message":"' + _BEGIN,
    rb"\tDuration: ",
    rb" ms\tBilled Duration: ",
    rb" ms\tMemory Size: ",
    rb" MB\tMax Memory Used: ",
    rb' MB\t\n","event_id":"',
    b'"}\n',
)
_COLD: Final = (*_WARM[:8], rb" MB\tInit Duration: ", rb' ms\t\n","event_id":"', b'"}\n')
_MARK: Final = re.compile(rb'["\\\n]')
_IS_MARK: Final = bytes(not 32 <= code <= 126 or code in b'"\\' for code in range(256))
"""What is not printable ASCII as well, so that in a line with such a byte no text stands where its marks say."""
_LONGEST_NAME: Final = 128
"""Of a log group; the rest of an ordinary line is longer."""
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

    marks = np.flatnonzero(np.frombuffer(content.translate(_IS_MARK), bool))
    last_marks = np.flatnonzero(np.frombuffer(content, np.uint8)[marks] == ord("\n"))
    ends = marks[last_marks] + 1
    warm_lines, warm = _find(content, marks, last_marks, _WARM)
    cold_lines, cold = _find(content, marks, last_marks, _COLD)
    order = np.argsort(np.concatenate([warm_lines, cold_lines]))
    warm = warm[[*range(9), 8, 9]]  # a warm line gets an Init Duration that has no room
    reports, passed = _columns(content, np.concatenate([warm, cold], axis=1)[:, order])
    other = np.ones(len(ends), bool)
    other[np.concatenate([warm_lines, cold_lines])[order][passed]] = False
    others = zip(np.append(0, ends[:-1])[other].tolist(), (ends[other] - 1).tolist(), strict=True)
    return Block(
        reports if passed.any() else None,
        [_DECODER.decode(content[begin:end]) for begin, end in others],
        np.flatnonzero(other).tolist(),
    )


def _find(
    content: bytes, marks: "Integers", last_marks: "Integers", texts: Sequence[bytes]
) -> "tuple[Integers, Integers]":
    """Finds the lines that are made of certain texts and values between them: which, and where each text begins.

    Args:
        content: the lines.
        marks: where its marks are.
        last_marks: which of the marks end a line.
        texts: ``_WARM`` or ``_COLD``.
    """
    import numpy as np

    counts = [len(_MARK.findall(known)) for known in texts]
    before = np.append(-1, last_marks)
    lines = np.flatnonzero(np.diff(before) == sum(counts))
    places = np.empty((len(texts), len(lines)), np.int64)
    same = np.ones(len(lines), bool)
    for number, (known, passed_by) in enumerate(zip(texts, accumulate(counts, initial=1), strict=False)):
        places[number] = marks[before[lines] + passed_by] - len(_MARK.split(known)[0])
        same &= _windows(content, f"S{len(known)}", places[number]) == known
    same &= places[0] == np.append(-1, marks[last_marks])[lines] + 1
    return lines[same], places[:, same]


def _columns(content: bytes, places: "Integers") -> "tuple[Reports, Flags]":
    """The reports that pass every check, and which these are.

    Args:
        content: the lines.
        places: where in each ordinary line the texts of ``_COLD`` begin.
    """
    import numpy as np

    begins, ends = places[:-1] + np.array([[len(known)] for known in _COLD[:-1]]), places[1:]
    group, _, began, request_id, duration, billed, memory, max_memory, init, _ = zip(begins, ends, strict=True)
    numbers = [(began[0], began[1] - 8), (began[1] - 8, began[1]), billed, memory, max_memory]
    numbers += [part for begin, end in (duration, init) for part in ((begin, end - 3), (end - 2, end))]
    early, late, billed_ms, memory_mb, max_memory_mb, *parts = _whole(content, np.array(numbers).swapaxes(0, 1))
    codes = np.frombuffer(content, np.uint8)
    # exact to the last bit, as both sides of the quotient are
    duration_ms, init_ms = (
        np.where(codes[end - 3] == ord("."), (whole * 100 + hundredths) / 100, np.nan)
        for (_, end), whole, hundredths in zip((duration, init), parts[::2], parts[1::2], strict=True)
    )
    began_ms = early * 1e8 + late
    cold = places[-3] < places[-2]
    ids = [content[begin:end].decode() for begin, end in zip(*(edge.tolist() for edge in request_id), strict=True)]
    passed = (
        (group[1] - group[0] <= _LONGEST_NAME)
        & np.array([one != "" and " " not in one for one in ids], bool)
        & (began[1] - began[0] == 13)
        & (began_ms >= 1e12)  # JSON has no number that begins with 0
        & (memory_mb > 0)
        & (max_memory_mb > 0)
        & _is_billed(duration_ms, np.where(cold, init_ms, 0), cold, billed_ms)
    )
    names, log_group = _log_groups(content, group[0][passed], group[1][passed])
    quote = places[-2] + _COLD[-2].index(b'"')
    reports = Reports(
        request_ids=" ".join(compress(ids, passed)),
        log_groups=names,
        log_group=log_group,
        began_ms=began_ms[passed].astype(np.int64),
        message_bytes=(quote - request_id[0] + len(_BEGIN) - b"".join(_WARM).count(b"\\") - cold)[passed],
        duration_ms=duration_ms[passed],
        billed_ms=billed_ms[passed],
        memory_mb=memory_mb[passed],
        max_memory_mb=max_memory_mb[passed],
        init_ms=init_ms[passed],
    )
    return reports, passed


def _is_billed(duration_ms: "Floats", init_ms: "Floats", cold: "Flags", billed_ms: "Floats") -> "Flags":
    """Whether the times allow what was billed: the arithmetic of ``parse_report``, term by term. NaN passes nothing."""
    import numpy as np

    total = duration_ms + init_ms + 0
    slack = np.where(cold, 2 * PRINT_SLACK_MS, PRINT_SLACK_MS)
    least, most = np.ceil(total - slack - BINARY_SLACK_MS), np.ceil(total + slack - BINARY_SLACK_MS)
    allowed: Flags = (least <= billed_ms) & (billed_ms <= most)
    return allowed


def _log_groups(content: bytes, begins: "Integers", ends: "Integers") -> "tuple[list[str], Integers]":
    """The names that stand there, and at which of them each stands."""
    import numpy as np

    names: list[str] = []
    places, left = np.empty(len(begins), np.int64), np.arange(len(begins))
    while left.size:  # a run has few of them
        name = content[begins[left[0]] : ends[left[0]] + 1]  # with its quote
        same = _windows(content, f"S{len(name)}", begins[left]) == name
        places[left[same]] = len(names)
        names.append(name[:-1].decode())
        left = left[~same]
    return names, places


def _whole(content: bytes, edges: "Integers") -> "Floats":
    """Numbers of one to eight digits; NaN where there is none.

    The digits of a number are taken together, in one word of 64 bits: first to pairs, then to fours, then to eight.

    Args:
        content: what they stand in.
        edges: where they begin, and where they end.
    """
    import numpy as np

    begins, ends = edges
    lengths = ends - begins
    known = (lengths >= 1) & (lengths <= 8)
    empty = (64 - 8 * np.where(known, lengths, 8)).astype(np.uint64)
    ones, zeros, high, six = (np.uint64(byte * 0x0101010101010101) for byte in (0xFF, 0x30, 0xF0, 0x06))
    words = _windows(content, "<u8", begins) << empty | zeros & ~(ones << empty)
    known &= (words & high == zeros) & (words + six & high == zeros)
    words -= zeros
    words = words * 10 + (words >> 8) & 0x00FF00FF00FF00FF
    words = words * 100 + (words >> 16) & 0x0000FFFF0000FFFF
    words = words * 10_000 + (words >> 32) & 0x00000000FFFFFFFF
    return np.where(known, words.astype(np.float64), np.nan)


def _windows(content: bytes, kind: str, places: "Integers") -> "NDArray[Any]":
    """What begins at these places, as values of a kind; where one would reach beyond the end, the last one instead."""
    import numpy as np

    dtype = np.dtype(kind)
    if len(content) < dtype.itemsize:
        return np.empty(places.shape, dtype)
    found = np.ndarray(len(content) - dtype.itemsize + 1, dtype, content, strides=(1,))
    return found[np.minimum(places, len(found) - 1)]
