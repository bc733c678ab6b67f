"""The Locust user, and the process's part in a run: it takes its share of the plan and tells what it sent."""

import logging
import time
from typing import Any, Final

import gevent
import msgspec
from botocore.exceptions import BotoCoreError, ClientError
from gevent.event import Event
from locust import User, constant, tag, task
from locust.env import Environment
from locust.runners import LocalRunner, WorkerRunner

from lambdalab.aws.clients import Aws, access_errors
from lambdalab.errors import LambdalabError
from lambdalab.load.generator import GRACE_S, Generator, Request
from lambdalab.load.job import JOB, STOP, TOLD, Job, Told
from lambdalab.load.sender import Outcome, SqsSender
from lambdalab.planning.load_schedule import Arrival, Shape, arrivals, length_s
from lambdalab.planning.spending import MISSING_ITEMS_POLLS
from lambdalab.records.load import Send
from lambdalab.run.ingest import count_items, message
from lambdalab.run.local_target import LocalTarget
from lambdalab.run.target import AwsTarget

TELL_S: Final = 0.5
MASTER_SILENT_S: Final = 10.0
"""A worker whose master has not been heard of for so long sends no more."""

_log = logging.getLogger(__name__)


class SqsUser(User):
    """Sends one process's share of the plan. One per process: how many requests are under way, the plan decides.

    ``host`` is only what Locust's page shows: where to, the plan's target says.
    """

    host = "SQS"
    wait_time = constant(0)

    @tag("sqs")
    @task
    def send(self) -> None:
        """Sends until the run ends."""
        sending = Sending.of(self.environment)
        sending.begin()
        sending.ended.wait()
        Event().wait()  # a user that ended would be missing in Locust's count; it is stopped with the run


class Sending:
    """One process's part in runs, one after the other. Users come and go as Locust balances them; this does not.

    Args:
        environment: of a process that sends: Locust's worker, or its only one.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._generator: Generator | None = None
        self.ended = Event()
        runner = environment.runner
        assert isinstance(runner, LocalRunner | WorkerRunner)
        self._runner = runner
        runner.register_message(STOP, lambda **_: self.stop(), concurrent=True)
        environment.events.test_start.add_listener(lambda **_: self._forget())
        environment.events.test_stopping.add_listener(lambda **_: self.stop())
        environment.events.quitting.add_listener(lambda **_: self.stop())
        vars(environment)["lambdalab_sending"] = self

    @staticmethod
    def of(environment: Environment) -> "Sending":
        """The one of a process."""
        found: Sending = vars(environment)["lambdalab_sending"]
        return found

    def begin(self) -> None:
        """Begins this process's share of the job at hand, unless that has begun."""
        if self._generator is not None or self.ended.is_set():
            return
        job = msgspec.json.decode(getattr(self._environment.parsed_options, JOB), type=Job)
        if self._runner.client_id not in job.workers:
            _log.warning("this worker came while a run was under way and has no share in it")
            return
        worker = job.workers.index(self._runner.client_id)
        try:
            share = _Share(job, worker, self._environment)
        except LambdalabError as error:
            _log.error("lambdalab: %s", error)
            self._tell(Told(run_id=job.run_id, worker=worker, failure=str(error)))
            self.ended.set()
            return
        self._generator = share.generator
        gevent.spawn(self._run, share)

    def stop(self) -> None:
        """Ends the share, and returns when nothing is under way and everything has been told."""
        if self._generator is not None:
            self._generator.stop()
            self.ended.wait(1.0)

    def _forget(self) -> None:
        self.stop()
        self._generator = None
        self.ended.clear()

    def _tell(self, told: Told) -> None:
        self._runner.send_message(TOLD, {"told": msgspec.msgpack.encode(told)})

    def _run(self, share: "_Share") -> None:
        sent = Event()
        telling = gevent.spawn(self._tell_and_listen, share, sent)
        try:
            share.generator.run()
        finally:
            sent.set()
            telling.join()  # not killed, which could lose what it is telling
            self._tell(share.told(last=True))
            self.ended.set()

    def _tell_and_listen(self, share: "_Share", sent: Event) -> None:
        while not sent.wait(TELL_S):
            if share.sends:
                self._tell(share.told())
            heard = getattr(self._runner, "last_heartbeat_timestamp", None)
            if heard is not None and time.time() - heard > MASTER_SILENT_S:
                _log.error("nothing was heard of the master for %.0f s: this worker sends no more", MASTER_SILENT_S)
                gevent.spawn(share.generator.stop)


