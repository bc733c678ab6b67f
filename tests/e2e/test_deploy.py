"""``sam deploy`` of every template to the emulator: create, nothing to do, update, refuse, roll back, delete."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError
from sam_template import samconfig, template, template_folders

from lambdalab.aws.clients import Aws
from lambdalab.build.deployment import build, built_template, local_parameters, local_variables, overrides
from lambdalab.build.tools import tool
from lambdalab.local.startup import start_emulator

ROOT: Final = Path(__file__).parents[2]
FURTHER: Final = Path("scenarios/s3_ingest")
WATCHED: Final = {"MemorySize": "256", "Alarms": "true", "Dashboard": "true", "Tracing": "Active"}
TOO_LONG: Final = {"VisibilityTimeout": "43201"}
"""A second more than SQS takes: refused by the template, and by SQS where the template does not look."""
REFUSED: Final = (
    (TOO_LONG, "must be a whole number of seconds from 1 to 43200"),
    ({"BudgetUsd": "5"}, "BudgetUsd and BudgetEmail go together"),
    ({"BudgetEmail": "me@example.org"}, "BudgetUsd and BudgetEmail go together"),
    (
        {"ReservedConcurrency": "1", "MaximumConcurrency": "2"},
        "with ReservedConcurrency 1 the queue would be throttled",
    ),
)
ACCEPTED: Final[tuple[dict[str, str], ...]] = (
    {},
    {"BudgetUsd": "5", "BudgetEmail": "me@example.org"},
    {"ReservedConcurrency": "2", "MaximumConcurrency": "2"},
)


def test_no_template_of_the_project_is_left_out() -> None:
    assert template_folders() == [ROOT, ROOT / FURTHER]


@dataclass
class Sam:
    """sam, for one scenario and one emulator; it runs in the scenario's folder."""

    template: Path
    aws: Aws

    def __call__(self, command: str, *options: str, **changes: str) -> "subprocess.CompletedProcess[str]":
        arguments = [str(tool("sam")), command, "--config-env", "local", *options]
        if command == "deploy":
            # sam looks for samconfig.toml beside the template it is given.
            arguments += ["--config-file", str(Path("samconfig.toml").absolute())]
            arguments += [
                "--template-file",
                str(self.template),
                *overrides(local_parameters(changes)),
            ]
        return subprocess.run(
            arguments,
            env=local_variables(self.aws.cloudformation.meta.endpoint_url),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def deploy(self, *options: str, **changes: str) -> None:
        """Deploys; it has to succeed."""
        done = self("deploy", *options, **changes)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    @property
    def stack_name(self) -> str:
        return str(samconfig(Path.cwd())["local"]["global"]["parameters"]["stack_name"])

    def status(self) -> str:
        try:
            return str(self.aws.cloudformation.describe_stacks(StackName=self.stack_name)["Stacks"][0]["StackStatus"])
        except ClientError as error:
            return "absent" if "does not exist" in str(error) else str(error)

    def resources(self, kind: str) -> dict[str, str]:
        """Logical and physical names of the stack's resources of a type."""
        found = self.aws.cloudformation.describe_stack_resources(StackName=self.stack_name)["StackResources"]
        return {row["LogicalResourceId"]: row["PhysicalResourceId"] for row in found if row["ResourceType"] == kind}

    def client(self, service: str) -> Any:
        session: Any = self.aws.session
        return session.client(service, endpoint_url=self.aws.cloudformation.meta.endpoint_url)

    def memory_mb(self) -> set[int]:
        names = self.resources("AWS::Lambda::Function").values()
        return {self.aws.lambda_.get_function_configuration(FunctionName=name)["MemorySize"] for name in names}

    def queue_attributes(self) -> list[Any]:
        urls = self.resources("AWS::SQS::Queue").values()
        asked = (self.aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]) for url in urls)
        return [answer["Attributes"] for answer in asked]


