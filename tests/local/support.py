"""One function under test: its specification, its pool and the lines it logged."""

import asyncio
import json
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from lambdalab.aws.clients import Aws
from lambdalab.build.deployment import go_variables
from lambdalab.build.tools import interpreter_for
from lambdalab.local.async_invoke import AsyncQueue
from lambdalab.local.concurrency import Account
from lambdalab.local.daemon import Daemon
from lambdalab.local.environment import Environment, Outcome
from lambdalab.local.filesystem import FileSystems, needed_folders
from lambdalab.local.function import Credentials, FunctionSpec
from lambdalab.local.http import port_of, serve
from lambdalab.local.invoke_api import InvokeApi
from lambdalab.local.limits import Limiter
from lambdalab.local.pool import Pool
from lambdalab.local.settings import Timing
from lambdalab.local.watch import Watches
from lambdalab.logs.platform_lines import parse_report
from lambdalab.records.trials import PlatformReport

PYTHON_RUNTIME: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
FUNCTIONS: Final = Path(__file__).parent / "functions"
GO_FUNCTION: Final = Path(__file__).parent / "go"
CREDENTIALS: Final = Credentials(access_key_id="key", secret_access_key="secret", endpoint_url="http://127.0.0.1:9")
ARN: Final = "arn:aws:lambda:eu-west-1:123456789012:function:under-test"


@dataclass(frozen=True)
class Machine:
    """Where functions run."""

    limiter: Limiter
    interpreter: Path
    files: FileSystems


@dataclass(frozen=True)
class Emulated:
    """An emulator that runs, and clients of it."""

    daemon: Daemon
    url: str
    aws: Aws


@dataclass
class Running:
    """A pool and every line its environments logged."""

    pool: Pool
    lines: list[str] = field(default_factory=list)

    async def invoke(self, event: object = None, **do: Any) -> Outcome:
        """Run one invocation: of an event, or of ``functions/handlers.py`` and ``go/main.go``'s action ``do``."""
        _, outcome = await self.pool.invoke(json.dumps(do or event).encode())
        return outcome

    @property
    def text(self) -> str:
        return "".join(self.lines)

    @property
    def reports(self) -> list[PlatformReport]:
        return [report for line in self.lines if (report := parse_report(line)) is not None]


def interpreter(runtime: str) -> Path:
    return interpreter_for(runtime)


