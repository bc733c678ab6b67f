"""What is drawn where rows are too many: thinned distributions that hold measured values only."""

from itertools import pairwise

import msgspec
from sample_page import make_run
from samples import LOADS

from lambdalab.analysis.figures import POINTS_AT_MOST, STEPS, STRETCHES, figures
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trials import InvocationRow


def large(blocks: int) -> tuple[MessageManifest, list[InvocationRow]]:
    """Rows of many blocks, made of one block's; every duration is another, and rises with the block."""
    _, manifest, rows = make_run(2, loads=LOADS)
    warm = [row for row in rows if row.label == LOADS[1].label][:2]
    assert {row.arm for row in warm} == {"python", "go"}
    protocol = msgspec.structs.replace(manifest.protocol, blocks=blocks)
    return msgspec.structs.replace(manifest, protocol=protocol), [
        msgspec.structs.replace(row, block=block, duration_ms=float(block), valid=True, reason=None)
        for block in range(1, blocks + 1)
        for row in warm
    ]


def test_few_samples_are_never_thinned() -> None:
    manifest, rows = large(POINTS_AT_MOST // 2)
    assert len(rows) == POINTS_AT_MOST
    assert figures(manifest.protocol, rows).curves == ()
    assert figures(manifest.protocol, rows).stretches == ()


def test_a_curve_holds_measured_values_only_and_both_extremes() -> None:
    manifest, rows = large(1_537)
    found = figures(manifest.protocol, rows)
    assert [curve.arm for curve in found.curves] == ["python", "go"]
    for curve in found.curves:
        assert curve.n == 1_537
        assert len(curve.values_ms) == len(curve.shares) == STEPS + 1
        assert set(curve.values_ms) <= {row.duration_ms for row in rows}
        assert (curve.values_ms[0], curve.values_ms[50], curve.values_ms[-1]) == (1, 769, 1_537)
        # of the durations 1, 2, ... 1537 exactly that many are not larger
        assert [round(share * 1_537) for share in curve.shares] == list(curve.values_ms)


def test_stretches_cover_every_block_once() -> None:
    manifest, rows = large(1_537)
    of_go = [s for s in figures(manifest.protocol, rows).stretches if s.arm == "go"]
    assert len(of_go) <= STRETCHES
    assert [of_go[0].first_block, of_go[-1].last_block] == [1, 1_537]
    assert all(one.last_block + 1 == two.first_block for one, two in pairwise(of_go))
    assert sum(s.n for s in of_go) == 1_537
    # the durations are the blocks' numbers
    assert all((s.minimum_ms, s.maximum_ms) == (s.first_block, s.last_block) for s in of_go)
    assert all(s.median_ms == (s.first_block + s.last_block) / 2 for s in of_go)


def test_samples_that_are_not_valid_are_in_no_figure() -> None:
    manifest, rows = large(1_100)
    spoilt = [msgspec.structs.replace(row, valid=row.block > 2, duration_ms=row.duration_ms) for row in rows]
    (python, go) = figures(manifest.protocol, spoilt).curves
    assert python.values_ms[0] == go.values_ms[0] == 3
