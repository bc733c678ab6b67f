"""Tools that are installed when they are first asked for."""

import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from command_line import project_fixture  # noqa: F401
from sam_template import ROOT

from lambdalab.build import tools
from lambdalab.run.circumstances import versions


@pytest.mark.parametrize(
    ("program", "requirements"),
    [
        ("sam", [tools.SAM]),
        ("ministack", [tools.MINISTACK]),
        ("cfn-lint", [tools.CFN_LINT, tools.SERVERLESS_RULES]),
        ("checkov", [tools.CHECKOV]),
    ],
)
def test_a_tool_is_pinned_with_all_that_it_needs(program: str, requirements: list[str]) -> None:
    lines = (ROOT / "tools" / f"{program}.txt").read_text().splitlines()
    pins = {line.split(" ;")[0] for line in lines if not line.startswith("#")}
    assert all(re.fullmatch(r"[a-z0-9_.-]+==\S+", pin) for pin in pins)
    for requirement in requirements:
        assert f"'{requirement}'" in lines[0]
        assert f"'{requirement}'" in lines[1]
        assert re.sub(r"\[.*\]", "", requirement) in pins


def test_the_template_is_linted_with_the_version_that_sam_brings() -> None:
    assert tools.CFN_LINT in (ROOT / "tools" / "sam.txt").read_text().splitlines()


def waits_for_a_lock() -> bool:
    """Whether a thread of this process does (proc_locks(5))."""
    waiting = rf"^\d+: -> FLOCK +ADVISORY +WRITE {os.getpid()} "
    return re.search(waiting, Path("/proc/locks").read_text(), re.MULTILINE) is not None


def test_who_asks_while_somebody_installs_waits_and_finds_it_done(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []
    found: list[Path] = []
    second = Thread(target=lambda: found.append(tools.interpreter_for("python3.12")))

    def run_tool(command: Sequence[str], **_: Any) -> None:
        installed.append(command[1])
        if command[1] == "venv":
            python = project / ".lambdalab/interpreters/python3.12/bin/python"
            python.parent.mkdir(parents=True)
            python.touch()
        elif not second.is_alive():
            second.start()
            while len(installed) == 2 and not waits_for_a_lock():
                time.sleep(0.001)

    monkeypatch.setattr(tools, "run_tool", run_tool)
    first = tools.interpreter_for("python3.12")
    second.join()
    assert found == [first]
    assert installed == ["venv", "pip"]


@pytest.mark.parametrize("home", [None, ""])
def test_go_works_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    go = str(tools.go_folder() / "go")
    for name in ("HOME", "XDG_CACHE_HOME", "GOCACHE", "GOPATH"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(tools, "state_folder", lambda: tmp_path / "state")
    (tmp_path / "go.mod").write_text("module x\ngo 1.22\n")
    (tmp_path / "main.go").write_text("package main\nfunc main() {}\n")
    variables = {**os.environ, **tools.go_caches(), "GOFLAGS": "-mod=mod"}
    dry_run = [go, "build", "-n", "."]
    done = subprocess.run(dry_run, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_go_keeps_its_own_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert tools.go_caches() == {}
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("GOCACHE", "/cache")
    assert list(tools.go_caches()) == ["GOPATH"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"module x\n"])
def test_a_damaged_go_module_asks_for_no_version(project: Path, content: bytes | None) -> None:
    (project / "src").unlink()
    folder = project / "src/go/ingest"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "go.mod").write_bytes(content)
        (folder / "requirements.txt").write_bytes(content)
    assert tools.go_wanted() == ""
    assert "boto3 (lab)" in versions([Path("src/go/ingest")], local=False)


def test_which_pythons_there_are_is_asked_again_when_a_folder_of_path_changed_or_the_note_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []
    answers = iter((1, 0, 0, 0))

    def run(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        asked.append(command)
        return subprocess.CompletedProcess(command, next(answers))

    monkeypatch.setattr(tools, "state_folder", lambda: tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    assert not tools.find_python("3.12")
    assert not tools.find_python("3.12")
    assert len(asked) == 1
    (folder / "python3.12").touch()
    assert tools.find_python("3.12")
    assert tools.find_python("3.12")
    assert len(asked) == 2
    for count, damage in enumerate((b"", b"\xff\x00 found"), start=3):
        (tmp_path / "pythons" / "3.12").write_bytes(damage)
        assert tools.find_python("3.12")
        assert len(asked) == count
