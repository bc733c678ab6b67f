"""Where the boxes of a layered drawing lie, from left to right along its edges. Pure geometry, in pixels.

The steps of Sugiyama, Tagawa and Toda (1981), each in its simplest form: edges that close a circle are set aside; a
box is one layer behind the last one that leads to it; long edges get a bend in each layer they cross; each layer is
sorted by the mean place of its neighbours; and boxes come as close to that place as their heights allow.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

_SWEEPS: Final = 12
"""Times that layers are sorted and moved. Drawings of thirty boxes change no more after a few."""
_BEND_HEIGHT: Final = 8.0

Edge = tuple[str, str]


class Layout(NamedTuple):
    """Layers and heights of boxes."""

    layers: dict[str, int]
    tops: dict[str, float]
    bends: dict[Edge, list[tuple[int, float]]]
    """By edge that crosses layers: layer and middle of each bend."""
    returning: set[Edge]
    """Edges that close a circle; they lead back to an earlier layer or stay in one."""
    height: float


def lay_out(heights: Mapping[str, float], edges: Sequence[Edge], *, gap: float) -> Layout:
    """Places boxes.

    Args:
        heights: of each box, in the order in which boxes are looked at.
        edges: from box to box, each once. Of those that close a circle, the last one leads back.
        gap: between boxes of one layer.

    Returns:
        The places. Parts that no edge joins lie below each other, in the order of their first boxes.
    """
    result = Layout({}, {}, {}, set(), 0.0)
    for boxes in _components(heights, edges):
        own = [edge for edge in edges if edge[0] in boxes]
        result = _below(result, _component({box: heights[box] for box in boxes}, own, gap), gap)
    return result


def _components(boxes: Iterable[str], edges: Sequence[Edge]) -> list[list[str]]:
    """Boxes that edges join, each component in the order of the boxes."""
    part = {box: {box} for box in boxes}
    for one, other in edges:
        if part[one] is not part[other]:
            joined = part[one] | part[other]
            part |= dict.fromkeys(joined, joined)
    found: dict[int, list[str]] = {}
    for box, joined in part.items():
        found.setdefault(id(joined), []).append(box)
    return list(found.values())


def _below(above: Layout, part: Layout, gap: float) -> Layout:
    shift = above.height + 2 * gap if above.height else 0.0
    return Layout(
        above.layers | part.layers,
        above.tops | {box: top + shift for box, top in part.tops.items()},
        above.bends | {edge: [(layer, y + shift) for layer, y in bends] for edge, bends in part.bends.items()},
        above.returning | part.returning,
        part.height + shift,
    )


def _component(heights: Mapping[str, float], edges: Sequence[Edge], gap: float) -> Layout:
    returning = _returning(edges)
    forward = [edge for edge in edges if edge not in returning]
    layers = _layers(list(heights), forward)
    heights, where = dict(heights), dict(layers)
    links: list[Edge] = []
    bends = {}
    for edge in forward:
        chain = [edge[0]]
        for layer in range(layers[edge[0]] + 1, layers[edge[1]]):
            bend = f"{edge[0]}\0{edge[1]}\0{layer}"
            heights[bend], where[bend] = _BEND_HEIGHT, layer
            chain.append(bend)
        bends[edge] = chain[1:]
        links += zip(chain, [*chain[1:], edge[1]], strict=True)
    rows = [[box for box in where if where[box] == layer] for layer in range(max(where.values()) + 1)]
    middles = _places(rows, links, heights, gap)
    tops = {box: middle - heights[box] / 2 for box, middle in middles.items()}
    highest = min(tops.values())
    return Layout(
        layers,
        {box: tops[box] - highest for box in layers},
        {edge: [(where[bend], middles[bend] - highest) for bend in chain] for edge, chain in bends.items() if chain},
        returning,
        max(tops[box] + heights[box] for box in tops) - highest,
    )


def _returning(edges: Sequence[Edge]) -> set[Edge]:
    """The edges that close a circle with edges before them."""
    after: dict[str, set[str]] = {}
    found: set[Edge] = set()
    for begin, end in edges:
        reached, more = {end}, {end}
        while more:
            more = {one for box in more for one in after.get(box, ())} - reached
            reached |= more
        if begin in reached:
            found.add((begin, end))
        else:
            after.setdefault(begin, set()).add(end)
    return found


def _layers(boxes: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    layers = dict.fromkeys(boxes, 0)
    for _ in boxes:  # the longest way has at most as many steps
        for begin, end in edges:
            layers[end] = max(layers[end], layers[begin] + 1)
    ends = {end for _, end in edges}
    for box in boxes:  # what nothing leads to stands beside what it leads to first
        after = [layers[end] for begin, end in edges if begin == box]
        if box not in ends and after:
            layers[box] = min(after) - 1
    return layers


def _places(rows: list[list[str]], links: Sequence[Edge], heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """The middle of every box and bend. Sorts the rows by the way."""
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for begin, end in links:
        before.setdefault(end, []).append(begin)
        after.setdefault(begin, []).append(end)
    middles: dict[str, float] = {}
    for row in rows:
        middles |= _apart(row, dict.fromkeys(row, 0.0), heights, gap)
    for sweep in range(_SWEEPS):
        near = before if sweep % 2 == 0 else after
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = {box: _mean([middles[one] for one in near.get(box, ())], middles[box]) for box in row}
            row.sort(key=lambda box: wanted[box])
            middles |= _apart(row, wanted, heights, gap)
    return middles


def _mean(numbers: Sequence[float], otherwise: float) -> float:
    return sum(numbers) / len(numbers) if numbers else otherwise


def _apart(
    row: Sequence[str], wanted: Mapping[str, float], heights: Mapping[str, float], gap: float
) -> dict[str, float]:
    """The middles nearest to what is wanted, by least squares, at which boxes in this order keep their gap.

    Without what the boxes before it take, the places of the row must not fall: that is isotonic regression, which
    pools neighbours until their means rise.
    """
    taken, offsets = 0.0, []
    for box in row:
        offsets.append(taken + heights[box] / 2)
        taken += heights[box] + gap
    pools: list[tuple[float, int]] = []
    for box, offset in zip(row, offsets, strict=True):
        mean, size = wanted[box] - offset, 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    levels = [mean for mean, size in pools for _ in range(size)]
    return {box: level + offset for box, level, offset in zip(row, levels, offsets, strict=True)}
