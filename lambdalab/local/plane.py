"""The plane: attaches to a deployed stack through the AWS API and is Lambda for it from then on.

Started as a process of its own by ``lambdalab up``: ``python -m lambdalab.local.plane SETTINGS.json``.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from lambdalab.aws.clients import UNRESERVED_FLOOR, Aws
from lambdalab.aws.stack import Stack
from lambdalab.aws.wakings import Waking
from lambdalab.errors import LambdalabError, PlaneError
from lambdalab.local.async_invoke import AsyncQueue
from lambdalab.local.aws_json import AwsJson
from lambdalab.local.concurrency import Account
from lambdalab.local.deployed import Deployed
from lambdalab.local.destinations import Destinations, Put
from lambdalab.local.filesystem import enter_user_namespace
from lambdalab.local.http import serve
from lambdalab.local.invoke_api import InvokeApi
from lambdalab.local.logs import LogWriter
from lambdalab.local.poller import Poller
from lambdalab.local.pool import Pool
from lambdalab.local.runtime_api import Answer
from lambdalab.local.settings import Settings
from lambdalab.local.watch import Watches
from lambdalab.local.worker import Worker

FOLLOW_S: Final = 1.0
CHANGE_ATTEMPTS: Final = 5
CHANGE_PAUSE_S: Final = 0.2
"""A change through the plane's own API is answered when the plane has read it, or has failed to so often."""
STOP_GRACE_S: Final = 5.0
RESERVED: Final = "ReservedConcurrency"
FOLLOW_ERRORS: Final = (BotoCoreError, ClientError, LambdalabError, OSError)
SWITCH_S: Final = 0.0002
"""How long a thread that speaks to the emulator may keep the interpreter from an invocation; Python's own 5 ms show."""
log: Final = logging.getLogger("lambdalab.plane")


