"""Finds the best way in which this machine lets its user limit CPU and memory, and measures how exact it is."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

from lambdalab import loopback
from lambdalab.local.cgroup import Cgroups
from lambdalab.local.governor import cpu_clock_ns
from lambdalab.local.limits import Limiter, LimitError, NoLimiter, cpu_share
from lambdalab.local.signals import Signals

log: Final = logging.getLogger("lambdalab.plane")


def find_limiter(name: str, *, tell: Callable[[str], None] = lambda _: None, cpu_scale: float = 1.0) -> Limiter:
    """Control groups, else signals, else nothing. LAMBDALAB_LIMITS names one way, for tests and comparisons.

    Args:
        name: the folder of control groups in which all environments lie.
        tell: called with what would be left if this process were killed, in the form ``guard`` reads.
        cpu_scale: multiplies every CPU share.
    """
    wanted = os.environ.get("LAMBDALAB_LIMITS", "")
    if wanted in ("", "cgroup"):
        cgroups = Cgroups(name, tell=tell, cpu_scale=cpu_scale)
        if cgroups.kind != "none":
            return cgroups
    if wanted in ("", "signals"):
        try:
            return Signals(tell=tell, cpu_scale=cpu_scale)
        except LimitError as error:
            log.warning("nothing limits CPU and memory here: no control group can be written, and %s", error)
    return NoLimiter(tell)


def delivered_share(limiter: Limiter, memory_mb: int, seconds: float) -> float:
    """The CPU time that a busy process gets, as a fraction of what a function of this size is due.

    Args:
        limiter: limits the process.
        memory_mb: the size of the function.
        seconds: how long to look; ten periods of 20 ms come first, in which the limit takes hold.
    """
    limits = limiter.create("delivered-share")
    busy = [sys.executable, "-S", "-c", "while True: pass"]
    with subprocess.Popen(busy, env=loopback.variables(), stdin=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            limits.limit_memory(memory_mb)
            limits.enter(process.pid)
            limits.limit_cpu(memory_mb)
            time.sleep(0.2)
            used_ns, began_ns = cpu_clock_ns(process.pid), time.monotonic_ns()
            time.sleep(seconds)
            used_ns, elapsed_ns = cpu_clock_ns(process.pid) - used_ns, time.monotonic_ns() - began_ns
        finally:
            process.kill()
            limits.close()
    return used_ns / elapsed_ns / cpu_share(memory_mb)
