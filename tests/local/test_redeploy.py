"""A deployed stack changes under a running plane: it follows, as Lambda would."""

import contextlib
import io
import json
import re
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from botocore.exceptions import ClientError
from e2e.iam_calls import Recorder

from benchmarks.plane.world import free_ports
from lambdalab.aws.clients import Aws
from lambdalab.invoke.live import read_lines
from lambdalab.local.settings import Settings
from lambdalab.local.stack import LocalStack
from lambdalab.local.startup import start_emulator, start_plane
from lambdalab.logs.platform_lines import parse_report
from local.support import FUNCTIONS, PYTHON_RUNTIME, exists, interpreter
from local.whole import wait_until

STACK: Final = "redeployed"
BUCKET: Final = "packages"


def resources(name: str) -> dict[str, Any]:
    """A function that does what a message says, its queue and its mapping."""
    return {
        f"{name}Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "FunctionName": name,
                "Runtime": PYTHON_RUNTIME,
                "Handler": "records.handler",
                "Role": "arn:aws:iam::000000000000:role/none",
                "Code": {"S3Bucket": BUCKET, "S3Key": "records.zip"},
            },
        },
        f"{name}Queue": {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": {"Ref": "VisibilityTimeout"}}},
        f"{name}Mapping": {
            "Type": "AWS::Lambda::EventSourceMapping",
            "Properties": {
                "EventSourceArn": {"Fn::GetAtt": [f"{name}Queue", "Arn"]},
                "FunctionName": {"Ref": f"{name}Function"},
                "BatchSize": 1,
            },
        },
    }