class Plane:
    """Functions, pools and pollers of one stack."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._aws = Aws(endpoint_url=settings.endpoint_url)
        self._executor: Executor = ThreadPoolExecutor(32, thread_name_prefix="aws")
        self._logs = LogWriter(AwsJson(settings.endpoint_url, self._aws.session, "logs"))
        self._worker = Worker(
            settings.endpoint_url,
            Path(settings.folder),
            settings.interpreters,
            latency=settings.latency,
            cpu_scale=settings.cpu_scale,
            logs=self._logs,
        )
        self._deployed = Deployed(self._aws, self._executor, Path(settings.folder), settings.interpreters)
        self._sqs = AwsJson(settings.endpoint_url, self._aws.session, "sqs")
        self.account: Final = Account()
        self._pools: dict[str, Pool] = {}
        self._queues: dict[str, AsyncQueue] = {}
        self._destinations = Destinations(self._aws, self._executor, self._put)
        self._pollers: dict[str, Poller] = {}
        self._retired: list[Poller] = []
        self._wakings: list[Waking] = []
        self._unserved: dict[str, list[str]] = {}
        self._following = asyncio.Lock()
        self._stack: Stack | None = None
        self._logical_names: dict[str, str] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._told: dict[str, str] = {}
        self._followed: str | None = None

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
                await self._follow_changes()
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
            await self._worker.close()
            await self._logs.close()
            self._sqs.close()

    @property
    def watches(self) -> Watches:
        """The invocations whose lines are asked for while they run."""
        return self._worker.watches

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
            **self._worker.status(),
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
                    **self._worker.service_calls(name),
                    "pids": [e.pid for e in pool.environments if e.pid is not None],
                }
                for name, pool in self._pools.items()
            },
            "not_followed": [f"{name} cannot be followed now: {problem}" for name, problem in self._told.items()],
            "not_run": [str(waking) for waking in self._all_wakings()],
            "mappings": {poller.mapping.function_name: poller.status() for poller in self._pollers.values()},
        }

    async def follow(self) -> None:
        """Reads the stack, its functions and mappings again and takes up what changed; what cannot be read stays."""
        async with self._following:
            try:
                stack = await self._deployed.stack(self._settings.stack_name)
                if stack != self._stack:
                    await self._take_up(stack)
                self._told.pop(stack.name, None)
            except FOLLOW_ERRORS as error:
                self._tell(self._settings.stack_name, error)
            for name in tuple(self._pools):
                with contextlib.suppress(*FOLLOW_ERRORS):  # told already
                    await self._follow(name)

    async def _follow_changes(self) -> None:
        """Follows when something changed since, or may have, or could not be followed."""
        seen = None
        with contextlib.suppress(OSError):  # then following says why
            seen = await self._deployed.fingerprint()
        if seen is None or seen != self._followed or self._told:
            await self.follow()
            self._followed = seen

    async def take_up_change(self, name: str) -> None:
        """Reads one function and its mappings again after a change, so that its next invocation sees the change.

        Does nothing for a function that is not of the stack.

        Raises:
            LambdalabError: the changed function cannot be run.
            BotoCoreError, ClientError, OSError: it could not be read, in several attempts.
        """
        async with self._following:
            name = self._physical(name)
            if name not in self._pools:
                return
            for _ in range(CHANGE_ATTEMPTS - 1):
                with contextlib.suppress(BotoCoreError, ClientError, OSError):
                    await self._follow(name)
                    return
                await asyncio.sleep(CHANGE_PAUSE_S)
            await self._follow(name)

    async def _follow(self, name: str) -> None:
        try:
            await self._follow_function(name)
            await self._follow_mappings(name)
            self._told.pop(name, None)
        except FOLLOW_ERRORS as error:
            self._tell(name, error)
            raise

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
        stack = await self._deployed.stack(self._settings.stack_name)
        if not stack.functions():
            raise PlaneError(f"stack {stack.name} has no functions", next_step="deploy this project's template.yaml")
        await self._take_up(stack)
        for name in self._pools:
            await self._follow_function(name)
            await self._follow_mappings(name)

    async def _take_up(self, stack: Stack) -> None:
        """Takes the functions that a deployment brought, drops those it removed, and reserves their concurrency.

        The emulator drops ReservedConcurrentExecutions of a template; the stack's own parameter still says it.
        """
        names = stack.functions()
        reserved = stack.parameters.get(RESERVED, "")
        if len(names) * int(reserved or 0) > (most := self.account.most_reserved()):
            raise PlaneError(
                f"{RESERVED} {reserved} for each of {len(names)} functions is refused as Lambda would: it keeps "
                f"{UNRESERVED_FLOOR} of the account's concurrency unreserved",
                next_step=f"deploy with at most {most // len(names)}",
            )
        for name in self._pools.keys() - names.values():
            self._drop(name)
        before = None if self._stack is None else self._stack.parameters.get(RESERVED, "")
        for name in names.values():
            if reserved and (name not in self._pools or reserved != before):
                await self._deployed.reserve(name, int(reserved))
            elif before and not reserved:
                await self._deployed.reserve(name, None)
            if name not in self._pools:
                pool = Pool(await self._deployed.spec(name), self._worker.create, self.account)
                await self._worker.admit(name)
                self._queues[name] = AsyncQueue(pool, self._destinations.send, self._settings.async_timing)
                self._pools[name] = pool
        self._logical_names = names
        self._stack = stack
        before_wakings, self._wakings = self._wakings, await self._deployed.wakings(stack)
        for waking in self._wakings:
            if waking not in before_wakings:
                log.warning("%s", waking)

    def _drop(self, name: str) -> None:
        """What a removed function runs is finished; then its environments end."""
        pool, queue = self._pools.pop(name), self._queues.pop(name)
        self._unserved.pop(name, None)
        pollers = [p for p in self._pollers.values() if p.mapping.function_name == name]
        self._pollers = {uuid: poller for uuid, poller in self._pollers.items() if poller not in pollers}

        async def end() -> None:
            grace_s = pool.spec.timeout_s
            try:
                work = (*(poller.close(grace_s=grace_s) for poller in pollers), queue.close(grace_s=grace_s))
                await asyncio.gather(*work)
            finally:
                await pool.close()
                self._worker.dismiss(name)

        task = asyncio.get_running_loop().create_task(end())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def debug(
        self, name: str, port: int, payload: bytes, *, request_id: str, client_context: str | None
    ) -> Answer:
        """Runs one invocation under a debugger that listens on ``port`` of 127.0.0.1."""
        spec = self._pools[self._physical(name)].spec
        return await self._worker.debug(spec, port, payload, request_id=request_id, client_context=client_context)

    async def _follow_function(self, name: str) -> None:
        pool = self._pools[name]
        seen, reserved = await self._deployed.configuration(name)
        if seen["RevisionId"] != pool.spec.revision_id or reserved != pool.spec.reserved_concurrency:
            pool.reconfigure(await self._deployed.spec(name))
            log.info("%s was reconfigured", name)
        self._queues[name].config = await self._deployed.event_config(name, seen)

    async def _follow_mappings(self, name: str) -> None:
        mappings, unserved = await self._deployed.mappings(name)
        if unserved != self._unserved.get(name, []):
            self._unserved[name] = unserved
            for waking in self._unserved_mappings(name):
                log.warning("%s", waking)
        for uuid, poller in list(self._pollers.items()):
            if poller.mapping.function_name == name and uuid not in mappings:
                poller.stop()  # the batches in hand are finished
                self._retired.append(self._pollers.pop(uuid))
        self._retired = [poller for poller in self._retired if poller.running]
        for uuid, mapping in mappings.items():
            if uuid not in self._pollers:
                await self._deployed.check_visibility(mapping, self._pools[name].spec.timeout_s)
                self._pollers[uuid] = Poller(mapping, self._pools[name], self._sqs)
            elif self._pollers[uuid].mapping != mapping:
                self._pollers[uuid].reconfigure(mapping)

    def _all_wakings(self) -> list[Waking]:
        """What would wake functions and does not run here."""
        return self._wakings + [waking for name in self._pools for waking in self._unserved_mappings(name)]

    def _unserved_mappings(self, name: str) -> list[Waking]:
        logical = next((one for one, physical in self._logical_names.items() if physical == name), name)
        sources = self._unserved.get(name, [])
        return [Waking(function=logical, kind="event source mapping of", source=source) for source in sources]

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
