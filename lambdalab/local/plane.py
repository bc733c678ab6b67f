"""The plane: attaches to a deployed stack through the AWS API and is Lambda for it from then on.

Started as a process of its own by ``lambdalab up``: ``python -m lambdalab.local.plane SETTINGS.json``.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from lambdalab.aws import LOCAL_KEY, Aws
from lambdalab.errors import LambdalabError, PlaneError
from lambdalab.latency import Draws, LatencyModel
from lambdalab.local.async_invoke import AsyncQueue, EventConfig, Timing
from lambdalab.local.cgroup import Cgroups, Limits
from lambdalab.local.debug import Unthrottled, under_debugger
from lambdalab.local.destinations import Destinations, Put
from lambdalab.local.environment import Emit, Environment
from lambdalab.local.filesystem import FileSystems, enter_user_namespace, needed_folders
from lambdalab.local.function import CUSTOM_RUNTIMES, Credentials, FunctionSpec
from lambdalab.local.guard import Guard
from lambdalab.local.http import serve
from lambdalab.local.invoke_api import InvokeApi
from lambdalab.local.logs import LogWriter
from lambdalab.local.packages import merge_layers, unpack
from lambdalab.local.poller import Mapping, Poller
from lambdalab.local.pool import Pool, new_trace_id
from lambdalab.local.runtime_api import Answer
from lambdalab.local.service_time import ServiceTime
from lambdalab.local.sqs import Sqs
from lambdalab.local.watch import Watches
from lambdalab.stack import Stack, find_stack

FOLLOW_S: Final = 1.0
STOP_GRACE_S: Final = 5.0
RESERVED: Final = "ReservedConcurrency"
FOLLOW_ERRORS: Final = (BotoCoreError, ClientError, LambdalabError, OSError)
_MEASURED: Final = ("REPORT RequestId:", "INIT_REPORT ")
"""Lines with figures, which mean nothing of an invocation under a debugger."""
SWITCH_S: Final = 0.0002
"""How long a thread that speaks to the emulator may keep the interpreter from an invocation; Python's own 5 ms show."""
log: Final = logging.getLogger("lambdalab.plane")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plane is started with. ``interpreters`` maps a runtime such as ``python3.12`` to its Python.

    Without a ``latency`` model functions speak to the emulator itself.
    """

    endpoint_url: str
    stack_name: str
    port: int
    folder: str
    interpreters: dict[str, str]
    async_timing: Timing = Timing()
    latency: LatencyModel | None = None
    cpu_scale: float = 1.0


class Plane:
    """Functions, pools and pollers of one stack."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._aws = Aws(endpoint_url=settings.endpoint_url)
        self._executor: Executor = ThreadPoolExecutor(32, thread_name_prefix="aws")
        self._guard = Guard()
        self._cgroups = Cgroups(f"lambdalab-{os.getpid()}", tell=self._guard.tell, cpu_scale=settings.cpu_scale)
        self._files = FileSystems(Path(settings.folder))
        self._credentials: dict[str, Credentials] = {}
        self._service_times: dict[str, ServiceTime] = {}
        self._sqs = Sqs(settings.endpoint_url, self._aws.session)
        self.watches = Watches()
        self._debugged: set[Environment] = set()
        self._pools: dict[str, Pool] = {}
        self._queues: dict[str, AsyncQueue] = {}
        self._destinations = Destinations(self._aws, self._executor, self._put)
        self._pollers: dict[str, Poller] = {}
        self._retired: list[Poller] = []
        self._following = asyncio.Lock()
        self._logs = LogWriter(self._aws.logs, self._executor)
        self._stack: Stack | None = None
        self._logical_names: dict[str, str] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._told: dict[str, str] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Attaches, serves until ``stop`` is set, then lets what runs finish and takes everything down.

        Raises:
            LambdalabError: the stack or its functions cannot be attached to.
        """
        server = None
        try:
            await self._attach()
            api = InvokeApi(self, self._settings.endpoint_url, self._executor)
            server = await self._serve(api)
            while not stop.is_set():
                await self.follow()
                for pool in self._pools.values():
                    pool.expire()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), FOLLOW_S)
        finally:
            if server is not None:
                server.close()
            pollers = (*self._pollers.values(), *self._retired)
            await asyncio.gather(
                *(poller.close(grace_s=STOP_GRACE_S) for poller in pollers),
                *(queue.close(grace_s=STOP_GRACE_S) for queue in self._queues.values()),
            )
            self._report_lost_events()
            for task in self._leaving:
                task.cancel()
            await asyncio.gather(*self._leaving, return_exceptions=True)
            await asyncio.gather(*(pool.close() for pool in self._pools.values()))
            for service_time in self._service_times.values():
                service_time.close()
            await asyncio.gather(*(environment.close() for environment in self._debugged))
            await self._logs.close()
            self._sqs.close()
            self._cgroups.close()
            self._files.close()
            self._guard.close()

    def pool(self, name: str) -> Pool | None:
        """The pool of a function by name, logical id or ARN."""
        return self._pools.get(self._physical(name))

    def events(self, name: str) -> AsyncQueue | None:
        """The queue for asynchronous invocations of a function, named likewise."""
        return self._queues.get(self._physical(name))

    def status(self) -> dict[str, Any]:
        """Everything the plane knows of itself, as JSON-ready values."""
        return {
            "pid": os.getpid(),
            "stack_name": self._settings.stack_name,
            "cpu_limit": self._cgroups.kind,
            "cpu_scale": self._settings.cpu_scale,
            "controllers": self._cgroups.controllers,
            "tmp_limit": self._files.kind,
            "logical_names": self._logical_names,
            "log_lines_dropped": self._logs.dropped,
            "latency": msgspec.to_builtins(self._settings.latency),
            "functions": {
                name: {
                    "runtime": pool.spec.runtime,
                    "memory_mb": pool.spec.memory_mb,
                    "timeout_s": pool.spec.timeout_s,
                    "reserved_concurrency": pool.spec.reserved_concurrency,
                    "concurrency_limit": pool.limit,
                    "package": str(pool.spec.package),
                    "log_group": pool.spec.log_group,
                    "interpreter": self._settings.interpreters.get(pool.spec.runtime),
                    "environments": len(pool.environments),
                    "idle": len(pool.environments) - pool.in_flight,
                    "in_flight": pool.in_flight,
                    "invocations": pool.invocations,
                    "cold_starts": pool.cold_starts,
                    "warm_invocations": pool.warm_invocations,
                    "throttles": pool.throttles,
                    "errors": pool.errors,
                    "timeouts": pool.timeouts,
                    "crashes": pool.crashes,
                    "resets": pool.resets,
                    "events": _status_of(self._queues[name]),
                    **({"service_calls": self._service_times[name].counts()} if name in self._service_times else {}),
                    "pids": [e.pid for e in pool.environments if e.pid is not None],
                }
                for name, pool in self._pools.items()
            },
            "mappings": {poller.mapping.function_name: poller.status() for poller in self._pollers.values()},
        }

    async def follow(self) -> None:
        """Reads the stack, its functions and mappings anew and takes up what changed; what cannot be read stays."""
        async with self._following:
            try:
                stack = await self._read_stack()
                if stack != self._stack:
                    await self._take_up(stack)
                self._told.pop(stack.name, None)
            except FOLLOW_ERRORS as error:
                self._tell(self._settings.stack_name, error)
            for name in self._pools:
                try:
                    await self._follow_function(name)
                    await self._follow_mappings(name)
                    self._told.pop(name, None)
                except FOLLOW_ERRORS as error:
                    self._tell(name, error)

    def _tell(self, name: str, error: Exception) -> None:
        """Once, however often it is tried again."""
        if self._told.get(name) != str(error):
            self._told[name] = str(error)
            log.warning("%s cannot be followed now: %s", name, error)

    async def _serve(self, api: InvokeApi) -> asyncio.Server:
        try:
            return await serve(api.handle, self._settings.port)
        except OSError as error:
            raise PlaneError(
                f"port {self._settings.port} on 127.0.0.1 is taken ({error.strerror})",
                next_step="end what listens there, or choose another with --port",
            ) from error

    async def _attach(self) -> None:
        stack = await self._read_stack()
        if not stack.functions():
            raise PlaneError(f"stack {stack.name} has no functions", next_step="deploy this project's template.yaml")
        await self._take_up(stack)
        for name in self._pools:
            await self._follow_function(name)
            await self._follow_mappings(name)

    async def _read_stack(self) -> Stack:
        next_step = "deploy it with `lambdalab up`"
        found: Stack = await self._call(lambda: find_stack(self._aws, self._settings.stack_name, next_step=next_step))
        return found

    async def _take_up(self, stack: Stack) -> None:
        """Takes the functions that a deployment brought, drops those it removed, and reserves their concurrency.

        The emulator drops ReservedConcurrentExecutions of a template; the stack's own parameter still says it.
        """
        names = stack.functions()
        for name in self._pools.keys() - names.values():
            self._drop(name)
        reserved = stack.parameters.get(RESERVED, "")
        before = None if self._stack is None else self._stack.parameters.get(RESERVED, "")
        for name in names.values():
            if reserved and (name not in self._pools or reserved != before):
                await self._call(
                    lambda name=name: self._aws.lambda_.put_function_concurrency(
                        FunctionName=name, ReservedConcurrentExecutions=int(reserved)
                    )
                )
            elif before and not reserved:
                await self._call(lambda name=name: self._aws.lambda_.delete_function_concurrency(FunctionName=name))
            if name not in self._pools:
                self._credentials[name] = Credentials(
                    access_key_id=LOCAL_KEY, secret_access_key=LOCAL_KEY, endpoint_url=await self._open_endpoint(name)
                )
                pool = Pool(await self._read_spec(name), self._create)
                self._queues[name] = AsyncQueue(pool, self._destinations.send, self._settings.async_timing)
                self._pools[name] = pool
        self._logical_names = names
        self._stack = stack

    def _drop(self, name: str) -> None:
        """What a removed function runs is finished; then its environments end."""
        pool, queue = self._pools.pop(name), self._queues.pop(name)
        service_time = self._service_times.pop(name, None)
        pollers = [p for p in self._pollers.values() if p.mapping.function_name == name]
        self._pollers = {uuid: poller for uuid, poller in self._pollers.items() if poller not in pollers}

        async def end() -> None:
            grace_s = pool.spec.timeout_s
            try:
                work = (*(poller.close(grace_s=grace_s) for poller in pollers), queue.close(grace_s=grace_s))
                await asyncio.gather(*work)
            finally:
                await pool.close()
                if service_time is not None:
                    service_time.close()

        task = asyncio.get_running_loop().create_task(end())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _open_endpoint(self, name: str) -> str:
        """Where a function finds AWS: the emulator, or with a latency model a proxy of its own before it."""
        if self._settings.latency is None:
            return self._settings.endpoint_url
        draws = Draws(self._settings.latency, name)
        self._service_times[name] = ServiceTime(self._settings.endpoint_url, draws)
        return await self._service_times[name].open()

    def _create(self, spec: FunctionSpec) -> Environment:
        def emit(stream: str, line: str) -> None:
            self._logs.emit(spec.log_group, stream, line)
            self.watches.emit(stream, line)

        return self._environment(spec, self._cgroups.create(secrets.token_hex(6)), emit)

    def _environment(self, spec: FunctionSpec, limits: Limits, emit: Emit) -> Environment:
        interpreter = self._settings.interpreters.get(spec.runtime)
        python = None if interpreter is None else Path(interpreter)
        return Environment(
            spec,
            interpreter=python,
            credentials=self._credentials[spec.name],
            limits=limits,
            files=self._files.create(
                tmp_mb=spec.tmp_mb, needed=needed_folders(spec.package, python), layers=spec.layers
            ),
            emit=emit,
        )

    async def debug(
        self, name: str, port: int, payload: bytes, *, request_id: str, client_context: str | None
    ) -> Answer:
        """Runs one invocation under a debugger, in an environment of its own; its lines are written to nobody's log."""
        spec = under_debugger(self._pools[self._physical(name)].spec, port, Path(self._settings.folder) / "tools")

        def emit(_: str, line: str) -> None:
            if not line.startswith(_MEASURED):
                self.watches.add(request_id, line)

        environment = self._environment(spec, Unthrottled(self._cgroups.create(secrets.token_hex(6))), emit)
        self._debugged.add(environment)
        try:
            outcome = await environment.invoke(
                payload, request_id=request_id, trace_id=new_trace_id(), client_context=client_context
            )
        finally:
            self._debugged.discard(environment)
            await environment.close()
        return outcome.answer

    async def _follow_function(self, name: str) -> None:
        pool = self._pools[name]
        seen = await self._call(lambda: self._aws.lambda_.get_function_configuration(FunctionName=name))
        concurrency = await self._call(lambda: self._aws.lambda_.get_function_concurrency(FunctionName=name))
        reserved = concurrency.get("ReservedConcurrentExecutions")
        if seen["RevisionId"] != pool.spec.revision_id or reserved != pool.spec.reserved_concurrency:
            pool.reconfigure(await self._read_spec(name))
            log.info("%s was reconfigured", name)
        self._queues[name].config = EventConfig.read(await self._read_event_configs(name), seen)

    async def _read_spec(self, name: str) -> FunctionSpec:
        answer = await self._call(lambda: self._aws.lambda_.get_function(FunctionName=name))
        concurrency = await self._call(lambda: self._aws.lambda_.get_function_concurrency(FunctionName=name))
        found = answer["Configuration"]
        runtime = found["Runtime"]
        if runtime not in CUSTOM_RUNTIMES and runtime not in self._settings.interpreters:
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
            package=await self._call(lambda: unpack(answer["Code"]["Location"], Path(self._settings.folder))),
            reserved_concurrency=concurrency.get("ReservedConcurrentExecutions"),
            tmp_mb=found.get("EphemeralStorage", {}).get("Size", 512),
            layers=await self._call(lambda: self._layers([layer["Arn"] for layer in found.get("Layers", ())])),
        )

    def _layers(self, arns: list[str]) -> Path | None:
        found = [self._aws.lambda_.get_layer_version_by_arn(Arn=arn)["Content"]["Location"] for arn in arns]
        return merge_layers(found, Path(self._settings.folder))

    async def _read_event_configs(self, name: str) -> list[Any]:
        try:
            answer = await self._call(lambda: self._aws.lambda_.list_function_event_invoke_configs(FunctionName=name))
        except ClientError:  # an emulator without them
            return []
        return list(answer["FunctionEventInvokeConfigs"])

    async def _follow_mappings(self, name: str) -> None:
        """Switches the emulator's own mappings off and runs them here."""
        answer = await self._call(lambda: self._aws.lambda_.list_event_source_mappings(FunctionName=name))
        found = {m["UUID"]: m for m in answer["EventSourceMappings"]}
        for uuid, seen in found.items():
            if seen.get("State") not in ("Disabled", "Disabling"):
                await self._call(
                    lambda uuid=uuid: self._aws.lambda_.update_event_source_mapping(UUID=uuid, Enabled=False)
                )
        mappings = {uuid: await self._read_mapping(name, seen) for uuid, seen in found.items()}
        for uuid, poller in list(self._pollers.items()):
            if poller.mapping.function_name == name and uuid not in mappings:
                poller.stop()  # the batches in hand are finished
                self._retired.append(self._pollers.pop(uuid))
        self._retired = [poller for poller in self._retired if poller.running]
        for uuid, mapping in mappings.items():
            if uuid not in self._pollers:
                await self._check_visibility(mapping)
                self._pollers[uuid] = Poller(mapping, self._pools[name], self._sqs)
            elif self._pollers[uuid].mapping != mapping:
                self._pollers[uuid].reconfigure(mapping)

    async def _check_visibility(self, mapping: Mapping) -> None:
        """As Lambda does when a mapping is created, and not later."""
        name = "VisibilityTimeout"
        found = await self._sqs.call("GetQueueAttributes", QueueUrl=mapping.queue_url, AttributeNames=[name])
        visibility_s, timeout_s = int(found["Attributes"][name]), self._pools[mapping.function_name].spec.timeout_s
        if timeout_s > visibility_s:
            raise PlaneError(
                f"the mapping of {mapping.function_name} is refused as Lambda would: the queue's visibility timeout of "
                f"{visibility_s} s is shorter than the function's timeout of {timeout_s} s",
                next_step="give the queue six times the function's timeout",
            )

    async def _read_mapping(self, function_name: str, seen: Any) -> Mapping:
        queue_arn: str = seen["EventSourceArn"]
        known = self._pollers.get(seen["UUID"])
        if known is not None and known.mapping.queue_arn == queue_arn:
            queue_url = known.mapping.queue_url
        else:
            queue_name = queue_arn.rsplit(":", 1)[1]
            queue_url = (await self._call(lambda: self._aws.sqs.get_queue_url(QueueName=queue_name)))["QueueUrl"]
        return Mapping(
            uuid=seen["UUID"],
            function_name=function_name,
            queue_arn=queue_arn,
            queue_url=queue_url,
            batch_size=seen.get("BatchSize", 10),
            window_s=seen.get("MaximumBatchingWindowInSeconds") or 0,
            maximum_concurrency=(seen.get("ScalingConfig") or {}).get("MaximumConcurrency"),
            patterns=tuple(f["Pattern"] for f in (seen.get("FilterCriteria") or {}).get("Filters") or ()),
            reports_batch_item_failures="ReportBatchItemFailures" in (seen.get("FunctionResponseTypes") or ()),
        )

    def _physical(self, name: str) -> str:
        short = name.split(":function:")[-1].split(":")[0]
        return self._logical_names.get(short, short)

    def _put(self, function_arn: str) -> Put | None:
        queue = self.events(function_arn)
        return None if queue is None else queue.put

    def _report_lost_events(self) -> None:
        for name, queue in self._queues.items():
            if queue.waiting:
                log.warning("%s: %d asynchronous events were not done and are lost", name, queue.waiting)

    async def _call(self, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _status_of(queue: AsyncQueue) -> dict[str, int]:
    return {
        "waiting": queue.waiting,
        "succeeded": queue.succeeded,
        "failed": queue.failed,
        "undelivered": queue.undelivered,
    }


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await Plane(settings).run(stop)


def main() -> int:
    """Runs a plane from a settings file until it is asked to end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    sys.setswitchinterval(SWITCH_S)
    try:
        settings = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Settings)
        if os.geteuid() != 0:
            enter_user_namespace()
        asyncio.run(_serve(settings))
    except LambdalabError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
