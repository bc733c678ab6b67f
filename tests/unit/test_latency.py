"""The latency model: its file, its distribution, its seed, and which call a request is."""

import csv
import io
import re
from pathlib import Path
from statistics import median, quantiles

import msgspec
import pytest
import sample_factorial
from rich.console import Console
from samples import ROOT, make_manifest
from test_report import make_summary, shown

from lambdalab.analysis.message_analysis import summarise
from lambdalab.errors import LatencyError
from lambdalab.local.latency import LONGEST_MS, Draws, LatencyModel, load_latency
from lambdalab.local.service_time import operation_of
from lambdalab.report.call_terminal import render as render_calls
from lambdalab.report.html import render_html
from lambdalab.run.call_conclusion import conclude

SHIPPED = ROOT / "latencies" / "2026-11-21.toml"
MODEL = """\
name = "test"
date = 2026-11-21
seed = 7
[[calls]]
service = "dynamodb"
operation = "PutItem"
p50_ms = 5.5
p50_source = "https://example.org/, read 2026-11-21"
p99_ms = 20
p99_source = "assumption"
"""


def test_the_shipped_model_says_of_every_number_where_it_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    model = load_latency("2026-11-21")
    assert model == load_latency(SHIPPED)
    assert str(model.date) == SHIPPED.stem
    assert {(call.service, call.operation) for call in model.calls} >= {
        ("dynamodb", "PutItem"),
        ("dynamodb", "BatchWriteItem"),
        ("dynamodb", "Query"),
        ("sqs", "SendMessage"),
        ("s3", "PutObject"),
        ("s3", "GetObject"),
    }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed = 7", "seed = 7\nsed = 8", 'key "sed" is unknown; perhaps "seed" is meant'),
        ("seed = 7", "", 'key "seed" is missing; add it.'),
        ("p99_ms = 20", "", 'key "calls[0].p99_ms" is missing; add it.'),
        ("p50_ms = 5.5", "p50_ms = 5.5\np50 = 5", 'key "calls[0].p50" is unknown; perhaps "p50_ms" is meant'),
        ('"dynamodb"', '"dynamo"', 'calls[0].service is "dynamo"; invalid enum value'),
        ("PutItem", "PutItm", 'calls[0].operation is "PutItm"; perhaps "PutItem" is meant; there are: '),
        ('"dynamodb"', '"sqs"', 'calls[0].operation is "PutItem"; there are: AddPermission, '),
        ('"dynamodb"', '"s3"', 'calls[0].operation is "PutItem"; there are: CopyObject, '),
        ("p99_ms = 20", "p99_ms = 5.4", "calls[0].p99_ms is 5.4 beside p50_ms 5.5; p99_ms is never below p50_ms."),
        ("p50_ms = 5.5", "p50_ms = -1", "calls[0].p50_ms is -1; write 0, or 0.001 to 60,000 ms."),
        ("p50_ms = 5.5", "p50_ms = 0", "calls[0].p99_ms is 20 beside p50_ms 0; no lognormal has a median of 0"),
        ("p50_ms = 5.5", "p50_ms = nan", "calls[0].p50_ms is nan; write 0, or"),
        ("p99_ms = 20", "p99_ms = inf", "calls[0].p99_ms is inf; write 0, or"),
        ("p99_ms = 20", "p99_ms = 60001", "calls[0].p99_ms is 60001; write 0, or"),
        ("p99_ms = 20", 'p99_ms = "20"', 'calls[0].p99_ms is "20"; expected `float`, got `str`.'),
        ('"assumption"', '"a guess"', 'calls[0].p99_source is "a guess"; write an address and `read YYYY-MM-DD`, or'),
        (", read 2026-11-21", "", 'calls[0].p50_source is "https://example.org/"; write an address and'),
        ('name = "test"', 'name = " "', "name is empty; name the model"),
    ],
)
def test_what_is_wrong_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "model.toml"
    path.write_text(MODEL.replace(old, new))
    with pytest.raises(LatencyError, match=re.escape(f"{path}: {said}")) as caught:
        load_latency(path)
    assert "\n" not in str(caught.value)


