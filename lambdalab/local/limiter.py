"""Finds the best way in which this machine lets its user limit CPU and memory, and measures how exact it is."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

from lambdalab import loopback
from lambdalab.errors import UsageError
from lambdalab.local.cgroup import Cgroups
from lambdalab.local.governor import cpu_clock_ns
from lambdalab.local.limits import Limiter, LimitError, NoLimiter, cpu_share, try_signals
from lambdalab.local.signals import Signals

LIMITS: Final = "LAMBDALAB_LIMITS"
"""Environment variable that allows one way only, for tests and comparisons."""
WAYS: Final = ("cgroup", "signals", "none")
"""Values of ``LIMITS``."""


def allowed_way() -> str | None:
    """The only way of limiting that the environment allows; None if it allows all.

    Raises:
        UsageError: there is no such way.
    """
    allowed = os.environ.get(LIMITS) or None
    if allowed not in (None, *WAYS):
        raise UsageError(f"{LIMITS} is {allowed!r}", next_step=f"set it to {', '.join(WAYS)}, or unset it")
    return allowed


def find_limiter(name: str, *, tell: Callable[[str], None] = lambda _: None, cpu_scale: float = 1.0) -> Limiter:
    """Control groups, else signals, else nothing.

    Args:
        name: the folder of control groups in which all environments lie.
        tell: called with what would be left if this process were killed, in the form ``guard`` reads.
        cpu_scale: multiplies every CPU share.

    Raises:
        UsageError: see ``allowed_way``.
        SetupError: this process may not end what it starts.
    """
    allowed = allowed_way()
    try:
        try_signals()
    except LimitError as error:  # every way freezes by signals
        return NoLimiter(tell, str(error), freezes=False)
    why = []
    if allowed in (None, "cgroup"):
        cgroups = Cgroups(name, tell=tell, cpu_scale=cpu_scale)
        if cgroups.why is None:
            return cgroups
        why.append(f"no control group can be written ({cgroups.why})")
    if allowed in (None, "signals"):
        try:
            return Signals(tell=tell, cpu_scale=cpu_scale)
        except LimitError as error:
            why.append(str(error))
    if allowed is not None:
        why.append(f"{LIMITS} is {allowed}")
    return NoLimiter(tell, " and ".join(why))


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
