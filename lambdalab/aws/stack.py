"""A deployed stack: what its outputs, parameters and resources say."""

from typing import TYPE_CHECKING

import msgspec
from botocore.exceptions import ClientError

from lambdalab.aws.clients import Aws, access_errors
from lambdalab.errors import StackError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import StackTypeDef


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """A stack as CloudFormation describes it. ``resources`` maps logical to physical ids, ``types`` to their types.

    ``next_step`` is what the user can do when it is not the one that is needed. ``stack_id`` is its ARN, which also
    names account and region; empty when functions were found by a prefix.
    """

    name: str
    outputs: dict[str, str]
    parameters: dict[str, str]
    resources: dict[str, str]
    types: dict[str, str]
    next_step: str = "deploy one of this project's templates"
    stack_id: str = ""

    def output(self, key: str) -> str:
        """One output.

        Raises:
            StackError: the stack has no such output, so it is of another scenario, or not one of this project's.
        """
        if key in self.outputs:
            return self.outputs[key]
        scenario = self.outputs.get("Scenario")
        what = "not deployed by lambdalab" if scenario is None else f"of scenario {scenario}, not of the one asked for"
        raise StackError(f"stack {self.name} is {what}: it has no output {key}", next_step=self.next_step)

    def functions(self) -> dict[str, str]:
        """Logical to physical names of the stack's Lambda functions."""
        return {
            logical: self.resources[logical] for logical, kind in self.types.items() if kind == "AWS::Lambda::Function"
        }


def stack_description(aws: Aws, name: str) -> "StackTypeDef | None":
    """What CloudFormation says of a stack, by name or id and in whatever state; None when there is none.

    Raises:
        botocore.exceptions.BotoCoreError, ClientError: it cannot be asked for (``access_errors``).
    """
    try:
        return aws.cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "ValidationError":
            return None
        raise


def find_stack(aws: Aws, name: str, *, next_step: str) -> Stack:
    """Describes a deployed stack.

    Args:
        aws: where to look.
        name: the stack's name.
        next_step: what the user can do when it is not there, or not the one that is needed.

    Raises:
        StackError: there is no such stack, or it is not completely deployed.
        AccessError: it cannot be asked for.
    """
    with access_errors(f"stack {name}"):
        found = stack_description(aws, name)
        if found is None:
            raise StackError(f"there is no stack named {name}", next_step=next_step)
        status = found["StackStatus"]
        if not status.endswith("_COMPLETE") or status.startswith(("DELETE", "ROLLBACK")):
            raise StackError(f"stack {name} is in state {status}", next_step=next_step)
        pages = aws.cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
        resources = [row for page in pages for row in page["StackResourceSummaries"]]
    return Stack(
        name=name,
        outputs={o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", [])},
        parameters={p["ParameterKey"]: p["ParameterValue"] for p in found.get("Parameters", [])},
        resources={r["LogicalResourceId"]: r.get("PhysicalResourceId", "") for r in resources},
        types={r["LogicalResourceId"]: r["ResourceType"] for r in resources},
        next_step=next_step,
        stack_id=found.get("StackId", ""),
    )