def built_go(package: Path, module_file: str = "go.mod") -> Path:
    """Builds the Go function of these tests, with its symbols, and with the aws-lambda-go that a module file names."""
    command = ["go", "build", "-ldflags=", f"-modfile={module_file}", "-o", str(package / "bootstrap"), "."]
    built = subprocess.run(command, cwd=GO_FUNCTION, env=go_variables(), capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return package


def python_spec(handler: str = "handlers.handler", **changes: Any) -> FunctionSpec:
    spec = FunctionSpec(
        name="under-test",
        arn=ARN,
        runtime=PYTHON_RUNTIME,
        handler=handler,
        memory_mb=512,
        timeout_s=5,
        variables={},
        log_group="/aws/lambda/under-test",
        revision_id="1",
        package=FUNCTIONS,
    )
    return msgspec.structs.replace(spec, **changes)


def go_spec(package: Path, **changes: Any) -> FunctionSpec:
    return python_spec("bootstrap", runtime="provided.al2023", package=package, **changes)


@asynccontextmanager
async def running(machine: Machine, spec: FunctionSpec, **limits: Any) -> AsyncIterator[Running]:
    """A pool for a function, closed at the end; ``limits`` are an account or a rate of scaling out of its own."""

    def create(wanted: FunctionSpec) -> Environment:
        return Environment(
            wanted,
            interpreter=machine.interpreter,
            credentials=CREDENTIALS,
            limits=machine.limiter.create(secrets.token_hex(6)),
            emit=lambda _, line: found.lines.append(line),
            files=machine.files.create(
                tmp_mb=wanted.tmp_mb,
                needed=needed_folders(wanted.package, machine.interpreter),
                layers=wanted.layers,
            ),
        )

    found = Running(Pool(spec, create, **limits))
    try:
        yield found
    finally:
        await found.pool.close()


class Functions:
    """What the Invoke API needs of a plane, for one function."""

    def __init__(self, pool: Pool, account: Account | None = None) -> None:
        self._pool, self.account, self.watches = pool, account or Account(), Watches()
        self._events = AsyncQueue(pool, lambda *_: asyncio.sleep(0), Timing())

    def pool(self, name: str) -> Pool | None:
        return self._pool

    def events(self, name: str) -> AsyncQueue | None:
        return self._events

    async def follow(self) -> None:
        raise NotImplementedError

    async def take_up_change(self, name: str) -> None:
        raise NotImplementedError

    async def debug(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def status(self) -> dict[str, Any]:
        raise NotImplementedError


@asynccontextmanager
async def invoke_api(pool: Pool, account: Account | None = None) -> AsyncIterator[str]:
    """The endpoint of an Invoke API for one function, without an emulator behind it."""
    with ThreadPoolExecutor(1) as threads:
        server = await serve(InvokeApi(Functions(pool, account), "http://127.0.0.1:9", threads).handle)
        yield f"http://127.0.0.1:{port_of(server)}"
        server.close()


def answer(outcome: Outcome) -> Any:
    """The answer of an invocation that succeeded."""
    assert outcome.answer.error_type is None, outcome.answer
    return json.loads(outcome.answer.payload)


def error(outcome: Outcome) -> tuple[str, str]:
    """Error type and message that the caller of a failed invocation sees."""
    assert outcome.answer.error_type is not None, outcome.answer
    body = json.loads(outcome.answer.payload)
    return body["errorType"], re.sub(r"RequestId: \S+ ", "", body["errorMessage"])


def exists(pid: int) -> bool:
    """Whether a process runs; what only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def state(pid: int) -> str:
    """A process's state letter, such as T for stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


async def gone(pid: int) -> bool:
    """Whether a process ends within two seconds."""
    for _ in range(200):
        if not exists(pid):
            return True
        await asyncio.sleep(0.01)
    return False


def cgroup_of(pid: int, controller: str) -> Path:
    """A process's own control group, of the version that has the controller."""
    groups = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update({name: path.lstrip("/") for name in controllers.split(",")})
    if controller in groups:
        return Path("/sys/fs/cgroup", controller, groups[controller])
    return Path("/sys/fs/cgroup", groups[""])


def cpu_limit_us(group: Path) -> tuple[int, int]:
    """Quota and period of a control group, as the kernel has them; a quota of -1 is none."""
    if (group / "cpu.max").exists():
        quota, period = (group / "cpu.max").read_text().split()
        return -1 if quota == "max" else int(quota), int(period)
    return int((group / "cpu.cfs_quota_us").read_text()), int((group / "cpu.cfs_period_us").read_text())


def memory_limit_bytes(group: Path) -> int:
    """The limit of a control group, as the kernel has it; a very large one is none."""
    names = ("memory.max", "memory.limit_in_bytes")
    limit = next(group / name for name in names if (group / name).exists()).read_text().strip()
    return sys.maxsize if limit == "max" else int(limit)


def cpu_share_of(pid: int) -> float:
    """The cores that a process's control group, of either version, lets it have."""
    groups = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    if any("cpu" in controllers.split(",") for controllers in groups):
        folder = cgroup_of(pid, "cpu")
        quota_us, period_us = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    else:
        quota_us, period_us = Path(f"/sys/fs/cgroup{groups['']}/cpu.max").read_text().split()
    return int(quota_us) / int(period_us)


def open_descriptors() -> set[str]:
    return {descriptor.name for descriptor in Path("/proc/self/fd").iterdir()}
