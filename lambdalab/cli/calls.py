"""What ``run``, ``plan`` and ``report`` do for a scenario whose functions are called (``call_experiment``)."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lambdalab.cli.cpu_limit import caution
from lambdalab.cli.local_stack import held_local_stack, local_stack
from lambdalab.cli.results import say_where, shown_also_after_a_failure
from lambdalab.cli.running import TargetName, require_scenario, with_ceilings
from lambdalab.cli.spending import confirm
from lambdalab.errors import InvalidRunError, UsageError
from lambdalab.project import results_folder
from lambdalab.report.console import make_console, run_progress

if TYPE_CHECKING:
    from lambdalab.analysis.bill import Terms
    from lambdalab.analysis.call_summary import FactorialSummary
    from lambdalab.design.cells import FactorialProtocol
    from lambdalab.planning.call_plan import FactorialPlan
    from lambdalab.planning.call_protocol import PlannedCell
    from lambdalab.records.call_files import FactorialDirectory
    from lambdalab.run.target import AwsTarget


def is_of_calls(scenario: str) -> bool:
    """Whether a scenario's functions are called, not sent messages."""
    from lambdalab.scenario.found import call_scenarios

    return scenario in call_scenarios()


def run_of_calls(results: Path, run_id: str) -> "FactorialDirectory | None":
    """A run, when it is of calls."""
    from lambdalab.records.call_files import FactorialDirectory
    from lambdalab.records.manifest import CALLS
    from lambdalab.records.run_directory import find_run, kind_of

    folder = find_run(results, run_id)
    return FactorialDirectory(folder) if kind_of(folder) == CALLS else None


def scenario_of_run(results: Path, run_id: str) -> str:
    """The scenario that a run of any kind names in its manifest.

    Raises:
        UsageError: there is no such run.
        StorageError: its manifest is damaged.
    """
    from lambdalab.records.trial_files import RunDirectory

    of_calls = run_of_calls(results, run_id)
    manifest = RunDirectory.open(results, run_id).manifest() if of_calls is None else of_calls.manifest()
    return manifest.protocol.scenario


def refuse_options(given: set[str], options: tuple[str, ...], scenario: str) -> None:
    """Refuses options that mean nothing for such a scenario."""
    for name in options:
        if name in given:
            raise UsageError(
                f"--{name.replace('_', '-')} means nothing for scenario {scenario}, whose functions are called",
                next_step="leave it out",
            )


def chosen_calls(scenario: str, name: str | None, blocks: int | None) -> "FactorialProtocol":
    """The protocol that options name; the scenario's own by default.

    Raises:
        UsageError: there is no such protocol, or it is of another scenario.
        ProtocolError: so many blocks are more calls than a run may have.
    """
    from msgspec.structs import replace

    from lambdalab.planning.call_protocol import check_protocol, load_protocol
    from lambdalab.scenario.found import call_scenario

    file = name or call_scenario(scenario).default_protocol or scenario
    require_scenario(file, scenario)
    protocol = load_protocol(file, scenario)
    if blocks is not None:
        protocol = replace(protocol, blocks=blocks)
        check_protocol(protocol, f"protocol {protocol.name} with --blocks")
    return protocol


