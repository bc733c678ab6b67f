r"""The saved queries of the template, run by DuckDB over records and REPORT lines.

Filters, ``parse``, ``fields`` and ``stats`` of Logs Insights become SQL, command by command. What DuckDB counts shows
that the arithmetic is right, not that CloudWatch reads the text as it is meant.
"""

# ruff: noqa: S608 - the queries are the project's own

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from test_saved_queries import FAILURES, ID, REPORTS, text_of

FOLDER = Path(__file__).parents[1]
FIELDS: dict[str, Any] = json.loads((FOLDER / "contracts/s3_record.schema.json").read_text())["properties"]
QUERIES = ("LatencyQuery", "ThroughputQuery", "RecordsQuery", "UploadFailuresQuery", "UsageQuery")
FUNCTIONS = {"ispresent", "coalesce", "count", "sum", "min", "max", "pct", "not", "and", "or", "like", "as", "by"}
START_MS = 1_790_000_000_000


def record(**changes: Any) -> dict[str, Any]:
    """A record of one object of ten events, as the functions log it."""
    written = {
        "ok": True, "lang": "go", "run_id": "a", "request_id": ID, "function_name": "f", "region": "us-east-1",
        "memory_mb": 512, "workload": "events", "reserved_concurrency": 0, "batch_events": 10, "event_bytes": 1024,
        "seed": 1, "ts_start_ms": START_MS, "ts_end_ms": START_MS, "latency_ms": 20.5, "generate_ms": 0.5,
        "events_generated": 10, "object_bytes": 10_249, "multipart_parts": 0, "s3_requests": 1, "sdk_retries": 0,
        "throttles": 0, "s3_bucket": "b", "s3_key": "k", "is_cold_start": False,
    }  # fmt: skip
    assert written.keys() | changes.keys() <= FIELDS.keys()
    return {name: value for name, value in (written | changes).items() if value is not None}


FAILED = {
    "ok": False, "failed": 1, "object_bytes": None, "events_generated": None, "s3_requests": 3, "sdk_retries": 2,
    "throttles": 3, "error": {"code": "UploadFailed", "message": "m"},
}  # fmt: skip


def run(query: str, lines: list[dict[str, Any] | str]) -> list[dict[str, Any]]:
    """What a query answers over log lines: records, and texts of the platform."""
    commands = [re.sub(r"\s+", " ", command) for command in text_of(query).strip().split("\n| ")]
    columns = ["@timestamp", "@message", "@log", *(name for name in FIELDS if name != "_aws")]
    with duckdb.connect() as database:
        database.execute("CREATE MACRO ispresent(a) AS a IS NOT NULL")
        database.execute("CREATE MACRO pct(a, p) AS quantile_disc(a, p / 100)")
        typed = ", ".join(f'"{name}" {_type(name)}' for name in columns)
        database.execute(f"CREATE TABLE step0 ({typed})")
        for line in lines:
            row: dict[str, Any] = {"@message": line} if isinstance(line, str) else {"@message": "{}", **line}
            values = [json.dumps(row[name]) if name == "error" and name in row else row.get(name) for name in columns]
            database.execute(f"INSERT INTO step0 VALUES ({', '.join('?' for _ in columns)})", values)
        for number, command in enumerate(commands):
            database.execute(f"CREATE TABLE step{number + 1} AS {_sql(command, f'step{number}')}")
        answer = database.execute(f"SELECT * FROM step{len(commands)}")
        assert answer.description is not None
        return [dict(zip([column[0] for column in answer.description], row, strict=True)) for row in answer.fetchall()]


def _type(name: str) -> str:
    spec = FIELDS.get(name, {})
    if "$ref" in spec or spec.get("type") in ("integer", "number") or "const" in spec:
        return "DOUBLE"
    return "BOOLEAN" if spec.get("type") == "boolean" else "VARCHAR"


def _sql(command: str, table: str) -> str:
    """One command as SQL over the table of what the ones before it left."""
    verb, _, rest = command.partition(" ")
    quoted = re.sub(r"@(timestamp|message|log)", r'"@\1"', rest)
    if verb == "filter":
        condition = re.sub(r"(\S+) like /((?:[^/\\]|\\.)+)/", r"regexp_matches(\1, '\2')", quoted)
        return f"SELECT * FROM {table} WHERE {condition}"
    if verb == "parse":
        match = re.fullmatch(r"(\S+) /(.*?)\(\?<(\w+)>(.*)\)(.*)/", quoted)
        assert match is not None, command
        source, before, name, group, after = match.groups()
        read = f"nullif(regexp_extract({source}, '{before}({group}){after}', 1), '')"
        return f"SELECT *, {f'try_cast({read} AS DOUBLE)' if '[0-9' in group else read} AS {name} FROM {table}"
    if verb == "fields":
        return f"SELECT *, {quoted} FROM {table}"
    if verb == "display":
        shown = re.sub(r"\b(\w+)\.(\w+)", r"json_extract_string(\1, '$.\2') AS '\1.\2'", quoted)
        return f"SELECT {shown} FROM {table}"
    if verb in ("sort", "limit"):
        return f"SELECT * FROM {table} {'ORDER BY' if verb == 'sort' else 'LIMIT'} {quoted}"
    assert verb == "stats", command
    expressions, _, by = quoted.rpartition(" by ")
    return f"SELECT {by}, {expressions} FROM {table} GROUP BY {by}"


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_reads_only_what_a_record_or_the_query_itself_has(query: str) -> None:
    named = r"(?:(?<=like )|(?<=@message ))/(?:[^/\\]|\\.)+/"
    text = re.sub(named, lambda found: " ".join(re.findall(r"\?<(\w+)>", found[0])), text_of(query))
    made = set(re.findall(r"\bas (\w+)", text)) | set(re.findall(r"parse @message (\w+)", text))
    commands = {"filter", "parse", "fields", "stats", "display", "sort", "limit", "asc"}
    used = set(re.findall(r"(?<![@.\w])[a-z]\w*", text))
    assert used - made - FUNCTIONS - commands <= FIELDS.keys()


