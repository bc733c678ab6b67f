"""The end of a stack: what it owns, how that is deleted, and what stays behind.

Only CloudFormation deletes, and it deletes what the stack owns. The one thing done here is to empty the buckets among
it that it could not delete, since they were not empty: so nothing is lost before CloudFormation has agreed to the rest.
"""

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from botocore.exceptions import ClientError

from lambdalab.aws.clients import Aws, access_errors
from lambdalab.aws.stack import stack_description
from lambdalab.aws.template import processed_template
from lambdalab.errors import AccessError, StackError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import StackResourceSummaryTypeDef

TAG: Final = ("project", "lambdalab")
MARK: Final = "lambdalab, scenario "
"""How the description of this project's template begins."""
BUCKET: Final = "AWS::S3::Bucket"
LIMIT_S: Final = 3600.0
_POLL_S: Final = 1.0
_OBJECTS: Final = 1000
"""Of one DeleteObjects."""
_TELL_EVERY: Final = 10 * _OBJECTS
_DELETED: Final = ("Delete", "Snapshot")
"""Deletion policies under which a resource goes; every other one, and one that is an expression, retains."""
_NOT_OWNED: Final = ("CREATE_IN_PROGRESS", "CREATE_FAILED", "IMPORT_IN_PROGRESS", "IMPORT_FAILED", "DELETE_SKIPPED")
"""States of a resource that may be somebody else's: the stack has not got it yet, never did, or let go of it."""
_IN_REVIEW: Final = "REVIEW_IN_PROGRESS"
"""A stack whose first change set nobody has executed: it owns nothing, and has no template nor description yet."""
_DELETABLE_WHILE: Final = ("DELETE_", "CREATE_", "REVIEW_")
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
    """One resource of a stack. ``retained``: its template lets it stay when the stack goes, or does not name it."""

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
    def account(self) -> str:
        """The id of the account that has it (``arn:aws:cloudformation:REGION:ACCOUNT:stack/NAME/ID``)."""
        return self.stack_id.split(":")[4]

    @property
    def buckets(self) -> tuple[str, ...]:
        """Those that may be emptied, because they go."""
        return tuple(r.physical_id for r in self.resources if r.type == BUCKET and r.goes)


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is still there: its ARN or name, the stack it belongs to if any, and what it costs."""

    name: str
    stack_name: str | None
    costs: str


def find_doomed(aws: Aws, name: str) -> Doomed | None:
    """What a stack of this project owns; None when there is no such stack.

    Raises:
        StackError: it was not deployed by lambdalab, by its template's description.
        AccessError: it cannot be asked for.
    """
    with access_errors(f"stack {name}"):
        found = stack_description(aws, name)
        if found is None:
            return None
        in_review = found["StackStatus"] == _IN_REVIEW
        # The emulator forgets the description of what a change set made, as sam's do; the template has it.
        description = found.get("Description") or (
            "" if in_review else processed_template(aws, name).get("Description", "")
        )
        if not in_review and not description.startswith(MARK):
            raise StackError(
                f"stack {name} was not deployed by lambdalab: its description does not begin with {MARK.strip()!r}",
                next_step="nothing was deleted; name yours with --stack-name",
            )
        rows = _resource_rows(aws, name)
        declared: dict[str, Any] = {} if in_review else processed_template(aws, name).get("Resources", {})
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
                retained=row["LogicalResourceId"] not in declared
                or declared[row["LogicalResourceId"]].get("DeletionPolicy", "Delete") not in _DELETED,
            )
            for row in rows
        ),
    )


def delete(aws: Aws, doomed: Doomed, progress: Progress, *, limit_s: float = LIMIT_S) -> None:
    """Deletes the stack, and waits until it is gone; empties the buckets that kept it from going, and deletes it again.

    It may be called again, on a stack that is being deleted or could not be deleted wholly.

    Args:
        aws: where.
        doomed: as it was found, and shown to whoever agreed; no other bucket is emptied.
        progress: told each step.
        limit_s: so long it works and waits.

    Raises:
        StackError: the stack is protected or changing, AWS takes the deletion back, or not everything can be deleted;
            the resources are named with the reason.
        AccessError: AWS refuses a call.
    """
    if doomed.protected:
        raise StackError(
            f"stack {doomed.name} has termination protection",
            next_step="switch it off with `aws cloudformation update-termination-protection "
            f"--no-enable-termination-protection --stack-name {doomed.name}`",
        )
    deadline_s = time.monotonic() + limit_s
    with access_errors(f"stack {doomed.name}"):
        found = stack_description(aws, doomed.stack_id)
        status = "DELETE_COMPLETE" if found is None else found["StackStatus"]
        if status.endswith("_IN_PROGRESS") and not status.startswith(_DELETABLE_WHILE):
            raise StackError(
                f"stack {doomed.name} is in state {status}", next_step="destroy it when that is over; nothing was begun"
            )
        if status not in ("DELETE_COMPLETE", "DELETE_IN_PROGRESS"):
            aws.cloudformation.delete_stack(StackName=doomed.stack_id)
    waiting = {resource.logical_id for resource in doomed.resources if resource.goes}
    to_empty = set(doomed.buckets)
    while failed := _wait(aws, doomed, waiting, progress, deadline_s):
        full = [bucket for row in failed if (bucket := row.get("PhysicalResourceId", "")) in to_empty]
        if not full:
            raise StackError(
                f"stack {doomed.name} could not be deleted wholly: {_reasons(failed)}",
                next_step="repair that and destroy it again, which takes up what is left",
            )
        for bucket in full:
            count = empty_bucket(aws, bucket, owner=doomed.account, progress=progress, deadline_s=deadline_s)
            progress(f"emptied bucket {bucket} of {count} versions and delete markers")
        to_empty -= set(full)
        with access_errors(f"stack {doomed.name}"):
            aws.cloudformation.delete_stack(StackName=doomed.stack_id)


def empty_bucket(aws: Aws, bucket: str, *, owner: str, progress: Progress, deadline_s: float) -> int:
    """Deletes every object of a bucket, every version and every delete marker; returns how many these were.

    Args:
        aws: where.
        bucket: its name.
        owner: the account it must belong to, since anybody may have a bucket of that name by now.
        progress: told now and then how many have gone.
        deadline_s: when it gives up, by ``time.monotonic``.

    Raises:
        StackError: there was more than could be deleted until then.
        AccessError: S3 refuses, or one of them cannot be deleted, as under an object lock.
    """
    count = 0
    of_bucket = {"Bucket": bucket, "ExpectedBucketOwner": owner}
    with access_errors(f"bucket {bucket}"):
        try:
            while True:  # always the first page: a marker for the next one names what is deleted by then
                page = aws.s3.list_object_versions(**of_bucket, MaxKeys=_OBJECTS)
                found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                if not found:
                    return count
                if time.monotonic() > deadline_s:
                    raise StackError(
                        f"bucket {bucket} is not empty yet, after {count} versions and delete markers",
                        next_step="destroy the stack again to go on",
                    )
                objects = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
                answer = aws.s3.delete_objects(**of_bucket, Delete={"Objects": objects, "Quiet": True})
                if failed := answer.get("Errors"):
                    raise AccessError(
                        f"{len(failed)} objects of bucket {bucket} cannot be deleted, the first of them "
                        f"{failed[0]['Key']}: {failed[0]['Code']}",
                        next_step="delete them by hand, and destroy the stack again",
                    )
                if count // _TELL_EVERY < (count := count + len(objects)) // _TELL_EVERY:
                    progress(f"deleted {count} versions and delete markers of bucket {bucket}, and goes on")
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


def _wait(
    aws: Aws, doomed: Doomed, waiting: set[str], progress: Progress, deadline_s: float
) -> "list[StackResourceSummaryTypeDef]":
    """Waits for the end, tells of every resource that went, and returns those that could not; none when all is gone.

    Raises:
        StackError: the deletion was taken back, failed without naming a resource, or takes longer than until then.
    """
    begun = False
    while True:
        with access_errors(f"stack {doomed.name}"):
            found = stack_description(aws, doomed.stack_id)
            status = "DELETE_COMPLETE" if found is None else found["StackStatus"]
            rows = _resource_rows(aws, doomed.stack_id) if status != "DELETE_COMPLETE" else []
        left = {row["LogicalResourceId"] for row in rows if row["ResourceStatus"] != "DELETE_COMPLETE"}
        for gone in sorted(waiting - left):
            progress(f"deleted {gone}")
        waiting &= left
        if found is None or status == "DELETE_COMPLETE":
            return []
        why = found.get("StackStatusReason") or "no reason given"
        if status == "DELETE_FAILED":
            if failed := [row for row in rows if row["ResourceStatus"] == "DELETE_FAILED"]:
                return failed
            raise StackError(
                f"stack {doomed.name} could not be deleted wholly: {why}",
                next_step="repair that and destroy it again, which takes up what is left",
            )
        begun = begun or status == "DELETE_IN_PROGRESS"
        if begun and not status.startswith("DELETE_"):
            raise StackError(
                f"the deletion of stack {doomed.name} was taken back, and it is in state {status} again: {why}",
                next_step="repair that and destroy it again",
            )
        if time.monotonic() > deadline_s:
            raise StackError(
                f"stack {doomed.name} is still in state {status} when the time to wait is over",
                next_step="destroy it again to go on waiting",
            )
        time.sleep(_POLL_S)


def _reasons(failed: "list[StackResourceSummaryTypeDef]") -> str:
    return ", ".join(
        f"{row['LogicalResourceId']} ({row.get('ResourceStatusReason', 'no reason given')})" for row in failed
    )


def _resource_rows(aws: Aws, stack: str) -> "list[StackResourceSummaryTypeDef]":
    pages = aws.cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
    return [row for page in pages for row in page["StackResourceSummaries"]]
