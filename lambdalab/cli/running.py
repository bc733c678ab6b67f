"""What every command that runs a protocol shares: where it runs, how it goes on, what it shows."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from lambdalab.cli import completion
from lambdalab.cli.cpu_limit import caution
from lambdalab.cli.local_stack import held_local_stack
from lambdalab.cli.results import (
    MOST_BLOCKS,
    conclude_and_show,
    end_by_verdict,
    execute_visibly,
    show_result,
    shown_also_after_a_failure,
)
from lambdalab.cli.spending import confirm
from lambdalab.errors import UsageError
from lambdalab.project import RESULTS as RESULTS
from lambdalab.project import results_folder
from lambdalab.report.console import say

if TYPE_CHECKING:
    from lambdalab.analysis.frontier import Limits
    from lambdalab.analysis.message_analysis import Summary
    from lambdalab.design import arms
    from lambdalab.design.arms import Architecture
    from lambdalab.design.cells import FactorialProtocol
    from lambdalab.planning.plan import Plan
    from lambdalab.records.trial_files import RunDirectory
    from lambdalab.run.target import AwsTarget

P = TypeVar("P", "arms.Protocol", "FactorialProtocol")
MAX_SEED: Final = 2**32 - 1
"""Of what is drawn when none is given."""
_FIXED: Final = (
    "protocol", "blocks", "seed", "memory", "language", "mode", "count", "size", "architecture",
    "batch_size", "max_minutes", "max_usd", "function_prefix", "without_cpu_limit",
)  # fmt: skip
"""What a run that goes on has already."""


def _results(context: typer.Context, parameter: typer.CallbackParam, value: Path) -> Path:
    """Finds the project's results from any of its folders; a path that was typed is of the current folder."""
    source = context.get_parameter_source(parameter.name or "")
    return results_folder() if source is not None and source.name == "DEFAULT" else value


Results = Annotated[
    Path, typer.Option(callback=_results, help="Folder of run directories; by default the project's results.")
]
ProtocolName = Annotated[
    str,
    typer.Option(
        autocompletion=completion.protocols, help="A protocol of the scenario's protocols/, or the path of one."
    ),
]
Resume = Annotated[
    str | None, typer.Option(autocompletion=completion.runs, help="Go on with an interrupted run: its id, or latest.")
]
StackName = Annotated[str, typer.Option(help="The deployed stack, for --target aws.")]
FunctionPrefix = Annotated[
    str | None,
    typer.Option(
        metavar="PREFIX",
        help="Call functions whose names begin so, one for each cell; their levels are in their settings and tags.",
    ),
]
Blocks = Annotated[
    int | None, typer.Option(min=1, max=MOST_BLOCKS, help="How often every arm runs; the protocol's own by default.")
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(min=0.1, max=10_000, help="Stop after the block that passes this limit (1440 by default)."),
]
MaxUsd = Annotated[
    float | None, typer.Option(min=0.0001, max=10_000, help="On AWS: end before so much is spent; 10 by default.")
]


class TargetName(StrEnum):
    """Where a run happens."""

    LOCAL = "local"
    AWS = "aws"


def typed(context: typer.Context) -> set[str]:
    """The names of what stood on the command line, in place of a default."""
    return {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    }


def refuse_contradictions(context: typer.Context, target: TargetName) -> None:
    """Refuses options that would be silently without effect."""
    given = typed(context)
    if "resume" in given:
        for option in (f"--{name.replace('_', '-')}" for name in _FIXED if name in given):
            raise UsageError(
                f"{option} cannot be changed when a run goes on with --resume",
                next_step=f"leave {option} out, or start a new run",
            )
    if target is TargetName.LOCAL and "stack_name" in given:
        raise UsageError(
            f"--stack-name {context.params['stack_name']} names a stack on AWS, and the target is local",
            next_step="add --target aws, or leave --stack-name out",
        )
    if target is TargetName.AWS and "temporary" in given:
        raise UsageError(
            "--up brings up a local stack, and the target is aws", next_step="leave --up or --target aws out"
        )
    if target is TargetName.AWS and "without_cpu_limit" in given:
        raise UsageError(
            "--without-cpu-limit is for local runs, and on AWS Lambda limits the CPU", next_step="leave it out"
        )
    if "cpu_scale" in given and "temporary" not in given:
        raise UsageError(
            f"--cpu-scale {context.params['cpu_scale']:g} is for the local stack that --up brings up",
            next_step="add --up, or bring a stack up with `lambdalab up --cpu-scale FACTOR`",
        )
    if "latency" in given and "temporary" not in given:
        raise UsageError(
            f"--latency {context.params['latency']} is for the local stack that --up brings up",
            next_step="add --up, or bring a stack up with `lambdalab up --latency NAME`",
        )


