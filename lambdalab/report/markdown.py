"""Comparisons as Markdown, for a comment on a pull request."""

from collections.abc import Sequence

from lambdalab.report.answer import Line
from lambdalab.report.words import judgement
from lambdalab.statistics.comparison import Comparison

_COLUMNS = ("load", "compared", "what", "ratio [95 % interval]", "p (Holm)", "blocks", "A/A resolves", "verdict")


def markdown_of(verdict: str, answer: Sequence[Line], comparisons: Sequence[Comparison], notes: Sequence[str]) -> str:
    """The verdict, what it means, every comparison, and notes; nothing others wrote can break the table."""
    rows = [(of.label, f"{of.arm} / {of.over}", *judgement(of)) for of in comparisons]
    lines = [f"**{_plain(verdict)}**", "", *(f"- **{about}**: {_plain(text)}" for about, text in answer), ""]
    lines += [f"| {' | '.join(_COLUMNS)} |", "|---|---|---|--:|--:|--:|--:|---|"]
    lines += [f"| {' | '.join(map(_plain, row))} |" for row in rows]
    return "\n".join([*lines, "", *(f"- {_plain(note)}" for note in notes)])


def _plain(text: str) -> str:
    return "".join(f"\\{character}" if character in r"\|<>`*_[]" else character for character in text)
