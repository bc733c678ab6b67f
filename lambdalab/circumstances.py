"""Under what a run takes place: what limits the functions, versions of everything, the machine."""

import os
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

from lambdalab import __version__, tools
from lambdalab.analysis import CPU_LIMIT_UNKNOWN
from lambdalab.aws import is_aws
from lambdalab.errors import UsageError
from lambdalab.factorial.model import FactorialManifest
from lambdalab.model import Manifest
from lambdalab.project import project_root
from lambdalab.target import AwsTarget, LocalTarget


def cpu_limit(target: AwsTarget) -> str:
    """What holds the functions to their share of CPU; only Lambda itself and the plane are known to do so."""
    if isinstance(target, LocalTarget):
        return str(target.local.status()["cpu_limit"])
    return "AWS Lambda" if is_aws(target.aws.lambda_.meta.endpoint_url) else CPU_LIMIT_UNKNOWN


def require_same_place(manifest: Manifest | FactorialManifest, target: AwsTarget) -> None:
    """Refuses to go on with a run elsewhere than where it was made.

    Raises:
        UsageError: the target or its stack is another.
    """
    if (manifest.target, manifest.stack_name) != (target.name, target.stack.name):
        raise UsageError(
            f"run {manifest.run_id} was made on {manifest.target} stack {manifest.stack_name}, "
            f"not on {target.name} stack {target.stack.name}",
            next_step="resume it where it was made, or start a new run",
        )


def versions(python_source: str, go_source: str, *, local: bool) -> dict[str, str]:
    """Everything that takes part, with its version; the functions' SDKs as their own files pin them.

    Args:
        python_source: the folder of the Python function.
        go_source: that of the Go function.
        local: whether they run in the local stack.
    """
    root = project_root()
    found = {"lambdalab": __version__, "python": platform.python_version(), "boto3 (lab)": version("boto3")}
    for name, pinned in re.findall(
        r"^([\w-]+)(?:\[.*\])?==(\S+)", (root / python_source / "requirements.txt").read_text(), re.MULTILINE
    ):
        found[f"{name} (function)"] = pinned
    for name, pinned in re.findall(
        r"^\s+(github\.com/aws/\S+) (v\S+)$", (root / go_source / "go.mod").read_text(), re.MULTILINE
    ):
        found[name.removeprefix("github.com/aws/")] = pinned
    if local:
        found |= dict(requirement.split("==") for requirement in (tools.MINISTACK, tools.RUNTIME_CLIENT, tools.SAM))
    return found


def free_memory_mb() -> int:
    """What this machine could give to new processes without swapping (MemAvailable of /proc/meminfo)."""
    found = re.search(r"^MemAvailable:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


def this_machine() -> dict[str, str]:
    """The machine that ran the lab, which locally is also the one that was measured."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory_kb = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "processor": model[1] if model else "unknown",
        "cores": str(len(os.sched_getaffinity(0))),
        "memory_mb": str(int(memory_kb[1]) // 1024) if memory_kb else "unknown",
        "interpreter": sys.implementation.name,
    }