def chosen_protocol(scenario: str, name: str, blocks: int | None, builds: tuple[str, ...] = ()) -> "arms.Protocol":
    """The protocol that options name; builds take the place of its own.

    Raises:
        UsageError: there is no such scenario, protocol, or they do not go together.
    """
    from msgspec.structs import replace

    from lambdalab.planning.protocol import LANGUAGES_OF_SCENARIO, check_protocol, load_protocol
    from lambdalab.project import shown
    from lambdalab.scenario.found import FILE, folder_of

    if scenario not in LANGUAGES_OF_SCENARIO:
        folder = folder_of(scenario)
        raise UsageError(
            f"scenario {scenario} has no {FILE}, which says how its functions are measured",
            next_step=f"write {shown(folder / FILE)} as docs/add-a-scenario.md says",
        )
    require_scenario(name, scenario)
    plan = load_protocol(name, scenario)
    plan = plan if blocks is None else replace(plan, blocks=blocks)
    if builds:
        plan = replace(plan, factors=replace(plan.factors, build=builds))
        check_protocol(plan, f"protocol {plan.name} with --build")
    return plan


def with_enough_blocks(protocol: "arms.Protocol", *, asked: bool) -> "arms.Protocol":
    """The protocol with the blocks that a comparison of builds needs; says when that is more than it has.

    Raises:
        UsageError: fewer were asked for.
    """
    from lambdalab.planning import plan

    enough = plan.with_enough_blocks(protocol, asked=asked)
    if enough.blocks > protocol.blocks:
        say(f"{enough.blocks} blocks instead of {protocol.blocks}: fewer find no difference between these builds")
    return enough


def refuse_prefix(prefix: str | None, scenario: str) -> None:
    """Refuses --function-prefix where functions are sent messages."""
    if prefix is not None:
        raise UsageError(
            f"--function-prefix {prefix} means nothing for scenario {scenario}, whose functions are sent messages",
            next_step="leave it out",
        )


def require_scenario(name: str, scenario: str) -> None:
    """Refuses a protocol file of another scenario, whose keys may be other ones.

    Raises:
        UsageError: it is of another one.
    """
    from lambdalab.planning.protocol import scenario_of

    found = scenario_of(name, scenario)
    if found != scenario:
        raise UsageError(
            f"protocol {name} is for scenario {found}, not {scenario}",
            next_step=f"run `lambdalab run {found} --protocol {name}`",
        )


def with_ceilings(protocol: P, minutes: float | None, usd: float | None) -> P:
    """The protocol, of whatever kind, with ceilings that were typed in place of its own; without any, defaults hold."""
    from msgspec.structs import replace

    caps = replace(protocol.caps, minutes=protocol.caps.minutes if minutes is None else minutes)
    return replace(protocol, caps=caps if usd is None else replace(caps, usd=Decimal(str(usd))))


