"""Where the outcome of an asynchronous invocation is sent: queues, topics, buses, and functions of the plane."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from lambdalab.aws.clients import Aws

Put = Callable[[bytes], object]
"""Invokes a function asynchronously."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What goes to a destination: an invocation record, or for a dead-letter queue the event itself."""

    body: str
    source: str
    """The function's ARN with its version."""
    succeeded: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)


class Destinations:
    """Sends to queues, topics and buses of the emulator, and to functions of the plane."""

    def __init__(self, aws: Aws, executor: Executor, functions: Callable[[str], Put | None]) -> None:
        self._aws = aws
        self._executor = executor
        self._functions = functions

    async def send(self, arn: str, message: Message) -> None:
        """Delivers one message, or raises."""
        if arn.split(":")[2] != "lambda":
            await asyncio.get_running_loop().run_in_executor(self._executor, self._call, arn, message)
            return
        put = self._functions(arn)
        if put is None:
            raise LookupError("the plane has no such function")
        put(message.body.encode())

    def _call(self, arn: str, message: Message) -> None:
        name = arn.split(":", 5)[5]
        match arn.split(":")[2]:
            case "sqs":
                url = self._aws.sqs.get_queue_url(QueueName=name)["QueueUrl"]
                self._aws.sqs.send_message(QueueUrl=url, MessageBody=message.body, MessageAttributes=message.attributes)
            case "sns":
                self._aws.sns.publish(TopicArn=arn, Message=message.body, MessageAttributes=message.attributes)
            case "events":
                result = "Success" if message.succeeded else "Failure"
                entry = {
                    "EventBusName": name.removeprefix("event-bus/"),
                    "Source": "lambda",
                    "DetailType": f"Lambda Function Invocation Result - {result}",
                    "Resources": [message.source, arn],
                    "Detail": message.body,
                }
                answer = self._aws.events.put_events(Entries=[entry])
                if answer["FailedEntryCount"]:
                    raise LookupError(answer["Entries"][0].get("ErrorMessage", "the bus refused it"))
            case service:
                raise LookupError(f"{service} is no destination the plane knows")
