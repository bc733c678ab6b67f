"""``/tmp`` and ``/opt`` of real environments, in whichever of the three ways there are here."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lambdalab.local import filesystem
from lambdalab.local.filesystem import FileSystems, layer_variables, needed_folders
from local.support import Machine, answer, python_spec, running

ORDINARY_USER = 54321
BLOCK = Path("/tmp/block")  # noqa: S108
LAYER = Path("/opt/python/of_the_layer.py")
CODE = """
import os, sys
from pathlib import Path

def handler(event, context):
    return globals()[event["do"]](**event.get("with", {}))

def write(mb):
    try:
        with open(os.environ.get("TMPDIR", "/tmp") + "/block", "wb") as file:
            for _ in range(mb):
                file.write(bytes(1 << 20))
    except OSError as error:
        return error.strerror
    return "written"

def look():
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    room = os.statvfs(folder)
    return {
        "files": sorted(path.name for path in folder.iterdir()),
        "room_mb": room.f_bavail * room.f_frsize >> 20,
        "tmpdir": os.environ.get("TMPDIR"),
        "mode": oct(folder.stat().st_mode),
    }

def layer():
    import of_the_layer, of_site_packages
    import subprocess
    said = subprocess.check_output("tool", text=True)
    return [of_the_layer.x, of_site_packages.x, said, os.environ["LD_LIBRARY_PATH"]]

def leave():
    os._exit(1)
"""


IMAGE = pytest.param("image", marks=pytest.mark.needs("image"))


@pytest.fixture(params=[IMAGE, pytest.param("folder", marks=pytest.mark.needs("root")), "none"])
def own(
    request: pytest.FixtureRequest, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    """A machine that offers this kind and no better one."""
    monkeypatch.setattr(filesystem, "KINDS", filesystem.KINDS[filesystem.KINDS.index(request.param) :])
    files = FileSystems(tmp_path)
    try:
        assert files.kind == request.param
        yield replace(machine, files=files)
    finally:
        files.close()
        BLOCK.unlink(missing_ok=True)  # a test that failed would fail the next ones


@pytest.fixture
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    (folder / "files.py").write_text(CODE)
    return folder


async def test_tmp_is_the_environments_own_through_a_reset_and_leaves_with_it(own: Machine, package: Path) -> None:
    spec = python_spec("files.handler", package=package, timeout_s=30)
    async with running(own, spec) as one, running(own, spec) as other:
        assert answer(await one.invoke(do="write", **{"with": {"mb": 3}})) == "written"
        for _ in range(2):
            assert "block" in answer(await one.invoke(do="look"))["files"]
            await one.invoke(do="leave")
        assert "block" not in answer(await other.invoke(do="look"))["files"]
        one.pool.recycle()
        found = answer(await one.invoke(do="look"))
    assert "block" not in found["files"]
    assert (found["tmpdir"] is None) == (own.files.kind != "none")
    assert (found["mode"] == "0o41777") == (own.files.kind != "none")
    assert list(own.files._folder.iterdir()) == []
    assert not BLOCK.exists()  # noqa: ASYNC240


@pytest.mark.parametrize("own", [IMAGE], indirect=True)
async def test_tmp_has_its_size_and_is_no_memory(own: Machine, package: Path) -> None:
    spec = python_spec("files.handler", package=package, timeout_s=60, memory_mb=128, tmp_mb=512)
    async with running(own, spec) as function:
        room_mb = answer(await function.invoke(do="look"))["room_mb"]
        within = answer(await function.invoke(do="write", **{"with": {"mb": 300}}))
        beyond = answer(await function.invoke(do="write", **{"with": {"mb": 600}}))
    assert 512 <= room_mb <= 516
    assert (within, beyond) == ("written", "No space left on device")


@pytest.mark.parametrize("own", [IMAGE], indirect=True)
@pytest.mark.parametrize("tmp_mb", [600, 1024, 2048, 10240])
async def test_tmp_is_as_large_as_the_function_says(own: Machine, package: Path, tmp_mb: int) -> None:
    async with running(own, python_spec("files.handler", package=package, tmp_mb=tmp_mb)) as function:
        found = answer(await function.invoke(do="look"))
    assert tmp_mb <= found["room_mb"] <= tmp_mb + 4
    assert "lost+found" not in found["files"]


async def test_layers_are_found_where_lambda_has_them(own: Machine, package: Path, tmp_path: Path) -> None:
    layers = tmp_path / "layers"
    runtime = python_spec().runtime
    for path, content in {
        "python/of_the_layer.py": "x = 1",
        f"python/lib/{runtime}/site-packages/of_site_packages.py": "x = 2",
        "bin/tool": "#!/bin/sh\necho from the layer",
    }.items():
        (layers / path).parent.mkdir(parents=True, exist_ok=True)
        (layers / path).write_text(content)
        (layers / path).chmod(0o755)
    async with running(own, python_spec("files.handler", package=package, layers=layers)) as function:
        found = answer(await function.invoke(do="layer"))
    opt = str(layers) if own.files.kind == "none" else "/opt"
    assert found == [1, 2, "from the layer\n", f"{opt}/lib"]
    assert not LAYER.exists()  # noqa: ASYNC240


def test_only_python_is_told_of_a_layers_python() -> None:
    opt = Path("/opt")
    assert layer_variables(opt, "python3.12").keys() - layer_variables(opt, "provided.al2023").keys() == {"PYTHONPATH"}
    assert layer_variables(None, "python3.12") == {}


@pytest.mark.needs("root", "user namespace")
def test_an_ordinary_user_has_a_tmp_too(tmp_path: Path) -> None:
    """In a user namespace, as the plane enters one."""
    code = """
import asyncio, ctypes, json, os, subprocess, sys
from pathlib import Path
from lambdalab.local.filesystem import FileSystems, enter_user_namespace

os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as it is for a program such a user has started
entered = enter_user_namespace()
files = FileSystems(Path(sys.argv[2]))

async def main():
    own = files.create(tmp_mb=512, needed=(), layers=None)
    await own.prepare()
    script = "touch /tmp/of-the-function; ls /tmp; id -u; grep CapEff /proc/self/status"
    process, _ = own.spawn(lambda: subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True))
    said = process.communicate()[0].split()
    own.close()
    print(json.dumps([entered, files.kind, said]))

asyncio.run(main())
files.close()
"""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        os.chown(folder, ORDINARY_USER, ORDINARY_USER)
        done = subprocess.run(
            [sys.executable, "-c", code, str(ORDINARY_USER), str(folder)], capture_output=True, text=True, check=False
        )
        assert list(folder.iterdir()) == []
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    entered, kind, said = json.loads(done.stdout)
    assert (entered, kind, said) == (
        True,
        "folder",
        ["of-the-function", str(ORDINARY_USER), "CapEff:", "0000000000000000"],
    )
    left = Path("/tmp/of-the-function")  # noqa: S108
    if left.exists():
        left.unlink()  # or it would fail every run after this one
        pytest.fail(f"{left} is on the machine's own /tmp")


def test_what_a_killed_plane_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "environments-4194305-x"  # above the highest pid there can be
    (left / "more").mkdir(parents=True)
    FileSystems(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_python_is_needed_with_the_one_it_was_made_from(machine: Machine, tmp_path: Path) -> None:
    assert needed_folders(tmp_path, None) == [tmp_path]
    assert Path(sys.base_prefix).resolve() in [p.resolve() for p in needed_folders(tmp_path, machine.interpreter)]
