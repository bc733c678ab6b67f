"""The Python ingest function with faults to order: before each batch it asks the suite what shall go wrong.

The suite puts this file beside the shipped ones, in its own copy of the project, and names it as the handler.
"""

import json
import os
import sys
import time
import urllib.request
from typing import Any

from handler import handler as shipped
from service import Context

_ORDERS = os.environ["AWS_ENDPOINT_URL"] + "/_chaos/python"
_PIECE = 8 * 1024 * 1024
_MOST_PIECES = 128  # a memory limit that does not hold must not cost the machine


def handler(event: dict[str, Any], context: Context) -> Any:
    """Do what the shipped function does, or what was ordered, after as many records as were ordered."""
    order = _ask(event, context.aws_request_id)
    if order is None:
        return shipped(event, context)
    if order["after"]:
        shipped({"Records": event["Records"][: order["after"]]}, context)
    match order["kind"]:
        case "timeout":
            time.sleep(3600)
        case "memory":
            held = [b"\1" * _PIECE for _ in range(_MOST_PIECES)]
            sys.exit(f"{len(held)} pieces of memory and still alive")
    return json.loads(order["answer"])


def _ask(event: object, request_id: str) -> Any:
    request = urllib.request.Request(
        _ORDERS,
        data=json.dumps(event).encode(),
        headers={"X-Request-Id": request_id, "X-Pid": str(os.getpid()), "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
