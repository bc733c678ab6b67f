"""How fast a mapping empties a queue."""

import json
import time
from http.client import HTTPConnection
from itertools import count
from typing import Any, Final, cast
from urllib.parse import urlsplit

from benchmarks.plane.world import BUCKET, HANDLERS, MEMORY_MB, ROLE, RUNTIMES, World, name_of
from lambdalab.aws.clients import Aws
from lambdalab.loopback import LOCAL_KEY, LOCAL_REGION

MESSAGES: Final = 1000
WARMING: Final = 100
LOOK_S: Final = 0.01
DEPTH: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
LIMIT_S: Final = 180
TEN: Final = 10
_numbers: Final = count()


def rate(here: World, where: str, batch_size: int) -> float:
    """Messages per second from the first deleted one seen to the last, once environments are warm.

    MiniStack runs a function outside the stack, whose mapping the plane therefore leaves alone.
    """
    aws = here.plane if where == "plane" else here.emulator
    name = name_of("python", MEMORY_MB[-1]) if where == "plane" else _own_function(aws)
    _drain(aws, where, name, batch_size, WARMING)
    return _drain(aws, where, name, batch_size, MESSAGES)


def bare_rate(here: World, size: int) -> float:
    """Messages per second that one kept-alive connection receives and deletes with no function at all, unsigned.

    What is left of a queue without a mapping; ``size`` messages are asked for and deleted at a time.
    """
    aws = here.emulator
    url = _filled(aws, MESSAGES)
    where = urlsplit(aws.sqs.meta.endpoint_url)
    connection = HTTPConnection(where.hostname or "", where.port)
    began = time.monotonic()
    while messages := _call(connection, "ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=size).get("Messages"):
        entries = [{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(messages)]
        _call(connection, "DeleteMessageBatch", QueueUrl=url, Entries=entries)
    passed_s = time.monotonic() - began
    connection.close()
    aws.sqs.delete_queue(QueueUrl=url)
    return MESSAGES / passed_s


def _call(connection: HTTPConnection, action: str, **parameters: Any) -> dict[str, Any]:
    headers = {
        "X-Amz-Target": f"AmazonSQS.{action}",
        "Content-Type": "application/x-amz-json-1.0",
        "Authorization": f"AWS4-HMAC-SHA256 Credential={LOCAL_KEY}/20260101/{LOCAL_REGION}/sqs/aws4_request",
    }
    connection.request("POST", "/", json.dumps(parameters), headers)
    found: dict[str, Any] = json.loads(connection.getresponse().read() or b"{}")
    return found


def _filled(aws: Aws, messages: int) -> str:
    url = aws.sqs.create_queue(QueueName=f"noop-{next(_numbers)}", Attributes={"VisibilityTimeout": "60"})["QueueUrl"]
    for _ in range(messages // TEN):
        aws.sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": "{}"} for n in range(TEN)])
    return url


def _drain(aws: Aws, where: str, name: str, batch_size: int, messages: int) -> float:
    url = _filled(aws, messages)
    arn = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    mapping = aws.lambda_.create_event_source_mapping(
        EventSourceArn=arn,
        FunctionName=name,
        BatchSize=batch_size,
        Enabled=where != "plane",  # or MiniStack begins as well
    )
    try:
        return _watch(aws, url, messages)
    finally:
        aws.lambda_.delete_event_source_mapping(UUID=mapping["UUID"])
        aws.sqs.delete_queue(QueueUrl=url)


def _own_function(aws: Aws) -> str:
    name = f"own-{next(_numbers)}"
    aws.lambda_.create_function(
        FunctionName=name,
        Runtime=cast("Any", RUNTIMES["python"]),
        Handler=HANDLERS["python"],
        Role=ROLE,
        MemorySize=MEMORY_MB[-1],
        Timeout=30,
        Code={"S3Bucket": BUCKET, "S3Key": "python.zip"},
    )
    return name


def _watch(aws: Aws, url: str, messages: int) -> float:
    """Looks seldom while much is left, and then more and more often: each look takes time from what it looks at."""
    where = urlsplit(aws.sqs.meta.endpoint_url)
    connection = HTTPConnection(where.hostname or "", where.port)
    first: tuple[float, int] | None = None
    limit = time.monotonic() + LIMIT_S
    try:
        while (now := time.monotonic()) < limit:
            found = _call(connection, "GetQueueAttributes", QueueUrl=url, AttributeNames=DEPTH)["Attributes"]
            depth = sum(int(found[name]) for name in DEPTH)
            if depth == 0:
                return (first[1] if first else messages) / (now - (first[0] if first else now - LOOK_S))
            left_s = 0.0
            if first is None and depth < messages:
                first = now, depth
            elif first is not None and depth < first[1]:
                left_s = (now - first[0]) / (first[1] - depth) * depth
            time.sleep(max(LOOK_S, left_s / 4))
    finally:
        connection.close()
    raise TimeoutError(f"{url} was not empty after {LIMIT_S} s")