def run_calls(
    scenario_name: str,
    *,
    protocol: str | None,
    blocks: int | None,
    seed: int | None,
    target: TargetName,
    stack_name: str | None,
    function_prefix: str | None,
    resume: str | None,
    results: Path,
    temporary: bool,
    latency: str | None,
    cpu_scale: float | None,
    max_minutes: float | None,
    max_usd: float | None,
    without_cpu_limit: bool,
    yes: bool,
) -> None:
    """Begins a run or goes on with one, executes it and shows the result. Of the arguments see ``run --help``."""
    from lambdalab.records.call_files import FactorialDirectory
    from lambdalab.run.call_experiment import cells_left, execute, new_run, plan_run, resume_run
    from lambdalab.run.discovery import discover
    from lambdalab.scenario.found import call_scenario

    _refuse_both(stack_name, function_prefix)
    scenario = call_scenario(scenario_name)
    previous = None if resume is None else FactorialDirectory.open(results, resume)
    if previous is None:
        plan = with_ceilings(chosen_calls(scenario_name, protocol, blocks), max_minutes, max_usd)
    else:
        plan = previous.manifest().protocol
        if plan.scenario != scenario_name:
            raise other_scenario(resume, plan.scenario, scenario_name)
    with _place(
        target, stack_name, scenario_name, function_prefix or plan.function_prefix,
        temporary=temporary, latency=latency, cpu_scale=cpu_scale,
    ) as place:  # fmt: skip
        if function_prefix is not None:
            plan = discover(place.aws, scenario, plan, function_prefix)
        if target is TargetName.AWS:
            left = None if previous is None else [cell for cell, _ in cells_left(previous)]
            planned = plan_run(place, plan, results, left=left)
            confirm(place, _asks(planned), planned, minutes=planned.minutes, yes=yes)
        store = previous or new_run(place, plan, results, seed=seed, without_cpu_limit=without_cpu_limit)
        go_on = ["lambdalab", "run", scenario_name, "--resume", store.folder.name, "--target", target.value]
        go_on += ["--stack-name", place.stack.name] if target is TargetName.AWS and not plan.function_prefix else []
        go_on += ["--results", str(results)] if results != results_folder() else []
        go_on += ["--up"] if temporary else []
        go_on += ["--latency", latency] if latency is not None else []
        go_on += ["--cpu-scale", f"{cpu_scale:g}"] if cpu_scale is not None else []
        with store.held():
            if previous is not None:
                resume_run(place, previous)
            caution(place)
            with (
                shown_also_after_a_failure(
                    store.folder,
                    go_on=shlex.join(go_on),
                    measured=lambda: bool(store.calls()),
                    show=lambda: show_calls(store),
                ),
                run_progress(plan, len(plan.cells)) as progress,
            ):

                def told(planned: "PlannedCell") -> None:
                    done = (planned.block - 1) * len(plan.cells) + planned.place - 1
                    progress.step(planned.block, done, planned.cell.name)

                orphans = execute(place, store, told, progress.standing)
            if orphans:
                typer.echo(_orphaned(orphans, removed=target is TargetName.LOCAL), err=True)
            report_calls(store)


def _orphaned(orphans: list[str], *, removed: bool) -> str:
    also = f" and {len(orphans) - 1} more" if len(orphans) > 1 else ""
    now = "removed now" if removed else "the bucket's rule removes what is a day old"
    why = "was left by a call that never answered, such as one that ran out of time"
    return f"caution: {orphans[0]}{also} {why}; {now}"


def _refuse_both(stack_name: str | None, function_prefix: str | None) -> None:
    if stack_name is not None and function_prefix is not None:
        raise UsageError(
            f"--stack-name names a stack, and --function-prefix {function_prefix} functions of any",
            next_step="leave one of them out",
        )


def other_scenario(run_id: str | None, found: str, scenario: str) -> UsageError:
    """That a run is of another scenario than was named."""
    return UsageError(
        f"run {run_id} is of scenario {found}, not {scenario}",
        next_step=f"run `lambdalab run {found} --resume {run_id}`",
    )


def report_calls(store: "FactorialDirectory", terms: "Terms | None" = None) -> None:
    """Writes the result of a run and shows it.

    Raises:
        InvalidRunError: it must not be used.
    """
    summary = show_calls(store, terms)
    if summary.faults:
        raise InvalidRunError(
            f"run {summary.run_id} is invalid: {'; '.join(summary.faults)}",
            next_step=f"read the reasons in {store.folder / 'metrics.csv'} and run it again",
        )


def show_calls(store: "FactorialDirectory", terms: "Terms | None" = None) -> "FactorialSummary":
    """Writes all result files of a run, of what it measured so far, and shows the summary."""
    from lambdalab.report.call_terminal import show
    from lambdalab.run.call_conclusion import conclude

    summary = conclude(store, terms=terms)
    show(summary, make_console())
    say_where(store.folder)
    return summary


