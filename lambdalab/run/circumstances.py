"""Under what a run takes place: what limits the functions, versions of everything, the machine."""

import os
import platform
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from lambdalab import __version__
from lambdalab.analysis.cautions import CPU_LIMIT_UNKNOWN
from lambdalab.aws.clients import Aws, is_aws
from lambdalab.build import tools
from lambdalab.errors import SetupError, UsageError
from lambdalab.loopback import LOCAL_REGION
from lambdalab.project import read_or_empty
from lambdalab.records.conditions import Conditions
from lambdalab.records.cpu_limit import CAUTION, NEXT_STEP, NONE
from lambdalab.records.manifest import FunctionFacts, Manifest, MessageManifest
from lambdalab.run.calibration import last_calibration
from lambdalab.run.local_target import LocalTarget
from lambdalab.run.target import AwsTarget


def cpu_limit(target: AwsTarget) -> str:
    """What holds the functions to their share of CPU; only Lambda itself and the plane are known to do so."""
    if isinstance(target, LocalTarget):
        return str(target.local.status()["cpu_limit"])
    return "AWS Lambda" if is_aws(target.aws.lambda_.meta.endpoint_url) else CPU_LIMIT_UNKNOWN


def caution_before(target: AwsTarget) -> str | None:
    """The caution to give before functions run on a target where nothing limits their CPU; None elsewhere.

    Raises:
        PlaneError: the local stack does not answer.
    """
    return CAUTION if cpu_limit(target) == NONE else None


def require_cpu_limit(target: AwsTarget, sizes_mb: Collection[int]) -> None:
    """Refuses to compare memory sizes where nothing limits CPU and memory.

    Raises:
        SetupError: it is refused.
        PlaneError: the local stack does not answer.
    """
    sizes = sorted(set(sizes_mb))
    if len(sizes) > 1 and cpu_limit(target) == NONE:
        raise SetupError(
            f"memory sizes {', '.join(map(str, sizes))} MB cannot be compared on the local stack {target.stack.name}, "
            f"where each gets whole cores and all memory (cpu_limit: {NONE})",
            next_step=f"{NEXT_STEP}, or add --without-cpu-limit to measure them nevertheless",
        )


def conditions_at(target: AwsTarget) -> Conditions:
    """The conditions under which functions run on a target now.

    Raises:
        PlaneError: the local stack does not answer.
    """
    status = target.local.status() if isinstance(target, LocalTarget) else {}
    return Conditions(
        target=target.name,
        region=target.region,
        machine=this_machine(),
        cpu_limit=cpu_limit(target),
        cpu_scale=status.get("cpu_scale", 1.0),
        latency=status.get("latency"),
    )


def conditions_without_stack() -> Conditions:
    """The conditions of a local stack as it would be brought up; what would limit CPU is not known before."""
    return Conditions(target=LocalTarget.name, region=LOCAL_REGION, machine=this_machine(), cpu_limit=None)


def conditions_of_account(aws: Aws) -> Conditions:
    """The conditions of an AWS account in which no stack was found."""
    return Conditions(
        target=AwsTarget.name, region=str(aws.session.region_name), machine=this_machine(), cpu_limit=None
    )


def plane_limits(target: AwsTarget) -> dict[str, Any]:
    """What a local plane holds beside CPU shares, and this machine's last calibration, as manifests have them."""
    if not isinstance(target, LocalTarget):
        return {"limits": {}, "calibration": None}
    status = target.local.status()
    return {
        "limits": {name: status[name] for name in ("controllers", "tmp_limit") if name in status},
        "calibration": msgspec.to_builtins(last_calibration()),
    }


def interpreters(target: AwsTarget, functions: Mapping[str, FunctionFacts]) -> dict[str, str]:
    """What runs each function of a local stack: its Python, or its runtime where that is custom; none on AWS."""
    if not isinstance(target, LocalTarget):
        return {}
    known = target.local.status().get("functions", {})
    return {
        name: known[function.function_name]["interpreter"] or function.runtime
        for name, function in functions.items()
        if function.function_name in known
    }


def require_same_place(manifest: Manifest, target: AwsTarget) -> None:
    """Refuses to go on with a run elsewhere, or under other conditions, than it was made.

    Raises:
        UsageError: the target, its stack or a condition is another.
        PlaneError: the local stack does not answer.
    """
    if (manifest.target, manifest.stack_name) != (target.name, target.stack.name):
        raise UsageError(
            f"run {manifest.run_id} was made on {manifest.target} stack {manifest.stack_name}, "
            f"not on {target.name} stack {target.stack.name}",
            next_step="resume it where it was made, or start a new run",
        )
    for what, before, now in conditions_at(target).changes_since(manifest):
        raise _changed(manifest.run_id, what, before, now)


def require_same_functions(manifest: Manifest, functions: Mapping[str, FunctionFacts]) -> None:
    """Refuses to go on with a run whose functions have changed, so that its samples would not be alike.

    Raises:
        UsageError: one has.
    """
    built = isinstance(manifest, MessageManifest) and manifest.protocol.factors.build
    for name, before in manifest.functions.items():
        for key in before.__struct_fields__:
            if (was := getattr(before, key)) != (now := getattr(functions[name], key)):
                set_back = "name every build as before" if built and key == "code_sha256" else "set it back"
                raise _changed(manifest.run_id, f"{name} {key}", was, now, set_back)


def _changed(run_id: str, what: str, before: object, now: object, set_back: str = "set it back") -> UsageError:
    was, is_now = ("not set" if value is None else value for value in (before, now))
    return UsageError(
        f"run {run_id} began with {what} {was}, and now it is {is_now}", next_step=f"{set_back}, or start a new run"
    )


def versions(sources: Iterable[Path], *, local: bool) -> dict[str, str]:
    """Everything that takes part, with its version; the functions' SDKs as their own files pin them, if readable.

    Args:
        sources: the folders of the functions.
        local: whether they run in the local stack.
    """
    found = {"lambdalab": __version__, "python": platform.python_version(), "boto3 (lab)": version("boto3")}
    for source in sources:
        requirements, modules = (read_or_empty(source / name) for name in ("requirements.txt", "go.mod"))
        for name, pinned in re.findall(r"^([\w-]+)(?:\[.*\])?==(\S+)", requirements, re.MULTILINE):
            found[f"{name} (function)"] = pinned
        for name, pinned in re.findall(r"^\s+(github\.com/aws/\S+) (v\S+)$", modules, re.MULTILINE):
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
