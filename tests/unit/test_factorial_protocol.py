"""From a factorial protocol file to its plan; and every sentence that refuses one."""

import re
from collections import Counter
from pathlib import Path

import pytest
from samples import ROOT

from lambdalab.design.cells import Design, FactorialProtocol
from lambdalab.errors import ProtocolError
from lambdalab.planning.call_protocol import PlannedCell, load_protocol, schedule
from lambdalab.planning.protocol import load_protocol as load_protocol_of_messages

TEXT = """
name = "tiny"
scenario = "s3-ingest"
description = "For tests."
blocks = 3
[[designs]]
label = "events"
invocations = 2
settings = { workload = "events" }
[designs.factors]
language = ["python", "go"]
batch_events = [1, 100]
callers = [1, 2]
[[designs]]
label = "batch"
invocations = 1
settings = { workload = "batch", object_mb = 24 }
[designs.factors]
language = ["go"]
memory_mb = [512, 1024]
multipart_mb = [8, 24]
"""


@pytest.fixture
def protocol(tmp_path: Path) -> FactorialProtocol:
    return loaded(tmp_path, TEXT)


def loaded(folder: Path, text: str) -> FactorialProtocol:
    file = folder / "p.toml"
    file.write_text(text)
    return load_protocol(file)


def orders(cells: list[PlannedCell]) -> dict[int, list[str]]:
    return {
        block: [cell.cell.name for cell in cells if cell.block == block] for block in {cell.block for cell in cells}
    }


def test_every_block_holds_every_cell_once_in_an_order_of_its_own(protocol: FactorialProtocol) -> None:
    cells = list(schedule(protocol, 7))
    found = orders(cells)
    assert [cell.block for cell in cells] == sorted(cell.block for cell in cells)
    assert set(found) == {1, 2, 3}
    for names in found.values():
        assert Counter(names) == Counter(cell.name for cell in protocol.cells)
    assert len({tuple(names) for names in found.values()}) == 3
    assert protocol.cells[0].name == "events language=python batch_events=1 callers=1"


def test_every_caller_warms_up_before_the_calls_that_count(protocol: FactorialProtocol) -> None:
    cells = list(schedule(protocol, 7))
    for cell in cells:
        assert [call.warmup for call in cell.calls] == [True] * cell.cell.callers + [False] * cell.design.invocations
    assert [call.call_id for call in cells[0].calls][-1] == f"b01-001-{cells[0].design.invocations:04d}"
    ids = [call.call_id for cell in cells for call in cell.calls]
    assert len(set(ids)) == len(ids)
    assert sum(not call.warmup for cell in cells for call in cell.calls) == protocol.calls == 3 * (8 * 2 + 4)


def test_the_same_seed_gives_the_same_plan_and_another_one_another(protocol: FactorialProtocol) -> None:
    assert list(schedule(protocol, 7)) == list(schedule(protocol, 7))
    assert orders(list(schedule(protocol, 7))) != orders(list(schedule(protocol, 8)))
    seeds = [call.seed for cell in schedule(protocol, 7) for call in cell.calls]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**53 for seed in seeds)


def test_this_plan_is_that_of_every_python() -> None:
    """Written down, so that a change of the order would be noticed: runs that go on rely on it."""
    cells = list(schedule(load_protocol("s3-ingest"), 1))
    assert [(cell.block, cell.cell.name, cell.calls[0].seed) for cell in (cells[0], cells[32])] == RECORDED


RECORDED = [
    (1, "events language=go memory_mb=2048 batch_events=1 callers=4", 1970604396459490),
    (2, "events language=go memory_mb=2048 batch_events=100 callers=1", 2207646558023788),
]


