"""The commands of a run: run, report.

Modules that take long to import are imported by the command that needs them.
"""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lambdalab.cli import completion
from lambdalab.cli.app import app
from lambdalab.cli.cpu_limit import WithoutCpuLimit
from lambdalab.cli.local_stack import Scenario
from lambdalab.cli.results import show_result
from lambdalab.cli.running import (
    MAX_SEED,
    RESULTS,
    Blocks,
    FunctionPrefix,
    MaxMinutes,
    MaxUsd,
    ProtocolName,
    Results,
    Resume,
    StackName,
    TargetName,
    chosen_protocol,
    measure,
    refuse_contradictions,
    refuse_prefix,
    target_of,
    typed,
    with_ceilings,
    with_enough_blocks,
)
from lambdalab.errors import UsageError

if TYPE_CHECKING:
    from lambdalab.design.arms import Protocol

_MOST_PER_S: Final = 1_000_000


class Formula(StrEnum):
    """By which formula a cost is computed."""

    TRUE = "true"
    SEED = "seed"


@app.command(epilog="Example:  lambdalab run ingest --blocks 20 --seed 7\n\nExample:  lambdalab run --resume latest")
def run(
    context: typer.Context,
    scenario: Scenario = None,
    protocol: ProtocolName = "strict",
    target: Annotated[TargetName, typer.Option(help="Where the functions run.")] = TargetName.LOCAL,
    stack_name: StackName = "lambdalab",
    function_prefix: FunctionPrefix = None,
    blocks: Blocks = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Seed of the order of arms; drawn and recorded by default.")
    ] = None,
    build: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=FOLDER]",
            help="Compare builds; may be repeated. FOLDER is made by sam build; without it, the deployed code.",
        ),
    ] = None,
    resume: Resume = None,
    results: Results = RESULTS,
    temporary: Annotated[
        bool, typer.Option("--up", help="Bring a local stack up for this run when none is up, and end it afterwards.")
    ] = False,
    latency: Annotated[
        str | None,
        typer.Option(help="With --up: a latency model of latencies/, or its path: adds these service latencies."),
    ] = None,
    cpu_scale: Annotated[
        float | None,
        typer.Option(min=0.05, max=20, help="With --up: multiply every CPU share; models a slower or faster core."),
    ] = None,
    max_minutes: MaxMinutes = None,
    max_usd: MaxUsd = None,
    without_cpu_limit: WithoutCpuLimit = False,
    yes: Annotated[bool, typer.Option("--yes", help="On AWS: spend without asking.")] = False,
) -> None:
    """Run a protocol: send or call, verify, collect, and print the comparison."""
    from lambdalab.cli.calls import (
        is_of_calls,
        other_scenario,
        refuse_options,
        run_calls,
        run_of_calls,
        scenario_of_run,
    )
    from lambdalab.records.trial_files import RunDirectory
    from lambdalab.scenario.found import current_scenario

    refuse_contradictions(context, target)
    given = typed(context)
    if scenario is None:
        scenario = current_scenario() if resume is None else scenario_of_run(results, resume)
    if is_of_calls(scenario):
        refuse_options(given, ("build",), scenario)
        run_calls(
            scenario, protocol=protocol if "protocol" in given else None, blocks=blocks, seed=seed, target=target,
            stack_name=stack_name if "stack_name" in given else None, function_prefix=function_prefix,
            resume=resume, results=results,
            temporary=temporary, latency=latency, cpu_scale=cpu_scale, max_minutes=max_minutes, max_usd=max_usd,
            without_cpu_limit=without_cpu_limit, yes=yes,
        )  # fmt: skip
        return
    refuse_prefix(function_prefix, scenario)
    if resume is not None and (of_calls := run_of_calls(results, resume)) is not None:
        raise other_scenario(resume, of_calls.manifest().protocol.scenario, scenario)
    builds = _builds(build or [])
    previous = None if resume is None else RunDirectory.open(results, resume)
    if previous is None:
        plan = with_ceilings(chosen_protocol(scenario, protocol, blocks, tuple(builds)), max_minutes, max_usd)
        plan = with_enough_blocks(plan, asked=blocks is not None)
    else:
        plan = previous.manifest().protocol
        _refuse_unknown_builds(builds, plan, previous.folder.name)
    if plan.scenario != scenario:
        raise other_scenario(resume, plan.scenario, scenario)
    go_on = ["--latency", latency] if latency is not None else []
    go_on += ["--cpu-scale", f"{cpu_scale:g}"] if cpu_scale is not None else []
    go_on += [word for pair in build or [] for word in ("--build", pair)]
    folders = {name: folder for name, folder in builds.items() if folder is not None}
    with target_of(
        target, stack_name, plan, builds=folders, temporary=temporary, latency=latency, cpu_scale=cpu_scale,
        resuming=previous is not None,
    ) as place:  # fmt: skip
        measure(
            place,
            plan,
            previous,
            results,
            seed=seed,
            yes=yes,
            command=["run", plan.scenario],
            options=[*(["--up"] if temporary else []), *go_on],
            without_cpu_limit=without_cpu_limit,
        )


