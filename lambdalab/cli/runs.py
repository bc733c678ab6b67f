"""The commands of a run: run, report.

Modules that take long to import are imported by the command that needs them.
"""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import ROUND_UP, Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lambdalab.cli import EXIT_INTERRUPTED
from lambdalab.cli.app import app, complain
from lambdalab.cli.local_stack import local_stack
from lambdalab.console import make_console, say, trial_progress
from lambdalab.errors import InvalidRunError, LambdalabError, UsageError

if TYPE_CHECKING:
    from lambdalab.analysis import Summary
    from lambdalab.bill import Terms
    from lambdalab.model import Protocol
    from lambdalab.plan import Plan
    from lambdalab.store import RunDirectory
    from lambdalab.target import AwsTarget

RESULTS: Final = Path("results")
MAX_SEED: Final = 2**32 - 1
"""Of what is drawn when none is given."""
_MOST_PER_S: Final = 1_000_000
Results = Annotated[Path, typer.Option(help="Folder of run directories.")]


class TargetName(StrEnum):
    """Where a run happens."""

    LOCAL = "local"
    AWS = "aws"


class Formula(StrEnum):
    """By which formula a cost is computed."""

    TRUE = "true"
    SEED = "seed"


@app.command(epilog="Example:  lambdalab run ingest --blocks 20 --seed 7\n\nExample:  lambdalab run --resume latest")
def run(
    context: typer.Context,
    scenario: Annotated[str, typer.Argument(help="What to measure.")] = "ingest",
    protocol: Annotated[str, typer.Option(help="A protocol of protocols/, or the path of one.")] = "strict",
    target: Annotated[TargetName, typer.Option(help="Where the functions run.")] = TargetName.LOCAL,
    stack_name: Annotated[str, typer.Option(help="The deployed stack, for --target aws.")] = "lambdalab",
    blocks: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="How often every arm runs; the protocol's own by default.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Seed of the order of arms; drawn and recorded by default.")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with an interrupted run: its id, or latest.")] = None,
    results: Results = RESULTS,
    temporary: Annotated[
        bool, typer.Option("--up", help="Bring a local stack up for this run when none is up, and end it afterwards.")
    ] = False,
    latency: Annotated[
        str | None,
        typer.Option(help="With --up: a latency model of latencies/, or its path; services answer as late as it says."),
    ] = None,
    cpu_scale: Annotated[
        float | None,
        typer.Option(min=0.05, max=20, help="With --up: multiply every CPU share; models a slower or faster core."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="On AWS: spend without asking.")] = False,
) -> None:
    """Run a protocol: send, drain, verify, collect, and print the comparison."""
    from lambdalab.experiment import new_run, plan_run, resume_run, trials_left
    from lambdalab.store import RunDirectory

    _refuse_contradictions(context, target)
    previous = None if resume is None else RunDirectory.open(results, resume)
    plan = chosen_protocol(scenario, protocol, blocks) if previous is None else previous.manifest().protocol
    if plan.scenario != scenario:
        raise UsageError(
            f"run {resume} is of scenario {plan.scenario}, not {scenario}",
            next_step=f"run `lambdalab run {plan.scenario} --resume {resume}`",
        )
    with _target(target, stack_name, temporary=temporary, latency=latency, cpu_scale=cpu_scale) as place:
        if target is TargetName.AWS:
            left = None if previous is None else trials_left(previous)
            _confirm(place, plan_run(place, plan, results, left=left), yes=yes)
        store = previous or new_run(place, plan, results, seed=seed)
        if previous is not None:
            resume_run(place, previous)
        go_on = ["lambdalab", "run", plan.scenario, "--resume", store.folder.name, "--target", target.value]
        go_on += ["--stack-name", stack_name] if target is TargetName.AWS else []
        go_on += ["--results", str(results)] if results != RESULTS else []
        go_on += ["--up"] if temporary else []
        go_on += ["--latency", latency] if latency is not None else []
        go_on += ["--cpu-scale", f"{cpu_scale:g}"] if cpu_scale is not None else []
        _execute_and_show(place, store, go_on=shlex.join(go_on))


@app.command(epilog="Example:  lambdalab report latest --per-month 50 --free-tier")
def report(
    run_id: Annotated[str, typer.Argument(help="A run's id, its folder, or latest.")] = "latest",
    results: Results = RESULTS,
    per_month: Annotated[
        str | None, typer.Option(metavar="RATE", help="Also the cost of a month at so many messages per second.")
    ] = None,
    free_tier: Annotated[bool, typer.Option("--free-tier", help="With --per-month: take the free tier off.")] = False,
    formula: Annotated[
        Formula, typer.Option(help="seed: the original study's figures beside the true ones.")
    ] = Formula.TRUE,
) -> None:
    """Print a run's comparison and its cost again and write report.html, from its files alone."""
    from lambdalab.bill import Terms
    from lambdalab.store import RunDirectory

    if free_tier and per_month is None:
        raise UsageError("--free-tier is an allowance of a month", next_step="add --per-month RATE, or leave it out")
    terms = Terms(free_tier=free_tier, per_month=_rate(per_month), seed_formula=formula is Formula.SEED)
    store = RunDirectory.open(results, run_id)
    _require_valid(_conclude(store, terms), store)


