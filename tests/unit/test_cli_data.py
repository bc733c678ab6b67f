"""The commands over what is on disk, as they are typed: query, prices, and the terms of a report's bill."""

import csv
import io
import json
from pathlib import Path

import pytest
from command_line import Call, call_fixture, one_sentence, project_fixture  # noqa: F401
from samples import PRICES, ROOT, RUN_ID, make_lines, make_manifest, make_results

from lambdalab.analysis.message_rows import join
from lambdalab.logs.observations import observe
from lambdalab.records.trial_files import RunDirectory

COUNTS = "select label, count(*) as n, max(init_ms) as init from metrics where valid group by label order by label desc"


@pytest.fixture
def measured(project: Path) -> RunDirectory:
    """A whole run: one warm-up and one warm message of each language."""
    manifest = make_manifest()
    results = make_results(manifest)
    run = RunDirectory.create(project / "results", manifest)
    for result in results:
        run.append_trial(result)
    lines = [line for result in results for line in make_lines(result)]
    run.append_log_lines(lines)
    run.write_rows(join(manifest, results, observe(lines), PRICES))
    return run


# query


@pytest.mark.parametrize("which", [(), ("latest",), (RUN_ID,), (f"results/{RUN_ID}",)])
def test_csv_where_there_is_no_terminal(call: Call, measured: RunDirectory, which: tuple[str, ...]) -> None:
    ended = call("query", COUNTS, *which)
    assert (ended.code, ended.out, ended.err) == (0, "label,n,init\nWARMUP,2,130.49\nSMALL,2,\n", "")


def test_csv_quotes_what_needs_it(call: Call, measured: RunDirectory) -> None:
    ended = call("query", "select 'a,b' as \"x,y\", 'say \"so\"' as z", "--format", "csv")
    assert list(csv.reader(io.StringIO(ended.out))) == [["x,y", "z"], ["a,b", 'say "so"']]


def test_json_keeps_names_types_and_the_digits_of_money(call: Call, measured: RunDirectory) -> None:
    ended = call("query", COUNTS, "--format", "json")
    assert json.loads(ended.out) == [
        {"label": "WARMUP", "n": 2, "init": 130.49},
        {"label": "SMALL", "n": 2, "init": None},
    ]
    money = call("query", "select max(cost_dynamodb_usd) as usd from metrics", "--format", "json")
    assert json.loads(money.out) == [{"usd": "0.000125000000000000"}]
    assert json.loads(call("query", "select 1 as one where false", "--format", "json").out) == []


def test_a_table_is_whole_and_shows_nothing_for_null(call: Call, measured: RunDirectory) -> None:
    ended = call("query", COUNTS, "--format", "table")
    lines = [line.split() for line in ended.out.splitlines() if line.strip(" ─━╸╺")]
    assert lines == [["label", "n", "init"], ["WARMUP", "2", "130.49"], ["SMALL", "2"]]
    wide = call("query", "select * from metrics limit 1", "--format", "table")
    assert RUN_ID in wide.out
    assert "cost_per_item_usd" in wide.out


def test_all_runs_stand_together_also_of_another_schema_version(call: Call, measured: RunDirectory) -> None:
    from pyarrow import parquet

    old = measured.folder.parent / "20250101-000000-ingest-0000"
    old.mkdir()
    (old / "run.json").write_text('{"run_id": "20250101-000000-ingest-0000", "schema_version": 1}')
    table = parquet.read_table(measured.folder / "metrics.parquet").drop_columns(["arm", "mode"])
    parquet.write_table(table, old / "metrics.parquet")
    (measured.folder.parent / "not-a-run").mkdir()
    ended = call("query", "select count(*) as n, count(arm) as arms from metrics", "all")
    assert ended.out == "n,arms\n8,4\n", "two runs, and the link latest is none"
    versions = call("query", "select schema_version from runs order by 1", "all")
    assert versions.out == f"schema_version\n1\n{measured.manifest().schema_version}\n"
    for newest in (["latest"], []):
        assert call("query", "select count(*) as n from metrics", *newest).out == "n\n4\n"


