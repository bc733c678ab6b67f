"""Regular fractions of a factorial design: which combinations of levels they keep, and what they cannot tell apart.

A fraction 1/p keeps the combinations whose level numbers, counted from 0, sum to 0 modulo p, over all factors that have
a multiple of p levels; other factors are crossed with them in full. The defining contrast is thus the interaction of
all these factors, or one component of it: 2^(k-1) for 2 levels, and for 3 levels the block L = 0 of 3^k in three
(Penn State, STAT 503, 9.2, https://online.stat.psu.edu/stat503/lesson/9/9.2; Montgomery, Design and Analysis of
Experiments, chapters 8 and 9). Any k - 1 of the k factors are in it in every combination, so every factor, and with
three or more every two, stay balanced.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, combinations, product
from typing import Final, TypeVar

FRACTIONS: Final = (2, 3)
FEWEST_FACTORS: Final = 3
"""With two, the effect of one would be that of the other."""
L = TypeVar("L")
_TWO: Final = 2


def fractionated(factors: Mapping[str, Sequence[L]], fraction: int) -> tuple[str, ...]:
    """The factors over which a fraction is taken; none of a whole design."""
    if fraction == 1:
        return ()
    return tuple(name for name, levels in factors.items() if levels and len(levels) % fraction == 0)


def combined(factors: Mapping[str, Sequence[L]], fraction: int) -> Iterator[tuple[L, ...]]:
    """The combinations of levels that are kept, the last factor varying fastest."""
    over = set(fractionated(factors, fraction))
    for numbers in product(*(range(len(levels)) for levels in factors.values())):
        if sum(number for name, number in zip(factors, numbers, strict=True) if name in over) % fraction == 0:
            yield tuple(levels[number] for levels, number in zip(factors.values(), numbers, strict=True))


def aliases(
    chosen: Collection[str], factors: Mapping[str, Sequence[object]], fraction: int
) -> tuple[tuple[str, ...], ...]:
    """The interactions, or factors, that cannot be told apart from one, with fewest factors first.

    An effect is a product of one contrast of each of its factors, and is the same in the fraction as its product with
    the defining contrast or a power of it. That adds the factors of that contrast which it lacks; one it has goes, and
    may as well stay where it has more than the one contrast of two levels.
    """
    over = fractionated(factors, fraction)
    may_stay = [name for name in chosen if name in over and len(factors[name]) > _TWO]
    certain = set(over) ^ set(chosen) if over else set()
    found = [
        tuple(name for name in factors if name in certain.union(staying))
        for staying in chain.from_iterable(combinations(may_stay, size) for size in range(len(may_stay) + 1))
    ]
    return tuple(sorted(filter(None, found), key=len))
