"""A local command asks for nothing but loopback, whatever the user's shell, profile or configuration file says."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from trap import Trap, damaged_files, hostile_files, hostile_variables, user_environment

from lambdalab.deployment import build, local_parameters
from lambdalab.tools import interpreter_for

from .conftest import command

EVENT = "events/direct-small.json"
LOAD = ("load", "--headless", "--only-summary", "--rate", "5", "--duration", "2s", "--languages", "go")
COMMANDS = {
    "run": ("run", "--protocol", "tiny.toml", "--blocks", "1"),
    "load": LOAD,
    "invoke": ("invoke", "PythonIngest", "-e", EVENT),
    "logs": ("logs",),
    "doctor": ("doctor",),
}
KINDS = ("variables", "files", "damaged files")
SLOW = (("run", "variables"), ("run", "damaged files"), ("load", "variables"), ("load", "files"))
CASES = (*SLOW, ("doctor", "variables"), *((name, kind) for name in ("invoke", "logs") for kind in KINDS))
"""Commands and environments. Commands that take seconds are not called in every one."""


class Scene:
    """A stack that was brought up in the worst environment, and the trap that every one of them leads to."""

    def __init__(self, project: Path, folder: Path) -> None:
        self.project, self.trap = project, Trap()
        for kind in KINDS:
            (folder / kind).mkdir()
        self.kinds = {
            "variables": hostile_variables(self.trap.url),
            "files": hostile_files(folder / "files", self.trap.url),
            "damaged files": damaged_files(folder / "damaged files"),
        }
        self.everything = self.kinds["damaged files"] | self.kinds["files"] | self.kinds["variables"]

    def call(self, variables: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            arguments, cwd=self.project, env=user_environment() | variables, capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip

    def expect(self, variables: dict[str, str], *arguments: str, good: tuple[int, ...] = (0,)) -> None:
        """Calls a program that must succeed and leave the trap alone."""
        done = self.call(variables, *arguments)
        assert done.returncode in good, done.stdout + done.stderr
        assert self.trap.asked == [], done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(project: Path, tiny: str) -> Path:
    """The project with its functions built: a build may use the user's proxy."""
    with contextlib.chdir(project):
        build("local", parameters := local_parameters({}))
        interpreter_for(parameters["PythonRuntime"])
    return project


@pytest.fixture(scope="module")
def scene(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(built, tmp_path_factory.mktemp("user"))
    try:
        scene.expect(scene.everything, command(), "up", "--port", "0", "--parameter", "ReservedConcurrency=2")
        yield scene
        scene.expect(scene.everything, command(), "down")
    finally:
        scene.call({}, command(), "down")
        scene.trap.close()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_local_command_succeeds_and_asks_loopback_only(scene: Scene, name: str, kind: str) -> None:
    may_be_invalid = (0, 4) if name in ("run", "load") else (0,)  # on a busy machine
    scene.expect(scene.kinds[kind], command(), *COMMANDS[name], good=may_be_invalid)


def test_sam_for_the_local_environment_asks_loopback_only(scene: Scene) -> None:
    sam = str(Path(sys.executable).with_name("sam"))
    scene.expect(
        scene.everything, sam, "list", "stack-outputs", "--config-env", "local", "--stack-name", "lambdalab-local"
    )
