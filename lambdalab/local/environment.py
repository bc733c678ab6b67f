"""One execution environment: a process group from spawn to end, and what Lambda does around each invocation.

Init is unthrottled and has ten seconds; the CPU quota holds from the first invocation on; between invocations the
processes are stopped. After a crash, a timeout or a failed init the environment is reset: the next invocation
starts the processes again, and that time lies inside its Duration, without an Init Duration. Source: AWS Lambda
Developer Guide, "Understanding the Lambda execution environment lifecycle".
"""

import asyncio
import contextlib
import json
import os
import resource
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from lambdalab.local.filesystem import FileSystem
from lambdalab.local.function import Credentials, FunctionSpec, command, environment_variables
from lambdalab.local.limits import Limits, read_kernel_file
from lambdalab.local.output import Output
from lambdalab.local.process_group import ProcessGroup
from lambdalab.local.runtime_api import Answer, Event, InitError, RuntimeApi, Stream
from lambdalab.logs.platform_lines import (
    PlatformFailure,
    billed_ms,
    render_end,
    render_failure,
    render_init_report,
    render_report,
    render_start,
)
from lambdalab.records.trials import PlatformReport

INIT_LIMIT_S: Final = 10.0
DESCRIPTOR_LIMIT: Final = 1024
"""Open files of one process (AWS Lambda Developer Guide, "Lambda quotas")."""
T = TypeVar("T")
Emit = Callable[[str, str], None]
"""Takes (log stream, line); must not block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one invocation: the answer for the caller and the REPORT that was logged."""

    answer: Answer
    report: PlatformReport
    log_tail: bytes


@dataclass(frozen=True, slots=True)
class EnvironmentFailedError(Exception):
    """The processes did not do what they should; ``error_type`` is Lambda's word for it.

    ``payload`` is what the function said itself of an init that failed; the caller gets it as it is.
    """

    error_type: str
    message: str
    payload: bytes | None = None


class _NoCallError(Exception):
    """The function will not make the call that is waited for, or not in time."""


