"""Async tests, and what all tests of the plane share."""

import asyncio
import inspect
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambdalab.aws.clients import Aws
from lambdalab.local.filesystem import FileSystems
from lambdalab.local.limiter import find_limiter
from lambdalab.local.startup import start_emulator
from local.support import PYTHON_RUNTIME, Emulated, Machine, built_go, interpreter
from local.whole import Up, processes_of, project

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
    """This machine's Python for functions, and the best way of limiting them that it has."""
    limiter = find_limiter(f"lambdalab-test-{os.getpid()}")
    files = FileSystems(tmp_path_factory.mktemp("files"))
    yield Machine(limiter=limiter, interpreter=interpreter(PYTHON_RUNTIME), files=files)
    files.close()
    limiter.close()


@pytest.fixture(scope="session")
def go_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go function of these tests, built with the real aws-lambda-go."""
    return built_go(tmp_path_factory.mktemp("go-package"))


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A local stack of its own, in a folder of its own, for all tests of a session."""
    found = Up.start(project(tmp_path_factory.mktemp("project")))
    yield found
    found.end()
    assert processes_of(found.project) == []


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    """An emulator alone, without a stack and a plane, for all tests of a session."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    daemon = start_emulator(port, tmp_path_factory.mktemp("emulator"))
    found = Emulated(daemon=daemon, url=f"http://127.0.0.1:{port}", aws=Aws(endpoint_url=f"http://127.0.0.1:{port}"))
    yield found
    for client in (value for value in vars(found.aws).values() if hasattr(value, "get_waiter")):
        client.close()
    daemon.end(grace_s=2)
