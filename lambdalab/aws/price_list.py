"""Reads the prices of a region from the AWS Price List Query API and writes them as a price sheet.

This was never run against AWS itself: its tests answer GetProducts in the shape of botocore's own example
(``pricing/2017-10-15/examples-1.json``). GetProducts is asked for all products of a service in a region by
``regionCode`` (an attribute of every regional product), and for a monthly allowance by its ``usagetype``. Which product
a price is, is told by attributes, from these sources:

- Lambda, ``group`` and ``usagetype``: infracost/infracost, ``internal/resources/aws/lambda_function.go``; the group
  ends in ``-ARM`` for arm64 (public readers of the offer file of 2025 and 2026 agree);
- DynamoDB, product family and ``group``: the same, ``dynamodb_table.go``; usage types ``WriteRequestUnits``,
  ``ReadRequestUnits``. The group of provisioned capacity is the same, so the family decides;
- SQS, product family and ``queueType``: the same, ``sqs_queue.go``. The usage type is ``Requests-RBP`` in us-east-1 and
  ``Requests-Tier1`` elsewhere, so it is not asked for;
- CloudWatch, usage types ``VendedLog-Bytes``, ``DataScanned-Bytes``, ``MetricMonitorUsage``: "CloudWatch billing and
  cost" in its user guide. Lambda's logs are vended logs since May 2025;
- S3, ``group`` of requests and ``volumeType`` of storage, usage types ``Requests-Tier1`` (PUT, COPY, POST, LIST),
  ``Requests-Tier2`` (all others) and ``TimedStorage-ByteHrs``: public readers of its price list in 2026 agree;
- X-Ray ``XRay-TracesStored``, and all allowances, ``Global-...``: "Tracking your AWS Free Tier usage" in the Billing
  user guide.

A usage type begins with a code of the region (``EU-``, ``APN1-``), in us-east-1 with ``USE1-`` or none.
"""

import datetime
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from lambdalab.aws.clients import Aws, access_errors
from lambdalab.errors import AccessError, PriceSheetError, StorageError
from lambdalab.pricing.costs import PriceSheet, Tier, load_price_sheet

_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-[1-9]")
_MILLION: Final = Decimal(1_000_000)


class _Dimension(msgspec.Struct, rename="camel"):
    begin_range: str
    end_range: str
    price_per_unit: dict[str, str]


class _Term(msgspec.Struct, rename="camel"):
    price_dimensions: dict[str, _Dimension]


class _Terms(msgspec.Struct):
    on_demand: dict[str, _Term] = msgspec.field(name="OnDemand", default={})


class _Details(msgspec.Struct, rename="camel"):
    sku: str
    attributes: dict[str, str]
    product_family: str = ""


class _Product(msgspec.Struct, rename="camel"):
    """One text of ``PriceList``, as far as it is read."""

    product: _Details
    terms: _Terms
    publication_date: str


class _Wanted(NamedTuple):
    """How to tell a price's product: its attributes, ``productFamily`` among them, and its usage type."""

    service: str
    attributes: Mapping[str, str]
    usage: str | None = None
    per: Decimal = Decimal(1)


def _lambda(usage: str, group: str, per: Decimal = Decimal(1)) -> _Wanted:
    return _Wanted("AWSLambda", {"productFamily": "Serverless", "group": group}, usage, per)


def _dynamodb(usage: str, group: str) -> _Wanted:
    family = "Amazon DynamoDB PayPerRequest Throughput"
    return _Wanted("AmazonDynamoDB", {"productFamily": family, "group": group}, usage, _MILLION)


def _s3(family: str, attributes: Mapping[str, str], usage: str, per: Decimal = Decimal(1)) -> _Wanted:
    return _Wanted("AmazonS3", {"productFamily": family, **attributes}, usage, per)


