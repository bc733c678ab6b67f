"""The pipeline graph as one SVG: boxes from left to right, notes below. It follows the reader's light or dark theme."""

import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

from lambdalab.records.pipeline import Edge, EdgeKind, Graph, Kind, Runs, Stage
from lambdalab.report.map_layout import lay_out
from lambdalab.report.map_words import MARKS, bundled, heading, kind_words, label, nodes_in_order, notes

_MARGIN: Final = 24.0
_GAP: Final = 20.0
_TOP: Final = 60.0
"""Room above the boxes, for the heading."""
_BOX_HEIGHT: Final = 46.0
_BOX_WIDTH: Final = 110.0
_NAME_LETTERS: Final = 34
_NAME_LETTER: Final = 8.8
_LETTER: Final = 6.1
"""Widths of letters in the widest of the fonts that readers have; which one is known only there."""
_LINE: Final = 13.0
_LABEL_LETTERS: Final = 20
_LABEL_LINES: Final = 4
_CURVE: Final = 44.0
"""Width in which ways go up and down."""
_TIP: Final = 9.0
_PORT: Final = 14.0
_LEAST_WIDTH: Final = 640.0
_STYLE: Final = """
svg { --paper: #ffffff; --ink: #1b1f24; --muted: #57606a; --line: #7b858f; --raised: #f5f7f9;
  --function: #0b62a4; --source: #00755e; --store: #8a6100; --bad: #b3261e; --note: #8a5a00; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #14171a; --ink: #e6e8ea; --muted: #a3abb3; --line: #87919b; --raised: #1d2126;
    --function: #5aa9e6; --source: #3fc7a0; --store: #d9b13b; --bad: #ff9b93; --note: #e9b04f; }
}
text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: var(--muted); }
text.heading { font-size: 15px; font-weight: 600; fill: var(--ink); }
text.name { font-size: 13px; font-weight: 600; fill: var(--ink); }
text.label { text-anchor: end; paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
.paper { fill: var(--paper); }
.box { fill: var(--raised); stroke: var(--line); }
.outside { fill: none; stroke-dasharray: 5 3; }
.function { fill: var(--function); }
.source { fill: var(--source); }
.store { fill: var(--store); }
path { fill: none; stroke: var(--line); stroke-width: 1.5; }
path.variable { stroke-dasharray: 2 4; stroke-linecap: round; }
path.tip { fill: var(--line); }
.edge path.tip { stroke: none; }
.no path, .no .box { stroke: var(--bad); }
.no path.tip, .no text.label, text.no { fill: var(--bad); }
.caution path, .caution .box { stroke: var(--note); }
.caution path.tip, .caution text.label, text.caution { fill: var(--note); }
"""


class _Way(NamedTuple):
    """The edges from one box to another, drawn as one line with a label at its end."""

    edges: list[Edge]
    label: list[str]
    words: str

    @property
    def height(self) -> float:
        """Room at its end, in pixels: the label and, below it, the line."""
        return len(self.label) * _LINE + 10

    @property
    def runs(self) -> Runs:
        """What is said of the edge that runs least."""
        return max((edge.runs for edge in self.edges), key=list(Runs).index)


def draw_map(graph: Graph) -> str:
    """Draws a map. The file stands alone: it loads no font, no script and no other file."""
    return _Drawing(graph).svg()