@dataclass
class Deployed:
    aws: Aws
    stack: LocalStack
    folder: Path

    def log(self) -> str:
        return (self.folder / "plane.log").read_text()

    def deploy(
        self, *names: str, reserved: str, visibility_s: int, update: bool = True, more: dict[str, Any] | None = None
    ) -> None:
        template = {
            "Parameters": {"ReservedConcurrency": {"Type": "String"}, "VisibilityTimeout": {"Type": "Number"}},
            "Resources": {key: value for name in names for key, value in resources(name).items()} | (more or {}),
        }
        client: Any = self.aws.cloudformation
        call = client.update_stack if update else client.create_stack
        parameters = {"ReservedConcurrency": reserved, "VisibilityTimeout": str(visibility_s)}
        call(
            StackName=STACK,
            TemplateBody=json.dumps(template),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )
        waiter = client.get_waiter(f"stack_{'update' if update else 'create'}_complete")
        waiter.wait(StackName=STACK, WaiterConfig={"Delay": 1, "MaxAttempts": 30})

    def function(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.stack.status()["functions"].get(name)
        return found

    def queue_url(self, name: str) -> str:
        found = self.aws.cloudformation.describe_stack_resource(StackName=STACK, LogicalResourceId=f"{name}Queue")
        return str(found["StackResourceDetail"]["PhysicalResourceId"])

    def send(self, name: str, body: str) -> None:
        self.aws.sqs.send_message(QueueUrl=self.queue_url(name), MessageBody=body)

    def invocations(self, name: str) -> Callable[[], int]:
        return lambda: (self.function(name) or {"invocations": 0})["invocations"]


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    with contextlib.ExitStack() as undo:
        listeners = [undo.enter_context(socket.socket()) for _ in range(2)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        port, plane_port = (listener.getsockname()[1] for listener in listeners)
        for listener in listeners:
            listener.close()
        emulator = start_emulator(port, tmp_path)
        undo.callback(emulator.end, grace_s=2)
        aws = Aws(endpoint_url=f"http://127.0.0.1:{port}")
        s3: Any = aws.session.client("s3", endpoint_url=f"http://127.0.0.1:{port}")
        s3.create_bucket(Bucket=BUCKET)
        package = io.BytesIO()
        with zipfile.ZipFile(package, "w") as archive:
            archive.write(FUNCTIONS / "records.py", "records.py")
        s3.put_object(Bucket=BUCKET, Key="records.zip", Body=package.getvalue())
        s3.close()
        found = Deployed(aws, LocalStack(stack_name=STACK, emulator=emulator, plane=emulator), tmp_path)
        found.deploy("first", reserved="1", visibility_s=30, update=False)
        settings = Settings(
            endpoint_url=f"http://127.0.0.1:{port}",
            stack_name=STACK,
            port=plane_port,
            folder=str(tmp_path),
            interpreters={PYTHON_RUNTIME: str(interpreter(PYTHON_RUNTIME))},
        )
        plane = start_plane(settings, tmp_path)
        undo.callback(plane.end, grace_s=15)
        found.stack = LocalStack(stack_name=STACK, emulator=emulator, plane=plane)
        yield found
        for client in (value for value in vars(aws).values() if hasattr(value, "get_waiter")):
            client.close()


def test_reserved_concurrency_and_visibility_of_a_redeploy_are_followed(deployed: Deployed) -> None:
    function = deployed.function("first")
    assert function is not None
    assert function["reserved_concurrency"] == 1
    deployed.deploy("first", reserved="2", visibility_s=2)
    wait_until(lambda: (deployed.function("first") or {})["reserved_concurrency"] == 2, 10)
    deployed.send("first", "fail 2 x")
    wait_until(lambda: deployed.invocations("first")() == 2, 15)  # it would take 30 s with what was deployed first
    deployed.deploy("first", reserved="", visibility_s=2)
    wait_until(lambda: (deployed.function("first") or {})["reserved_concurrency"] is None, 10)


def test_a_plane_reads_the_stack_again_only_when_something_changed(deployed: Deployed) -> None:
    """Through a recorder of its calls. Its requests to queues go on."""
    recorder = Recorder(deployed.stack.endpoint_url, deployed.stack.endpoint_url)
    folder = deployed.folder / "second"
    folder.mkdir()
    settings = msgspec.json.decode((deployed.folder / "plane.json").read_bytes(), type=Settings)
    with contextlib.ExitStack() as undo:
        undo.callback(recorder.close)
        (port,) = free_ports(1)
        seen = msgspec.structs.replace(settings, endpoint_url=recorder.url, folder=str(folder), port=port)
        plane = start_plane(seen, folder)
        undo.callback(plane.end, grace_s=15)
        stack = msgspec.structs.replace(deployed.stack, plane=plane)

        def reads() -> int:
            return sum(call.action.startswith(("cloudformation:", "lambda:")) for call in recorder.succeeded())

        time.sleep(3)  # it follows what it changed itself when it attached
        attached, receives = reads(), len(recorder.succeeded())
        time.sleep(4)
        assert reads() == attached > 0
        assert len(recorder.succeeded()) > receives
        deployed.deploy("first", reserved="2", visibility_s=30)
        wait_until(lambda: stack.status()["functions"]["first"]["reserved_concurrency"] == 2, 10)
        assert reads() > attached


def test_reservations_that_lambda_would_refuse_are_not_taken(deployed: Deployed) -> None:
    deployed.deploy("first", "second", reserved="451", visibility_s=30)
    wait_until(
        lambda: "ReservedConcurrency 451 for each of 2 functions is refused as Lambda would" in deployed.log(), 10
    )
    function = deployed.function("first")
    assert function is not None
    assert function["reserved_concurrency"] == 1
    deployed.deploy("first", "second", reserved="450", visibility_s=30)
    wait_until(lambda: (deployed.function("first") or {})["reserved_concurrency"] == 450, 10)
    assert deployed.log().count("is refused as Lambda would") == 1


def test_functions_that_come_and_go_with_a_redeploy_are_followed(deployed: Deployed) -> None:
    deployed.deploy("first", "second", reserved="1", visibility_s=30)
    wait_until(lambda: deployed.function("second") is not None, 10)
    for name in ("first", "second"):
        deployed.send(name, "x")
        wait_until(lambda name=name: deployed.invocations(name)() == 1, 15)  # type: ignore[misc]
    function = deployed.function("second")
    assert function is not None
    assert function["reserved_concurrency"] == 1
    deployed.deploy("first", reserved="1", visibility_s=30)
    wait_until(lambda: deployed.function("second") is None, 10)
    wait_until(lambda: not any(exists(pid) for pid in function["pids"]), 10)
    assert set(deployed.stack.status()["mappings"]) == {"first"}
    deployed.send("first", "y")
    wait_until(lambda: deployed.invocations("first")() == 2, 15)


def test_mapping_that_lambda_would_refuse_is_not_run(deployed: Deployed) -> None:
    url = deployed.aws.sqs.create_queue(QueueName="short", Attributes={"VisibilityTimeout": "2"})["QueueUrl"]
    create: Any = deployed.stack.aws().lambda_.create_event_source_mapping
    with pytest.raises(ClientError, match=r"InvalidParameterValueException.*visibility timeout of 2 s is shorter"):
        create(EventSourceArn="arn:aws:sqs:us-east-1:000000000000:short", FunctionName="first")
    assert "visibility timeout of 2 s is shorter than the function's timeout of 3 s" in deployed.log()
    assert deployed.stack.status()["mappings"]["first"]["batch_size"] == 1
    (problem,) = deployed.stack.status()["not_followed"]
    assert "visibility timeout of 2 s is shorter" in problem
    deployed.aws.sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "3"})
    deployed.aws.sqs.send_message(QueueUrl=url, MessageBody="x")
    wait_until(lambda: deployed.invocations("first")() == 1, 10)
    assert deployed.stack.status()["not_followed"] == []


