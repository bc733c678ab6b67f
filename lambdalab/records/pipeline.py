"""The pipeline graph of a deployed stack: what wakes its functions, and where their work goes next.

Types only. ``pipeline_reading`` fills them, a run stores them as ``pipeline.json``, and ``lambdalab map`` draws them.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import msgspec


class Kind(StrEnum):
    """What a resource is."""

    API = "API"
    BUCKET = "bucket"
    BUS = "event bus"
    FUNCTION = "function"
    FUNCTION_URL = "function URL"
    QUEUE = "queue"
    SCHEDULE = "schedule"
    STATE_MACHINE = "state machine"
    STREAM = "stream"
    TABLE = "table"
    TOPIC = "topic"
    WEB_ADDRESS = "web address"
    OTHER = "resource"


class EdgeKind(StrEnum):
    """How work gets from one end of an edge to the other."""

    MAPPING = "event source mapping"
    ROUTE = "API route"
    RULE = "rule"
    SUBSCRIPTION = "subscription"
    NOTIFICATION = "notification"
    URL = "function URL"
    SCHEDULE = "schedule"
    TRIGGER = "trigger"
    """Any other way to wake a function, such as a Cognito trigger. It is read from the template only."""
    SUCCESS = "on success"
    FAILURE = "on failure"
    DEAD_LETTERS = "dead letters"
    VARIABLE = "variable"
    """An environment variable of the function names the resource. What the function does with it is not known."""


class Runs(StrEnum):
    """Whether something works where the stack is deployed."""

    YES = "yes"
    CAUTION = "caution"
    NO = "no"


_AFTERWARDS: Final = (EdgeKind.SUCCESS, EdgeKind.FAILURE, EdgeKind.DEAD_LETTERS, EdgeKind.VARIABLE)
_PUT_IN_BY_HAND: Final = (
    Kind.API,
    Kind.BUCKET,
    Kind.BUS,
    Kind.FUNCTION_URL,
    Kind.QUEUE,
    Kind.STREAM,
    Kind.TABLE,
    Kind.TOPIC,
)
_SETTING_WORDS: Final = {
    "batch_size": "batches of {}",
    "window_s": "window {} s",
    "maximum_concurrency": "at most {} at once",
    "max_receive_count": "after {} receive{}",
}
_SAY_KIND: Final = {
    EdgeKind.RULE: "rule",
    EdgeKind.SUCCESS: "on success",
    EdgeKind.FAILURE: "on failure",
    EdgeKind.DEAD_LETTERS: "dead letters",
    EdgeKind.VARIABLE: "named by",
}
"""Kinds whose edges do not say by their details what they are."""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A resource that is not one of the stack's functions.

    Attributes:
        id: its logical id; for a resource of another stack its ARN, URL or name.
        kind: what it is.
        name: what an AWS API takes, such as a queue's URL, a table's name or a topic's ARN.
        type: its CloudFormation type; empty for a resource of another stack.
        in_stack: whether the stack owns it.
    """

    id: str
    kind: Kind
    name: str
    type: str = ""
    in_stack: bool = True

    @property
    def label(self) -> str:
        """The logical id, or the last part of an ARN or URL."""
        return self.id if self.in_stack else self.id.rstrip("/").replace(":", "/").rpartition("/")[2] or self.id

    @property
    def words(self) -> str:
        """What it is, for a person."""
        if self.kind is Kind.OTHER and self.type:
            return self.type.removeprefix("AWS::").replace("::", " ")
        return str(self.kind)


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One function of the stack.

    Attributes:
        id: its logical id.
        function_name: its name.
        runtime: such as ``python3.12``; None if its configuration could not be read, or it is an image.
        log_group: where its log lines go; None if its configuration could not be read.
        runs: whether it runs where the stack is deployed.
        why: the reason, if it runs with a caution or not at all.
    """

    id: str
    function_name: str
    runtime: str | None = None
    log_group: str | None = None
    runs: Runs = Runs.YES
    why: str = ""


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """A way that work takes.

    Attributes:
        source: the id of a resource or a stage.
        target: the id of a resource or a stage.
        kind: how work gets from source to target.
        detail: what tells it from others of its kind, such as ``POST /votes`` or the name of a variable.
        alias: the alias or version of the target that is called; empty if it is none.
        made_by: logical id of the mapping, rule, subscription or schedule that makes the edge; empty if none does.
        settings: numbers by name: ``batch_size``, ``window_s``, ``maximum_concurrency``, ``max_receive_count``.
        runs: whether it works where the stack is deployed.
        why: the reason, if it works with a caution or not at all.
    """

    source: str
    target: str
    kind: EdgeKind
    detail: str = ""
    alias: str = ""
    made_by: str = ""
    settings: dict[str, int] = {}
    runs: Runs = Runs.YES
    why: str = ""

    @property
    def wakes(self) -> bool:
        """True if the edge brings work to its target; False if it is what becomes of work, or a variable."""
        return self.kind not in _AFTERWARDS

    @property
    def words(self) -> str:
        """What the edge is, for a person."""
        numbers = (_SETTING_WORDS[name].format(n, "" if n == 1 else "s") for name, n in self.settings.items())
        details = ", ".join(filter(None, (self.detail, self.alias and f"alias {self.alias}", *numbers)))
        said = " ".join(filter(None, (_SAY_KIND.get(self.kind), details)))
        return said or str(self.kind)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A place where work can be put in.

    Attributes:
        id: of the resource or stage.
        kind: what it is.
        address: what a sender names, such as the URL of a queue or the name of a function.
        detail: the route of an API; else empty.
    """

    id: str
    kind: Kind
    address: str
    detail: str = ""


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """The pipeline of one stack.

    Attributes:
        stack_name: of the stack.
        region: where it is deployed.
        target: ``local`` or ``aws``.
        stages: its functions, by logical id.
        resources: what is not a function, by id; resources of other stacks too where an edge leads there.
        edges: by source and target.
        entries: where work can be put in.
        unread: a sentence for each part that could not be read.
    """

    stack_name: str
    region: str
    target: str
    stages: tuple[Stage, ...] = ()
    resources: tuple[Resource, ...] = ()
    edges: tuple[Edge, ...] = ()
    entries: tuple[Entry, ...] = ()
    unread: tuple[str, ...] = ()

    def out_of(self, node: str) -> list[Edge]:
        """The edges that begin at a resource or stage."""
        return [edge for edge in self.edges if edge.source == node]

    def into(self, node: str) -> list[Edge]:
        """The edges that end at a resource or stage."""
        return [edge for edge in self.edges if edge.target == node]

    def queues(self, stage: str) -> list[Resource]:
        """The queues whose messages wake a stage."""
        sources = {edge.source for edge in self.into(stage) if edge.kind is EdgeKind.MAPPING}
        return [resource for resource in self.resources if resource.kind is Kind.QUEUE and resource.id in sources]

    def dead_letters(self, node: str) -> list[Resource]:
        """Where messages of a queue, or asynchronous events of a stage, go when they are given up."""
        targets = {edge.target for edge in self.out_of(node) if edge.kind is EdgeKind.DEAD_LETTERS}
        return [resource for resource in self.resources if resource.id in targets]


def entries(stages: tuple[Stage, ...], resources: tuple[Resource, ...], edges: tuple[Edge, ...]) -> Iterator[Entry]:
    """The places where work can be put in: resources that lead on by themselves, then every function."""
    for resource in resources:
        if resource.kind not in _PUT_IN_BY_HAND:
            continue
        leads = [edge for edge in edges if edge.source == resource.id and edge.wakes]
        details = [edge.detail for edge in leads] if resource.kind is Kind.API else [""] if leads else []
        for detail in dict.fromkeys(details):
            yield Entry(id=resource.id, kind=resource.kind, address=resource.name, detail=detail)
    for stage in stages:
        yield Entry(id=stage.id, kind=Kind.FUNCTION, address=stage.function_name)
