"""A copy of the project in an empty folder, sharing only the installed tools, and the command line as a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import PROTOCOL
from local.whole import project as new_project

SHARED = (
    "template.yaml",
    "samconfig.toml",
    "scenarios",
    "pyproject.toml",
    "load",
    "src",
    "protocols",
    "prices",
    "latencies",
    "tools",
    "contracts",
    "events",
)
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_project(tmp_path_factory.mktemp("project"), SHARED)


@pytest.fixture(scope="session")
def tiny(project: Path) -> str:
    """A protocol of one block, a cold message of one item and a warm one of five."""
    (project / "tiny.toml").write_text(PROTOCOL.replace("count = 100", "count = 5"))
    return "tiny.toml"


@pytest.fixture(scope="session")
def clean_environment() -> dict[str, str]:
    """This process's environment without anything that points at AWS."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return kept | nowhere | {"AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="session")
def lambdalab(project: Path, clean_environment: dict[str, str]) -> Run:
    """Runs the command line in the project, or in a folder of it."""
    return run_in(project, clean_environment)


def run_in(place: Path, environment: dict[str, str]) -> Run:
    """Runs the command line in a project, or in a folder of it."""

    def call(
        *arguments: str, folder: str = ".", timeout_s: float = 240, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [command(), *arguments],
            cwd=place / folder,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return call


@pytest.fixture(scope="session")
def begin(project: Path, clean_environment: dict[str, str]) -> Begin:
    """Starts the command line in the project; the test ends it, and reads its output to the end."""

    def start(*arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [command(), *arguments],
            cwd=project,
            env=clean_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="module")
def local_stack(lambdalab: Run) -> Iterator[dict[str, str]]:
    """A stack that is up; the variables a client of it needs."""
    done = lambdalab("up", "--port", "0")
    assert done.returncode == 0, done.stderr
    pairs = [word.split("=", 1) for word in done.stdout.split() if "=" in word]
    try:
        yield dict(pairs)
    finally:
        lambdalab("down")


def command() -> str:
    return str(Path(sys.executable).with_name("lambdalab"))