class _Drawing:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._nodes = nodes_in_order(graph)
        forward = sorted(graph.edges, key=lambda edge: (not edge.wakes, edge.kind is EdgeKind.VARIABLE))
        ends = dict.fromkeys((edge.source, edge.target) for edge in forward)
        self._ways = {pair: _way([e for e in graph.edges if (e.source, e.target) == pair]) for pair in ends}
        self._heights = {id_: self._height(id_) for id_ in self._nodes}
        self._layout = lay_out(self._heights, list(self._ways), gap=_GAP)
        self._lefts, self._widths = self._columns()
        self._starts, self._ends = self._ports()

    def svg(self) -> str:
        """The whole file."""
        right = max((left + self._widths[layer] for layer, left in self._lefts.items()), default=0.0)
        width = max(right + _MARGIN, _LEAST_WIDTH, 2 * _MARGIN + _NAME_LETTER * 1.2 * len(heading(self._graph)))
        y = _TOP + self._layout.height + (_GAP * 2 if self._layout.height else 0)
        below = []
        for sentence, runs in notes(self._graph):
            for line in textwrap.wrap(sentence, int((width - 2 * _MARGIN) / _LETTER), subsequent_indent="   "):
                below.append(_text(_MARGIN, y, line, runs if runs is not Runs.YES else ""))
                y += _LINE + 2
            y += 4
        height = y + _MARGIN / 2
        size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(heading(self._graph))}</title>",
            f"<style>{_STYLE}</style>",
            '<rect class="paper" width="100%" height="100%"/>',
            _text(_MARGIN, _MARGIN + 12, heading(self._graph), "heading"),
            *(part for pair in self._ways for part in self._draw_way(pair)),
            *(part for id_ in self._nodes for part in self._draw_box(id_)),
            *below,
        ]
        return "\n".join([*parts, "</svg>", ""])

    def _height(self, id_: str) -> float:
        into = sum(way.height for (_, end), way in self._ways.items() if end == id_)
        out = _PORT * sum(begin == id_ for begin, _ in self._ways)
        return max(_BOX_HEIGHT, into + 8, out + 8)

    def _columns(self) -> tuple[dict[int, float], dict[int, float]]:
        """The left edge and the width of the boxes of each layer."""
        lefts, widths, x = {}, {}, _MARGIN
        for layer in sorted(set(self._layout.layers.values())):
            boxes = [id_ for id_, of in self._layout.layers.items() if of == layer]
            labels = [
                len(line) * _LETTER
                for (_, end), way in self._ways.items()
                if end in boxes and layer
                for line in way.label
            ]
            lefts[layer] = x = x + (_CURVE + _TIP + max(labels, default=0.0) if layer else 0.0)
            letters = max(max(len(self._name(id_)) * _NAME_LETTER, len(self._kind(id_)) * _LETTER) for id_ in boxes)
            widths[layer] = max(_BOX_WIDTH, letters + 28)
            x += widths[layer]
        return lefts, widths

    def _ports(self) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
        """Where each way leaves its box and where it arrives, from top to bottom as the other ends lie."""
        starts, ends = {}, {}
        middle = {id_: _TOP + self._layout.tops[id_] + self._heights[id_] / 2 for id_ in self._nodes}
        forward = [pair for pair in self._ways if pair not in self._layout.returning]
        for id_ in self._nodes:
            out = [pair for pair in forward if pair[0] == id_]
            out.sort(key=lambda pair: self._bends(pair)[0][1] if self._bends(pair) else middle[pair[1]])
            for number, pair in enumerate(out):
                starts[pair] = middle[id_] + (number - (len(out) - 1) / 2) * _PORT
            into = [pair for pair in forward if pair[1] == id_]
            into.sort(key=lambda pair: self._bends(pair)[-1][1] if self._bends(pair) else middle[pair[0]])
            y = middle[id_] - sum(self._ways[pair].height for pair in into) / 2
            for pair in into:
                y += self._ways[pair].height
                ends[pair] = middle[id_] if len(into) == 1 else y - 4
        return starts, ends

    def _bends(self, pair: tuple[str, str]) -> list[tuple[int, float]]:
        return [(layer, _TOP + y) for layer, y in self._layout.bends.get(pair, ())]

    def _draw_way(self, pair: tuple[str, str]) -> Iterator[str]:
        way = self._ways[pair]
        state = "" if way.runs is Runs.YES else f" {way.runs}"
        yield f'<g class="edge{state}"><title>{escape(self._title(pair))}</title>'
        style = ' class="variable"' if all(edge.kind is EdgeKind.VARIABLE for edge in way.edges) else ""
        if pair in self._layout.returning:
            yield from self._draw_returning(pair, style)
        else:
            yield from self._draw_forward(pair, style)
        yield "</g>"

    def _draw_forward(self, pair: tuple[str, str], style: str) -> Iterator[str]:
        way, end_y = self._ways[pair], self._ends[pair]
        first, last = (self._layout.layers[end] for end in pair)
        end_x = self._lefts[last]
        level = [(self._lefts[first] + self._widths[first],) * 2 + (self._starts[pair],)]
        level += [(self._lefts[layer], self._lefts[layer] + self._widths[layer], y) for layer, y in self._bends(pair)]
        level.append((self._label_left(last), end_x - _TIP + 1, end_y))
        path = f"M{level[0][0]:.1f} {level[0][2]:.1f}"
        for (_, x, y), (next_x, next_end, next_y) in pairwise(level):
            half = (next_x - x) / 2
            path += f" C{x + half:.1f} {y:.1f} {next_x - half:.1f} {next_y:.1f} {next_x:.1f} {next_y:.1f}"
            path += f" H{next_end:.1f}"
        yield f'<path d="{path}"{style}/>'
        yield f'<path class="tip" d="M{end_x - 1:.1f} {end_y:.1f}l-{_TIP} -4.5v9z"/>'
        for number, line in enumerate(reversed(way.label)):
            yield _text(end_x - _TIP - 3, end_y - 5 - number * _LINE, line, "label")

    def _label_left(self, layer: int) -> float:
        """Where the level end of the ways into a layer begins."""
        before = self._lefts[layer - 1] + self._widths[layer - 1]
        return before + _CURVE

    def _draw_returning(self, pair: tuple[str, str], style: str) -> Iterator[str]:
        """A way back, below the boxes."""
        (begin_x, begin_y), (end_x, end_y) = (
            (
                self._lefts[self._layout.layers[end]] + self._widths[self._layout.layers[end]] * share,
                _TOP + self._layout.tops[end] + self._heights[end],
            )
            for end, share in zip(pair, (0.6, 0.4), strict=True)
        )
        low = max(begin_y, end_y) + _GAP * 1.6
        yield (
            f'<path d="M{begin_x:.1f} {begin_y:.1f} C{begin_x:.1f} {low:.1f} {end_x:.1f} {low:.1f} '
            f'{end_x:.1f} {end_y + _TIP:.1f}"{style}/>'
        )
        yield f'<path class="tip" d="M{end_x:.1f} {end_y + 1:.1f}l-4.5 {_TIP}h9z"/>'
        middle = (begin_x + end_x) / 2 + len(self._ways[pair].label[0]) * _LETTER / 2
        yield _text(middle, low - 2, self._ways[pair].label[0], "label")

    def _draw_box(self, id_: str) -> Iterator[str]:
        node, layer = self._nodes[id_], self._layout.layers[id_]
        x, y, width, height = self._lefts[layer], _TOP + self._layout.tops[id_], self._widths[layer], self._heights[id_]
        outside = "" if isinstance(node, Stage) or node.in_stack else " outside"
        state = f" {node.runs}" if isinstance(node, Stage) and node.runs is not Runs.YES else ""
        yield f'<g class="node{state}"><title>{escape(label(node))}: {escape(self._kind(id_))}</title>'
        size = f'y="{y:.1f}" height="{height:.1f}"'
        yield f'<rect class="box{outside}" x="{x:.1f}" {size} width="{width:.1f}" rx="6"/>'
        yield f'<rect class="{self._colour(id_)}" x="{x:.1f}" {size} width="5" rx="2.5"/>'
        yield _text(x + 16, y + height / 2 - 3, self._name(id_), "name")
        yield _text(x + 16, y + height / 2 + 13, self._kind(id_), "")
        yield "</g>"

    def _name(self, id_: str) -> str:
        name = label(self._nodes[id_])
        return name if len(name) <= _NAME_LETTERS else f"{name[: _NAME_LETTERS - 1]}…"

    def _kind(self, id_: str) -> str:
        return kind_words(self._nodes[id_])

    def _colour(self, id_: str) -> str:
        node = self._nodes[id_]
        if isinstance(node, Stage) or node.kind is Kind.FUNCTION:
            return "function"
        return "store" if node.kind in (Kind.TABLE, Kind.BUCKET) else "source"

    def _title(self, pair: tuple[str, str]) -> str:
        begin, end = (label(self._nodes[one]) for one in pair)
        whys = "; ".join(dict.fromkeys(edge.why for edge in self._ways[pair].edges if edge.why))
        return f"{begin} to {end}: {self._ways[pair].words}" + (f" ({whys})" if whys else "")


def _way(edges: list[Edge]) -> _Way:
    words, lines = [], []
    for edge, details in bundled(edges):
        said = [*details, *([MARKS[edge.runs]] if edge.runs in MARKS else [])]
        words.append(", ".join(said))
        lines += [line for text in said for line in _wrapped(text)]
    if len(lines) > _LABEL_LINES:
        lines = [*lines[: _LABEL_LINES - 1], "…"]
    return _Way(edges, lines, ", ".join(words))


def _wrapped(text: str) -> list[str]:
    """A text as lines of a label, broken at its commas where that is possible."""
    lines = [""]
    for part in text.replace(", ", ",\n").split("\n"):
        together = f"{lines[-1]} {part}".lstrip()
        if len(together) <= _LABEL_LETTERS:
            lines[-1] = together
        else:
            lines += textwrap.wrap(part, _LABEL_LETTERS, break_on_hyphens=False)
    return list(filter(None, lines))


def _text(x: float, y: float, text: str, style: str) -> str:
    attribute = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{attribute}>{escape(text)}</text>'
