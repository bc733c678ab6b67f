"""The end of a stack: what it owns, how that is deleted, and what stays behind.

Only CloudFormation deletes, and it deletes what the stack owns. The one thing done here is to empty the buckets among
it, without which S3 refuses to delete them.
"""

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from botocore.exceptions import ClientError

from lambdalab.aws import Aws, access_errors
from lambdalab.errors import AccessError, StackError
from lambdalab.stack import stack_description
from lambdalab.template import read_template

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import StackResourceSummaryTypeDef

TAG: Final = ("project", "lambdalab")
BUCKET: Final = "AWS::S3::Bucket"
LIMIT_S: Final = 3600.0
_POLL_S: Final = 1.0
_OBJECTS: Final = 1000
"""Of one DeleteObjects."""
_DELETED: Final = ("Delete", "Snapshot")
"""Deletion policies under which a resource goes; every other one, and one that is an expression, retains."""
_NOT_OWNED: Final = ("CREATE_IN_PROGRESS", "CREATE_FAILED", "IMPORT_IN_PROGRESS", "IMPORT_FAILED", "DELETE_SKIPPED")
"""States of a resource that may be somebody else's: the stack has not got it yet, never did, or let go of it."""
_SAM_STACK: Final = "aws-sam-cli-managed-default"

STILL_COSTS: Final = {
    "cloudwatch": "each alarm and dashboard by the month",
    "dynamodb": "storage of its items, by GB and month",
    "kms": "each key by the month",
    "logs": "storage of its events, by GB and month",
    "s3": "storage of its objects, all versions, by GB and month",
    "sqs": "requests only: nothing while nobody asks it",
    "lambda": "invocations only: nothing while nobody calls it",
    "iam": "nothing",
}
"""What of a service goes on to be billed, by its name in an ARN."""
_UNKNOWN: Final = "see its price page"
Progress = Callable[[str], None]


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """One resource of a stack. ``retained``: its template says that it stays when the stack goes."""

    logical_id: str
    physical_id: str
    type: str
    status: str
    retained: bool = False

    @property
    def goes(self) -> bool:
        """Whether it is deleted with the stack."""
        return not self.retained and bool(self.physical_id) and self.status not in (*_NOT_OWNED, "DELETE_COMPLETE")


