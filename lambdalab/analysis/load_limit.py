"""What held back the work of a load run, and the figure that shows it. Pure.

The rules are asked in this order, and the first that holds names the limit. A share is reached above 90 % (``BUSY``).

1. The sender: more than 1 % of the messages were begun more than 50 ms late or never, a worker was lost, or one of its
   processes used the share of a core. It comes first, because nothing can hold back work that is not offered.
2. The functions' concurrency: the work fell behind, the mapping's places were taken for the share of their time, and
   the environments used the share of the CPU time that their memory allows. Nothing else holds them back then. Where
   they used more than the limit by as much (``1 / BUSY``), they were starting, and the figure says nothing.
3. The emulator or the plane: it used the share of one core itself. Each works in one thread, so it has no second core.
4. The machine: its cores together were busy for the share, while the work fell behind or rule 5 holds.
5. The emulator or the plane: it had work for the share of the time, on a core or waiting for one.
6. The functions' concurrency: the work fell behind, and invocations were throttled or the mapping's places were taken
   for the share of their time.
7. Not known: the work fell behind, and nothing that was measured reached its limit.
8. Nothing: the offered rate was kept.

Rules 1, 3 and 5 make a run invalid as well (``verdicts``). Work falls behind when its queue grows by more than 5 % of
the messages sent meanwhile (``GROWS``) and by more than 3 (``LEAST_GROWTH``), because fewer may wait by chance.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from lambdalab.records.load import Figures, Limit, PipelineSample, QueueSample
from lambdalab.records.manifest import QueuedFunction

BUSY: Final = 0.9
"""The share of a core, of the machine, of the time or of the places above which it counts as the limit."""
LATE_MS: Final = 50.0
"""A message that is begun more than this after it was due is late."""
TOLERATED: Final = 0.01
"""The share of late or dropped messages above which the sender is the limit."""
GROWS: Final = 0.05
LEAST_GROWTH: Final = 3
SERVERS: Final[tuple[str, ...]] = ("emulator", "plane")
"""The processes that do everybody's work in one thread."""
_CPU: Final = {
    "emulator": "emulator_cpu_s",
    "plane": "plane_cpu_s",
    "functions": "functions_cpu_s",
    "sender": "sender_cpu_s",
    "bookkeeper": "bookkeeper_cpu_s",
}
"""Whose CPU time a sample has, and where."""
OTHERS: Final = "other programs"
_NOT_KNOWN: Final = "something that is not known"


def sender_limits(
    *,
    offered: int,
    late: int,
    dropped: int,
    unknown: int,
    longest_lag_ms: float,
    pool_waits: int,
    cpu_share: float | None,
) -> Iterator[str]:
    """Says what kept a sender from offering what was asked (``generator.GeneratorReport`` has the same names)."""
    if unknown:
        yield f"{unknown} of {offered} messages were a lost worker's: sent and not told, or not sent"
    if dropped > TOLERATED * offered:
        yield f"{dropped} of {offered} messages were never begun"
    if late > TOLERATED * offered:
        yield (
            f"{late} of {offered} messages were begun more than {LATE_MS:g} ms after they were due, "
            f"at most {longest_lag_ms:.0f} ms; {pool_waits} times no request could be begun because "
            "as many as may be were under way"
        )
    if cpu_share is not None and cpu_share > BUSY:
        yield f"a process of the generator used {cpu_share:.0%} of a core"


def verdicts(sender: Sequence[str], work: Mapping[str, float | None]) -> Iterator[str]:
    """Why a run must not be used because a part of the measurement itself was the limit.

    Args:
        sender: what ``sender_limits`` said.
        work: the largest share of a step in which the emulator and the plane had work.
    """
    for limit in sender:
        yield f"generator-bound: {limit}"
    for name in SERVERS:
        share = work.get(name)
        if share and share > BUSY:
            yield (
                f"emulator-bound: the {name} had work for {share:.0%} of the time over a step, on a core or waiting "
                "for one"
            )


def falls_behind(growth: float, arrived: float) -> bool:
    """True if a queue that grew by so many messages, while so many were sent, is not being kept up with."""
    return growth > max(GROWS * arrived, LEAST_GROWTH)


def looks_between(looks: Sequence[PipelineSample], begin_ms: float, end_ms: float) -> Sequence[PipelineSample]:
    """The looks from one moment to another.

    An emulator that is the limit is late with its samples too: where there is but one, the next counts as well.
    """
    moments = [look.at_ms for look in looks]
    first, after = bisect_left(moments, begin_ms), bisect_right(moments, end_ms)
    return looks[first : max(after, first + 2)]


