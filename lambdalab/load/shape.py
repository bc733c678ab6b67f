"""The one shape of the load test, which dispatches on an argument, and with it what leads a run.

Locust asks a shape for the number of users once a second, in the process that leads: its master, or its only one. Here
users are processes that send, so the number never changes; the rate is in the plan that each of them has.
"""

import logging
import secrets
import time
from argparse import Namespace
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import takewhile
from typing import Final, Protocol

import gevent
import msgspec
from locust import LoadTestShape
from locust.env import Environment
from locust.rpc import Message
from locust.runners import STATE_MISSING, LocalRunner, MasterRunner
from msgspec.structs import replace

from lambdalab.aws.clients import access_errors, is_aws
from lambdalab.design.arms import Arm
from lambdalab.errors import InvalidRunError, LambdalabError, PlaneError, StackError, UsageError
from lambdalab.load.arguments import plan_of
from lambdalab.load.generator import BY_HAND, STOP_S, GeneratorReport, Tally
from lambdalab.load.job import JOB, STOP, TOLD, Job, Told
from lambdalab.local.stack import running_stack
from lambdalab.planning.load_schedule import LoadPlan, Shape, arrivals, check_plan
from lambdalab.records.load import Send
from lambdalab.run.circumstances import caution_before
from lambdalab.run.local_target import LocalTarget, local_target
from lambdalab.run.target import AwsTarget, aws_target

EXIT_INTERRUPTED: Final = 130
"""As of every command that Ctrl-C or SIGTERM ended (docs/decisions/0003)."""
STACK_ENDED: Final = "a part of the local stack ended"
_SEED_BITS: Final = 32
_STRICT_RESERVATION: Final = "1"
_log = logging.getLogger(__name__)


class Recorder(Protocol):
    """What is done with a run beside sending: told of it by the process that leads."""

    def begin(self, plan: LoadPlan, target: AwsTarget) -> str:
        """Before the first message. Returns the run's id.

        Raises:
            LambdalabError: the run cannot be recorded, and will not begin.
        """

    def sends(self, sends: list[Send]) -> None:
        """Messages that were sent, or given up."""

    def ceiling(self) -> str | None:
        """Why nothing more may be sent, if so; asked once a second."""

    def end(self, report: GeneratorReport) -> None:
        """Nothing is sent any more.

        Raises:
            LambdalabError: with the exit code Locust shall end with.
        """


class Unrecorded:
    """Leaves nothing behind but what Locust shows."""

    def begin(self, plan: LoadPlan, target: AwsTarget) -> str:  # noqa: ARG002
        if is_aws(target.aws.sqs.meta.endpoint_url):
            raise UsageError(
                "without --results nobody knows what a run on AWS has cost, so no ceiling holds",
                next_step="name a folder with --results",
            )
        return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-load-{secrets.token_hex(2)}"

    def sends(self, sends: list[Send]) -> None:
        pass

    def ceiling(self) -> str | None:
        return None

    def end(self, report: GeneratorReport) -> None:
        if report.limits:
            raise InvalidRunError(
                f"the run is generator-bound: {'; '.join(report.limits)}",
                next_step="offer less, or use more processes or machines",
            )


