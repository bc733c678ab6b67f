"""Functions in containers, by ``sam local``, beside those in the plane: same events, same answers, same items.

Both write to the tables of one local stack, so the items an event asks for are removed before each of its invocations.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Self

import msgspec
from botocore import UNSIGNED
from botocore.config import Config

from lambdalab import loopback
from lambdalab.aws.clients import access_errors
from lambdalab.build.deployment import build, local_parameters
from lambdalab.errors import ToolError
from lambdalab.invoke.invocation import invoke_local, read_event
from lambdalab.local.containers import ensure_image, env_json, runtimes
from lambdalab.local.docker import docker, require_engine
from lambdalab.local.stack import LocalStack
from lambdalab.project import project_root
from lambdalab.run.ingest import VARYING, batch_ids_in, items, remove_items

_SAM: Final = str(Path(sys.executable).with_name("sam"))
_BUILT: Final = Path(".aws-sam/local")
"""The build folder of samconfig's environment ``local``."""
_START_LIMIT_S: Final = 120.0
_INVOKE_LIMIT_S: Final = 300
_END_LIMIT_S: Final = 20.0
Answer = tuple[Any, bool]
"""What a function answered, and whether it failed."""


class Comparison(msgspec.Struct, frozen=True):
    """One event by one command of ``sam local``; ``difference`` is None where what came of it is as in the plane."""

    function: str
    event: str
    command: str
    difference: str | None


def compare(
    stack: LocalStack, events: Sequence[str], *, invoke: Sequence[str], progress: Callable[[str], None]
) -> list[Comparison]:
    """Builds the functions and gives each of them every event: in the plane, then in containers.

    Args:
        stack: a local stack that is up.
        events: event files, given to ``sam local start-lambda`` with containers that stay warm.
        invoke: those of them that ``sam local invoke`` gets as well, each in a container of its own.
        progress: told each step.

    Raises:
        EventError: an event cannot be read, or is none that Lambda takes.
        SetupError: no Docker engine answers, there are no images, or a part of the stack does not answer.
        ToolError: sam cannot build, does not start, or has no answer.
    """
    payloads = {event: read_event(event) for event in events}
    require_engine()
    by_function = runtimes(stack)
    for runtime in sorted(set(by_function.values())):
        ensure_image(runtime, progress)
    progress("building the functions")
    build(local_parameters({}, folder=project_root()), project_root())
    tables = {function: variables["TABLE_NAME"] for function, variables in env_json(stack, "").items()}
    aws = stack.aws()

    def outcome(function: str, event: str, way: Callable[[str, str, bytes], Answer]) -> dict[str, Any]:
        batch_ids = batch_ids_in(payloads[event])
        remove_items(aws, tables[function], batch_ids)
        answer, failed = way(function, event, payloads[event])
        return {"answer": answer, "failed": failed, "items": items(aws, tables[function], batch_ids)}

    def in_plane(function: str, _: str, payload: bytes) -> Answer:
        result = invoke_local(stack, function, payload)
        return _parsed(result.payload), result.function_error is not None

    with closing(aws.dynamodb), ThreadPoolExecutor(len(by_function)) as threads, _Containers() as containers:
        progress("starting `sam local start-lambda`")
        containers.start_lambda()

        def compared(function: str) -> list[Comparison]:
            found = []
            for event in payloads:
                ways = {"start-lambda": containers.warm} | ({"invoke": containers.once} if event in invoke else {})
                wanted = outcome(function, event, in_plane)
                for command, way in ways.items():
                    progress(f"{function}, {Path(event).name}, {command}")
                    found.append(
                        Comparison(function, event, command, difference(wanted, outcome(function, event, way)))
                    )
            return found

        return [found for of_one in threads.map(compared, by_function) for found in of_one]