_X86, _ARM = "lambda.usd_per_gb_s.x86_64", "lambda.usd_per_gb_s.arm64"
_REQUESTS, _ARM_REQUESTS = "lambda.usd_per_million_requests", "lambda.usd_per_million_requests of arm64"
_WRU, _RRU = "dynamodb.usd_per_million_wru", "dynamodb.usd_per_million_rru"
_SQS, _LOGS, _SCANNED = "sqs.usd_per_million_requests", "logs.usd_per_gb", "logs.usd_per_gb_scanned"
_METRICS, _XRAY = "metrics.usd_per_metric_month", "xray.usd_per_million_traces"
_PUTS, _GETS, _STORED = "s3.usd_per_million_puts", "s3.usd_per_million_gets", "s3.usd_per_gb_month"
_PRICES: Final = {
    _X86: _lambda("Lambda-GB-Second", "AWS-Lambda-Duration"),
    _ARM: _lambda("Lambda-GB-Second-ARM", "AWS-Lambda-Duration-ARM"),
    _REQUESTS: _lambda("Request", "AWS-Lambda-Requests", _MILLION),
    _ARM_REQUESTS: _lambda("Request-ARM", "AWS-Lambda-Requests-ARM", _MILLION),
    _WRU: _dynamodb("WriteRequestUnits", "DDB-WriteUnits"),
    _RRU: _dynamodb("ReadRequestUnits", "DDB-ReadUnits"),
    _SQS: _Wanted("AWSQueueService", {"productFamily": "API Request", "queueType": "Standard"}, per=_MILLION),
    _LOGS: _Wanted("AmazonCloudWatch", {}, "VendedLog-Bytes"),
    _SCANNED: _Wanted("AmazonCloudWatch", {}, "DataScanned-Bytes"),
    _METRICS: _Wanted("AmazonCloudWatch", {}, "CW:MetricMonitorUsage"),
    _PUTS: _s3("API Request", {"group": "S3-API-Tier1"}, "Requests-Tier1", _MILLION),
    _GETS: _s3("API Request", {"group": "S3-API-Tier2"}, "Requests-Tier2", _MILLION),
    _STORED: _s3("Storage", {"volumeType": "Standard"}, "TimedStorage-ByteHrs"),
    _XRAY: _Wanted("AWSXRay", {}, "XRay-TracesStored", _MILLION),
}
_ALLOWANCES: Final = {
    "lambda.free_requests": ("AWSLambda", "Global-Request"),
    "lambda.free_gb_s": ("AWSLambda", "Global-Lambda-GB-Second"),
    "sqs.free_requests": ("AWSQueueService", "Global-Requests"),
    "xray.free_traces": ("AWSXRay", "Global-XRay-TracesStored"),
}


class _Price(NamedTuple):
    usd: Decimal
    tiers: list[Tier]
    source: str


def refresh(aws: Aws, region: str, folder: Path, today: datetime.date) -> Path:
    """Read every price of a region and write ``<region>-<today>.toml``; all prices, or nothing.

    Args:
        aws: where credentials come from; ``AWS_ENDPOINT_URL_PRICING`` sets another endpoint.
        region: whose prices.
        folder: the project's ``prices``. A sheet that is there is never replaced.
        today: the sheet's date.

    Raises:
        AccessError: no credentials, no permission (``pricing:GetProducts``), no answer, or not the answer looked for.
        PriceSheetError: the region is no region, or its sheet of today is there already.
        StorageError: the file cannot be written.
    """
    if not _REGION.fullmatch(region):
        raise PriceSheetError(f'"{region}" is no region', next_step="write one like us-east-1")
    path = folder / f"{region}-{today}.toml"
    if path.exists():
        raise PriceSheetError(f"{path} is there already", next_step="use it, or remove it and ask again")
    sheet = read_prices(aws, region, today)
    unfinished = path.with_suffix(".unfinished")
    try:
        unfinished.write_text(to_toml(sheet), encoding="utf-8")
        if load_price_sheet(unfinished.rename(path)) != sheet:
            raise AssertionError(f"{path} does not read as it was written")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}", next_step="check the folder") from error
    return path


