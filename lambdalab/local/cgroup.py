"""CPU and memory limits of one environment by Linux control groups, version 1 or 2.

Processes and threads together are limited to 1,024 where there is a ``pids`` controller ("Lambda quotas"). Every limit
is read back after it was written.
"""

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from lambdalab import loopback, processes
from lambdalab.local.limits import PERIOD_US, LimitError, Limits, Unlimited, bandwidth_us, cpu_share, read_kernel_file

TASK_LIMIT: Final = 1024
"""Processes and threads of one environment."""
_CONTROLLERS: Final = ("cpu", "memory", "pids")
"""The last can be missing."""
_MOUNT: Final = Path("/sys/fs/cgroup")
_LEAF: Final = "lambdalab-processes"
"""Where version 2 keeps what is in a group that hands controllers down: planes that share that group share it."""
_TRIES: Final = 50


class CgroupV1(Limits):
    """One group in each of the hierarchies ``cpu``, ``memory`` and, where there is one, ``pids``."""

    def __init__(self, cpu: Path, memory: Path, pids: Path | None = None, *, cpu_scale: float = 1.0) -> None:
        self._cpu, self._memory, self._cpu_scale = cpu, memory, cpu_scale
        self._folders = (cpu, memory) if pids is None else (cpu, memory, pids)
        for folder in self._folders:
            folder.mkdir(exist_ok=True)
        if pids is not None:
            _write(pids / "pids.max", TASK_LIMIT)

    def enter(self, pid: int) -> None:
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def limit_memory(self, memory_mb: int) -> None:
        _write(self._memory / "memory.limit_in_bytes", memory_mb * 1024 * 1024)
        swap = self._memory / "memory.memsw.limit_in_bytes"
        if swap.exists():
            _write(swap, memory_mb * 1024 * 1024)

    def limit_cpu(self, memory_mb: int | None) -> None:
        if memory_mb is None:
            _write(self._cpu / "cpu.cfs_quota_us", -1)
            return
        quota_us, period_us = bandwidth_us(cpu_share(memory_mb, self._cpu_scale))
        _write(self._cpu / "cpu.cfs_period_us", period_us)
        _write(self._cpu / "cpu.cfs_quota_us", quota_us)

    def pids(self) -> list[int]:
        return _pids(self._memory)

    def oom_kills(self) -> int:
        return _counter(self._memory / "memory.oom_control", "oom_kill")

    def close(self) -> None:
        for folder in self._folders:
            _remove(folder)


class CgroupV2(Limits):
    """One group in the unified hierarchy."""

    def __init__(self, folder: Path, *, cpu_scale: float = 1.0) -> None:
        self._folder, self._cpu_scale = folder, cpu_scale
        folder.mkdir(exist_ok=True)
        if (folder / "pids.max").exists():
            _write(folder / "pids.max", TASK_LIMIT)

    def enter(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))

    def limit_memory(self, memory_mb: int) -> None:
        _write(self._folder / "memory.max", memory_mb * 1024 * 1024)
        swap = self._folder / "memory.swap.max"
        if swap.exists():
            _write(swap, 0)

    def limit_cpu(self, memory_mb: int | None) -> None:
        if memory_mb is None:
            _write(self._folder / "cpu.max", f"max {PERIOD_US}")
            return
        quota_us, period_us = bandwidth_us(cpu_share(memory_mb, self._cpu_scale))
        _write(self._folder / "cpu.max", f"{quota_us} {period_us}")

    def pids(self) -> list[int]:
        return _pids(self._folder)

    def oom_kills(self) -> int:
        return _counter(self._folder / "memory.events", "oom_kill")

    def close(self) -> None:
        _remove(self._folder)