def _rate(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        rate = Decimal(text)
    except InvalidOperation:
        rate = Decimal("NaN")
    if not rate.is_finite() or not 0 < rate <= _MOST_PER_S:
        raise UsageError(f"--per-month is {text!r}", next_step="write messages per second, above 0 and up to 1000000")
    return rate


def _refuse_contradictions(context: typer.Context, target: TargetName) -> None:
    """Refuses options that would be silently without effect."""
    given = {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    }
    if "resume" in given:
        for name in ("protocol", "blocks", "seed"):
            if name in given:
                raise UsageError(
                    f"--{name} cannot be changed when a run goes on with --resume",
                    next_step=f"leave --{name} out, or start a new run",
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


def chosen_protocol(scenario: str, name: str, blocks: int | None) -> "Protocol":
    """The protocol that options name.

    Raises:
        UsageError: there is no such scenario, protocol, or they do not go together.
    """
    from msgspec.structs import replace

    from lambdalab.protocol import LANGUAGES_OF_SCENARIO, load_protocol

    if scenario not in LANGUAGES_OF_SCENARIO:
        raise UsageError(
            f"there is no scenario {scenario!r}", next_step=f"name one of: {', '.join(sorted(LANGUAGES_OF_SCENARIO))}"
        )
    plan = load_protocol(name)
    if plan.scenario != scenario:
        raise UsageError(
            f"protocol {plan.name} is for scenario {plan.scenario}, not {scenario}",
            next_step=f"run `lambdalab run {plan.scenario} --protocol {name}`",
        )
    return plan if blocks is None else replace(plan, blocks=blocks)


@contextmanager
def _target(
    name: TargetName, stack_name: str, *, temporary: bool, latency: str | None, cpu_scale: float | None
) -> "Iterator[AwsTarget]":
    from lambdalab.local.stack import stack_for_a_while
    from lambdalab.target import aws_target, local_target

    if name is TargetName.AWS:
        yield aws_target(stack_name)
    elif temporary:
        with stack_for_a_while(say, latency=latency, cpu_scale=cpu_scale) as stack:
            yield local_target(stack)
    else:
        yield local_target(local_stack())


def _confirm(target: "AwsTarget", plan: "Plan", *, yes: bool) -> None:
    """Says what trials on AWS can take and cost at most, and asks."""
    cents = Decimal("0.01")
    typer.echo(
        f"{plan.messages_most} messages and {plan.items_most:,} items to stack {target.stack.name} in {target.region}, "
        f"in about {plan.minutes_most:,.0f} minutes; about {plan.usd.quantize(cents, ROUND_UP)} USD, at most "
        f"{plan.usd_at_most.quantize(cents, ROUND_UP)} USD, if every invocation ran into its timeout",
        err=True,
    )
    for line in (*plan.assumptions, *plan.limits, *(f"not checked: {what}" for what in plan.unchecked)):
        typer.echo(f"  {line}", err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("a run on AWS costs money and nobody can be asked here", next_step="add --yes")
    try:
        agreed = typer.confirm("Go on?", err=True)
    except typer.Abort:  # Ctrl-C at the question
        agreed = False
    if not agreed:
        raise typer.Exit(EXIT_INTERRUPTED)


def _execute_and_show(target: "AwsTarget", store: "RunDirectory", *, go_on: str) -> None:
    """Runs; then, however that ended, shows what was measured before what went wrong is said.

    Args:
        target: where.
        store: the run.
        go_on: the command with which an interrupted run goes on.
    """
    from lambdalab.experiment import execute

    try:
        with trial_progress(store.manifest().protocol) as progress:
            execute(target, store, progress.trial, progress.standing)
    except (Exception, KeyboardInterrupt) as problem:
        try:
            _conclude(store)
        except LambdalabError as second:
            problem.add_note(str(second))
        kept = f"what was measured is in {store.folder}" if store.trials() else "nothing was measured"
        problem.add_note(f"{kept}; go on with `{go_on}`.")
        if isinstance(problem, KeyboardInterrupt):
            complain("interrupted", problem)  # and typer ends with EXIT_INTERRUPTED
        raise
    _require_valid(_conclude(store), store)


def _conclude(store: "RunDirectory", terms: "Terms | None" = None) -> "Summary":
    """Writes rows, summary and page, and shows the summary and the bill."""
    from lambdalab.experiment import conclude
    from lambdalab.report.cost import render_bill
    from lambdalab.report.layout import print_whole
    from lambdalab.report.terminal import show

    summary = conclude(store, terms)
    console = make_console()
    show(summary, console)
    if summary.bill is not None:
        print_whole(console, render_bill(summary.bill))
    folder = os.path.relpath(store.folder)
    typer.echo(f"page: {folder}/report.html")
    typer.echo(f"files: {folder}")
    return summary


def _require_valid(summary: "Summary", store: "RunDirectory") -> None:
    if summary.faults:
        raise InvalidRunError(
            f"run {summary.run_id} is invalid: {'; '.join(summary.faults)}",
            next_step=f"read the reasons in {store.folder / 'metrics.csv'} and run it again",
        )
