"""What runs in the local stack and what does not: sources found in a template, edges of a pipeline graph. Pure.

The plane serves calls, SQS mappings and destinations. The emulator passes events of other sources to a Lambda of its
own, which is closed (docs/decisions/0017-one-lambda.md), so these events would be lost without a word.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec

from lambdalab.errors import UsageError
from lambdalab.records.pipeline import Edge, EdgeKind, Kind, Resource, Runs

KINDS: Final = {
    "AWS::ApiGateway::Authorizer": "REST API authorizer",
    "AWS::ApiGateway::Method": "REST API method",
    "AWS::ApiGateway::RestApi": "REST API",
    "AWS::ApiGatewayV2::Api": "HTTP or WebSocket API",
    "AWS::ApiGatewayV2::Authorizer": "API authorizer",
    "AWS::ApiGatewayV2::Integration": "API integration",
    "AWS::AppSync::DataSource": "AppSync data source",
    "AWS::AppSync::GraphQLApi": "AppSync authorizer",
    "AWS::Cognito::UserPool": "Cognito trigger",
    "AWS::ElasticLoadBalancingV2::TargetGroup": "load balancer target",
    "AWS::Events::Rule": "EventBridge rule",
    "AWS::IoT::TopicRule": "IoT rule",
    "AWS::KinesisFirehose::DeliveryStream": "Firehose transformation",
    "AWS::Lambda::Url": "function URL",
    "AWS::Logs::SubscriptionFilter": "log subscription",
    "AWS::Pipes::Pipe": "pipe",
    "AWS::S3::Bucket": "S3 notification",
    "AWS::S3ObjectLambda::AccessPoint": "S3 Object Lambda access point",
    "AWS::SES::ReceiptRule": "SES receipt rule",
    "AWS::SNS::Subscription": "SNS subscription",
    "AWS::SNS::Topic": "SNS subscription",
    "AWS::Scheduler::Schedule": "schedule",
    "AWS::SecretsManager::RotationSchedule": "secret rotation",
    "AWS::StepFunctions::StateMachine": "state machine",
}
"""Types of resources that wake the functions they name."""
_FUNCTIONS: Final = ("AWS::Lambda::Function", "AWS::Serverless::Function")
_ALIASES: Final = ("AWS::Lambda::Alias", "AWS::Lambda::Version")
_CUSTOM: Final = ("AWS::CloudFormation::CustomResource", "Custom::")
_SENT_BY_PLANE: Final = (Kind.QUEUE, Kind.TOPIC, Kind.BUS, Kind.FUNCTION)
"""Where the plane sends the outcome of an asynchronous invocation (``destinations.py``)."""
_DELIVERED_BY_EMULATOR: Final = (
    (EdgeKind.NOTIFICATION, Kind.QUEUE),
    (EdgeKind.RULE, Kind.QUEUE),
    (EdgeKind.SUBSCRIPTION, Kind.QUEUE),
)
"""Ways past functions that the emulator serves, shown by ``tests/local/test_map.py``."""
_DEFAULT_BUS: Final = "default"


class Waking(msgspec.Struct, frozen=True, kw_only=True):
    """A function, by its logical id, and what would wake it; ``source`` is a logical id or an ARN."""

    function: str
    kind: str
    source: str

    def __str__(self) -> str:
        return f"{self.kind} {self.source} {_lost(self.function)}"


def _lost(function: str) -> str:
    return (
        f"does not run here and will not wake {function}; "
        f"call the function with `lambdalab invoke {function} -e EVENT.json`"
    )


def wakings(template: Mapping[str, Any], deployed: Collection[str]) -> list[Waking]:
    """The sources of a processed template that do not run here; event source mappings are not among them.

    Args:
        template: the template.
        deployed: logical ids of the stack; a resource whose condition is false is not among them.
    """
    return [
        Waking(function=function, kind=KINDS[kind], source=name)
        for name, kind, properties in _resources(template)
        if kind in KINDS and name in deployed
        for function in _functions_in(template, properties)
        if function in deployed
    ]


def judge_edge(edge: Edge, source: Resource, target: Resource, declared: Mapping[str, Any]) -> Edge:
    """The edge with whether it works in a local stack, and why not.

    Args:
        edge: as the services tell it.
        source: where it begins.
        target: where it ends.
        declared: what the template says of the mapping that makes the edge.
    """
    runs, why = _judge(edge, source, target, declared)
    return msgspec.structs.replace(edge, runs=runs, why=why)


def _judge(edge: Edge, source: Resource, target: Resource, declared: Mapping[str, Any]) -> tuple[Runs, str]:
    if target.kind is Kind.FUNCTION and edge.wakes:
        if edge.kind is not EdgeKind.MAPPING or source.kind is not Kind.QUEUE:
            return Runs.NO, _lost(target.id)
        cautions = ", ".join(_mapping_cautions(edge, source, declared))
        return (Runs.CAUTION, cautions) if cautions else (Runs.YES, "")
    if edge.runs is Runs.NO:  # switched off, here as on AWS
        return edge.runs, edge.why
    if edge.kind is EdgeKind.FAILURE and edge.made_by:
        return Runs.NO, "does not run here: what is not delivered is lost"
    if not target.in_stack and target.name != _DEFAULT_BUS:
        return Runs.CAUTION, "leads out of the stack, to a resource that may not be here"
    if source.kind is Kind.FUNCTION and edge.kind is not EdgeKind.VARIABLE and target.kind not in _SENT_BY_PLANE:
        return Runs.NO, f"does not run here: the plane sends nothing to a {target.kind}"
    if edge.wakes and (edge.kind, target.kind) not in _DELIVERED_BY_EMULATOR:
        return Runs.CAUTION, "is the emulator's own work, which lambdalab does not test"
    return Runs.YES, ""


def _mapping_cautions(edge: Edge, queue: Resource, declared: Mapping[str, Any]) -> Iterator[str]:
    if not queue.in_stack:
        yield "polls a queue of another stack, which may not be here"
    if edge.alias:
        yield f"runs $LATEST here, not {edge.alias}"
    if declared.get("Enabled") in (False, "false"):
        yield "runs here although the template disables it"
    if "ProvisionedPollerConfig" in declared:
        yield "has no provisioned pollers here"


def judge_function(configuration: Mapping[str, Any]) -> tuple[Runs, str]:
    """Whether a function runs in a local stack as on AWS, and what differs, by its configuration."""
    variables = configuration.get("Environment", {}).get("Variables", {})
    cautions = []
    if configuration.get("LoggingConfig", {}).get("LogFormat") == "JSON":
        cautions.append("its log lines are text here, not JSON")
    if "AWS_LAMBDA_EXEC_WRAPPER" in variables:
        cautions.append("the wrapper that AWS_LAMBDA_EXEC_WRAPPER names does not run here")
    if configuration.get("VpcConfig", {}).get("VpcId"):
        cautions.append("it has the network of this machine here, not that of its VPC")
    return (Runs.CAUTION, ", ".join(cautions)) if cautions else (Runs.YES, "")


def refuse_custom_resources(template: Mapping[str, Any]) -> None:
    """Refuses a template, processed or not, whose own functions make its resources.

    The plane runs functions once all is deployed, and the deployment would wait an hour for the first answer. A
    resource with a condition is let through, because the condition may keep it out of a local stack.

    Raises:
        UsageError: the template has such a resource.
    """
    found = [
        f"{name} (by {function})"
        for name, kind, properties in _resources(template)
        if kind.startswith(_CUSTOM)
        and isinstance(properties, Mapping)
        and "Condition" not in template["Resources"][name]
        for function in _functions_in(template, properties.get("ServiceToken"))
    ]
    if found:
        raise UsageError(
            f"a local stack cannot make the custom resources {', '.join(found)}",
            next_step="keep them out of it with a Condition",
        )


def _resources(template: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    resources = template.get("Resources")
    for name, resource in resources.items() if isinstance(resources, Mapping) else ():
        if isinstance(resource, Mapping):
            yield str(name), str(resource.get("Type")), resource.get("Properties")


def _functions_in(template: Mapping[str, Any], value: Any) -> list[str]:
    """The template's functions and their aliases that a value refers to, each function once."""
    resources = list(_resources(template))
    owners = {name: name for name, kind, _ in resources if kind in _FUNCTIONS}
    for name, kind, properties in resources:
        if kind in _ALIASES and isinstance(properties, Mapping):
            of = [owners[one] for one in _references(properties.get("FunctionName")) if one in owners]
            owners.update((name, function) for function in of[:1])
    return list(dict.fromkeys(owners[one] for one in _references(value) if one in owners))


def _references(value: Any) -> Iterator[str]:
    """Logical ids that a value may refer to: by Ref, Fn::GetAtt or Fn::Sub, or as the short forms are read."""
    if isinstance(value, Mapping):
        for member in value.values():
            yield from _references(member)
    elif isinstance(value, list):
        for member in value:
            yield from _references(member)
    elif isinstance(value, str):
        yield value.split(".")[0]
        for part in value.split("${")[1:]:
            yield part.split("}")[0].split(".")[0]
