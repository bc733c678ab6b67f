"""Where a run happens: one seam for AWS and the local stack, spoken over the same AWS API.

A target sends messages, tells what queues and tables hold, makes the next invocation a cold one and fetches log
lines. The two differ only in how a cold start is forced: on AWS by a configuration bump, undone at the end; locally by
the plane's own control call.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from lambdalab.aws.clients import Aws, access_errors
from lambdalab.aws.configuration import Configurations
from lambdalab.aws.log_query import read_log
from lambdalab.aws.package import Package, build_package
from lambdalab.aws.pipeline_reading import read_pipeline
from lambdalab.aws.stack import Stack, find_stack
from lambdalab.build.samconfig import region_of
from lambdalab.design.arms import Arm, ColdMode
from lambdalab.errors import AccessError, StackError, UsageError
from lambdalab.lock import Lock, hold
from lambdalab.machine_load import BlockLoad, CpuReading, load_between
from lambdalab.project import machine_folder, shown
from lambdalab.records.manifest import QueuedFunction
from lambdalab.records.pipeline import Graph
from lambdalab.records.trials import LogLine

CLOCK_SKEW_MS: Final = 60_000
"""How far this machine's clock may be from the log's."""
_LOOK_S: Final = 60
"""For so long messages that were looked at stay hidden."""


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """The deployed pieces of one language, which all its arms share."""

    function_name: str
    queue_url: str
    dead_letter_queue_url: str
    table_name: str
    log_group: str


class PlaneCounts(NamedTuple):
    """What the local plane has counted since it started, of all functions together, and what limits their CPU now."""

    invocations: int
    throttles: int
    cpu_limit: str

    def faults(
        self, before: "PlaneCounts", *, own: int, own_throttles: int = 0, cpu_limit: str | None = None
    ) -> list[str]:
        """What happened beside a measurement that would have had the stack to itself.

        Args:
            before: the counts when it began.
            own: how many invocations were its own.
            own_throttles: how many of its own calls were throttled.
            cpu_limit: what has to limit CPU; anything when None.
        """
        invocations, throttles = self.invocations - before.invocations, self.throttles - before.throttles
        lost = [] if cpu_limit in (None, self.cpu_limit) else [f"cpu_limit became {self.cpu_limit}"]
        return lost + [
            f"the plane counted {counted} {what}{'s' if counted > 1 else ''} meanwhile, {of_its_own} of its own"
            for what, counted, of_its_own in (("throttle", throttles, own_throttles), ("invocation", invocations, own))
            if counted > of_its_own
        ]


class AwsTarget:
    """A stack on AWS, or behind anything that speaks its API.

    Args:
        aws: its clients.
        stack: what is deployed.
        builds: the folder ``sam build`` made for each build that is not the deployed one, and for each architecture.

    Attributes:
        configurations: what functions had before they were changed, and have again after ``restore``.
        builds: as given; a folder may be added until the arm that asks for it is looked at.
        cold_mode: how cold starts are made.
        poll_s: how often the queue is looked at.
        empty_readings: how many times in a row it must read empty; its numbers are approximate on AWS.
        log_delay_s: how long log lines may take to appear.
        log_every_s: how often they are worth reading while a load run is under way.
        log_share: reading them then may take this share of the time.
        lock: held while a run measures here; None where nobody holds it.
    """

    name = "aws"
    lock: Lock | None = None
    cold_mode = ColdMode.CONFIGURATION_BUMP
    poll_s = 1.0
    empty_readings = 3
    log_delay_s = 300.0
    log_every_s = 60.0
    log_share = 1.0

    def __init__(self, aws: Aws, stack: Stack, builds: Mapping[str, Path] | None = None) -> None:
        self.aws = aws
        self.stack = stack
        self.region = str(aws.session.region_name)
        self.builds = dict(builds or {})
        self.configurations = Configurations(aws)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the stack for one run: two runs of this machine would disturb each other.

        Raises:
            InUseError: another process of this machine measures on it.
        """
        with self._hold() as self.lock:
            try:
                yield
            finally:
                self.lock = None

    def _hold(self) -> AbstractContextManager[Lock]:
        place = f"{self.aws.lambda_.meta.endpoint_url} {self.stack.stack_id or self.stack.name}"
        name = f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.lock"
        return hold(machine_folder() / name, f"stack {self.stack.name} in {self.region}")

    def require_alive(self) -> None:
        """Looks whether what runs the functions is still there. It is cheap: nothing is asked for.

        Raises:
            PlaneError: a part of the local stack has ended; it is named.
        """

    def require_answer(self) -> None:
        """Asks what runs the functions for an answer.

        Raises:
            PlaneError: a part of the local stack has ended or does not answer; it is named.
        """

    def plane_counts(self) -> "PlaneCounts | None":
        """What the plane has counted of all functions together; None where there is no plane to ask."""
        return None

    def read_cpu(self) -> CpuReading | None:
        """CPU times of the machine and of what runs the functions; None where functions run elsewhere."""
        return None

    @contextmanager
    def watching_cpu(self, block: int, write: Callable[[BlockLoad], None]) -> Iterator[None]:
        """Writes what other programs take of this machine while a block runs, where the functions run here as well."""
        before = self.read_cpu()
        yield
        after = self.read_cpu()
        if before is not None and after is not None:
            write(load_between(block, before, after))

    @contextmanager
    def naming_what_ended(self) -> Iterator[None]:
        """Says that a part of the local stack has ended where that is why a call in the block failed.

        Raises:
            PlaneError: as ``require_alive``, in place of the failed call's AccessError.
        """
        try:
            yield
        except AccessError:
            self.require_alive()
            raise

    def note_run(self, run_id: str) -> None:
        """Says which run holds the stack, to whoever is refused."""
        if self.lock is not None:
            self.lock.note(run_id=run_id)

    def pipeline(self) -> Graph:
        """The pipeline graph of the stack. What the services refuse to tell is named in it."""
        return read_pipeline(self.aws, self.stack, target=self.name)

    def resources(self, arm: Arm) -> Resources:
        """The deployed pieces of an arm, by the stack's outputs."""
        prefix = arm.language.capitalize()
        return Resources(
            function_name=self.stack.output(f"{prefix}FunctionName"),
            queue_url=self.stack.output(f"{prefix}QueueUrl"),
            dead_letter_queue_url=self.stack.output(f"{prefix}DeadLetterQueueUrl"),
            table_name=self.stack.output(f"{prefix}TableName"),
            log_group=self.stack.output(f"{prefix}LogGroupName"),
        )

    def facts(self, arm: Arm) -> QueuedFunction:
        """What is configured now, of the function and of the way to it.

        Raises:
            StackError: no event source mapping leads from the arm's queue to its function.
            AccessError: it cannot be asked for.
        """
        of_arm = self.resources(arm)
        name = of_arm.function_name
        package = self._package(arm)
        with access_errors(f"function {name}"):
            found = self.aws.lambda_.get_function_configuration(FunctionName=name)
            reserved = self.aws.lambda_.get_function_concurrency(FunctionName=name)
            mappings = self.aws.lambda_.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
        with access_errors(f"queue {of_arm.queue_url}"):
            queue = self.aws.sqs.get_queue_attributes(QueueUrl=of_arm.queue_url, AttributeNames=["All"])["Attributes"]
        mapping = next((mapping for mapping in mappings if mapping["EventSourceArn"] == queue["QueueArn"]), None)
        if mapping is None:
            raise StackError(
                f"nothing leads from queue {of_arm.queue_url} to {name}",
                next_step="deploy this project's template.yaml",
            )
        receives = json.loads(queue.get("RedrivePolicy", "{}")).get("maxReceiveCount")
        return QueuedFunction(
            function_name=name,
            language=arm.language,
            runtime=found["Runtime"],
            architecture=arm.architecture or found["Architectures"][0],
            memory_mb=arm.memory_mb or found["MemorySize"],
            timeout_s=found["Timeout"],
            log_group=of_arm.log_group,
            code_sha256=found["CodeSha256"] if package is None else package.code_sha256,
            batch_size=arm.batch_size or mapping["BatchSize"],
            maximum_concurrency=mapping.get("ScalingConfig", {}).get("MaximumConcurrency"),
            reserved_concurrency=reserved.get("ReservedConcurrentExecutions"),
            visibility_timeout_s=int(queue["VisibilityTimeout"]),
            max_receive_count=None if receives is None else int(receives),
        )

    def configure(self, arm: Arm) -> None:
        """Gives the arm's function the memory and the build the arm asks for, and its mapping the batch size.

        Raises:
            UsageError: its build's folder does not hold the function.
            AccessError: Lambda refuses, or cannot be asked.
        """
        of_arm = self.resources(arm)
        name = of_arm.function_name
        self.configurations.apply(name, memory_mb=arm.memory_mb, package=self._package(arm))
        if arm.batch_size is not None:
            with access_errors(f"queue {of_arm.queue_url}"):
                queue = self.aws.sqs.get_queue_attributes(QueueUrl=of_arm.queue_url, AttributeNames=["QueueArn"])
            self.configurations.batch_size(name, queue["Attributes"]["QueueArn"], arm.batch_size)

    def start_cold(self, of_arm: Resources) -> None:
        """Makes the arm's next invocation initialise a new environment."""
        self.renew(of_arm.function_name)

    def renew(self, function_name: str) -> None:
        """Makes the next invocations of a function initialise new environments: a configuration bump, waited for."""
        self.configurations.bump(function_name)

    def restore(self) -> None:
        """Gives every function and mapping back the configuration and the code it had."""
        self.configurations.restore()

    def send(self, of_arm: Resources, bodies: Sequence[str]) -> str:
        """Sends up to ten messages with one call; returns the id of the first.

        Raises:
            AccessError: SQS does not take all of them.
        """
        url = of_arm.queue_url
        with access_errors(f"queue {url}"):
            if len(bodies) == 1:
                return self.aws.sqs.send_message(QueueUrl=url, MessageBody=bodies[0])["MessageId"]
            answer = self.aws.sqs.send_message_batch(
                QueueUrl=url,
                Entries=[{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)],
            )
        if failed := answer.get("Failed"):
            raise AccessError(
                f"queue {url} did not take {len(failed)} of {len(bodies)} messages: {failed[0]['Code']}",
                next_step="go on when it does",
            )
        return next(sent["MessageId"] for sent in answer["Successful"] if sent["Id"] == "0")

    def emptying(self, queue_url: str) -> str:
        """How a person gets rid of messages nobody wants."""
        return f"wait for them, or drop them with `aws sqs purge-queue --queue-url {queue_url}`"

    def queue_depth(self, queue_url: str) -> int:
        """Messages visible, in flight and delayed, together."""
        return sum(self.queue_counts(queue_url))

    def queue_counts(self, queue_url: str) -> tuple[int, int]:
        """Messages that wait, delayed ones among them, and messages in flight."""
        with access_errors(f"queue {queue_url}"):
            found = self.aws.sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])["Attributes"]
        waiting = int(found["ApproximateNumberOfMessages"]) + int(found["ApproximateNumberOfMessagesDelayed"])
        return waiting, int(found["ApproximateNumberOfMessagesNotVisible"])

    def bodies(self, queue_url: str) -> list[str]:
        """Looks at the messages of a queue that nobody else receives from; they stay in it."""
        seen: dict[str, str] = {}
        wanted = self.queue_depth(queue_url)
        with access_errors(f"queue {queue_url}"):
            while len(seen) < wanted:
                found = self.aws.sqs.receive_message(
                    QueueUrl=queue_url, MaxNumberOfMessages=10, VisibilityTimeout=_LOOK_S, WaitTimeSeconds=1
                )
                page = {message["MessageId"]: message["Body"] for message in found.get("Messages", [])}
                if not page.keys() - seen.keys():  # its counts are approximate
                    break
                seen |= page
        return list(seen.values())

    def log_lines(self, log_group: str, since_ms: int, *, for_s: float = math.inf) -> Iterator[LogLine]:
        """The lines of a log group since a moment; ``log_query.read_log`` says how, and what it raises."""
        return read_log(self.aws.logs, log_group, since_ms, poll_s=self.poll_s / 2, for_s=for_s)

    def _package(self, arm: Arm) -> Package | None:
        """The code of the arm's build or architecture; None is what is deployed."""
        folder = self.builds.get(arm.build or arm.architecture or "")
        if folder is None:
            if arm.architecture is not None:
                raise UsageError(
                    f"arm {arm.name} wants architecture {arm.architecture}, and there is no build for it",
                    next_step="name the folder of one",
                )
            return None
        name = self.resources(arm).function_name
        logical_id = next(logical for logical, function_name in self.stack.functions().items() if function_name == name)
        with access_errors(f"function {name}"):
            found = self.aws.lambda_.get_function_configuration(FunctionName=name)
        return build_package(folder / logical_id, arm.architecture or found["Architectures"][0])


def aws_target(
    stack_name: str, builds: Mapping[str, Path] | None = None, aws: Aws | None = None, folder: Path | None = None
) -> AwsTarget:
    """The target for a stack on AWS, by the ordinary AWS environment.

    Args:
        stack_name: which.
        builds: as of ``AwsTarget``.
        aws: clients that are there already.
        folder: of the scenario whose stack it is; the project's root when None.

    Raises:
        StackError, AccessError: it is not there, or cannot be asked for.
    """
    aws = aws or Aws(region=region_of(stack_name))
    there = "" if folder is None else f"cd {shown(folder)} && "
    deploy = f"`{there}sam build && sam deploy`"
    stack = find_stack(aws, stack_name, next_step=f"deploy it with {deploy}, or name yours with --stack-name")
    return AwsTarget(aws, stack, builds)


def account_target(prefix: str) -> AwsTarget:
    """The target for functions of an account whose names begin so, of whatever stack or none."""
    return AwsTarget(Aws(), Stack(name=f"{prefix}*", outputs={}, parameters={}, resources={}, types={}))
