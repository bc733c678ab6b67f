"""Fractions of a design: cells by hand, what cannot be told apart by linear algebra, and effects that are known."""

import math
import random
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import chain, combinations, product
from pathlib import Path

import numpy as np
import pytest
from sample_factorial import EVENTS, make_manifest, make_run

from lambdalab.design.cells import Level
from lambdalab.design.fractions import aliases, combined, fractionated
from lambdalab.report.call_page import Chapter
from lambdalab.run.call_conclusion import conclude
from lambdalab.statistics.effects import Effects, Study, estimate_effects

Factors = Mapping[str, Sequence[Level]]
Truth = Mapping[tuple[str, ...], Mapping[tuple[int, ...], float]]


def factors(*counts: int) -> dict[str, tuple[int, ...]]:
    """Factors a, b, c ... of so many levels."""
    return {chr(ord("a") + place): tuple(range(count)) for place, count in enumerate(counts)}


def test_a_third_of_3_x_3_x_3_is_the_block_of_the_textbook() -> None:
    """L = 0 of https://online.stat.psu.edu/stat503/lesson/9/9.2."""
    found = {"".join(map(str, cell)) for cell in combined(factors(3, 3, 3), 3)}
    assert found == {"000", "210", "120", "201", "111", "021", "102", "012", "222"}


def test_a_half_of_2_x_2_x_2_and_a_factor_that_does_not_fit() -> None:
    assert list(combined(factors(2, 2, 2), 2)) == [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)]
    assert fractionated(factors(2, 3, 2, 2), 2) == ("a", "c", "d")
    assert list(combined(factors(2, 3, 2, 2), 1)) == list(product(range(2), range(3), range(2), range(2)))


SHAPES = [(2, 2, 2), (2, 2, 2, 2), (2,) * 5, (3, 3, 3), (2, 3, 3, 3), (4, 2, 2, 3), (4, 4, 2), (6, 3, 3, 2), (3,) * 4]


