"""The scenario ``ingest``: what is sent, and how it is known that it arrived.

The only module of the lab that knows DynamoDB; contracts are in ``contracts/`` and docs/contracts.md.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from lambdalab.aws.clients import Aws, access_errors
from lambdalab.design.arms import Items, Mode
from lambdalab.run.target import Resources

VARYING: Final = frozenset(
    {
        *("request_id", "started_ms", "finished_ms", "batch_elapsed_ms", "put_ms", "sdk_retries", "cold_start"),
        "t_start_ms",
    }
)
"""What of an answer or an item belongs to one invocation and not to its event."""


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


def batch_ids_in(event: bytes) -> list[str]:
    """The batch ids an event names, in bodies of messages or directly."""
    return list(dict.fromkeys(re.findall(r'"batch_id\\*":\s*\\*"([A-Za-z0-9._:-]+)', event.decode())))


def items(aws: Aws, table_name: str, batch_ids: Iterable[str]) -> list[dict[str, Any]]:
    """The items of these messages by key, read consistently, as DynamoDB writes them."""
    with access_errors(f"table {table_name}"):
        return [dict(item) for batch_id in batch_ids for item in _items(aws, table_name, batch_id)]


def remove_items(aws: Aws, table_name: str, batch_ids: Iterable[str]) -> None:
    """Deletes the items of these messages."""
    with access_errors(f"table {table_name}"):
        for batch_id in batch_ids:
            for item in _items(aws, table_name, batch_id, ProjectionExpression="pk, sk"):
                aws.dynamodb.delete_item(TableName=table_name, Key=item)


def _items(aws: Aws, table_name: str, batch_id: str, **also: str) -> Iterator[Any]:
    pages = aws.dynamodb.get_paginator("query").paginate(
        TableName=table_name,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": f"batch_id#{batch_id}"}},
        ConsistentRead=True,
        **also,  # type: ignore[arg-type]
    )
    return (item for page in pages for item in page["Items"])
