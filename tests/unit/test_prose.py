"""Prose of the documentation can be read in a terminal: no line is longer than 120 characters."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
FILES: Final = sorted(
    path for pattern in ("*.md", "docs/*.md", "docs/decisions/*.md", "scenarios/*/*.md") for path in ROOT.glob(pattern)
)
LONGEST: Final = 120


def prose(text: str) -> list[tuple[int, str]]:
    """Numbered lines that can be broken: no code, table, heading, picture or address."""
    found, in_code = [], False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code and not re.match(r"( {4}|\s*[|#<]|!?\[[^\]]*\]\(\S+\)$|!\[|\[[^\]]+\]:)", line):
            found.append((number, line))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_is_longer_than_a_terminal_shows(path: Path) -> None:
    assert [number for number, line in prose(path.read_text()) if len(line) > LONGEST] == []
