"""The map of a stack with a source of every kind, read from a real emulator; and that its ways past functions work."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from lambdalab.aws.clients import Aws
from lambdalab.aws.pipeline_reading import read_pipeline
from lambdalab.aws.stack import Stack, find_stack
from lambdalab.records.pipeline import Graph, Kind, Runs
from local.support import PYTHON_RUNTIME, Emulated
from local.whole import wait_until

STACK: Final = "mapped"


def arn(logical: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [logical, "Arn"]}


def ref(logical: str) -> dict[str, str]:
    return {"Ref": logical}


def function(**variables: Any) -> dict[str, Any]:
    return {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "Runtime": PYTHON_RUNTIME,
            "Handler": "index.handler",
            "Role": "arn:aws:iam::000000000000:role/none",
            "Code": {"ZipFile": "def handler(event, context): return 1"},
            "Environment": {"Variables": variables},
        },
    }


def resource(kind: str, **properties: Any) -> dict[str, Any]:
    return {"Type": f"AWS::{kind}", "Properties": properties}


INVOKE: Final = {
    "Fn::Sub": "arn:aws:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${Register.Arn}/invocations"
}
TEMPLATE: Final = {
    "Conditions": {"Never": {"Fn::Equals": ["a", "b"]}},
    "Resources": {
        "Api": resource(
            "ApiGateway::RestApi",
            Body={
                "swagger": "2.0",
                "info": {"title": "votes"},
                "paths": {"/votes": {"post": {"x-amazon-apigateway-integration": {
                    "type": "aws_proxy", "httpMethod": "POST", "uri": INVOKE,
                }}}},
            },
        ),
        "Bus": resource("Events::EventBus", Name="mapped-votes"),
        "OnVote": resource(
            "Events::Rule",
            EventBusName=ref("Bus"),
            EventPattern={"detail-type": ["Voted"]},
            Targets=[{"Id": "f", "Arn": arn("Register")}, {"Id": "q", "Arn": arn("Work")}],
        ),
        "Register": function(TABLE=ref("Votes"), QUEUE_URL=ref("Work")),
        "Votes": resource(
            "DynamoDB::Table",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            StreamSpecification={"StreamViewType": "NEW_IMAGE"},
        ),
        "VotesToAudit": resource(
            "Lambda::EventSourceMapping",
            EventSourceArn={"Fn::GetAtt": ["Votes", "StreamArn"]},
            FunctionName=ref("Audit"),
            StartingPosition="LATEST",
        ),
        "Audit": function(),
        "AuditOutcome": resource(
            "Lambda::EventInvokeConfig",
            FunctionName=ref("Audit"),
            Qualifier="$LATEST",
            DestinationConfig={"OnFailure": {"Destination": arn("Dead")}},
        ),
        "AuditUrl": resource("Lambda::Url", TargetFunctionArn=arn("Audit"), AuthType="AWS_IAM"),
        "Hourly": resource(
            "Events::Rule", ScheduleExpression="rate(1 hour)", Targets=[{"Id": "f", "Arn": arn("Audit")}]
        ),
        "Nightly": resource(
            "Scheduler::Schedule",
            ScheduleExpression="cron(0 3 * * ? *)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": arn("Audit"), "RoleArn": "arn:aws:iam::000000000000:role/none"},
        ),
        "Work": resource(
            "SQS::Queue", RedrivePolicy={"deadLetterTargetArn": arn("Dead"), "maxReceiveCount": 3}
        ),
        "Dead": resource("SQS::Queue"),
        "WorkToCounter": resource(
            "Lambda::EventSourceMapping", EventSourceArn=arn("Work"), FunctionName=ref("Counter"), BatchSize=7
        ),
        "Counter": function(),
        "News": resource("SNS::Topic"),
        "NewsToWork": resource("SNS::Subscription", Protocol="sqs", TopicArn=ref("News"), Endpoint=arn("Work")),
        "NewsToCounter": resource(
            "SNS::Subscription", Protocol="lambda", TopicArn=ref("News"), Endpoint=arn("Counter")
        ),
        "Uploads": resource(
            "S3::Bucket",
            BucketName="mapped-uploads",
            NotificationConfiguration={
                "QueueConfigurations": [{"Event": "s3:ObjectCreated:*", "Queue": arn("Work")}],
                "LambdaConfigurations": [{"Event": "s3:ObjectRemoved:*", "Function": arn("Audit")}],
            },
        ),
        "Absent": resource("IoT::TopicRule", Actions=[{"Lambda": {"FunctionArn": arn("Audit")}}])
        | {"Condition": "Never"},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def stack(emulated: Emulated) -> Iterator[Stack]:
    client: Any = emulated.aws.cloudformation
    client.create_stack(StackName=STACK, TemplateBody=json.dumps(TEMPLATE))
    client.get_waiter("stack_create_complete").wait(StackName=STACK, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    yield find_stack(emulated.aws, STACK, next_step="")
    client.delete_stack(StackName=STACK)


@pytest.fixture(scope="module")
def graph(emulated: Emulated, stack: Stack) -> Graph:
    return read_pipeline(emulated.aws, stack, target="local")


def test_every_way_is_read_from_a_real_stack(graph: Graph) -> None:
    assert graph.unread == ()
    assert [(edge.source, edge.target, edge.words) for edge in graph.edges] == [
        ("Api", "Register", "POST /votes"),
        ("Audit", "Dead", "on failure"),
        ("AuditUrl", "Audit", "signed"),
        ("Bus", "Register", "rule Voted"),
        ("Bus", "Work", "rule Voted"),
        ("Hourly", "Audit", "rate(1 hour)"),
        ("News", "Counter", "subscription"),
        ("News", "Work", "subscription"),
        ("Nightly", "Audit", "cron(0 3 * * ? *)"),
        ("Register", "Votes", "named by TABLE"),
        ("Register", "Work", "named by QUEUE_URL"),
        ("Uploads", "Audit", "ObjectRemoved:*"),
        ("Uploads", "Work", "ObjectCreated:*"),
        ("Votes", "Audit", "its stream, batches of 10"),
        ("Work", "Counter", "batches of 7"),
        ("Work", "Dead", "dead letters after 3 receives"),
    ]
    assert [stage.id for stage in graph.stages] == ["Audit", "Counter", "Register"]
    assert {stage.runtime for stage in graph.stages} == {PYTHON_RUNTIME}
    assert {entry.kind for entry in graph.entries} == {
        Kind.API, Kind.BUCKET, Kind.BUS, Kind.FUNCTION, Kind.FUNCTION_URL, Kind.QUEUE, Kind.TABLE, Kind.TOPIC,
    }  # fmt: skip


def test_what_wakes_a_function_and_is_no_queue_does_not_run_here(graph: Graph) -> None:
    stages = {stage.id for stage in graph.stages}
    for edge in graph.edges:
        expected = Runs.NO if edge.wakes and edge.target in stages and edge.source != "Work" else Runs.YES
        assert edge.runs is expected, edge


def test_ways_past_functions_that_are_said_to_run_do(emulated: Emulated, stack: Stack, graph: Graph) -> None:
    assert {edge.source for edge in graph.edges if edge.target == "Work" and edge.wakes} == {"Bus", "News", "Uploads"}
    aws: Aws = emulated.aws
    (mapping,) = aws.lambda_.list_event_source_mappings(FunctionName=stack.resources["Counter"])["EventSourceMappings"]
    aws.lambda_.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)  # else the emulator itself receives
    aws.sns.publish(TopicArn=stack.resources["News"], Message="by the topic")
    event = {"EventBusName": "mapped-votes", "Source": "s", "DetailType": "Voted", "Detail": '{"by": "the bus"}'}
    aws.events.put_events(Entries=[event])
    aws.s3.put_object(Bucket="mapped-uploads", Key="by-the-bucket", Body=b"x")
    bodies: list[str] = []

    def all_came() -> bool:
        found = aws.sqs.receive_message(QueueUrl=stack.resources["Work"], MaxNumberOfMessages=10)
        bodies.extend(message["Body"] for message in found.get("Messages", []))
        return all(any(way in body for body in bodies) for way in ("by the topic", "the bus", "by-the-bucket"))

    wait_until(all_came, 20)