class Run:
    """A run that is under way, in the process that leads it.

    Args:
        plan: what is offered.
        target: where.
        runner: Locust's.
        recorder: told of everything.

    Raises:
        LambdalabError: it cannot begin.
    """

    def __init__(
        self, plan: LoadPlan, target: AwsTarget, runner: LocalRunner | MasterRunner, recorder: Recorder
    ) -> None:
        self._plan, self._target, self._runner, self._recorder = plan, target, runner, recorder
        self.workers = _workers(runner)
        if not self.workers:
            raise UsageError("no worker is connected to this master", next_step="start some, as docs/load.md says")
        resources = {name: target.resources(Arm(name=name, language=name)) for name in plan.languages}
        for of_arm in resources.values():
            with access_errors(f"queue {of_arm.queue_url}"):
                target.aws.sqs.get_queue_attributes(QueueUrl=of_arm.queue_url, AttributeNames=["QueueArn"])
        self._tally = Tally(len(self.workers))
        self.job = Job(
            run_id=recorder.begin(plan, target),
            plan=plan,
            resources=resources,
            endpoint_url=target.aws.sqs.meta.endpoint_url,
            region=target.region,
            local=isinstance(target, LocalTarget),
            workers=self.workers,
        )
        self._began = time.monotonic()
        self._stopped: float | None = None
        self._summed_up = False
        self._lost: dict[int, str] = {}
        self._failure: LambdalabError | None = None
        self._ceiling: str | None = None

    def hear(self, told: Told) -> None:
        """Takes what a worker tells, until the run is summed up."""
        if told.run_id != self.job.run_id or self._summed_up:
            return
        if told.failure is not None:
            _log.error("worker %d cannot send: %s", told.worker, told.failure)
            self._lose(told.worker, "could not begin")
        self._tally.add(told.worker, told.sends)
        if told.share is not None:
            self._tally.end(told.share)
        if told.sends:
            try:
                self._recorder.sends(told.sends)
            except LambdalabError as error:  # what cannot be recorded is not sent either
                self._fail(error)

    def going_on(self) -> bool:
        """Whether anything is still to be sent."""
        if (ceiling := self._recorder.ceiling()) is not None:
            _log.warning("%s; nothing more is sent, raise it with --max-usd", ceiling)
            self._ceiling = ceiling
            return False
        try:
            if not isinstance(self._recorder, Unrecorded):  # without books only the queues are needed
                self._target.require_alive()
        except PlaneError as error:
            self._fail(error)
        return self._failure is None and self._waits()

    def _fail(self, failure: LambdalabError) -> None:
        """Notes the first failure, which ends the run."""
        self._failure = self._failure or failure

    def _waits(self) -> bool:
        """Whether a worker has still to tell. Notices those that died."""
        present = _workers(self._runner)
        for worker in self._tally.waiting():
            if self.workers[worker] not in present:
                _log.error("worker %d (%s) died: the others do not send its share", worker, self.workers[worker])
                self._lose(worker, "died")
        return bool(self._tally.waiting())

    def stop(self) -> None:
        """Makes every worker stop, and waits until all have told everything."""
        self._stopped = self._stopped or time.monotonic()
        if self._waits():
            self._runner.send_message(STOP)
        until = time.monotonic() + STOP_S + 2
        while self._waits() and time.monotonic() < until:
            gevent.sleep(0.05)

    def end(self) -> str:
        """Sums up. What a worker tells later is in no count.

        Returns:
            Why nothing more is sent.

        Raises:
            LambdalabError: as the recorder does, the first time it did.
        """
        for worker in self._tally.waiting():
            _log.error("worker %d (%s) did not tell all it sent: it is not waited for", worker, self.workers[worker])
            self._lose(worker, "did not tell all it sent")
        for worker, why in self._lost.items():
            self._lose(worker, why)
        self._summed_up = True
        report = self._tally.report()
        if self._failure is not None:
            gone = isinstance(self._failure, PlaneError)
            report = replace(report, ended_by=STACK_ENDED if gone else "what was sent could not be recorded")
        for line in _summary(report):
            _log.info(line)
        try:
            self._recorder.end(report)
        except LambdalabError as error:
            if self._failure is None:
                raise
            _log.error("lambdalab: %s", error)
        if self._failure is not None:
            raise self._failure
        return self._ceiling or report.ended_by

    def _lose(self, worker: int, why: str) -> None:
        """What of a lost worker's share is due by now is missing; until the run stops it becomes more."""
        elapsed_s = (self._stopped or time.monotonic()) - self._began
        share = arrivals(self._plan, worker, len(self.workers))
        due = sum(len(one.messages) for one in takewhile(lambda one: one.at_s <= elapsed_s, share))
        self._tally.lose(worker, due, why)
        self._lost[worker] = why


