"""The whole of a factorial run as Python calls: ``new_run``, ``execute``. The command line only wraps these."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from botocore.exceptions import ClientError

from lambdalab.aws.clients import access_errors
from lambdalab.aws.configuration import Configurations
from lambdalab.build import samconfig
from lambdalab.build.deployment import local_parameters
from lambdalab.design.cells import FactorialProtocol
from lambdalab.errors import StackError, UsageError
from lambdalab.planning.call_plan import FactorialPlan, find_experience, make_plan
from lambdalab.planning.call_protocol import PlannedCell, schedule
from lambdalab.planning.call_stopping import CallStoppingRule
from lambdalab.pricing.costs import load_price_sheet
from lambdalab.records.call_files import FactorialDirectory
from lambdalab.records.conditions import Conditions
from lambdalab.records.manifest import CallManifest, FunctionFacts
from lambdalab.run.account import require_concurrency
from lambdalab.run.beginning import begin, note_resumption, note_stop, require_place
from lambdalab.run.call_runner import FactorialRunner, Progress, remaining
from lambdalab.run.circumstances import (
    conditions_at,
    conditions_without_stack,
    free_memory_mb,
    require_cpu_limit,
    require_same_functions,
)
from lambdalab.run.local_target import LocalTarget
from lambdalab.run.target import AwsTarget
from lambdalab.scenario.base import CallScenario
from lambdalab.scenario.found import call_scenario, folder_of

_SEED_BITS: Final = 32
_SCENARIO_OUTPUT: Final = "Scenario"


def new_run(
    target: AwsTarget,
    protocol: FactorialProtocol,
    results: Path,
    *,
    seed: int | None = None,
    without_cpu_limit: bool = False,
) -> FactorialDirectory:
    """Looks whether the run can be made, makes its directory and writes down what is asked, before any call.

    Args:
        target: where it will run.
        protocol: what will be run.
        results: the folder of run directories.
        seed: of the order of cells and of every call; drawn when None, and kept in the manifest either way.
        without_cpu_limit: whether several memory sizes may be measured where nothing limits CPU and memory.

    Raises:
        SetupError: nothing limits CPU and memory, and that is not allowed.
        UsageError: the functions cannot be given what the protocol asks.
        StackError, AccessError: the stack is not the scenario's, or may not be used.
        StorageError: the folder cannot be written.
    """
    scenario, folder = call_scenario(protocol.scenario), folder_of(protocol.scenario)
    functions = called_functions(target, scenario, protocol)
    for design in () if without_cpu_limit else protocol.designs:
        require_cpu_limit(target, [cell.memory_mb or functions[cell.called].memory_mb for cell in design.cells])
    require_ready(target, scenario, protocol, functions)
    _require_memory(target, scenario, protocol)
    return begin(
        target,
        FactorialDirectory,
        results,
        functions=functions,
        seed=seed,
        project=None if protocol.function_prefix is not None else folder,
        sources=[folder / source for source in scenario.sources.values()],
        protocol=protocol,
        cold_mode=target.cold_mode,
    )


def resume_run(target: AwsTarget, store: FactorialDirectory) -> None:
    """Notes that a run goes on.

    Raises:
        UsageError: it was made on another target or stack or under other conditions, or a function has changed since.
        StackError, AccessError: as of ``new_run``.
    """
    require_place(target, store)
    manifest = store.manifest()
    scenario = call_scenario(manifest.protocol.scenario)
    functions = called_functions(target, scenario, manifest.protocol)
    if cells_left(store) and manifest.protocol.function_prefix is None and _put_back(target, manifest, functions):
        functions = called_functions(target, scenario, manifest.protocol)
    require_same_functions(manifest, functions)
    require_ready(target, scenario, manifest.protocol, functions)
    for function in functions.values():
        target.configurations.remember(function.function_name)
    if cells_left(store):
        _require_memory(target, scenario, manifest.protocol)
        note_resumption(store)


def _put_back(target: AwsTarget, manifest: CallManifest, functions: Mapping[str, FunctionFacts]) -> bool:
    """What the run itself set and a killed one left behind, so that it is not taken for what was deployed.

    What is none of its own levels somebody else has set.

    Returns:
        Whether anything was put back.
    """
    configurations = Configurations(target.aws)
    changed = False
    for language, before in manifest.functions.items():
        now, cells = functions[language], [cell for cell in manifest.protocol.cells if cell.called == language]
        if now.function_name != before.function_name:
            continue
        if now.memory_mb != before.memory_mb and now.memory_mb in {cell.memory_mb for cell in cells}:
            configurations.remember(now.function_name)  # a change may be under way still
            changed |= configurations.apply(now.function_name, memory_mb=before.memory_mb, package=None)
        reserved = {cell.reserved_concurrency for cell in cells} - {None}
        if now.reserved_concurrency != before.reserved_concurrency and (now.reserved_concurrency or 0) in reserved:
            configurations.reserve(now.function_name, before.reserved_concurrency or 0)
            changed = True
    return changed


def cells_left(store: FactorialDirectory) -> list[tuple[PlannedCell, int]]:
    """What a run that goes on would execute."""
    manifest = store.manifest()
    if manifest.stopped is not None:
        return []
    return list(remaining(schedule(manifest.protocol, manifest.seed), store.calls()))


def execute(
    target: AwsTarget, store: FactorialDirectory, progress: Progress, standing: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Runs what is left of a run, until its blocks are done, its stop rule is satisfied or a cap is reached.

    Args:
        target: where.
        store: the run; why it stopped is written into its manifest at once.
        progress: told each cell before it begins.
        standing: told after each block how far the stop rule is.

    Returns:
        What calls began to write and nobody will end, looked for at the end; the emulator is rid of it.

    Raises:
        LambdalabError: see ``FactorialRunner.run``.
    """
    scenario = call_scenario(store.manifest().protocol.scenario)
    rule = CallStoppingRule(store, scenario, spends=target.name == "aws")

    def stop() -> str | None:
        reason = rule.reason()
        standing(rule.standing)
        if reason is not None and cells_left(store):
            note_stop(store, reason)
        return reason

    FactorialRunner(target, scenario, store, progress, stop).run(lambda: cells_left(store))
    manifest, is_local = store.manifest(), target.name == LocalTarget.name
    with access_errors("what the calls of the run left"):
        return scenario.orphans(target.aws, target.stack.outputs, manifest.run_id, store.calls(), remove=is_local)


