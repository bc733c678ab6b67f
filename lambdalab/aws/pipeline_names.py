"""Which resource of a stack an ARN, a URL or a name means. Only exact matches count."""

import re
from typing import Final

from lambdalab.aws.stack import Stack
from lambdalab.records.pipeline import Kind, Resource

KINDS: Final = {
    "AWS::ApiGateway::RestApi": Kind.API,
    "AWS::ApiGatewayV2::Api": Kind.API,
    "AWS::DynamoDB::GlobalTable": Kind.TABLE,
    "AWS::DynamoDB::Table": Kind.TABLE,
    "AWS::Events::EventBus": Kind.BUS,
    "AWS::Kinesis::Stream": Kind.STREAM,
    "AWS::Lambda::Function": Kind.FUNCTION,
    "AWS::S3::Bucket": Kind.BUCKET,
    "AWS::SNS::Topic": Kind.TOPIC,
    "AWS::SQS::Queue": Kind.QUEUE,
    "AWS::StepFunctions::StateMachine": Kind.STATE_MACHINE,
}
"""The resources that are part of a pipeline even if no edge leads to them."""
_ARN_PARTS: Final = 6
_QUEUE_URL: Final = re.compile(r"https?://([^/]+)/(\d{12})/([A-Za-z0-9_-]{1,80}(?:\.fifo)?)")
_BUCKET_URL: Final = re.compile(r"s3://([a-z0-9.-]{3,63})(?:/.*)?", re.DOTALL)
_AFTER: Final = {
    "dynamodb": (Kind.TABLE, "table/"),
    "events": (Kind.BUS, "event-bus/"),
    "kinesis": (Kind.STREAM, "stream/"),
    "lambda": (Kind.FUNCTION, "function:"),
    "s3": (Kind.BUCKET, ""),
    "sns": (Kind.TOPIC, ""),
    "sqs": (Kind.QUEUE, ""),
    "states": (Kind.STATE_MACHINE, "stateMachine:"),
}
"""By the service of an ARN: what it names, and what stands before the name in its last part."""


class Names:
    """Finds resources by what AWS calls them.

    Args:
        stack: the resources that are known from the beginning.

    Attributes:
        resources: those of the stack, and every other one that was found, by id.
    """

    def __init__(self, stack: Stack) -> None:
        parts = stack.stack_id.split(":", 5)
        self._region, self._account = parts[3:5] if len(parts) == _ARN_PARTS else ("", "")
        self.resources: dict[str, Resource] = {}
        self._ids: dict[tuple[Kind, str], str] = {}
        self._exact: dict[str, str] = {}
        for logical, type_ in stack.types.items():
            name = stack.resources[logical]
            if name and (kind := KINDS.get(type_)):
                self._ids[kind, _short(kind, name)] = logical
                self._exact |= {name: logical, _short(kind, name): logical}
                self.resources[logical] = Resource(id=logical, kind=kind, name=name, type=type_)

    def id_of(self, identifier: str, kind: Kind = Kind.OTHER) -> str:
        """The id of a resource that a service named; one of another stack is added.

        Args:
            identifier: an ARN or a URL; a name if ``kind`` says of what.
            kind: what it is, if the identifier does not say.
        """
        found = self._meaning(identifier)
        if found is None and (kind, identifier) in self._ids:
            found = kind, identifier
        if found in self._ids:
            return self._ids[found]
        if identifier not in self.resources:
            of = kind if found is None else found[0]
            self.resources[identifier] = Resource(id=identifier, kind=of, name=identifier, in_stack=False)
        return identifier

    def named_by(self, value: str) -> str | None:
        """The id of the resource that a whole text names; None if it names none.

        An ARN, a queue's URL or ``s3://BUCKET/...`` counts whether the resource is in the stack or not, a name only
        if it is.
        """
        if value in self._exact:
            return self._exact[value]
        return None if self._meaning(value) is None else self.id_of(value)

    def _meaning(self, identifier: str) -> tuple[Kind, str] | None:
        """Kind and name by an ARN or a URL. The name is the identifier itself if the resource is not of the stack."""
        if found := _QUEUE_URL.fullmatch(identifier):
            host, account, name = found.groups()
            elsewhere = host.endswith(".amazonaws.com") and self._region not in host
            return Kind.QUEUE, identifier if elsewhere or account != self._account else name
        if found := _BUCKET_URL.fullmatch(identifier):
            return Kind.BUCKET, found[1]
        parts = identifier.split(":", 5)
        if parts[0] != "arn" or len(parts) != _ARN_PARTS or parts[2] not in _AFTER:
            return None
        kind, before = _AFTER[parts[2]]
        if not parts[5].startswith(before):
            return None
        name = re.split("[:/]", parts[5].removeprefix(before))[0]
        own = parts[3] in ("", self._region) and parts[4] in ("", self._account)
        return kind, name if own else identifier


def _short(kind: Kind, name: str) -> str:
    """The name of a resource without what stands before it in its physical id."""
    if kind is Kind.QUEUE:
        return name.rpartition("/")[2]
    return name.rpartition(":")[2] if name.startswith("arn:") else name