def read_prices(aws: Aws, region: str, today: datetime.date) -> PriceSheet:
    """Ask for every price of a sheet; a product that is missing, or not the only one, ends it with AccessError."""
    offers = {
        service: list(_products(aws, service, "regionCode", region))
        for service in dict.fromkeys(wanted.service for wanted in _PRICES.values())
    }
    prices = {key: _price(key, region, wanted, offers[wanted.service]) for key, wanted in _PRICES.items()}
    if prices[_ARM_REQUESTS].usd != prices[_REQUESTS].usd:
        raise _unusable(_ARM_REQUESTS, region, f"is not the {prices[_REQUESTS].usd} of x86_64, and a sheet has one")
    for key in (_REQUESTS, _ARM_REQUESTS, _WRU, _RRU, _SCANNED, _PUTS, _GETS, _XRAY):
        if prices[key].tiers:
            raise _unusable(key, region, "has tiers, which a sheet cannot hold for it")
    free = {
        key: _allowance(key, region, list(_products(aws, service, "usagetype", usage)))
        for key, (service, usage) in _ALLOWANCES.items()
    }

    def source(*keys: str) -> str:
        return "; ".join(prices[key].source for key in keys)

    return msgspec.convert(
        {
            "date": today,
            "region": region,
            "currency": "USD",
            "lambda": {
                "source": source(_X86, _ARM, _REQUESTS),
                "usd_per_million_requests": prices[_REQUESTS].usd,
                "free_requests": free["lambda.free_requests"],
                "free_gb_s": free["lambda.free_gb_s"],
                "usd_per_gb_s": {"x86_64": prices[_X86].usd, "arm64": prices[_ARM].usd},
                "tiers": {"x86_64": prices[_X86].tiers, "arm64": prices[_ARM].tiers},
            },
            "dynamodb": {
                "source": source(_WRU, _RRU),
                "usd_per_million_wru": prices[_WRU].usd,
                "usd_per_million_rru": prices[_RRU].usd,
            },
            "sqs": {
                "source": source(_SQS),
                "usd_per_million_requests": prices[_SQS].usd,
                "free_requests": free["sqs.free_requests"],
                "tiers": prices[_SQS].tiers,
            },
            "logs": {
                "source": source(_LOGS, _SCANNED),
                "usd_per_gb": prices[_LOGS].usd,
                "usd_per_gb_scanned": prices[_SCANNED].usd,
                "tiers": prices[_LOGS].tiers,
            },
            # Its lower prices begin at 10,000 metrics; the lab keeps up a handful.
            "metrics": {"source": source(_METRICS), "usd_per_metric_month": prices[_METRICS].usd},
            # Its lower prices begin at 50 TB stored for a month.
            "s3": {
                "source": source(_PUTS, _GETS, _STORED),
                "usd_per_million_puts": prices[_PUTS].usd,
                "usd_per_million_gets": prices[_GETS].usd,
                "usd_per_gb_month": prices[_STORED].usd,
            },
            "xray": {
                "source": source(_XRAY),
                "usd_per_million_traces": prices[_XRAY].usd,
                "free_traces": free["xray.free_traces"],
            },
        },
        PriceSheet,
    )


def to_toml(sheet: PriceSheet) -> str:
    """Write a sheet as it is read, money with all its digits."""
    lines = ["# Read from the AWS Price List Query API by `lambdalab prices refresh`. On-demand prices, without taxes."]
    lines += [""]
    told = msgspec.to_builtins(sheet, builtin_types=(Decimal, datetime.date))
    lines += [f"{key} = {_toml(value)}" for key, value in told.items() if not isinstance(value, dict)]
    for service, members in told.items():
        if isinstance(members, dict):
            lines += ["", f"[{service}]"]
            lines += [f"{key} = {_toml(value)}" for key, value in members.items()]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    match value:
        case Decimal():
            return f"{value:f}" if "." in f"{value:f}" else f"{value:f}.0"
        case str():
            return msgspec.json.encode(value).decode()  # a basic string of TOML has the escapes of JSON
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(member)}" for key, member in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case _:
            return str(value)