class Doomed(msgspec.Struct, frozen=True, kw_only=True):
    """A stack, whatever its state, and what it owns."""

    name: str
    stack_id: str
    status: str
    resources: tuple[Owned, ...]
    protected: bool = False

    @property
    def buckets(self) -> tuple[str, ...]:
        """Those that have to be emptied, because they go."""
        return tuple(r.physical_id for r in self.resources if r.type == BUCKET and r.goes)


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is still there: its ARN or name, the stack it belongs to if any, and what it costs."""

    name: str
    stack_name: str | None
    costs: str


def find_doomed(aws: Aws, name: str) -> Doomed | None:
    """What a stack owns; None when there is no such stack.

    Raises:
        AccessError: it cannot be asked for.
    """
    with access_errors(f"stack {name}"):
        found = stack_description(aws, name)
        if found is None:
            return None
        rows = _resource_rows(aws, name)
        declared = _declared(aws, name)
    return Doomed(
        name=found["StackName"],
        stack_id=found["StackId"],
        status=found["StackStatus"],
        protected=found.get("EnableTerminationProtection", False),
        resources=tuple(
            Owned(
                logical_id=row["LogicalResourceId"],
                physical_id=row.get("PhysicalResourceId", ""),
                type=row["ResourceType"],
                status=row["ResourceStatus"],
                retained=declared.get(row["LogicalResourceId"], {}).get("DeletionPolicy", "Delete") not in _DELETED,
            )
            for row in rows
        ),
    )


def delete(aws: Aws, doomed: Doomed, progress: Progress, *, limit_s: float = LIMIT_S) -> None:
    """Empties the buckets that go, deletes the stack, and waits until it is gone.

    It may be called again, on a stack that is being deleted or could not be deleted wholly.

    Args:
        aws: where.
        doomed: as it was found, and shown to whoever agreed.
        progress: told each step.
        limit_s: so long it waits.

    Raises:
        StackError: the stack is protected, or not everything can be deleted; the resources are named with the reason.
        AccessError: AWS refuses a call.
    """
    if doomed.protected:
        raise StackError(
            f"stack {doomed.name} has termination protection",
            next_step="switch it off with `aws cloudformation update-termination-protection "
            f"--no-enable-termination-protection --stack-name {doomed.name}`",
        )
    for bucket in doomed.buckets:
        count = empty_bucket(aws, bucket)
        progress(f"emptied bucket {bucket} of {count} versions and delete markers")
    with access_errors(f"stack {doomed.name}"):
        if doomed.status != "DELETE_IN_PROGRESS":
            aws.cloudformation.delete_stack(StackName=doomed.stack_id)
    _wait(aws, doomed, progress, limit_s)


def empty_bucket(aws: Aws, bucket: str) -> int:
    """Deletes every object of a bucket, every version and every delete marker; returns how many these were.

    Raises:
        AccessError: S3 refuses, or one of them cannot be deleted, as under an object lock.
    """
    count = 0
    with access_errors(f"bucket {bucket}"):
        try:
            while True:  # always the first page: a marker for the next one names what is deleted by then
                page = aws.s3.list_object_versions(Bucket=bucket, MaxKeys=_OBJECTS)
                found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                if not found:
                    return count
                objects = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
                answer = aws.s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
                if failed := answer.get("Errors"):
                    raise AccessError(
                        f"{len(failed)} objects of bucket {bucket} cannot be deleted, the first of them "
                        f"{failed[0]['Key']}: {failed[0]['Code']}",
                        next_step="delete them by hand, and destroy the stack again",
                    )
                count += len(objects)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "NoSuchBucket":  # deleted by hand: so much the better
                raise
    return count


def leftovers(aws: Aws, doomed: Doomed) -> list[Leftover]:
    """What is still there and carries the project's tag, or was the stack's and stayed; other stacks' things as well.

    AWS's list of tagged resources may name deleted ones for a while; those that went with the stack are left out. A
    log group that Lambda made anew, because a function ran at the very end, has no tag and is found by its name.

    Raises:
        AccessError: AWS refuses a call.
    """
    found: dict[str, Leftover] = {}
    gone = {resource.physical_id.rsplit("/", 1)[-1] for resource in doomed.resources if resource.goes}
    key, value = TAG
    with access_errors("tagged resources"):
        pages = aws.tagging.get_paginator("get_resources").paginate(TagFilters=[{"Key": key, "Values": [value]}])
        for row in (row for page in pages for row in page["ResourceTagMappingList"]):
            arn = row["ResourceARN"]
            if re.split("[:/]", arn)[-1] in gone:
                continue
            tags = {tag["Key"]: tag["Value"] for tag in row["Tags"]}
            found[arn] = Leftover(name=arn, stack_name=tags.get("aws:cloudformation:stack-name"), costs=_costs(arn))
    with access_errors("log groups"):
        pages = aws.logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=f"/aws/lambda/{doomed.name}-")
        for group in (group for page in pages for group in page["logGroups"]):
            arn = group["arn"].removesuffix(":*")
            found.setdefault(arn, Leftover(name=arn, stack_name=None, costs=STILL_COSTS["logs"]))
    for owned in doomed.resources:
        if owned.retained and owned.physical_id and not any(name.endswith(owned.physical_id) for name in found):
            service = owned.type.split("::")[1].lower()
            name = f"{owned.type} {owned.physical_id}"
            found[name] = Leftover(name=name, stack_name=None, costs=STILL_COSTS.get(service, _UNKNOWN))
    if (sam := stack_description(aws, _SAM_STACK)) is not None:
        for output in sam.get("Outputs", []):
            if output["OutputKey"] == "SourceBucket":
                name = f"arn:aws:s3:::{output['OutputValue']}"
                found[name] = Leftover(name=name, stack_name=_SAM_STACK, costs=f"{STILL_COSTS['s3']}; sam's uploads")
    return list(found.values())


def _costs(arn: str) -> str:
    return STILL_COSTS.get(arn.split(":")[2], _UNKNOWN)


def _declared(aws: Aws, name: str) -> dict[str, Any]:
    """The resources of a stack's template, after transforms."""
    body: Any = aws.cloudformation.get_template(StackName=name, TemplateStage="Processed")["TemplateBody"]
    template = read_template(body) if isinstance(body, str) else body
    resources: dict[str, Any] = template.get("Resources", {})
    return resources


def _wait(aws: Aws, doomed: Doomed, progress: Progress, limit_s: float) -> None:
    """Waits for the end, and tells of every resource that went."""
    deadline = time.monotonic() + limit_s
    waiting = {resource.logical_id for resource in doomed.resources if resource.goes}
    while True:
        with access_errors(f"stack {doomed.name}"):
            found = stack_description(aws, doomed.stack_id)
            status = "DELETE_COMPLETE" if found is None else found["StackStatus"]
            rows = _resource_rows(aws, doomed.stack_id) if status != "DELETE_COMPLETE" else []
        left = {row["LogicalResourceId"] for row in rows if row["ResourceStatus"] != "DELETE_COMPLETE"}
        for gone in sorted(waiting - left):
            progress(f"deleted {gone}")
        waiting &= left
        if status == "DELETE_COMPLETE":
            return
        if status == "DELETE_FAILED":
            reasons = [
                f"{row['LogicalResourceId']} ({row.get('ResourceStatusReason', 'no reason given')})"
                for row in rows
                if row["ResourceStatus"] == "DELETE_FAILED"
            ]
            raise StackError(
                f"stack {doomed.name} could not be deleted wholly: {', '.join(reasons) or 'CloudFormation names none'}",
                next_step="repair that and destroy it again, which takes up what is left",
            )
        if time.monotonic() > deadline:
            raise StackError(
                f"stack {doomed.name} is still in state {status} after {limit_s / 60:.0f} minutes",
                next_step="destroy it again to go on waiting",
            )
        time.sleep(_POLL_S)


def _resource_rows(aws: Aws, stack: str) -> "list[StackResourceSummaryTypeDef]":
    pages = aws.cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
    return [row for page in pages for row in page["StackResourceSummaries"]]