@app.command(epilog="Example:  lambdalab report latest --per-month 50 --free-tier")
def report(
    context: typer.Context,
    run_id: Annotated[
        str, typer.Argument(autocompletion=completion.runs, help="A run's id, its folder, or latest.")
    ] = "latest",
    results: Results = RESULTS,
    per_month: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="Also a month at this rate of messages, or calls, a second."),
    ] = None,
    free_tier: Annotated[bool, typer.Option("--free-tier", help="With --per-month: take the free tier off.")] = False,
    formula: Annotated[
        Formula, typer.Option(help="seed: the original study's figures beside the true ones.")
    ] = Formula.TRUE,
) -> None:
    """Print a run's comparison and its cost again and write report.html, from its files alone."""
    from lambdalab.analysis.bill import Terms
    from lambdalab.cli.calls import refuse_options, report_calls, run_of_calls
    from lambdalab.records.trial_files import RunDirectory

    of_calls = run_of_calls(results, run_id)
    if of_calls is not None:
        refuse_options(typed(context), ("formula",), of_calls.manifest().protocol.scenario)
    if free_tier and per_month is None:
        raise UsageError("--free-tier is an allowance of a month", next_step="add --per-month RATE, or leave it out")
    terms = Terms(free_tier=free_tier, per_month=_rate(per_month), seed_formula=formula is Formula.SEED)
    if of_calls is None:
        show_result(RunDirectory.open(results, run_id), terms)
    else:
        report_calls(of_calls, terms)


def _rate(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        rate = Decimal(text)
    except InvalidOperation:
        rate = Decimal("NaN")
    if not rate.is_finite() or not 0 < rate <= _MOST_PER_S:
        raise UsageError(f"--per-month is {text!r}", next_step="write a number per second, above 0 and up to 1000000")
    return rate


def _builds(given: Sequence[str]) -> dict[str, Path | None]:
    """The folder of each build; None is the deployed code."""
    found: dict[str, Path | None] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if name in found:
            raise UsageError(f"--build names {name!r} twice", next_step="give each build a name of its own")
        if equals and not Path(folder).is_dir():
            raise UsageError(
                f"--build {text}: there is no folder {folder!r}",
                next_step="make one with `sam build --config-env local --build-dir FOLDER`",
            )
        found[name] = Path(folder).absolute() if equals else None
    return found


def _refuse_unknown_builds(builds: dict[str, Path | None], protocol: "Protocol", run_id: str) -> None:
    unknown = [name for name in builds if name not in protocol.factors.build]
    if unknown:
        raise UsageError(
            f"run {run_id} has no build {unknown[0]!r}",
            next_step=f"its builds are: {', '.join(protocol.factors.build) or 'none'}",
        )
