"""What one invocation costs: a dated price sheet times what the platform billed. Pure, and exact in Decimal.

The cost of one invocation is marginal: the first price tier, no free tier, no taxes. Storage is left out, and so are
the SQS requests with which an event source mapping polls an empty queue: ``bill`` has those, tiers and free tier.
"""

import datetime
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from decimal import Context, Decimal
from pathlib import Path
from typing import Literal

import msgspec

from lambdalab.errors import PriceSheetError, StorageError
from lambdalab.records.trials import Cost
from lambdalab.settings_file import choose, locate, read

SQS_CHUNK_BYTES = 65_536
"""Payload that one SQS request carries; every 64 KB begun of an API call is billed as a request."""

SQS_BATCH_MESSAGES = 10
"""Messages that one request to SQS sends, receives or deletes at most (SendMessageBatch, API reference)."""

LOG_EVENT_OVERHEAD_BYTES = 26
"""What CloudWatch Logs adds to the UTF-8 bytes of a message when it counts the size of an event."""

BYTES_PER_GB = 2**30
"""A GB of log data. AWS does not define it on the price page; its meters count in powers of two."""

_MILLION = Decimal(1_000_000)
_CONTEXT = Context(prec=60)
_MOST = Decimal(10**15)


class _Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of one service and where they were published."""

    source: str


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A lower price for what lies above an amount in a month; unit and price unit are those of the first tier."""

    above: Decimal
    usd: Decimal


class LambdaPrices(_Prices, frozen=True, kw_only=True):
    """AWS Lambda; compute by architecture (``x86_64``, ``arm64``), tiers in GB-s of a month."""

    usd_per_gb_s: dict[str, Decimal]
    usd_per_million_requests: Decimal
    tiers: dict[str, list[Tier]] = {}
    free_gb_s: Decimal = Decimal(0)
    free_requests: Decimal = Decimal(0)


class DynamodbPrices(_Prices, frozen=True, kw_only=True):
    """DynamoDB on demand; a write request unit (WRU) covers 1,024 bytes of an item, names and keys included."""

    usd_per_million_wru: Decimal
    usd_per_million_rru: Decimal | None = None
    """A read request unit covers 4,096 bytes read consistently; what the lab's own checks cost."""


class SqsPrices(_Prices, frozen=True, kw_only=True):
    """SQS standard queues; tiers in requests of a month, priced by the million."""

    usd_per_million_requests: Decimal
    tiers: list[Tier] = []
    free_requests: Decimal = Decimal(0)


class LogPrices(_Prices, frozen=True, kw_only=True):
    """Ingestion of Lambda logs into CloudWatch Logs, standard class; tiers in GB of a month."""

    usd_per_gb: Decimal
    usd_per_gb_scanned: Decimal | None = None
    """By Logs Insights; what the lab's own collecting costs."""
    tiers: list[Tier] = []


class MetricPrices(_Prices, frozen=True, kw_only=True):
    """CloudWatch custom metrics, those in Embedded Metric Format included."""

    usd_per_metric_month: Decimal


class S3Prices(_Prices, frozen=True, kw_only=True):
    """Amazon S3, class Standard, first tier.

    A put is PUT, COPY, POST or LIST: of a multipart upload its begin, every part and its completion are one each.
    A get is GET, HEAD and all others; aborting and deleting are free.
    """

    usd_per_million_puts: Decimal
    usd_per_million_gets: Decimal
    usd_per_gb_month: Decimal


class XrayPrices(_Prices, frozen=True, kw_only=True):
    """AWS X-Ray."""

    usd_per_million_traces: Decimal
    free_traces: Decimal = Decimal(0)


