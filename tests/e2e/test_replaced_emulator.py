"""An emulator that is not the pinned one: it serves as it is, and whoever looks is told that its queues slow down."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from local.whole import ROOT

from .conftest import Run

WHY = "its SQS is not that of the pinned version (SHA-256 "


@pytest.fixture(scope="module")
def replaced(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project with an emulator whose SQS has one line more; the log of the emulator."""
    here, real = tmp_path_factory.mktemp("replaced"), ROOT / ".lambdalab" / "tools"
    (package,) = (real / "ministack" / "lib").glob("python3.*/site-packages/ministack")
    shutil.copytree(package, here / "changed" / "ministack", ignore=shutil.ignore_patterns("__pycache__"))
    with (here / "changed" / "ministack" / "services" / "sqs.py").open("a") as file:
        file.write("# another version\n")
    programs = here / "programs"
    programs.mkdir()
    (programs / "ministack").touch()
    (programs / "python").write_text(f'#!/bin/sh\nPYTHONPATH={here}/changed exec "{real}/ministack/bin/python" "$@"\n')
    (programs / "python").chmod(0o755)
    tools = project / ".lambdalab" / "tools"
    tools.unlink()
    (tools / "bin").mkdir(parents=True)
    for name in {path.name for path in real.iterdir()} - {"bin", "lock"}:
        (tools / name).symlink_to(real / name)
    for name in {path.name for path in (real / "bin").iterdir()} - {"ministack"}:
        (tools / "bin" / name).symlink_to(real / "bin" / name)
    (tools / "bin" / "ministack").symlink_to(programs / "ministack")
    yield project / ".lambdalab" / "emulator.log"
    shutil.rmtree(tools)
    tools.symlink_to(real)


def test_queues_keep_the_emulators_own_code_and_it_is_said(replaced: Path, lambdalab: Run) -> None:
    up = lambdalab("up", "--port", "0")
    assert up.returncode == 0, up.stderr
    try:
        assert replaced.read_text().count(WHY) == 1
        status = lambdalab("status")
        assert status.returncode == 0
        assert f"caution: queues slow down with their backlog: {WHY}" in " ".join(status.stdout.split())
        checks = {check["check"]: check for check in json.loads(lambdalab("doctor", "--json").stdout)["checks"]}
        assert (checks["queues"]["verdict"], WHY in checks["queues"]["found"]) == ("warning", True)
        assert "remove .lambdalab/tools and run `make setup`" in checks["queues"]["next_step"]
        done = lambdalab("run", "--protocol", "strict", "--blocks", "1")
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        lambdalab("down")