def plan_calls(
    scenario_name: str,
    *,
    protocol: str | None,
    blocks: int | None,
    target: TargetName,
    stack_name: str | None,
    function_prefix: str | None,
    results: Path,
    as_json: bool,
) -> None:
    """Says how many calls, bytes, minutes and USD a run would take. Of the arguments see ``plan --help``."""
    import msgspec

    from lambdalab.local.stack import running_stack
    from lambdalab.run.call_experiment import plan_run, plan_without_stack
    from lambdalab.run.discovery import discover
    from lambdalab.run.local_target import local_target
    from lambdalab.run.target import account_target
    from lambdalab.scenario.found import call_scenario

    wanted = chosen_calls(scenario_name, protocol, blocks)
    if function_prefix is not None:
        _refuse_both(stack_name, function_prefix)
        scenario = call_scenario(scenario_name)
        is_local = target is TargetName.LOCAL
        place = local_target(local_stack(scenario_name)) if is_local else account_target(function_prefix)
        found = plan_run(place, discover(place.aws, scenario, wanted, function_prefix), results)
    elif target is TargetName.AWS:
        found = plan_run(_on_aws(stack_name, scenario_name), wanted, results)
    elif (stack := running_stack()) is not None:
        found = plan_run(local_target(stack), wanted, results)
    else:
        found = plan_without_stack(wanted, results)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        _show_plan(found)


def _show_plan(found: "FactorialPlan") -> None:
    from lambdalab.report.layout import new_table

    console = make_console()
    console.print(
        f"{found.scenario}, protocol {found.protocol}, target {found.target}, {found.blocks} blocks", style="bold"
    )
    monthly = " and ".join(f"{name} {usd:.2f}" for name, usd in found.monthly_usd.items())
    console.print(
        f"{_asks(found)}, about {found.minutes:,.1f} minutes\n"
        f"{found.usd:.4f} USD expected, {found.usd_at_most:.2f} at most; of these for the lab's own requests "
        f"{found.lab_usd:.4f}; prices of {found.price_sheet}\n"
        f"beside that {monthly} USD a month, however many calls\n"
    )
    components = list(dict.fromkeys(name for design in found.designs for name in design.usd_by_component))
    table = new_table("design", numbers=("cells", "calls", "warm-up", "GB", "minutes", *components, "USD"))
    for design in found.designs:
        table.add_row(
            design.label,
            f"{design.cells}" if design.fraction == 1 else f"{design.cells} of {design.cells * design.fraction}",
            f"{design.calls:,}",
            f"{design.warmup_calls:,}",
            f"{design.stored_bytes / 2**30:,.2f}",
            f"{design.minutes:,.1f}",
            *(f"{design.usd_by_component[name]:.4f}" for name in components),
            f"{design.usd:.4f}",
        )
    console.print(table)
    console.print()
    for line in (*found.limits, *found.assumptions, *(f"not checked: {what}" for what in found.unchecked)):
        console.print(f"- {line}", soft_wrap=True)


def _asks(plan: "FactorialPlan") -> str:
    return f"{plan.calls:,} calls and {plan.warmup_calls:,} that warm up, {plan.stored_bytes / 2**30:,.1f} GB written"


def _on_aws(stack_name: str | None, scenario: str) -> "AwsTarget":
    from lambdalab.build import samconfig
    from lambdalab.run.target import aws_target
    from lambdalab.scenario.found import folder_of

    folder = folder_of(scenario)
    return aws_target(stack_name or samconfig.stack_name(folder, samconfig.DEFAULT), folder=folder)


@contextmanager
def _place(
    name: TargetName,
    stack_name: str | None,
    scenario: str,
    function_prefix: str | None,
    *,
    temporary: bool = False,
    latency: str | None = None,
    cpu_scale: float | None = None,
) -> "Iterator[AwsTarget]":
    from lambdalab.run.local_target import local_target
    from lambdalab.run.target import account_target

    if name is TargetName.AWS:
        on_aws = _on_aws(stack_name, scenario) if function_prefix is None else account_target(function_prefix)
        with on_aws.held():
            yield on_aws
        return
    with held_local_stack(scenario, temporary=temporary, latency=latency, cpu_scale=cpu_scale) as (stack, lock):
        local = local_target(stack)
        local.lock = lock
        yield local
