"""What a map of a pipeline says, whatever it is drawn with."""

from collections.abc import Iterator
from typing import Final

from lambdalab.records.pipeline import Edge, EdgeKind, Graph, Kind, Resource, Runs, Stage

Node = Stage | Resource
MARKS: Final = {Runs.NO: "does not run", Runs.CAUTION: "caution"}
"""What stands beside an edge that is not as on AWS; a note says why."""


def heading(graph: Graph) -> str:
    """Which stack it is, and where."""
    where = "local stack" if graph.target == "local" else f"AWS, {graph.region}"
    return f"{graph.stack_name} ({where}): {len(graph.stages)} function{'' if len(graph.stages) == 1 else 's'}"


def label(of: Node) -> str:
    """The name under which it is drawn."""
    return of.id if isinstance(of, Stage) else of.label


def kind_words(of: Node) -> str:
    """What it is, and of a function the runtime."""
    if isinstance(of, Stage):
        return ", ".join(filter(None, (str(Kind.FUNCTION), of.runtime)))
    return of.words if of.in_stack else f"{of.words}, outside"


def nodes_in_order(graph: Graph) -> dict[str, Node]:
    """What edges join, by id: where work begins, with what wakes functions first; then functions; then others."""
    nodes = _nodes(graph)
    ends = {edge.target for edge in graph.edges if edge.source != edge.target}
    wakes = {edge.source for edge in graph.edges if edge.wakes}
    joined = {end for edge in graph.edges for end in (edge.source, edge.target)}

    def place(id_: str) -> tuple[bool, bool, bool, str]:
        is_stage = isinstance(nodes[id_], Stage)
        return id_ in ends, id_ not in wakes, is_stage if id_ not in ends else not is_stage, id_

    return {id_: nodes[id_] for id_ in sorted(joined, key=place)}


def _nodes(graph: Graph) -> dict[str, Node]:
    nodes: list[Node] = [*graph.resources, *graph.stages]
    return {of.id: of for of in nodes}


def bundled(edges: list[Edge]) -> list[tuple[Edge, list[str]]]:
    """Edges of one source with their words, what wakes first and variables last.

    Edges that differ in nothing but their details are one, such as the routes of an API to one function.
    """
    found: dict[object, list[Edge]] = {}
    for edge in sorted(edges, key=lambda edge: (edge.kind is EdgeKind.VARIABLE, not edge.wakes)):
        found.setdefault((edge.target, edge.kind, edge.runs, edge.why), []).append(edge)
    return [(same[0], [*dict.fromkeys(edge.words for edge in same)]) for same in found.values()]


def notes(graph: Graph) -> Iterator[tuple[str, Runs]]:
    """Sentences that stand below a map: what no edge joins, why something does not run, what could not be read."""
    joined = {end for edge in graph.edges for end in (edge.source, edge.target)}
    if alone := [stage.id for stage in graph.stages if stage.id not in joined]:
        yield f"Nothing of the stack leads to or from these functions: {', '.join(alone)}.", Runs.YES
    if alone := [f"{label(of)} ({of.words})" for of in graph.resources if of.id not in joined]:
        yield f"Nothing of the stack leads to or from {', '.join(alone)}.", Runs.YES
    for stage in graph.stages:
        if stage.why:
            yield f"{stage.id}: {stage.why}.", stage.runs
    nodes = _nodes(graph)
    ways: dict[tuple[str, Runs], list[str]] = {}
    for edge in graph.edges:
        if edge.why:
            ways.setdefault((edge.why, edge.runs), []).append(
                f"{label(nodes[edge.source])} to {label(nodes[edge.target])}"
            )
    for (why, runs), names in ways.items():
        yield f"{', '.join(dict.fromkeys(names))}: {why}.", runs
    for sentence in graph.unread:
        yield f"Not read: {sentence}.", Runs.CAUTION