def test_an_answer_of_many_batches_is_as_if_it_came_at_once(call: Call, measured: RunDirectory) -> None:
    many = "select range as n from range(2500)"
    assert call("query", many).out == "n\n" + "".join(f"{n}\n" for n in range(2500))
    numbers = [{"n": n} for n in range(2500)]
    assert call("query", many, "--format", "json").out == json.dumps(numbers, indent=2) + "\n"
    tables = call("query", many, "--format", "table").out.split()
    assert [word for word in tables if word.isdigit()] == [str(n) for n in range(2500)]
    assert tables.count("n") == 3, "a heading for every thousand rows"


def test_a_query_that_fails_at_its_first_row_prints_no_heading(call: Call, measured: RunDirectory) -> None:
    assert "oh no" in one_sentence(call("query", "select error('oh no') as n"))


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            "select nothing from metrics",
            'query: Binder Error: Referenced column "nothing" not found',
        ),
        ("selekt 1", 'DuckDB refused the query: Parser Error: syntax error at or near "selekt"'),
        ("", "the query is empty; the views are metrics, trials and runs."),
        (" -- nothing", "the query is empty; the views are metrics, trials and runs."),
        ("copy metrics to 'stolen.csv'", "Permission Error"),
        ("copy metrics to 'results/latest/metrics.parquet'", "Permission Error"),
        ("install httpfs", "refused the query"),
        ("insert into metrics select * from metrics", "refused the query"),
        ("select * from read_csv('tiny.toml')", "Permission Error"),
    ],
)
def test_what_duckdb_refuses_is_one_sentence_and_changes_nothing(
    call: Call, project: Path, measured: RunDirectory, sql: str, said: str
) -> None:
    before = {path: path.read_bytes() for path in measured.folder.iterdir()}
    ended = call("query", sql)
    assert said in one_sentence(ended)
    assert ended.code == 2
    assert {path: path.read_bytes() for path in measured.folder.iterdir()} == before
    assert not (project / "stolen.csv").exists()


def test_a_query_without_a_run(call: Call, measured: RunDirectory) -> None:
    ended = call("query", "select 1", "absent")
    assert (ended.code, f"the newest run in results is {RUN_ID}." in one_sentence(ended)) == (2, True)
    ended = call("query", "select 1", "all", "--results", "elsewhere")
    assert (ended.code, "elsewhere has no metrics.parquet; write it with" in one_sentence(ended)) == (2, True)
    ended = call("query", "select 1", "--format", "xml")
    assert (ended.code, "'xml' is not one of 'table', 'csv', 'json'" in one_sentence(ended)) == (2, True)
    (measured.folder / "metrics.parquet").unlink()
    ended = call("query", "select 1", "latest")
    assert (ended.code, f"{RUN_ID} has no metrics.parquet; write it with" in one_sentence(ended)) == (2, True)


def test_a_damaged_file_of_a_run(call: Call, measured: RunDirectory) -> None:
    (measured.folder / "metrics.parquet").write_bytes(b"PAR1 and then nothing")
    ended = call("query", "select count(*) from metrics")
    assert "metrics.parquet" in one_sentence(ended)
    assert ended.code == 3


# prices


def test_every_price_is_shown_with_all_digits_and_its_source(call: Call) -> None:
    ended = call("prices", "show")
    assert ended.code == 0
    assert ended.out.startswith("us-east-1 2026-11-20, USD\n")
    rows = [line.rstrip().split(maxsplit=2) for line in ended.out.splitlines()]
    assert ["lambda.usd_per_gb_s.x86_64", "0.0000166667", PRICES.lambda_.source] in rows
    assert ["lambda.tiers.arm64[1].usd", "0.0000106667", PRICES.lambda_.source] in rows
    assert ["dynamodb.usd_per_million_wru", "0.625", PRICES.dynamodb.source] in rows
    assert ["xray.free_traces", "100000.0", PRICES.xray.source if PRICES.xray else ""] in rows
    assert call("prices", "show", str(ROOT / "prices" / "us-east-1.toml")) == ended


def test_prices_that_are_not_there(call: Call, project: Path) -> None:
    ended = call("prices", "show", "mars-1")
    assert 'prices/ has no "mars-1"; there are: us-east-1.' in one_sentence(ended)
    assert ended.code == 2
    ended = call("prices", "show", "tiny.toml")
    assert 'tiny.toml: key "name" is unknown; there are: date, region, currency' in one_sentence(ended)
    assert ended.code == 2