OTHER_SOURCES: Final = {
    "Table": {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "StreamSpecification": {"StreamViewType": "NEW_IMAGE"},
        },
    },
    "StreamMapping": {
        "Type": "AWS::Lambda::EventSourceMapping",
        "Properties": {
            "EventSourceArn": {"Fn::GetAtt": ["Table", "StreamArn"]},
            "FunctionName": {"Ref": "firstFunction"},
            "StartingPosition": "LATEST",
        },
    },
    "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "news"}},
    "News": {
        "Type": "AWS::SNS::Subscription",
        "Properties": {
            "Protocol": "lambda",
            "TopicArn": {"Ref": "Topic"},
            "Endpoint": {"Fn::GetAtt": ["firstFunction", "Arn"]},
        },
    },
}


def test_sources_that_do_not_run_here_are_named_and_reach_no_function(deployed: Deployed) -> None:
    deployed.deploy("first", reserved="1", visibility_s=30, more=OTHER_SOURCES)
    wait_until(lambda: len(deployed.stack.status()["not_run"]) == 2, 15)
    topic, stream = deployed.stack.status()["not_run"]
    assert topic.startswith("SNS subscription News does not run here and will not wake firstFunction; ")
    assert re.match(r"event source mapping of arn:aws:dynamodb:\S+ does not run here and will not wake first", stream)
    assert topic in deployed.log()
    (mapping,) = deployed.stack.status()["mappings"].values()
    assert mapping["batch_size"] == 1

    emulator = deployed.stack.endpoint_url
    sns: Any = deployed.aws.session.client("sns", endpoint_url=emulator)
    sns.publish(TopicArn="arn:aws:sns:us-east-1:000000000000:news", Message="x")
    sns.close()
    refused: Any = deployed.aws.lambda_.invoke(FunctionName="first", Payload="{}")
    assert json.load(refused["Payload"])["errorType"] == "Runtime.DockerError", "the emulator's own Lambda is closed"
    assert deployed.invocations("first")() == 0

    def lines() -> list[str]:
        return [line.message for line in read_lines(deployed.stack, "first", 0, follow=False)]

    wait_until(lambda: sum(line.startswith("REPORT RequestId") for line in lines()) == 2, 10)
    deployed.send("first", "x")
    wait_until(lambda: deployed.invocations("first")() == 1, 15)
    wait_until(lambda: sum(line.startswith("REPORT RequestId") for line in lines()) == 3, 10)
    assert [parse_report(line) is not None for line in lines() if line.startswith("REPORT")] == [True] * 3

    deployed.stack.plane.end(grace_s=5)
    settings = msgspec.json.decode((deployed.folder / "plane.json").read_bytes(), type=Settings)
    again = start_plane(settings, deployed.folder)  # a plane begins beside what it does not run
    try:
        there = LocalStack(stack_name=STACK, emulator=deployed.stack.emulator, plane=again)
        assert there.status()["not_run"] == [topic, stream]
    finally:
        again.end(grace_s=5)