def figures_between(looks: Sequence[PipelineSample]) -> Figures | None:
    """What the pipeline did from the first look to the last; None of less than two."""
    if len(looks) < 2 or looks[-1].at_ms <= looks[0].at_ms:
        return None
    seconds = (looks[-1].at_ms - looks[0].at_ms) / 1000
    busy, idle = (_per_s(looks, name) for name in ("busy_s", "idle_s"))
    cores = None if busy is None or idle is None else busy + idle
    # Less than 0 is possible for a moment: an environment that ended is counted again when the plane has noticed.
    cpu = {name: max(used, 0.0) for name, used in _known({n: _per_s(looks, m) for n, m in _CPU.items()}).items()}
    if busy is not None:
        cpu[OTHERS] = max(busy - sum(cpu.values()), 0.0)
    work = {name: cpu[name] + (_per_s(looks, f"{name}_wait_s") or 0.0) for name in SERVERS if name in cpu}
    told = (_per_s(looks, "sent") or 0.0) + (_per_s(looks, "given_up") or 0.0)
    late = _per_s(looks, "late")
    places = _by_arm(looks, lambda queue: queue.places_s)
    taken = _by_arm(looks, lambda queue: queue.places_busy_s)
    used = _by_arm(looks, lambda queue: queue.cpu_s)
    allowed = _by_arm(looks, lambda queue: queue.cpu_allowed_s)
    return Figures(
        seconds=seconds,
        cores=None if cores is None else max(round(cores), 1),
        machine=None if busy is None or not cores else busy / cores,
        cpu=cpu,
        work=work,
        late=late / told if late is not None and told else None,
        backlog_per_s=_by_arm(looks, lambda queue: queue.visible + queue.in_flight),
        throttles_per_s=_by_arm(looks, lambda queue: queue.throttles),
        concurrency=_most(looks),
        places={arm: queue.places for arm, queue in looks[-1].arms.items() if queue.places},
        # More than 1 would be possible after a mapping had to step back below what it has under way.
        places_busy={arm: min(taken[arm] / places[arm], 1.0) for arm in taken if places.get(arm)},
        # Less than 0 while environments end, which is no figure.
        cpu_used={arm: used[arm] / allowed[arm] for arm in used if allowed.get(arm) and used[arm] >= 0},
    )


def limit_of(
    figures: Figures | None,
    functions: Mapping[str, QueuedFunction],
    *,
    sender: Sequence[str],
    behind: Collection[str] | None,
    step: int | None = None,
) -> Limit:
    """Names the limit by the rules of this module.

    Args:
        figures: of the time that is judged; None where it was not looked at.
        functions: how the functions of the arms are configured.
        sender: what the sender says of itself (``sender_limits``).
        behind: the arms that fell behind; None where that is not known.
        step: the step that is judged, None of a whole run.
    """
    found = figures or Figures(seconds=0.0)
    what, by, figure = _named(found, functions, sender, behind)
    where = "" if step is None else f" in step {step}"
    return Limit(what=what, sentence=f"Limited by {by}{where}: {figure}.", step=step, figures=figures)


def limit_now(looks: Sequence[PipelineSample], functions: Mapping[str, QueuedFunction]) -> Limit | None:
    """The limit from the first of these looks to the last; None of less than two."""
    found = figures_between(looks)
    if found is None:
        return None
    sender = []
    if found.late is not None and found.late > TOLERATED:
        sender.append(f"{found.late:.0%} of the messages were begun more than {LATE_MS:g} ms after they were due")
    growth = {arm: per_s * found.seconds for arm, per_s in found.backlog_per_s.items()}
    behind = [arm for arm in growth if growth[arm] > 0]
    if not falls_behind(sum(growth.values()), looks[-1].sent - looks[0].sent):
        behind = []
    return replace(limit_of(found, functions, sender=sender, behind=behind), figures=None)


def _named(
    found: Figures, functions: Mapping[str, QueuedFunction], sender: Sequence[str], behind: Collection[str] | None
) -> tuple[str, str, str]:
    """The limit as one word, as its name in a sentence, and its figure."""
    is_full = found.machine is not None and found.machine > BUSY
    if sender:
        beside = f"; {_machine(found)}" if is_full else ""
        return "sender", "the sender", "; ".join(sender) + beside
    slowest = sorted(behind or (), key=lambda arm: -found.backlog_per_s.get(arm, 0.0))
    for arm in slowest:
        if _has_its_cpu(arm, found) and (named := _concurrency(arm, found, functions[arm])):
            return "concurrency", *named
    for name in sorted(SERVERS, key=lambda name: -found.cpu.get(name, 0.0)):
        if (used := found.cpu.get(name, 0.0)) > BUSY:
            return name, f"the {name}", f"its process used {used:.0%} of one core"
    at_work = max(SERVERS, key=lambda name: found.work.get(name, 0.0))
    share = found.work.get(at_work, 0.0)
    waited = ""
    if share > BUSY:
        on_core = found.cpu[at_work]
        waited = f"had work {share:.0%} of the time, {on_core:.0%} on a core and {share - on_core:.0%} waiting for one"
    if is_full and (behind or waited):
        return "machine", "the machine", _machine(found) + (waited and f"; the {at_work} {waited}")
    if waited:
        return at_work, f"the {at_work}", f"its process {waited}"
    if behind is None:
        return "unknown", _NOT_KNOWN, "no message is known to have been done"
    for arm in slowest:
        if named := _concurrency(arm, found, functions[arm]):
            return "concurrency", *named
    if behind:
        measured = "CPU was not measured" if found.machine is None else _machine(found)
        return "unknown", _NOT_KNOWN, f"{_backlog(found, behind)}; {measured}"
    return "nothing", "nothing", "the offered rate was kept"


