"""`lambdalab prices refresh` through boto3 and a server that answers GetProducts in the shape of botocore's example.

What the products are called and cost is public material about us-east-1 of 2026 (``price_list.py`` names it).
"""

import copy
import datetime
import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command_line import Call, call_fixture, project_fixture  # noqa: F401
from samples import PRICES

from lambdalab.aws.clients import Aws
from lambdalab.aws.price_list import refresh
from lambdalab.errors import AccessError, LambdalabError, PriceSheetError, StorageError
from lambdalab.pricing.costs import load_price_sheet

TODAY = datetime.date(2026, 11, 21)


def product(
    service: str, sku: str, family: str, usage: str, bands: list[tuple[str, str, str]], **attributes: str
) -> dict[str, Any]:
    """One product of ``us-east-1``, or of no region."""
    region = {} if usage.startswith("Global-") else {"regionCode": "us-east-1"}
    code = f"{sku}.JRTCKXETXF"
    return {
        "product": {
            "productFamily": family,
            "attributes": {"servicecode": service, "usagetype": usage, **region, **attributes},
            "sku": sku,
        },
        "serviceCode": service,
        "terms": {
            "OnDemand": {
                code: {
                    "priceDimensions": {
                        f"{code}.{number}": {
                            "unit": "of the service",
                            "beginRange": begin,
                            "endRange": end,
                            "description": "-",
                            "appliesTo": [],
                            "rateCode": f"{code}.{number}",
                            "pricePerUnit": {"USD": usd},
                        }
                        for number, (usd, begin, end) in enumerate(reversed(bands))  # in no order
                    },
                    "sku": sku,
                    "effectiveDate": "2026-09-01T00:00:00Z",
                    "offerTermCode": "JRTCKXETXF",
                    "termAttributes": {},
                }
            }
        },
        "version": "20260919120000",
        "publicationDate": "2026-09-19T12:00:00Z",
    }


def tiers(*bands: tuple[str, str]) -> list[tuple[str, str, str]]:
    """Prices with where they begin; each ends where the next begins."""
    ends = [begin for _, begin in bands[1:]] + ["Inf"]
    return [(usd, begin, end) for (usd, begin), end in zip(bands, ends, strict=True)]


def one(usd: str) -> list[tuple[str, str, str]]:
    return tiers((usd, "0"))


