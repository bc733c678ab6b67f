"""What a run of calls writes down: every call as it was seen, and the rows that are made of them."""

from decimal import Decimal
from typing import Annotated, Final

import msgspec

from lambdalab.design.cells import Level
from lambdalab.records.trials import Count, EpochMs

INTERRUPTED: Final = "interrupted"
"""What the error of a call begins with that was given up, not measured; it is made again when the run goes on."""


NO_ANSWER: Final = msgspec.Raw(b"null")
"""JSON as it came, or null: msgspec reads no union of the two."""


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One call as its caller saw it; one line of ``calls.jsonl``.

    ``call_id`` is unique in the run, such as ``b02-017-0004`` (block, place of the cell in it, number in the cell).
    ``log_tail`` is what Invoke returned of the log (``LogType=Tail``, the last 4 KB, REPORT line included), ``answer``
    the function's as it came, null when there was none, ``error`` what went wrong before there was one; ``throttled``
    when Lambda answered TooManyRequestsException. ``found`` says whether what the function says it wrote is there, None
    when that was not looked for. ``warmup`` calls are made by all callers at once before a cell is measured, so that
    its callers meet environments that are there; they count neither as samples nor in rates. ``disturbed`` says what
    happened beside the calls of its cell (``Disturbance``).
    """

    call_id: str
    block: int
    cell: str
    warmup: bool = False
    attempt: Annotated[int, msgspec.Meta(ge=1)] = 1
    sent_at_ms: EpochMs
    elapsed_ms: Annotated[float, msgspec.Meta(ge=0)]
    request_id: str | None = None
    function_error: str | None = None
    throttled: bool = False
    error: str | None = None
    answer: msgspec.Raw = NO_ANSWER
    log_tail: str | None = None
    found: bool | None = None
    disturbed: str | None = None

    @property
    def finished(self) -> bool:
        """Whether it ended, well or not; one that did not is made again by ``--resume``."""
        return self.error is None or not self.error.startswith(INTERRUPTED)


class Finding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whether what a call says it wrote is there, as was looked for after its cell; one line of ``found.jsonl``.

    ``late``: when the run went on after it was killed. What is not there by then may have been.
    """

    call_id: str
    attempt: int
    found: bool
    late: bool = False


class Disturbance(msgspec.Struct, frozen=True, kw_only=True):
    """What the local plane saw happen beside the measured calls of a cell; one line of ``disturbed.jsonl``."""

    block: int
    cell: str
    attempt: int
    reason: str


class CallRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of ``metrics.csv``: one call. Missing is None, never 0.

    ``levels`` and ``measures`` become a column each: the factors of the design, and what the scenario measured
    (docs of the scenario), in the scenario's units. ``valid`` rows were answered well by a function whose REPORT line
    was found; cold ones among them are told by ``cold_start``. ``costs_usd`` is by component; a component that cannot
    be known is None, and then the total is as well.
    """

    run_id: str
    scenario: str
    target: str
    latency_model: str | None
    cpu_scale: float
    design: str
    cell: str
    function_name: str
    language: str
    architecture: str
    memory_mb: int
    levels: dict[str, Level]
    block: int
    call_id: str
    attempt: int
    warmup: bool
    request_id: str | None
    started_at_ms: int
    elapsed_ms: float
    cold_start: bool | None
    duration_ms: float | None
    billed_ms: float | None
    init_ms: float | None
    max_memory_mb: int | None
    throttled: bool
    measures: dict[str, float | None]
    costs_usd: dict[str, Decimal | None]
    cost_total_usd: Decimal | None
    valid: bool
    reason: str | None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a scenario reads out of one answer: its measures, or why there are none.

    ``amounts`` is what costs are counted by, such as requests of a service; unlike measures also of a call that failed.
    ``is_first`` is whether the function says that it was the first call of its process, None when it does not say.
    """

    measures: dict[str, float | None]
    amounts: dict[str, Count]
    fault: str | None = None
    is_first: bool | None = None