class PriceSheet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prices of one region on one day; one file in ``prices/``."""

    date: datetime.date
    region: str
    currency: Literal["USD"]
    lambda_: LambdaPrices = msgspec.field(name="lambda")
    dynamodb: DynamodbPrices
    sqs: SqsPrices
    logs: LogPrices
    metrics: MetricPrices | None = None
    s3: S3Prices | None = None
    xray: XrayPrices | None = None

    @property
    def name(self) -> str:
        """Region and date."""
        return f"{self.region} {self.date}"


def load_price_sheet(region_or_path: str | Path) -> PriceSheet:
    """Read a price sheet: ``us-east-1`` means ``prices/us-east-1.toml``, anything else is a path.

    Raises:
        PriceSheetError: the file is absent or something in it is wrong; tells file, key, value and next step.
    """
    path = locate(region_or_path, "prices", PriceSheetError)
    sheet = read(path, PriceSheet, PriceSheetError)
    if (fault := impossible_price(sheet)) is not None:
        raise PriceSheetError(f"{path}: {fault}", next_step=f"write a price, 0 to {_MOST:e}")
    return sheet


def impossible_price(sheet: PriceSheet) -> str | None:
    """Says which number of a sheet cannot be reckoned with: key and value; None when all can."""
    numbers = priced("", msgspec.to_builtins(sheet, builtin_types=(Decimal,)))
    return next(
        (f"{key} is {price}" for key, price in numbers if not price.is_finite() or not 0 <= price <= _MOST), None
    )


def kept_sheet(prices: Mapping[str, object], path: Path) -> PriceSheet:
    """The price sheet that the manifest of a run holds.

    Raises:
        StorageError: it is none; ``path`` is the manifest's file.
    """
    try:
        sheet = msgspec.convert(prices, PriceSheet)
        fault = impossible_price(sheet)
    except msgspec.ValidationError as error:
        fault = str(error)
    if fault is not None:
        raise StorageError(f"{path} is damaged: {fault} of prices", next_step="restore it, or measure again")
    return sheet


@functools.lru_cache(maxsize=2**16)  # most of a run's amounts are few, and each of its rows has six
def rounded(amount: Decimal | None) -> Decimal | None:
    """Eighteen decimals, as the columns of ``metrics`` have."""
    return None if amount is None else amount.quantize(Decimal("1e-18"), context=_CONTEXT)


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
        sqs_bytes: size of the messages that started the invocation together, 0 when there was none. They are taken as
            sent, received and deleted with one request each.
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
        sqs_usd=None if message is None else sqs_usd(sheet, sqs_requests(int(message))),
        logs_usd=None if logged is None else logged / BYTES_PER_GB * sheet.logs.usd_per_gb,
    )


def tiered(amount: Decimal, first_usd: Decimal, tiers: Iterable[Tier], *, free: Decimal = Decimal(0)) -> Decimal:
    """Price a month's amount: each part at the price of its tier.

    The free allowance is taken off the amount first, so that it is worth the first tier's price.
    """
    left, total, price, begin = max(amount - free, Decimal(0)), Decimal(0), first_usd, Decimal(0)
    for tier in sorted(tiers, key=lambda tier: tier.above):
        total += max(min(left, tier.above) - begin, Decimal(0)) * price
        begin, price = tier.above, tier.usd
    return total + max(left - begin, Decimal(0)) * price


def init_in_billed(duration_ms: float, init_ms: float, billed_ms: float) -> bool | None:
    """Whether Billed Duration holds init; None when it is neither ceil(init + duration) nor ceil(duration), or both."""
    duration, init = Decimal(str(duration_ms)), Decimal(str(init_ms))
    inside, outside = billed_ms == math.ceil(duration + init), billed_ms == math.ceil(duration)
    return None if inside == outside else inside


def sqs_requests(message_bytes: int) -> int:
    """Count the billed requests for a send, a receive and a delete of so many bytes; none when there was no message."""
    chunks = math.ceil(message_bytes / SQS_CHUNK_BYTES)
    return 2 * chunks + 1 if chunks else 0


def shared_requests(message_bytes: float, *, sent: int, received: int) -> Decimal:
    """Count the billed requests of one message: its part of a send, of a receive and of a delete.

    Args:
        message_bytes: its size; the messages beside it are taken to be as large.
        sent: how many messages its send held.
        received: how many messages the invocation held. One request receives ten of them at most, and one deletes ten.
    """
    sending = math.ceil(message_bytes * sent / SQS_CHUNK_BYTES)
    receiving = math.ceil(message_bytes * min(received, SQS_BATCH_MESSAGES) / SQS_CHUNK_BYTES)
    batches = math.ceil(received / SQS_BATCH_MESSAGES)
    return Decimal(sending) / sent + Decimal(batches * (receiving + 1)) / received


def sqs_usd(sheet: PriceSheet, requests: Decimal | int) -> Decimal:
    """Price requests to SQS, first tier."""
    return requests * sheet.sqs.usd_per_million_requests / _MILLION


def item_bytes(attributes: Mapping[str, str | int | Decimal | bool | bytes | None]) -> int:
    """Size an item of scalar attributes as DynamoDB does: UTF-8 names and values.

    A string has its UTF-8 bytes, binary its raw bytes, a number a byte for two significant digits begun and one more,
    a boolean and null one ("DynamoDB item sizes and formats" in the developer guide; AWS calls the size of a number
    approximate).
    """
    return sum(len(name.encode()) + _value_bytes(value) for name, value in attributes.items())


def write_units(size_bytes: int) -> int:
    """Count the write request units of one item: every 1,024 bytes begun."""
    return math.ceil(size_bytes / 1024)


@functools.lru_cache(maxsize=4096)
def ingest_wru(lang: str, batch_id_characters: int, label: str, size_bytes: int, count: int) -> int:
    """Count the write units of ``count`` new items of the scenario ``ingest`` (docs/contracts.md) by the size rule."""
    total = 0
    for digits in range(1, len(str(count)) + 1):  # items differ only in the length of their number
        first, end = 10 ** (digits - 1) if digits > 1 else 0, min(10**digits, count)
        item: dict[str, str | int | bool] = {
            "pk": "batch_id#" + "b" * batch_id_characters,
            "sk": f"seq#{'9' * digits}",
            "lang": lang,
            "label": label,
            "size_bytes": size_bytes,
            "seq": int("9" * digits),
            "t_start_ms": 1_795_255_200_001,
            "payload": "",
            "cold_start": True,
        }
        total += max(end - first, 0) * write_units(item_bytes(item) + size_bytes)
    return total


def _value_bytes(value: str | int | Decimal | bool | bytes | None) -> int:
    match value:
        case bool() | None:
            return 1
        case str():
            return len(value.encode())
        case bytes():
            return len(value)
        case _:
            digits = str(abs(value)).replace(".", "").strip("0")
            return math.ceil(len(digits) / 2) + 1


def ingested_bytes(messages: Iterable[str]) -> int:
    """Size log events as CloudWatch Logs does: UTF-8 bytes and 26 more for each (PutLogEvents, API reference)."""
    return sum(len(message.encode()) + LOG_EVENT_OVERHEAD_BYTES for message in messages)


def priced(key: str, value: object) -> Iterator[tuple[str, Decimal]]:
    """Find every price in a sheet, with its dotted key."""
    if isinstance(value, Decimal):
        yield key, value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from priced(f"{key}.{name}".lstrip("."), member)
    elif isinstance(value, list | tuple):
        for number, member in enumerate(value):
            yield from priced(f"{key}[{number}]", member)


def _amount(value: float | None) -> Decimal | None:
    """Turn a measured number into the decimal it is printed as."""
    if value is None:
        return None
    amount = Decimal(str(value))
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{value} is no amount that can be billed")
    return amount