DDB = "Amazon DynamoDB PayPerRequest Throughput"
VENDED = tiers(("0.5", "0"), ("0.25", "10240"), ("0.10", "30720"), ("0.05", "51200"))
SQS_TIERS = tiers(("0.0000004000", "0"), ("0.0000003000", "100000000000"), ("0.0000002400", "200000000000"))
LIST = [
    product("AWSLambda", "X86", "Serverless", "Lambda-GB-Second", tiers(
        ("0.0000166667", "0"), ("0.0000150000", "6000000000"), ("0.0000133334", "15000000000")),
        group="AWS-Lambda-Duration"),
    product("AWSLambda", "ARM", "Serverless", "Lambda-GB-Second-ARM", tiers(
        ("0.0000133334", "0"), ("0.0000120001", "7500000000"), ("0.0000106667", "18750000000")),
        group="AWS-Lambda-Duration-ARM"),
    product("AWSLambda", "REQ", "Serverless", "Request", one("0.0000002000"), group="AWS-Lambda-Requests"),
    product("AWSLambda", "RQA", "Serverless", "Request-ARM", one("0.0000002000"), group="AWS-Lambda-Requests-ARM"),
    product("AWSLambda", "EDG", "Serverless", "Lambda-Edge-Request", one("9"), group="AWS-Lambda-Edge-Requests"),
    product("AWSLambda", "TMP", "Serverless", "Lambda-Storage-GB-Second", one("0.0000000309"),
            group="AWS-Lambda-Storage-Duration"),
    product("AWSLambda", "FGB", "Serverless", "Global-Lambda-GB-Second", [("0.0000000000", "0", "400000")],
            group="AWS-Lambda-Duration"),
    product("AWSLambda", "FRQ", "Serverless", "Global-Request", [("0.0000000000", "0", "1000000")],
            group="AWS-Lambda-Requests"),
    product("AmazonDynamoDB", "WRU", DDB, "WriteRequestUnits", one("0.0000006250"), group="DDB-WriteUnits"),
    product("AmazonDynamoDB", "RRU", DDB, "ReadRequestUnits", one("0.0000001250"), group="DDB-ReadUnits"),
    product("AmazonDynamoDB", "WIA", DDB, "IA-WriteRequestUnits", one("0.00000078"), group="DDB-WriteUnitsIA"),
    product("AmazonDynamoDB", "WCU", "Provisioned IOPS", "WriteCapacityUnit-Hrs", tiers(
        ("0", "0"), ("0.00065", "18600")), group="DDB-WriteUnits"),
    product("AWSQueueService", "SQS", "API Request", "Requests-RBP", SQS_TIERS, queueType="Standard"),
    product("AWSQueueService", "FIF", "API Request", "Requests-FIFO-RBP", one("0.0000005"),
            queueType="FIFO (first-in, first-out)"),
    product("AWSQueueService", "FRR", "API Request", "Requests-Fair-RBP", one("0.0000001"), queueType="Fair"),
    product("AWSQueueService", "FSQ", "API Request", "Global-Requests", [("0.0000000000", "0", "1000000")]),
    product("AmazonCloudWatch", "VND", "Data Payload", "USE1-VendedLog-Bytes", VENDED, group="Ingested Logs"),
    product("AmazonCloudWatch", "WAF", "Data Payload", "USE1-VendedLog-Bytes-WAFLogs", one("9"), group="Ingested Logs"),
    product("AmazonCloudWatch", "PRO", "Data Payload", "USE1-DataProcessing-Bytes", one("0.5"), group="Ingested Logs"),
    product("AmazonCloudWatch", "SCN", "Data Payload", "USE1-DataScanned-Bytes", one("0.005")),
    product("AmazonCloudWatch", "MET", "Metric", "CW:MetricMonitorUsage", tiers(
        ("0.3000000000", "0"), ("0.10", "10000"), ("0.05", "250000"), ("0.02", "1000000"))),
    product("AmazonS3", "PUT", "API Request", "Requests-Tier1", one("0.0000050000"), group="S3-API-Tier1"),
    product("AmazonS3", "GET", "API Request", "Requests-Tier2", one("0.0000004000"), group="S3-API-Tier2"),
    product("AmazonS3", "SIA", "API Request", "Requests-SIA-Tier1", one("0.00001"), group="S3-API-SIA-Tier1"),
    product("AmazonS3", "STO", "Storage", "TimedStorage-ByteHrs", tiers(
        ("0.0230000000", "0"), ("0.022", "51200"), ("0.021", "512000")), volumeType="Standard"),
    product("AmazonS3", "STI", "Storage", "TimedStorage-SIA-ByteHrs", one("0.0125"),
            volumeType="Standard - Infrequent Access"),
    product("AWSXRay", "XRY", "AWS X-Ray", "USE1-XRay-TracesStored", one("0.0000050000")),
    product("AWSXRay", "XRI", "AWS X-Ray", "USE1-XRay-TracesStored-Insights", one("0.000001")),
    product("AWSXRay", "FXR", "AWS X-Ray", "Global-XRay-TracesStored", [("0.0000000000", "0", "100000")]),
]  # fmt: skip