@contextlib.contextmanager
def emulator(folder: Path) -> Iterator[Aws]:
    """Clients for an emulator that lives as long as the block."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    daemon = start_emulator(port, folder)
    try:
        yield Aws(endpoint_url=f"http://127.0.0.1:{port}")
    finally:
        daemon.end(grace_s=2)


@contextlib.contextmanager
def built(scenario: Path, folder: Path) -> Iterator[Sam]:
    """A scenario's template that is built, and an emulator to deploy it to."""
    with contextlib.chdir(scenario):
        build(local_parameters({}))
        shutil.copytree(built_template(scenario).parent, folder / "built")
        with emulator(folder) as aws:
            yield Sam(folder / "built/template.yaml", aws)


@pytest.fixture
def sam(project: Path, tmp_path: Path) -> Iterator[Sam]:
    with built(project, tmp_path) as found:
        yield found


def test_a_stack_is_created_updated_rolled_back_and_deleted(sam: Sam) -> None:
    sam.deploy()
    assert sam.status() == "CREATE_COMPLETE"
    assert sam.memory_mb() == {128}
    for kind in ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard", "AWS::IAM::Policy"):
        assert not sam.resources(kind), "the local stack is given nothing that only watches"
    for attributes in sam.queue_attributes():
        assert attributes["SqsManagedSseEnabled"] == "true"
        (statement,) = json.loads(attributes["Policy"])["Statement"]
        assert (statement["Effect"], statement["Condition"]["Bool"]) == ("Deny", {"aws:SecureTransport": "false"})

    again = sam("deploy")
    assert again.returncode == 0
    assert f"No changes to deploy. Stack {sam.stack_name} is up to date" in again.stdout
    assert sam.status() == "CREATE_COMPLETE"

    sam.deploy(**WATCHED)
    assert sam.status() == "UPDATE_COMPLETE"
    assert sam.memory_mb() == {256}
    is_watched(sam)

    limits = sam.template.read_text()
    sam.template.write_text(re.sub(r"\n +MaxValue: 43200\b", "", limits))
    assert sam.template.read_text() != limits
    failed = sam("deploy", **(WATCHED | TOO_LONG | {"MemorySize": "512"}))
    assert failed.returncode == 1
    assert sam.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert why_it_failed(sam) == {"AWS::SQS::Queue": "Invalid value for the parameter VisibilityTimeout"}
    assert sam.memory_mb() == {256}
    assert "43201" not in {attributes["VisibilityTimeout"] for attributes in sam.queue_attributes()}
    sam.template.write_text(limits)
    sam.deploy()
    assert sam.status() == "UPDATE_COMPLETE"
    assert not sam.resources("AWS::CloudWatch::Alarm")

    deleted = sam("delete", "--no-prompts")
    assert deleted.returncode == 0, deleted.stderr
    assert sam.status() == "absent"
    assert left_over(sam) == {}


def is_watched(sam: Sam) -> None:
    functions = sam.resources("AWS::Lambda::Function")
    queues = {url.rsplit("/", 1)[1] for url in sam.resources("AWS::SQS::Queue").values()}
    about = {dimension["Value"] for alarm in alarms_beside_traces(sam) for dimension in alarm["Dimensions"]}
    assert about == queues | set(functions.values())
    (name,) = sam.resources("AWS::CloudWatch::Dashboard").values()
    body = json.loads(sam.client("cloudwatch").get_dashboard(DashboardName=name)["DashboardBody"])
    tables = set(sam.resources("AWS::DynamoDB::Table").values())
    shown = {metric[3] for widget in body["widgets"] for metric in widget["properties"]["metrics"]}
    assert shown == queues | tables | set(functions.values())


def alarms_beside_traces(sam: Sam) -> list[Any]:
    """The alarms of the stack, whose functions are traced and may be."""
    functions = sam.resources("AWS::Lambda::Function")
    modes = {
        sam.aws.lambda_.get_function_configuration(FunctionName=name)["TracingConfig"]["Mode"]
        for name in functions.values()
    }
    assert modes == {"Active"}
    iam = sam.client("iam")
    for role in sam.resources("AWS::IAM::Role").values():
        assert "tracing" in iam.list_role_policies(RoleName=role)["PolicyNames"]
    alarms: list[Any] = sam.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert {alarm["AlarmName"] for alarm in alarms} == set(sam.resources("AWS::CloudWatch::Alarm").values())
    return alarms


