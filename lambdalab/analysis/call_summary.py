"""What is said of a factorial run: the structs of ``summary.json``."""

from decimal import Decimal

import msgspec

from lambdalab.analysis.call_bill import CallBill
from lambdalab.analysis.summary import Drift
from lambdalab.design.cells import Level
from lambdalab.records.trials import Estimate
from lambdalab.statistics.effects import Effects


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that have ``levels`` in common: of a design, a function, a cell. Warm-ups count only where they are named.

    ``responses`` and ``means`` are of the valid warm calls, ``sums`` and costs of all valid ones. ``rates`` are of
    single cells: medians over blocks. ``cold``, ``init_ms`` and ``init_and_first_ms`` are of cold starts, those of
    warm-ups among them. ``million_usd`` is what a million calls cost, by component: means of the valid calls of which
    it is known.
    """

    design: str
    name: str
    levels: dict[str, Level]
    function_name: str | None
    calls: int
    valid: int
    throttled: int
    warm: int
    reasons: dict[str, int]
    responses: dict[str, Estimate]
    means: dict[str, float]
    sums: dict[str, float]
    rates: dict[str, Estimate]
    cold: int
    init_ms: Estimate | None
    init_and_first_ms: Estimate | None
    max_memory_mb: int | None
    million_usd: dict[str, Decimal | None]
    million_total_usd: Decimal | None
    """Their sum, None when one is not known of any call."""
    usd_per_volume: dict[str, Decimal | None]

    @property
    def failed(self) -> int:
        return self.calls - self.valid


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """How a measure is named, and its unit."""

    measure: str
    words: str
    unit: str


class VolumeWords(msgspec.Struct, frozen=True, kw_only=True):
    """How a volume is named where costs are told by it, and in which unit its sums are."""

    measure: str
    words: str
    unit: str
    unit_divisor: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Cells of a block in the order they were measured."""

    block: int
    cells: tuple[str, ...]


class FactorialSummary(msgspec.Struct, frozen=True, kw_only=True):
    """``summary.json`` of a factorial run: every number of its report, and whether it may be used.

    Counts are of the last attempt of each call; ``rows_repeated`` counts earlier ones, ``warmups`` calls that only made
    environments. ``pivot`` is by language, memory and the scenario's own factors, over everything else. ``spent_usd``
    is of everything that was called, ``cost_unknown`` calls left out.
    """

    run_id: str
    scenario: str
    protocol: str
    target: str
    cpu_limit: str
    latency_model: str | None
    cpu_scale: float
    price_sheet: str
    seed: int
    blocks: int
    level: float
    stopped: str | None
    calls_planned: int
    calls_made: int
    rows_valid: int
    rows_repeated: int
    warmups: int
    throttled: int
    spent_usd: Decimal
    cost_unknown: int
    monthly_usd: dict[str, Decimal | None]
    """What is billed by the month as soon as one call was made, by component."""
    responses: tuple[Words, ...]
    rates: tuple[Words, ...]
    volumes: tuple[VolumeWords, ...]
    designs: tuple[Group, ...]
    functions: tuple[Group, ...]
    pivot: tuple[Group, ...]
    cells: tuple[Group, ...]
    effects: tuple[Effects, ...]
    order: tuple[Order, ...]
    drift: tuple[Drift, ...]
    month: CallBill | None
    """What each cell costs in a month; None when no rate was given."""
    invalid_reasons: dict[str, int]
    notes: tuple[str, ...]
    cautions: tuple[str, ...]
    faults: tuple[str, ...]
    """Why the run must not be used; empty when it may be."""
