"""The local stack that is up, what is in the way of one, and what a dead one left behind."""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from lambdalab.build.tools import REINSTALL
from lambdalab.doctor.findings import Finding, look, ok, warning, wrong
from lambdalab.local.daemon import Daemon
from lambdalab.local.stack import EMULATOR_PORT, LocalStack, running_stack
from lambdalab.local.startup import EMULATOR_PROGRAM
from lambdalab.lock import stack_holder
from lambdalab.processes import exists
from lambdalab.project import state_folder
from lambdalab.records import cpu_limit

_PORTS: Final = {
    EMULATOR_PORT: ("lambdalab up", "--port chooses others; `make bench` takes free ones"),
    EMULATOR_PORT + 1: ("the plane of `lambdalab up`", "--port chooses others; `make bench` takes free ones"),
    8089: ("the web page of `make load`", "end what listens there, or add ARGS='--web-port 8090'"),
}


def local_stack_findings() -> Iterator[Finding]:
    """Looks at the local stack and what it needs."""
    yield from look("local stack", _stack)
    yield from look("ports", _ports)
    yield from look("left processes", _left_processes)


def _stack() -> Iterator[Finding]:
    stack, file = running_stack(), state_folder() / "stack.json"
    if stack is None and file.exists():
        yield wrong("local stack", f"{file} is damaged", "nobody knows what is up", f"remove {file}")
    elif stack is None:
        yield ok("local stack", "none is up")
    else:
        status = stack.status()
        found = f"{stack.stack_name} is up at {stack.endpoint_url}, cpu_limit: {status['cpu_limit']}"
        if (why := status["cpu_limit_why"]) is None:
            yield ok("local stack", found)
        else:
            anew = "end it with `lambdalab down` and bring it up again when `cpu limit` above is not none"
            yield warning("local stack", f"{found}, because {why}", cpu_limit.MEANS, anew)
        if (why := status["slow_queues"]) is not None:
            means = "a load run is limited by the emulator as soon as messages wait"
            anew = f"end it with `lambdalab down`, {REINSTALL}, then bring it up again"
            yield warning("queues", f"the emulator keeps its own queues: {why}", means, anew)


def _ports() -> Iterator[Finding]:
    stack = running_stack()
    own = {part.port for part in _parts(stack) if part.alive}
    for port, (who, next_step) in _PORTS.items():
        check = f"port {port}"
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError as error:
                if port in own:
                    yield ok(check, "taken by the local stack that is up")
                else:
                    yield warning(check, f"taken on 127.0.0.1 ({error.strerror})", f"{who} wants it", next_step)
            else:
                yield ok(check, "free on 127.0.0.1")


def _left_processes() -> Iterator[Finding]:
    holder, folder = stack_holder(), state_folder()
    if holder is not None and exists(holder.pid):
        return  # it may bring one up, whose processes are in no file yet
    known = {part.pid for part in _parts(running_stack())}
    processes = {process.pid: process for process in _processes()}
    left = [
        process.pid
        for process in processes.values()
        if process.pid not in known and process.belongs_to(folder) and not _has_plane(process, processes)
    ]
    if left:
        pids = " ".join(map(str, sorted(left)))
        yield warning(
            "left processes",
            f"{len(left)} of a stack of this folder that is not up any more: {pids}",
            "they take CPU and memory from what is measured",
            f"end them with `kill -9 {pids}`",
        )
    else:
        yield ok("left processes", "none")


class _Process(msgspec.Struct, frozen=True):
    """As much of a process of this user as tells whether a local stack started it."""

    pid: int
    parent: int
    command: tuple[str, ...]
    variables: Mapping[str, str]

    @property
    def is_plane(self) -> bool:
        return "lambdalab.local.plane" in self.command

    def belongs_to(self, folder: Path) -> bool:
        """Whether it is emulator, plane or environment of the stack that is kept in a folder."""
        if self.is_plane:
            return str(folder / "plane.json") in self.command
        if any(word == str(EMULATOR_PROGRAM) for word in self.command[:2]):
            return self.variables.get("HOME") == str(folder)
        root = self.variables.get("LAMBDA_TASK_ROOT")
        return root is not None and Path(root).is_relative_to(folder)


def _processes() -> Iterator[_Process]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # another user's, or it has ended meanwhile
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            variables = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            pairs = dict(pair.split("=", 1) for pair in variables if "=" in pair)
            yield _Process(int(entry.name), int(fields[1]), tuple(filter(None, words)), pairs)


def _has_plane(process: _Process, processes: Mapping[int, _Process]) -> bool:
    """Whether a plane is above it, which then answers for it."""
    above = processes.get(process.parent)
    while above is not None:
        if above.is_plane:
            return True
        above = processes.get(above.parent)
    return False


def _parts(stack: LocalStack | None) -> tuple[Daemon, ...]:
    return () if stack is None else (stack.emulator, stack.plane)
