"""The log record: one line of JSON per invocation, in CloudWatch Embedded Metric Format."""

import json
import sys
from typing import Any

_UNITS = {
    "latency_ms": "Milliseconds",
    "generate_ms": "Milliseconds",
    "object_bytes": "Bytes",
    "events_generated": "Count",
    "cold_start_ms": "Milliseconds",
}


def emit(summary: dict[str, Any]) -> None:
    """Write the record to standard output. A failure counts as one and lends no time to the percentiles of the rest."""
    units = _UNITS if summary["ok"] else {"failed": "Count"}
    # The run id is a property: as a dimension every run would create metrics of its own, which are billed.
    dimensions = [[name for name in ("workload", "function_name", "region") if name in summary]]
    if not summary["ok"] and "workload" in summary:
        dimensions.append(dimensions[0][1:])  # so that one alarm sees what a function failed, whatever the workload
    directive = {
        "Namespace": "LambdaS3Study",
        "Dimensions": dimensions,
        "Metrics": [{"Name": name, "Unit": unit} for name, unit in units.items() if name in summary],
    }
    metadata = {"Timestamp": summary["ts_end_ms"], "CloudWatchMetrics": [directive]}
    line = json.dumps({"_aws": metadata, **summary}, separators=(",", ":"))
    sys.stdout.write(f"{line}\n")  # one write: print makes two, and Lambda may turn each into a log event
    sys.stdout.flush()