def called_functions(
    target: AwsTarget, scenario: CallScenario, protocol: FactorialProtocol
) -> dict[str, FunctionFacts]:
    """The function of each language, or those that were found, as they are configured now.

    Raises:
        StackError: the stack is another scenario's.
        AccessError: it cannot be asked for.
    """
    if protocol.function_prefix is not None:
        found = {cell.called: cell.language for cell in protocol.cells}
        return {name: _function(target, name, language, None) for name, language in found.items()}
    holds = target.stack.outputs.get(_SCENARIO_OUTPUT)
    if holds != (name := protocol.scenario):
        raise StackError(
            f"stack {target.stack.name} is of scenario {holds or 'none'}, not of {name}",
            next_step=f"end it with `lambdalab down`, then `lambdalab up {name}`, or add --up to the run"
            if target.name == "local"
            else f"name one with --stack-name, such as {samconfig.stack_name(folder_of(name), samconfig.DEFAULT)}",
        )
    languages = dict.fromkeys(cell.language for cell in protocol.cells)
    output = target.stack.output
    return {
        language: _function(
            target, output(scenario.function_output(language)), language, output(scenario.log_group_output(language))
        )
        for language in languages
    }


def _function(target: AwsTarget, name: str, language: str, log_group: str | None) -> FunctionFacts:
    with access_errors(f"function {name}"):
        found = target.aws.lambda_.get_function_configuration(FunctionName=name)
        reserved = target.aws.lambda_.get_function_concurrency(FunctionName=name)
    if (runtime := found.get("Runtime")) is None:
        raise UsageError(
            f"{name} is a container image, which has no runtime, and only functions of a zip file are measured",
            next_step="write a --function-prefix without it, or deploy it as a zip file",
        )
    return FunctionFacts(
        function_name=name,
        language=language,
        runtime=runtime,
        architecture=found["Architectures"][0],
        memory_mb=found["MemorySize"],
        timeout_s=found["Timeout"],
        log_group=log_group or found.get("LoggingConfig", {}).get("LogGroup", f"/aws/lambda/{name}"),
        code_sha256=found["CodeSha256"],
        reserved_concurrency=reserved.get("ReservedConcurrentExecutions"),
    )