class Lead:
    """What leads the runs of one Locust, one after the other.

    Args:
        environment: of a process that leads: Locust's master, or its only one.
        recorder: told of every run.
    """

    def __init__(self, environment: Environment, recorder: Recorder) -> None:
        runner = environment.runner
        assert isinstance(runner, LocalRunner | MasterRunner)
        self._environment, self._runner, self._recorder = environment, runner, recorder
        self.run: Run | None = None
        self._held = ExitStack()
        self.is_beginning = False
        """Whether a run was asked for and has no user yet, which takes seconds: its books are opened first."""
        self._ending = self._quitting = self._has_cautioned = False
        runner.register_message(TOLD, self._hear)
        environment.events.test_stopping.add_listener(lambda **_: self._stop())
        environment.events.test_stop.add_listener(lambda **_: self._end())
        environment.events.quitting.add_listener(lambda **_: self._quit())
        vars(environment)["lambdalab_lead"] = self

    @staticmethod
    def of(environment: Environment) -> "Lead":
        """The one of a process."""
        found: Lead = vars(environment)["lambdalab_lead"]
        return found

    def users(self) -> int | None:
        """How many users the run wants: one per process; None when it has ended, or cannot begin."""
        if self._ending or self.run is None:
            self.is_beginning = True
            try:
                self.run = self._begin()
            except LambdalabError as error:
                self._complain(error)
                return None
            except gevent.GreenletExit:  # Ctrl-C before the first message
                self._environment.process_exit_code = EXIT_INTERRUPTED
                raise
            finally:
                self.is_beginning = False
        return len(self.run.workers) if self.run.going_on() else None

    def _begin(self) -> Run:
        if self._ending:
            raise UsageError("the run before is not over yet", next_step="wait until its queues are empty")
        options = self._environment.parsed_options
        assert options is not None
        plan = checked_plan(options)
        target = _target(options, plan)
        with ExitStack() as held:
            held.enter_context(target.held())
            self._caution(target)
            run = Run(plan, target, self._runner, self._recorder)
            self._held = held.pop_all()
        setattr(options, JOB, msgspec.json.encode(run.job).decode())
        return run

    def _caution(self, target: AwsTarget) -> None:
        """Says once, before the first run, that nothing limits the functions' CPU, if that is so."""
        if not self._has_cautioned and (said := caution_before(target)) is not None:
            _log.warning("caution: %s", said)
            self._has_cautioned = True

    def _hear(self, msg: Message, **_: object) -> None:
        if self.run is not None:
            self.run.hear(msgspec.msgpack.decode(msg.data["told"], type=Told))

    def _stop(self) -> None:
        if self.run is not None:
            self.run.stop()

    def _quit(self) -> None:
        """Ends a run that is under way like any other, before Locust goes on to end."""
        self._quitting = True
        self._runner.stop()

    def _end(self) -> None:
        """Without a page that would wait for it, before Locust goes on to end."""
        if self.run is None or self._ending:
            return
        self._ending = True
        if self._environment.web_ui is None or self._quitting:
            self._conclude(self.run)
        else:
            gevent.spawn(self._conclude, self.run)

    def _conclude(self, run: Run) -> None:
        try:
            by_hand = run.end() == BY_HAND
            if by_hand and (self._environment.web_ui is None or self._quitting):  # else with the page's Stop
                self._environment.process_exit_code = EXIT_INTERRUPTED
        except LambdalabError as error:
            self._complain(error)
        finally:
            self._held.close()
            self.run, self._ending = None, False

    def _complain(self, error: LambdalabError) -> None:
        _log.error("lambdalab: %s", error)
        self._environment.process_exit_code = error.exit_code


class PipelineShape(LoadTestShape):
    """Constant, steps, ramp, spike, soak, replay or strict, as ``--shape`` says."""

    def tick(self) -> tuple[int, float] | None:
        """One user for each process, all at once, until everything is sent."""
        assert self.runner is not None
        users = Lead.of(self.runner.environment).users()
        return None if users is None else (users, users)


def checked_plan(options: Namespace) -> LoadPlan:
    """The plan that options stand for.

    Raises:
        LoadPlanError: it cannot be run.
    """
    plan = plan_of(options, seed=secrets.randbits(_SEED_BITS))
    check_plan(plan)
    return plan


def _target(options: Namespace, plan: LoadPlan) -> AwsTarget:
    if options.target == "aws":
        target = aws_target(options.stack_name)
    else:
        stack = running_stack()
        if stack is None:
            raise StackError("no local stack is up", next_step="start one with `make load`, or `lambdalab load --up`")
        stack.require_alive()
        target = local_target(stack)
    reserved = target.stack.parameters.get("ReservedConcurrency")
    if reserved == _STRICT_RESERVATION and plan.shape is not Shape.STRICT:
        raise StackError(
            f"stack {target.stack.name} has ReservedConcurrency 1, under which load is throttled and dead-lettered",
            next_step="deploy it with the settings `load` of samconfig.toml, or choose --shape strict",
        )
    return target


def _workers(runner: LocalRunner | MasterRunner) -> tuple[str, ...]:
    """Locust's ids of the processes that send."""
    if isinstance(runner, LocalRunner):
        return (runner.client_id,)
    return tuple(client.id for client in runner.clients.all if client.state != STATE_MISSING)


def _summary(report: GeneratorReport) -> list[str]:
    names = ("offered", "attempted", "accepted", "failed", "retried", "late", "dropped", "unknown")
    lines = [", ".join(f"{name} {getattr(report, name)}" for name in names)]
    if (times := report.latency_ms) is not None:
        tail = "".join(
            f", {name} {value:.2f}"
            for name, value in (("p95", times.p95), ("p99", times.p99), ("p99.9", times.p999))
            if value is not None
        )
        lines.append(f"from due to answered, ms: median {times.p50:.2f}{tail}, maximum {times.maximum:.2f}")
    return [*lines, *(f"{n} x {error}" for error, n in report.errors.items())]
