"""A fixed amount of computing, in Python."""

import os
import resource


def handler(event: dict[str, int], _context: object) -> dict[str, float]:
    """Shift and mix a number as often as the event says, in each of its workers, and tell the CPU time that took."""
    before_ms = _cpu_ms()
    children = [_start(event["iterations"]) for _ in range(event["workers"] - 1)]
    result = _mix(event["iterations"])
    for child in children:
        os.waitpid(child, 0)
    return {"result": result, "cpu_ms": _cpu_ms() - before_ms}


def _start(iterations: int) -> int:
    """Work in a process of its own: one interpreter computes in one thread at a time."""
    child = os.fork()
    if child == 0:
        _mix(iterations)
        os._exit(0)
    return child


def _mix(iterations: int) -> int:
    x = 88172645463325252
    for _ in range(iterations):
        x ^= (x << 13) & 0xFFFFFFFFFFFFFFFF
        x ^= x >> 7
        x ^= (x << 17) & 0xFFFFFFFFFFFFFFFF
    return x


def _cpu_ms() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used) * 1000
