"""What other programs take of this machine's CPU while a run measures, block by block.

Busy time of all cores (/proc/stat, steal included) less what the lab, the emulator, the plane and every process below
them took. A process that ended is in the times of its parent, so short-lived functions are counted as well.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

NOTABLE_SHARE: Final = 0.1
"""From this share of the machine on other programs are a caution. An idle desktop stays below it."""


class BlockLoad(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``machine.jsonl``: CPU time of other programs, and the CPU time there was, in seconds."""

    block: int
    others_cpu_s: float
    capacity_cpu_s: float

    @property
    def share(self) -> float:
        """Share of the machine that others took, from 0 to 1."""
        return min(self.others_cpu_s / self.capacity_cpu_s, 1.0) if self.capacity_cpu_s > 0 else 0.0


class CpuReading(NamedTuple):
    """CPU times in seconds up to a moment: of the whole machine, and of the lab's own processes."""

    at_s: float
    busy_s: float
    own_s: float


class MachineTimes(NamedTuple):
    """CPU times in seconds of all cores together up to a moment."""

    busy_s: float
    idle_s: float


def read_cpu(pids: Iterable[int]) -> CpuReading:
    """Reads the CPU times. It takes some milliseconds, so it belongs between blocks.

    Args:
        pids: of emulator and plane, whose descendants count as well; this process always does.
    """
    import psutil  # here, because most commands never need it

    own_s = sum(os.times()[:4])
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    own_s += sum(process.cpu_times()[:4])  # user, system, and both of children that have ended
    return CpuReading(time.monotonic(), read_machine().busy_s, own_s)


def read_machine() -> MachineTimes:
    """CPU times of all cores until now; what a hypervisor withheld (steal) is busy, waiting for a disk is idle."""
    import psutil

    times = psutil.cpu_times()
    busy_s = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    return MachineTimes(busy_s, times.idle + times.iowait)


def load_between(block: int, before: CpuReading, after: CpuReading) -> BlockLoad:
    """What others took between two readings."""
    others_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    capacity_s = (after.at_s - before.at_s) * (os.cpu_count() or 1)
    return BlockLoad(block=block, others_cpu_s=round(max(others_s, 0.0), 3), capacity_cpu_s=round(capacity_s, 3))


def load_cautions(loads: Sequence[BlockLoad]) -> Iterable[str]:
    """Says that other programs took a notable share of the machine, if so."""
    capacity_s = sum(load.capacity_cpu_s for load in loads)
    if capacity_s <= 0:
        return
    share = sum(load.others_cpu_s for load in loads) / capacity_s
    if share >= NOTABLE_SHARE:
        worst = max(loads, key=lambda load: load.share)
        yield (
            f"other programs took {share:.0%} of this machine's CPU time during the run (at most {worst.share:.0%}, in "
            f"block {worst.block}), so times may be longer than on a quiet machine"
        )