def _products(aws: Aws, service: str, field: str, value: str) -> Iterator[_Product]:
    with access_errors(f"the price list of {service}"):
        pages = aws.pricing.get_paginator("get_products").paginate(
            ServiceCode=service,
            Filters=[{"Type": "TERM_MATCH", "Field": field, "Value": value}],
            FormatVersion="aws_v1",
        )
        for text in (text for page in pages for text in page["PriceList"]):
            try:
                product = msgspec.json.decode(text, type=_Product)
            except msgspec.DecodeError as error:
                raise AccessError(
                    f"the price list of {service} has a product that cannot be read: {error}",
                    next_step="write the prices by hand as prices/us-east-1.toml has them",
                ) from error
            if product.product.attributes.get(field) == value:
                yield product


def _price(key: str, region: str, wanted: _Wanted, offered: Iterable[_Product]) -> _Price:
    """The one price among the products; several that cost the same are one."""
    usage = None if wanted.usage is None else re.compile(rf"(?:[A-Z]+[0-9]*-)?{re.escape(wanted.usage)}")
    found = []
    for product in offered:
        details = product.product
        attributes = details.attributes | {"productFamily": details.product_family}
        if wanted.attributes.items() <= attributes.items() and (
            usage is None or usage.fullmatch(attributes.get("usagetype", ""))
        ):
            found.append(product)
    if not found:
        raise _unusable(key, region, f"is not in the price list of {wanted.service}")
    offers = [_bands(key, region, product) for product in found]
    if any(bands != offers[0] for bands in offers):
        skus = ", ".join(product.product.sku for product in found)
        raise _unusable(key, region, f"is not one price but several, SKU {skus}")
    first, *rest = [(begin, (usd * wanted.per).normalize()) for begin, _, usd in offers[0]]
    if first[0] != 0 or first[1] == 0:
        raise _unusable(key, region, f"begins with {first[1]:f} USD from {first[0]:f} on, which is no first tier")
    product = found[0]
    return _Price(
        usd=first[1],
        tiers=[Tier(above=begin, usd=usd) for begin, usd in rest],
        source=(
            f"{key}: AWS Price List, {wanted.service}, SKU {product.product.sku}, "
            f"published {product.publication_date[:10]}"
        ),
    )


def _allowance(key: str, region: str, offered: list[_Product]) -> Decimal:
    """How much a month has free: where the free band of the ``Global-`` product ends."""
    ends = {bands[0][1] for bands in (_bands(key, region, product) for product in offered) if bands[0][2] == 0}
    if len(ends) != 1 or None in ends:
        raise _unusable(key, region, "is not in the price list as one free band")
    return Decimal(ends.pop() or 0)


def _bands(key: str, region: str, product: _Product) -> list[tuple[Decimal, Decimal | None, Decimal]]:
    """Begin, end and price of a product's bands, in order and without gaps."""
    terms = list(product.terms.on_demand.values())
    sku = product.product.sku
    try:
        bands = sorted(
            (
                Decimal(band.begin_range),
                None if band.end_range == "Inf" else Decimal(band.end_range),
                Decimal(band.price_per_unit["USD"]),
            )
            for term in terms
            for band in term.price_dimensions.values()
        )
    except (InvalidOperation, KeyError, TypeError) as error:
        raise _unusable(key, region, f"cannot be read from SKU {sku}: {error!r}") from error
    if len(terms) != 1 or not bands or any(a[1] != b[0] for a, b in itertools.pairwise(bands)):
        raise _unusable(key, region, f"has {len(terms)} offers or a gap between its tiers in SKU {sku}")
    return bands


def _unusable(key: str, region: str, why: str) -> AccessError:
    return AccessError(
        f"the price {key} of {region} {why}, so no sheet was written",
        next_step="write the sheet by hand as prices/us-east-1.toml is, with the source of each price",
    )
