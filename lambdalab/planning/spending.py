"""What a run may cost: the most an invocation can be billed, and what the lab itself asks of AWS around it. Pure.

The invocation's own cost is ``costs.py``'s; this adds what a price tag before spending and a budget while spending need
besides: looks at the queue, reads that verify the items, log queries, the polling of the event source mapping.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from lambdalab.design.arms import Items, Load
from lambdalab.errors import PriceSheetError
from lambdalab.pricing.costs import BYTES_PER_GB, PriceSheet, invocation_cost
from lambdalab.records.manifest import QueuedFunction

ITEM_NAMES_BYTES: Final = 512
"""Names, keys and metadata of an item: above what the functions write (docs/contracts.md)."""
MESSAGE_BYTES: Final = 4096
"""Queue volume, and log volume, of one message: above what is sent and written."""
MAPPING_REQUESTS_PER_MINUTE: Final = 15
"""Five pollers (services-sqs-scaling) that each wait up to 20 s, the longest SQS allows, for a message."""
_READ_UNIT_BYTES: Final = 4096
_PAGE_BYTES: Final = 2**20

MOST_MINUTES: Final = 1440.0
MOST_USD: Final = Decimal(10)
"""Ceilings of a run that sets no caps of its own: what nobody means to let run, or to spend, by not looking."""
DRAIN_GRACE_S: Final = 30.0
"""Beyond a function's timeout, until a trial is given up: for polling, cold start and deleting."""
MISSING_ITEMS_POLLS: Final = 20
"""For so many looks at an empty queue the items may still be missing, and are counted each time."""
LOG_WINDOW_MINUTES: Final = 6
"""Lines are collected again for so long, since they may come late."""
LOG_QUERIES_AT_END: Final = 300
"""How often logs are asked at most after the last trial, while lines are missing."""


class LabUse(msgspec.Struct, frozen=True, kw_only=True):
    """What the lab asks of AWS around its invocations."""

    queue_requests: int = 0
    read_units: int = 0
    scanned_bytes: int = 0

    def usd(self, prices: PriceSheet) -> Decimal:
        """Its price.

        Raises:
            PriceSheetError: the sheet lacks one of the prices.
        """
        per_read, per_gb = prices.dynamodb.usd_per_million_rru, prices.logs.usd_per_gb_scanned
        if per_read is None or per_gb is None:
            raise PriceSheetError(
                f"the {prices.region} price sheet of {prices.date} does not price the lab's own reads and log queries",
                next_step="add dynamodb.usd_per_million_rru and logs.usd_per_gb_scanned",
            )
        requests = self.queue_requests * prices.sqs.usd_per_million_requests + self.read_units * per_read
        return requests / 1_000_000 + self.scanned_bytes / Decimal(BYTES_PER_GB) * per_gb


def most_usd(prices: PriceSheet, function: QueuedFunction, load: Load, *, messages: int = 1) -> Decimal:
    """The most one invocation can be billed: it runs into its timeout, and every item is written once."""
    return invocation_usd(prices, function, load, billed_ms=function.timeout_s * 1000, messages=messages)


def invocation_usd(
    prices: PriceSheet, function: QueuedFunction, load: Load, *, billed_ms: float, messages: int = 1
) -> Decimal:
    """What one invocation of that billed duration costs; sizes of items, messages and log are bounds."""
    cost = invocation_cost(
        prices,
        architecture=function.architecture,
        memory_mb=function.memory_mb,
        billed_ms=billed_ms,
        wru=messages * load.count * math.ceil((load.size_bytes + ITEM_NAMES_BYTES) / 1024),
        sqs_bytes=messages * MESSAGE_BYTES,
        log_bytes=messages * MESSAGE_BYTES,
    ).total_usd
    assert cost is not None
    return cost


def read_units(load: Items) -> int:
    """Read units of counting a batch once, consistently: 4 KB of item each, begun anew on every page of 1 MB."""
    size = load.count * (load.size_bytes + ITEM_NAMES_BYTES)
    return math.ceil(size / _READ_UNIT_BYTES) + math.ceil(size / _PAGE_BYTES)


def lab_use(loads: Sequence[Load], *, blocks: int, minutes: float, queues: int, at_most: bool = False) -> LabUse:
    """What the lab asks of AWS for messages of these loads.

    Args:
        loads: one for each message.
        blocks: in so many blocks; logs are collected after each.
        minutes: in so many minutes; every queue is polled all the time, and one is looked at every second.
        queues: how many event source mappings poll meanwhile.
        at_most: when items and lines come as late as the lab waits for them.
    """
    collected = 2 + math.ceil(LOG_WINDOW_MINUTES * blocks / minutes) if minutes else 2
    return LabUse(
        queue_requests=math.ceil(minutes * (60 + queues * MAPPING_REQUESTS_PER_MINUTE)),
        read_units=sum(map(read_units, loads)) * (MISSING_ITEMS_POLLS if at_most else 1),
        scanned_bytes=len(loads) * MESSAGE_BYTES * (collected + (LOG_QUERIES_AT_END if at_most else 0)),
    )
