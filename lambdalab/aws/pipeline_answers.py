"""Edges of the pipeline graph, from what AWS services answer about mappings, rules, APIs, topics and others. Pure.

An answer is a dictionary as boto3 returns it. An id is a logical id if the stack has the resource, else its ARN.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from lambdalab.aws.pipeline_names import Names
from lambdalab.records.pipeline import Edge, EdgeKind, Kind, Resource, Runs

Answer = Mapping[str, Any]
DISABLED: Final = "is disabled"
_LONGEST_WORDS: Final = 60
"""Length in characters at which an event pattern is cut."""
_FUNCTION_URI: Final = re.compile(r"functions/(arn:[^/]+)/invocations")
_NAMING: Final = re.compile(
    r"\b(EventBusName|QueueUrl|StateMachineArn|StreamName|TableName|TopicArn)\W+?([A-Za-z0-9_%$][^'\"&\s,}]*)",
    re.IGNORECASE,
)
"""The member of a request that names a resource, in a mapping template or a list of parameters, and its value."""
_NAMED_KIND: Final = {
    "eventbusname": Kind.BUS,
    "queueurl": Kind.QUEUE,
    "statemachinearn": Kind.STATE_MACHINE,
    "streamname": Kind.STREAM,
    "tablename": Kind.TABLE,
    "topicarn": Kind.TOPIC,
}
_NOTIFICATIONS: Final = {
    "LambdaFunctionConfigurations": "LambdaFunctionArn",
    "QueueConfigurations": "QueueArn",
    "TopicConfigurations": "TopicArn",
}


class Route(NamedTuple):
    """A route of an API, or an integration without one."""

    detail: str
    uri: str
    request: str
    """Mapping templates and parameters, as one text."""


def mapping_edges(answer: Answer, names: Names, made_by: str = "") -> Iterator[Edge]:
    """The edges of an event source mapping: to its function, and to where records go that are given up."""
    servers = answer.get("SelfManagedEventSource", {}).get("Endpoints", {}).get("KAFKA_BOOTSTRAP_SERVERS", [])
    source = names.id_of(answer.get("EventSourceArn") or ", ".join(servers) or "self-managed source")
    stage = names.id_of(answer["FunctionArn"])
    numbers = {
        "batch_size": answer.get("BatchSize"),
        "window_s": answer.get("MaximumBatchingWindowInSeconds"),
        "maximum_concurrency": answer.get("ScalingConfig", {}).get("MaximumConcurrency"),
    }
    off = answer.get("State") in ("Disabled", "Disabling")
    words = (
        "its stream" if names.resources[source].kind is Kind.TABLE else "",
        "filtered" if answer.get("FilterCriteria", {}).get("Filters") else "",
    )
    yield Edge(
        source=source,
        target=stage,
        kind=EdgeKind.MAPPING,
        detail=", ".join(filter(None, words)),
        alias=qualifier(answer["FunctionArn"]),
        made_by=made_by,
        settings={name: number for name, number in numbers.items() if number},
        runs=Runs.NO if off else Runs.YES,
        why=DISABLED if off else "",
    )
    if given_up := answer.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination"):
        target = names.id_of(given_up)
        yield Edge(source=stage, target=target, kind=EdgeKind.FAILURE, detail="of the mapping", made_by=made_by)


def qualifier(arn: str) -> str:
    """The alias or version at the end of a function's ARN; empty if it has none."""
    return arn.partition(":function:")[2].partition(":")[2].replace("$LATEST", "")


def function_edges(stage: str, configuration: Answer, event_configs: Iterable[Answer], names: Names) -> Iterator[Edge]:
    """Where asynchronous events of a function go, and what its variables name."""
    for config in event_configs:
        for outcome, kind in (("OnSuccess", EdgeKind.SUCCESS), ("OnFailure", EdgeKind.FAILURE)):
            if arn := config.get("DestinationConfig", {}).get(outcome, {}).get("Destination"):
                alias = qualifier(config.get("FunctionArn", ""))
                detail = f"alias {alias}" if alias else ""
                yield Edge(source=stage, target=names.id_of(arn), kind=kind, detail=detail)
    if arn := configuration.get("DeadLetterConfig", {}).get("TargetArn"):
        yield Edge(source=stage, target=names.id_of(arn), kind=EdgeKind.DEAD_LETTERS, detail="asynchronous calls")
    named: dict[str, list[str]] = {}
    for variable, value in sorted(configuration.get("Environment", {}).get("Variables", {}).items()):
        if (target := names.named_by(value)) is not None:
            named.setdefault(target, []).append(variable)
    for target, variables in named.items():
        yield Edge(source=stage, target=target, kind=EdgeKind.VARIABLE, detail=", ".join(variables))


