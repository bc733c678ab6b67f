"""Costs against cases worked by hand, in exact decimals."""

import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from lambdalab.errors import PriceSheetError
from lambdalab.logs.platform_lines import billed_ms
from lambdalab.pricing.costs import (
    PriceSheet,
    ingested_bytes,
    invocation_cost,
    load_price_sheet,
    shared_requests,
    sqs_requests,
)
from lambdalab.records.trials import Cost

ROOT = Path(__file__).parents[2]
SHEET_FILE = ROOT / "prices" / "us-east-1.toml"


@pytest.fixture(scope="module")
def sheet() -> PriceSheet:
    return load_price_sheet(SHEET_FILE)


def cost(
    sheet: PriceSheet,
    architecture: str = "arm64",
    memory_mb: int | None = 128,
    billed_ms: float | None = 147.0,
    wru: float | None = 200.0,
    sqs_bytes: int | None = 70,
    log_bytes: int | None = 1024,
) -> Cost:
    return invocation_cost(
        sheet,
        architecture=architecture,
        memory_mb=memory_mb,
        billed_ms=billed_ms,
        wru=wru,
        sqs_bytes=sqs_bytes,
        log_bytes=log_bytes,
    )


def test_the_packaged_sheet_says_of_when_and_where_it_is(sheet: PriceSheet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (sheet.date, sheet.region, sheet.currency) == (datetime.date(2026, 11, 20), "us-east-1", "USD")
    assert sheet.lambda_.usd_per_gb_s == {"x86_64": Decimal("0.0000166667"), "arm64": Decimal("0.0000133334")}
    monkeypatch.chdir(ROOT)
    assert load_price_sheet("us-east-1") == sheet


@pytest.mark.parametrize(
    ("architecture", "memory_mb", "billed_ms", "usd"),
    [
        # 0.147 s x 0.125 GB = 0.018375 GB-s, and 0.0000002 for the request
        ("arm64", 128, 147.0, "0.00000044500122500"),
        ("x86_64", 128, 147.0, "0.00000050625061250"),
        # 1 s x 1 GB
        ("x86_64", 1024, 1000.0, "0.0000168667"),
        # 0.1 s x 1.7275390625 GB (1,769 MB) = 0.17275390625 GB-s
        ("arm64", 1769, 100.0, "0.00000250339693359375"),
    ],
)
def test_lambda_is_gb_seconds_and_a_request(
    sheet: PriceSheet, architecture: str, memory_mb: int, billed_ms: float, usd: str
) -> None:
    assert cost(sheet, architecture, memory_mb, billed_ms).lambda_usd == Decimal(usd)


@pytest.mark.parametrize(
    ("init_ms", "duration_ms", "memory_mb", "billed", "usd"),
    [
        # AWS's own examples of init billing: ceil(init + duration) ms x 0.125 GB x 0.0000166667, and the request
        (130.49, 15.74, 128, 147, "0.0000005062506125"),
        (113.51, 2.75, 128, 117, "0.0000004437504875"),
        (80.00, 133.61, 128, 214, "0.000000645834225"),
        (84.00, 3016.78, 128, 3101, "0.0000066604295875"),
        # 2.339 s x 2.9384765625 GB (3,009 MB) without init: 6.8730966796875 GB-s
        (0.0, 2338.66, 3009, 2339, "0.000114751840431347656250"),
    ],
)
def test_what_aws_bills_for_an_init_is_paid(
    sheet: PriceSheet, init_ms: float, duration_ms: float, memory_mb: int, billed: int, usd: str
) -> None:
    assert billed_ms(duration_ms, init_ms) == billed
    assert cost(sheet, "x86_64", memory_mb, float(billed)).lambda_usd == Decimal(usd)


def test_arm64_is_about_a_fifth_cheaper(sheet: PriceSheet) -> None:
    x86, arm = cost(sheet, "x86_64").lambda_usd, cost(sheet, "arm64").lambda_usd
    assert x86 is not None
    assert arm is not None
    request = Decimal("0.0000002")
    assert (arm - request) / (x86 - request) == Decimal("0.0000133334") / Decimal("0.0000166667")
    assert round((arm - request) / (x86 - request), 4) == Decimal("0.8000")


@pytest.mark.parametrize(
    ("wru", "usd"),
    [
        (100.0, "0.0000625"),  # 100 items of 1,024 bytes, taken as 1 unit each: the study's own figure
        (6400.0, "0.0040"),  # 100 items of 65,536 bytes, taken as 64 units each: the study's own figure
        (200.0, "0.000125"),  # what 100 items with a payload of 1,024 bytes consume: keys count, 2 units each
        (6500.0, "0.0040625"),  # with a payload of 65,536 bytes: 65 units each
        (0.0, "0"),
        (0.1, "0.0000000625"),  # as a binary fraction it would be 0.1000000000000000055
    ],
)
def test_dynamodb_is_write_units(sheet: PriceSheet, wru: float, usd: str) -> None:
    assert cost(sheet, wru=wru).dynamodb_usd == Decimal(usd)


@pytest.mark.parametrize(
    ("sqs_bytes", "usd"),
    [
        (0, "0"),  # a direct invocation
        (1, "0.0000012"),  # send, receive, delete
        (65_536, "0.0000012"),
        (65_537, "0.0000020"),  # two requests to send, two to receive, one to delete
        (1_048_576, "0.0000132"),  # 16 + 16 + 1
    ],
)
def test_sqs_is_send_receive_and_delete_in_chunks_of_64_kb(sheet: PriceSheet, sqs_bytes: int, usd: str) -> None:
    assert cost(sheet, sqs_bytes=sqs_bytes).sqs_usd == Decimal(usd)


@pytest.mark.parametrize(
    ("message_bytes", "sent", "received", "requests"),
    [
        (100, 1, 1, "3"),
        (100, 10, 1, "2.1"),
        (100, 1, 10, "1.2"),
        (100, 10, 10, "0.3"),
        (100, 1, 20, "1.2"),  # ten with each of two receives and two deletes
        (100, 1, 11, "1.36"),  # 1 + 4 / 11
        (65_536, 1, 1, "3"),
        (65_537, 1, 1, "5"),
        (6_554, 10, 10, "0.5"),  # ten are 65,540 bytes: two requests to send, two to receive, one to delete
    ],
)
def test_messages_share_the_requests_they_are_in(message_bytes: int, sent: int, received: int, requests: str) -> None:
    found = shared_requests(message_bytes, sent=sent, received=received)
    assert found.quantize(Decimal(requests)) == Decimal(requests)
    if sent == received == 1:
        assert found == sqs_requests(message_bytes)


@pytest.mark.parametrize(("log_bytes", "usd"), [(2**30, "0.50"), (2**20, "0.00048828125"), (0, "0")])
def test_logs_are_bytes_by_the_gb(sheet: PriceSheet, log_bytes: int, usd: str) -> None:
    assert cost(sheet, log_bytes=log_bytes).logs_usd == Decimal(usd)


def test_a_log_event_counts_its_utf8_bytes_and_26_more() -> None:
    assert ingested_bytes(["START\n", "é"]) == (6 + 26) + (2 + 26)
    assert ingested_bytes([]) == 0


def test_the_total_is_the_sum(sheet: PriceSheet) -> None:
    assert cost(sheet).total_usd == Decimal("0.000000445001225") + Decimal("0.000125") + Decimal("0.0000012") + Decimal(
        1024
    ) / 2**30 * Decimal("0.5")


def test_what_is_unknown_has_no_cost_and_no_total(sheet: PriceSheet) -> None:
    assert cost(sheet, memory_mb=None).lambda_usd is None
    assert cost(sheet, billed_ms=None).lambda_usd is None
    assert cost(sheet, wru=None).dynamodb_usd is None
    assert cost(sheet, sqs_bytes=None).sqs_usd is None
    assert cost(sheet, log_bytes=None).logs_usd is None
    assert cost(sheet, log_bytes=None).total_usd is None
    assert cost(sheet, log_bytes=None).lambda_usd is not None, "the others stay"


@pytest.mark.parametrize("amounts", [{"billed_ms": -1.0}, {"billed_ms": float("nan")}, {"wru": float("inf")}])
def test_an_impossible_amount_is_refused(sheet: PriceSheet, amounts: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no amount that can be billed"):
        cost(sheet, **amounts)  # type: ignore[arg-type]


def test_an_architecture_without_price_names_those_with_one(sheet: PriceSheet) -> None:
    with pytest.raises(PriceSheetError) as caught:
        cost(sheet, architecture="arm")
    assert str(caught.value) == (
        'the us-east-1 price sheet of 2026-11-20 has no architecture "arm"; '
        'perhaps "arm64" is meant; there are: x86_64, arm64.'
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("usd_per_gb = 0.50", "usd_per_gb = -0.50", ": logs.usd_per_gb is -0.50; write a price"),
        ("usd_per_gb = 0.50", "usd_per_gb = nan", ": logs.usd_per_gb is NaN; write a price"),
        ("usd_per_gb = 0.50", 'usd_per_gb = "cheap"', 'logs.usd_per_gb is "cheap"; invalid decimal'),
        ("x86_64 = 0.0000166667", "x86_64 = inf", ": lambda.usd_per_gb_s.x86_64 is Infinity; write"),
        ("usd_per_gb = 0.50", "", 'key "logs.usd_per_gb" is missing; add it'),
        ("usd_per_gb =", "usd_per_gbit =", 'key "logs.usd_per_gbit" is unknown; perhaps "usd_per_gb" is meant'),
        ("[logs]", "[log]", 'key "log" is unknown; perhaps "logs" is meant'),
        ('currency = "USD"', 'currency = "EUR"', 'currency is "EUR"; invalid enum value'),
        ("date = 2026-11-20", "date = 1", "date is 1; expected `date`"),
        ("[logs]", "[logs", "is not TOML"),
    ],
)
def test_a_wrong_sheet_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, told: str) -> None:
    text = SHEET_FILE.read_text(encoding="utf-8")
    assert old in text
    file = tmp_path / "wrong.toml"
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(PriceSheetError) as caught:
        load_price_sheet(file)
    assert str(caught.value).startswith(str(file))
    assert told in str(caught.value)


def test_an_absent_sheet_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(PriceSheetError, match="cannot be read: No such file"):
        load_price_sheet(tmp_path / "absent.toml")
    monkeypatch.chdir(ROOT)
    with pytest.raises(PriceSheetError, match='prices/ has no "us-east-2"; perhaps "us-east-1" is meant'):
        load_price_sheet("us-east-2")
