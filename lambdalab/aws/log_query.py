"""Reading a log group with CloudWatch Logs Insights, whole however many lines come at once."""

import math
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from lambdalab.aws.clients import access_errors
from lambdalab.errors import AccessError
from lambdalab.records.trials import LogLine

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

LOG_QUERY: Final = (
    "fields @timestamp, @logStream, @message | filter toMillis(@timestamp) >= {since_ms} | sort @timestamp asc "
    "| limit {rows}"
)
_QUERY_ROWS: Final = 10_000
"""Rows of a query: the most there may be in any version of the API (CloudWatch Logs quotas)."""
QUERY_S: Final = 40.0
"""A query that takes longer is given up."""
_OVERLAP_S: Final = 1


def read_log(
    logs: "CloudWatchLogsClient", log_group: str, since_ms: int, *, poll_s: float, for_s: float = math.inf
) -> Iterator[LogLine]:
    """Reads with Logs Insights, one query of 10,000 rows after the other.

    StartQuery takes whole seconds, and a second may have more lines than a query returns. So each query filters by
    the millisecond: it begins with the last one of the query before it, whose lines may have been cut off.

    Args:
        logs: a client.
        log_group: which.
        since_ms: from when on.
        poll_s: between looks at a query that runs.
        for_s: after so long no further query is begun, and the youngest lines may be missing.

    Raises:
        AccessError: it cannot be read, a query takes longer than ``QUERY_S``, or a single millisecond has more
            lines than a query returns. The last is raised after all lines that can be read.
    """
    seen: set[str] = set()
    until_s = time.monotonic() + for_s
    beyond = missing = 0
    while True:
        page, matched = _query(logs, log_group, since_ms, poll_s)
        missing += max(beyond - matched, 0)
        beyond = 0
        fresh = [line for line in page if line.event_id not in seen]
        yield from fresh
        seen.update(line.event_id for line in fresh)
        if len(page) < _QUERY_ROWS or time.monotonic() > until_s:
            break
        last_ms = page[-1].timestamp_ms
        if last_ms == since_ms:
            beyond = matched - len(page)
            last_ms += 1
        since_ms = last_ms
    if missing:
        raise AccessError(
            f"up to {missing:,} lines of log group {log_group} could not be read: they share a millisecond with "
            f"{_QUERY_ROWS:,} others, and a Logs Insights query returns no more",
            next_step="read these with `aws logs filter-log-events`",
        )


def _query(logs: "CloudWatchLogsClient", log_group: str, since_ms: int, poll_s: float) -> tuple[list[LogLine], int]:
    """The oldest lines since a moment, in order of time, and how many there are in all."""
    deadline_s = time.monotonic() + QUERY_S
    with access_errors(f"log group {log_group}"):
        query_id = logs.start_query(
            logGroupName=log_group,
            startTime=since_ms // 1000,
            endTime=int(time.time()) + _OVERLAP_S,
            queryString=LOG_QUERY.format(since_ms=since_ms, rows=_QUERY_ROWS),
        )["queryId"]
        while True:
            answer = logs.get_query_results(queryId=query_id)
            if answer["status"] not in ("Scheduled", "Running", "Unknown"):
                break
            if time.monotonic() > deadline_s:
                raise AccessError(
                    f"the Logs Insights query on {log_group} is {answer['status']} after {QUERY_S:g} s",
                    next_step="run it again",
                )
            time.sleep(poll_s)
        if answer["status"] != "Complete":
            raise AccessError(
                f"the Logs Insights query on {log_group} ended as {answer['status']}", next_step="run it again"
            )
        found = list(answer["results"])
        while (token := answer.get("nextToken")) is not None:
            answer = logs.get_query_results(queryId=query_id, nextToken=token)
            found += answer["results"]
    lines = [_log_line(log_group, {cell["field"]: cell["value"] for cell in row}) for row in found]
    return lines, round(answer.get("statistics", {}).get("recordsMatched", len(lines)))


def _log_line(log_group: str, row: Mapping[str, str]) -> LogLine:
    moment = datetime.strptime(row["@timestamp"], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    return LogLine(
        log_group=log_group,
        log_stream=row["@logStream"],
        timestamp_ms=round(moment.timestamp() * 1000),
        message=row["@message"],
        event_id=row["@ptr"],
    )
