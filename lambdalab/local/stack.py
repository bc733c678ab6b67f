"""The local stack: emulator, deployed template and plane, brought up and taken down as one."""

import contextlib
import errno
import json
import os
import random
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

import msgspec

from lambdalab import loopback
from lambdalab.aws.clients import Aws
from lambdalab.aws.stack import find_stack
from lambdalab.aws.template import check_parameters, read_template
from lambdalab.aws.wakings import refuse_custom_resources
from lambdalab.build import samconfig
from lambdalab.build.deployment import (
    build,
    built_template,
    local_parameters,
    local_variables,
    overrides,
    packed_template,
)
from lambdalab.build.samconfig import LOCAL
from lambdalab.build.tools import interpreter_for, run_tool, tool
from lambdalab.errors import PlaneError, StorageError, UsageError
from lambdalab.local.cloudformation import create_stack
from lambdalab.local.daemon import Daemon
from lambdalab.local.function import CUSTOM_RUNTIMES
from lambdalab.local.latency import load_latency
from lambdalab.local.limiter import allowed_way
from lambdalab.local.limits import LimitError, try_signals
from lambdalab.local.settings import Settings
from lambdalab.local.startup import get, start_emulator, start_plane
from lambdalab.project import TEMPLATE, scenario_folder, shown, state_folder
from lambdalab.records.record_files import DAMAGED, storage

EMULATOR_PORT: Final = 4566
_ENDING_S: Final = 1.0
"""How long a process may still be there after its port has closed, as when it was killed."""
_DRAWN_PORTS: Final = range(10_000, 32_767)
"""Below those that Linux gives to outgoing connections: there, a port that is free now may be taken in a moment."""
Progress = Callable[[str], None]
"""Told what is being done, in words for a person."""


class LocalStack(msgspec.Struct, frozen=True, kw_only=True):
    """A local stack that was brought up; kept in ``.lambdalab/stack.json``."""

    stack_name: str
    emulator: Daemon
    plane: Daemon

    @property
    def endpoint_url(self) -> str:
        """The emulator: every service but Lambda."""
        return f"http://127.0.0.1:{self.emulator.port}"

    @property
    def lambda_endpoint_url(self) -> str:
        """The plane: Lambda, and everything else passed on to the emulator."""
        return f"http://127.0.0.1:{self.plane.port}"

    def aws(self) -> Aws:
        """Clients for it."""
        return Aws(endpoint_url=self.endpoint_url, lambda_endpoint_url=self.lambda_endpoint_url)

    def status(self) -> dict[str, Any]:
        """What the plane says of itself (docs/contracts.md).

        Raises:
            PlaneError: the plane or the emulator has ended, or does not answer; it is named.
        """
        self.require_alive()
        emulator = self._ask("emulator", self.emulator, f"{self.endpoint_url}/_lambdalab/emulator")
        return self.plane_status() | emulator

    def plane_status(self) -> dict[str, Any]:
        """As ``status``, without a look at the emulator."""
        return self._ask("plane", self.plane, f"{self.lambda_endpoint_url}/_lambdalab/status")

    def require_alive(self) -> None:
        """Looks whether both processes are there, without asking them.

        Raises:
            PlaneError: one has ended, or both; they are named.
        """
        parts = {"emulator": self.emulator, "plane": self.plane}
        ended = [name for name, daemon in parts.items() if not daemon.alive]
        if ended:
            named = " and ".join(f"{name} (pid {parts[name].pid})" for name in ended)
            raise PlaneError(
                f"the local stack's {named} {'has' if len(ended) == 1 else 'have'} ended",
                next_step=f"see {state_folder()}/{ended[0]}.log, then `lambdalab down` and `lambdalab up`",
            )

    def _ask(self, name: str, daemon: Daemon, url: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(get(url))
        except (OSError, HTTPException, ValueError) as error:
            self._require_still_alive(daemon)
            raise PlaneError(
                f"the local stack's {name} (pid {daemon.pid}) does not answer at {url}: {error}",
                next_step=f"see {state_folder()}/{name}.log, then `lambdalab down` and `lambdalab up`",
            ) from error
        return found

    def _require_still_alive(self, daemon: Daemon) -> None:
        """Like ``require_alive``, for one that did not answer: its port closes before it is gone."""
        deadline = time.monotonic() + _ENDING_S
        while daemon.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        self.require_alive()

    def recycle(self, function_name: str) -> None:
        """Makes the next invocation of a function a cold start."""
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.lambda_endpoint_url}/_lambdalab/functions/{function_name}/recycle", method="POST"
        )
        try:
            loopback.open_url(request, timeout_s=10).close()
        except OSError as error:
            self._require_still_alive(self.plane)
            raise PlaneError(
                f"the plane did not recycle {function_name}: {error}", next_step="see `lambdalab status`"
            ) from error


