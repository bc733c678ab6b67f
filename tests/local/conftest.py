"""Async tests, and what all tests of the plane share."""

import asyncio
import inspect
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambdalab.local.cgroup import Cgroups
from lambdalab.local.filesystem import FileSystems
from lambdalab.tools import search_path
from local.support import PYTHON_RUNTIME, Machine, interpreter
from local.whole import Up, processes_of, project

HERE = Path(__file__).parent
LONGEST_TEST_S = 60


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine function on a loop of its own, and let none hang."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), LONGEST_TEST_S))
    return True


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """This machine's Python for functions, and its limits: control groups where they are to be had, else none."""
    cgroups = Cgroups(f"lambdalab-test-{os.getpid()}")
    files = FileSystems(tmp_path_factory.mktemp("files"))
    yield Machine(cgroups=cgroups, interpreter=interpreter(PYTHON_RUNTIME), files=files)
    files.close()
    cgroups.close()


@pytest.fixture(scope="session")
def go_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go function of these tests, built with the real aws-lambda-go."""
    package = tmp_path_factory.mktemp("go-package")
    source = tmp_path_factory.mktemp("go-source") / "go"
    shutil.copytree(HERE / "go", source)
    variables = {**os.environ, "PATH": search_path(), "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    command = ["go", "build", "-trimpath", "-tags=lambda.norpc", "-o", str(package / "bootstrap"), "."]
    built = subprocess.run(command, cwd=source, env=variables, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return package


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A local stack of its own, in a folder of its own, for all tests of a session."""
    found = Up.start(project(tmp_path_factory.mktemp("project")))
    yield found
    found.end()
    assert processes_of(found.project) == []
