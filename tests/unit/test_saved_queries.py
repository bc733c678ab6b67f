r"""The saved Logs Insights queries, run as far as Python can: their regular expressions over literal platform lines.

Logs Insights writes a named group ``(?<name>...)`` where Python writes ``(?P<name>...)``. The rest of what the queries
use means the same to both, which `test_the_expressions_mean_the_same_to_logs_insights_and_python` keeps true.
"""

import re
from typing import NamedTuple

import pytest
from sam_template import template, template_folders

QUERIES = {
    name: body
    for folder in template_folders()
    for name, body in template(folder)["Resources"].items()
    if body["Type"] == "AWS::Logs::QueryDefinition"
}
"""Of every template; no two have the same name."""
FAILURES_QUERIES = ("FailuresQuery", "UploadFailuresQuery")
ID = "8f507cfc-xmpl-4697-b07a-ac58fc914c95"


class Line(NamedTuple):
    """A line as the platform writes it, and what the invocations query has to read from it."""

    text: str
    fields: dict[str, str]
    failed: bool = False


def report(*labels: str, end: str = "\t\n") -> str:
    return "\t".join((f"REPORT RequestId: {ID}", *labels)) + end


REPORTS = {
    "cold": Line(
        report(
            "Duration: 15.74 ms",
            "Billed Duration: 147 ms",
            "Memory Size: 128 MB",
            "Max Memory Used: 56 MB",
            "Init Duration: 130.49 ms",
        ),
        {
            "duration_ms": "15.74",
            "billed_ms": "147",
            "memory_mb": "128",
            "max_memory_mb": "56",
            "init_ms": "130.49",
        },
    ),
    "warm": Line(
        report("Duration: 1.23 ms", "Billed Duration: 2 ms", "Memory Size: 128 MB", "Max Memory Used: 56 MB"),
        {"duration_ms": "1.23", "billed_ms": "2", "memory_mb": "128", "max_memory_mb": "56"},
    ),
    "snapstart": Line(
        report(
            "Duration: 2338.66 ms",
            "Billed Duration: 2521 ms",
            "Memory Size: 3009 MB",
            "Max Memory Used: 173 MB",
            "Restore Duration: 398.97 ms",
            "Billed Restore Duration: 182 ms",
        ),
        {"duration_ms": "2338.66", "billed_ms": "2521", "memory_mb": "3009", "max_memory_mb": "173"},
    ),
    "timeout": Line(
        report(
            "Duration: 3016.78 ms",
            "Billed Duration: 3101 ms",
            "Memory Size: 128 MB",
            "Max Memory Used: 31 MB",
            "Init Duration: 84.00 ms",
            "Status: timeout",
        ),
        {
            "duration_ms": "3016.78",
            "billed_ms": "3101",
            "memory_mb": "128",
            "max_memory_mb": "31",
            "init_ms": "84.00",
            "status": "timeout",
        },
        failed=True,
    ),
    "crash": Line(
        report(
            "Duration: 133.61 ms",
            "Billed Duration: 214 ms",
            "Memory Size: 128 MB",
            "Max Memory Used: 31 MB",
            "Init Duration: 80.00 ms",
            "Status: error",
            "Error Type: Runtime.ExitError",
        ),
        {
            "duration_ms": "133.61",
            "billed_ms": "214",
            "memory_mb": "128",
            "max_memory_mb": "31",
            "init_ms": "80.00",
            "status": "error",
        },
        failed=True,
    ),
    "out of memory": Line(
        report(
            "Duration: 6954.19 ms",
            "Billed Duration: 6955 ms",
            "Memory Size: 1024 MB",
            "Max Memory Used: 1023 MB",
            "Status: error",
            "Error Type: Runtime.OutOfMemory",
        ),
        {
            "duration_ms": "6954.19",
            "billed_ms": "6955",
            "memory_mb": "1024",
            "max_memory_mb": "1023",
            "status": "error",
        },
        failed=True,
    ),
    "emulator": Line(
        report(
            "Duration: 647 ms",
            "Billed Duration: 647 ms",
            "Memory Size: 128 MB",
            "Max Memory Used: 0 MB",
            end="",
        ),
        {"duration_ms": "647", "billed_ms": "647", "memory_mb": "128", "max_memory_mb": "0"},
    ),
    "init first": Line(  # the Runtime Interface Emulator's order
        report(
            "Init Duration: 0.15 ms",
            "Duration: 84.22 ms",
            "Billed Duration: 85 ms",
            "Memory Size: 3008 MB",
            "Max Memory Used: 3008 MB",
        ),
        {
            "duration_ms": "84.22",
            "billed_ms": "85",
            "memory_mb": "3008",
            "max_memory_mb": "3008",
            "init_ms": "0.15",
        },
    ),
}
FAILURES = {
    "init timeout": "INIT_REPORT Init Duration: 9999.79 ms\tPhase: init\tStatus: timeout",
    "init crash": "INIT_REPORT Init Duration: 10.17 ms\tPhase: invoke\tStatus: error\tError Type: Runtime.ExitError",
    "restore timeout": "RESTORE_REPORT Restore Duration: 1236.04 ms\tStatus: timeout",
    "old crash": f"RequestId: {ID} Error: Runtime exited with error: signal: killed\nRuntime.ExitError",
    "old timeout": f"2024-03-04T17:22:38.033Z {ID} Task timed out after 3.00 seconds",
}
HARMLESS = {
    "init start": "INIT_START Runtime Version: python:3.12.v18\tRuntime Version ARN: arn:aws:lambda:eu-west-1::1",
    "start": f"START RequestId: {ID} Version: $LATEST",
    "end": f"END RequestId: {ID}",
    "trace": "XRAY TraceId: 1-5e34a614-10bdxmplf1fb44f07bc535a1\tSegmentId: 07f5xmpl2d1f6f85\tSampled: true",
    "record": '{"_aws":{},"lang":"go","label":"WARMUP","batch_elapsed_ms":12.5,"written":1}',
}