def url_edges(stage: str, answer: Answer, names: Names, logical: str) -> Iterator[Edge]:
    """The edge of a function URL. ``logical`` is its logical id, or empty if the stack does not own it."""
    url = answer["FunctionUrl"]
    source = logical or url
    names.resources[source] = Resource(
        id=source, kind=Kind.FUNCTION_URL, name=url, type="AWS::Lambda::Url", in_stack=bool(logical)
    )
    detail = "signed" if answer.get("AuthType") == "AWS_IAM" else "open to all"
    yield Edge(source=source, target=stage, kind=EdgeKind.URL, detail=detail)


def redrive_edges(queue: str, answer: Answer, names: Names) -> Iterator[Edge]:
    """The edge from a queue to its dead-letter queue, by its attributes."""
    policy = json.loads(answer.get("Attributes", {}).get("RedrivePolicy", "{}"))
    if arn := policy.get("deadLetterTargetArn"):
        settings = {"max_receive_count": int(policy["maxReceiveCount"])} if "maxReceiveCount" in policy else {}
        yield Edge(source=queue, target=names.id_of(arn), kind=EdgeKind.DEAD_LETTERS, settings=settings)


def rule_edges(rule: Answer, targets: Iterable[Answer], names: Names, made_by: str) -> Iterator[Edge]:
    """The edges of an EventBridge rule: from its bus, and from its schedule if it has one."""
    sources: list[tuple[str, EdgeKind, str]] = []
    if rule.get("EventPattern"):
        bus = names.id_of(rule.get("EventBusName", "default"), Kind.BUS)
        sources.append((bus, EdgeKind.RULE, _pattern_words(rule["EventPattern"])))
    if rule.get("ScheduleExpression"):
        _add_schedule(names, made_by, rule["Name"], "AWS::Events::Rule")
        sources.append((made_by, EdgeKind.SCHEDULE, rule["ScheduleExpression"]))
    for target in targets:
        for source, kind, detail in sources:
            yield from _target_edges(source, kind, detail, target, rule, names, made_by)


def schedule_edges(answer: Answer, names: Names, made_by: str) -> Iterator[Edge]:
    """The edges of a schedule of EventBridge Scheduler."""
    _add_schedule(names, made_by, answer["Name"], "AWS::Scheduler::Schedule")
    detail = answer.get("ScheduleExpression", "")
    yield from _target_edges(made_by, EdgeKind.SCHEDULE, detail, answer["Target"], answer, names, made_by)


def _add_schedule(names: Names, logical: str, name: str, type_: str) -> None:
    names.resources[logical] = Resource(id=logical, kind=Kind.SCHEDULE, name=name, type=type_)


def _target_edges(
    source: str, kind: EdgeKind, detail: str, target: Answer, of: Answer, names: Names, made_by: str
) -> Iterator[Edge]:
    off = of.get("State") == "DISABLED"
    runs, why = (Runs.NO, DISABLED) if off else (Runs.YES, "")
    yield Edge(
        source=source,
        target=names.id_of(target["Arn"]),
        kind=kind,
        detail=detail,
        alias=qualifier(target["Arn"]),
        made_by=made_by,
        runs=runs,
        why=why,
    )
    if arn := target.get("DeadLetterConfig", {}).get("Arn"):
        undelivered = f"what {made_by} cannot deliver"
        yield Edge(
            source=source,
            target=names.id_of(arn),
            kind=EdgeKind.FAILURE,
            detail=undelivered,
            made_by=made_by,
            runs=runs,
            why=why,
        )


def _pattern_words(pattern: str) -> str:
    """What an event pattern asks for: the detail types or sources it lists, else the pattern itself."""
    asked = json.loads(pattern)
    for key in ("detail-type", "source"):
        values = asked.get(key, ())
        if values and all(isinstance(value, str) for value in values):
            return _cut(", ".join(values))
    return _cut(json.dumps(asked))


def _cut(words: str) -> str:
    return words if len(words) <= _LONGEST_WORDS else f"{words[:_LONGEST_WORDS]}…"