def _concurrency(arm: str, found: Figures, function: QueuedFunction) -> tuple[str, str] | None:
    """The setting that held back the function of an arm that fell behind, with its figure; None where none did."""
    grew = _backlog(found, [arm])
    reserved, most = function.reserved_concurrency, function.maximum_concurrency
    if throttled := found.throttles_per_s.get(arm):
        by = "the account's concurrency" if reserved is None else "ReservedConcurrency"
        allowed = "" if reserved is None else f", which may have {_environments(reserved)},"
        return by, f"{throttled:.1f} invocations of {arm}{allowed} were throttled a second, {grew}"
    if arm not in found.places_busy:
        running = found.concurrency.get(arm, 0)
        if most is None or running < most:
            return None
        return "MaximumConcurrency", f"{running} of {_environments(most)} of {arm} ran at once, {grew}"
    if found.places_busy[arm] <= BUSY:
        return None
    figure = f"of {arm} were busy {found.places_busy[arm]:.0%} of the time"
    if _has_its_cpu(arm, found):
        figure += f" with {found.cpu_used[arm]:.0%} of the CPU that {function.memory_mb:,} MB allow"
    places = found.places[arm]
    if most is not None and places >= most:
        return "MaximumConcurrency", f"{places} of {_environments(most)} {figure}, {grew}"
    return "the scaling of the mapping", f"its {_environments(places)} {figure}, {grew}"


def _has_its_cpu(arm: str, found: Figures) -> bool:
    """True if the environments of an arm used the CPU time that their memory allows."""
    return BUSY < found.cpu_used.get(arm, 0.0) <= 1 / BUSY


def _machine(found: Figures) -> str:
    """How busy the cores were, and with what; shares are of all cores together."""
    assert found.machine is not None
    assert found.cores is not None
    cores = {1: "its one core", 2: "both cores"}.get(found.cores, f"all {found.cores} cores")
    shares = sorted(((used / found.cores, name) for name, used in found.cpu.items()), reverse=True)
    return f"{cores} {found.machine:.0%} busy: {', '.join(f'{name} {share:.0%}' for share, name in shares)}"


def _backlog(found: Figures, arms: Collection[str]) -> str:
    grew = [found.backlog_per_s[arm] for arm in arms if arm in found.backlog_per_s]
    return f"backlog grew {sum(grew):.1f}/s" if grew else "the growth of the backlog was not measured"


def _environments(count: int) -> str:
    return f"{count:,} environment{'' if count == 1 else 's'}"


def _change(looks: Sequence[PipelineSample], value: Callable[[PipelineSample], float | None]) -> float | None:
    """The change a second between the first and the last look that know a value; None of less than two."""
    known = [(look.at_ms, found) for look in looks if (found := value(look)) is not None]
    if len(known) < 2 or known[-1][0] <= known[0][0]:
        return None
    return (known[-1][1] - known[0][1]) / (known[-1][0] - known[0][0]) * 1000


def _per_s(looks: Sequence[PipelineSample], member: str) -> float | None:
    def value(look: PipelineSample) -> float | None:
        found: float | None = getattr(look, member)
        return found

    return _change(looks, value)


def _by_arm(looks: Sequence[PipelineSample], value: Callable[[QueueSample], float | None]) -> dict[str, float]:
    """The change a second of a value of each arm's queue."""

    def of(arm: str) -> float | None:
        return _change(looks, lambda look: None if arm not in look.arms else value(look.arms[arm]))

    return _known({arm: of(arm) for arm in looks[-1].arms})


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _most(looks: Sequence[PipelineSample]) -> dict[str, int]:
    of_arms = {
        arm: [queue.concurrency for look in looks if (queue := look.arms.get(arm)) and queue.concurrency is not None]
        for arm in looks[-1].arms
    }
    return {arm: max(running) for arm, running in of_arms.items() if running}