def running_stack() -> LocalStack | None:
    """The stack that is up, dead parts included, or None; a damaged file is none.

    Raises:
        StorageError: the file may not be read.
    """
    path = _state_file()
    try:
        with storage(path, "read"):
            content = path.read_bytes() if path.exists() else b""
        return msgspec.json.decode(content, type=LocalStack)
    except DAMAGED:
        return None


def bring_up(
    progress: Progress,
    *,
    port: int = EMULATOR_PORT,
    parameters: dict[str, str] | None = None,
    folder: Path | None = None,
    settings: str = LOCAL,
    latency: str | None = None,
    cpu_scale: float = 1.0,
) -> LocalStack:
    """Starts the emulator, builds and deploys a scenario's template to it, and attaches a plane.

    The caller holds the stack (``lock.hold_stack``).

    Args:
        progress: told each step.
        port: the emulator's; the plane takes the next one. 0 lets the system choose both.
        parameters: template parameters that differ from those of ``settings``.
        folder: the scenario's; by default the one that the current folder belongs to.
        settings: samconfig's environment: ``local``, for the strict protocol, or ``load``.
        latency: a latency model of ``latencies/``, or the path of one, by which the services take their time; else they
            answer as fast as the emulator does.
        cpu_scale: every function's CPU share is multiplied by it; models a core that is slower (below 1) or faster.

    Raises:
        UsageError: a parameter is unknown or outside the template's limits, the latency model is wrong, the template
            has a custom resource that one of its functions makes, or LAMBDALAB_LIMITS names no way of limiting.
        SetupError: this process may not end what it starts.
        PlaneError: a stack is up, a port is taken, or a part does not start; whatever was started is ended again.
        ToolError: the build or the deployment failed; likewise.
    """
    allowed_way()
    with contextlib.suppress(LimitError):  # then nothing limits, as the plane finds out and says
        try_signals()
    folder = folder or scenario_folder()
    merged = local_parameters(parameters or {}, settings, folder)
    stack_name, template = samconfig.stack_name(folder, LOCAL), shown(folder / TEMPLATE)
    check_parameters(folder, merged)
    refuse_custom_resources(read_template((folder / TEMPLATE).read_text(encoding="utf-8"), template))
    model = None if latency is None else load_latency(latency)
    state = state_folder()
    with contextlib.ExitStack() as undo:
        _require_none()
        emulator_port, plane_port = _ports(port)
        progress("starting the emulator")
        emulator = start_emulator(emulator_port, state)
        undo.callback(emulator.end, grace_s=2)
        endpoint_url = f"http://127.0.0.1:{emulator_port}"
        debugging = os.environ.get("SAM_BUILD_MODE") == "debug"
        progress("building the functions" + (" for debugging, not for measuring" if debugging else ""))
        build(merged, folder)
        progress(f"deploying {template}")
        _deploy(folder, merged, endpoint_url)
        progress("attaching the plane")
        plane_settings = Settings(
            endpoint_url=endpoint_url,
            stack_name=stack_name,
            port=plane_port,
            folder=str(state),
            interpreters=_interpreters(endpoint_url, stack_name),
            latency=model,
            cpu_scale=cpu_scale,
        )
        plane = start_plane(plane_settings, state)
        undo.callback(plane.end, grace_s=5)
        stack = LocalStack(stack_name=stack_name, emulator=emulator, plane=plane)
        _save(stack)
        for sentence in stack.status()["not_run"]:
            progress(sentence)
        undo.pop_all()
    return stack


