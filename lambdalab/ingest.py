"""The scenario ``ingest``: what is sent, and how it is known that it arrived.

The only module of the lab that knows DynamoDB; contracts are in ``contracts/`` and docs/contracts.md.
"""

from collections.abc import Iterable

import msgspec

from lambdalab.aws import Aws, access_errors
from lambdalab.design import Items, Mode
from lambdalab.target import Resources


def message(batch_id: str, load: Items, mode: Mode) -> str:
    """The body of one work message."""
    asked = {
        "batch_id": batch_id,
        "size_bytes": load.size_bytes,
        "count": load.count,
        "label": load.label,
        "mode": mode,
    }
    return msgspec.json.encode(asked).decode()


def count_items(aws: Aws, of_arm: Resources, batch_ids: Iterable[str]) -> int:
    """How many items of these messages the table holds, read consistently."""
    return sum(_count_items(aws, of_arm, batch_id) for batch_id in batch_ids)


def _count_items(aws: Aws, of_arm: Resources, batch_id: str) -> int:
    with access_errors(f"table {of_arm.table_name}"):
        pages = aws.dynamodb.get_paginator("query").paginate(
            TableName=of_arm.table_name,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"batch_id#{batch_id}"}},
            Select="COUNT",
            ConsistentRead=True,
        )
        return sum(page["Count"] for page in pages)
