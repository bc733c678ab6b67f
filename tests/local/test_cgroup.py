"""Control groups: what is written where, on a folder that stands in for the kernel's, and what is there for real."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lambdalab.local.cgroup import Cgroups, CgroupV2, remove_tree
from lambdalab.local.limits import PERIOD_US, LimitError, bandwidth_us, cpu_share

OWN_V1 = "5:memory:/a/b\n3:cpu,cpuacct:/c\n0::/\n"
ORDINARY_USER = 54321
AS_ORDINARY_USER = """
import json, os, subprocess, sys
from pathlib import Path
from lambdalab.local.cgroup import Cgroups

for folder in sys.argv[2:]:
    Path(folder, "cgroup.procs").write_text(str(os.getpid()))
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
groups = Cgroups("lab")
limits = groups.create("environment")
limits.limit_memory(128)
limits.limit_cpu(128)
wait_then_allocate = ["sh", "-c", "read _ && exec tail /dev/zero"]  # one endless line
with subprocess.Popen(wait_then_allocate, stdin=subprocess.PIPE) as process:
    limits.enter(process.pid)
    group = Path(sys.argv[2], "lab/environment")
    found = {
        "uid": os.geteuid(),
        "kind": groups.kind,
        "controllers": groups.controllers,
        "entered": Path(f"/proc/{process.pid}/cgroup").read_text(),
        "quota": next(group / name for name in ("cpu.max", "cpu.cfs_quota_us") if (group / name).exists()).read_text(),
    }
    process.stdin.write(b"now\\n")
    process.stdin.close()
    found["code"] = process.wait()
    found["oom_kills"] = limits.oom_kills()
