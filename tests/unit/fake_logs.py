"""CloudWatch Logs Insights in memory, with AWS's limits and nothing that AWS does not promise.

A range is in whole seconds, both ends inside; a query returns 10,000 rows at most, GetQueryResults a page of them;
lines of one millisecond come in another order every time (StartQuery, GetQueryResults and quotas, API reference).
"""

import random
import re
from datetime import UTC, datetime
from typing import Any, Final

MOST_ROWS: Final = 10_000
_QUERY: Final = re.compile(
    r"fields @timestamp, @logStream, @message "
    r"\| filter toMillis\(@timestamp\) >= (?P<since_ms>\d+) "
    r"\| sort @timestamp asc \| limit (?P<limit>\d+)"
)


class FakeLogs:
    """One log group.

    Args:
        moments_ms: when each line was written.
        page_rows: how many rows GetQueryResults returns at once.

    Attributes:
        queries: how many were begun.
    """

    def __init__(self, moments_ms: list[int], page_rows: int = MOST_ROWS) -> None:
        self.queries = 0
        self._events = [(moment_ms, f"ptr-{number}") for number, moment_ms in enumerate(moments_ms)]
        self._page_rows = page_rows
        self._random = random.Random(1)
        self._results: dict[str, tuple[list[tuple[int, str]], int]] = {}
        self._is_running = False

    def start_query(self, *, logGroupName: str, startTime: int, endTime: int, queryString: str) -> dict[str, str]:  # noqa: N803
        assert logGroupName
        assert isinstance(startTime, int)
        assert isinstance(endTime, int)
        asked = _QUERY.fullmatch(queryString)
        assert asked is not None, queryString
        limit, since_ms = int(asked["limit"]), int(asked["since_ms"])
        assert 1 <= limit <= MOST_ROWS
        inside = [e for e in self._events if startTime * 1000 <= e[0] <= endTime * 1000 and e[0] >= since_ms]
        self._random.shuffle(inside)
        inside.sort(key=lambda event: event[0])
        self.queries += 1
        self._is_running = True
        query_id = f"query-{self.queries}"
        self._results[query_id] = (inside[:limit], len(inside))
        return {"queryId": query_id}

    def get_query_results(self, *, queryId: str, nextToken: str = "0") -> dict[str, Any]:  # noqa: N803
        if self._is_running:
            self._is_running = False
            return {"status": "Running", "results": []}
        found, matched = self._results[queryId]
        begin = int(nextToken)
        end = begin + self._page_rows
        answer: dict[str, Any] = {
            "status": "Complete",
            "results": [_row(*event) for event in found[begin:end]],
            "statistics": {"recordsMatched": float(matched), "recordsScanned": float(len(self._events))},
        }
        return answer | ({"nextToken": str(end)} if end < len(found) else {})


def _row(moment_ms: int, pointer: str) -> list[dict[str, str]]:
    moment = datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    cells = {"@timestamp": moment, "@logStream": "stream", "@message": f"line {pointer}", "@ptr": pointer}
    return [{"field": name, "value": value} for name, value in cells.items()]
