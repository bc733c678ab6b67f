"""A local command asks for nothing but loopback, whatever the user's shell, profile or configuration file says."""

import contextlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local.whole import processes_of
from local.whole import project as new_project
from trap import Trap, damaged_files, hostile_files, hostile_variables, user_environment

from lambdalab.build.deployment import build, local_parameters
from lambdalab.build.tools import interpreter_for

from .conftest import SHARED, command

UP = ("up", "--port", "0", "--parameter", "ReservedConcurrency=2")
BUSY = 4
"""Exit code of an invalid run, which a busy machine may cause."""
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
SLOW = (("run", "damaged files"), ("load", "variables"), ("doctor", "variables"))
CASES = (*SLOW, *((name, kind) for name in ("invoke", "logs") for kind in KINDS))
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
        build(parameters := local_parameters({}))
        interpreter_for(parameters["PythonRuntime"])
    return project


@pytest.fixture(scope="module")
def scene(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(built, tmp_path_factory.mktemp("user"))
    try:
        scene.expect(scene.everything, command(), *UP)
        yield scene
        scene.expect(scene.everything, command(), "down")
    finally:
        scene.call({}, command(), "down")
        scene.trap.close()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_local_command_succeeds_and_asks_loopback_only(scene: Scene, name: str, kind: str) -> None:
    scene.expect(scene.kinds[kind], command(), *COMMANDS[name], good=(0, BUSY))


def test_sam_for_the_local_environment_asks_loopback_only(scene: Scene) -> None:
    sam = str(Path(sys.executable).with_name("sam"))
    scene.expect(
        scene.everything, sam, "list", "stack-outputs", "--config-env", "local", "--stack-name", "lambdalab-local"
    )


def test_no_process_of_the_stack_has_the_users_settings(scene: Scene) -> None:
    scene.expect(scene.everything, command(), *COMMANDS["invoke"])
    found = {line: Path(f"/proc/{line.partition(' ')[0]}/environ").read_bytes() for line in processes_of(scene.project)}
    expected = ("ministack", "local.plane", "local.guard", "awslambdaric")
    assert [part for part in expected if part not in str(found)] == []
    for line, environment in found.items():
        assert scene.trap.url.encode() not in environment, line
        assert b"nope" not in environment, line


ALONE = ("invoke", "run", "load", "logs", "doctor")
UNUSED_PORT = 9
NAMESPACE = 'ip link set lo up && exec strace -f --seccomp-bpf -qq -e "$0" -o "$1" sh -ec "$2"'
CALLS = "trace=connect"
"""A resolver connects as well before it asks; nothing but loopback is there for what does not connect."""
ADDRESS = re.compile(r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\("|inet_pton\(AF_INET6, ")([^"]+)')


@pytest.mark.needs("network namespace")
def test_with_loopback_alone_every_command_works_and_connects_to_nothing_else(built: Path, tmp_path: Path) -> None:
    """No other address and no name server, in a network that has only ``lo``."""
    url = f"http://127.0.0.1:{UNUSED_PORT}"
    (tmp_path / "project").mkdir()
    hostile = damaged_files(tmp_path) | hostile_files(tmp_path, url) | hostile_variables(url)
    folder = new_project(tmp_path / "project", SHARED, built=False)  # the other tests' stack is up in theirs
    shutil.copytree(built / ".aws-sam", folder / ".aws-sam")
    shutil.copy(built / "tiny.toml", folder)
    calls = [shlex.join([command(), *call]) for call in (UP, *(COMMANDS[name] for name in ALONE))]
    script = "\n".join([f"trap '{command()} down' EXIT", *(f"{call} || test $? = {BUSY}" for call in calls)])
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", NAMESPACE, CALLS, str(tmp_path / "calls"), script],
        cwd=folder, env=user_environment() | hostile, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    seen = (tmp_path / "calls").read_text()
    addresses = {(host, int(port)) for port, host in ADDRESS.findall(seen)}
    assert {host for host, _ in addresses} <= {"127.0.0.1", "::1"}, addresses
    assert not {53, UNUSED_PORT} & {port for _, port in addresses}, addresses
    assert len(addresses) >= 2, "emulator and plane"
    assert len(re.findall(r"sa_family=AF_INET6?,", seen)) == len(ADDRESS.findall(seen)), "each address was read"
    assert not re.findall(r'sun_path="[^"]*resolve[^"]*', seen), "a name server behind a socket in the file system"
