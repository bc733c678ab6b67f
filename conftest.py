"""What some tests need of the machine.

A test is left out where that is missing, and named at the end; with LAMBDALAB_REQUIRE_ALL=1, as in CI, it fails there.
"""

import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from lambdalab.errors import SetupError
from lambdalab.local.docker import require_engine
from lambdalab.local.filesystem import FileSystems
from lambdalab.local.limiter import find_limiter
from lambdalab.local.limits import LimitError, try_signals
from lambdalab.local.signals import Signals

ORDINARY_USER: Final = 54321
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
_LEFT_OUT = pytest.StashKey[dict[str, str]]()


def _cgroup() -> str | None:
    found = find_limiter(f"lambdalab-needs-{os.getpid()}")
    found.close()
    is_there = found.kind.startswith("cgroup")
    return None if is_there else "control groups that this user may write (root, or a delegated scope)"


def _signals() -> str | None:
    try:
        try_signals()
        Signals().close()
    except LimitError:
        return "signals to a child, and its CPU clock"
    return None


def _seccomp() -> str | None:
    is_there = "Seccomp_filters:" in Path("/proc/self/status").read_text()
    is_known = platform.machine() in ("x86_64", "aarch64")
    return None if is_there and is_known else "filters of system calls (seccomp)"


def _hidepid() -> str | None:
    """A /proc that does not show the processes of others, in a mount namespace of its own."""
    command = ["unshare", "--mount", "mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        done = None
    return None if done is not None and done.returncode == 0 else "leave to mount /proc with hidepid (root)"


def _tasks() -> str | None:
    found = find_limiter(f"lambdalab-needs-{os.getpid()}")
    found.close()
    return None if "pids" in found.controllers else "a control group with the pids controller"


def _cgroup_v1() -> str | None:
    return None if Path("/sys/fs/cgroup/cpu").is_dir() else "a mount of cgroup version 1"


def _cgroup_v2() -> str | None:
    return None if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "a mount of cgroup version 2"


def _image() -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        found = FileSystems(Path(folder))
        found.close()
    return None if found.kind == "image" else "root and loop devices"


def _user_namespace() -> str | None:
    """Asked of util-linux, so that the lab's own way into one cannot hide its failure."""
    user = ORDINARY_USER if os.geteuid() == 0 else None
    done = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"], user=user, check=False)
    return None if done.returncode == 0 else "namespaces for ordinary users"


def _root() -> str | None:
    return None if os.geteuid() == 0 else "root"


def _network_namespace() -> str | None:
    """A network of its own with nothing but loopback, and strace to see who speaks in it."""
    script = "ip link set lo up && strace -f --seccomp-bpf -qq -o /dev/null true"
    try:
        done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, check=False)
    except OSError:
        done = None
    return None if done is not None and done.returncode == 0 else "network namespaces (root), ip and strace"


def _docker() -> str | None:
    """A command line alone is no engine."""
    try:
        require_engine()
    except SetupError:
        return "a Docker engine"
    return None


def _browser() -> str | None:
    return None if any(map(shutil.which, BROWSERS)) else f"a browser: {' or '.join(BROWSERS)}"


NEEDS: Final[dict[str, Callable[[], str | None]]] = {
    "cgroup": _cgroup,
    "cgroup v1": _cgroup_v1,
    "cgroup v2": _cgroup_v2,
    "signals": _signals,
    "seccomp": _seccomp,
    "hidepid": _hidepid,
    "tasks": _tasks,
    "image": _image,
    "user namespace": _user_namespace,
    "root": _root,
    "network namespace": _network_namespace,
    "docker": _docker,
    "browser": _browser,
}
OTHER: Final = {"cgroup v1": "cgroup v2", "cgroup v2": "cgroup v1"}
"""A kernel has its controllers in one version: where the other is, being left out is no failure."""
_answers: dict[str, str | None] = {}


def pytest_configure(config: pytest.Config) -> None:
    # In the background of a script Ctrl-C is ignored, and every process that is started inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", f"needs(name): runs only where the machine has it: {', '.join(NEEDS)}")
    config.stash[_LEFT_OUT] = {}


def _missing(name: str) -> str | None:
    if name not in _answers:
        _answers[name] = NEEDS[name]()
    return _answers[name]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in (name for marker in item.iter_markers("needs") for name in marker.args):
        if (missing := _missing(name)) is not None:
            required = name not in OTHER or _missing(OTHER[name]) is not None
            if required and os.environ.get("LAMBDALAB_REQUIRE_ALL") == "1":
                pytest.fail(f"left out, which LAMBDALAB_REQUIRE_ALL=1 forbids: needs {missing}", pytrace=False)
            item.config.stash[_LEFT_OUT][item.nodeid] = missing
            pytest.skip(f"needs {missing}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash[_LEFT_OUT]
    if left_out:
        terminalreporter.section("left out on this machine")
        for missing in sorted(set(left_out.values())):
            terminalreporter.line(f"for want of {missing}:")
            terminalreporter.line("".join(f"  {test}\n" for test, why in left_out.items() if why == missing))