def bucket_edges(bucket: str, answer: Answer, names: Names) -> Iterator[Edge]:
    """The edges of a bucket's notifications."""
    for member, arn in _NOTIFICATIONS.items():
        for one in answer.get(member, ()):
            rules = one.get("Filter", {}).get("Key", {}).get("FilterRules", ())
            words = [event.removeprefix("s3:") for event in one["Events"]]
            words += [f"{rule['Name'].lower()} {rule['Value']}" for rule in rules]
            yield Edge(
                source=bucket,
                target=names.id_of(one[arn]),
                kind=EdgeKind.NOTIFICATION,
                detail=", ".join(words),
                alias=qualifier(one[arn]),
            )
    if "EventBridgeConfiguration" in answer:
        bus = names.id_of("default", Kind.BUS)
        yield Edge(source=bucket, target=bus, kind=EdgeKind.NOTIFICATION, detail="all events")


def subscription_edges(subscriptions: Iterable[Answer], names: Names, logical_ids: Mapping[str, str]) -> Iterator[Edge]:
    """The edges of a topic's subscriptions. Addresses of people, as of e-mail, are left out.

    Args:
        subscriptions: as SNS lists them.
        names: of the resources.
        logical_ids: of the stack's subscriptions, by ARN.
    """
    for one in subscriptions:
        source, protocol = names.id_of(one["TopicArn"]), one["Protocol"]
        target = names.id_of(one["Endpoint"] if one["Endpoint"].startswith("arn:") else f"{protocol} subscriber")
        pending = not one["SubscriptionArn"].startswith("arn:") or one.get("PendingConfirmation") == "true"
        yield Edge(
            source=source,
            target=target,
            kind=EdgeKind.SUBSCRIPTION,
            alias=qualifier(one["Endpoint"]),
            made_by=logical_ids.get(one["SubscriptionArn"], ""),
            runs=Runs.NO if pending else Runs.YES,
            why="is not confirmed" if pending else "",
        )


def rest_routes(resources: Iterable[Answer]) -> Iterator[Route]:
    """The routes of a REST API with an integration, mocks aside, from its resources with their methods."""
    for resource in resources:
        for method, found in (resource.get("resourceMethods") or {}).items():
            integration = found.get("methodIntegration") or {}
            if uri := integration.get("uri"):
                templates = [*(integration.get("requestTemplates") or {}).values()]
                request = _as_text(integration.get("requestParameters") or {}, templates)
                yield Route(f"{method} {resource['path']}", uri, request)


def http_routes(routes: Iterable[Answer], integrations: Iterable[Answer]) -> Iterator[Route]:
    """The routes of an HTTP or WebSocket API with their integrations."""
    by_id = {one["IntegrationId"]: one for one in integrations}
    for route in routes:
        found = by_id.get(route.get("Target", "").rpartition("/")[2], {})
        uri = found.get("IntegrationUri") or found.get("IntegrationSubtype", "")
        if uri:
            request = _as_text(found.get("RequestParameters", {}), found.get("RequestTemplates", {}).values())
            yield Route(route["RouteKey"], uri, request)


def _as_text(parameters: Mapping[str, Any], templates: Iterable[str]) -> str:
    return "\n".join((*templates, *(f"{name.rpartition('.')[2]}={value}" for name, value in parameters.items())))


def route_edge(api: str, route: Route, names: Names) -> tuple[Edge, bool]:
    """The edge of a route, and whether its end is known: the name may be part of the request that it answers."""
    target = _integration_target(route, names)
    found = names.id_of(route.uri) if target is None else target
    function = _FUNCTION_URI.search(route.uri)
    alias = qualifier(route.uri if function is None else function[1])
    edge = Edge(source=api, target=found, kind=EdgeKind.ROUTE, detail=route.detail, alias=alias)
    return edge, target is not None


def _integration_target(route: Route, names: Names) -> str | None:
    if function := _FUNCTION_URI.search(route.uri):
        return names.id_of(function[1])
    if route.uri.startswith(("http://", "https://")):
        parts = urlsplit(route.uri)
        return names.id_of(f"{parts.scheme}://{parts.netloc}{parts.path}", Kind.WEB_ADDRESS)
    if ":lambda:" in route.uri:
        return names.id_of(route.uri)
    _, _, _, region, service, action = [*route.uri.split(":", 5), *[""] * 6][:6]
    match action.split("/"):
        case ["path", account, queue] if service == "sqs":
            return names.id_of(f"arn:aws:sqs:{region}:{account}:{queue}")
        case ["path", bucket, *_] if service == "s3" and not bucket.startswith("{"):
            return names.id_of(f"arn:aws:s3:::{bucket}")
    for member, value in _NAMING.findall(route.request):
        if not value.startswith("$"):
            return names.id_of(unquote(value), _NAMED_KIND[member.lower()])
    if "PutEvents" in route.uri and "EventBusName" not in route.request:
        return names.id_of("default", Kind.BUS)
    return None
