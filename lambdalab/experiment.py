"""The whole of a run as Python calls: ``new_run``, ``execute``, ``conclude``. The command line only wraps these."""

import math
import os
import platform
import re
import secrets
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from lambdalab import __version__, tools
from lambdalab.analysis import CPU_LIMIT_UNKNOWN, Summary, summarise
from lambdalab.calibration import last_calibration
from lambdalab.collection import join, observe
from lambdalab.cost import PriceSheet, invocation_cost, load_price_sheet
from lambdalab.errors import StorageError, UsageError
from lambdalab.model import Manifest, Protocol, Trial
from lambdalab.project import project_root
from lambdalab.protocol import schedule
from lambdalab.report.html import render_html
from lambdalab.runner import Progress, Runner, remaining, require_empty_queues
from lambdalab.store import SCHEMA_VERSION, RunDirectory
from lambdalab.target import AwsTarget, LocalTarget
from lambdalab.template import parameter_default

_SEED_BITS: Final = 32
_AWS_DOMAINS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


def new_run(target: AwsTarget, protocol: Protocol, results: Path, *, seed: int | None = None) -> RunDirectory:
    """Makes the run directory and writes down what is asked, before anything is sent.

    Args:
        target: where it will run.
        protocol: what will be run.
        results: the folder of run directories.
        seed: of the order of arms; drawn when None, and kept in the manifest either way.

    Raises:
        StorageError: the folder cannot be written.
        StackError, AccessError: the target is not what the protocol needs, or its queues are not empty.
    """
    require_empty_queues(target, protocol.arms)  # else there would be a run without a trial
    now = datetime.now(UTC)
    prices = load_price_sheet(target.region)
    status = target.local.status() if isinstance(target, LocalTarget) else {}
    functions = {arm.name: target.facts(arm) for arm in protocol.arms}
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        run_id=f"{now:%Y%m%d-%H%M%S}-{protocol.scenario}-{secrets.token_hex(2)}",
        started_at=now.isoformat(timespec="milliseconds"),
        protocol=protocol,
        seed=secrets.randbits(_SEED_BITS) if seed is None else seed,
        target=target.name,
        stack_name=target.stack.name,
        region=target.region,
        endpoint=target.aws.lambda_.meta.endpoint_url,
        price_sheet=f"{prices.region} {prices.date}",
        prices=msgspec.to_builtins(prices),
        parameters=target.stack.parameters,
        functions=functions,
        cpu_limit=_cpu_limit(target),
        latency=status.get("latency"),
        cpu_scale=status.get("cpu_scale", 1.0),
        calibration=msgspec.to_builtins(last_calibration()) if status else None,
        limits={name: status[name] for name in ("controllers", "tmp_limit")} if status else {},
        interpreters={
            name: status["functions"][f.function_name]["interpreter"] or f.runtime for name, f in functions.items()
        }
        if status
        else {},
        template_runtimes={arm.name: parameter_default(f"{arm.language.capitalize()}Runtime") for arm in protocol.arms},
        versions=_versions(local=bool(status)),
        machine=_machine(),
    )
    return RunDirectory.create(results, manifest)


def resume_run(target: AwsTarget, store: RunDirectory) -> None:
    """Notes that a run goes on.

    Raises:
        UsageError: it was made on another target or stack, or a function has changed since, so that its samples would
            not be alike.
    """
    manifest = store.manifest()
    if (manifest.target, manifest.stack_name) != (target.name, target.stack.name):
        raise UsageError(
            f"run {manifest.run_id} was made on {manifest.target} stack {manifest.stack_name}, "
            f"not on {target.name} stack {target.stack.name}",
            next_step="resume it where it was made, or start a new run",
        )
    latency = target.local.status()["latency"] if isinstance(target, LocalTarget) else None
    if latency != manifest.latency:
        began, now = manifest.latency_model, msgspec.structs.replace(manifest, latency=latency).latency_model
        changed = "another of that name" if began == now else now or "none"
        raise UsageError(
            f"run {manifest.run_id} began with latency model {began or 'none'}, and now it is {changed}",
            next_step="set it back, or start a new run",
        )
    before = msgspec.to_builtins(manifest.functions) | {
        "plane": {"cpu_limit": manifest.cpu_limit, "cpu_scale": manifest.cpu_scale}
    }
    after = {arm.name: msgspec.to_builtins(target.facts(arm)) for arm in manifest.protocol.arms}
    scale = target.local.status()["cpu_scale"] if isinstance(target, LocalTarget) else 1.0
    after["plane"] = {"cpu_limit": _cpu_limit(target), "cpu_scale": scale}
    for name, facts in before.items():
        for key, value in facts.items():
            if after[name][key] != value:
                raise UsageError(
                    f"run {manifest.run_id} began with {name} {key} {value}, and now it is {after[name][key]}",
                    next_step="set it back, or start a new run",
                )
    if trials_left(store):
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        store.write_manifest(msgspec.structs.replace(manifest, resumed_at=(*manifest.resumed_at, now)))


