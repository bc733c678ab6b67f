"""What would wake functions in ways that do not run in the local stack, found in a template. Pure.

The plane serves calls and SQS mappings. The emulator passes events of other sources to a Lambda of its own, which is
closed (docs/decisions/0017-one-lambda.md), so these events would be lost without a word.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from lambdalab.errors import UsageError

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


class Waking(msgspec.Struct, frozen=True, kw_only=True):
    """A function, by its logical id, and what would wake it; ``source`` is a logical id or an ARN."""

    function: str
    kind: str
    source: str

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.source} does not run here and will not wake {self.function}; "
            f"call the function with `lambdalab invoke {self.function} -e EVENT.json`"
        )


def wakings(template: Mapping[str, Any]) -> list[Waking]:
    """The sources of a processed template that do not run here; event source mappings are not among them."""
    return [
        Waking(function=function, kind=KINDS[kind], source=name)
        for name, kind, properties in _resources(template)
        if kind in KINDS
        for function in _functions_in(template, properties)
    ]


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
