"""How a call of the command line ended, as its tests see it."""

import re
from collections.abc import Callable
from typing import NamedTuple

PROTOCOL = """
name = "tiny"
scenario = "ingest"
description = "For tests."
blocks = 1
[factors]
language = ["python", "go"]
[[loads]]
label = "WARMUP"
size_bytes = 1024
count = 1
start = "cold"
[[loads]]
label = "SMALL"
size_bytes = 1024
count = 100
start = "warm"
"""


class Ended(NamedTuple):
    """How a call ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Ended]


def one_sentence(ended: Ended) -> str:
    """The only line of a failure that had nothing to show."""
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("lambdalab: ")
    assert re.search(r"; .*[^.]\.$", line), "what is wrong; the next step, and one full stop"
    return line.removeprefix("lambdalab: ")
