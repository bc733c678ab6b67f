"""Reads the pipeline graph of a deployed stack, on AWS and from the local stack alike.

The services are asked what leads to what. The processed template tells what no service is asked for, such as Cognito
triggers, and what the emulator does not keep. What cannot be read is named in the graph, and nothing is guessed.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from lambdalab.aws import pipeline_answers as answers
from lambdalab.aws.clients import Aws, access_errors
from lambdalab.aws.pipeline_names import Names
from lambdalab.aws.stack import Stack
from lambdalab.aws.template import processed_template
from lambdalab.aws.wakings import judge_edge, judge_function, wakings
from lambdalab.errors import AccessError
from lambdalab.records.pipeline import Edge, EdgeKind, Graph, Kind, Resource, Runs, Stage, entries

T = TypeVar("T")
_EDGES_OF: Final = {
    "AWS::ApiGateway::Method": EdgeKind.ROUTE,
    "AWS::ApiGateway::RestApi": EdgeKind.ROUTE,
    "AWS::ApiGatewayV2::Api": EdgeKind.ROUTE,
    "AWS::ApiGatewayV2::Integration": EdgeKind.ROUTE,
    "AWS::Events::Rule": EdgeKind.RULE,
    "AWS::Lambda::Url": EdgeKind.URL,
    "AWS::S3::Bucket": EdgeKind.NOTIFICATION,
    "AWS::SNS::Subscription": EdgeKind.SUBSCRIPTION,
    "AWS::SNS::Topic": EdgeKind.SUBSCRIPTION,
    "AWS::Scheduler::Schedule": EdgeKind.SCHEDULE,
}
"""By the type of a resource that wakes functions: the edges that its service tells."""
_MAPPING: Final = "AWS::Lambda::EventSourceMapping"
_NESTED: Final = "AWS::CloudFormation::Stack"
_SUBSCRIPTION: Final = "AWS::SNS::Subscription"
_URL: Final = "AWS::Lambda::Url"


def read_pipeline(aws: Aws, stack: Stack, *, target: str) -> Graph:
    """Reads the graph of a stack. It changes nothing.

    Args:
        aws: where the stack is.
        stack: which.
        target: ``local`` or ``aws``; it decides what runs there.

    Returns:
        The graph. Its ``unread`` names what the services refused to tell.
    """
    return _Reading(aws, stack, target).graph()


class _Reading:
    def __init__(self, aws: Aws, stack: Stack, target: str) -> None:
        self._aws, self._stack, self._target = aws, stack, target
        self._names = Names(stack)
        self._edges: list[Edge] = []
        self._unread: list[str] = []
        self._refused: set[str] = set()
        self._mappings: set[str] = set()
        self._logical_ids = {physical: logical for logical, physical in stack.resources.items()}
        self._template: dict[str, Any] = {}
        self._readers: Final[dict[str, Callable[[str, str], None]]] = {
            _MAPPING: self._read_mapping,
            _NESTED: self._name_nested_stack,
            _SUBSCRIPTION: self._read_subscription,
            "AWS::ApiGateway::RestApi": self._read_rest_api,
            "AWS::ApiGatewayV2::Api": self._read_http_api,
            "AWS::Events::Rule": self._read_rule,
            "AWS::S3::Bucket": self._read_bucket,
            "AWS::SNS::Topic": self._read_topic,
            "AWS::SQS::Queue": self._read_queue,
            "AWS::Scheduler::Schedule": self._read_schedule,
        }

    def graph(self) -> Graph:
        stages = tuple(self._stage(logical, name) for logical, name in sorted(self._stack.functions().items()))
        for logical, type_ in sorted(self._stack.types.items()):
            if reader := self._readers.get(type_):
                reader(logical, self._stack.resources[logical])
        self._read_template()
        edges = self._judged_edges()
        stage_ids = {stage.id for stage in stages}
        resources = tuple(of for _, of in sorted(self._names.resources.items()) if of.id not in stage_ids)
        return Graph(
            stack_name=self._stack.name,
            region=str(self._aws.session.region_name),
            target=self._target,
            stages=stages,
            resources=resources,
            edges=edges,
            entries=tuple(entries(stages, resources, edges)),
            unread=tuple(self._unread),
        )

    def _ask(self, logical: str, what: str, ask: Callable[[], T]) -> T | None:
        """What a service answers; None if it refuses, which is noted."""
        try:
            with access_errors(what):
                return ask()
        except AccessError as error:
            self._unread.append(error.problem)
            self._refused.add(logical)
            return None

    def _all(self, logical: str, what: str, client: Any, operation: str, member: str, **asked: Any) -> list[Any]:
        """All pages of an answer, as ``_ask``."""

        def rows() -> list[Any]:
            pages = client.get_paginator(operation).paginate(**asked)
            return [row for page in pages for row in page.get(member) or ()]

        return self._ask(logical, what, rows) or []

    def _stage(self, logical: str, name: str) -> Stage:
        client, what = self._aws.lambda_, f"function {logical}"

        def every(operation: str, member: str) -> list[Any]:
            return self._all(logical, what, client, operation, member, FunctionName=name)

        found: Any = self._ask(logical, what, lambda: client.get_function_configuration(FunctionName=name))
        for mapping in every("list_event_source_mappings", "EventSourceMappings"):
            self._add_mapping(mapping)
        configs = every("list_function_event_invoke_configs", "FunctionEventInvokeConfigs")
        self._edges += answers.function_edges(logical, found or {}, configs, self._names)
        for url in every("list_function_url_configs", "FunctionUrlConfigs"):
            self._edges += answers.url_edges(logical, url, self._names, self._url_of(name))
        if found is None:
            return Stage(id=logical, function_name=name)
        runs, why = judge_function(found) if self._target == "local" else (Runs.YES, "")
        return Stage(
            id=logical,
            function_name=name,
            runtime=found.get("Runtime"),
            log_group=found.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{name}",
            runs=runs,
            why=why,
        )

    def _url_of(self, function_name: str) -> str:
        """The logical id of a function's URL, whose physical id is the function's ARN or name; empty if it has none."""
        return next(
            (
                logical
                for logical, type_ in self._stack.types.items()
                if type_ == _URL
                and self._stack.resources[logical].rpartition("function:")[2].split(":")[0] == function_name
            ),
            "",
        )

    def _add_mapping(self, mapping: Any) -> None:
        if mapping["UUID"] not in self._mappings:
            self._mappings.add(mapping["UUID"])
            made_by = self._logical_ids.get(mapping["UUID"], "")
            self._edges += answers.mapping_edges(mapping, self._names, made_by)

    def _read_mapping(self, logical: str, uuid: str) -> None:
        """One that was not listed with its function, such as one of an alias."""
        if uuid not in self._mappings:
            client, what = self._aws.lambda_, f"event source mapping {logical}"
            found = self._ask(logical, what, lambda: client.get_event_source_mapping(UUID=uuid))
            if found is not None:
                self._add_mapping(found)

    def _read_queue(self, logical: str, url: str) -> None:
        client = self._aws.sqs
        found: Any = self._ask(
            logical, f"queue {logical}", lambda: client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        )
        self._edges += answers.redrive_edges(logical, found or {}, self._names)

    def _read_topic(self, logical: str, arn: str) -> None:
        found = self._all(
            logical, f"topic {logical}", self._aws.sns, "list_subscriptions_by_topic", "Subscriptions", TopicArn=arn
        )
        self._edges += answers.subscription_edges(found, self._names, self._logical_ids)

    def _read_subscription(self, logical: str, arn: str) -> None:
        """One to a topic of another stack."""
        topic = arn.rpartition(":")[0]
        if topic not in self._logical_ids:
            client, what = self._aws.sns, f"subscription {logical}"
            found: Any = self._ask(logical, what, lambda: client.get_subscription_attributes(SubscriptionArn=arn))
            if found is not None:
                self._edges += answers.subscription_edges([found["Attributes"]], self._names, self._logical_ids)

    def _read_rule(self, logical: str, physical: str) -> None:
        bus, _, name = physical.rpartition("|")
        rule = self._ask(logical, f"rule {logical}", lambda: self._find_rule(bus, name))
        if rule is not None:
            asked = {"Rule": name, "EventBusName": rule.get("EventBusName", "default")}
            targets = self._all(
                logical, f"rule {logical}", self._aws.events, "list_targets_by_rule", "Targets", **asked
            )
            self._edges += answers.rule_edges(rule, targets, self._names, logical)

    def _find_rule(self, bus: str, name: str) -> Any:
        """Describes a rule. The emulator's id of a rule lacks the bus, so the stack's own are tried."""
        client = self._aws.events
        own = [
            self._stack.resources[one] for one, type_ in self._stack.types.items() if type_ == "AWS::Events::EventBus"
        ]
        *others, last = [bus] if bus else [*own, "default"]
        for one in others:
            with contextlib.suppress(client.exceptions.ResourceNotFoundException):
                return client.describe_rule(Name=name, EventBusName=one)
        return client.describe_rule(Name=name, EventBusName=last)

    def _read_schedule(self, logical: str, name: str) -> None:
        client, what = self._aws.scheduler, f"schedule {logical}"
        for one in self._all(logical, what, client, "list_schedules", "Schedules", NamePrefix=name):
            if one["Name"] == name:
                asked = {"Name": name, "GroupName": one["GroupName"]}
                found: Any = self._ask(logical, what, functools.partial(client.get_schedule, **asked))
                if found is not None:
                    self._edges += answers.schedule_edges(found, self._names, logical)

    def _read_bucket(self, logical: str, name: str) -> None:
        client = self._aws.s3
        found: Any = self._ask(
            logical, f"bucket {logical}", lambda: client.get_bucket_notification_configuration(Bucket=name)
        )
        self._edges += answers.bucket_edges(logical, found or {}, self._names)

    def _read_rest_api(self, logical: str, api: str) -> None:
        client, what = self._aws.apigateway, f"API {logical}"
        found = self._all(logical, what, client, "get_resources", "items", restApiId=api, embed=["methods"])
        self._add_routes(logical, answers.rest_routes(found))

    def _read_http_api(self, logical: str, api: str) -> None:
        client, what = self._aws.apigatewayv2, f"API {logical}"
        routes = self._all(logical, what, client, "get_routes", "Items", ApiId=api)
        integrations = self._all(logical, what, client, "get_integrations", "Items", ApiId=api)
        self._add_routes(logical, answers.http_routes(routes, integrations))

    def _add_routes(self, logical: str, routes: Iterable[answers.Route]) -> None:
        found = list(routes)
        for route in found:
            edge, known = answers.route_edge(logical, route, self._names)
            self._edges.append(edge)
            if not known:
                self._unread.append(f"{route.detail} of API {logical}: its request decides what {route.uri} reaches")
        if not found and logical not in self._refused:
            self._unread.append(f"routes of API {logical}: API Gateway tells none that leads anywhere")

    def _name_nested_stack(self, logical: str, arn: str) -> None:
        name = arn.partition(":stack/")[2].partition("/")[0] or arn
        self._unread.append(f"nested stack {logical}: a map of its own shows it, of stack {name}")

    def _read_template(self) -> None:
        """Adds what only the template tells, and what services that refused would have told."""
        name = self._stack.name
        self._template = (
            self._ask("", f"the template of stack {name}", lambda: processed_template(self._aws, name)) or {}
        )
        for waking in wakings(self._template, self._stack.types):
            type_ = self._stack.types[waking.source]
            kind = _EDGES_OF.get(type_)
            known = waking.source not in self._refused and any(
                edge.target == waking.function and (waking.source in (edge.source, edge.made_by) or edge.kind is kind)
                for edge in self._edges
            )
            if not known:
                own = Resource(id=waking.source, kind=Kind.OTHER, name=self._stack.resources[waking.source], type=type_)
                self._names.resources.setdefault(waking.source, own)
                self._edges.append(
                    Edge(
                        source=waking.source, target=waking.function, kind=kind or EdgeKind.TRIGGER, detail=waking.kind
                    )
                )

    def _judged_edges(self) -> tuple[Edge, ...]:
        """The edges in order, each once, with what runs here."""
        found = {(edge.source, edge.target, edge.kind, edge.detail, edge.made_by): edge for edge in self._edges}
        edges = [edge for _, edge in sorted(found.items())]
        if self._target != "local":
            return tuple(edges)
        of = self._names.resources
        return tuple(judge_edge(edge, of[edge.source], of[edge.target], self._declared(edge.made_by)) for edge in edges)

    def _declared(self, logical: str) -> dict[str, Any]:
        """What the template says of a resource."""
        found: dict[str, Any] = self._template.get("Resources", {}).get(logical, {}).get("Properties") or {}
        return found
