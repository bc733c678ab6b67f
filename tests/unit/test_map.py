"""A pipeline graph as text and as SVG, and the command that shows it."""

import json
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from command_line import Call, call_fixture, one_sentence, project_fixture  # noqa: F401
from rich.console import Console

from lambdalab.cli import map as map_command
from lambdalab.records.pipeline import Edge, EdgeKind, Graph, Kind, Resource, Runs, Stage
from lambdalab.report.map_layout import lay_out
from lambdalab.report.map_svg import draw_map
from lambdalab.report.map_text import WIDTH, render_map

SVG = "{http://www.w3.org/2000/svg}"
LOST = "does not run here and will not wake Register; call the function with `lambdalab invoke Register -e EVENT.json`"


def resource(id_: str, kind: Kind, *, in_stack: bool = True) -> Resource:
    return Resource(id=id_, kind=kind, name=id_, in_stack=in_stack)


def stage(id_: str, runs: Runs = Runs.YES, why: str = "") -> Stage:
    return Stage(id=id_, function_name=f"votes-{id_}", runtime="python3.12", runs=runs, why=why)


VOTES = Graph(
    stack_name="votes",
    region="us-east-1",
    target="local",
    stages=(
        stage("Alone"),
        stage("Counter"),
        stage("Register", Runs.CAUTION, "its log lines are text here, not JSON"),
    ),
    resources=(
        resource("Api", Kind.API),
        resource("Archive", Kind.BUCKET),
        resource("Dead", Kind.QUEUE),
        resource("Results", Kind.TABLE),
        resource("Work", Kind.QUEUE),
        resource("arn:aws:events:us-east-1:1:event-bus/far", Kind.BUS, in_stack=False),
    ),
    edges=(
        Edge(source="Api", target="Register", kind=EdgeKind.ROUTE, detail="GET /votes", runs=Runs.NO, why=LOST),
        Edge(source="Api", target="Register", kind=EdgeKind.ROUTE, detail="POST /votes", runs=Runs.NO, why=LOST),
        Edge(source="Counter", target="Results", kind=EdgeKind.VARIABLE, detail="TABLE_NAME"),
        Edge(
            source="Counter",
            target="arn:aws:events:us-east-1:1:event-bus/far",
            kind=EdgeKind.FAILURE,
            runs=Runs.CAUTION,
            why="leads out of the stack, to a resource that may not be here",
        ),
        Edge(source="Register", target="Results", kind=EdgeKind.VARIABLE, detail="RESULTS"),
        Edge(source="Register", target="Work", kind=EdgeKind.VARIABLE, detail="QUEUE_URL"),
        Edge(source="Work", target="Counter", kind=EdgeKind.MAPPING, settings={"batch_size": 10}),
        Edge(source="Work", target="Dead", kind=EdgeKind.DEAD_LETTERS, settings={"max_receive_count": 3}),
    ),
    unread=("GetSchedule on schedule Nightly was refused: AccessDenied: not allowed",),
)
TEXT = """\
votes (local stack): 3 functions

Api  API
└─✗ Register  function, python3.12         GET /votes, POST /votes - does not run
    ├╌╌ Results  table                     named by RESULTS
    └╌╌ Work  queue                        named by QUEUE_URL
        ├─► Counter  function, python3.12  batches of 10
        │   ├─▻ far  event bus, outside    on failure - caution
        │   └╌╌ Results  table             named by TABLE_NAME
        └─▻ Dead  queue                    dead letters after 3 receives

Nothing of the stack leads to or from these functions: Alone.
Nothing of the stack leads to or from Archive (bucket).
Register: its log lines are text here, not JSON.
Api to Register: does not run here and will not wake Register; call the function with `lambdalab
  invoke Register -e EVENT.json`.
Counter to far: leads out of the stack, to a resource that may not be here.
Not read: GetSchedule on schedule Nightly was refused: AccessDenied: not allowed.
"""


def text(graph: Graph, width: int = 120) -> str:
    return "".join(f"{line.plain}\n" for line in render_map(graph, width))


def test_a_map_is_a_tree_from_where_work_begins() -> None:
    assert text(VOTES) == TEXT


@pytest.mark.parametrize("width", [120, 100, 80, 60, 40])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(width: int) -> None:
    long = msgspec.structs.replace(VOTES.edges[-1], detail=" ".join(f"word{i}" for i in range(40)))
    graph = msgspec.structs.replace(VOTES, edges=(*VOTES.edges, long))
    found = text(graph, width)
    assert all(f"word{i}" in found for i in range(40))
    assert max(map(len, found.splitlines())) <= max(min(width, WIDTH), 60)


def test_colour_is_for_terminals_only() -> None:
    shown = {}
    for terminal in (True, False):
        console = Console(force_terminal=terminal, width=120, color_system="standard" if terminal else "auto")
        with console.capture() as capture:
            for line in render_map(VOTES, 120):
                console.print(line, soft_wrap=True)
        shown[terminal] = capture.get()
    assert "\x1b[" in shown[True]
    assert shown[False] == TEXT


