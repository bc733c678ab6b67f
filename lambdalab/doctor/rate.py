"""Whether an offered rate of messages is within what there is. Pure: figures in, findings out.

The rules are those of the Lambda, SQS and DynamoDB developer guides as collected in ``docs/load.md``: a mapping begins
with five batches at once and adds 300 a minute up to 1,250; a standard queue holds about 120,000 messages in flight; a
partition takes 1,000 write units a second.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from lambdalab.analysis.load_limit import BUSY
from lambdalab.doctor.durations import Duration
from lambdalab.doctor.findings import Finding, Verdict
from lambdalab.planning.load_schedule import LoadPlan, Message
from lambdalab.pricing.costs import ingest_wru
from lambdalab.records.manifest import QueuedFunction

BATCHES_AT_FIRST: Final = 5
MORE_PER_MINUTE: Final = 300
MOST_PER_MAPPING: Final = 1_250
PARTITION_WRITES: Final = 1_000
"""Write units a second ("Best practices for designing and using partition keys effectively")."""
STEADY_S: Final = 15.0
"""Half of the default hold: a step is judged by its second half (docs/books.md)."""
SINGLE_PER_PROCESS: Final = 6_883
BATCHED_PER_PROCESS: Final = 48_747
"""Messages a second that one process of the generator sent, singly and in tens (docs/benchmarks.md, "The load
generator": two virtual x86-64 cores, 2026-11-21, against a server on loopback)."""
BATCH_ID_CHARACTERS: Final = 40

# CPU milliseconds on that machine and day. Of a message: plane and generator (docs/benchmarks.md, "The plane beside its
# peers", "The load generator"). Of an item: the emulator at 0.37 of a core for 26.5 messages of ten items
# (docs/books.md), and the functions' put (docs/benchmarks.md, "The handlers beside plain SDK clients").
PLANE_MS: Final = 0.28
GENERATOR_MS: Final = 0.144
EMULATOR_ITEM_MS: Final = 1.4
FUNCTION_ITEM_MS: Final[Mapping[str, float]] = {"python": 0.9, "go": 0.35}
MEASURED_ON: Final = "as measured on two x86-64 cores, 2026-11-21 (docs/benchmarks.md, docs/books.md)"


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What one function is offered. ``seconds`` are of one message, ``items`` and ``write_units`` too, on average."""

    facts: QueuedFunction
    per_s: float
    seconds: float
    items: float
    write_units: float
    partition_writes_per_s: float
    """Of the one message that writes fastest: all its items have one partition key, its own batch id."""
    source: str
    measured: bool

    @property
    def language(self) -> str:
        return self.facts.language

    @property
    def environments(self) -> float:
        """How many are busy at this rate (Little's law), when each message of a batch takes as long as one alone."""
        return self.per_s * self.seconds


def work_of(plan: LoadPlan, facts: QueuedFunction, durations: Mapping[str, Duration]) -> Work:
    """What a plan of constant rate offers one function.

    Args:
        plan: its languages, rate and mix.
        facts: the function.
        durations: of each message of the mix, by its label.
    """
    language = facts.language
    shares = sum(message.share for message in plan.mix)
    weights = {message.label: message.share / shares for message in plan.mix}
    units = {message.label: _write_units(language, message) for message in plan.mix}

    def mean(values: Mapping[str, float]) -> float:
        return sum(values[label] * weight for label, weight in weights.items())

    slowest = durations.values()
    return Work(
        facts=facts,
        per_s=plan.rate * plan.languages[language] / sum(plan.languages.values()),
        seconds=mean({label: one.seconds for label, one in durations.items()}),
        items=mean({message.label: message.count for message in plan.mix}),
        write_units=mean(units),
        partition_writes_per_s=max(units[label] / durations[label].seconds for label in weights),
        source=", ".join(dict.fromkeys(one.source for one in slowest)),
        measured=all(one.measured for one in slowest),
    )


def _write_units(language: str, message: Message) -> float:
    return ingest_wru(language, BATCH_ID_CHARACTERS, message.label, message.size_bytes, message.count)


def function_findings(work: Work, *, unreserved: int | None, in_flight: float | None) -> Iterator[Finding]:
    """Whether one function, its mapping and its queue keep up.

    Args:
        work: what it is offered.
        unreserved: environments of the account that nobody has reserved; None where that is not known.
        in_flight: how many messages of a queue may be received and not deleted; None: the emulator has no limit.
    """
    name, needed = work.language, work.environments
    limits = {f"a mapping has {MOST_PER_MAPPING:,} at most": MOST_PER_MAPPING}
    if (most := work.facts.maximum_concurrency) is not None:
        limits[f"MaximumConcurrency {most}"] = most
    if (reserved := work.facts.reserved_concurrency) is not None:
        limits[f"reserved concurrency {reserved}"] = reserved
    elif unreserved is not None:
        limits[f"{unreserved:,} unreserved in the account"] = unreserved
    limit = min(limits, key=lambda key: limits[key])
    there = limits[limit]
    taken = f"{work.per_s:g}/s x {work.seconds * 1000:,.0f} ms a message ({work.source})"
    found = f"{taken} keep {needed:,.1f} environments busy; {limit}"
    achieved = there / work.seconds
    yield _figure(
        f"{name} environments", found, needed, there,
        f"about {achieved:,.1f}/s would be done, and the queue grows by {work.per_s - achieved:,.1f}/s",
        "lower the rate, raise that limit, or give the function more memory",
        sure=work.measured,
    )  # fmt: skip
    if needed <= there:
        yield _growth(work)
    if in_flight is None:
        return
    held = min(needed, there) * work.facts.batch_size
    visibility_s = work.facts.visibility_timeout_s
    failing = work.per_s * visibility_s
    found = f"{held:,.0f} messages in flight when all is well, {failing:,.0f} when all fail and wait {visibility_s} s"
    yield _figure(
        f"{name} in flight", f"{found}; {in_flight:,.0f} may be", max(held, failing), in_flight,
        "the queue hands out nothing more until some are deleted or visible again",
        "lower the rate or VisibilityTimeout, or watch that the functions do not fail",
        sure=held > in_flight,
    )  # fmt: skip


def _growth(work: Work) -> Finding:
    check, more = f"{work.language} scaling", work.environments - BATCHES_AT_FIRST
    if more <= 0:
        found = f"{BATCHES_AT_FIRST} batches at once, with which a mapping begins, are enough"
        return Finding(check=check, verdict=Verdict.OK, found=found, needed=work.environments, there=BATCHES_AT_FIRST)
    per_s = MORE_PER_MINUTE / 60
    grown_s = more / per_s
    behind = more**2 / (2 * per_s * work.seconds)
    found = (
        f"a mapping begins with {BATCHES_AT_FIRST} batches at once and adds {MORE_PER_MINUTE} a minute: after "
        f"{grown_s:,.0f} s there are enough, and {behind:,.0f} messages wait then"
    )
    means = "until that backlog is done, waiting times are those of the start, not of the rate"
    return _figure(check, found, grown_s, STEADY_S, means, "begin with --shape ramp, or hold longer", sure=False)


def table_findings(
    work: Work, *, quota: float, quota_source: str, most: float | None, warm: float | None
) -> Iterator[Finding]:
    """Whether one function's table takes the writes.

    Args:
        work: what the function is offered.
        quota: write units a second of a table.
        quota_source: who says so.
        most: the table's own OnDemandThroughput or provisioned units; None without.
        warm: what the table takes at once (WarmThroughput); None where it is not told.
    """
    name, needed = work.language, work.per_s * work.write_units
    there = quota if most is None else min(quota, most)
    source = quota_source if most is None or quota <= most else "the table's own setting"
    found = f"{needed:,.0f} write units a second; {there:,.0f} a table ({source})"
    means = "DynamoDB throttles, and the functions retry, fail and take longer"
    yield _figure(f"{name} writes", found, needed, there, means, "lower the rate, or raise that limit", sure=True)
    if warm is not None:
        found = f"{needed:,.0f} write units a second; the table takes {warm:,.0f} at once"
        means = "an on-demand table grows, and throttles while it does"
        next_step = "begin with --shape ramp, or raise its warm throughput before"
        yield _figure(f"{name} warm table", found, needed, warm, means, next_step, sure=False)
    fastest = work.partition_writes_per_s
    found = (
        f"the items of a message share a partition key, its batch id, and come at {fastest:,.0f} write units a second "
        f"({work.source}); {PARTITION_WRITES:,} a partition; every message has a key of its own"
    )
    means = "a single message may be throttled whatever the table allows"
    next_step = "fewer or smaller items a message, or not mode batch"
    yield _figure(f"{name} partition", found, fastest, PARTITION_WRITES, means, next_step, sure=False)


def account_finding(works: Iterable[Work], unreserved: int) -> Finding:
    """Whether the functions without a reservation fit into the account together."""
    sharing = [work for work in works if work.facts.reserved_concurrency is None]
    needed = sum(work.environments for work in sharing)
    found = f"{needed:,.1f} environments of all functions together; {unreserved:,} unreserved"
    means = "invocations are throttled, others of the account too, and throttles use up receives"
    next_step = "ask for a higher quota (Lambda, Concurrent executions), or lower the rate"
    measured = all(work.measured for work in sharing)
    return _figure("account", found, needed, unreserved, means, next_step, sure=measured)


def generator_finding(rate: float, batch_size: int, cores: int) -> Finding:
    """Whether one process of the generator can send that; of another machine, so never more than a warning."""
    there = SINGLE_PER_PROCESS if batch_size == 1 else BATCHED_PER_PROCESS
    found = f"{rate:,g} messages/s; one process sent {there:,}, {MEASURED_ON}; {cores} cores here"
    next_step = "add --processes, --batch-size 10, or machines (docs/load.md)"
    return _figure("generator", found, rate, there, "the run would end as generator-bound", next_step, sure=False)


def local_findings(works: Iterable[Work], cores: int) -> Iterator[Finding]:
    """Whether the cores of this machine do all of it: generator, emulator, plane and functions."""
    works = list(works)
    emulator = sum(work.per_s * work.items for work in works) * EMULATOR_ITEM_MS / 1000
    others = sum(
        work.per_s * (PLANE_MS + GENERATOR_MS + work.items * FUNCTION_ITEM_MS[work.language]) / 1000 for work in works
    )
    found = f"about {emulator + others:.2f} cores, {MEASURED_ON}; {cores} here"
    means = "messages wait, and times are those of a machine that is too busy"
    yield _figure("cores at rate", found, emulator + others, cores, means, "lower the rate", sure=True)
    found = f"the emulator, a single process, needs about {emulator:.2f} cores, {MEASURED_ON}; {BUSY:g} is its most"
    means = "the run would end as emulator-bound, exit code 4"
    yield _figure("emulator at rate", found, emulator, BUSY, means, "lower the rate or the items", sure=True)


def _figure(check: str, found: str, needed: float, there: float, means: str, next_step: str, *, sure: bool) -> Finding:
    """Compares; what rests on an assumption, or need not be so, is no more than a warning."""
    if needed <= there:
        return Finding(check=check, verdict=Verdict.OK, found=found, needed=needed, there=there)
    verdict = Verdict.WRONG if sure else Verdict.WARNING
    return Finding(
        check=check, verdict=verdict, found=found, means=means, next_step=next_step, needed=needed, there=there
    )