def why_it_failed(sam: Sam) -> dict[str, str]:
    events = sam.aws.cloudformation.describe_stack_events(StackName=sam.stack_name)["StackEvents"]
    return {
        event["ResourceType"]: event["ResourceStatusReason"].split(".")[0]
        for event in events
        if event["ResourceStatus"] == "UPDATE_FAILED"
    }


def left_over(sam: Sam) -> dict[str, Any]:
    """What the account still holds of a deleted stack, by kind."""
    cloudwatch = sam.client("cloudwatch")
    found = {
        "queues": sam.aws.sqs.list_queues().get("QueueUrls"),
        "tables": sam.client("dynamodb").list_tables()["TableNames"],
        "functions": sam.aws.lambda_.list_functions()["Functions"],
        "mappings": sam.aws.lambda_.list_event_source_mappings()["EventSourceMappings"],
        "roles": sam.client("iam").list_roles()["Roles"],
        "log groups": sam.client("logs").describe_log_groups()["logGroups"],
        "alarms": cloudwatch.describe_alarms()["MetricAlarms"],
        "dashboards": cloudwatch.list_dashboards()["DashboardEntries"],
        "buckets": [
            bucket for bucket in sam.client("s3").list_buckets()["Buckets"] if "aws-sam-cli" not in bucket["Name"]
        ],
    }
    return {kind: rows for kind, rows in found.items() if rows}


def test_a_further_stack_is_created_updated_refused_and_deleted(project: Path, tmp_path: Path) -> None:
    with built(project / FURTHER, tmp_path) as sam:
        sam.deploy()
        assert sam.status() == "CREATE_COMPLETE"
        assert sam.memory_mb() == {1024}
        is_guarded(sam)

        again = sam("deploy")
        assert again.returncode == 0
        assert f"No changes to deploy. Stack {sam.stack_name} is up to date" in again.stdout

        assert not sam.resources("AWS::CloudWatch::Alarm")

        changes = {"MemorySize": "512", "MultipartMb": "32", "ReservedConcurrency": "10"}
        sam.deploy(**changes, Alarms="true", Tracing="Active")
        assert sam.status() == "UPDATE_COMPLETE"
        assert sam.memory_mb() == {512}
        for name in sam.resources("AWS::Lambda::Function").values():
            environment = sam.aws.lambda_.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
            assert (environment["MULTIPART_MB"], environment["RESERVED_CONCURRENCY"]) == ("32", "10")
        watched = {(alarm["MetricName"], alarm["Dimensions"][0]["Value"]) for alarm in alarms_beside_traces(sam)}
        functions = sam.resources("AWS::Lambda::Function").values()
        assert watched == {(metric, name) for metric in ("failed", "Errors", "Throttles") for name in functions}

        refused = sam("deploy", MultipartMb="4")
        assert refused.returncode == 1
        assert "must be a whole number of MB from 5, the least S3 takes, to 512" in refused.stdout + refused.stderr
        assert sam.memory_mb() == {512}

        deleted = sam("delete", "--no-prompts")
        assert deleted.returncode == 0, deleted.stderr
        assert sam.status() == "absent"
        assert left_over(sam) == {}


def is_guarded(sam: Sam) -> None:
    s3 = sam.client("s3")
    (name,) = sam.resources("AWS::S3::Bucket").values()
    assert set(s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"].values()) == {True}
    (statement,) = json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])["Statement"]
    assert (statement["Effect"], statement["Condition"]["Bool"]) == ("Deny", {"aws:SecureTransport": "false"})


def test_limits_and_rules_of_the_template_are_those_it_means(tmp_path: Path) -> None:
    rules = {part: template()[part] for part in ("Parameters", "Rules", "Conditions")}
    body = json.dumps(rules | {"Resources": {"Nothing": {"Type": "AWS::CloudFormation::WaitConditionHandle"}}})
    with emulator(tmp_path) as aws:

        def create(name: str, values: dict[str, str]) -> None:
            given = [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]
            aws.cloudformation.create_stack(StackName=name, TemplateBody=body, Parameters=given)  # type: ignore[arg-type]

        for values, reason in REFUSED:
            with pytest.raises(ClientError, match=reason):
                create("refused", values)
        for number, values in enumerate(ACCEPTED):
            create(f"accepted-{number}", values)