@contextmanager
def target_of(
    name: TargetName,
    stack_name: str,
    protocol: "arms.Protocol",
    *,
    builds: dict[str, Path] | None = None,
    temporary: bool = False,
    latency: str | None = None,
    cpu_scale: float | None = None,
    resuming: bool = False,
) -> "Iterator[AwsTarget]":
    """Where a protocol runs. One run holds it: another one of this machine is refused.

    Args:
        name: local or AWS.
        stack_name: on AWS.
        protocol: of which every architecture is built, on AWS.
        builds: the folders of builds by name.
        temporary: whether to bring a local stack up when none is up.
        latency: a latency model for it.
        cpu_scale: of its CPU shares.
        resuming: whether a run goes on, with what was built for it.
    """
    architectures = protocol.factors.architecture
    if name is TargetName.AWS:
        from lambdalab.run.target import aws_target

        target = aws_target(stack_name, builds)
        with target.held():
            target.builds.update(_built_for(architectures, target.stack.parameters, resuming=resuming))
            yield target
        return
    if architectures:
        raise UsageError(
            f"architecture {', '.join(architectures)} cannot be chosen locally: functions run on this machine's own",
            next_step="leave it out, or add --target aws",
        )
    with held_local_stack(protocol.scenario, temporary=temporary, latency=latency, cpu_scale=cpu_scale) as (
        stack,
        lock,
    ):
        from lambdalab.run.local_target import local_target

        local = local_target(stack, builds)
        local.lock = lock
        yield local


def _built_for(
    architectures: "Sequence[Architecture]", parameters: dict[str, str], *, resuming: bool
) -> "Iterator[tuple[str, Path]]":
    """The folders of the functions, built anew for each architecture unless a run goes on that began with them."""
    from lambdalab.build.deployment import build_folder, build_for

    for architecture in architectures:
        folder = build_folder(architecture)
        if not (resuming and folder.is_dir()):
            say(f"building the functions for {architecture}")
            build_for(architecture, parameters)
        yield architecture, folder


def measure(
    target: "AwsTarget",
    protocol: "arms.Protocol",
    previous: "RunDirectory | None",
    results: Path,
    *,
    seed: int | None,
    yes: bool,
    command: Sequence[str],
    options: Sequence[str],
    limits: "Limits | None" = None,
    without_cpu_limit: bool = False,
) -> "Summary":
    """Begins a run or goes on with one, executes it and shows the result, which is returned.

    Args:
        target: where.
        protocol: what.
        previous: the run that goes on.
        results: the folder of run directories.
        seed: of a new run.
        yes: whether to spend without asking.
        command: of the command line, with its argument, to say how the run goes on when it is interrupted.
        options: of it, beside those that every run has.
        limits: of a sweep, whose answer is then shown as well.
        without_cpu_limit: whether a new run may measure several memory sizes where nothing limits CPU and memory.
    """
    from lambdalab.run.experiment import new_run, plan_run, resume_run, trials_left

    if target.name == TargetName.AWS:
        left = None if previous is None else trials_left(previous)
        _confirm(target, plan_run(target, protocol, results, left=left), yes=yes)
    store = previous or new_run(target, protocol, results, seed=seed, without_cpu_limit=without_cpu_limit)
    go_on = ["lambdalab", *command, "--resume", store.folder.name, "--target", target.name]
    go_on += ["--stack-name", target.stack.name] if target.name == TargetName.AWS else []
    go_on += ["--results", str(results)] if results != results_folder() else []
    with store.held():
        if previous is not None:
            resume_run(target, previous)
        caution(target)
        return _execute_and_show(target, store, go_on=shlex.join([*go_on, *options]), limits=limits)


def _confirm(target: "AwsTarget", plan: "Plan", *, yes: bool) -> None:
    """Says what trials on AWS can take and cost at most, and asks."""
    asks = f"{plan.messages_most} messages and {plan.items_most:,} items"
    confirm(target, asks, plan, minutes=plan.minutes_most, yes=yes)


def _execute_and_show(
    target: "AwsTarget", store: "RunDirectory", *, go_on: str, limits: "Limits | None" = None
) -> "Summary":
    """Runs; then, however that ended, shows what was measured before what went wrong is said.

    Args:
        target: where.
        store: the run.
        go_on: the command with which an interrupted run goes on.
        limits: of a sweep.
    """
    from lambdalab.analysis.pairing import is_gate

    with shown_also_after_a_failure(
        store.folder,
        go_on=go_on,
        measured=lambda: bool(store.trials()),
        show=lambda: conclude_and_show(store, limits=limits),
    ):
        execute_visibly(target, store)
    summary = show_result(store, limits=limits)
    if is_gate(store.manifest().protocol):
        end_by_verdict(summary.comparisons)
    return summary