class Cgroups:
    """Makes the limits of environments, in whatever way this machine and user allow.

    ``kind`` is ``cgroup v1``, ``cgroup v2`` or ``none``; it is written on every table. ``controllers`` are those in
    use; without ``pids`` processes and threads are not limited. ``why`` says why it is ``none``.
    """

    def __init__(
        self,
        name: str,
        mount: Path = _MOUNT,
        own: str | None = None,
        tell: Callable[[str], None] = lambda _: None,
        cpu_scale: float = 1.0,
    ) -> None:
        """Finds out what is possible.

        Args:
            name: the folder all environments of this plane lie in.
            mount: where control groups are mounted.
            own: this process's groups in the form of ``/proc/self/cgroup``, read from there by default.
            tell: told what would be left if this process were killed, in the form ``guard`` reads.
            cpu_scale: every CPU share is multiplied by it.
        """
        self._tell = tell
        self._cpu_scale = cpu_scale
        self._leaf: Path | None = None
        self._roots: tuple[Path, ...] = ()
        self.controllers: tuple[str, ...] = ()
        self.kind = "none"
        self.why: str | None = f"{mount} has no controllers cpu and memory for it"
        own = Path("/proc/self/cgroup").read_text() if own is None else own
        for self.kind, self.controllers, self._roots in _places(name, mount, own):
            try:
                self._prepare()
                self._try_out()
            except (OSError, LimitError) as error:
                self.close()
                self._roots, self.controllers, self.kind = (), (), "none"
                self.why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            else:
                self.why = None
                for root in self._roots:
                    tell(str(root))
                    _remove_left_overs(root.parent)
                break

    def create(self, environment: str) -> Limits:
        """The limits for a new environment."""
        match self.kind:
            case "cgroup v1":
                return CgroupV1(*(root / environment for root in self._roots), cpu_scale=self._cpu_scale)
            case "cgroup v2":
                return CgroupV2(self._roots[0] / environment, cpu_scale=self._cpu_scale)
            case _:
                return Unlimited(self._tell)

    def close(self) -> None:
        """Removes the folders of this plane and what is in them; the last plane takes the processes back."""
        for root in self._roots:
            remove_tree(root)
        if self._leaf is not None:
            own, leaf, self._leaf = self._leaf.parent, self._leaf, None
            with contextlib.suppress(OSError):  # the kernel refuses the first step while another plane needs it
                (own / "cgroup.subtree_control").write_text(" ".join(f"-{name}" for name in self.controllers))
                for _ in range(_TRIES):  # what is moved may start another meanwhile
                    _move(_pids(leaf), own)
                    if not _pids(leaf):
                        break
                leaf.rmdir()

    def _prepare(self) -> None:
        for root in self._roots:
            root.mkdir(exist_ok=True)
        if self.kind == "cgroup v2":
            (root,) = self._roots
            enable = " ".join(f"+{name}" for name in self.controllers)
            for attempt in range(_TRIES):
                try:
                    self._hand_down(root.parent, enable)
                    (root / "cgroup.subtree_control").write_text(enable)
                except OSError as error:  # a process was started meanwhile, or another plane took its own back
                    if error.errno not in (errno.EBUSY, errno.ENOENT) or attempt == _TRIES - 1:
                        raise
                else:
                    return

    def _hand_down(self, own: Path, enable: str) -> None:
        """Lets the children of a group have its controllers.

        A group with processes may not, so they move to a leaf first; the machine's top group is free of that rule,
        and has no type.
        """
        controls = own / "cgroup.subtree_control"
        if (own / _LEAF).exists():
            self._leaf = own / _LEAF
        if not set(self.controllers) <= set(controls.read_text().split()):
            if (pids := _pids(own)) and (own / "cgroup.type").exists():
                self._leaf = own / _LEAF
                self._leaf.mkdir(exist_ok=True)
                _move(pids, self._leaf)
            controls.write_text(enable)

    def _try_out(self) -> None:
        """Limits a process once, so that nothing is promised that does not hold."""
        limits = self.create("try-out")
        try:
            limits.limit_memory(128)
            limits.limit_cpu(128)
            with subprocess.Popen(["sleep", "60"], env=loopback.variables(), stdin=subprocess.DEVNULL) as sleeper:
                try:
                    limits.enter(sleeper.pid)
                finally:
                    sleeper.kill()
        finally:
            limits.close()


def remove_tree(folder: Path) -> None:
    """Removes a control group and those in it, and ends the processes that are there."""
    for child in [path for path in folder.glob("*") if path.is_dir()] if folder.exists() else []:
        remove_tree(child)
    _remove(folder)


def find_left_overs(mount: Path = _MOUNT, own: str | None = None) -> list[Path]:
    """The groups of planes and tests that were killed together with their guard; ``Cgroups`` removes them."""
    own = Path("/proc/self/cgroup").read_text() if own is None else own
    folders = {root.parent for _, _, roots in _places("any", mount, own) for root in roots}
    return sorted(left for folder in folders for left in _left_overs(folder))


def _left_overs(folder: Path) -> list[Path]:
    found = ((left, left.name.rpartition("-")[2]) for left in folder.glob("lambdalab-*"))
    return [left for left, pid in found if pid.isdecimal() and not processes.exists(int(pid))]


def _remove_left_overs(folder: Path) -> None:
    for left in _left_overs(folder):
        remove_tree(left)


def _places(name: str, mount: Path, own: str) -> list[tuple[str, tuple[str, ...], tuple[Path, ...]]]:
    """Version, controllers and folders of a plane, the best place first.

    In version 2 that is the top for root, where no process of others has to be moved, then the process's own group.
    """
    groups = _own_groups(own)
    places: list[tuple[str, tuple[str, ...], tuple[Path, ...]]] = []
    for controllers in (_CONTROLLERS, _CONTROLLERS[:2]):
        if set(controllers) <= groups.keys():
            roots = tuple(mount / controller / groups[controller].lstrip("/") / name for controller in controllers)
            places.append(("cgroup v1", controllers, roots))
    if "" in groups:
        own_group = mount / groups[""].lstrip("/")
        if own_group.name == _LEAF:
            own_group = own_group.parent
        for top in dict.fromkeys((mount, own_group)):
            if (top / "cgroup.subtree_control").exists():
                has_tasks = "pids" in (top / "cgroup.controllers").read_text().split()
                places.append(("cgroup v2", _CONTROLLERS if has_tasks else _CONTROLLERS[:2], (top / name,)))
    return places


def _move(pids: Iterable[int], folder: Path) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            (folder / "cgroup.procs").write_text(str(pid))


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
        found = [int(pid) for pid in read_kernel_file(f"{folder}/cgroup.procs").split()]
    except OSError:
        return []
    return [pid for pid in found if pid != 0]  # 0: a process of another pid namespace, but a signal to 0 is to oneself


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
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            folder.rmdir()
        except (FileNotFoundError, PermissionError):
            return
        except OSError:
            time.sleep(0.005)
        else:
            return
