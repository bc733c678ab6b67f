"""What functions of the local stack write, as it comes: one invocation's lines, and whole log groups."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from lambdalab import loopback
from lambdalab.aws.clients import access_errors
from lambdalab.errors import UsageError
from lambdalab.local.stack import LocalStack

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_logs.type_defs import FilteredLogEventTypeDef

OnLine = Callable[[str], None]
"""Takes one line of output, perhaps with its end."""
FOLLOW_S: Final = 0.3
OVERLAP_MS: Final = 15_000
"""How late a line may reach its group behind younger ones; the plane writes them some time after they came."""
_PAGE_EVENTS: Final = 10_000
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a log group."""

    function: str
    timestamp_ms: int
    message: str


def since_ms(text: str, now_ms: int) -> int:
    """A time as ``aws logs tail --since`` takes it: ``30s``, ``5m``, ``1h``, ``2d``, ``1w``, or ISO 8601.

    Raises:
        UsageError: it is neither.
    """
    if found := re.fullmatch(r"(\d{1,9})([smhdw])", text):
        return max(now_ms - int(found[1]) * _UNITS_S[found[2]] * 1000, 0)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--since {text!r} is no time", next_step="write 5m, 1h, 2d or 2026-01-31T12:00:00") from None
    return max(round(moment.timestamp() * 1000), 0)  # without a zone it is this machine's own time


def read_lines(
    stack: LocalStack, function: str | None, since: int, *, follow: bool, waiting: Callable[[], None] = lambda: None
) -> Iterator[Line]:
    """The lines of one function, or of all, by time; with ``follow`` also those that come, without an end.

    Args:
        stack: a local stack that is up.
        function: logical id in template.yaml, or the deployed name.
        since: epoch milliseconds.
        follow: go on when there are no more.
        waiting: called before each further look; what it raises ends the following.

    Raises:
        UsageError: the stack has no such function.
        PlaneError, AccessError: a part of the stack has ended.
    """
    status = stack.status()
    logical = {physical: name for name, physical in status["logical_names"].items()}
    wanted = [status["logical_names"].get(function, function)] if function else list(status["functions"])
    for name in wanted:
        if name not in status["functions"]:
            raise no_such_function(name, status["logical_names"])
    groups = {logical.get(name, name): status["functions"][name]["log_group"] for name in wanted}
    seen: dict[str, int] = {}
    with closing(stack.aws().logs) as logs:
        while True:
            lines = [line for name, group in groups.items() for line in _new_lines(logs, name, group, since, seen)]
            yield from sorted(lines, key=lambda line: line.timestamp_ms)
            if not follow:
                return
            waiting()
            since = max(since, max(seen.values(), default=0) - OVERLAP_MS)
            for event_id in [event_id for event_id, timestamp_ms in seen.items() if timestamp_ms < since]:
                del seen[event_id]
            time.sleep(FOLLOW_S)
            stack.require_alive()


def no_such_function(name: str, logical_names: dict[str, str]) -> UsageError:
    """The failure of naming a function the stack does not have."""
    known = ", ".join(sorted(logical_names))
    return UsageError(f"the local stack has no function {name!r}", next_step=f"name one of: {known}")


@contextmanager
def watching(stack: LocalStack, request_id: str, on_line: OnLine) -> Iterator[None]:
    """Calls ``on_line``, in another thread, with every line of an invocation that the block makes.

    At the end of the block all lines have been given. A plane that ends is for the block to notice.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(stack, request_id, on_line, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)


def _watch(stack: LocalStack, request_id: str, on_line: OnLine, ended: threading.Event) -> None:
    start = 0
    while True:
        url = f"{stack.lambda_endpoint_url}/_lambdalab/invocations/{request_id}/lines?from={start}"
        was_over = ended.is_set()
        try:
            with loopback.open_url(url, timeout_s=30) as answer:
                found = json.load(answer)
        except (OSError, ValueError):
            return
        if found["skipped"]:
            on_line(f"[{found['skipped']} lines came too fast and are not shown; see `lambdalab logs`]")
        for line in found["lines"]:
            on_line(line)
        start = found["next"]
        if found["done"] or (was_over and not found["lines"]):
            return


def _new_lines(logs: "CloudWatchLogsClient", name: str, group: str, since: int, seen: dict[str, int]) -> Iterator[Line]:
    """What a group holds since a time and ``seen`` does not; what is given is added to ``seen``."""
    start = since
    while True:
        with access_errors(f"log group {group}"):
            try:
                page = logs.filter_log_events(logGroupName=group, startTime=start, limit=_PAGE_EVENTS)["events"]
            except logs.exceptions.ResourceNotFoundException:
                return  # nothing has been written yet
        fresh = [event for event in page if _id_of(event) not in seen]
        for event in fresh:
            seen[_id_of(event)] = event["timestamp"]
            yield Line(function=name, timestamp_ms=event["timestamp"], message=event["message"])
        if len(page) < _PAGE_EVENTS or not fresh:
            return
        start = page[-1]["timestamp"]  # the emulator gives no token for the next page


def _id_of(event: "FilteredLogEventTypeDef") -> str:
    """What tells an event from others. Lines that the emulator itself writes to a function's log have no id."""
    return event.get("eventId") or f"{event.get('logStreamName')} {event['timestamp']} {event['message']}"
