"""The command destroy: what a stack owns, and its end."""

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lambdalab.cli import EXIT_INTERRUPTED
from lambdalab.cli.app import app, complain
from lambdalab.cli.local_stack import local_stack
from lambdalab.cli.running import TargetName, refuse_contradictions
from lambdalab.errors import AccessError, StackError, UsageError
from lambdalab.report.console import make_console

if TYPE_CHECKING:
    from lambdalab.aws.clients import Aws
    from lambdalab.aws.deletion import Doomed


@app.command(
    epilog="Example:  lambdalab destroy --stack-name lambdalab-load\n\nExample:  lambdalab destroy --yes lambdalab"
)
def destroy(
    context: typer.Context,
    target: Annotated[TargetName, typer.Option(help="Where the stack is; local is for trying this out.")] = (
        TargetName.AWS
    ),
    stack_name: Annotated[
        str | None, typer.Option(help="The deployed stack, for --target aws; by default that of the current scenario.")
    ] = None,
    yes: Annotated[
        str | None, typer.Option("--yes", metavar="NAME", help="Do it without asking; NAME is the stack's name.")
    ] = None,
) -> None:
    """Delete a stack: shows what it owns and asks for its name first; without a terminal it only shows.

    Buckets the stack owns are emptied. What it does not own is never touched. What is left over is listed.
    A stack that was not deployed from this project's template is refused.
    """
    from lambdalab.aws.clients import Aws
    from lambdalab.build import samconfig
    from lambdalab.lock import hold_stack
    from lambdalab.project import scenario_folder

    refuse_contradictions(context, target)
    with contextlib.ExitStack() as held:
        if target is TargetName.LOCAL:
            held.enter_context(hold_stack())  # a run that measures would lose its queues
            local = local_stack()
            local.require_alive()
            aws, stack_name = local.aws(), local.stack_name
        else:
            stack_name = stack_name or samconfig.stack_name(scenario_folder(), samconfig.DEFAULT)
            aws = Aws(region=samconfig.region_of(stack_name))
        _destroy(aws, stack_name, target, yes)


def _destroy(aws: "Aws", stack_name: str, target: TargetName, yes: str | None) -> None:
    from lambdalab.aws.deletion import Doomed, delete, find_doomed

    doomed = find_doomed(aws, stack_name)
    if doomed is None:
        _show_leftovers(aws, Doomed(name=stack_name, stack_id="", status="", resources=()))
        raise StackError(
            f"there is no stack named {stack_name} in {aws.session.region_name}",
            next_step="name yours with --stack-name, or choose its region with AWS_REGION",
        )
    _show(aws, doomed)
    if not _agreed(doomed, yes):
        typer.echo(f"nothing was deleted; to do it, add --yes {doomed.name}", err=True)
        return
    try:
        delete(aws, doomed, lambda step: typer.echo(step, err=True))
    except KeyboardInterrupt as problem:
        again = " --target local" if target is TargetName.LOCAL else f" --stack-name {doomed.name}"
        problem.add_note(f"what was begun goes on; wait for it, or do the rest, with `lambdalab destroy{again}`.")
        complain("interrupted", problem)
        raise
    typer.echo(f"stack {doomed.name} is deleted")
    _show_leftovers(aws, doomed)


def _agreed(doomed: "Doomed", yes: str | None) -> bool:
    """Whether the stack shall be deleted."""
    name = doomed.name
    if yes is None and not sys.stdin.isatty():
        return False
    if yes is None:
        try:
            yes = typer.prompt(f"Type {name} to delete it from account {doomed.account}", err=True)
        except typer.Abort:  # Ctrl-C at the question
            raise typer.Exit(EXIT_INTERRUPTED) from None
    if yes != name:
        raise UsageError(
            f"{yes!r} is not the name of the stack, {name}", next_step="nothing was deleted; write it as it is"
        )
    return True


def _show(aws: "Aws", doomed: "Doomed") -> None:
    from rich.console import Group
    from rich.text import Text

    from lambdalab.aws.deletion import BUCKET
    from lambdalab.report.layout import new_table, print_whole

    table = new_table("resource", "type", "physical id", "what happens", numbers=())
    for owned in sorted(doomed.resources, key=lambda owned: (owned.goes, owned.type, owned.logical_id)):
        happens = "deleted, if need be emptied" if owned.type == BUCKET else "deleted"
        if not owned.goes:
            happens = "stays: the template retains or lacks it" if owned.retained else f"nothing: {owned.status}"
        table.add_row(owned.logical_id, owned.type, owned.physical_id, happens)
    heading = (
        f"stack {doomed.name} in {aws.session.region_name} of account {doomed.account}, {doomed.status}, "
        f"owns {len(doomed.resources)} resources"
    )
    print_whole(make_console(), Group(Text(heading, style="bold"), table))


def _show_leftovers(aws: "Aws", doomed: "Doomed") -> None:
    from rich.console import Group
    from rich.text import Text

    from lambdalab.aws.deletion import TAG, leftovers
    from lambdalab.report.layout import new_table, print_whole

    try:
        found = leftovers(aws, doomed)
    except AccessError as error:  # which says nothing of the deletion
        complain(f"what is left over is not known: {error}", error)
        return
    tag = "=".join(TAG)
    if not found:
        typer.echo(f"nothing is left over in {aws.session.region_name}: no other resource has the tag {tag}")
        return
    table = new_table("still there", "of stack", "what it costs", numbers=())
    for one in found:
        table.add_row(one.name, one.stack_name or "none", one.costs)
    heading = f"left over in {aws.session.region_name}, by tag {tag} and name; AWS may list what is deleted for a while"
    print_whole(make_console(), Group(Text(heading, style="bold"), table))
