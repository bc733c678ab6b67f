"""What is deployed, read through the AWS API: the stack, its functions, and what leads to them."""

import asyncio
import contextlib
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from botocore.exceptions import ClientError

from lambdalab.aws.clients import Aws
from lambdalab.aws.stack import Stack, find_stack
from lambdalab.aws.template import processed_template
from lambdalab.aws.wakings import Waking, wakings
from lambdalab.errors import PlaneError
from lambdalab.local.async_invoke import EventConfig
from lambdalab.local.function import CUSTOM_RUNTIMES, FunctionSpec
from lambdalab.local.packages import merge_layers, unpack
from lambdalab.local.poller import Mapping

DEPLOYED_PATH: Final = "/_lambdalab/deployed"
"""Where the lab's server of the emulator answers a fingerprint of what is deployed (``emulator_server``)."""


_ANSWER_S: Final = 5.0
"""An emulator that takes longer to say so little hangs: without a limit the plane would wait for it, and not end."""


class _Deployment(msgspec.Struct):
    fingerprint: str | None


class Deployed:
    """A deployed stack. Every call raises boto's errors, and LambdalabError for what cannot be run.

    Args:
        aws: the emulator.
        executor: threads for its calls.
        folder: packages and layers are unpacked in it.
        interpreters: the Python of each runtime that can be run.
    """

    def __init__(self, aws: Aws, executor: Executor, folder: Path, interpreters: dict[str, str]) -> None:
        self._aws, self._executor, self._folder, self._interpreters = aws, executor, folder, interpreters
        self._queue_urls: dict[str, str] = {}

    async def fingerprint(self) -> str | None:
        """What changes when a stack, a function or a mapping does; None where the emulator does not tell.

        Raises:
            OSError: it does not answer, or not in time.
        """
        where = urlsplit(self._aws.lambda_.meta.endpoint_url)
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            try:
                writer.write(f"GET {DEPLOYED_PATH} HTTP/1.0\r\nHost: {where.netloc}\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        if head.split(b" ", 2)[1:2] != [b"200"]:
            return None
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(body, type=_Deployment).fingerprint
        return None

    async def stack(self, name: str) -> Stack:
        """The stack as CloudFormation describes it."""
        found: Stack = await self._call(lambda: find_stack(self._aws, name, next_step="deploy it with `lambdalab up`"))
        return found

    async def wakings(self, stack: Stack) -> list[Waking]:
        """What would wake the stack's functions in ways that do not run here, event source mappings aside."""
        return wakings(await self._call(lambda: processed_template(self._aws, stack.name)), stack.types)

    async def reserve(self, function_name: str, concurrency: int | None) -> None:
        """Sets a function's reserved concurrency; None takes it away."""
        if concurrency is None:
            await self._call(lambda: self._aws.lambda_.delete_function_concurrency(FunctionName=function_name))
        else:
            await self._call(
                lambda: self._aws.lambda_.put_function_concurrency(
                    FunctionName=function_name, ReservedConcurrentExecutions=concurrency
                )
            )

    async def configuration(self, name: str) -> tuple[Any, int | None]:
        """A function's configuration, as Lambda answers it, and its reserved concurrency."""
        found = await self._call(lambda: self._aws.lambda_.get_function_configuration(FunctionName=name))
        concurrency = await self._call(lambda: self._aws.lambda_.get_function_concurrency(FunctionName=name))
        return found, concurrency.get("ReservedConcurrentExecutions")

    async def spec(self, name: str) -> FunctionSpec:
        """Everything a function is started with, its package and layers unpacked."""
        answer = await self._call(lambda: self._aws.lambda_.get_function(FunctionName=name))
        concurrency = await self._call(lambda: self._aws.lambda_.get_function_concurrency(FunctionName=name))
        found = answer["Configuration"]
        runtime = found["Runtime"]
        if runtime not in CUSTOM_RUNTIMES and runtime not in self._interpreters:
            raise PlaneError(
                f"function {name} wants {runtime}, for which the plane has no interpreter",
                next_step="restart the local stack with `lambdalab down` and `lambdalab up`",
            )
        return FunctionSpec(
            name=name,
            arn=found["FunctionArn"],
            runtime=runtime,
            handler=found["Handler"],
            memory_mb=found["MemorySize"],
            timeout_s=found["Timeout"],
            variables=dict(found.get("Environment", {}).get("Variables", {})),
            log_group=found.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{name}",
            revision_id=found["RevisionId"],
            package=await self._call(lambda: unpack(answer["Code"]["Location"], self._folder)),
            reserved_concurrency=concurrency.get("ReservedConcurrentExecutions"),
            tmp_mb=found.get("EphemeralStorage", {}).get("Size", 512),
            layers=await self._call(lambda: self._layers([layer["Arn"] for layer in found.get("Layers", ())])),
        )

    def _layers(self, arns: list[str]) -> Path | None:
        found = [self._aws.lambda_.get_layer_version_by_arn(Arn=arn)["Content"]["Location"] for arn in arns]
        return merge_layers(found, self._folder)

    async def event_config(self, name: str, configuration: Any) -> EventConfig:
        """How a function's asynchronous invocations are retried, aged and sent on."""
        try:
            answer = await self._call(lambda: self._aws.lambda_.list_function_event_invoke_configs(FunctionName=name))
        except ClientError:  # an emulator without them
            return EventConfig.read([], configuration)
        return EventConfig.read(list(answer["FunctionEventInvokeConfigs"]), configuration)

    async def mappings(self, name: str) -> tuple[dict[str, Mapping], list[str]]:
        """The event source mappings of a function; the emulator's own running of them is switched off.

        Returns:
            The mappings of queues by id, and the sources of all others, which do not run here.
        """
        answer = await self._call(lambda: self._aws.lambda_.list_event_source_mappings(FunctionName=name))
        found = {mapping["UUID"]: mapping for mapping in answer["EventSourceMappings"]}
        for uuid, seen in found.items():
            if seen.get("State") not in ("Disabled", "Disabling"):
                await self._call(
                    lambda uuid=uuid: self._aws.lambda_.update_event_source_mapping(UUID=uuid, Enabled=False)
                )
        queues = {uuid: seen for uuid, seen in found.items() if _service_of(seen) == "sqs"}
        others = [seen.get("EventSourceArn") or uuid for uuid, seen in found.items() if uuid not in queues]
        return {uuid: await self._mapping(name, seen) for uuid, seen in queues.items()}, others

    async def check_visibility(self, mapping: Mapping, timeout_s: int) -> None:
        """As Lambda does when a mapping is created, and not later.

        Raises:
            PlaneError: the queue shows a message again while the function may still be at it.
        """
        attributes = await self._call(
            lambda: self._aws.sqs.get_queue_attributes(QueueUrl=mapping.queue_url, AttributeNames=["VisibilityTimeout"])
        )
        visibility_s = int(attributes["Attributes"]["VisibilityTimeout"])
        if timeout_s > visibility_s:
            raise PlaneError(
                f"the mapping of {mapping.function_name} is refused as Lambda would: the queue's visibility timeout of "
                f"{visibility_s} s is shorter than the function's timeout of {timeout_s} s",
                next_step="give the queue six times the function's timeout",
            )

    async def _mapping(self, function_name: str, seen: Any) -> Mapping:
        queue_arn: str = seen["EventSourceArn"]
        if queue_arn not in self._queue_urls:
            queue_name = queue_arn.rsplit(":", 1)[1]
            answer = await self._call(lambda: self._aws.sqs.get_queue_url(QueueName=queue_name))
            self._queue_urls[queue_arn] = answer["QueueUrl"]
        return Mapping(
            uuid=seen["UUID"],
            function_name=function_name,
            queue_arn=queue_arn,
            queue_url=self._queue_urls[queue_arn],
            batch_size=seen.get("BatchSize", 10),
            window_s=seen.get("MaximumBatchingWindowInSeconds") or 0,
            maximum_concurrency=(seen.get("ScalingConfig") or {}).get("MaximumConcurrency"),
            patterns=tuple(f["Pattern"] for f in (seen.get("FilterCriteria") or {}).get("Filters") or ()),
            reports_batch_item_failures="ReportBatchItemFailures" in (seen.get("FunctionResponseTypes") or ()),
        )

    async def _call(self, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _service_of(mapping: Any) -> str | None:
    """The service of a mapping's source; None for a self-managed one, which has no ARN."""
    parts: list[str] = mapping.get("EventSourceArn", "").split(":")
    return parts[2] if len(parts) > 2 else None