def test_the_full_design_has_the_calls_of_the_study() -> None:
    full = load_protocol("s3-ingest-full")
    by_design = {
        design.label: full.blocks * design.invocations * len(design.cells) // len(design.languages)
        for design in full.designs
    }
    assert by_design == {"events": 6750, "batch": 2700}
    assert {len(design.cells) // len(design.languages) for design in full.designs} == {27}


def test_the_reduced_one_has_both_kinds_of_work_and_enough_blocks_for_intervals() -> None:
    reduced = load_protocol("s3-ingest")
    assert reduced.blocks >= 6
    assert {design.settings["workload"] for design in reduced.designs} == {"events", "batch"}
    for design in reduced.designs:
        assert design.languages == ("python", "go")
        assert all(len(levels) > 1 for levels in design.factors.values())
        assert len(design.factors) == 4
        assert all(design.invocations % int(callers) == 0 for callers in design.factors["callers"])


@pytest.mark.parametrize(
    ("invocations", "callers", "said"),
    [
        (16, (1, 4), []),
        (3, (1,), []),
        (
            18, (1, 4),
            [("w: 18 invocations are no multiple of 4 callers, some of whom have none in the last round, so "
             "throughput can grow 3.6 times at most")],
        ),
        (
            20, (1, 10, 20),
            [("w: a cell is so few rounds of calls in a block (2 with 10 callers, 1 with 20 callers) that one late "
             "call reads as poor scaling of throughput")],
        ),
    ],
)  # fmt: skip
def test_callers_that_throughput_cannot_follow_are_named(
    invocations: int, callers: tuple[int, ...], said: list[str]
) -> None:
    design = Design(label="w", invocations=invocations, factors={"language": ("go",), "callers": callers})
    assert list(design.cautions) == said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('scenario = "s3-ingest"', 'scenario = "s3"', 'scenario is "s3"; there are: s3-ingest'),
        ("blocks = 3", "blocks = 0", "blocks is 0; write a number from 1 to 10000"),
        ("blocks = 3", "blocks = 3\nblokcs = 3", 'key "blokcs" is unknown; perhaps "blocks" is meant'),
        ("blocks = 3", "blocks = 3\n[caps]\nsamples = 3", "caps.samples is 3; leave it out; calls are capped by"),
        ("blocks = 3", "blocks = 3\n[caps]\nminutes = 0.0", "caps.minutes is 0.0; write a number above 0"),
        ("blocks = 3", "blocks = 10000", "calls is 200040000; ask for 1,000,000 at most"),
        ('label = "batch"', 'label = "events"', 'designs[1].label is "events"; give each design its own label'),
        ('label = "batch"', 'label = "no spaces"', 'designs[1].label is "no spaces"; use 1 to 64 letters'),
        ("invocations = 2", "invocations = 0", "designs[0].invocations is 0; write a number from 1 to 10000"),
        ("invocations = 2", "invocations = 1", "designs[0].factors.callers[1] is 2; write at most invocations"),
        ('language = ["go"]', "", "designs[1].factors.language is missing; name at least one of: python"),
        ('language = ["go"]', "language = []", "designs[1].factors.language is []; name at least one of: python, go"),
        ('language = ["go"]', 'language = ["rust"]', 'designs[1].factors.language[0] is "rust"; there are: python'),
        ('language = ["go"]', "language = [1]", "designs[1].factors.language[0] is 1; there are: python, go"),
        (
            "invocations = 2",
            "invocations = 2\nfraction = 4",
            "designs[0].fraction is 4; write 2 or 3 for a half or a third",
        ),
        (
            "invocations = 2",
            "invocations = 2\nfraction = 0",
            "designs[0].fraction is 0; write 2 or 3 for a half or a third",
        ),
        (
            "invocations = 2",
            "invocations = 2\nfraction = 3",
            "designs[0].fraction is 3; it takes 3 factors whose number of levels is a multiple of 3, and events has n",
        ),
        (
            "invocations = 1",
            "invocations = 1\nfraction = 2",
            "designs[1].fraction is 2; it takes 3 factors whose number of levels is a multiple of 2, and batch has mem",
        ),
        ("[1, 100]", "[1, 1001]", "designs[0].factors.batch_events[1] is 1001; write a number from 1 to 1000"),
        ("[1, 100]", "[1, 1]", "designs[0].factors.batch_events[1] is 1; name each level once"),
        ("[1, 100]", '["few"]', 'designs[0].factors.batch_events[0] is "few"; write a number from 1 to 1000'),
        ("[1, 100]", "[1.5]", "designs[0].factors is wrong: "),
        ("[1, 100]", "[true]", "designs[0].factors is wrong: "),
        ("[1, 100]", "[]", "designs[0].factors.batch_events is []; name at least one level, or leave the factor out"),
        ("batch_events", "batch_event", "designs[0].factors.batch_event is [1, 100]; perhaps"),
        ("batch_events", "multipart_mb", "designs[0].factors.multipart_mb is [1, 100]; there are: "),
        ("callers = [1, 2]", "callers = [0]", "designs[0].factors.callers[0] is 0; write a number from 1 to 1000"),
        ("callers = [1, 2]", "reserved_concurrency = [-1]", "designs[0].factors.reserved_concurrency[0] is -1; write"),
        ("[512, 1024]", "[127]", "designs[1].factors.memory_mb[0] is 127; write a number from 128 to 10240"),
        ("[512, 1024]", "[128]", "designs[1].factors.memory_mb is 128; cell batch language=go memory_mb=128 multi"),
        ("[8, 24]", "[8, 4]", "designs[1].factors.multipart_mb[1] is 4; write a number from 5 to 512"),
        ("[8, 24]", "[8, 32]", "designs[1].object_mb is 24; write at least multipart_mb, which is 32"),
        ("object_mb = 24", "event_bytes = 300", "designs[1].settings.event_bytes is 300; there are: object_mb"),
        ("object_mb = 24", "object_mb = 24, multipart_mb = 8", "designs[1].settings.multipart_mb is 8; leave it out"),
        ("object_mb = 24", "object_mb = 24, callers = 2", "designs[1].settings.callers is 2; write it as factors.call"),
        ('workload = "batch"', 'workload = "both"', 'designs[1].settings.workload is "both"; write events or batch'),
        ('workload = "batch", ', "", "designs[1].settings.workload is missing; write events or batch"),
    ],
)
def test_a_fault_is_one_sentence(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in TEXT
    text = TEXT.replace(old, new, 1)
    text = text.replace("invocations = 2", "invocations = 2500") if "10000" in new else text
    with pytest.raises(ProtocolError) as caught:
        loaded(tmp_path, text)
    found = str(caught.value)
    assert found.startswith(f"{tmp_path}/p.toml: {said}"), found
    assert len(found.splitlines()) == 1


def test_a_protocol_without_designs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match=r"designs is \[\]; describe at least one in a \[\[designs\]\] table"):
        loaded(tmp_path, TEXT[: TEXT.index("[[designs]]")] + "designs = []\n")


def test_no_module_of_the_lab_knows_the_scenario() -> None:
    words = re.compile(r"(?i:s3.?(?:ingest|cells|local))|multipart_mb|batch_events|object_mb")
    files = [file for file in (ROOT / "lambdalab").rglob("*") if file.suffix in (".py", ".j2", ".css", ".js")]
    assert [str(file) for file in files if words.search(file.read_text())] == []
    assert words.search((ROOT / "scenarios/s3_ingest/scenario.py").read_text()), "the pattern finds what there is"


def test_a_protocol_of_messages_is_none_of_these(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match='key "factors" is unknown'):
        load_protocol("strict")
    with pytest.raises(ProtocolError, match='key "designs" is unknown'):
        load_protocol_of_messages("s3-ingest")
