"""What ``summary.json`` holds: every number of a report, and whether it may be used."""

from decimal import Decimal

import msgspec

from lambdalab.analysis.bill import Bill
from lambdalab.analysis.books import Books
from lambdalab.analysis.figures import Figures
from lambdalab.analysis.frontier import Frontier
from lambdalab.design.arms import Arm
from lambdalab.records.trials import Estimate
from lambdalab.statistics.comparison import Comparison, Verdict


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """The valid samples of one arm under one load: medians, and the highest peak memory; None is not measured."""

    arm: str
    label: str
    start: str
    n_valid: int
    n_total: int
    duration_ms: Estimate | None
    billed_ms: Estimate | None
    init_ms: Estimate | None
    init_and_first_ms: Estimate | None
    queue_wait_ms: Estimate | None
    end_to_end_ms: Estimate | None
    cost_usd: Estimate | None
    """Of an execution, to judge its spread; the exact medians are the two decimals below."""
    max_memory_mb: int | None
    wru: float | None
    cost_per_execution_usd: Decimal | None
    cost_per_item_usd: Decimal | None


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the duration of one cell moved over the run. ``cell`` is its name, such as ``go SMALL``.

    ``correlation`` is Spearman's, of duration with order of execution; ``halves`` the median of the second half over
    that of the first. None below 6 samples, or where nothing varies.
    """

    cell: str
    correlation: float | None
    halves: float | None


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """What one arm takes and costs under one warm load: medians; ``usd_per_million`` is of a million messages."""

    arm: str
    label: str
    duration_ms: float
    low_ms: float | None
    high_ms: float | None
    usd_per_million: float | None


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """A judged comparison from the side of the arm that takes or costs more at the median.

    Medians are in ms, or USD per million executions. ``times`` is ``more`` over ``less`` and never below 1, ``surplus``
    the same as a share: 0.04 is 4 % more.
    """

    label: str
    is_warm: bool
    more: str
    less: str
    more_median: float
    less_median: float
    times: float
    surplus: float
    margin: float
    verdict: Verdict
    needed_blocks: int
    lacks_blocks: bool


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """The component that costs most of these cells, from ``least`` to ``most`` as shares of their totals."""

    component: str
    cells: tuple[tuple[str, str], ...]
    """Arm and label of each."""
    least: float
    most: float


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of one arm's cold starts, in ms."""

    arm: str
    label: str
    init_ms: float
    init_and_first_ms: float | None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What an engineer asks first; empty where nothing was measured or compared.

    ``levels`` and ``shares`` are of warm work, or of the cold load where ``is_warm`` is False.
    """

    is_warm: bool = True
    levels: tuple[Level, ...] = ()
    times: tuple[Contrast, ...] = ()
    costs: tuple[Contrast, ...] = ()
    shares: tuple[Share, ...] = ()
    cold_starts: tuple[ColdStart, ...] = ()
    peak_mb: tuple[tuple[str, int], ...] = ()
    """Highest peak memory of each arm."""
    aa_commands: tuple[str, ...] = ()
    """The A/A runs that would tell what this design can resolve; empty when that is known, or no command can."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """``summary.json``: every number of the report, and whether it may be used.

    Counts are of the last attempt of each trial; ``rows_repeated`` counts the samples of earlier ones, whose arm was
    interrupted and run again.
    """

    run_id: str
    scenario: str
    protocol: str
    target: str
    cpu_limit: str
    latency_model: str | None
    cpu_scale: float
    memory_mb: tuple[int, ...]
    architecture: tuple[str, ...]
    price_sheet: str
    blocks: int
    stopped: str | None
    """Why the run ended: ``precision reached``, a cap, or that its blocks were done; None when it was interrupted."""
    cold_mode: str | None
    level: float
    trials_planned: int
    trials_done: int
    reports_found: int
    reports_expected: int
    items_found: int
    items_expected: int
    rows_valid: int
    rows_total: int
    rows_repeated: int
    damaged_lines: int
    cells: tuple[Cell, ...]
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    verdict: str
    """Of all comparisons, in one sentence."""
    answer: Answer
    drift: tuple[Drift, ...]
    invalid_reasons: dict[str, int]
    figures: Figures
    cautions: tuple[str, ...]
    faults: tuple[str, ...]
    """Why the run must not be used; empty when it may be."""
    load: Books | None = None
    """Of a load run."""
    bill: Bill | None = None
    frontiers: tuple[Frontier, ...] = ()