def text_of(query: str) -> str:
    """Return the query without its comments."""
    lines = str(QUERIES[query]["Properties"]["QueryString"]).splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))


def expressions(query: str, before: str) -> list[re.Pattern[str]]:
    """Return the query's regular expressions that follow ``before``, as Python's."""
    found = re.findall(rf"{before} /((?:[^/\\]|\\.)+)/", text_of(query))
    return [re.compile(expression.replace("(?<", "(?P<")) for expression in found]


def parse(query: str, line: str) -> dict[str, str]:
    """Apply each parse command: one that does not match leaves its own field out and nothing else."""
    matches = (expression.search(line) for expression in expressions(query, "parse @message"))
    return {name: value for match in matches if match for name, value in match.groupdict().items()}


def selects(query: str, line: str) -> bool:
    """Answer whether the filters on the message let the line through."""
    wanted = expressions(query, "@message like")
    unwanted = expressions(query, "@message not like")
    return any(e.search(line) for e in wanted) and not any(e.search(line) for e in unwanted)


@pytest.mark.parametrize("query", QUERIES)
def test_the_expressions_mean_the_same_to_logs_insights_and_python(query: str) -> None:
    for expression in [*expressions(query, "parse @message"), *expressions(query, "like")]:
        assert not re.search(r"\(\?(?!P<)|\\[^ts.]|[*+?}][?+]", expression.pattern), expression.pattern


@pytest.mark.parametrize("query", QUERIES)
def test_each_parse_command_reads_one_field_of_its_own(query: str) -> None:
    names = [list(expression.groupindex) for expression in expressions(query, "parse @message")]
    assert [len(group) for group in names] == [1] * len(names)
    assert len({name for (name,) in names}) == len(names)
    assert len(names) == text_of(query).count("parse ")


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_reads_both_log_groups_and_can_be_left_out(query: str) -> None:
    assert QUERIES[query]["Condition"] == "HasSavedQueries"
    properties = QUERIES[query]["Properties"]
    assert properties["LogGroupNames"] == [{"Ref": "PythonLogs"}, {"Ref": "GoLogs"}]
    longest_query = 10_000
    assert len(properties["QueryString"]) <= longest_query


def test_no_query_of_a_template_hides_another() -> None:
    kinds = [body["Type"] for folder in template_folders() for body in template(folder)["Resources"].values()]
    assert kinds.count("AWS::Logs::QueryDefinition") == len(QUERIES)


@pytest.mark.parametrize("line", REPORTS.values(), ids=REPORTS)
def test_invocations_reads_every_label_of_a_report_line(line: Line) -> None:
    assert selects("InvocationsQuery", line.text)
    assert parse("InvocationsQuery", line.text) == {"request_id": ID, **line.fields}


@pytest.mark.parametrize("order", ["as written", "reversed"])
@pytest.mark.parametrize("line", REPORTS.values(), ids=REPORTS)
def test_the_order_of_the_labels_does_not_matter(line: Line, order: str) -> None:
    first, *labels = line.text.strip().split("\t")
    text = "\t".join((first, *(reversed(labels) if order == "reversed" else labels)))
    assert parse("InvocationsQuery", text) == {"request_id": ID, **line.fields}


