"""``lambdalab destroy`` at a real emulator: what the stack owns goes, and nothing else."""

import json
import os
import pty
import secrets
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from lambdalab.aws.clients import Aws
from lambdalab.aws.deletion import BUCKET, MARK, Doomed, Owned, delete, empty_bucket, find_doomed, leftovers
from lambdalab.aws.stack import stack_description
from lambdalab.aws.template import read_template
from lambdalab.cli.destroy import _show_leftovers
from lambdalab.errors import AccessError, StackError
from lambdalab.loopback import LOCAL_KEY, LOCAL_REGION
from lambdalab.project import project_root
from local.support import Emulated

COMMAND = Path(sys.executable).with_name("lambdalab")
TAGS = [{"Key": "project", "Value": "lambdalab"}]
ACCOUNT = "000000000000"
VERSIONS = 1203
"""More than one page of a listing holds, and than one request deletes."""


@pytest.fixture(scope="module")
def aws(emulated: Emulated) -> Aws:
    return emulated.aws


def bucket(name: str, **more: Any) -> dict[str, Any]:
    properties = {"BucketName": name, "VersioningConfiguration": {"Status": "Enabled"}, "Tags": TAGS}
    return {"Type": "AWS::S3::Bucket", "Properties": properties, **more}


def template(resources: dict[str, Any], description: str = f"{MARK}test") -> str:
    return json.dumps({"Description": description, "Resources": resources})


def create(aws: Aws, resources: dict[str, Any], description: str = f"{MARK}test", **more: Any) -> str:
    name = f"lambdalab-{secrets.token_hex(4)}"
    aws.cloudformation.create_stack(StackName=name, TemplateBody=template(resources, description), **more)
    aws.cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    return name


def fill(aws: Aws, name: str, versions: int) -> None:
    """Objects with versions, and delete markers on some."""
    for number in range(versions):
        aws.s3.put_object(Bucket=name, Key=f"key/{number % 7}", Body=b"x")
    aws.s3.delete_object(Bucket=name, Key="key/0")


def is_there(aws: Aws, name: str) -> bool:
    return name in {one["Name"] for one in aws.s3.list_buckets()["Buckets"]}


def versions(aws: Aws, name: str) -> int:
    pages = aws.s3.get_paginator("list_object_versions").paginate(Bucket=name)
    return sum(len(page.get("Versions", [])) + len(page.get("DeleteMarkers", [])) for page in pages)


def destroy(emulated: Emulated, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(COMMAND), "destroy", *arguments], env=variables(emulated), capture_output=True, text=True, check=False
    )


def variables(emulated: Emulated) -> dict[str, str]:
    access = {"AWS_ACCESS_KEY_ID": LOCAL_KEY, "AWS_SECRET_ACCESS_KEY": LOCAL_KEY, "AWS_REGION": LOCAL_REGION}
    return {**os.environ, **access, "AWS_ENDPOINT_URL": emulated.url}


def unique(what: str) -> str:
    return f"{what}-{secrets.token_hex(4)}"