class PriceList:
    """What the server offers, and what it was asked."""

    def __init__(self) -> None:
        self.aws, self.url = Aws(), ""
        self.products = copy.deepcopy(LIST)
        self.asked: list[dict[str, Any]] = []

    def of(self, sku: str) -> dict[str, Any]:
        return next(product for product in self.products if product["product"]["sku"] == sku)

    def bands(self, sku: str) -> list[dict[str, Any]]:
        (term,) = self.of(sku)["terms"]["OnDemand"].values()
        return list(term["priceDimensions"].values())

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Two products a page."""
        self.asked.append(asked)
        (term,) = asked["Filters"]
        assert term["Type"] == "TERM_MATCH"
        found = [
            product
            for product in self.products
            if product["serviceCode"] == asked["ServiceCode"]
            and product["product"]["attributes"].get(term["Field"]) == term["Value"]
        ]
        begin = int(asked.get("NextToken", "0"))
        texts = [json.dumps(product) for product in found[begin : begin + 2]]
        more = {"NextToken": str(begin + 2)} if begin + 2 < len(found) else {}
        return {"FormatVersion": "aws_v1", "PriceList": texts} | more


@pytest.fixture(scope="module")
def served() -> Iterator[PriceList]:
    found = PriceList()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["X-Amz-Target"] == "AWSPriceListService.GetProducts"
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(found.answer(asked)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, pytest.MonkeyPatch.context() as patch:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_port}"
        patch.setenv("AWS_ENDPOINT_URL_PRICING", found.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.delenv("AWS_PROFILE", raising=False)
        assert found.aws.pricing.meta.region_name == "us-east-1"
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def offered(served: PriceList) -> PriceList:
    served.products, served.asked = copy.deepcopy(LIST), []
    return served


def refused(
    offered: PriceList, folder: Path, error: type[LambdalabError] = AccessError, region: str = "us-east-1"
) -> str:
    """The sentence of a refresh that wrote nothing."""
    before = sorted(folder.iterdir())
    with pytest.raises(error) as caught:
        refresh(offered.aws, region, folder, TODAY)
    assert sorted(folder.iterdir()) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_list_gives_the_packaged_sheet_again(offered: PriceList, tmp_path: Path) -> None:
    path = refresh(offered.aws, "us-east-1", tmp_path, TODAY)
    assert path == tmp_path / "us-east-1-2026-11-21.toml"
    sheet = load_price_sheet(path)
    assert (sheet.date, sheet.region) == (TODAY, "us-east-1")
    for service in ("lambda_", "dynamodb", "sqs", "logs", "metrics", "s3", "xray"):
        read, packaged = getattr(sheet, service), getattr(PRICES, service)
        for member in read.__struct_fields__:
            if member != "source":
                assert getattr(read, member) == getattr(packaged, member), (service, member)
    assert sheet.sqs.source == (
        "sqs.usd_per_million_requests: AWS Price List, AWSQueueService, SKU SQS, published 2026-09-19"
    )
    assert sheet.lambda_.source.count("SKU") == 3
    assert {asked["ServiceCode"]: asked.get("FormatVersion") for asked in offered.asked}["AWSXRay"] == "aws_v1"
    assert any("NextToken" in asked for asked in offered.asked), "no answer had a second page"
    assert [path.name for path in tmp_path.iterdir()] == ["us-east-1-2026-11-21.toml"]


def test_another_region_has_its_own_prices_and_the_same_allowances(offered: PriceList, tmp_path: Path) -> None:
    for found in offered.products:
        attributes = found["product"]["attributes"]
        if "regionCode" in attributes:
            attributes["regionCode"] = "eu-west-1"
            attributes["usagetype"] = "EU-" + attributes["usagetype"].removeprefix("USE1-")
    (band,) = offered.bands("WRU")
    band["pricePerUnit"]["USD"] = "0.0000007050"
    sheet = load_price_sheet(refresh(offered.aws, "eu-west-1", tmp_path, TODAY))
    assert (sheet.region, sheet.dynamodb.usd_per_million_wru) == ("eu-west-1", Decimal("0.705"))
    assert sheet.lambda_.free_gb_s == 400_000


@pytest.mark.parametrize(
    ("sku", "key"),
    [
        ("X86", "lambda.usd_per_gb_s.x86_64"),
        ("ARM", "lambda.usd_per_gb_s.arm64"),
        ("REQ", "lambda.usd_per_million_requests"),
        ("RQA", "lambda.usd_per_million_requests of arm64"),
        ("WRU", "dynamodb.usd_per_million_wru"),
        ("RRU", "dynamodb.usd_per_million_rru"),
        ("SQS", "sqs.usd_per_million_requests"),
        ("VND", "logs.usd_per_gb"),
        ("SCN", "logs.usd_per_gb_scanned"),
        ("MET", "metrics.usd_per_metric_month"),
        ("PUT", "s3.usd_per_million_puts"),
        ("GET", "s3.usd_per_million_gets"),
        ("STO", "s3.usd_per_gb_month"),
        ("XRY", "xray.usd_per_million_traces"),
        ("FGB", "lambda.free_gb_s"),
        ("FRQ", "lambda.free_requests"),
        ("FSQ", "sqs.free_requests"),
        ("FXR", "xray.free_traces"),
    ],
)
def test_a_price_that_is_not_there_is_named_and_nothing_is_written(
    offered: PriceList, tmp_path: Path, sku: str, key: str
) -> None:
    offered.products.remove(offered.of(sku))
    assert f"the price {key} of us-east-1 is not in the price list" in refused(offered, tmp_path)


def test_a_region_that_sells_nothing(offered: PriceList, tmp_path: Path) -> None:
    told = refused(offered, tmp_path, region="eu-north-9")
    assert "the price lambda.usd_per_gb_s.x86_64 of eu-north-9 is not in the price list of AWSLambda" in told


def test_two_products_that_cost_the_same_are_one_price_and_others_are_not(offered: PriceList, tmp_path: Path) -> None:
    twin = copy.deepcopy(offered.of("SCN"))
    twin["product"]["sku"] = "TWIN"
    offered.products.append(twin)
    assert load_price_sheet(refresh(offered.aws, "us-east-1", tmp_path, TODAY)).logs.usd_per_gb_scanned == Decimal(
        "0.005"
    )
    offered.bands("TWIN")[0]["pricePerUnit"]["USD"] = "0.006"
    (tmp_path / "us-east-1-2026-11-21.toml").unlink()
    assert "logs.usd_per_gb_scanned of us-east-1 is not one price but several, SKU SCN, TWIN" in refused(
        offered, tmp_path
    )


@pytest.mark.parametrize(
    ("sku", "member", "value", "told"),
    [
        ("WRU", "pricePerUnit", {"CNY": "1"}, "dynamodb.usd_per_million_wru of us-east-1 cannot be read from SKU WRU"),
        ("WRU", "pricePerUnit", {"USD": "cheap"}, "cannot be read from SKU WRU"),
        ("WRU", "pricePerUnit", {"USD": "0.0000"}, "begins with 0 USD from 0 on, which is no first tier"),
        ("WRU", "beginRange", "10", "begins with 0.625 USD from 10 on, which is no first tier"),
        ("WRU", "pricePerUnit", "free", "the price list of AmazonDynamoDB has a product that cannot be read: Expected"),
        ("RQA", "pricePerUnit", {"USD": "0.0000003"}, "of arm64 of us-east-1 is not the 0.2 of x86_64"),
        ("FGB", "endRange", "Inf", "lambda.free_gb_s of us-east-1 is not in the price list as one free band"),
        ("FGB", "pricePerUnit", {"USD": "0.1"}, "lambda.free_gb_s of us-east-1 is not in the price list as one free"),
    ],
)
def test_what_cannot_be_a_price_is_refused(
    offered: PriceList, tmp_path: Path, sku: str, member: str, value: Any, told: str
) -> None:
    (band,) = offered.bands(sku)
    band[member] = value
    assert told in refused(offered, tmp_path)


def test_a_gap_between_tiers_and_tiers_that_no_sheet_holds_are_refused(offered: PriceList, tmp_path: Path) -> None:
    band = next(band for band in offered.bands("VND") if band["beginRange"] == "30720")
    band["beginRange"] = "30721"
    assert "logs.usd_per_gb of us-east-1 has 1 offers or a gap between its tiers in SKU VND" in refused(
        offered, tmp_path
    )
    offered.products = copy.deepcopy(LIST)
    changed = product("AWSXRay", "XRY", "AWS X-Ray", "XRay-TracesStored", tiers(("0.000005", "0"), ("0.000004", "9")))
    offered.products[offered.products.index(offered.of("XRY"))] = changed
    assert "xray.usd_per_million_traces of us-east-1 has tiers, which a sheet cannot hold" in refused(offered, tmp_path)


def test_a_sheet_is_never_replaced_and_a_region_is_no_path(offered: PriceList, tmp_path: Path) -> None:
    (tmp_path / "us-east-1-2026-11-21.toml").write_text("mine")
    assert "us-east-1-2026-11-21.toml is there already; use it" in refused(offered, tmp_path, PriceSheetError)
    assert (tmp_path / "us-east-1-2026-11-21.toml").read_text() == "mine"
    assert '"../etc" is no region; write one like us-east-1.' in refused(offered, tmp_path, PriceSheetError, "../etc")
    assert offered.asked == []


def test_a_folder_that_cannot_be_written(offered: PriceList, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written: No such file or directory; check the folder"):
        refresh(offered.aws, "us-east-1", tmp_path / "absent", TODAY)


def test_the_command_prints_the_new_sheet_which_can_then_be_shown(
    call: Call, offered: PriceList, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "prices").unlink()
    (project / "prices").mkdir()
    monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", offered.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    ended = call("prices", "refresh")
    (path,) = (project / "prices").iterdir()
    assert (ended.code, ended.out, ended.err) == (0, f"prices/{path.name}\n", "")
    assert path.name.startswith("us-east-1-20")
    shown = call("prices", "show", path.stem)
    assert "SKU WRU, published 2026-09-19" in shown.out
