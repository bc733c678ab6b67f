"""Where a command that measures nothing finds its stack: the local one that is up, or one on AWS."""

from typing import TYPE_CHECKING

import typer

from lambdalab.cli.local_stack import local_stack
from lambdalab.cli.running import TargetName, refuse_contradictions

if TYPE_CHECKING:
    from lambdalab.run.target import AwsTarget


def place_of(context: typer.Context, target: TargetName, stack_name: str) -> "AwsTarget":
    """The target that options name.

    Raises:
        UsageError: the options contradict each other.
        PlaneError, StackError, AccessError: the stack is not there, or cannot be asked for.
    """
    from lambdalab.run.local_target import local_target
    from lambdalab.run.target import aws_target

    refuse_contradictions(context, target)
    if target is TargetName.AWS:
        return aws_target(stack_name)
    local = local_stack()
    local.require_alive()
    return local_target(local)