def test_throughput_of_one_record_is_no_division_by_zero() -> None:
    (row,) = run("ThroughputQuery", [record()])
    assert (row["calls"], row["span_s"], row["calls_per_s"], row["events_per_s"]) == (1, 0.001, 1000, 10_000)


def test_throughput_is_of_all_that_was_written_between_the_first_start_and_the_last_end() -> None:
    later = record(ts_start_ms=START_MS + 500, ts_end_ms=START_MS + 1999)
    (row,) = run("ThroughputQuery", [later, record(ts_end_ms=START_MS + 10), record(**FAILED)])
    assert (row["span_s"], row["calls_per_s"], row["bytes_per_s"], row["events_per_s"]) == (2, 1, 10_249, 10)


def test_latency_is_by_factor_cold_and_warm_apart_and_of_successes() -> None:
    warm = [record(latency_ms=float(ms)) for ms in range(1, 101)]
    large = record(workload="batch", batch_events=None, multipart_part_mb=8, parallelism=2, latency_ms=7.0)
    rows = run("LatencyQuery", [*warm, record(is_cold_start=True), record(memory_mb=1024), record(**FAILED), large])
    assert len(rows) == 4
    (row,) = (row for row in rows if row["calls"] == 100)
    assert (row["latency_p50_ms"], row["latency_p95_ms"], row["latency_p99_ms"]) == (50, 95, 99)
    assert (row["workload"], row["memory_mb"], row["batch_events"], row["is_cold_start"]) == ("events", 512, 10, False)


def test_records_are_counted_by_dimension_with_failures_and_throttles() -> None:
    rows = run("RecordsQuery", [record(), record(**FAILED), record(function_name="g", lang="python"), "START"])
    assert {row["function_name"]: (row["records"], row["failures"], row["s3_throttles"]) for row in rows} == {
        "f": (2, 1, 3),
        "g": (1, None, 0),
    }


def test_usage_adds_up_what_is_billed() -> None:
    lines: list[dict[str, Any] | str] = [
        record(),
        record(**FAILED),
        REPORTS["out of memory"].text,
        record(memory_mb=1024),
        REPORTS["warm"].text,
    ]
    lines.append("START RequestId: x")
    rows = {row["function_memory_mb"]: row for row in run("UsageQuery", lines)}
    assert rows.keys() == {128, 512, 1024}
    assert (rows[1024]["invocations"], rows[1024]["billed_total_ms"], rows[1024]["gb_seconds"]) == (1, 6955, 6.955)
    assert (rows[512]["s3_requests_sent"], rows[512]["bytes_written"], rows[512]["records"]) == (4, 10_249, 2)
    assert rows[128]["gb_seconds"] == pytest.approx(0.00025)


def test_failures_are_what_lambda_ended_what_failed_and_what_s3_throttled_in_time_order() -> None:
    def at(second: int, line: dict[str, Any] | str) -> dict[str, Any]:
        said = {"@message": line} if isinstance(line, str) else line
        return {"@timestamp": f"2026-11-21 10:00:0{second}", **said}

    rows = run(
        "UploadFailuresQuery",
        [
            at(5, FAILURES["old timeout"]),
            at(4, FAILURES["init timeout"]),
            at(3, record(throttles=2, request_id="throttled")),
            at(2, record(**FAILED | {"throttles": 0}, request_id="failed")),
            at(1, REPORTS["out of memory"].text),
            at(6, record()),
            at(7, REPORTS["warm"].text),
            at(8, f"START RequestId: {ID}"),
        ],
    )
    assert [row["@timestamp"][-1] for row in rows] == ["1", "2", "3", "4", "5"]
    names = ("failed_request_id", "platform_status", "platform_error", "platform_phase", "error.code", "throttles")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (ID, "error", "Runtime.OutOfMemory", None, None, None),
        ("failed", None, None, None, "UploadFailed", 0),
        ("throttled", None, None, None, None, 2),
        (None, "timeout", None, "init", None, None),
        (None, None, None, None, None, None),
    ]
