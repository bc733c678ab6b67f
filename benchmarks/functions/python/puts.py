"""Puts the items of the ingest function, one after another, with a plain client of boto3 and nothing else."""

import os
import time
from typing import Any

import boto3

client = boto3.client("dynamodb")


def handler(event: dict[str, Any], _context: object) -> None:
    """Put every item; the first error ends it."""
    payload = "x" * event["size_bytes"]
    for seq in range(event["count"]):
        client.put_item(
            TableName=os.environ["TABLE_NAME"],
            Item={
                "pk": {"S": f"batch_id#{event['batch_id']}"},
                "sk": {"S": f"seq#{seq}"},
                "lang": {"S": "python"},
                "label": {"S": "PLAIN"},
                "size_bytes": {"N": str(event["size_bytes"])},
                "seq": {"N": str(seq)},
                "t_start_ms": {"N": str(time.time_ns() // 1_000_000)},
                "payload": {"S": payload},
                "cold_start": {"BOOL": False},
            },
            ConditionExpression="attribute_not_exists(pk) AND attribute_not_exists(sk)",
            ReturnConsumedCapacity="TOTAL",
        )
