"""What a protocol asks for: factors, arms, loads, when it is enough. Frozen; every number carries its unit.

Words: an *arm* is a language with its settings, a *load* is a message shape, a *block* holds every arm once.
"""

from decimal import Decimal
from enum import StrEnum
from itertools import product
from typing import Literal

import msgspec

Architecture = Literal["x86_64", "arm64"]


class Start(StrEnum):
    """Whether an invocation initialises its environment: read from Init Duration, never inferred."""

    COLD = "cold"
    WARM = "warm"


class Mode(StrEnum):
    """How a function writes the items of a message (docs/contracts.md)."""

    SEQUENTIAL = "sequential"
    CONCURRENT = "concurrent"
    BATCH = "batch"


class ColdMode(StrEnum):
    """How the next invocation is made a cold one; the ways do not measure the same thing (docs/method.md)."""

    CONFIGURATION_BUMP = "configuration-bump"
    RECYCLE = "recycle"


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One arm: a language with its settings. None of a setting: it stays as deployed.

    ``name`` is the language and every setting that differs between arms, such as ``go-512MB-batch-5msg``.
    ``batch_size`` is that of the SQS mapping.
    """

    name: str
    language: str
    memory_mb: int | None = None
    mode: Mode = Mode.SEQUENTIAL
    build: str | None = None
    architecture: Architecture | None = None
    batch_size: int | None = None

    @property
    def messages(self) -> int:
        """How many messages a trial sends: a whole batch, or one where the batch size stays as deployed."""
        return self.batch_size or 1


class Factors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What varies between arms: the levels of each factor. The arms are all their combinations.

    ``build`` names builds of the functions; two names of one build are an A/A comparison. An ``architecture`` is
    a build of its own, so only one of the two is given.
    """

    language: tuple[str, ...]
    memory_mb: tuple[int, ...] = ()
    mode: tuple[Mode, ...] = (Mode.SEQUENTIAL,)
    build: tuple[str, ...] = ()
    architecture: tuple[Architecture, ...] = ()
    batch_size: tuple[int, ...] = ()


class Items(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a message asks for: how many items of which size."""

    label: str
    size_bytes: int
    count: int


class Load(Items, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One message shape of a protocol, and the start it must meet."""

    start: Start


def as_cold(load: Load) -> Load:
    """The load under which a load run's invocations count that turn out to be cold, apart from its warm ones."""
    return msgspec.structs.replace(load, label=f"{load.label}-cold", start=Start.COLD)


class Stop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a run knows enough: every cell's 95 % interval of the median is within ``precision`` of it.

    ``precision`` is a share of the median, for the end of the interval that is further away; ``min_blocks`` the
    fewest valid samples of every cell before that is asked.
    """

    precision: float = 0.05
    min_blocks: int = 10


class Caps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ends a run after a whole block, whatever is known by then. None: no such cap, or the default ceiling.

    ``samples`` are valid ones and ``attempts`` all trials of every cell, invalid and repeated ones among them;
    ``minutes`` are those a run was under way; ``usd`` is not passed, and counts on AWS only. These two have a default
    (``spending.MOST_MINUTES``, ``MOST_USD``).
    """

    samples: int | None = None
    attempts: int | None = None
    minutes: float | None = None
    usd: Decimal | None = None


class Protocol(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A protocol file. Inside an arm the loads keep their order; arms are shuffled anew in every block.

    ``blocks`` is how many there are; with ``stop``, how many there may be. ``cold`` None: the target's own way.
    """

    name: str
    scenario: str
    description: str
    blocks: int
    factors: Factors
    loads: tuple[Load, ...]
    stop: Stop | None = None
    caps: Caps = Caps()
    cold: ColdMode | None = None

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every combination of the factors' levels, the last factor varying fastest."""
        factors = self.factors
        levels = product(
            factors.language,
            factors.memory_mb or (None,),
            factors.mode,
            factors.build or (None,),
            factors.architecture or (None,),
            factors.batch_size or (None,),
        )
        return tuple(_arm(factors, *settings) for settings in levels)


def _arm(
    factors: Factors,
    language: str,
    memory_mb: int | None,
    mode: Mode,
    build: str | None,
    architecture: Architecture | None,
    batch_size: int | None,
) -> Arm:
    settings = (
        (f"{memory_mb}MB", factors.memory_mb),
        (mode.value, factors.mode),
        (build, factors.build),
        (architecture, factors.architecture),
        (f"{batch_size}msg", factors.batch_size),
    )
    name = "-".join([language, *(str(level) for level, levels in settings if len(levels) > 1)])
    return Arm(
        name=name,
        language=language,
        memory_mb=memory_mb,
        mode=mode,
        build=build,
        architecture=architecture,
        batch_size=batch_size,
    )