def test_a_bucket_is_emptied_of_all_versions_and_delete_markers(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    name = unique("full")
    aws.s3.create_bucket(Bucket=name)
    aws.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    fill(aws, name, VERSIONS)
    with pytest.raises(ClientError, match="BucketNotEmpty"):
        aws.s3.delete_bucket(Bucket=name)

    told: list[str] = []
    monkeypatch.setattr("lambdalab.aws.deletion._TELL_EVERY", 1000)
    with pytest.raises(StackError, match="is not empty yet, after 0 versions and delete markers; destroy the stack"):
        empty_bucket(aws, name, owner=ACCOUNT, progress=told.append, deadline_s=0)
    until_s = time.monotonic() + 300
    assert empty_bucket(aws, name, owner=ACCOUNT, progress=told.append, deadline_s=until_s) == VERSIONS + 1

    assert told == [f"deleted 1000 versions and delete markers of bucket {name}, and goes on"]
    aws.s3.delete_bucket(Bucket=name)
    gone = empty_bucket(aws, name, owner=ACCOUNT, progress=told.append, deadline_s=until_s)
    assert gone == 0, "what is gone is no failure"


def test_what_the_stack_owns_goes_and_nothing_else(emulated: Emulated) -> None:
    aws = emulated.aws
    owned, retained, foreign = unique("owned"), unique("retained"), unique("foreign")
    queue = aws.sqs.create_queue(QueueName=foreign, tags={"project": "lambdalab"})["QueueUrl"]
    aws.s3.create_bucket(Bucket=foreign)
    aws.s3.put_bucket_tagging(Bucket=foreign, Tagging={"TagSet": TAGS})
    name = create(
        aws,
        {
            "Own": bucket(owned),
            "Kept": bucket(retained, DeletionPolicy="Retain"),
            "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"Tags": TAGS}},
        },
    )
    own_queue = next(r.physical_id for r in doomed(aws, name).resources if r.type == "AWS::SQS::Queue")
    aws.logs.create_log_group(logGroupName=f"/aws/lambda/{name}-python-ingest")
    for each in (owned, retained, foreign):
        fill(aws, each, 3)

    dry = destroy(emulated, "--stack-name", name)

    assert dry.returncode == 0, dry.stderr
    assert f"nothing was deleted; to do it, add --yes {name}" in dry.stderr
    rows = {line.split()[0]: line for line in dry.stdout.splitlines()[1:]}
    assert owned in rows["Own"]
    assert "deleted, if need be emptied" in rows["Own"]
    assert "stays: the template retains or lacks it" in rows["Kept"]
    assert dry.stdout.startswith(f"stack {name} in us-east-1 of account {ACCOUNT}, CREATE_COMPLETE, owns 3 resources")
    assert own_queue in rows["Queue"]
    assert foreign not in dry.stdout
    assert (versions(aws, owned), versions(aws, retained)) == (4, 4)

    done = destroy(emulated, "--stack-name", name, "--yes", name)

    assert done.returncode == 0, done.stderr
    assert "deleted Queue" in done.stderr
    assert f"stack {name} is deleted" in done.stdout
    assert stack_description(aws, name) is None
    assert not is_there(aws, owned)
    assert versions(aws, retained) == 4
    assert versions(aws, foreign) >= 1
    urls = aws.sqs.list_queues()["QueueUrls"]
    assert queue in urls
    assert own_queue not in urls
    left = done.stdout[done.stdout.index("left over") :]
    for each in (f"arn:aws:s3:::{foreign}", f":{foreign}", retained, f"/aws/lambda/{name}-python"):
        assert each in left, each
    assert owned not in left
    assert "storage of its objects, all versions, by GB and month" in left


def doomed(aws: Aws, name: str) -> Any:
    found = find_doomed(aws, name)
    assert found is not None
    return found


def test_only_the_stacks_own_name_is_an_agreement(emulated: Emulated) -> None:
    name = create(emulated.aws, {"Queue": {"Type": "AWS::SQS::Queue"}})

    done = destroy(emulated, "--stack-name", name, "--yes", name[:-1])

    assert done.returncode == 2
    assert f"'{name[:-1]}' is not the name of the stack, {name}" in done.stderr
    assert stack_description(emulated.aws, name) is not None


@pytest.mark.parametrize("typed", ["name", "wrong", "interrupt"])
def test_on_a_terminal_it_asks_for_the_name(emulated: Emulated, typed: str) -> None:
    name = create(emulated.aws, {"Queue": {"Type": "AWS::SQS::Queue"}})
    keys = {"name": f"{name}\n".encode(), "wrong": b"yes\n", "interrupt": b"\x03"}[typed]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(COMMAND, [str(COMMAND), "destroy", "--stack-name", name], variables(emulated))  # noqa: S606
    shown = b""
    while f"Type {name} to delete it from account {ACCOUNT}".encode() not in shown:
        shown += os.read(terminal, 4096)
    os.write(terminal, keys)
    try:
        while True:
            while not select.select([terminal], [], [], 1)[0]:
                # Python loses a Ctrl-C between its last look at signals and the read that waits for a line.
                os.write(terminal, keys if typed == "interrupt" else b"")
            shown += os.read(terminal, 4096)
    except OSError:  # how Linux says that the other end is closed
        pass
    _, status = os.waitpid(pid, 0)
    os.close(terminal)

    assert os.waitstatus_to_exitcode(status) == {"name": 0, "wrong": 2, "interrupt": 130}[typed], shown.decode()
    assert (stack_description(emulated.aws, name) is None) == (typed == "name")


def test_a_stack_that_is_not_there(emulated: Emulated) -> None:
    done = destroy(emulated, "--stack-name", "lambdalab-nowhere", "--yes", "lambdalab-nowhere")
    assert done.returncode == 3
    assert done.stderr.startswith("lambdalab: there is no stack named lambdalab-nowhere in us-east-1; ")
    assert "Traceback" not in done.stderr


def test_termination_protection_is_respected(emulated: Emulated) -> None:
    aws, own = emulated.aws, unique("protected")
    name = create(aws, {"Own": bucket(own)}, EnableTerminationProtection=True)
    fill(aws, own, 2)

    done = destroy(emulated, "--stack-name", name, "--yes", name)

    assert done.returncode == 3
    assert "has termination protection; switch it off with `aws cloudformation" in done.stderr
    assert versions(aws, own) == 3, "nothing is emptied for nothing"


def test_half_deleted_it_says_what_stays_and_why_and_goes_on_when_that_is_repaired(emulated: Emulated) -> None:
    aws, repository = emulated.aws, unique("repository")
    session: Any = aws.session
    ecr = session.client("ecr", endpoint_url=emulated.url)
    name = create(
        aws,
        {
            "Images": {"Type": "AWS::ECR::Repository", "Properties": {"RepositoryName": repository}},
            "Own": bucket(unique("half")),
        },
    )
    manifest = json.dumps({"schemaVersion": 2, "config": {}, "layers": []})
    image = ecr.put_image(repositoryName=repository, imageManifest=manifest, imageTag="one")["image"]["imageId"]

    done = destroy(emulated, "--stack-name", name, "--yes", name)

    assert done.returncode == 3
    assert f"stack {name} could not be deleted wholly: Images (" in done.stderr
    assert "deleted Own" in done.stderr
    found = doomed(aws, name)
    assert found.status == "DELETE_FAILED"
    assert [resource.logical_id for resource in found.resources if resource.goes] == ["Images"]

    ecr.batch_delete_image(repositoryName=repository, imageIds=[image])
    again = destroy(emulated, "--stack-name", name, "--yes", name)
    assert again.returncode == 0, again.stderr
    assert stack_description(aws, name) is None
    ecr.close()


@pytest.mark.parametrize(
    ("status", "goes"),
    [
        ("CREATE_COMPLETE", True),
        ("UPDATE_COMPLETE", True),
        ("DELETE_FAILED", True),
        ("CREATE_IN_PROGRESS", False),
        ("CREATE_FAILED", False),
        ("DELETE_SKIPPED", False),
        ("DELETE_COMPLETE", False),
    ],
)
def test_what_the_stack_has_not_got_is_not_its_own(status: str, goes: bool) -> None:
    owned = Owned(logical_id="Own", physical_id="theirs", type=BUCKET, status=status)
    assert Doomed(name="s", stack_id="s", status="CREATE_FAILED", resources=(owned,)).buckets == ("theirs",) * goes


def test_a_bucket_the_stack_failed_to_get_is_somebody_elses(emulated: Emulated) -> None:
    aws, foreign = emulated.aws, unique("theirs")
    aws.s3.create_bucket(Bucket=foreign)
    aws.s3.put_object(Bucket=foreign, Key="k", Body=b"x")
    name = unique("lambdalab")
    resources = {"Own": bucket(foreign)}
    aws.cloudformation.create_stack(StackName=name, TemplateBody=template(resources), OnFailure="DO_NOTHING")
    until = time.monotonic() + 60
    while (found := doomed(aws, name)).status == "CREATE_IN_PROGRESS":
        assert time.monotonic() < until
        time.sleep(0.1)
    assert found.status == "CREATE_FAILED"
    assert found.buckets == ()

    done = destroy(emulated, "--stack-name", name, "--yes", name)

    assert done.returncode == 0, done.stderr
    assert versions(aws, foreign) == 1


class AsOnAws:
    """In front of the emulator's CloudFormation, which deletes any bucket: refuses those S3 would not delete."""

    def __init__(self, aws: Aws) -> None:
        self._aws, self._real = aws, aws.cloudformation
        self._full: set[str] = set()
        self.asked: list[dict[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def describe_stacks(self, **arguments: Any) -> Any:
        answer = self._real.describe_stacks(**arguments)
        if self._full:
            answer["Stacks"][0]["StackStatus"] = "DELETE_FAILED"
        return answer

    def get_paginator(self, name: Any) -> Any:
        def paginate(**arguments: Any) -> Any:
            pages = list(self._real.get_paginator(name).paginate(**arguments))
            for row in (row for page in pages for row in page["StackResourceSummaries"]):
                if row.get("PhysicalResourceId") in self._full:
                    row |= {"ResourceStatus": "DELETE_FAILED", "ResourceStatusReason": "not empty"}
            return pages

        return SimpleNamespace(paginate=paginate)

    def delete_stack(self, **arguments: Any) -> None:
        pages = self._real.get_paginator("list_stack_resources").paginate(**arguments)
        rows = [row for page in pages for row in page["StackResourceSummaries"]]
        names = [row["PhysicalResourceId"] for row in rows if row["ResourceType"] == BUCKET]
        self.asked.append({name: versions(self._aws, name) for name in names})
        self._full = {name for name in names if versions(self._aws, name) and "kept" not in name}
        if not self._full:
            self._real.delete_stack(**arguments)


def test_nothing_is_emptied_before_cloudformation_has_agreed_to_delete(emulated: Emulated) -> None:
    aws = Aws(endpoint_url=emulated.url)
    own, kept, late = unique("own"), unique("kept"), unique("late")
    name = create(aws, {"Own": bucket(own), "Late": bucket(late), "Kept": bucket(kept, DeletionPolicy="Retain")})
    for each in (own, kept):
        fill(aws, each, 3)
    found = doomed(aws, name)
    shown = msgspec.structs.replace(found, resources=tuple(r for r in found.resources if r.logical_id != "Late"))
    on_aws = AsOnAws(aws)
    owners: list[str] = []
    aws.__dict__["cloudformation"] = on_aws
    for call in ("ListObjectVersions", "DeleteObjects"):
        aws.s3.meta.events.register(
            f"provide-client-params.s3.{call}", lambda params, **_: owners.append(params.get("ExpectedBucketOwner"))
        )
    told: list[str] = []

    delete(aws, shown, told.append)

    assert on_aws.asked == [{own: 4, late: 0, kept: 4}, {own: 0, late: 0, kept: 4}]
    assert told[0] == f"emptied bucket {own} of 4 versions and delete markers"
    assert stack_description(aws, name) is None
    assert versions(aws, kept) == 4
    assert owners.count(ACCOUNT) == 3, "of two listings and what was deleted"


def test_a_bucket_nobody_was_shown_is_not_emptied(emulated: Emulated) -> None:
    aws = Aws(endpoint_url=emulated.url)
    own = unique("own")
    name = create(aws, {"Own": bucket(own)})
    fill(aws, own, 3)
    shown = msgspec.structs.replace(doomed(aws, name), resources=())
    aws.__dict__["cloudformation"] = AsOnAws(aws)

    with pytest.raises(StackError, match=r"could not be deleted wholly: Own \(not empty\); repair that"):
        delete(aws, shown, lambda _: None)

    assert versions(aws, own) == 4


def in_states(monkeypatch: pytest.MonkeyPatch, aws: Aws, name: str, *states: str) -> list[str]:
    """CloudFormation goes through these states and stays in the last; returns what was asked to be deleted."""
    real: Any = stack_description(aws, name)
    left, asked = list(states), list[str]()

    def describe(*_: Any) -> Any:
        return {**real, "StackStatus": left.pop(0) if len(left) > 1 else left[0], "StackStatusReason": "in use"}

    monkeypatch.setattr("lambdalab.aws.deletion.stack_description", describe)
    monkeypatch.setattr("lambdalab.aws.deletion._POLL_S", 0)
    monkeypatch.setattr(aws.cloudformation, "delete_stack", lambda StackName: asked.append(StackName))  # noqa: N803
    return asked


def test_a_deletion_that_is_taken_back_is_not_waited_for(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    name = create(aws, {"Queue": {"Type": "AWS::SQS::Queue"}})
    found = doomed(aws, name)
    asked = in_states(
        monkeypatch, aws, name, "UPDATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_IN_PROGRESS", "UPDATE_COMPLETE"
    )
    with pytest.raises(StackError, match="was taken back, and it is in state UPDATE_COMPLETE again: in use; repair"):
        delete(aws, found, lambda _: None, limit_s=5)
    assert asked == [found.stack_id]


@pytest.mark.parametrize(
    "status", ["UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"]
)
def test_a_stack_that_is_changing_is_left_alone(aws: Aws, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    name = create(aws, {"Queue": {"Type": "AWS::SQS::Queue"}})
    found = doomed(aws, name)
    asked = in_states(monkeypatch, aws, name, status)
    with pytest.raises(StackError, match=f"is in state {status}; destroy it when that is over; nothing was begun"):
        delete(aws, found, lambda _: None, limit_s=5)
    assert asked == []


@pytest.mark.parametrize("description", ["", "Managed Stack for AWS SAM CLI"])
def test_somebody_elses_stack_is_refused(emulated: Emulated, description: str) -> None:
    name = create(emulated.aws, {"Queue": {"Type": "AWS::SQS::Queue"}}, description)

    done = destroy(emulated, "--stack-name", name, "--yes", name)

    assert done.returncode == 3
    assert f"stack {name} was not deployed by lambdalab: its description does not begin with" in done.stderr
    assert stack_description(emulated.aws, name) is not None


def test_this_projects_template_has_its_mark() -> None:
    assert read_template((project_root() / "template.yaml").read_text(), "it")["Description"].startswith(MARK)


def test_what_the_template_does_not_name_is_not_emptied(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    name = create(aws, {"Own": bucket(unique("own"))})
    monkeypatch.setattr("lambdalab.aws.deletion.processed_template", lambda *_: {})
    assert doomed(aws, name).buckets == ()


def test_a_deployment_that_was_declined_has_no_template_and_can_go(emulated: Emulated) -> None:
    aws, name = emulated.aws, unique("lambdalab")
    body = template({"Queue": {"Type": "AWS::SQS::Queue"}})
    aws.cloudformation.create_change_set(
        StackName=name, ChangeSetName="first", ChangeSetType="CREATE", TemplateBody=body
    )
    found = doomed(aws, name)
    assert (found.status, found.resources) == ("REVIEW_IN_PROGRESS", ())

    done = destroy(emulated, "--stack-name", name, "--yes", name)

    assert done.returncode == 0, done.stderr
    assert stack_description(aws, name) is None


def test_what_is_left_over_may_be_unknown(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = create(aws, {"Queue": {"Type": "AWS::SQS::Queue"}})
    found = doomed(aws, name)

    def refuse(*_: Any) -> None:
        raise AccessError("GetResources on tagged resources was refused", next_step="ask for it")

    monkeypatch.setattr("lambdalab.aws.deletion.leftovers", refuse)
    _show_leftovers(aws, found)
    assert capsys.readouterr().err == (
        "lambdalab: what is left over is not known: GetResources on tagged resources was refused; ask for it.\n"
    )


SLOW = """
import sys, time
from lambdalab.aws.clients import Aws
from lambdalab.cli.app import run_app
make = Aws._client

def pause(**_):
    print("begun", file=sys.stderr, flush=True)
    time.sleep(60)

def client(self, service, *arguments, **more):
    made = make(self, service, *arguments, **more)
    if service == "cloudformation":
        made.meta.events.register("before-call.cloudformation.DeleteStack", pause)
    return made

Aws._client = client
from lambdalab.cli import main
sys.exit(main())
"""


def test_interrupted_it_can_be_taken_up_again(emulated: Emulated) -> None:
    aws, names = emulated.aws, [unique("interrupted") for _ in range(3)]
    name = create(aws, {f"Own{number}": bucket(each) for number, each in enumerate(names)})
    for each in names:
        fill(aws, each, 2)
    command = [sys.executable, "-c", SLOW, "destroy", "--stack-name", name, "--yes", name]
    with subprocess.Popen(command, env=variables(emulated), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait() == 130, said
    assert f"the rest, with `lambdalab destroy --stack-name {name}`" in said
    assert "Traceback" not in said
    assert [versions(aws, each) for each in names] == [3] * 3

    again = destroy(emulated, "--stack-name", name, "--yes", name)

    assert again.returncode == 0, again.stderr
    assert not any(is_there(aws, each) for each in names)


def test_a_stack_that_is_being_deleted_is_waited_for(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    name = create(aws, {"Queue": {"Type": "AWS::SQS::Queue"}})
    found = doomed(aws, name)
    aws.cloudformation.delete_stack(StackName=name)
    told: list[str] = []
    monkeypatch.setattr(aws.cloudformation, "delete_stack", lambda **_: pytest.fail("it is being deleted already"))
    delete(aws, found, told.append)

    assert told == ["deleted Queue"]
    assert all("Queue" not in left.name or name not in left.name for left in leftovers(aws, found))


def test_it_does_not_wait_for_ever(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    name = create(aws, {"Queue": {"Type": "AWS::SQS::Queue"}})
    monkeypatch.setattr(aws.cloudformation, "delete_stack", lambda **_: None)
    with pytest.raises(StackError, match="is still in state CREATE_COMPLETE when the time to wait is over; destroy"):
        delete(aws, doomed(aws, name), lambda _: None, limit_s=0)
