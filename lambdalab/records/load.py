"""What is written down of a load run: each message as it was sent, the pipeline as it was seen, how the run ended."""

from decimal import Decimal

import msgspec


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """How one message was sent. Times are milliseconds since 1970, of one process's clock.

    ``phase`` is ``ramp`` or ``hold``, ``step`` counts from 1. ``intended_at_ms`` is when the schedule wanted it sent:
    latency counts from there.
    """

    step: int
    phase: str
    intended_at_ms: float
    began_at_ms: float
    answered_at_ms: float | None
    attempts: int


class Send(Sending, frozen=True, kw_only=True):
    """What became of sending a message, whichever process sent it.

    ``error`` says why it was given up; it is None if and only if ``message_id`` is not.
    """

    batch_id: str
    arm: str
    label: str
    message_bytes: int
    items: int
    message_id: str | None
    error: str | None


class QueueSample(msgspec.Struct, frozen=True, kw_only=True):
    """One arm's queue and function at a moment. What cannot be asked for at the target is None.

    ``visible``, ``in_flight`` and ``dead_letters`` are messages, on AWS approximate. Counts of invocations, errors and
    throttles are those since the run began; ``concurrency`` is how many invocations run. ``oldest_ms`` is the age of
    the oldest message in the queue, an estimate (``messages.Messages.age_ms``) until CloudWatch has a value.
    ``places`` is how many batches the function's mapping may have under way now. ``places_s`` is the seconds of all its
    places together since the mapping began, and ``places_busy_s`` those in which they were taken. ``cpu_s`` is the CPU
    time that the environments which run now have taken, and ``cpu_allowed_s`` what their memory allows for
    ``places_busy_s``, None where nothing limits CPU. A local stack only has these five.
    """

    visible: int
    in_flight: int
    dead_letters: int
    oldest_ms: float | None = None
    invocations: int | None = None
    concurrency: int | None = None
    errors: int | None = None
    throttles: int | None = None
    places: int | None = None
    places_s: float | None = None
    places_busy_s: float | None = None
    cpu_s: float | None = None
    cpu_allowed_s: float | None = None


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Times in milliseconds of the ``n`` messages whose end has been seen, by nearest rank."""

    n: int
    p50: float
    p95: float
    p99: float
    max: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline did between two looks at it. None, or an absent name, is not measured.

    ``machine`` is the busy share of the time of all ``cores`` together. ``cpu`` is the CPU time a second, in cores, of
    ``emulator``, ``plane``, ``functions``, ``sender``, ``bookkeeper`` and ``other programs``. ``work`` is the share of
    the time in which ``emulator`` and ``plane`` ran or waited for a core. ``late`` is the share of the messages that
    were begun late. By arm: ``backlog_per_s`` is by how many messages a second its queue grew, ``throttles_per_s`` its
    throttled invocations a second, ``concurrency`` the most invocations at once that a look found, ``places`` how many
    batches its mapping might have under way at the end, ``places_busy`` the share of their time that its places were
    taken, and ``cpu_used`` the share that its environments used of the CPU time that their memory allows. Init is not
    limited, so more than 1 is possible.
    """

    seconds: float
    cores: int | None = None
    machine: float | None = None
    cpu: dict[str, float] = {}
    work: dict[str, float] = {}
    late: float | None = None
    backlog_per_s: dict[str, float] = {}
    throttles_per_s: dict[str, float] = {}
    concurrency: dict[str, int] = {}
    places: dict[str, int] = {}
    places_busy: dict[str, float] = {}
    cpu_used: dict[str, float] = {}


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What held back the work of a run, or of its last seconds; ``analysis/load_limit.py`` has the rules.

    ``what`` is ``sender``, ``emulator``, ``plane``, ``machine``, ``concurrency``, ``unknown``, or ``nothing`` when the
    offered rate was kept. ``sentence`` says so with the figure that shows it. ``step`` is the step that was judged, and
    ``figures`` is everything that was measured in it.
    """

    what: str
    sentence: str
    step: int | None = None
    figures: Figures | None = None


class PipelineSample(msgspec.Struct, frozen=True, kw_only=True):
    """The pipeline at a moment; one line of ``pipeline.jsonl``.

    ``phase`` is that of the last message sent, or ``drain``. ``intended`` counts messages the schedule wanted sent by
    now; of those the senders have told of, ``sent`` are those SQS took and ``given_up`` the others. ``done`` are those
    of ``sent`` that are in no queue any more, None where more are there than were due. ``end_to_end_ms`` is from the
    intended time to the end of the work, and ``cost_usd`` what the invocations seen so far cost; both follow the logs,
    which come late. ``spent_usd``, on AWS only, is what the run may have cost by now at most (``ceiling.Spent``).
    ``late`` counts the messages told of that were begun late. ``limit`` is what held back the work of the last seconds,
    without figures, because these follow from the samples; it is None in the drain and at the first look.

    A local stack has CPU times as well, in seconds since the process or the machine began: of ``emulator`` and
    ``plane``, with the time in which they had work and no core (``_wait_s``), of ``functions``, of ``sender`` (the
    process that leads, and the workers it forked) and ``bookkeeper``, and ``busy_s`` and ``idle_s`` of all cores.
    """

    at_ms: float
    phase: str
    step: int
    intended: int
    sent: int
    given_up: int
    done: int | None
    arms: dict[str, QueueSample]
    end_to_end_ms: Quantiles | None = None
    cost_usd: Decimal | None = None
    spent_usd: Decimal | None = None
    emulator_cpu_s: float | None = None
    emulator_wait_s: float | None = None
    plane_cpu_s: float | None = None
    plane_wait_s: float | None = None
    idle_s: float | None = None
    sender_cpu_s: float | None = None
    functions_cpu_s: float | None = None
    bookkeeper_cpu_s: float | None = None
    busy_s: float | None = None
    late: int | None = None
    limit: Limit | None = None


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What was left when a load run ended; ``ending.json``.

    ``drained_at_ms`` is when every queue was empty, None when it was not waited for so long. ``queued`` are the
    messages left in each arm's queue, ``dead_letters`` the batches of this run that lie in dead-letter queues, and
    ``strange_dead_letters`` how many others do. ``dropped`` are the messages of each step that were due and never
    begun, so that ``trials.jsonl`` has no line of them. ``generator_limits`` are the generator's own words for what
    kept it from offering what was asked; ``generator`` is its whole report.
    """

    drained_at_ms: float | None
    queued: dict[str, int]
    dead_letters: tuple[str, ...]
    strange_dead_letters: int = 0
    dropped: dict[int, int] = {}
    generator_limits: tuple[str, ...] = ()
    generator: dict[str, object] | None = None