@pytest.mark.parametrize("fraction", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_two_factors_stay_balanced(shape: tuple[int, ...], fraction: int) -> None:
    of = factors(*shape)
    if len(fractionated(of, fraction)) < 3:
        return
    cells = list(combined(of, fraction))
    assert len(cells) * fraction == math.prod(shape)
    for one, other in combinations(range(len(shape)), 2):
        places = [(cell[one], cell[other]) for cell in cells]
        assert {places.count(place) for place in product(range(shape[one]), range(shape[other]))} == {
            len(cells) // (shape[one] * shape[other])
        }


def contrasts(chosen: Sequence[str], of: Factors) -> np.ndarray:
    """All contrasts of a factor or an interaction, a column each, over all combinations."""
    columns = []
    for name, levels in of.items():
        count = len(levels)
        centred = np.eye(count)[:, 1:] - 1 / count
        columns.append(centred if name in chosen else np.ones((count, 1)))
    return reduce(np.kron, columns)


@pytest.mark.parametrize("fraction", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_aliased_is_what_is_not_orthogonal_in_the_cells(shape: tuple[int, ...], fraction: int) -> None:
    of = factors(*shape)
    if len(fractionated(of, fraction)) < 3:
        return
    kept = set(combined(of, fraction))
    rows = [place for place, cell in enumerate(product(*of.values())) if cell in kept]
    every = list(chain.from_iterable(combinations(of, size) for size in range(1, len(of) + 1)))
    seen = {chosen: contrasts(chosen, of)[rows] for chosen in every}
    for chosen in chain.from_iterable(combinations(of, size) for size in (1, 2)):
        found = {other for other in every if other != chosen and np.abs(seen[chosen].T @ seen[other]).max() > 1e-9}
        assert set(aliases(chosen, of, fraction)) - {chosen} == found, (chosen, shape)


# effects that are known

FOUR: Factors = {"language": ("go", "py"), "memory_mb": (512, 2048), "batch_events": (1, 100), "callers": (1, 4)}
THIRD: Factors = {"language": ("go", "py"), "memory_mb": (1, 2, 3), "batch_events": (1, 2, 3), "callers": (1, 2, 3)}


def effects(of: Factors, fraction: int, logs: Truth, spread: float = 0.01) -> Effects:
    """A run of which the truth is known: by factors, what the numbers of their levels add to the logarithm."""
    draw = random.Random(3)
    values = {}
    for block in range(1, 7):
        moved = draw.gauss(0, 0.3)
        for cell in combined(of, fraction):
            numbers = {name: of[name].index(level) for name, level in zip(of, cell, strict=True)}
            known = sum(adds.get(tuple(numbers[name] for name in chosen), 0) for chosen, adds in logs.items())
            values[block, cell] = math.exp(3 + moved + known + draw.gauss(0, spread))
    (found,) = estimate_effects(
        [Study("events", "latency_ms", "latency", "ms", True, of, range(1, 7), values, fraction)]
    )
    assert found.refused is None
    shares = [found.block_share, found.higher_share, found.residual_share, *(term.share for term in found.terms)]
    assert math.fsum(share or 0 for share in shares) == pytest.approx(1)
    return found


def ratios(found: Effects) -> dict[str, list[float]]:
    return {term.name: [mean.ratio for mean in term.means if mean.ratio is not None] for term in found.mains}


def test_half_of_2_to_the_4_has_right_factors_and_no_interaction_of_two() -> None:
    """A x B = C x D: an interaction that is there is in no number, but in what other interactions explain."""
    logs: Truth = {("memory_mb",): {(1,): math.log(0.5)}, ("callers",): {(1,): math.log(2)}}
    both: Truth = {("language", "memory_mb"): {(1, 1): 0.2, (1, 0): -0.2, (0, 1): -0.2, (0, 0): 0.2}}
    found = effects(FOUR, 2, {**logs, **both})
    assert (found.cells, found.residual_df) == (8, 5 * 7)
    assert [term.name for term in found.terms] == list(FOUR)
    assert ratios(found) == {
        "language": pytest.approx([1], rel=0.02),
        "memory_mb": pytest.approx([0.5], rel=0.02),
        "batch_events": pytest.approx([1], rel=0.02),
        "callers": pytest.approx([2], rel=0.02),
    }
    assert found.aliased == (
        "no effect of language x memory_mb and of batch_events x callers: they cannot be told apart",
        "no effect of language x batch_events and of memory_mb x callers: they cannot be told apart",
        "no effect of language x callers and of memory_mb x batch_events: they cannot be told apart",
    )
    assert found.higher_share is not None
    memory = next(term.share for term in found.terms if term.factors == ("memory_mb",))
    # both are sums of squares of the same cells: 0.2 squared to a quarter of ln 2 squared
    assert found.higher_share / memory == pytest.approx(0.04 / (math.log(2) ** 2 / 4), rel=0.05)


def test_a_latin_square_has_right_factors_where_they_do_nothing_together_and_says_so() -> None:
    logs: Truth = {
        ("memory_mb",): {(1,): math.log(0.5), (2,): math.log(0.25)},
        ("callers",): {(2,): math.log(3)},
        ("language",): {(1,): math.log(2)},
        ("language", "memory_mb"): {(1, 2): math.log(1.5)},
    }
    found = effects(THIRD, 3, logs)
    assert (found.cells, found.residual_df) == (18, 5 * 17)
    pairs = ["language x memory_mb", "language x batch_events", "language x callers"]
    assert [term.name for term in found.interactions] == pairs
    assert {c.levels: c.ratio for c in found.interactions[0].contrasts} == {
        ("py", 2): pytest.approx(1, rel=0.03),
        ("py", 3): pytest.approx(1.5, rel=0.03),
    }
    assert ratios(found)["callers"] == pytest.approx([1, 3], rel=0.02)
    assert ratios(found)["memory_mb"] == pytest.approx([0.5, 0.25 * math.sqrt(1.5)], rel=0.02)
    assert ratios(found)["language"] == pytest.approx([2 * 1.5 ** (1 / 3)], rel=0.02)
    assert found.aliased[0] == (
        "the effect of memory_mb is right only if batch_events x callers do nothing together: they cannot be told apart"
    )
    assert len([said for said in found.aliased if said.startswith("the effect of")]) == 3


def test_a_whole_design_is_aliased_with_nothing() -> None:
    found = effects(FOUR, 1, {("memory_mb", "callers"): {(1, 1): math.log(1.5)}})
    assert (found.aliased, len(found.terms)) == ((), 4 + 6)
    contrast = next(term for term in found.interactions if term.factors == ("memory_mb", "callers")).contrasts[0]
    assert contrast.ratio == pytest.approx(1.5, rel=0.03)


def test_a_run_of_a_half_says_what_it_cannot_tell_and_shows_the_rest(tmp_path: Path) -> None:
    """From files to page: the cells' true effects, without the interaction of memory and callers."""
    import msgspec

    half = msgspec.structs.replace(EVENTS, fraction=2)
    store = make_run(tmp_path, make_manifest((half,)))
    summary = conclude(store)
    assert summary.calls_made == summary.calls_planned == 6 * 4 * 8
    assert not summary.faults
    assert any("memory_mb x callers: they cannot be told apart" in said for said in summary.cautions)
    page = (store.folder / "report.html").read_text()
    assert "8 of 16" in page
    assert "they cannot be told apart" in page
    latency = next(one for one in summary.effects if one.measure == "latency_ms")
    batch = next(term for term in latency.mains if term.factors == ("batch_events",))
    assert batch.means[1].ratio == pytest.approx(1.5, rel=0.06)
    assert not list(Chapter(summary, "events").interactions)