class Environment:
    """A place where one function runs, one invocation at a time."""

    def __init__(
        self,
        spec: FunctionSpec,
        *,
        interpreter: Path | None,
        credentials: Credentials,
        limits: Limits,
        emit: Emit,
        files: FileSystem | None = None,
    ) -> None:
        self.spec = spec
        self.log_stream = f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{secrets.token_hex(16)}"
        self.idle_since = time.monotonic()
        self.invocations = 0
        self._interpreter = interpreter
        self._credentials = credentials
        self._limits = limits
        self._files = files
        self._api: RuntimeApi | None = None
        self._group: ProcessGroup | None = None
        self._output = Output(partial(emit, self.log_stream))
        self._peak_mb: int | None = None
        self._init_ms: float | None = None
        self._began_ns = self._spawned_ns = 0
        self._cpu_limited = False
        self._oom_kills = 0
        limits.limit_memory(spec.memory_mb)

    @property
    def pid(self) -> int | None:
        """The process group, while there is one."""
        return None if self._group is None or self._group.is_killed else self._group.pid

    @property
    def alive(self) -> bool:
        """False once its process has ended unasked between invocations; one that was reset starts anew by itself."""
        return self._group is None or self._group.is_killed or not self._group.exited.done()

    async def initialise(self) -> None:
        """The Init phase. A failure is logged and left to the first invocation, which tries once more."""
        try:
            self._init_ms = await self._start(INIT_LIMIT_S)
            self._processes.freeze()
            self._output.flush()
        except EnvironmentFailedError as failure:
            self._log_init_failure("init", failure)

    async def invoke(
        self,
        payload: bytes,
        *,
        request_id: str,
        trace_id: str,
        client_context: str | None,
        answered: Callable[[Answer], None] = lambda _: None,
        stream: Stream | None = None,
    ) -> Outcome:
        """Runs one invocation to its end; never raises for what the function does.

        ``answered`` is called, if the function came to its end by itself, before END and REPORT are logged. ``stream``
        takes the response of a function that streams it.
        """
        self._output.tail = b""
        init_ms, self._init_ms = self._init_ms, None
        self._began_ns = 0
        deadline_s = time.time() + self.spec.timeout_s
        failure: EnvironmentFailedError | None = None
        try:
            if is_reset := self.pid is None:
                self._output.log(render_start(request_id, "$LATEST"))
                await self._restart(self.spec.timeout_s)
            event = Event(
                request_id=request_id,
                payload=payload,
                deadline_ms=int(deadline_s * 1000),
                function_arn=self.spec.arn,
                trace_id=trace_id,
                client_context=client_context,
            )
            call = self._hand_over(event, answered, stream)
            if not is_reset:  # the function is at work already; what it writes is read later
                self._output.log(render_start(request_id, "$LATEST"))
            answer, ended_ns = await self._call(call, deadline_s - time.time(), self.spec.timeout_s)
        except EnvironmentFailedError as error:
            failure, ended_ns = error, time.perf_counter_ns()
            message = f"RequestId: {request_id} Error: {error.message}"
            body = json.dumps({"errorType": error.error_type, "errorMessage": message}).encode()
            answer = Answer(payload=error.payload or body, error_type=error.error_type)
            if error.error_type == "Runtime.ExitError" and self._api is not None and self._api.answer is not None:
                answer = self._api.answer  # it ended after its answer, as Go does after a panic
        if failure is None:
            self._processes.freeze_soon()
        return self._finish(request_id, answer, failure, init_ms, (ended_ns - self._began_ns) / 1e6)

    async def close(self) -> None:
        """Ends the processes; Lambda gives none of them time when there are no extensions."""
        self._kill()
        if self._group is not None:
            await self._group.exited
        await asyncio.to_thread(self._limits.close)
        if self._files is not None:
            await asyncio.to_thread(self._files.close)

    def _finish(
        self,
        request_id: str,
        answer: Answer,
        failure: EnvironmentFailedError | None,
        init_ms: float | None,
        duration_ms: float,
    ) -> Outcome:
        if failure is not None:
            self._kill()
        self._output.flush()
        if failure is not None and failure.payload is None:  # else the runtime client has logged it
            said = PlatformFailure(request_id=request_id, error_type=failure.error_type, message=failure.message)
            self._output.log(render_failure(said, datetime.now(UTC)))
        duration_ms = round(duration_ms, 2)
        report = PlatformReport(
            request_id=request_id,
            duration_ms=duration_ms,
            billed_ms=billed_ms(duration_ms, init_ms),
            memory_mb=self.spec.memory_mb,
            max_memory_mb=None if _status(failure) == "error" else self._peak_mb,
            init_ms=init_ms,
            status=_status(failure),
            error_type=failure.error_type if failure and _status(failure) == "error" else None,
        )
        self._output.log(render_end(request_id))
        self._output.log(render_report(report))
        self.invocations += 1
        self.idle_since = time.monotonic()
        return Outcome(answer=answer, report=report, log_tail=self._output.tail)

    def _hand_over(
        self, event: Event, answered: Callable[[Answer], None], stream: Stream | None
    ) -> asyncio.Future[tuple[Answer, int]]:
        assert self._api is not None
        if not self._cpu_limited:
            self._limits.limit_cpu(self.spec.memory_mb)
            self._cpu_limited = True
        # Its peak is measured at its answer, in the time it takes to come to its next, not in the caller's.
        done, handed_ns = self._api.invoke(event, at_answer=self._measure_peak, at_next=answered, stream=stream)
        self._processes.thaw()  # after the event is there, so that the process wakes once
        self._began_ns = self._began_ns or handed_ns
        return done

    async def _call(self, call: asyncio.Future[T], left_s: float, timeout_s: float) -> T:
        """Waits for a call of the function; one that came with the end of its process still counts.

        Raises:
            EnvironmentFailedError: its process has ended, or the time is over.
        """
        exited = self._processes.exited
        give_up = partial(_give_up, call)
        timer = asyncio.get_running_loop().call_later(left_s, give_up)
        exited.add_done_callback(give_up)
        try:
            return await call
        except _NoCallError:
            raise self._why_ended(f"Task timed out after {timeout_s:.2f} seconds") from None
        finally:
            timer.cancel()
            exited.remove_done_callback(give_up)

    async def _restart(self, timeout_s: float) -> None:
        """Init inside an invocation, after a reset or a failed init."""
        self._began_ns = time.perf_counter_ns()
        if self._group is not None:  # what was killed has to be gone before its successor is limited and measured
            await self._group.exited
        try:
            await self._start(timeout_s)
        except EnvironmentFailedError as failure:
            self._log_init_failure("invoke", failure)
            raise

    async def _start(self, timeout_s: float) -> float:
        """Spawns the processes and waits for their first ``next``; returns the milliseconds that took."""
        if self._files is not None:
            await self._files.prepare()
        self._api = RuntimeApi()
        address = await self._api.start()
        write_end = self._output.open()
        variables = environment_variables(
            self.spec, self._credentials, runtime_api=address, log_stream=self.log_stream, files=self._files
        )
        self._limits.limit_cpu(None)
        self._cpu_limited = False
        self._oom_kills = self._limits.oom_kills()

        def spawn() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command(self.spec, self._interpreter),
                cwd=self.spec.package,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

        self._spawned_ns = time.perf_counter_ns()
        try:
            if self._files is None:
                process = spawn()
            else:
                process, self._spawned_ns = self._files.spawn(spawn)
        except OSError as error:
            self._output.close()
            self._api.close()
            raise EnvironmentFailedError("Runtime.InvalidEntrypoint", _entry_message(error)) from error
        finally:
            os.close(write_end)
        self._group = ProcessGroup(process, self._limits)
        with contextlib.suppress(ProcessLookupError):  # it has ended already; that is found below
            self._limits.enter(process.pid)
            _limit_descriptors(process.pid)
        try:
            ready_ns = await self._call(self._api.initialised, timeout_s, timeout_s)
        except InitError as error:
            answer = error.answer
            self._kill()
            error_type = answer.error_type or "Runtime.Unknown"
            raise EnvironmentFailedError(error_type, "init failed", answer.payload) from error
        with contextlib.suppress(ProcessLookupError):  # again: Go sets at its start what it read before the first time
            _limit_descriptors(process.pid)
        return (ready_ns - self._spawned_ns) / 1e6

    def _why_ended(self, timeout_message: str) -> EnvironmentFailedError:
        """Names why there is no answer, and ends what is left of the processes."""
        out_of_memory = self._limits.oom_kills() > self._oom_kills
        exited = self._processes.exited
        code = exited.result() if exited.done() else None
        self._measure_peak()
        self._kill()
        if out_of_memory:
            return EnvironmentFailedError("Runtime.OutOfMemory", "Runtime exited with error: signal: killed")
        if code is None:
            return EnvironmentFailedError("Sandbox.Timedout", timeout_message)
        if code == 0:
            return EnvironmentFailedError("Runtime.ExitError", "Runtime exited without providing a reason")
        how = f"signal: {signal.strsignal(-code)}".lower() if code < 0 else f"exit status {code}"
        return EnvironmentFailedError("Runtime.ExitError", f"Runtime exited with error: {how}")

    def _kill(self) -> None:
        """Ends the process group and what has left it, once."""
        if self.pid is None:
            return
        escaped = self._limits.pids()  # before their parent ends: without control groups they are found by it
        self._processes.kill()
        for pid in {*escaped, *self._limits.pids()}:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # as one that sudo started
                os.kill(pid, signal.SIGKILL)
        self._output.close()
        assert self._api is not None
        self._api.close()

    @property
    def _processes(self) -> ProcessGroup:
        """Those that were started last."""
        assert self._group is not None
        return self._group

    def _measure_peak(self) -> None:
        """Peak resident memory of this environment so far: the sum of VmHWM (proc_pid_status(5)), in whole MB."""
        peaks = [kb for pid in self._limits.pids() if (kb := _vm_hwm_kb(pid)) is not None]
        if peaks:
            self._peak_mb = max(-(-sum(peaks) // 1024), self._peak_mb or 0)

    def _log_init_failure(self, phase: Literal["init", "invoke"], failure: EnvironmentFailedError) -> None:
        init_ms = (time.perf_counter_ns() - self._spawned_ns) / 1e6
        status = _status(failure) or "error"
        self._output.log(render_init_report(phase=phase, status=status, init_ms=init_ms, error_type=failure.error_type))


def _status(failure: EnvironmentFailedError | None) -> str | None:
    """REPORT's Status: absent for whatever the function answered by itself, even an error."""
    if failure is None:
        return None
    return "timeout" if failure.error_type == "Sandbox.Timedout" else "error"


def _give_up(call: asyncio.Future[Any], *_: object) -> None:
    if not call.done():
        call.set_exception(_NoCallError)


def _entry_message(error: OSError) -> str:
    """Why the program of an environment does not start, in Lambda's words."""
    if isinstance(error, FileNotFoundError):
        return f"Couldn't find valid bootstrap(s): [{error.filename}]"
    return f"fork/exec {error.filename}: {str(error.strerror).lower()}"


def _limit_descriptors(pid: int) -> None:
    """Set from outside: between fork and exec it would cost the plane a slow fork at each start."""
    limit = min(DESCRIPTOR_LIMIT, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1])
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))


def _vm_hwm_kb(pid: int) -> int | None:
    try:
        status = read_kernel_file(f"/proc/{pid}/status")
    except OSError:
        return None
    _, found, rest = status.partition(b"VmHWM:")
    return int(rest.split(None, 1)[0]) if found else None