class _Share:
    """What one process sends of one run."""

    def __init__(self, job: Job, worker: int, environment: Environment) -> None:
        self._job, self._worker = job, worker
        self._request = environment.events.request
        self._aws = Aws(endpoint_url=job.endpoint_url if job.local else None)
        self._target = LocalTarget if job.local else AwsTarget
        session = self._aws.session
        self._sender = SqsSender(job.endpoint_url, session, job.region)
        with access_errors("SQS"):
            self._sqs = session.client("sqs", endpoint_url=job.endpoint_url, region_name=job.region)
        self._bodies: dict[int, list[str]] = {}
        self._empty_readings = self._items_taken = 0
        self.sends: list[Send] = []
        plan = job.plan
        until_s = length_s(plan)
        strict = plan.shape is Shape.STRICT
        self._action = "SendMessage" if plan.batch_size == 1 else "SendMessageBatch"
        self.generator = Generator(
            worker,
            arrivals(plan, worker, len(job.workers)),
            self._send,
            self._note,
            until_s=plan.max_s if until_s is None else min(until_s + GRACE_S, plan.max_s),
            drained=self._drained if strict else None,
            poll_s=self._target.poll_s,
        )

    def told(self, *, last: bool = False) -> Told:
        """What was sent since the last time."""
        sends, self.sends = self.sends, []
        share = self.generator.share() if last else None
        return Told(run_id=self._job.run_id, worker=self._worker, sends=sends, share=share)

    def _batch_id(self, arrival: Arrival, place: int) -> str:
        return f"{self._job.run_id}-{self._worker}-{arrival.number + place}"

    def _send(self, arrival: Arrival) -> list[Outcome]:
        mix = self._job.plan.mix
        bodies = [
            message(self._batch_id(arrival, place), mix[kind], mix[kind].mode)
            for place, kind in enumerate(arrival.messages)
        ]
        self._bodies[arrival.number] = bodies
        return self._sender.send(self._job.resources[arrival.arm].queue_url, bodies)

    def _note(self, request: Request) -> None:
        arrival = request.arrival
        bodies = self._bodies.pop(arrival.number)
        self._items_taken = 0
        for place, (kind, outcome) in enumerate(zip(arrival.messages, request.outcomes, strict=True)):
            asked = self._job.plan.mix[kind]
            self._items_taken += asked.count if outcome.error is None else 0
            self.sends.append(
                Send(
                    batch_id=self._batch_id(arrival, place),
                    arm=arrival.arm,
                    label=asked.label,
                    step=arrival.step,
                    phase=arrival.phase,
                    intended_at_ms=request.due_ms,
                    began_at_ms=request.began_ms,
                    answered_at_ms=request.answered_ms,
                    message_bytes=len(bodies[place]),
                    items=asked.count,
                    attempts=outcome.attempts,
                    message_id=outcome.message_id,
                    error=outcome.error,
                )
            )
        self._show(request, sum(map(len, bodies)))

    def _show(self, request: Request, length: int) -> None:
        """Tells Locust's statistics: one entry a request, from when it was due, and one for each message refused."""
        ended_ms = request.due_ms if request.answered_ms is None else request.answered_ms
        latency_ms = ended_ms - request.due_ms
        refused = [outcome.error for outcome in request.outcomes if outcome.error is not None]
        whole = len(refused) == len(request.outcomes)
        shown: dict[str, Any] = {"request_type": "SQS", "response_time": latency_ms, "context": {}}
        name = f"{self._action} {request.arrival.arm}"
        error = RuntimeError(refused[0]) if whole else None
        self._request.fire(**shown, name=name, response_length=length, exception=error)
        for text in refused if not whole else ():
            self._request.fire(**shown, name=f"{name} entry", response_length=0, exception=RuntimeError(text))

    def _drained(self, arrival: Arrival) -> bool:
        """Whether the queue is empty and the items are there, as a run of the protocol waits (``runner``).

        On AWS the numbers of a queue are approximate, for a minute or longer, so items are what tells. Of a message
        that was dead-lettered none come: after ``MISSING_ITEMS_POLLS`` looks at an empty queue the run goes on.
        """
        of_arm = self._job.resources[arrival.arm]
        try:
            found = self._sqs.get_queue_attributes(QueueUrl=of_arm.queue_url, AttributeNames=["All"])["Attributes"]
        except (BotoCoreError, ClientError) as error:
            _log.warning("queue %s cannot be looked at now: %s", of_arm.queue_url, error)
            return False
        counts = (found["ApproximateNumberOfMessages"], found["ApproximateNumberOfMessagesNotVisible"])
        self._empty_readings = self._empty_readings + 1 if counts == ("0", "0") else 0
        if self._empty_readings < self._target.empty_readings:
            return False
        batch_ids = [self._batch_id(arrival, place) for place in range(len(arrival.messages))]
        try:
            items = count_items(self._aws, of_arm, batch_ids)
            missing = f"{items} of its {self._items_taken} items" if items != self._items_taken else None
        except LambdalabError as error:
            missing = f"items that cannot be counted: {error}"
        if missing is not None:
            if self._empty_readings < MISSING_ITEMS_POLLS:
                return False
            _log.warning("message %s left its queue with %s", batch_ids[0], missing)
        self._empty_readings = 0
        return True
