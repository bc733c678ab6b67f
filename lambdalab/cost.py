"""What one invocation costs: a dated price sheet times what the platform billed. Pure, and exact in Decimal.

Costs are marginal: the first price tier, no free tier, no taxes. Storage is left out, and so are the SQS requests
with which an event source mapping polls an empty queue: they belong to a run, not to one of its invocations.
"""

import datetime
import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec

from lambdalab.errors import PriceSheetError
from lambdalab.model import Cost
from lambdalab.settings_file import choose, locate, read

SQS_CHUNK_BYTES = 65_536
"""Payload that one SQS request carries; every 64 KB begun of an API call is billed as a request."""

LOG_EVENT_OVERHEAD_BYTES = 26
"""What CloudWatch Logs adds to the UTF-8 bytes of a message when it counts the size of an event."""

BYTES_PER_GB = 2**30
"""A GB of log data. AWS does not define it on the price page; its meters count in powers of two."""

_MILLION = Decimal(1_000_000)


class _Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of one service and where they were published."""

    source: str


class LambdaPrices(_Prices, frozen=True, kw_only=True):
    """AWS Lambda; compute by architecture (``x86_64``, ``arm64``)."""

    usd_per_gb_s: dict[str, Decimal]
    usd_per_million_requests: Decimal


class DynamodbPrices(_Prices, frozen=True, kw_only=True):
    """DynamoDB on demand; a write request unit (WRU) covers 1,024 bytes of an item, names and keys included."""

    usd_per_million_wru: Decimal
    usd_per_million_rru: Decimal | None = None
    """A read request unit covers 4,096 bytes read consistently; what the lab's own checks cost."""


class SqsPrices(_Prices, frozen=True, kw_only=True):
    """SQS standard queues."""

    usd_per_million_requests: Decimal


class LogPrices(_Prices, frozen=True, kw_only=True):
    """Ingestion of Lambda logs into CloudWatch Logs, standard class."""

    usd_per_gb: Decimal
    usd_per_gb_scanned: Decimal | None = None
    """By Logs Insights; what the lab's own collecting costs."""


class PriceSheet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prices of one region on one day; one file in ``prices/``."""

    date: datetime.date
    region: str
    currency: Literal["USD"]
    lambda_: LambdaPrices = msgspec.field(name="lambda")
    dynamodb: DynamodbPrices
    sqs: SqsPrices
    logs: LogPrices


def load_price_sheet(region_or_path: str | Path) -> PriceSheet:
    """Read a price sheet: ``us-east-1`` means ``prices/us-east-1.toml``, anything else is a path.

    Raises:
        PriceSheetError: the file is absent or something in it is wrong; tells file, key, value and next step.
    """
    path = locate(region_or_path, "prices", PriceSheetError)
    sheet = read(path, PriceSheet, PriceSheetError)
    for key, price in _prices("", msgspec.to_builtins(sheet, builtin_types=(Decimal,))):
        if not price.is_finite() or price < 0:
            raise PriceSheetError(f"{path}: {key} is {price}", next_step="write a price, 0 or more")
    return sheet


def invocation_cost(
    sheet: PriceSheet,
    *,
    architecture: str,
    memory_mb: int | None,
    billed_ms: float | None,
    wru: float | None,
    sqs_bytes: int | None,
    log_bytes: int | None,
) -> Cost:
    """Price one invocation, component by component; what is not known costs None, never 0.

    ::

        lambda    billed_ms / 1000 x memory_mb / 1024 x price per GB-s  +  price per request
        dynamodb  wru x price per write unit
        sqs       (send + receive, each ceil(sqs_bytes / 64 KB); delete, 1) x price per request
        logs      log_bytes / 2^30 x price per GB

    Args:
        sheet: the prices.
        architecture: as Lambda spells it.
        memory_mb: the configured memory.
        billed_ms: Billed Duration as printed; Init Duration is inside and must not be added again.
        wru: write units as DynamoDB returned them, failed conditions included where they are known.
        sqs_bytes: size of the message that started the invocation, 0 when there was none. Each message is taken as
            received and deleted on its own, which is exact for batch size 1 and an upper bound above.
        log_bytes: what the invocation wrote to its log, from ``ingested_bytes``.

    Raises:
        PriceSheetError: the sheet has no price for the architecture.
        ValueError: an amount is negative or not finite.
    """
    prices = sheet.lambda_.usd_per_gb_s
    if architecture not in prices:
        raise PriceSheetError(
            f'the {sheet.region} price sheet of {sheet.date} has no architecture "{architecture}"',
            next_step=choose(architecture, prices),
        )
    memory, billed, units = _amount(memory_mb), _amount(billed_ms), _amount(wru)
    message, logged = _amount(sqs_bytes), _amount(log_bytes)
    return Cost(
        lambda_usd=None
        if memory is None or billed is None
        else billed / 1000 * memory / 1024 * prices[architecture] + sheet.lambda_.usd_per_million_requests / _MILLION,
        dynamodb_usd=None if units is None else units * sheet.dynamodb.usd_per_million_wru / _MILLION,
        sqs_usd=None if message is None else _sqs_requests(message) * sheet.sqs.usd_per_million_requests / _MILLION,
        logs_usd=None if logged is None else logged / BYTES_PER_GB * sheet.logs.usd_per_gb,
    )


def ingested_bytes(messages: Iterable[str]) -> int:
    """Size log events as CloudWatch Logs does: UTF-8 bytes and 26 more for each (PutLogEvents, API reference)."""
    return sum(len(message.encode()) + LOG_EVENT_OVERHEAD_BYTES for message in messages)


def _prices(key: str, value: object) -> Iterator[tuple[str, Decimal]]:
    """Find every price in a sheet, with its dotted key."""
    if isinstance(value, Decimal):
        yield key, value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _prices(f"{key}.{name}".lstrip("."), member)


def _sqs_requests(message_bytes: Decimal) -> int:
    """Count the billed requests for sending, receiving and deleting one message; none when there was no message."""
    chunks = math.ceil(message_bytes / SQS_CHUNK_BYTES)
    return 2 * chunks + 1 if chunks else 0


def _amount(value: float | None) -> Decimal | None:
    """Turn a measured number into the decimal it is printed as."""
    if value is None:
        return None
    amount = Decimal(str(value))
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{value} is no amount that can be billed")
    return amount
