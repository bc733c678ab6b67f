"""This machine as Lambda's worker: where environments are made, with their limits, files and way to the emulator."""

import asyncio
import logging
import os
import secrets
from pathlib import Path
from typing import Any, Final

from lambdalab.local.debug import Unthrottled, under_debugger
from lambdalab.local.environment import Emit, Environment
from lambdalab.local.filesystem import FileSystems, needed_folders
from lambdalab.local.function import Credentials, FunctionSpec
from lambdalab.local.guard import Guard
from lambdalab.local.latency import Draws, LatencyModel
from lambdalab.local.limiter import find_limiter
from lambdalab.local.limits import Limits
from lambdalab.local.logs import LogWriter
from lambdalab.local.pool import new_trace_id
from lambdalab.local.runtime_api import Answer
from lambdalab.local.service_time import ServiceTime
from lambdalab.local.watch import Watches
from lambdalab.loopback import LOCAL_KEY

_MEASURED: Final = ("REPORT RequestId:", "INIT_REPORT ")
"""Lines with figures, which mean nothing of an invocation under a debugger."""
log: Final = logging.getLogger("lambdalab.plane")


class Worker:
    """Makes environments.

    Args:
        endpoint_url: the emulator's.
        folder: the local stack's own; tools, packages and what environments write to ``/tmp`` lie in it.
        interpreters: the Python of each runtime.
        latency: by which the services take their time; None as fast as the emulator answers.
        cpu_scale: by which every CPU quota is multiplied.
        logs: where lines go.
    """

    def __init__(
        self,
        endpoint_url: str,
        folder: Path,
        interpreters: dict[str, str],
        *,
        latency: LatencyModel | None,
        cpu_scale: float,
        logs: LogWriter,
    ) -> None:
        self._endpoint_url, self._folder, self._interpreters = endpoint_url, folder, interpreters
        self._latency, self._cpu_scale, self._logs = latency, cpu_scale, logs
        self._guard = Guard()
        self._limiter = find_limiter(f"lambdalab-{os.getpid()}", tell=self._guard.tell, cpu_scale=cpu_scale)
        if self._limiter.why is not None:
            log.warning("nothing limits CPU and memory: %s", self._limiter.why)
        self._files = FileSystems(folder)
        self._credentials: dict[str, Credentials] = {}
        self._service_times: dict[str, ServiceTime] = {}
        self._debugged: set[Environment] = set()
        self.watches = Watches()

    async def admit(self, name: str) -> None:
        """Opens a function's way to AWS: the emulator itself, or with a latency model a proxy of its own before it."""
        endpoint_url = self._endpoint_url
        if self._latency is not None:
            self._service_times[name] = ServiceTime(endpoint_url, Draws(self._latency, name))
            endpoint_url = await self._service_times[name].open()
        self._credentials[name] = Credentials(
            access_key_id=LOCAL_KEY, secret_access_key=LOCAL_KEY, endpoint_url=endpoint_url
        )

    def dismiss(self, name: str) -> None:
        """Closes it, when the function's environments have ended."""
        if (service_time := self._service_times.pop(name, None)) is not None:
            service_time.close()

    def create(self, spec: FunctionSpec) -> Environment:
        """An environment whose lines go to the function's log group."""

        def emit(stream: str, line: str) -> None:
            self._logs.emit(spec.log_group, stream, line)
            self.watches.emit(stream, line)

        return self._environment(spec, self._limiter.create(secrets.token_hex(6)), emit)

    async def debug(
        self, spec: FunctionSpec, port: int, payload: bytes, *, request_id: str, client_context: str | None
    ) -> Answer:
        """Runs one invocation under a debugger, in an environment of its own; its lines are written to nobody's log."""
        debugged = under_debugger(spec, port, self._folder / "tools")

        def emit(_: str, line: str) -> None:
            if not line.startswith(_MEASURED):
                self.watches.add(request_id, line)

        environment = self._environment(debugged, Unthrottled(self._limiter.create(secrets.token_hex(6))), emit)
        self._debugged.add(environment)
        try:
            outcome = await environment.invoke(
                payload, request_id=request_id, trace_id=new_trace_id(), client_context=client_context
            )
        finally:
            self._debugged.discard(environment)
            await environment.close()
        return outcome.answer

    def status(self) -> dict[str, Any]:
        """What holds environments, as JSON-ready values."""
        return {
            "cpu_limit": self._limiter.kind,
            "cpu_limit_why": self._limiter.why,
            "cpu_scale": self._cpu_scale,
            "controllers": self._limiter.controllers,
            "tmp_limit": self._files.kind,
        }

    def service_calls(self, name: str) -> dict[str, Any]:
        """What a latency model did to the calls of a function, as a member of its status; nothing without one."""
        return {"service_calls": self._service_times[name].counts()} if name in self._service_times else {}

    async def close(self) -> None:
        """Gives the machine back, after every pool was closed."""
        for name in tuple(self._service_times):
            self.dismiss(name)
        await asyncio.gather(*(environment.close() for environment in self._debugged))
        self._limiter.close()
        self._files.close()
        self._guard.close()

    def _environment(self, spec: FunctionSpec, limits: Limits, emit: Emit) -> Environment:
        interpreter = self._interpreters.get(spec.runtime)
        python = None if interpreter is None else Path(interpreter)
        needed = needed_folders(spec.package, python) + ([self._folder / "tools"] if spec.debugger else [])
        return Environment(
            spec,
            interpreter=python,
            credentials=self._credentials[spec.name],
            limits=limits,
            files=self._files.create(tmp_mb=spec.tmp_mb, needed=needed, layers=spec.layers),
            emit=emit,
        )
