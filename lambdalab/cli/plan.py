"""The command plan: what a run would ask for, before anything is spent."""

from typing import TYPE_CHECKING, Annotated

import typer

from lambdalab.cli.app import app
from lambdalab.cli.local_stack import Scenario
from lambdalab.cli.running import (
    RESULTS,
    Blocks,
    FunctionPrefix,
    ProtocolName,
    Results,
    StackName,
    TargetName,
    chosen_protocol,
    refuse_contradictions,
    refuse_prefix,
    typed,
)
from lambdalab.errors import UsageError
from lambdalab.report.console import make_console

if TYPE_CHECKING:
    from rich.console import Console

    from lambdalab.planning.plan import Plan


@app.command(
    epilog="Example:  lambdalab plan ingest --protocol precise\n\nExample:  lambdalab plan --target aws --json"
)
def plan(
    context: typer.Context,
    scenario: Scenario = None,
    protocol: ProtocolName = "strict",
    target: Annotated[TargetName, typer.Option(help="Where it would run.")] = TargetName.LOCAL,
    stack_name: StackName = "lambdalab",
    function_prefix: FunctionPrefix = None,
    blocks: Blocks = None,
    effect: Annotated[
        float, typer.Option(max=10, help="The change that should be found, as a share: 0.05 is 5 %.")
    ] = 0.05,
    results: Results = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say how many messages, minutes and USD a run would take, and on what that rests; nothing is sent."""
    import msgspec

    from lambdalab.cli.calls import is_of_calls, plan_calls, refuse_options
    from lambdalab.local.stack import running_stack
    from lambdalab.run.experiment import plan_local_run, plan_run
    from lambdalab.run.local_target import local_target
    from lambdalab.run.target import aws_target
    from lambdalab.scenario.found import current_scenario

    refuse_contradictions(context, target)
    if scenario == "sweep":
        raise UsageError(
            "plan knows scenarios, and sweep is a command",
            next_step="write the settings as factors of a protocol, as protocols/modes.toml does, "
            "and run `lambdalab plan --protocol FILE`",
        )
    scenario = current_scenario() if scenario is None else scenario
    if is_of_calls(scenario):
        given = typed(context)
        refuse_options(given, ("effect",), scenario)
        plan_calls(
            scenario, protocol=protocol if "protocol" in given else None, blocks=blocks, target=target,
            stack_name=stack_name if "stack_name" in given else None, function_prefix=function_prefix,
            results=results, as_json=as_json,
        )  # fmt: skip
        return
    refuse_prefix(function_prefix, scenario)
    wanted = chosen_protocol(scenario, protocol, blocks)
    if target is TargetName.AWS:
        found = plan_run(aws_target(stack_name), wanted, results, effect=effect)
    elif (stack := running_stack()) is not None:
        found = plan_run(local_target(stack), wanted, results, effect=effect)
    else:
        found = plan_local_run(wanted, results, effect=effect)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        _show(found, make_console())


def _show(found: "Plan", console: "Console") -> None:
    from lambdalab.report.layout import new_table

    blocks = _range(found.blocks_least, found.blocks_most)
    console.print(f"{found.scenario}, protocol {found.protocol}, target {found.target}, {blocks} blocks", style="bold")
    minutes = _range(round(found.minutes_least, 1), round(found.minutes_most, 1))
    console.print(
        f"{_range(found.messages_least, found.messages_most)} messages, "
        f"{_range(found.items_least, found.items_most)} items, about {minutes} minutes\n"
        f"{found.usd:.4f} USD expected, {found.usd_at_most:.4f} at most; of these for the lab's own requests "
        f"{found.lab_usd:.4f} and {found.lab_usd_at_most:.4f}; prices of {found.price_sheet}\n"
    )
    table = new_table(
        "arm, in one block", numbers=("MB", "messages", "items", "seconds", "USD", "USD at most", "spread")
    )
    for arm in found.arms:
        numbers = (f"{arm.memory_mb}", f"{arm.messages}", f"{arm.items:,}", f"{arm.seconds:.1f}")
        table.add_row(arm.arm, *numbers, f"{arm.usd:.6f}", f"{arm.usd_at_most:.6f}", f"{arm.cv:.0%}")
    console.print(table)
    console.print()
    if found.fewest_blocks is not None:
        few = "" if found.blocks_most >= found.fewest_blocks else "; too few are planned"
        console.print(
            f"{found.fewest_blocks} blocks at least to find any difference in {found.comparisons} comparisons{few}"
        )
    for need in found.needed:
        console.print(
            f"{need.blocks:,} blocks to find a change of {need.effect:.1%} under {need.label} (spread {need.cv:.0%})"
        )
    console.print()
    for line in (*found.limits, *found.assumptions, *(f"not checked: {what}" for what in found.unchecked)):
        console.print(f"- {line}", soft_wrap=True)


def _range(least: float, most: float) -> str:
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"