def difference(wanted: Any, found: Any, name: str = "") -> str | None:
    """The first place where two results differ, as words; None where only what varies by itself does."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys([*wanted, *found]):
            where = f"{name}.{key}".lstrip(".")
            if key not in wanted or key not in found:
                return f"{where} is {'absent' if key in wanted else 'there'}, unlike in the plane"
            if key not in VARYING and (inner := difference(wanted[key], found[key], where)) is not None:
                return inner
        return None
    if isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            return f"{name} has {len(found)}, in the plane {len(wanted)}"
        pairs = enumerate(zip(wanted, found, strict=True))
        return next((inner for at, (a, b) in pairs if (inner := difference(a, b, f"{name}[{at}]")) is not None), None)
    return None if wanted == found else f"{name} is {_short(found)}, in the plane {_short(wanted)}"


class _Containers:
    """``sam local`` as processes of their own session; with the block they and their containers end."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="lambdalab-sam-local-")
        self._client: Any = None
        self._others = _mounted()
        self._over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave containers behind
        self._over = True
        try:
            for process in self._running:
                _end(process)
            if left := _mounted() - self._others:  # as when sam had to be killed
                docker("rm", "--force", *left)
            if self._client is not None:
                self._client.close()
            self._folder.cleanup()
        finally:
            signal.signal(signal.SIGINT, before)

    def start_lambda(self) -> None:
        """Starts ``sam local start-lambda`` and waits until it listens."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process, log_file = self._start("start-lambda", "--warm-containers", "LAZY", "--port", str(port))
        deadline = time.monotonic() + _START_LIMIT_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise ToolError(
                    f"`sam local start-lambda` does not listen; its last words were:\n{_last(log_file)}\n",
                    next_step="mend what it names",
                )
            time.sleep(0.1)
        config = Config(signature_version=UNSIGNED, read_timeout=_INVOKE_LIMIT_S, retries={"total_max_attempts": 1})
        url = f"http://127.0.0.1:{port}"
        self._client = loopback.session().client("lambda", endpoint_url=url, config=config)

    def warm(self, function: str, _: str, payload: bytes) -> Answer:
        """By ``start-lambda``, in a container that is kept."""
        with access_errors(f"{function} in `sam local start-lambda`"):
            answer = self._client.invoke(FunctionName=function, Payload=payload)
            return _parsed(answer["Payload"].read()), "FunctionError" in answer

    def once(self, function: str, event: str, _: bytes) -> Answer:
        """By ``sam local invoke``, in a container of its own; it tells a failure by its answer only."""
        process, log_file = self._start("invoke", function, "--event", str(Path(event).absolute()))
        try:
            process.wait(_INVOKE_LIMIT_S)
        except subprocess.TimeoutExpired:
            _end(process)
        said = log_file.with_suffix(".out").read_bytes().strip()
        if process.returncode != 0 or not said:
            raise ToolError(
                f"`sam local invoke {function}` ended with exit code {process.returncode} and "
                f"{'an' if said else 'no'} answer; its last words were:\n{_last(log_file)}\n",
                next_step="mend what it names",
            )
        answer = _parsed(said.splitlines()[-1])
        return answer, isinstance(answer, dict) and "errorType" in answer

    def _start(self, command: str, *arguments: str) -> tuple["subprocess.Popen[bytes]", Path]:
        if self._over:
            raise ToolError(f"`sam local {command}` is not started any more", next_step="see what came before")
        log_file = Path(self._folder.name) / f"{len(self._running)}-{command}-{arguments[0].lstrip('-')}.log"
        with log_file.open("wb") as log, log_file.with_suffix(".out").open("wb") as out:
            process = subprocess.Popen(
                [_SAM, "local", command, *arguments, "--config-env", "local"],
                cwd=project_root(),
                env=loopback.build_variables(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this process, which ends them
            )
        self._running.append(process)
        return process, log_file


def _mounted() -> set[str]:
    """The containers in which this project's built functions are mounted, whoever started them."""
    filters = [f"--filter=volume={folder}" for folder in (project_root() / _BUILT).iterdir() if folder.is_dir()]
    return {one for volume in filters for one in docker("ps", "--all", "--quiet", volume).stdout.split()}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Like Ctrl-C in a terminal: sam then removes its containers."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_LIMIT_S)


def _parsed(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:  # what is no JSON is compared as it is
        return answer.decode(errors="backslashreplace")


def _last(log_file: Path) -> str:
    return "\n".join(log_file.read_text(errors="replace").strip().splitlines()[-10:])


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
