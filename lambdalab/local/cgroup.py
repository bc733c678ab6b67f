"""CPU and memory limits of one environment by Linux control groups, version 1 or 2.

Lambda gives CPU in proportion to memory, one vCPU at 1,769 MB (AWS Lambda Developer Guide, "Configure Lambda function
memory"). The quota here is that share of every 20 ms, the period a published study reports for Lambda; longer
periods let short bursts run too fast, shorter ones fall under the kernel's smallest quota (1 ms) at 128 MB.
"""

import os
import signal
import time
from pathlib import Path
from typing import Final, Protocol

MB_PER_VCPU: Final = 1769
PERIOD_US: Final = 20_000
_SMALLEST_QUOTA_US: Final = 1_000
_MOUNT: Final = Path("/sys/fs/cgroup")


class LimitError(Exception):
    """The kernel did not take a limit; a run under a limit that is not there would be a false one."""


def quota_us(memory_mb: int) -> int:
    """CPU time per period, in microseconds, for a function of this size."""
    return max(round(PERIOD_US * memory_mb / MB_PER_VCPU), _SMALLEST_QUOTA_US)


class Limits(Protocol):
    """The limits of one environment."""

    def enter(self, pid: int) -> None:
        """Moves a process in; its children follow it."""

    def limit_memory(self, memory_mb: int) -> None:
        """Sets the memory limit; the kernel kills what passes it."""

    def limit_cpu(self, memory_mb: int | None) -> None:
        """Sets the CPU share of this memory size; None lifts it, as Lambda does for init."""

    def pids(self) -> list[int]:
        """The processes in the environment now."""

    def oom_kills(self) -> int:
        """How often the kernel killed here because the memory limit was passed."""

    def close(self) -> None:
        """Kills what is left and removes the groups."""


class Unlimited:
    """No control group is to be had: nothing is limited, and every table says so."""

    def __init__(self) -> None:
        self._pid: int | None = None

    def enter(self, pid: int) -> None:
        self._pid = pid

    def limit_memory(self, memory_mb: int) -> None:
        pass

    def limit_cpu(self, memory_mb: int | None) -> None:
        pass

    def pids(self) -> list[int]:
        return [] if self._pid is None else [self._pid]

    def oom_kills(self) -> int:
        return 0

    def close(self) -> None:
        pass


class CgroupV1:
    """One group in the ``cpu`` and one in the ``memory`` hierarchy."""

    def __init__(self, cpu: Path, memory: Path) -> None:
        self._cpu, self._memory = cpu, memory
        for folder in (cpu, memory):
            folder.mkdir(parents=True)
        _write(cpu / "cpu.cfs_period_us", PERIOD_US)

    def enter(self, pid: int) -> None:
        (self._cpu / "cgroup.procs").write_text(str(pid))
        (self._memory / "cgroup.procs").write_text(str(pid))

    def limit_memory(self, memory_mb: int) -> None:
        _write(self._memory / "memory.limit_in_bytes", memory_mb * 1024 * 1024)
        swap = self._memory / "memory.memsw.limit_in_bytes"
        if swap.exists():
            _write(swap, memory_mb * 1024 * 1024)

    def limit_cpu(self, memory_mb: int | None) -> None:
        _write(self._cpu / "cpu.cfs_quota_us", -1 if memory_mb is None else quota_us(memory_mb))

    def pids(self) -> list[int]:
        return _pids(self._memory)

    def oom_kills(self) -> int:
        return _counter(self._memory / "memory.oom_control", "oom_kill")

    def close(self) -> None:
        _remove(self._cpu)
        _remove(self._memory)


