"""The pipeline graph as text: a tree from each place where work begins, and notes."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from rich.text import Text

from lambdalab.records.pipeline import Edge, EdgeKind, Graph, Runs
from lambdalab.report.map_words import MARKS, Node, bundled, heading, kind_words, label, nodes_in_order, notes

WIDTH: Final = 100
"""Most columns of a map; details are wrapped there."""
_NARROWEST: Final = 24
"""Least columns of details, however narrow the terminal is."""
_STYLES: Final = {Runs.YES: "", Runs.CAUTION: "yellow", Runs.NO: "red"}


class _Row(NamedTuple):
    guide: str
    """What stands before the name."""
    further: str
    """What stands there in further lines."""
    node: Node
    words: str
    details: str = ""
    runs: Runs = Runs.YES

    @property
    def length(self) -> int:
        return len(f"{self.guide}{label(self.node)}  {self.words}")


def render_map(graph: Graph, width: int) -> list[Text]:
    """The lines of a map.

    Args:
        graph: what is drawn.
        width: columns that are there; at most ``WIDTH`` are used.
    """
    width = min(width, WIDTH)
    lines = [Text(heading(graph), style="bold")]
    trees = list(_trees(graph))
    column = max((row.length for rows in trees for row in rows), default=0) + 2
    for rows in trees:
        lines += [Text(), *_lines(rows, width, min(column, max(width - _NARROWEST, width // 2)))]
    for number, (sentence, runs) in enumerate(notes(graph)):
        wrapped = textwrap.wrap(sentence, width, subsequent_indent="  ", break_on_hyphens=False)
        lines += [Text()] * (number == 0) + [Text(line, style=_STYLES[runs]) for line in wrapped]
    return lines


def _trees(graph: Graph) -> Iterator[list[_Row]]:
    nodes, seen = nodes_in_order(graph), set[str]()
    for id_, node in nodes.items():
        if id_ not in seen:
            yield [_Row("", "", node, kind_words(node)), *_below(graph, nodes, id_, "", seen)]


def _below(graph: Graph, nodes: Mapping[str, Node], id_: str, indent: str, seen: set[str]) -> Iterator[_Row]:
    seen.add(id_)
    edges = bundled(graph.out_of(id_))
    for number, (edge, details) in enumerate(edges):
        last = number == len(edges) - 1
        target, further = nodes[edge.target], indent + ("    " if last else "│   ")
        words = kind_words(target)
        if edge.target in seen and graph.out_of(edge.target):
            words += ", above"
        said = ", ".join(details)
        yield _Row(indent + ("└" if last else "├") + _arrow(edge), further, target, words, said, edge.runs)
        if edge.target not in seen:
            yield from _below(graph, nodes, edge.target, further, seen)


def _arrow(edge: Edge) -> str:
    if edge.runs is Runs.NO:
        return "─✗ "
    if edge.kind is EdgeKind.VARIABLE:
        return "╌╌ "
    return "─► " if edge.wakes or edge.kind is EdgeKind.SUCCESS else "─▻ "


def _lines(rows: list[_Row], width: int, column: int) -> Iterator[Text]:
    for row in rows:
        details = " - ".join(filter(None, (row.details, MARKS.get(row.runs))))
        wrapped = textwrap.wrap(details, max(width - column, _NARROWEST), break_on_hyphens=False)
        line = Text.assemble((row.guide, "dim"), (label(row.node), "bold"), "  ", (row.words, "dim"))
        if wrapped and row.length + 2 <= column:  # else the details stand below
            line.append(" " * (column - row.length)).append(wrapped.pop(0), _STYLES[row.runs])
        yield line
        for more in wrapped:
            yield Text.assemble((row.further.ljust(column), "dim"), (more, _STYLES[row.runs]))
