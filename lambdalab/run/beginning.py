"""How a run of any kind begins and goes on: what is written down, and what must still be as it was."""

import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from lambdalab.aws.template import parameter_default
from lambdalab.pricing.costs import load_price_sheet
from lambdalab.records.manifest import FunctionFacts
from lambdalab.records.run_directory import RunFolder
from lambdalab.run.circumstances import (
    conditions_at,
    cpu_limit,
    interpreters,
    plane_limits,
    require_same_place,
    versions,
)
from lambdalab.run.local_target import LocalTarget
from lambdalab.run.target import AwsTarget

_SEED_BITS: Final = 32
D = TypeVar("D", bound=RunFolder[Any])


def begin(
    target: AwsTarget,
    kind: type[D],
    results: Path,
    *,
    functions: Mapping[str, FunctionFacts],
    seed: int | None,
    project: Path | None,
    sources: Iterable[Path],
    **asked: object,
) -> D:
    """Makes the directory of a run, and writes down what is asked and under which conditions, before anything is sent.

    Args:
        target: where it will run.
        kind: of run.
        results: the folder of run directories.
        functions: what is measured, as it is configured now.
        seed: of every order in the run; drawn when None, and kept in the manifest either way.
        project: the folder of the template that was deployed; None where functions were found without one.
        sources: the folders of the functions, whose files pin their SDKs.
        asked: the protocol, and what only manifests of this kind have.

    Raises:
        PriceSheetError: there are no prices of the target's region.
        StorageError: the folder cannot be written.
        AccessError, PlaneError: the stack cannot be asked for its pipeline or its conditions.
    """
    now = datetime.now(UTC)
    prices = load_price_sheet(target.region)
    conditions = conditions_at(target)
    runtimes = {} if project is None else {name: _runtime(project, of) for name, of in functions.items()}
    protocol: Any = asked["protocol"]
    manifest = kind.manifest_type(
        schema_version=kind.version,
        run_id=f"{now:%Y%m%d-%H%M%S}-{protocol.scenario}-{secrets.token_hex(2)}",
        started_at=now.isoformat(timespec="milliseconds"),
        seed=secrets.randbits(_SEED_BITS) if seed is None else seed,
        target=target.name,
        stack_name=target.stack.name,
        region=target.region,
        endpoint=target.aws.lambda_.meta.endpoint_url,
        price_sheet=prices.name,
        prices=msgspec.to_builtins(prices),
        parameters=target.stack.parameters,
        functions=functions,
        cpu_limit=cpu_limit(target),
        latency=conditions.latency,
        cpu_scale=conditions.cpu_scale,
        interpreters=interpreters(target, functions),
        template_runtimes=runtimes,
        versions=versions(sources, local=isinstance(target, LocalTarget)),
        machine=conditions.machine,
        **plane_limits(target),
        **asked,
    )
    target.note_run(manifest.run_id)
    graph = None if project is None else target.pipeline()
    store = kind.create(results, manifest)
    if graph is not None:
        store.write_pipeline(graph)
    return store


def require_place(target: AwsTarget, store: RunFolder[Any]) -> None:
    """Looks whether a run may go on where it is to, and notes there that it does.

    Raises:
        UsageError: it was made on another target or stack, or under other conditions.
        PlaneError: the local stack does not answer.
    """
    manifest = store.manifest()
    require_same_place(manifest, target)
    target.note_run(manifest.run_id)


def note_resumption(store: RunFolder[Any]) -> None:
    """Writes into the manifest that the run goes on now."""
    manifest = store.manifest()
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    store.write_manifest(msgspec.structs.replace(manifest, resumed_at=(*manifest.resumed_at, now)))


def note_stop(store: RunFolder[Any], reason: str) -> None:
    """Writes into the manifest why a run ended, once."""
    manifest = store.manifest()
    if manifest.stopped is None:
        store.write_manifest(msgspec.structs.replace(manifest, stopped=reason))


def _runtime(project: Path, function: FunctionFacts) -> str:
    """What the template would run a function on."""
    return parameter_default(project, f"{function.language.capitalize()}Runtime")
