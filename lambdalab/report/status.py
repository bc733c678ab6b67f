"""The local stack's state as a table."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text


def render_status(endpoint_url: str, lambda_endpoint_url: str, status: dict[str, Any]) -> Group:
    """What the plane says of itself, for a person."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("function", no_wrap=True)
    for name in ("runtime", "memory", "reserved", "environments", "in flight", "invocations", "cold", "throttles"):
        table.add_column(name, justify="right")
    for name, function in status["functions"].items():
        reserved = function["reserved_concurrency"]
        table.add_row(
            name,
            function["runtime"],
            f"{function['memory_mb']} MB",
            "-" if reserved is None else str(reserved),
            *(str(function[key]) for key in ("environments", "in_flight", "invocations", "cold_starts", "throttles")),
        )
    where = f"emulator {endpoint_url}, plane {lambda_endpoint_url}"
    heading = f"{status['stack_name']}: {where}, cpu_limit: {status['cpu_limit']}"
    if (model := status["latency"]) is not None:
        heading += f", latency model: {model['name']} {model['date']}, seed {model['seed']}"
    return Group(Text(heading), table)