def require_ready(
    target: AwsTarget, scenario: CallScenario, protocol: FactorialProtocol, functions: dict[str, FunctionFacts]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Looks before the first call whether every cell can be called.

    Returns:
        What the account allows, each in a sentence, and what could not be checked.

    Raises:
        UsageError: a function has too little memory, is switched off, or more is to be reserved than the account has.
        StackError: what the functions write to is not there.
        AccessError: this identity may not invoke them.
    """
    for cell in protocol.cells:
        function, least_mb = functions[cell.called], scenario.least_memory_mb(protocol.design(cell), cell)
        if (cell.memory_mb or function.memory_mb) < least_mb:
            raise UsageError(
                f"{function.function_name} has {function.memory_mb} MB, and cell {cell.name} needs {least_mb}",
                next_step="name memory_mb among the factors, or deploy it with more",
            )
        if (cell.function or cell.reserved_concurrency is None) and function.reserved_concurrency == 0:
            raise UsageError(
                f"{function.function_name} has reserved concurrency 0 and takes no invocation",
                next_step="take that away, or name reserved_concurrency among the factors",
            )
    wanted: dict[str, int] = {}
    for cell in protocol.cells:
        if (level := cell.reserved_concurrency) is not None and cell.function is None:
            name = functions[cell.called].function_name
            wanted[name] = max(level, wanted.get(name, 0))
    reserved = {function.function_name: function.reserved_concurrency for function in functions.values()}
    found = require_concurrency(target, reserved, wanted, max(cell.callers for cell in protocol.cells))
    if protocol.function_prefix is None:  # else nobody knows before the first cell
        with access_errors(f"what the functions of {target.stack.name} write to"):
            scenario.ready(target.aws, target.stack.outputs)
    for name in reserved:
        with access_errors(f"function {name}"):
            _dry_run(target, name)
    return found


def _require_memory(target: AwsTarget, scenario: CallScenario, protocol: FactorialProtocol) -> None:
    """Refuses locally what the emulator could not keep, which would take the machine's memory with it."""
    if isinstance(target, LocalTarget) and (short := _lack_of_memory(scenario, protocol)) is not None:
        raise UsageError(short, next_step="ask for fewer invocations, callers or bytes, or free some memory")


def _lack_of_memory(scenario: CallScenario, protocol: FactorialProtocol) -> str | None:
    """That the objects of a cell do not fit this machine: the emulator keeps them until the calls of it have ended."""
    needed: dict[str, int] = {}
    for design in protocol.designs:
        for cell in design.cells:
            size = scenario.expected_amounts(design, cell.levels).get("stored_bytes", 0)
            needed[cell.name] = max(cell.callers, design.invocations) * size // 2**20
    name, free = max(needed, key=lambda cell: needed[cell]), free_memory_mb()
    if needed[name] <= free:
        return None
    return (
        f"the emulator would keep {needed[name]:,} MB of cell {name} in memory, and this machine has {free:,} MB free"
    )


def _dry_run(target: AwsTarget, name: str) -> None:
    """Whether this identity may invoke a function; a throttle is an answer too."""
    try:
        target.aws.lambda_.invoke(FunctionName=name, InvocationType="DryRun")
    except ClientError as error:
        if error.response["Error"]["Code"] != "TooManyRequestsException":
            raise


def plan_run(
    target: AwsTarget, protocol: FactorialProtocol, results: Path, *, left: Collection[PlannedCell] | None = None
) -> FactorialPlan:
    """What a run on a target would ask for; nothing is called.

    Args:
        target: where.
        protocol: what.
        results: the folder in which an earlier run may be found, to learn from.
        left: what is left of a run that goes on; None for a new one.

    Raises:
        PriceSheetError, UsageError, StackError, AccessError: a price is missing, or the run cannot be made.
    """
    scenario = call_scenario(protocol.scenario)
    functions = called_functions(target, scenario, protocol)
    limits, unchecked = require_ready(target, scenario, protocol, functions)
    cells = list(schedule(protocol, 0) if left is None else left)
    planned = _plan(protocol, scenario, functions, results, cells, conditions_at(target))
    return planned if target.name == "local" else msgspec.structs.replace(planned, limits=limits, unchecked=unchecked)


def plan_without_stack(protocol: FactorialProtocol, results: Path) -> FactorialPlan:
    """What a run on a local stack would ask for, when none is up: with the settings it would be brought up with."""
    scenario = call_scenario(protocol.scenario)
    settings = local_parameters({}, folder=folder_of(protocol.scenario))
    functions = {
        language: FunctionFacts(
            function_name=language,
            language=language,
            runtime=settings[f"{language.capitalize()}Runtime"],
            architecture=settings["Architecture"],
            memory_mb=int(settings["MemorySize"]),
            timeout_s=int(settings["Timeout"]),
            log_group=language,
            code_sha256="",
            reserved_concurrency=None,
        )
        for language in dict.fromkeys(cell.language for cell in protocol.cells)
    }
    cells = list(schedule(protocol, 0))
    return _plan(protocol, scenario, functions, results, cells, conditions_without_stack())


def _plan(
    protocol: FactorialProtocol,
    scenario: CallScenario,
    functions: dict[str, FunctionFacts],
    results: Path,
    left: Sequence[PlannedCell],
    conditions: Conditions,
) -> FactorialPlan:
    short = _lack_of_memory(scenario, protocol) if conditions.target == LocalTarget.name else None
    found = find_experience(results, protocol, scenario, functions, conditions)
    prices = load_price_sheet(conditions.region)
    planned = make_plan(protocol, scenario, functions, prices, left, target=conditions.target, experience=found)
    return planned if short is None else msgspec.structs.replace(planned, limits=(f"caution: {short}",))
