"""Nothing, or a sleep, and how long that took as the function sees it."""

import time
from typing import Any


def handler(event: dict[str, Any], _context: object) -> dict[str, float]:
    """Sleep as long as the event says, which is not at all for an event that says nothing."""
    began_ns = time.perf_counter_ns()
    if sleep_ms := event.get("sleep_ms"):
        time.sleep(sleep_ms / 1000)
    return {"own_ms": (time.perf_counter_ns() - began_ns) / 1e6}
