"""The log record: one line of JSON per message, in CloudWatch Embedded Metric Format."""

import json
import sys
from typing import Any

_UNITS = {
    "written": "Count",
    "duplicates": "Count",
    "batch_elapsed_ms": "Milliseconds",
    "consumed_wru": "Count",
    "rejected": "Count",
}


def emit(summary: dict[str, Any]) -> None:
    """Write the record of one message to standard output, with every metric it holds."""
    directive = {
        "Namespace": "lambdalab",
        "Dimensions": [["lang"]],
        "Metrics": [{"Name": name, "Unit": unit} for name, unit in _UNITS.items() if name in summary],
    }
    metadata = {"Timestamp": summary["finished_ms"], "CloudWatchMetrics": [directive]}
    line = json.dumps({"_aws": metadata, **summary}, separators=(",", ":"))
    sys.stdout.write(f"{line}\n")  # one write: print makes two, and Lambda may turn each into a log event
    sys.stdout.flush()