def take_down(stack: LocalStack) -> None:
    """Ends plane and emulator; the emulator keeps nothing. Ctrl-C does not stop it half-way.

    The caller holds the stack (``lock.hold_stack``).
    """
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stack.plane.end(grace_s=15)
        stack.emulator.end(grace_s=3)
        _state_file().unlink(missing_ok=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stack_for_a_while(
    progress: Progress,
    *,
    port: int = 0,
    latency: str | None = None,
    cpu_scale: float | None = None,
    folder: Path | None = None,
    settings: str = LOCAL,
) -> Iterator[LocalStack]:
    """The stack that is up, of whatever scenario and settings, or one that lives only as long as the block.

    The caller holds the stack (``lock.hold_stack``), else another process could end it, or find it ended.

    Raises:
        UsageError: a latency model or a CPU scale is asked for, and the stack that is up has another or none.
    """
    found = running_stack()
    if found is not None and found.emulator.alive and found.plane.alive:
        if latency is not None and msgspec.to_builtins(load_latency(latency)) != found.status()["latency"]:
            raise UsageError(
                f"--latency {latency} is not what the local stack that is up was brought up with",
                next_step="end that with `lambdalab down`, or leave --latency out",
            )
        if cpu_scale is not None and cpu_scale != found.status()["cpu_scale"]:
            raise UsageError(
                f"--cpu-scale {cpu_scale:g} is not what the local stack that is up was brought up with",
                next_step="end that with `lambdalab down`, or leave --cpu-scale out",
            )
        yield found
        return
    if found is not None:
        progress("clearing away a local stack that has ended")
        take_down(found)
    scale = 1.0 if cpu_scale is None else cpu_scale
    stack = bring_up(progress, port=port, latency=latency, cpu_scale=scale, folder=folder, settings=settings)
    try:
        yield stack
    except StorageError as error:
        # What could not be written is still in the emulator's logs.
        error.add_note("The local stack is kept for that; end it with `lambdalab down`.")
        raise
    except BaseException:
        _stop(stack, progress)
        raise
    _stop(stack, progress)


def _stop(stack: LocalStack, progress: Progress) -> None:
    try:
        progress("stopping the local stack")
    finally:  # also when nothing reads what is said
        take_down(stack)


def _require_none() -> None:
    stack = running_stack()
    if stack is None:
        return
    try:
        stack.require_alive()
    except PlaneError as error:
        raise PlaneError(
            f"{error.problem}, and what is left of it is in the way", next_step="clear it away with `lambdalab down`"
        ) from error
    raise PlaneError(
        f"the local stack {stack.stack_name} is up already, at {stack.endpoint_url}",
        next_step="see `lambdalab status`, or end it with `lambdalab down`",
    )


def _ports(port: int) -> tuple[int, int]:
    """The ports of emulator and plane. For 0 they are drawn, until both are free."""
    if port:
        return _free(port), _free(port + 1)
    while True:
        with contextlib.suppress(PlaneError):
            drawn = random.choice(_DRAWN_PORTS)  # noqa: S311 - no secret
            return _free(drawn), _free(drawn + 1)


def _free(port: int) -> int:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            raise PlaneError(
                f"port {port} on 127.0.0.1 {'is taken' if is_taken else 'cannot be used'} ({error.strerror})",
                next_step="end what listens there, or choose another with --port"
                if is_taken
                else "choose another with --port, from 1024 on",
            ) from error
    return port


def _deploy(folder: Path, parameters: dict[str, str], endpoint_url: str) -> None:
    packed = packed_template(folder)
    if packed is not None:
        name, tags = samconfig.stack_name(folder, LOCAL), samconfig.tags(folder, LOCAL)
        create_stack(endpoint_url, name, packed, parameters, tags)
        return
    arguments = [str(tool("sam")), "deploy", "--config-env", LOCAL]
    arguments += ["--config-file", str(folder / samconfig.FILE)]  # else sam looks beside the template
    arguments += ["--template-file", str(built_template(folder)), *overrides(parameters)]
    with contextlib.chdir(folder):
        run_tool(arguments, log_file=state_folder() / "sam-deploy.log", variables=local_variables(endpoint_url))


def _interpreters(endpoint_url: str, stack_name: str) -> dict[str, str]:
    aws = Aws(endpoint_url=endpoint_url)
    stack = find_stack(aws, stack_name, next_step="see `lambdalab status`")
    names = stack.functions().values()
    runtimes = {aws.lambda_.get_function_configuration(FunctionName=name)["Runtime"] for name in names}
    aws.cloudformation.close()
    aws.lambda_.close()
    return {str(runtime): str(interpreter_for(runtime)) for runtime in runtimes if runtime not in CUSTOM_RUNTIMES}


def _save(stack: LocalStack) -> None:
    try:
        _state_file().write_bytes(msgspec.json.encode(stack))
    except OSError as error:
        raise StorageError(
            f"{_state_file()} cannot be written: {error.strerror}", next_step="check the folder's owner and free space"
        ) from error


def _state_file() -> Path:
    return state_folder() / "stack.json"