second = Cgroups("second")
found["second"] = second.kind, str(second._roots[0].parent)
limits.close()
groups.close()
second.create("environment").limit_cpu(128)
second.close()
print(json.dumps(found))
"""
OWN_V2 = "0::/user.slice/lab.scope\n"


@pytest.mark.parametrize(
    ("memory_mb", "expected_us"),
    [(128, 1447), (256, 2894), (512, 5789), (1024, 11577), (1769, 20000), (3538, 40000), (10240, 115772)],
)
def test_share_of_a_core_follows_memory(memory_mb: int, expected_us: int) -> None:
    assert bandwidth_us(cpu_share(memory_mb)) == (expected_us, PERIOD_US)


@pytest.mark.parametrize(
    ("memory_mb", "cpu_scale", "expected_us"),
    [(1769, 0.5, (10000, 20000)), (1769, 1.25, (25000, 20000)), (128, 2, (2894, 20000)), (128, 0.5, (1000, 27641))],
)
def test_share_is_scaled_and_stays_above_the_smallest_quota(
    memory_mb: int, cpu_scale: float, expected_us: tuple[int, int]
) -> None:
    share = cpu_share(memory_mb, cpu_scale)
    quota_us, period_us = bandwidth_us(share)
    assert (quota_us, period_us) == expected_us
    assert quota_us / period_us == pytest.approx(share, rel=5e-4)


class KernelFolder:
    """A folder in which a new group gets its files, as in a mounted cgroup hierarchy of version 2."""

    def __init__(self, top: Path) -> None:
        self.top = top

    def group(self, path: str, **files: str) -> Path:
        folder = self.top / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in {
            "cgroup.procs": "",
            "cgroup.subtree_control": "",
            "cgroup.controllers": "cpu memory",
            **files,
        }.items():
            (folder / name.replace("__", ".")).write_text(content)
        return folder


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelFolder:
    """Version 2 in a plain folder: mkdir makes the files of a group, rmdir takes them away."""
    make, remove = Path.mkdir, Path.rmdir

    def mkdir(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        make(self, mode, parents, exist_ok)
        if tmp_path in self.parents:
            files = ("cgroup.procs", "cgroup.subtree_control", "cgroup.controllers", "cgroup.type", "cpu.max")
            for name in (*files, "memory.max", "pids.max"):
                (self / name).write_text("")
            (self / "memory.swap.max").write_text("max")
            (self / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n")

    def rmdir(self: Path) -> None:
        if tmp_path in self.parents:
            for file in self.iterdir():
                if file.is_file():
                    file.unlink()
        remove(self)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(Path, "rmdir", rmdir)
    return KernelFolder(tmp_path)


def test_version_2_writes_quota_memory_and_swap(kernel: KernelFolder) -> None:
    group = CgroupV2(kernel.top / "environment")
    group.limit_memory(128)
    group.limit_cpu(128)
    group.enter(4711)
    folder = kernel.top / "environment"
    written = {
        name: (folder / name).read_text()
        for name in ("cpu.max", "memory.max", "memory.swap.max", "pids.max", "cgroup.procs")
    }
    assert written == {
        "cpu.max": f"1447 {PERIOD_US}",
        "memory.max": "134217728",
        "memory.swap.max": "0",
        "pids.max": "1024",
        "cgroup.procs": "4711",
    }
    assert group.pids() == [4711]
    assert group.oom_kills() == 2
    group.limit_cpu(None)
    assert (folder / "cpu.max").read_text() == f"max {PERIOD_US}"


def test_limit_that_does_not_read_back_is_an_error(kernel: KernelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    group = CgroupV2(kernel.top / "environment")
    (kernel.top / "environment" / "cpu.max").unlink()
    (kernel.top / "environment" / "cpu.max").symlink_to("/dev/null")
    with pytest.raises(LimitError, match=r"cpu.max was set to 1447 20000 but reads "):
        group.limit_cpu(128)


def test_version_2_of_root_lies_at_the_top_and_moves_nobody(kernel: KernelFolder) -> None:
    kernel.group("", cgroup__procs="1\n2\n", cgroup__subtree_control="cpu memory pids")
    kernel.group("user.slice/lab.scope", cgroup__procs="3\n", cgroup__type="domain")
    told: list[str] = []
    groups = Cgroups("lab", mount=kernel.top, own=OWN_V2, tell=told.append)
    assert groups.kind == "cgroup v2"
    assert told == [str(kernel.top / "lab")]
    assert (kernel.top / "lab" / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (kernel.top / "cgroup.procs").read_text() == "1\n2\n"
    assert (kernel.top / "user.slice/lab.scope" / "cgroup.procs").read_text() == "3\n"
    groups.close()
    assert not (kernel.top / "lab").exists()


def test_version_2_limits_tasks_where_it_can(kernel: KernelFolder) -> None:
    kernel.group("", cgroup__controllers="cpuset cpu io memory pids", cgroup__subtree_control="memory pids")
    groups = Cgroups("lab", mount=kernel.top, own=OWN_V2, cpu_scale=0.5)
    assert groups.controllers == ("cpu", "memory", "pids")
    assert (kernel.top / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (kernel.top / "lab" / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    groups.create("environment").limit_cpu(1769)
    assert (kernel.top / "lab/environment/cpu.max").read_text() == "10000 20000"
    groups.close()


def test_version_2_in_a_delegated_scope_moves_its_processes_to_a_leaf_and_back(
    kernel: KernelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.group("", cgroup__procs="1\n2\n", cgroup__subtree_control="cpu memory pids")
    scope = kernel.group("user.slice/lab.scope", cgroup__procs="3\n", cgroup__type="domain")
    mkdir = Path.mkdir

    def not_at_the_top(self: Path, *arguments: object, **options: object) -> None:
        if self == kernel.top / "lab":
            raise PermissionError(13, "Permission denied")
        mkdir(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", not_at_the_top)
    groups = Cgroups("lab", mount=kernel.top, own=OWN_V2)
    assert groups.kind == "cgroup v2"
    assert (scope / "lambdalab-processes" / "cgroup.procs").read_text() == "3"
    assert (scope / "cgroup.subtree_control").read_text() == "+cpu +memory"
    (scope / "lambdalab-processes" / "cgroup.procs").write_text("3\n")
    groups.close()
    assert (scope / "cgroup.subtree_control").read_text() == "-cpu -memory"
    assert (scope / "cgroup.procs").read_text() == "3"
    assert not (scope / "lab").exists()
    assert not (scope / "lambdalab-processes").exists()


@pytest.mark.parametrize("own", [OWN_V1, OWN_V2, "", "1:name=systemd:/\n0::/nowhere\n"])
def test_without_groups_nothing_is_limited_and_it_is_said(tmp_path: Path, own: str) -> None:
    told: list[str] = []
    groups = Cgroups("lab", mount=tmp_path, own=own, tell=told.append)
    assert (groups.kind, groups.controllers) == ("none", ())
    limits = groups.create("environment")
    limits.limit_memory(128)
    limits.limit_cpu(128)
    limits.enter(4711)
    assert (limits.pids(), limits.oom_kills()) == ([4711], 0)
    limits.close()
    groups.close()
    assert told == ["+4711", "-4711"]
    assert list(tmp_path.iterdir()) == []


def test_groups_that_are_half_there_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "cpu/c").mkdir(parents=True)
    groups = Cgroups("lab", mount=tmp_path, own="5:memory:/a/b\n3:cpu:/c\n")
    assert groups.kind == "none"
    assert list((tmp_path / "cpu/c").iterdir()) == []


@pytest.mark.needs("cgroup")
def test_tree_with_processes_in_it_is_removed() -> None:
    groups = Cgroups(f"lambdalab-test-tree-{os.getpid()}")
    limits = groups.create("environment")
    with subprocess.Popen(["sleep", "300"]) as process:
        limits.enter(process.pid)
        assert limits.pids() == [process.pid]
        for root in groups._roots:
            remove_tree(root)
        assert process.wait(timeout=5) == -9
    assert not [root for root in groups._roots if root.exists()]
    groups.close()


@pytest.mark.needs("cgroup")
def test_groups_of_planes_that_are_dead_are_removed_at_the_next_start() -> None:
    here = Cgroups(f"lambdalab-test-left-here-{os.getpid()}")
    ended = subprocess.Popen(["true"])
    ended.wait()
    parents = [root.parent for root in here._roots]
    dead = [parent / f"lambdalab-test-left-{ended.pid}" for parent in parents]
    alive = [parent / f"lambdalab-test-left-{os.getpid()}" for parent in parents]
    for folder in (*dead, *alive):
        (folder / "environment").mkdir(parents=True)
    with subprocess.Popen(["sleep", "300"]) as orphan:
        for folder in dead:
            (folder / "environment/cgroup.procs").write_text(str(orphan.pid))
        Cgroups(f"lambdalab-test-left-next-{os.getpid()}").close()
        left = [folder for folder in (*dead, *alive) if folder.exists()]
        for folder in (*dead, *alive):
            remove_tree(folder)
        orphan.kill()
    here.close()
    assert left == alive
    assert orphan.returncode == -9


def as_ordinary_user(folders: list[Path]) -> dict[str, Any]:
    """What ``Cgroups`` finds and does, run by a user who owns nothing but these folders of the kernel's."""
    try:
        for folder in folders:
            folder.mkdir()
            for path in (folder, folder / "cgroup.procs", folder / "cgroup.subtree_control"):
                if path.exists():
                    os.chown(path, ORDINARY_USER, ORDINARY_USER)
        done = subprocess.run(
            [sys.executable, "-c", AS_ORDINARY_USER, str(ORDINARY_USER), *map(str, folders)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert [list(folder.glob("*/")) for folder in folders] == [[]] * len(folders)
    finally:
        for folder in folders:
            remove_tree(folder)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["uid"] == ORDINARY_USER
    assert (found["code"], found["oom_kills"]) == (-9, 1)
    assert found["second"] == [found["kind"], str(folders[0])]
    return found


@pytest.mark.needs("root", "cgroup v1")
@pytest.mark.parametrize("controllers", [("cpu", "memory", "pids"), ("cpu", "memory")])
def test_version_1_in_a_subtree_given_to_an_ordinary_user(controllers: tuple[str, ...]) -> None:
    name = f"lambdalab-test-given-{os.getpid()}"
    found = as_ordinary_user([Path("/sys/fs/cgroup", controller, name) for controller in controllers])
    assert (found["kind"], tuple(found["controllers"])) == ("cgroup v1", controllers)
    entered = {line.split(":")[1]: line.split(":")[2] for line in found["entered"].splitlines()}
    assert {entered[controller] for controller in controllers} == {f"/{name}/lab/environment"}
    assert found["quota"].split() == ["1447"]


@pytest.mark.needs("root", "cgroup v2")
def test_version_2_in_a_subtree_given_to_an_ordinary_user() -> None:
    top = Cgroups(f"lambdalab-test-given-{os.getpid()}")
    (root,) = top._roots
    try:
        found = as_ordinary_user([root / "scope"])
    finally:
        top.close()
    assert (found["kind"], tuple(found["controllers"])) == ("cgroup v2", top.controllers)
    assert found["entered"].strip() == f"0::/{root.relative_to('/sys/fs/cgroup')}/scope/lab/environment"
    assert found["quota"].split() == ["1447", "20000"]
