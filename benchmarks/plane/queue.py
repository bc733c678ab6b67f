"""How fast a mapping empties a queue."""

import time
from itertools import count
from typing import Any, Final, cast

from benchmarks.plane.world import BUCKET, HANDLERS, MEMORY_MB, ROLE, RUNTIMES, World, name_of
from lambdalab.aws import Aws

MESSAGES: Final = 500
LOOK_S: Final = 0.02
LIMIT_S: Final = 180
_numbers: Final = count()


def rate(here: World, where: str, batch_size: int) -> float:
    """Messages per second from the first deleted one seen to the last.

    MiniStack runs a function outside the stack, whose mapping the plane therefore leaves alone.
    """
    aws = here.plane if where == "plane" else here.emulator
    name = name_of("python", MEMORY_MB[-1]) if where == "plane" else _own_function(aws)
    url = aws.sqs.create_queue(QueueName=f"noop-{next(_numbers)}", Attributes={"VisibilityTimeout": "60"})["QueueUrl"]
    for first in range(0, MESSAGES, 10):
        aws.sqs.send_message_batch(
            QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": "{}"} for n in range(first, first + 10)]
        )
    arn = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    aws.lambda_.invoke(FunctionName=name)["Payload"].read()  # warm
    mapping = aws.lambda_.create_event_source_mapping(
        EventSourceArn=arn,
        FunctionName=name,
        BatchSize=batch_size,
        Enabled=where != "plane",  # or MiniStack begins
    )
    try:
        return _watch(aws, url)
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


def _watch(aws: Aws, url: str) -> float:
    first: tuple[float, int] | None = None
    limit = time.monotonic() + LIMIT_S
    while (now := time.monotonic()) < limit:
        found = aws.sqs.get_queue_attributes(
            QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        )["Attributes"]
        depth = sum(int(value) for value in found.values())
        if depth == 0:
            return (first[1] if first else MESSAGES) / (now - (first[0] if first else now - LOOK_S))
        if first is None and depth < MESSAGES:
            first = now, depth
        time.sleep(LOOK_S)
    raise TimeoutError(f"{url} was not empty after {LIMIT_S} s")