@pytest.mark.parametrize("query", ["InvocationsQuery", "PercentilesQuery"])
@pytest.mark.parametrize("text", [*FAILURES.values(), *HARMLESS.values()], ids=[*FAILURES, *HARMLESS])
def test_only_report_lines_count_as_invocations(query: str, text: str) -> None:
    assert not selects(query, text)


def test_invocations_shows_every_field_it_reads_in_time_order() -> None:
    text = text_of("InvocationsQuery")
    shown = re.findall(r"\w+", text.split("| display ")[1].splitlines()[0])
    assert set(shown) >= {"timestamp", *parse("InvocationsQuery", REPORTS["timeout"].text)}
    assert text.endswith("| sort @timestamp asc\n| limit 10000")


@pytest.mark.parametrize("line", REPORTS.values(), ids=REPORTS)
def test_percentiles_are_of_invocations_that_succeeded(line: Line) -> None:
    assert selects("PercentilesQuery", line.text) is not line.failed
    read = parse("PercentilesQuery", line.text)
    assert read == {name: line.fields[name] for name in read}
    assert read.keys() >= {"duration_ms", "billed_ms", "memory_mb"}


def test_percentiles_keep_cold_and_warm_apart() -> None:
    text = text_of("PercentilesQuery")
    assert "fields ispresent(init_ms) as cold" in text
    assert text.endswith("by @log, memory_mb, cold")
    assert "init_ms" in parse("PercentilesQuery", REPORTS["cold"].text)
    assert "init_ms" not in parse("PercentilesQuery", REPORTS["warm"].text)


@pytest.mark.parametrize(
    ("query", "measures"),
    [
        ("PercentilesQuery", ["duration", "billed"]),
        ("LabelsQuery", ["elapsed"]),
        ("LatencyQuery", ["latency", "generate"]),
    ],
)
def test_what_is_called_a_percentile_is_one(query: str, measures: list[str]) -> None:
    text = text_of(query)
    aliases = re.findall(r"pct\((?:batch_)?(\w+)_ms, (\d+)\) as (\w+)_p(\d+)_ms", text)
    assert len(aliases) == len(re.findall(r"_p\d+_ms", text))
    assert all((field, rank) == (alias, shown) for field, rank, alias, shown in aliases)
    assert {(field, rank) for field, rank, _, _ in aliases} >= {(m, p) for m in measures for p in ("50", "95", "99")}
    assert "count(*)" in text
    assert "avg(" not in text


def test_labels_reads_the_functions_own_records_by_label() -> None:
    text = text_of("LabelsQuery")
    assert "filter ispresent(batch_elapsed_ms) and ispresent(label)" in text
    assert "by label, lang, mode, cold_start" in text
    assert {"sum(written)", "sum(duplicates)"} <= set(re.findall(r"sum\(\w+\)", text))


@pytest.mark.parametrize("query", FAILURES_QUERIES)
@pytest.mark.parametrize("text", FAILURES.values(), ids=FAILURES)
def test_failures_finds_what_the_platform_gave_up(text: str, query: str) -> None:
    assert selects(query, text)


@pytest.mark.parametrize("query", FAILURES_QUERIES)
@pytest.mark.parametrize("line", REPORTS.values(), ids=REPORTS)
def test_failures_finds_failed_invocations_only(line: Line, query: str) -> None:
    assert selects(query, line.text) is line.failed


@pytest.mark.parametrize("query", FAILURES_QUERIES)
@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_failures_leaves_harmless_lines_out(text: str, query: str) -> None:
    assert not selects(query, text)


@pytest.mark.parametrize("query", FAILURES_QUERIES)
def test_failures_names_the_cause(query: str) -> None:
    assert parse(query, REPORTS["out of memory"].text) == {
        "platform_request_id": ID,
        "platform_status": "error",
        "platform_error": "Runtime.OutOfMemory",
    }
    assert parse(query, FAILURES["init crash"]) == {
        "platform_status": "error",
        "platform_error": "Runtime.ExitError",
        "platform_phase": "invoke",
    }


def test_failures_finds_the_records_of_refused_messages() -> None:
    text = text_of("FailuresQuery")
    assert "or ispresent(error.code)" in text
    assert {"error.code", "error.message"} <= set(re.findall(r"[\w.]+", text.split("| display ")[1]))