def trials_left(store: RunDirectory) -> list[Trial]:
    """What a run that goes on would execute."""
    manifest = store.manifest()
    return remaining(schedule(manifest.protocol, manifest.seed), store.trials())


def execute(target: AwsTarget, store: RunDirectory, progress: Progress) -> None:
    """Runs what is left of a run; see ``Runner.run`` for what it raises."""
    manifest = store.manifest()
    Runner(target, store, progress).run(schedule(manifest.protocol, manifest.seed))


def conclude(store: RunDirectory) -> Summary:
    """Reads a run directory and writes rows, summary and page; may be repeated at any time, also for an unfinished run.

    The same files always give the same rows, summary and page: even the prices are the run's own.

    Raises:
        StorageError: a file of the run is damaged, or one cannot be written.
    """
    manifest = store.manifest()
    try:
        prices = msgspec.convert(manifest.prices, PriceSheet)
    except msgspec.ValidationError as error:
        raise StorageError(
            f"{store.folder / 'run.json'} is damaged: {error} of prices", next_step="restore it, or measure again"
        ) from error
    trials = store.trials()
    observations = observe(store.log_lines())
    rows = join(manifest, trials, observations, prices)
    store.write_rows(rows)
    summary = summarise(manifest, trials, rows, damaged_lines=observations.damaged_lines)
    store.write_summary(summary)
    store.write_report(render_html(summary, manifest, rows))
    return summary


def ceiling_usd(target: AwsTarget, protocol: Protocol, trials: Iterable[Trial]) -> Decimal:
    """The most that trials can cost: every invocation runs into its timeout and every item is written once.

    An item is taken as its payload and 512 bytes of names, keys and metadata, which is above what the functions write
    (docs/contracts.md); log and queue volume as 4 KB a message.
    """
    prices = load_price_sheet(target.region)
    functions = {arm.name: target.facts(arm) for arm in protocol.arms}
    total = Decimal()
    for trial in trials:
        function = functions[trial.arm]
        cost = invocation_cost(
            prices,
            architecture=function.architecture,
            memory_mb=function.memory_mb,
            billed_ms=function.timeout_s * 1000,
            wru=trial.load.count * math.ceil((trial.load.size_bytes + 512) / 1024),
            sqs_bytes=4096,
            log_bytes=4096,
        ).total_usd
        assert cost is not None
        total += cost
    return total


def _cpu_limit(target: AwsTarget) -> str:
    """What holds the functions to their share of CPU; only Lambda itself and the plane are known to do so."""
    if isinstance(target, LocalTarget):
        return str(target.local.status()["cpu_limit"])
    host = urlsplit(target.aws.lambda_.meta.endpoint_url).hostname or ""
    return "AWS Lambda" if host.endswith(_AWS_DOMAINS) else CPU_LIMIT_UNKNOWN


def _versions(*, local: bool) -> dict[str, str]:
    """Everything that takes part, with its version; the functions' SDKs as their own files pin them."""
    root = project_root()
    found = {"lambdalab": __version__, "python": platform.python_version(), "boto3 (lab)": version("boto3")}
    for name, pinned in re.findall(
        r"^([\w-]+)(?:\[.*\])?==(\S+)", (root / "src/python/ingest/requirements.txt").read_text(), re.MULTILINE
    ):
        found[f"{name} (function)"] = pinned
    for name, pinned in re.findall(
        r"^\s+(github\.com/aws/\S+) (v\S+)$", (root / "src/go/ingest/go.mod").read_text(), re.MULTILINE
    ):
        found[name.removeprefix("github.com/aws/")] = pinned
    if local:
        found |= dict(requirement.split("==") for requirement in (tools.MINISTACK, tools.RUNTIME_CLIENT, tools.SAM))
    return found


def _machine() -> dict[str, str]:
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
