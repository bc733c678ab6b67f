"""The manifest of a run, ``run.json``: what a reader needs to judge or repeat it, except what was measured.

One manifest serves every kind of run. A kind adds only what it asks for and what it knows of its functions.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from lambdalab.design.arms import ColdMode, Protocol
from lambdalab.design.cells import FactorialProtocol

MESSAGES: Final = "messages"
"""The kind of a run whose functions get messages through a queue (``trial_files.py``)."""
CALLS: Final = "factorial"
"""The kind of a run whose functions are called (``call_files.py``)."""


class FunctionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A function as it was configured when the run began. None of a limit: it is not set.

    ``code_sha256`` is Lambda's own digest of the package.
    """

    function_name: str
    language: str
    runtime: str
    architecture: str
    memory_mb: int
    timeout_s: int
    log_group: str
    code_sha256: str
    reserved_concurrency: int | None


class QueuedFunction(FunctionFacts, frozen=True, kw_only=True):
    """The function behind one arm, with its queue and its event source mapping."""

    batch_size: int
    maximum_concurrency: int | None
    visibility_timeout_s: int
    max_receive_count: int | None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What manifests of all kinds of run have.

    ``prices`` is the whole price sheet, so that the run costs the same when it is reported again years later.
    ``parameters`` are the deployed stack's. ``endpoint`` is where Lambda answered; ``cpu_limit`` says what held
    the functions to their share of CPU, ``cpu_scale`` what that was multiplied by, ``limits`` what else a local plane
    holds, ``calibration`` the last measured speed of this machine's core; ``latency`` is the whole model by which
    services took their time, None when there was none. ``interpreters`` are the Python or runtime of each function of
    a local run, ``template_runtimes`` what the template would give it. ``stopped`` says why the run ended, None while
    it has not.
    """

    schema_version: int
    run_id: str
    started_at: str
    protocol: Protocol | FactorialProtocol
    seed: int
    target: str
    stack_name: str
    region: str
    endpoint: str
    price_sheet: str
    prices: dict[str, object]
    parameters: dict[str, str]
    functions: Mapping[str, FunctionFacts]
    cpu_limit: str
    versions: dict[str, str]
    machine: dict[str, str]
    interpreters: dict[str, str] = {}
    template_runtimes: dict[str, str] = {}
    latency: dict[str, object] | None = None
    cpu_scale: float = 1.0
    calibration: dict[str, object] | None = None
    limits: dict[str, object] = {}
    cold_mode: ColdMode | None = None
    resumed_at: tuple[str, ...] = ()
    stopped: str | None = None

    def __post_init__(self) -> None:
        """Refuses times that are none, and a latency model that cannot be named."""
        for moment in (self.started_at, *self.resumed_at):
            try:
                datetime.fromisoformat(moment)
            except ValueError:
                raise ValueError(f"{moment[:40]!r} is no time") from None
        if self.latency is not None and not {"name", "date", "seed"} <= self.latency.keys():
            raise ValueError("latency has no name, date or seed")

    @property
    def latency_model(self) -> str | None:
        """Name, date and seed of the latency model; None when services answered as fast as they could."""
        return latency_name(self.latency)


class MessageManifest(Manifest, frozen=True, kw_only=True):
    """The manifest of a run of messages. ``load`` is the whole plan of a load run, None of a protocol's."""

    kind: str = MESSAGES
    protocol: Protocol
    functions: dict[str, QueuedFunction]
    load: dict[str, object] | None = None

    def __post_init__(self) -> None:
        """Refuses a file whose parts do not fit each other."""
        super().__post_init__()
        if absent := sorted({arm.name for arm in self.protocol.arms} - self.functions.keys()):
            raise ValueError(f"functions has no {absent[0][:64]!r}, which is an arm")

    def sent_together(self, messages: int) -> int:
        """How many messages one request to SQS holds: all of a trial's, or in a load run as many as its plan says."""
        return messages if self.load is None else msgspec.convert(self.load.get("batch_size", 1), int)


class CallManifest(Manifest, frozen=True, kw_only=True):
    """The manifest of a run of calls. Its functions are by language, or by name where they were found."""

    kind: str = CALLS
    protocol: FactorialProtocol
    functions: dict[str, FunctionFacts]


def latency_name(latency: Mapping[str, object] | None) -> str | None:
    """Name, date and seed of a latency model as a manifest holds it; None of none."""
    return None if latency is None else f"{latency['name']} {latency['date']}, seed {latency['seed']}"