class CgroupV2:
    """One group in the unified hierarchy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)

    def enter(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))

    def limit_memory(self, memory_mb: int) -> None:
        _write(self._folder / "memory.max", memory_mb * 1024 * 1024)
        swap = self._folder / "memory.swap.max"
        if swap.exists():
            _write(swap, 0)

    def limit_cpu(self, memory_mb: int | None) -> None:
        quota = "max" if memory_mb is None else str(quota_us(memory_mb))
        _write(self._folder / "cpu.max", f"{quota} {PERIOD_US}")

    def pids(self) -> list[int]:
        return _pids(self._folder)

    def oom_kills(self) -> int:
        return _counter(self._folder / "memory.events", "oom_kill")

    def close(self) -> None:
        _remove(self._folder)


class Cgroups:
    """Makes the limits of environments, in whatever way this machine and user allow.

    ``kind`` is ``cgroup v1``, ``cgroup v2`` or ``none``; it is written on every table.
    """

    def __init__(self, name: str, mount: Path = _MOUNT, own: str | None = None) -> None:
        """Finds out what is possible.

        Args:
            name: the folder all environments of this plane lie in.
            mount: where control groups are mounted.
            own: this process's groups in the form of ``/proc/self/cgroup``, read from there by default.
        """
        self._mount = mount
        self._own = _own_groups(Path("/proc/self/cgroup").read_text() if own is None else own)
        self._name = name
        self._roots: tuple[Path, ...] = ()
        self.kind = "none"
        for kind, prepare in (("cgroup v1", self._prepare_v1), ("cgroup v2", self._prepare_v2)):
            try:
                self._roots = prepare()
                self.kind = kind
                self._try_out()
            except (OSError, KeyError, LimitError):
                self.close()
                self._roots, self.kind = (), "none"
            else:
                break

    def create(self, environment: str) -> Limits:
        """The limits for a new environment."""
        match self.kind:
            case "cgroup v1":
                cpu, memory = self._roots
                return CgroupV1(cpu / environment, memory / environment)
            case "cgroup v2":
                return CgroupV2(self._roots[0] / environment)
            case _:
                return Unlimited()

    def close(self) -> None:
        """Removes the folder of this plane, with whatever a killed plane left in it."""
        for root in self._roots:
            for child in [path for path in root.glob("*") if path.is_dir()] if root.exists() else []:
                _remove(child)
            _remove(root)

    def _prepare_v1(self) -> tuple[Path, ...]:
        roots = tuple(self._mount / c / self._own[c].lstrip("/") / self._name for c in ("cpu", "memory"))
        for root in roots:
            root.mkdir(exist_ok=True)
        return roots

    def _prepare_v2(self) -> tuple[Path, ...]:
        own = self._mount / self._own[""].lstrip("/")
        # A group with processes may not hand controllers down (except the real root), so they move to a leaf first.
        if own != self._mount and _pids(own):
            leaf = own / f"{self._name}-plane"
            leaf.mkdir(exist_ok=True)
            for pid in _pids(own):
                (leaf / "cgroup.procs").write_text(str(pid))
        root = own / self._name
        root.mkdir(exist_ok=True)
        for folder in (own, root):
            (folder / "cgroup.subtree_control").write_text("+cpu +memory")
        return (root,)

    def _try_out(self) -> None:
        limits = self.create("try-out")
        try:
            limits.limit_memory(128)
            limits.limit_cpu(128)
        finally:
            limits.close()


def _own_groups(text: str) -> dict[str, str]:
    """``/proc/self/cgroup`` as controller -> path; the unified hierarchy has the empty name."""
    groups = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _write(file: Path, value: int | str) -> None:
    """Writes a limit and reads it back: the kernel rounds or ignores some values without an error."""
    file.write_text(str(value))
    read = file.read_text().split()
    if read != str(value).split():
        raise LimitError(f"{file.name} was set to {value} but reads {' '.join(read)}")


def _pids(folder: Path) -> list[int]:
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _counter(file: Path, key: str) -> int:
    try:
        pairs = dict(line.split() for line in file.read_text().splitlines())
    except OSError:
        return 0
    return int(pairs.get(key, 0))


def _remove(folder: Path) -> None:
    """Kills what is in a group and removes it; a dying process keeps its group busy for a moment."""
    for _ in range(200):
        for pid in _pids(folder):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.005)
        else:
            return
