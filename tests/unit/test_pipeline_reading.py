"""The pipeline graph from recorded answers of AWS: every kind of edge, what does not run here, what is not read."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from recorded_aws import Answer, RecordedAws

from lambdalab.aws.pipeline_reading import read_pipeline
from lambdalab.aws.stack import Stack
from lambdalab.records.pipeline import Edge, Entry, Graph, Kind, Runs

ACCOUNT = "us-east-1:123456789012"
SQS = f"arn:aws:sqs:{ACCOUNT}:"
WORKER_ARN = f"arn:aws:lambda:{ACCOUNT}:function:shop-worker"
URL = "https://sqs.us-east-1.amazonaws.com/123456789012/"
INVOKE = "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions"
LOST = "does not run here and will not wake Worker; call the function with `lambdalab invoke Worker -e EVENT.json`"
PHYSICAL = {
    "Worker": ("AWS::Lambda::Function", "shop-worker"),
    "Other": ("AWS::Lambda::Function", "shop-other"),
    "Work": ("AWS::SQS::Queue", f"{URL}shop-Work-1"),
    "Dead": ("AWS::SQS::Queue", f"{URL}shop-Dead-1"),
    "Orders": ("AWS::DynamoDB::Table", "shop-Orders-1"),
    "Clicks": ("AWS::Kinesis::Stream", "shop-Clicks-1"),
    "Uploads": ("AWS::S3::Bucket", "shop-uploads"),
    "News": ("AWS::SNS::Topic", f"arn:aws:sns:{ACCOUNT}:shop-News-1"),
    "Shop": ("AWS::Events::EventBus", "shop-bus"),
    "OnOrder": ("AWS::Events::Rule", "shop-bus|shop-OnOrder-1"),
    "Nightly": ("AWS::Scheduler::Schedule", "shop-nightly"),
    "Rest": ("AWS::ApiGateway::RestApi", "rest1"),
    "Http": ("AWS::ApiGatewayV2::Api", "http1"),
    "WorkerUrl": ("AWS::Lambda::Url", WORKER_ARN),
    "Poll": ("AWS::Lambda::EventSourceMapping", "11111111-1111-1111-1111-111111111111"),
    "Alerts": ("AWS::SNS::Topic", f"arn:aws:sns:{ACCOUNT}:shop-Alerts-1"),
    "NewsToWork": ("AWS::SNS::Subscription", f"arn:aws:sns:{ACCOUNT}:shop-News-1:1a2b"),
    "Users": ("AWS::Cognito::UserPool", "us-east-1_abc"),
    "Nested": ("AWS::CloudFormation::Stack", f"arn:aws:cloudformation:{ACCOUNT}:stack/shop-Nested-1/9f"),
}
NOTHING: dict[str, Answer] = {
    "GetTemplate": {"TemplateBody": "{}"},
    "GetFunctionConfiguration": lambda asked: {"FunctionName": asked["FunctionName"], "Runtime": "python3.12"},
    "ListEventSourceMappings": {"EventSourceMappings": []},
    "ListFunctionEventInvokeConfigs": {"FunctionEventInvokeConfigs": []},
    "ListFunctionUrlConfigs": {"FunctionUrlConfigs": []},
    "GetQueueAttributes": {"Attributes": {}},
    "GetBucketNotificationConfiguration": {},
    "ListSubscriptionsByTopic": {"Subscriptions": []},
}
"""What a stack answers in which nothing leads anywhere."""
AWS = RecordedAws()


def read(*logical: str, target: str = "aws", answers: Mapping[str, Answer] | None = None, **more: Answer) -> Graph:
    """The graph of a stack of these resources, whose services answer so."""
    chosen = {name: PHYSICAL[name] for name in ("Worker", *logical)}
    stack = Stack(
        name="shop",
        outputs={},
        parameters={},
        resources={name: physical for name, (_, physical) in chosen.items()},
        types={name: type_ for name, (type_, _) in chosen.items()},
        stack_id=f"arn:aws:cloudformation:{ACCOUNT}:stack/shop/1",
    )
    AWS.answers = NOTHING | dict(answers or {}) | more
    return read_pipeline(AWS, stack, target=target)


def ways(graph: Graph) -> list[tuple[str, str, str]]:
    return [(edge.source, edge.target, edge.words) for edge in graph.edges]


def only(graph: Graph) -> Edge:
    (edge,) = graph.edges
    return edge


def configured(**more: Any) -> dict[str, Any]:
    return {"FunctionName": "shop-worker", "FunctionArn": WORKER_ARN, **more}


def mapping(source: str, **more: Any) -> dict[str, Any]:
    found = {
        "UUID": PHYSICAL["Poll"][1],
        "EventSourceArn": source,
        "FunctionArn": WORKER_ARN,
        "State": "Enabled",
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0,
    }
    return {"EventSourceMappings": [found | more]}


@pytest.mark.parametrize("target", ["aws", "local"])
def test_a_queue_polled_in_batches_runs_everywhere(target: str) -> None:
    scaled = mapping(f"{SQS}shop-Work-1", BatchSize=5, ScalingConfig={"MaximumConcurrency": 2})
    graph = read("Work", "Poll", target=target, ListEventSourceMappings=scaled)
    edge = only(graph)
    assert (edge.source, edge.target, edge.made_by, edge.runs) == ("Work", "Worker", "Poll", Runs.YES)
    assert edge.words == "batches of 5, at most 2 at once"
    assert [queue.name for queue in graph.queues("Worker")] == [f"{URL}shop-Work-1"]


def test_filters_and_window_of_a_mapping_are_said() -> None:
    filtered = mapping(
        f"{SQS}shop-Work-1", FilterCriteria={"Filters": [{"Pattern": "{}"}]}, MaximumBatchingWindowInSeconds=3
    )
    assert only(read("Work", ListEventSourceMappings=filtered)).words == "filtered, batches of 10, window 3 s"


def test_a_mapping_of_an_alias_that_is_not_listed_is_asked_for() -> None:
    (one,) = mapping(f"{SQS}shop-Work-1", FunctionArn=f"{WORKER_ARN}:live")["EventSourceMappings"]
    asked: dict[str, Answer] = {"GetEventSourceMapping": one}
    assert only(read("Work", "Poll", answers=asked)).words == "alias live, batches of 10"
    edge = only(read("Work", "Poll", target="local", answers=asked))
    assert (edge.runs, edge.why) == (Runs.CAUTION, "runs $LATEST here, not live")


def test_a_mapping_that_is_switched_off_does_not_run_on_aws() -> None:
    edge = only(read("Work", ListEventSourceMappings=mapping(f"{SQS}shop-Work-1", State="Disabled")))
    assert (edge.runs, edge.why) == (Runs.NO, "is disabled")


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ({}, ""),
        ({"Enabled": False}, "runs here although the template disables it"),
        ({"ProvisionedPollerConfig": {"MinimumPollers": 2}}, "has no provisioned pollers here"),
    ],
)
def test_locally_the_plane_runs_what_the_emulator_says_is_disabled(declared: dict[str, Any], why: str) -> None:
    template = {"Resources": {"Poll": {"Type": "AWS::Lambda::EventSourceMapping", "Properties": declared}}}
    edge = only(
        read(
            "Work",
            "Poll",
            target="local",
            ListEventSourceMappings=mapping(f"{SQS}shop-Work-1", State="Disabled"),
            GetTemplate={"TemplateBody": json.dumps(template)},
        )
    )
    assert (edge.runs, edge.why) == (Runs.CAUTION if why else Runs.YES, why)


def test_a_queue_of_another_stack_is_named_by_its_arn() -> None:
    elsewhere = "arn:aws:sqs:eu-west-1:123456789012:shop-Work-1"
    graph = read("Work", target="local", ListEventSourceMappings=mapping(elsewhere))
    edge = only(graph)
    assert (edge.source, edge.target) == (elsewhere, "Worker")
    assert edge.why == "polls a queue of another stack, which may not be here"
    found = {of.id: (of.kind, of.label, of.in_stack) for of in graph.resources}
    assert found[elsewhere] == (Kind.QUEUE, "shop-Work-1", False)


@pytest.mark.parametrize(
    ("source", "logical", "words"),
    [
        (f"arn:aws:dynamodb:{ACCOUNT}:table/shop-Orders-1/stream/2026-11-30T00:00:00.000", "Orders", "its stream, "),
        (f"arn:aws:kinesis:{ACCOUNT}:stream/shop-Clicks-1", "Clicks", ""),
    ],
)
def test_a_stream_wakes_a_function_on_aws_only(source: str, logical: str, words: str) -> None:
    answer = mapping(
        source, BatchSize=100, DestinationConfig={"OnFailure": {"Destination": f"{SQS}shop-Dead-1"}, "OnSuccess": {}}
    )
    graph = read(logical, "Dead", ListEventSourceMappings=answer)
    given_up = ("Worker", "Dead", "on failure of the mapping")
    assert sorted(ways(graph)) == sorted([(logical, "Worker", f"{words}batches of 100"), given_up])
    assert {edge.runs for edge in graph.edges} == {Runs.YES}
    local = read(logical, "Dead", "Poll", target="local", ListEventSourceMappings=answer)
    assert {(edge.source, edge.runs, edge.why) for edge in local.edges} == {
        (logical, Runs.NO, LOST),
        ("Worker", Runs.NO, "does not run here: what is not delivered is lost"),
    }


def test_a_self_managed_kafka_is_named_by_its_servers() -> None:
    answer = mapping("", SelfManagedEventSource={"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a:9092", "b:9092"]}})
    del answer["EventSourceMappings"][0]["EventSourceArn"]
    assert ways(read(ListEventSourceMappings=answer)) == [("a:9092, b:9092", "Worker", "batches of 10")]


def test_dead_letters_of_a_queue() -> None:
    def attributes(asked: dict[str, Any]) -> dict[str, Any]:
        policy = {"deadLetterTargetArn": f"{SQS}shop-Dead-1", "maxReceiveCount": "5"}
        return {"Attributes": {"RedrivePolicy": json.dumps(policy)} if "Work" in asked["QueueUrl"] else {}}

    graph = read("Work", "Dead", target="local", GetQueueAttributes=attributes)
    edge = only(graph)
    assert (edge.source, edge.target, edge.words) == ("Work", "Dead", "dead letters after 5 receives")
    assert (edge.runs, edge.wakes) == (Runs.YES, False)
    assert [queue.id for queue in graph.dead_letters("Work")] == ["Dead"]


def test_asynchronous_calls_end_at_destinations() -> None:
    config = {
        "FunctionArn": f"{WORKER_ARN}:$LATEST",
        "DestinationConfig": {
            "OnSuccess": {"Destination": f"arn:aws:lambda:{ACCOUNT}:function:shop-other"},
            "OnFailure": {"Destination": f"arn:aws:events:{ACCOUNT}:event-bus/shop-bus"},
        },
    }
    answers: dict[str, Answer] = {
        "ListFunctionEventInvokeConfigs": lambda asked: {
            "FunctionEventInvokeConfigs": [config] if asked["FunctionName"] == "shop-worker" else []
        },
        "GetFunctionConfiguration": lambda asked: (
            configured(DeadLetterConfig={"TargetArn": f"{SQS}shop-Dead-1"})
            if asked["FunctionName"] == "shop-worker"
            else {}
        ),
    }
    graph = read("Other", "Shop", "Dead", target="local", answers=answers)
    assert ways(graph) == [
        ("Worker", "Dead", "dead letters asynchronous calls"),
        ("Worker", "Other", "on success"),
        ("Worker", "Shop", "on failure"),
    ]
    assert {edge.runs for edge in graph.edges} == {Runs.YES}, "the plane sends to all of these"
    assert not any(edge.wakes for edge in graph.edges)


def test_a_destination_that_the_plane_does_not_know() -> None:
    to_bucket = {"DestinationConfig": {"OnFailure": {"Destination": "arn:aws:s3:::shop-uploads"}}}
    answers: dict[str, Answer] = {"ListFunctionEventInvokeConfigs": {"FunctionEventInvokeConfigs": [to_bucket]}}
    assert only(read("Uploads", answers=answers)).runs is Runs.YES
    edge = only(read("Uploads", target="local", answers=answers))
    assert (edge.target, edge.why) == ("Uploads", "does not run here: the plane sends nothing to a bucket")


def test_variables_name_resources_and_their_values_are_not_kept() -> None:
    variables = {
        "TABLE_NAME": "shop-Orders-1",
        "TABLE_ARN": f"arn:aws:dynamodb:{ACCOUNT}:table/shop-Orders-1",
        "QUEUE_URL": f"{URL}shop-Work-1",
        "QUEUE_NAME": "shop-Dead-1",
        "OUTPUT": "s3://shop-uploads/results/today",
        "TOPIC": PHYSICAL["News"][1],
        "BUS": "shop-bus",
        "FAR": "arn:aws:dynamodb:eu-west-1:999999999999:table/shop-Orders-1",
        "EMPTY": "",
        "MODE": "shop",
        "PASSWORD": "hunter2",
    }
    answer = configured(Environment={"Variables": variables})
    graph = read("Orders", "Work", "Dead", "Uploads", "News", "Shop", GetFunctionConfiguration=answer)
    assert sorted(ways(graph)) == sorted(
        [
            ("Worker", "Orders", "named by TABLE_ARN, TABLE_NAME"),
            ("Worker", "Work", "named by QUEUE_URL"),
            ("Worker", "Dead", "named by QUEUE_NAME"),
            ("Worker", "Uploads", "named by OUTPUT"),
            ("Worker", "News", "named by TOPIC"),
            ("Worker", "Shop", "named by BUS"),
            ("Worker", variables["FAR"], "named by FAR"),
        ]
    )
    assert b"hunter2" not in msgspec.json.encode(graph)


RULE = {
    "Name": "shop-OnOrder-1",
    "EventBusName": "shop-bus",
    "State": "ENABLED",
    "EventPattern": '{"source": ["shop"], "detail-type": ["Ordered", "Cancelled"]}',
}
TO_WORK = {"Id": "1", "Arn": f"{SQS}shop-Work-1", "DeadLetterConfig": {"Arn": f"{SQS}shop-Dead-1"}}


def test_a_rule_leads_from_its_bus_to_its_targets() -> None:
    targets = [{"Id": "0", "Arn": f"{WORKER_ARN}:live"}, TO_WORK]
    answers: dict[str, Answer] = {"DescribeRule": RULE, "ListTargetsByRule": {"Targets": targets}}
    graph = read("Shop", "OnOrder", "Work", "Dead", answers=answers)
    assert ways(graph) == [
        ("Shop", "Dead", "on failure what OnOrder cannot deliver"),
        ("Shop", "Work", "rule Ordered, Cancelled"),
        ("Shop", "Worker", "rule Ordered, Cancelled, alias live"),
    ]
    assert {edge.made_by for edge in graph.edges} == {"OnOrder"}
    local = read("Shop", "OnOrder", "Work", "Dead", target="local", answers=answers)
    assert [edge.runs for edge in local.edges] == [Runs.NO, Runs.YES, Runs.NO]


def test_the_emulators_id_of_a_rule_lacks_the_bus() -> None:
    def describe(asked: dict[str, Any]) -> dict[str, Any] | str:
        return RULE if asked["EventBusName"] == "shop-bus" else "ResourceNotFoundException"

    bare = PHYSICAL | {"OnOrder": ("AWS::Events::Rule", "shop-OnOrder-1")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PHYSICAL, "OnOrder", bare["OnOrder"])
        graph = read("Shop", "OnOrder", "Work", DescribeRule=describe, ListTargetsByRule={"Targets": [TO_WORK]})
    assert ("Shop", "Work", "rule Ordered, Cancelled") in ways(graph)
    assert graph.unread == ()


@pytest.mark.parametrize("state", ["ENABLED", "DISABLED"])
def test_a_rule_with_a_schedule_and_one_that_is_off(state: str) -> None:
    rule = {
        "Name": "shop-OnOrder-1",
        "EventBusName": "default",
        "State": state,
        "ScheduleExpression": "rate(5 minutes)",
    }
    targets = {"Targets": [{"Id": "0", "Arn": WORKER_ARN}]}
    graph = read("OnOrder", DescribeRule=rule, ListTargetsByRule=targets)
    edge = only(graph)
    assert (edge.source, edge.words) == ("OnOrder", "rate(5 minutes)")
    assert (edge.runs, edge.why) == ((Runs.YES, "") if state == "ENABLED" else (Runs.NO, "is disabled"))
    assert [of.kind for of in graph.resources] == [Kind.SCHEDULE]


def test_a_pattern_that_lists_neither_type_nor_source_is_shown_in_short() -> None:
    pattern = {"detail": {"name": [{"prefix": "x" * 90}]}}
    rule = RULE | {"EventPattern": json.dumps(pattern)}
    graph = read("Shop", "OnOrder", DescribeRule=rule, ListTargetsByRule={"Targets": [{"Id": "0", "Arn": WORKER_ARN}]})
    assert only(graph).words == f"rule {json.dumps(pattern)[:60]}…"


def test_a_schedule() -> None:
    graph = read(
        "Nightly",
        ListSchedules={"Schedules": [{"Name": "shop-nightly", "GroupName": "g"}, {"Name": "shop-nightly-2"}]},
        GetSchedule={
            "Name": "shop-nightly",
            "ScheduleExpression": "cron(0 3 * * ? *)",
            "Target": {"Arn": WORKER_ARN, "RoleArn": "arn:aws:iam::123456789012:role/r"},
        },
    )
    assert ways(graph) == [("Nightly", "Worker", "cron(0 3 * * ? *)")]
    assert [entry.id for entry in graph.entries] == ["Worker"], "a schedule is no place to send work to"


def test_notifications_of_a_bucket() -> None:
    of_images = {"Key": {"FilterRules": [{"Name": "Prefix", "Value": "in/"}, {"Name": "Suffix", "Value": ".png"}]}}
    answer = {
        "LambdaFunctionConfigurations": [
            {"LambdaFunctionArn": WORKER_ARN, "Events": ["s3:ObjectCreated:*"], "Filter": of_images}
        ],
        "QueueConfigurations": [{"QueueArn": f"{SQS}shop-Work-1", "Events": ["s3:ObjectRemoved:*"]}],
        "TopicConfigurations": [{"TopicArn": PHYSICAL["News"][1], "Events": ["s3:ObjectCreated:*"]}],
        "EventBridgeConfiguration": {},
    }
    answers: dict[str, Answer] = {"GetBucketNotificationConfiguration": answer}
    graph = read("Uploads", "Work", "News", target="local", answers=answers)
    assert [(edge.target, edge.words, edge.runs) for edge in graph.edges] == [
        ("News", "ObjectCreated:*", Runs.CAUTION),
        ("Work", "ObjectRemoved:*", Runs.YES),
        ("Worker", "ObjectCreated:*, prefix in/, suffix .png", Runs.NO),
        ("default", "all events", Runs.CAUTION),
    ]


def subscription(protocol: str, endpoint: str, arn: str = f"arn:aws:sns:{ACCOUNT}:shop-News-1:1a2b") -> dict[str, Any]:
    return {
        "SubscriptionArn": arn, "Owner": "123456789012", "Protocol": protocol, "Endpoint": endpoint,
        "TopicArn": PHYSICAL["News"][1],
    }  # fmt: skip


def test_subscriptions_of_a_topic() -> None:
    pending = subscription("email", "me@example.org", "PendingConfirmation")
    rows = [subscription("lambda", WORKER_ARN, "arn:aws:sns:x"), subscription("sqs", f"{SQS}shop-Work-1"), pending]
    graph = read("News", "NewsToWork", "Work", ListSubscriptionsByTopic={"Subscriptions": rows})
    assert [(edge.target, edge.made_by, edge.runs) for edge in graph.edges] == [
        ("Work", "NewsToWork", Runs.YES),
        ("Worker", "", Runs.YES),
        ("email subscriber", "", Runs.NO),
    ]
    assert b"example.org" not in msgspec.json.encode(graph), "an address of a person is not kept"


def test_a_subscription_to_a_topic_of_another_stack() -> None:
    attributes = subscription("sqs", f"{SQS}shop-Work-1") | {"PendingConfirmation": "false"}
    graph = read("NewsToWork", "Work", GetSubscriptionAttributes={"Attributes": attributes})
    assert ways(graph) == [(PHYSICAL["News"][1], "Work", "subscription")]


def test_a_function_url() -> None:
    url = {"FunctionUrl": "https://abc.lambda-url.us-east-1.on.aws/", "FunctionArn": WORKER_ARN, "AuthType": "NONE"}
    answers: dict[str, Answer] = {
        "ListFunctionUrlConfigs": {
            "FunctionUrlConfigs": [url | {"CreationTime": "2026-11-30", "LastModifiedTime": "2026-11-30"}]
        }
    }
    graph = read("WorkerUrl", answers=answers)
    assert ways(graph) == [("WorkerUrl", "Worker", "open to all")]
    assert graph.entries[0] == Entry(id="WorkerUrl", kind=Kind.FUNCTION_URL, address=url["FunctionUrl"])
    assert only(read(answers=answers)).source == url["FunctionUrl"], "one that the stack does not own"


def rest(**integration: Any) -> dict[str, Any]:
    method = {"httpMethod": "POST", "methodIntegration": integration}
    return {"items": [{"id": "r", "path": "/"}, {"id": "s", "path": "/votes", "resourceMethods": {"POST": method}}]}


def test_routes_of_a_rest_api_to_a_function() -> None:
    answer = rest(type="AWS_PROXY", uri=f"{INVOKE}/{WORKER_ARN}:live/invocations")
    options = {"OPTIONS": {"httpMethod": "OPTIONS", "methodIntegration": {"type": "MOCK"}}}
    answer["items"][1]["resourceMethods"] |= options
    graph = read("Rest", GetResources=answer)
    assert ways(graph) == [("Rest", "Worker", "POST /votes, alias live")]
    assert graph.entries[0] == Entry(id="Rest", kind=Kind.API, address="rest1", detail="POST /votes")
    assert only(read("Rest", target="local", GetResources=answer)).why == LOST


@pytest.mark.parametrize(
    ("integration", "target"),
    [
        ({"uri": "arn:aws:apigateway:us-east-1:sqs:path/123456789012/shop-Work-1"}, "Work"),
        ({"uri": "arn:aws:apigateway:us-east-1:s3:path/shop-uploads/{key}"}, "Uploads"),
        (
            {
                "uri": "arn:aws:apigateway:us-east-1:events:action/PutEvents",
                "requestTemplates": {"application/json": '{"Entries": [{"EventBusName": "shop-bus", "Detail": "$x"}]}'},
            },
            "Shop",
        ),
        (
            {
                "uri": "arn:aws:apigateway:us-east-1:events:action/PutEvents",
                "requestTemplates": {"application/json": '{"Entries": [{"Detail": "$input.json()"}]}'},
            },
            "default",
        ),
        (
            {
                "uri": "arn:aws:apigateway:us-east-1:dynamodb:action/PutItem",
                "requestTemplates": {"application/json": '{"TableName": "shop-Orders-1"}'},
            },
            "Orders",
        ),
        (
            {
                "uri": "arn:aws:apigateway:us-east-1:sqs:action/SendMessage",
                "requestParameters": {"integration.request.querystring.QueueUrl": f"'{URL}shop-Work-1'"},
            },
            "Work",
        ),
        ({"uri": "https://example.org/hook?key=secret", "type": "HTTP"}, "https://example.org/hook"),
    ],
)
def test_routes_that_pass_functions_by(integration: dict[str, Any], target: str) -> None:
    graph = read("Rest", "Work", "Uploads", "Shop", "Orders", GetResources=rest(**integration))
    assert ways(graph) == [("Rest", target, "POST /votes")]
    assert graph.unread == ()


def test_a_route_whose_request_decides_its_end_is_said_to_be_unread() -> None:
    uri = "arn:aws:apigateway:us-east-1:sqs:action/SendMessage"
    templates = {"application/x-www-form-urlencoded": "Action=SendMessage&QueueUrl=$input.params('queue')"}
    graph = read("Rest", "Work", GetResources=rest(uri=uri, requestTemplates=templates))
    assert graph.unread == (f"POST /votes of API Rest: its request decides what {uri} reaches",)
    assert only(graph).target == uri


def test_routes_of_an_http_api() -> None:
    routes = [{"RouteKey": "GET /", "Target": "integrations/a"}, {"RouteKey": "POST /work", "Target": "integrations/b"}]
    integrations = [
        {"IntegrationId": "a", "IntegrationType": "AWS_PROXY", "IntegrationUri": WORKER_ARN},
        {
            "IntegrationId": "b",
            "IntegrationType": "AWS_PROXY",
            "IntegrationSubtype": "SQS-SendMessage",
            "RequestParameters": {"QueueUrl": f"{URL}shop-Work-1", "MessageBody": "$request.body"},
        },
    ]
    graph = read("Http", "Work", GetRoutes={"Items": routes}, GetIntegrations={"Items": integrations})
    assert ways(graph) == [("Http", "Work", "POST /work"), ("Http", "Worker", "GET /")]
    assert [entry.detail for entry in graph.entries if entry.id == "Http"] == ["POST /work", "GET /"]


TEMPLATE = {
    "Resources": {
        "Worker": {"Type": "AWS::Lambda::Function"},
        "Http": {"Type": "AWS::ApiGatewayV2::Api", "Properties": {"Body": {"uri": {"Fn::Sub": "${Worker.Arn}"}}}},
        "News": {"Type": "AWS::SNS::Topic", "Properties": {"Subscription": [{"Endpoint": {"Ref": "Worker"}}]}},
        "Users": {"Type": "AWS::Cognito::UserPool", "Properties": {"LambdaConfig": {"PreSignUp": {"Ref": "Worker"}}}},
        "Absent": {"Type": "AWS::IoT::TopicRule", "Properties": {"Actions": [{"Ref": "Worker"}]}},
    }
}


def test_the_template_tells_what_no_service_told() -> None:
    answers: dict[str, Answer] = {
        "GetTemplate": {"TemplateBody": json.dumps(TEMPLATE)},
        "GetRoutes": {"Items": []},  # the emulator imports no OpenAPI document of an HTTP API
        "GetIntegrations": {"Items": []},
        "ListSubscriptionsByTopic": {"Subscriptions": [subscription("lambda", WORKER_ARN)]},
    }
    graph = read("Http", "News", "Users", target="local", answers=answers)
    assert ways(graph) == [
        ("Http", "Worker", "HTTP or WebSocket API"),
        ("News", "Worker", "subscription"),
        ("Users", "Worker", "Cognito trigger"),
    ]
    assert {edge.why for edge in graph.edges} == {LOST}
    assert graph.unread == ("routes of API Http: API Gateway tells none that leads anywhere",)
    (users,) = (of for of in graph.resources if of.id == "Users")
    assert (users.kind, users.words) == (Kind.OTHER, "Cognito UserPool")


def test_what_a_service_refuses_is_named_and_the_template_stands_in() -> None:
    graph = read(
        "News",
        GetTemplate={"TemplateBody": json.dumps(TEMPLATE)},
        ListSubscriptionsByTopic="AccessDenied",
        GetFunctionConfiguration="AccessDeniedException",
    )
    assert ways(graph) == [("News", "Worker", "SNS subscription")]
    assert graph.unread == (
        "GetFunctionConfiguration on function Worker was refused: AccessDeniedException: not allowed",
        "ListSubscriptionsByTopic on topic News was refused: AccessDenied: not allowed",
    )
    (stage,) = graph.stages
    assert (stage.function_name, stage.runtime, stage.log_group) == ("shop-worker", None, None)


def test_what_is_refused_of_one_topic_is_not_taken_from_another() -> None:
    def listed(asked: dict[str, Any]) -> dict[str, Any] | str:
        return (
            {"Subscriptions": [subscription("lambda", WORKER_ARN)]} if "News" in asked["TopicArn"] else "AccessDenied"
        )

    both = TEMPLATE["Resources"] | {"Alerts": TEMPLATE["Resources"]["News"]}
    body = {"TemplateBody": json.dumps({"Resources": both})}
    graph = read("News", "Alerts", GetTemplate=body, ListSubscriptionsByTopic=listed)
    assert ways(graph) == [("Alerts", "Worker", "SNS subscription"), ("News", "Worker", "subscription")]


def test_without_its_template_a_stack_is_read_all_the_same() -> None:
    graph = read("Work", GetTemplate="AccessDenied", ListEventSourceMappings=mapping(f"{SQS}shop-Work-1"))
    assert ways(graph) == [("Work", "Worker", "batches of 10")]
    assert graph.unread == ("GetTemplate on the template of stack shop was refused: AccessDenied: not allowed",)


def test_a_nested_stack_is_named() -> None:
    assert read("Nested").unread == ("nested stack Nested: a map of its own shows it, of stack shop-Nested-1",)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, ""),
        ({"LoggingConfig": {"LogFormat": "JSON", "LogGroup": "own"}}, "its log lines are text here, not JSON"),
        (
            {"Environment": {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}}},
            "the wrapper that AWS_LAMBDA_EXEC_WRAPPER names does not run here",
        ),
        ({"VpcConfig": {"VpcId": "vpc-1"}}, "it has the network of this machine here, not that of its VPC"),
    ],
)
def test_a_function_says_what_differs_here(more: dict[str, Any], why: str) -> None:
    answer = configured(Runtime="python3.12", **more)
    (local,) = read(target="local", GetFunctionConfiguration=answer).stages
    assert (local.runs, local.why) == (Runs.CAUTION if why else Runs.YES, why)
    (there,) = read(GetFunctionConfiguration=answer).stages
    assert (there.runs, there.why, there.runtime) == (Runs.YES, "", "python3.12")
    assert there.log_group == more.get("LoggingConfig", {}).get("LogGroup", "/aws/lambda/shop-worker")


def test_a_graph_is_stored_and_read_again() -> None:
    graph = read("Work", "Poll", "Dead", ListEventSourceMappings=mapping(f"{SQS}shop-Work-1", State="Disabled"))
    assert msgspec.json.decode(msgspec.json.encode(graph), type=Graph) == graph
