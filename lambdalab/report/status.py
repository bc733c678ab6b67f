"""The local stack's state as a table."""

from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lambdalab.records import cpu_limit

_FUNCTION: Final = {
    "environments": "environments",
    "idle": "idle",
    "in flight": "in_flight",
    "cold": "cold_starts",
    "warm": "warm_invocations",
    "errors": "errors",
    "timeouts": "timeouts",
    "crashes": "crashes",
    "resets": "resets",
    "throttles": "throttles",
}
_MAPPING: Final = {
    "batch size": "batch_size",
    "receives": "receives",
    "empty": "empty_receives",
    "failed batches": "failed_batches",
    "throttles": "throttles",
}


def render_status(endpoint_url: str, lambda_endpoint_url: str, status: dict[str, Any]) -> Group:
    """What the plane says of itself, for a person."""
    functions = _table("function", "runtime", "memory", "concurrency", *_FUNCTION)
    for name, function in status["functions"].items():
        kind = "unreserved" if function["reserved_concurrency"] is None else "reserved"
        functions.add_row(
            name,
            function["runtime"],
            f"{function['memory_mb']} MB",
            f"{function['concurrency_limit']} {kind}",
            *(str(function[key]) for key in _FUNCTION.values()),
        )
    where = f"emulator {endpoint_url}, plane {lambda_endpoint_url}"
    heading = f"{status['stack_name']}: {where}, cpu_limit: {status['cpu_limit']}"
    if (model := status["latency"]) is not None:
        heading += f", latency model: {model['name']} {model['date']}, seed {model['seed']}"
    parts: list[Text | Table] = [Text(heading), functions]
    if status["mappings"]:
        mappings = _table("queue poller of", *_MAPPING)
        for name, mapping in status["mappings"].items():
            mappings.add_row(name, *(str(mapping[key]) for key in _MAPPING.values()))
        parts.append(mappings)
    if dropped := status["log_lines_dropped"]:
        parts.append(Text(f"{dropped} log lines are lost: the log service did not take them, see the plane's log"))
    parts += [Text(sentence) for sentence in (*status["not_followed"], *status["not_run"])]
    if (why := status.get("cpu_limit_why")) is not None:
        means, next_step = cpu_limit.MEANS, cpu_limit.NEXT_STEP
        parts.append(Text(f"caution: nothing limits CPU and memory, because {why}: {means}; {next_step}"))
    if (why := status.get("slow_queues")) is not None:
        parts.append(Text(f"caution: queues slow down with their backlog: {why}; `lambdalab doctor` says what to do"))
    return Group(*parts)


def _table(name: str, *numbers: str) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column(name, no_wrap=True)
    for number in numbers:
        table.add_column(number, justify="right")
    return table