def test_a_circle_has_no_root_and_ends() -> None:
    own_queue = Edge(source="Counter", target="Work", kind=EdgeKind.VARIABLE, detail="OWN_QUEUE")
    itself = Edge(source="Counter", target="Counter", kind=EdgeKind.VARIABLE, detail="SELF")
    graph = msgspec.structs.replace(VOTES, edges=(VOTES.edges[6], own_queue, itself))
    assert text(graph).splitlines()[2:6] == [
        "Work  queue",
        "└─► Counter  function, python3.12             batches of 10",
        "    ├╌╌ Work  queue, above                    named by OWN_QUEUE",
        "    └╌╌ Counter  function, python3.12, above  named by SELF",
    ]
    drawn = parsed(draw_map(graph))
    assert len([group for group in drawn.iter(f"{SVG}g") if group.get("class") == "edge"]) == 3


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - our own


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    rects = [one for one in parsed(svg).iter(f"{SVG}rect") if one.get("class", "").startswith("box")]
    return [tuple(float(one.attrib[name]) for name in ("x", "y", "width", "height")) for one in rects]  # type: ignore[misc]


def test_an_svg_shows_every_box_once_and_every_way_with_its_words() -> None:
    svg = draw_map(VOTES)
    drawn = parsed(svg)
    names = [one.text for one in drawn.iter(f"{SVG}text") if one.get("class") == "name"]
    assert sorted(filter(None, names)) == ["Api", "Counter", "Dead", "Register", "Results", "Work", "far"]
    titles = {one.text for one in drawn.iter(f"{SVG}title")}
    assert f"Api to Register: GET /votes, POST /votes, does not run ({LOST})" in titles
    assert "Work to Counter: batches of 10" in titles
    assert [group.get("class") for group in drawn.iter(f"{SVG}g")].count("edge no") == 1
    assert "prefers-color-scheme: dark" in svg
    assert "<script" not in svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_boxes_of_an_svg_do_not_overlap_and_lie_inside() -> None:
    svg = draw_map(VOTES)
    for (x, y, width, height), (x2, y2, width2, height2) in combinations(boxes(svg), 2):
        assert x + width <= x2 or x2 + width2 <= x or y + height <= y2 or y2 + height2 <= y
    _, _, whole_width, whole_height = map(float, parsed(svg).attrib["viewBox"].split())
    assert all(x >= 0 and y >= 0 and x + w <= whole_width and y + h <= whole_height for x, y, w, h in boxes(svg))


def test_what_others_named_is_escaped() -> None:
    odd = msgspec.structs.replace(VOTES, edges=(Edge(source="Api", target="Dead", kind=EdgeKind.ROUTE, detail="<&>"),))
    assert "Api to Dead: <&>" in {one.text for one in parsed(draw_map(odd)).iter(f"{SVG}title")}


def test_an_empty_stack_is_drawn_too() -> None:
    empty = Graph(stack_name="empty", region="eu-west-1", target="aws")
    assert text(empty) == "empty (AWS, eu-west-1): 0 functions\n"
    assert parsed(draw_map(empty)).tag == f"{SVG}svg"


def test_layers_follow_the_edges_and_long_edges_bend() -> None:
    heights = dict.fromkeys("abcdx", 40.0)
    found = lay_out(heights, [("a", "b"), ("b", "c"), ("a", "c"), ("c", "a"), ("d", "c")], gap=10)
    assert found.layers == {"a": 0, "b": 1, "c": 2, "d": 1, "x": 0}
    assert found.returning == {("c", "a")}
    assert [layer for layer, _ in found.bends["a", "c"]] == [1]
    rows = {layer: sorted(found.tops[box] for box in heights if found.layers[box] == layer) for layer in range(3)}
    assert all(after - before >= 50 for row in rows.values() for before, after in pairwise(row))
    assert found.tops["x"] > max(found.tops[box] for box in "abcd"), "what nothing joins lies below"
    assert found.height == max(found.tops[box] + 40 for box in heights)


# the command


class Place:
    def pipeline(self) -> Graph:
        return VOTES


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_command, "place_of", lambda *_: Place())


@pytest.mark.usefixtures("there")
def test_the_command_prints_text_or_json_and_writes_svg(call: Call, project: Path) -> None:
    ended = call("map")
    assert (ended.code, ended.out) == (0, TEXT)
    ended = call("map", "--json", "--svg", "map.svg")
    assert ended.code == 0
    assert msgspec.json.decode(ended.out, type=Graph) == VOTES
    assert json.loads(ended.out)["edges"][0]["kind"] == "API route"
    assert (project / "map.svg").read_text() == draw_map(VOTES)


@pytest.mark.usefixtures("there")
def test_an_svg_that_cannot_be_written(call: Call) -> None:
    ended = call("map", "--svg", "nowhere/map.svg")
    assert ended.code == 3
    assert one_sentence(ended).startswith("nowhere/map.svg cannot be written: No such file or directory; name another")


def test_without_a_stack_a_map_says_how_to_start_one(call: Call) -> None:
    ended = call("map")
    assert ended.code == 3
    assert one_sentence(ended).startswith("no local stack is up; start one with `lambdalab up`")


def test_a_stack_name_is_for_aws(call: Call) -> None:
    ended = call("map", "--stack-name", "mine")
    assert ended.code == 2
    assert "add --target aws" in one_sentence(ended)
