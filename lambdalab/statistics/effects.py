"""What each factor changes, by how much, and how much of the variation that is: a linear model of logarithms. Pure.

One value per block and cell, the median of its calls: calls of a cell in a block share its moment and its environments,
so they are no independent samples of the cell. The model is that of randomised complete blocks with every cell in each:

    ln(value) = block + factors + interactions of two + interactions of more + what remains

All interactions are in it, of a fraction all that its cells can tell, so what remains is how the cells move from block
to block against each other, and nothing that the cells themselves explain (Montgomery, Design and Analysis of
Experiments, chapters 4 and 5). Sums of squares are of type II; as the cells are complete, or a regular fraction, the
terms are orthogonal, and the shares add up to 1. Differences of logarithms are ratios. statsmodels takes seconds to
import, so it is imported where it is used.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from lambdalab.design.cells import Level
from lambdalab.design.fractions import aliases, combined
from lambdalab.statistics.comparison import holm
from lambdalab.statistics.estimates import LEVEL

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEWEST_BLOCKS: Final = 2
"""One block has nothing that remains, by which an effect could be told from chance."""
_NAMED_AT_MOST: Final = 3
_TWO: Final = 2
_NOTHING: Final = 1e-20
"""Share of the variation below which what remains is only rounding."""

BlockCell = tuple[int, tuple[Level, ...]]
"""A block and the levels of a cell, in the order of the factors."""


class Study(NamedTuple):
    """What effects are estimated of: a value for each block and cell.

    ``factors`` with their levels, all combined, or that ``fraction`` of the combinations.
    """

    design: str
    measure: str
    words: str
    unit: str
    lower_is_better: bool | None
    factors: Mapping[str, Sequence[Level]]
    blocks: Sequence[int]
    values: Mapping[BlockCell, float]
    fraction: int = 1


class Mean(msgspec.Struct, frozen=True, kw_only=True):
    """Geometric mean over everything else at these levels, of one factor or of two, with its interval.

    The interval of ``mean`` is for these blocks: drift between blocks is not in it. Ratios are free of that.
    ``ratio`` is to the factor's first level; None for that itself, and of two factors.
    """

    levels: tuple[Level, ...]
    mean: float
    low: float
    high: float
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """How far two factors together are from each alone: 1 when the ratio of one is the same at each level of the other.

    It is both at ``levels``, times both at their first, over only the one and over only the other: a ratio of ratios.
    """

    levels: tuple[Level, Level]
    ratio: float
    low: float
    high: float


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """A factor, or the interaction of two. ``share`` is eta squared, of all variation; ``partial`` of it and the rest.

    ``p_value`` is the F test's, ``p_adjusted`` after Holm for every term of the run.
    """

    factors: tuple[str, ...]
    df: int
    share: float
    partial: float
    p_value: float
    p_adjusted: float | None = None
    means: tuple[Mean, ...]
    contrasts: tuple[Contrast, ...] = ()

    @property
    def name(self) -> str:
        return " x ".join(self.factors)

    @property
    def is_claimed(self) -> bool:
        """Whether chance is no likely cause, all that was looked at considered."""
        return self.p_adjusted is not None and self.p_adjusted < 1 - LEVEL


class Effects(msgspec.Struct, frozen=True, kw_only=True):
    """The effects of a design's factors on one response, or why there are none (``refused``).

    ``blocks`` are those that were complete, ``left_out`` says which were not, and for want of what. The shares of the
    terms, ``block_share``, ``higher_share`` (interactions of three and more, and what a fraction cannot tell apart) and
    ``residual_share`` add up to 1. ``aliased`` says in a sentence each what a fraction cannot tell apart.
    ``spread`` is by what factor a cell of one block typically differs from what the model says of it.
    """

    design: str
    measure: str
    words: str
    unit: str
    lower_is_better: bool | None
    blocks: tuple[int, ...] = ()
    cells: int = 0
    left_out: tuple[str, ...] = ()
    aliased: tuple[str, ...] = ()
    terms: tuple[Term, ...] = ()
    block_share: float | None = None
    higher_share: float | None = None
    residual_share: float | None = None
    residual_df: int = 0
    spread: float | None = None
    refused: str | None = None

    @property
    def mains(self) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if len(term.factors) == 1)

    @property
    def interactions(self) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if len(term.factors) == 2)


def estimate_effects(studies: Iterable[Study]) -> tuple[Effects, ...]:
    """Estimates all of them, and adjusts the p-values for every term that is tested."""
    found = [_effects(study) for study in studies]
    adjusted = iter(holm([term.p_value for one in found for term in one.terms]))
    return tuple(
        msgspec.structs.replace(
            one, terms=tuple(msgspec.structs.replace(term, p_adjusted=next(adjusted)) for term in one.terms)
        )
        for one in found
    )


def _effects(study: Study) -> Effects:
    varied = {name: tuple(levels) for name, levels in study.factors.items() if len(levels) > 1}
    cells = list(combined(study.factors, study.fraction))
    missing = {block: [cell for cell in cells if (block, cell) not in study.values] for block in study.blocks}
    complete = tuple(block for block in study.blocks if not missing[block])
    found = Effects(
        design=study.design,
        measure=study.measure,
        words=study.words,
        unit=study.unit,
        lower_is_better=study.lower_is_better,
        blocks=complete,
        cells=len(cells),
        left_out=tuple(
            f"block {block} has no value of {_named(study, lacking)}" for block, lacking in missing.items() if lacking
        ),
    )
    refused = _refusal(study, varied, missing, complete)
    if refused is not None:
        return msgspec.structs.replace(found, refused=refused)
    model = _Model(varied, [(block, cell) for block in complete for cell in cells], study)
    if model.remaining <= _NOTHING * model.total:
        return msgspec.structs.replace(
            found, refused="its blocks do not differ, so there is nothing by which an effect could be told from chance"
        )
    return msgspec.structs.replace(
        found,
        aliased=tuple(_aliased(varied, study.fraction)),
        terms=tuple(map(model.term, model.told)),
        block_share=model.share(()),
        higher_share=model.higher_share,
        residual_share=model.remaining / model.total,
        residual_df=int(model.fit.df_resid),
        spread=math.exp(math.sqrt(model.fit.mse_resid)),
    )


def _refusal(
    study: Study,
    varied: Mapping[str, Sequence[Level]],
    missing: Mapping[int, Sequence[tuple[Level, ...]]],
    complete: Sequence[int],
) -> str | None:
    """Why no effect can be estimated, in words."""
    if not varied:
        return "no factor has two levels"
    if not study.values:
        return "nothing was measured"
    cells = combined(study.factors, study.fraction)
    never = [cell for cell in cells if all(cell in lacking for lacking in missing.values())]
    if never:
        return f"without a value of {_named(study, never)} effects cannot be told apart"
    if len(complete) < FEWEST_BLOCKS:
        return f"{len(complete)} of {len(study.blocks)} blocks are complete, and it takes at least {FEWEST_BLOCKS}"
    values = [value for (block, _), value in study.values.items() if block in complete]
    if min(values) == max(values):
        return f"it is {values[0]:g} everywhere"
    if min(values) <= 0 or not all(map(math.isfinite, values)):
        return f"a ratio needs values above 0, and one is {min(values):g}"
    return None


def _told(varied: Mapping[str, Sequence[Level]], fraction: int) -> Iterable[tuple[str, ...]]:
    """The factors, and of the interactions of two those that no factor and no other one of two can be taken for."""
    yield from ((name,) for name in varied)
    for pair in combinations(varied, 2):
        if not any(len(one) <= len(pair) for one in aliases(pair, varied, fraction)):
            yield pair


def _aliased(varied: Mapping[str, Sequence[Level]], fraction: int) -> Iterable[str]:
    """What of factors and interactions of two cannot be told apart; those of more are taken for nothing."""
    said = set[frozenset[str]]()
    for chosen in (pick for size in (1, 2) for pick in combinations(varied, size)):
        for other in aliases(chosen, varied, fraction):
            name, what = " x ".join(chosen), " x ".join(other)
            if len(other) != _TWO or (both := frozenset((name, what))) in said:
                continue
            said.add(both)
            if len(chosen) == 1:
                yield f"the effect of {name} is right only if {what} do nothing together: they cannot be told apart"
            elif not set(chosen) & set(other):
                yield f"no effect of {name} and of {what}: they cannot be told apart"


def _named(study: Study, cells: Sequence[tuple[Level, ...]]) -> str:
    names = [" ".join(f"{factor}={level}" for factor, level in zip(study.factors, cell, strict=True)) for cell in cells]
    more = f" and {len(names) - _NAMED_AT_MOST} more cells" if len(names) > _NAMED_AT_MOST else ""
    return f"{', '.join(names[:_NAMED_AT_MOST])}{more}"


class _Model:
    """The fitted model of complete blocks."""

    def __init__(self, varied: Mapping[str, Sequence[Level]], at: Sequence[BlockCell], study: Study) -> None:
        import numpy as np
        import pandas as pd
        from statsmodels.formula.api import ols
        from statsmodels.stats.anova import anova_lm

        self.varied = varied
        places = [list(study.factors).index(name) for name in varied]
        levels = list(study.factors.values())
        # columns of their own names: a factor's may be a word of formulas
        columns = {f"f{i}": [list(levels[p]).index(cell[p]) for _, cell in at] for i, p in enumerate(places)}
        frame = pd.DataFrame(
            {"y": [math.log(study.values[key]) for key in at], "block": [block for block, _ in at], **columns}
        )
        frame["cell"] = list(map([cell for _, cell in at].index, (cell for _, cell in at)))
        self._names = dict(zip(varied, columns, strict=True))
        self.told = tuple(_told(varied, study.fraction))
        # every cell on its own: what then remains is no interaction, however many factors it has
        self.fit: Any = ols("y ~ C(block, Sum) + C(cell, Sum)", frame).fit()
        terms = (":".join(f"C({self._names[name]}, Sum)" for name in chosen) for chosen in self.told)
        table = anova_lm(ols(f"y ~ C(block, Sum) + {' + '.join(terms)}", frame).fit(), typ=2)
        self._table: dict[frozenset[str], Any] = {
            frozenset(part.removeprefix("C(").removesuffix(", Sum)") for part in name.split(":")): row
            for name, row in table.iterrows()
        }
        self.remaining = float(self.fit.ssr)
        self.total = float(table["sum_sq"].sum())
        rest = self._table[frozenset({"Residual"})]
        is_all_told = int(rest["df"]) == int(self.fit.df_resid)
        self.higher_share = 0.0 if is_all_told else (float(rest["sum_sq"]) - self.remaining) / self.total
        self._exog: NDArray[np.float64] = np.asarray(self.fit.model.exog)
        self._at = {name: np.asarray(frame[column]) for name, column in self._names.items()}

    def _row(self, chosen: Sequence[str]) -> Any:
        return self._table[frozenset(self._names[name] for name in chosen) or frozenset({"block"})]

    def share(self, chosen: Sequence[str]) -> float:
        """Of all variation, what these factors together explain; without any, what blocks do."""
        return float(self._row(chosen)["sum_sq"]) / self.total

    def term(self, chosen: tuple[str, ...]) -> Term:
        from scipy.stats import f

        row = self._row(chosen)
        explained = float(row["sum_sq"])
        ratio = explained / row["df"] / self.fit.mse_resid
        return Term(
            factors=chosen,
            df=int(row["df"]),
            share=explained / self.total,
            partial=explained / (explained + self.remaining),
            p_value=float(f.sf(ratio, row["df"], self.fit.df_resid)),
            means=tuple(self._means(chosen)),
            contrasts=tuple(self._contrasts(*chosen)) if len(chosen) == 2 else (),
        )

    def _means(self, chosen: Sequence[str]) -> Iterable[Mean]:
        places = list(product(*(range(len(self.varied[name])) for name in chosen)))
        weights = [self._weight(chosen, place) for place in places]
        means = self._ratios(weights)
        ratios = self._ratios([weight - weights[0] for weight in weights]) if len(chosen) == 1 else None
        for i, place in enumerate(places):
            mean = Mean(
                levels=tuple(self.varied[name][j] for name, j in zip(chosen, place, strict=True)),
                **dict(zip(("mean", "low", "high"), means[i], strict=True)),
            )
            if ratios is not None and i:
                ratio, low, high = ratios[i]
                mean = msgspec.structs.replace(mean, ratio=ratio, ratio_low=low, ratio_high=high)
            yield mean

    def _contrasts(self, one: str, other: str) -> Iterable[Contrast]:
        places = [(i, j) for i in range(1, len(self.varied[one])) for j in range(1, len(self.varied[other]))]

        def at(i: int, j: int) -> "NDArray[np.float64]":
            return self._weight((one, other), (i, j))

        found = self._ratios([at(i, j) + at(0, 0) - at(i, 0) - at(0, j) for i, j in places])
        for (i, j), (ratio, low, high) in zip(places, found, strict=True):
            yield Contrast(levels=(self.varied[one][i], self.varied[other][j]), ratio=ratio, low=low, high=high)

    def _weight(self, chosen: Sequence[str], place: Sequence[int]) -> "NDArray[np.float64]":
        """What the mean at these levels is of the model's parameters: the mean of the rows that are there."""
        import numpy as np

        there = np.logical_and.reduce([self._at[name] == j for name, j in zip(chosen, place, strict=True)])
        mean: NDArray[np.float64] = self._exog[there].mean(axis=0)
        return mean

    def _ratios(self, weights: Sequence["NDArray[np.float64]"]) -> list[tuple[float, float, float]]:
        """Sums of parameters and their intervals by Student's t, back from logarithms."""
        import numpy as np

        tested = self.fit.t_test(np.array(weights))
        ends = np.exp(np.column_stack([tested.effect, tested.conf_int(alpha=1 - LEVEL)]))
        return [(float(middle), float(low), float(high)) for middle, low, high in ends]