def test_refreshing_prices_needs_credentials(call: Call, project: Path) -> None:
    (project / "prices").unlink()
    (project / "prices").mkdir()
    ended = call("prices", "refresh", "--region", "eu-west-1")
    assert one_sentence(ended).startswith("no AWS credentials were found for the price list of AWSLambda; set ")
    assert ended.code == 3
    assert list((project / "prices").iterdir()) == []


# the terms of a bill


def row(out: str, heading: str, load: str, arm: str) -> list[str]:
    """The figures of one cell in the table below a heading."""
    assert heading in out, out
    table = out.split(heading, 1)[1].lstrip("\n").split("\n\n", 1)[0]
    (found,) = [line.split()[2:] for line in table.splitlines() if line.split()[:2] == [load, arm]]
    return found


def test_a_month_at_a_rate(call: Call, measured: RunDirectory) -> None:
    ended = call("report", "--per-month", "1")
    assert ended.code == 0, ended.err
    compute, requests, dynamodb, sqs, polling, logs, metrics, xray, total = map(
        float, row(ended.out, "USD a month at 1 messages/s", "SMALL", "python")
    )
    # 2,628,000 messages of 16 ms at 128 MB: 5,256 GB-s; 200 units and 3 requests each; 657,000 polls; 4 metrics
    assert (compute, requests, dynamodb, sqs, polling) == (0.09, 0.53, 328.50, 3.15, 0.26)
    assert (metrics, xray) == (1.20, 0.00)
    assert total == pytest.approx(compute + requests + dynamodb + sqs + polling + logs + metrics, abs=0.04)
    assert "assumed: no free tier" in ended.out
    summary = json.loads((measured.folder / "summary.json").read_text())
    cell = next(c for c in summary["bill"]["cells"] if (c["arm"], c["label"]) == ("python", "SMALL"))
    assert cell["month"]["dynamodb_usd"] == "328.5000"
    assert "USD a month" not in call("report").out


def test_the_free_tier_comes_off_a_month(call: Call, measured: RunDirectory) -> None:
    ended = call("report", "--per-month", "1", "--free-tier")
    figures = row(ended.out, "USD a month at 1 messages/s", "SMALL", "python")
    # of Lambda all GB-s and 1,000,000 of 2,628,000 requests; of SQS 1,000,000 of 8,541,000, all polls first
    assert figures[:5] == ["0.00", "0.33", "328.50", "3.02", "0.00"]
    assert "assumed: the free tier is unused and applied" in ended.out


def test_the_studys_formula_beside_the_truth(call: Call, measured: RunDirectory) -> None:
    ended = call("report", "--formula", "seed")
    units, true_units, total, true_total, item, _ = row(ended.out, "The original study's formula", "SMALL", "python")
    # 0.016 s x 0.125 GB x 0.0000166667 + 0.0000002 + 100 x 0.000000625
    assert (units, true_units, total, item) == ("100", "200", "0.00006273", "0.0000006273")
    assert float(true_total) > 0.000125
    assert (
        "difference: python SMALL: 200 write units were used, the study counts 100, because its ceil(payload / 1 KB)"
        in " ".join(ended.out.split())
    )
    assert "The original study's formula" not in call("report").out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--free-tier", "--free-tier is an allowance of a month; add --per-month RATE, or leave it out."),
        ("--per-month 0", "--per-month is '0'; write a number per second, above 0 and up to 1000000."),
        ("--per-month -1", "--per-month is '-1'; write"),
        ("--per-month nan", "--per-month is 'nan'; write"),
        ("--per-month 1e7", "--per-month is '1e7'; write"),
        ("--per-month many", "--per-month is 'many'; write"),
        ("--formula guess", "'guess' is not one of 'true', 'seed'"),
    ],
)
def test_terms_that_make_no_sense(call: Call, measured: RunDirectory, options: str, said: str) -> None:
    ended = call("report", *options.split())
    assert said in one_sentence(ended)
    assert ended.code == 2