def test_an_operation_has_one_distribution(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text(MODEL + MODEL[MODEL.index("[[calls]]") :])
    with pytest.raises(LatencyError, match=r"calls\[1\] is dynamodb PutItem once more; keep one of the two"):
        load_latency(path)


def model(p50_ms: float = 5.5, p99_ms: float = 20.0, seed: int = 7) -> LatencyModel:
    numbers = {"p50_ms": p50_ms, "p99_ms": p99_ms, "p50_source": "assumption", "p99_source": "assumption"}
    calls = [{"service": "dynamodb", "operation": operation} | numbers for operation in ("PutItem", "GetItem")]
    return msgspec.convert({"name": "test", "date": "2026-11-21", "seed": seed, "calls": calls}, LatencyModel)


def drawn(model: LatencyModel, n: int, function_name: str = "f", operation: str = "PutItem") -> list[float]:
    draws = Draws(model, function_name)
    found = [draws.next_ms("dynamodb", operation) for _ in range(n)]
    return [ms for ms in found if ms is not None]


def test_quantiles_are_those_stated() -> None:
    call = model().calls[0]
    assert call.quantile_ms(0.5) == pytest.approx(5.5)
    assert call.quantile_ms(0.99) == pytest.approx(20)
    # ln x is normal: z(0.95) / z(0.99) = 1.644854 / 2.326348, so p95 = 5.5 x (20 / 5.5) ^ 0.707054
    assert call.quantile_ms(0.95) == pytest.approx(13.7020, abs=1e-3)
    assert call.quantile_ms(0.01) == pytest.approx(5.5**2 / 20)


def test_draws_have_the_stated_distribution() -> None:
    found = drawn(model(), 20_000)
    assert median(found) == pytest.approx(5.5, rel=0.02)
    assert quantiles(found, n=100)[98] == pytest.approx(20, rel=0.05)


def test_equal_quantiles_are_a_constant_and_zeros_are_zero() -> None:
    assert set(drawn(model(200, 200), 50)) == {200}
    assert set(drawn(model(0, 0), 50)) == {0}


def test_the_widest_distribution_stays_finite() -> None:
    call = model(0.001, LONGEST_MS).calls[0]
    assert 0 < call.quantile_ms(2**-53) < call.quantile_ms(1 - 2**-53) < float("inf")


def test_a_seed_repeats_and_everything_else_makes_another_sequence() -> None:
    first = drawn(model(), 100)
    assert drawn(model(), 100) == first
    assert [round(ms, 6) for ms in first[:3]] == GOLDEN
    others = [drawn(model(seed=8), 100), drawn(model(), 100, "g"), drawn(model(), 100, operation="GetItem")]
    assert len({tuple(sequence) for sequence in (first, *others)}) == 4


GOLDEN = [4.582166, 2.454851, 2.795324]
"""What Python 3.11 draws first; every version must."""


def test_calls_between_do_not_shift_a_sequence() -> None:
    draws = Draws(model(), "f")
    mixed = []
    for _ in range(20):
        draws.next_ms("dynamodb", "GetItem")
        mixed.append(draws.next_ms("dynamodb", "PutItem"))
    assert mixed == drawn(model(), 20)


def test_an_operation_without_a_distribution_has_no_time() -> None:
    assert Draws(model(), "f").next_ms("dynamodb", "Query") is None


S3 = {"authorization": "AWS4-HMAC-SHA256 Credential=test/20261121/us-east-1/s3/aws4_request, SignedHeaders=host"}
OTHER = {"authorization": S3["authorization"].replace("/s3/", "/lambda/")}


@pytest.mark.parametrize(
    ("method", "url", "headers", "call"),
    [
        ("POST", "/", {"x-amz-target": "DynamoDB_20120810.PutItem"}, ("dynamodb", "PutItem")),
        ("POST", "/", {"x-amz-target": "AmazonSQS.SendMessage"}, ("sqs", "SendMessage")),
        ("POST", "/", {"x-amz-target": "AWSEvents.PutEvents"}, None),
        ("POST", "/", {"x-amz-target": "PutItem"}, None),
        ("GET", "/bucket/a/key", S3, ("s3", "GetObject")),
        ("GET", "/bucket/key?x-id=GetObject&versionId=3&response-content-type=a", S3, ("s3", "GetObject")),
        ("GET", "/bucket/key?tagging", S3, None),
        ("HEAD", "/bucket/key", S3, ("s3", "HeadObject")),
        ("HEAD", "/bucket", S3, None),
        ("PUT", "/bucket/key?x-id=PutObject", S3, ("s3", "PutObject")),
        ("PUT", "/bucket/key?partNumber=1&uploadId=a", S3, None),
        ("PUT", "/bucket/key", S3 | {"x-amz-copy-source": "/b/k"}, ("s3", "CopyObject")),
        ("PUT", "/bucket", S3, None),
        ("DELETE", "/bucket/key", S3, ("s3", "DeleteObject")),
        ("DELETE", "/bucket", S3, None),
        ("POST", "/bucket?delete", S3, ("s3", "DeleteObjects")),
        ("POST", "/bucket/key?uploads", S3, None),
        ("GET", "/bucket?list-type=2&prefix=a%2Fb&encoding-type=url", S3, ("s3", "ListObjectsV2")),
        ("GET", "/bucket", S3, None),
        ("GET", "/bucket?policy", S3, None),
        ("GET", "/bucket/key", {}, None),
        ("GET", "/2015-03-31/functions", OTHER, None),
    ],
)
def test_service_and_operation_of_a_request(
    method: str, url: str, headers: dict[str, str], call: tuple[str, str] | None
) -> None:
    assert operation_of(method, url, headers) == call


def test_every_table_says_that_a_model_was_on_and_cpu_shares_were_scaled() -> None:
    label = "test 2026-11-21, seed 7"
    text = shown(msgspec.structs.replace(make_summary(), latency_model=label, cpu_scale=0.5))
    caution = f"caution: with service times of latency model {label}\ncaution: with CPU scale 0.5"
    titles = [line for line in text.splitlines() if re.match("Duration in ms|Other times|Peak memory", line)]
    assert len(titles) == 3
    for title in titles:
        assert f"{title}\n{caution}\n" in text


def test_a_run_with_a_model_says_so_among_its_cautions() -> None:
    manifest = make_manifest(latency=msgspec.to_builtins(model()))
    (caution,) = [c for c in summarise(manifest, [], []).cautions if "latency" in c]
    assert caution.startswith("latency model test 2026-11-21, seed 7: adds latencies to DynamoDB, SQS and S3")
    assert not [c for c in summarise(make_manifest(), [], []).cautions if "latency" in c]


def test_a_run_of_calls_says_the_same_everywhere(tmp_path: Path) -> None:
    changes = {"latency": msgspec.to_builtins(model()), "cpu_scale": 0.5}
    manifest = sample_factorial.make_manifest((sample_factorial.EVENTS,), blocks=2, **changes)
    summary = conclude(store := sample_factorial.make_run(tmp_path, manifest))
    of_messages = summarise(make_manifest(**changes), [], []).cautions[:3]
    assert summary.cautions[:3] == of_messages, "the same words, for every kind of run"
    assert [caution.partition(" ")[0] for caution in of_messages] == ["local", "cpu", "latency"]
    label = "test 2026-11-21, seed 7"
    assert (summary.latency_model, summary.cpu_scale) == (label, 0.5)
    with (store.folder / "metrics.csv").open() as file:
        assert {(row["latency_model"], row["cpu_scale"]) for row in csv.DictReader(file)} == {(label, "0.5")}
    said = (f"caution: with service times of latency model {label}", "caution: with CPU scale 0.5")
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(render_calls(summary))
    text = console.export_text()
    page = (store.folder / "report.html").read_text()
    assert text.count(said[0]) == text.count(said[1]) >= 5, "once under each title"
    assert page.count(said[0]) == page.count(said[1]) == page.count("<caption")
    assert re.search("<th scope=.row.>latency model</th><td>" + label, page)


def test_the_page_says_it_under_each_title() -> None:
    summary = msgspec.structs.replace(make_summary(), latency_model="test 2026-11-21, seed 7")
    page = render_html(summary, make_manifest(), [])
    said = "caution: with service times of latency model test 2026-11-21, seed 7"
    assert page.count(said) == page.count("<caption") > 5
    assert said not in render_html(make_summary(), make_manifest(), [])
