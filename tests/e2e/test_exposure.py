"""Who else could reach a stack, a load run and a debugger: nobody from outside, and no other user by a file's mode."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from load.conftest import free_port
from local.whole import processes_of, wait_until

from lambdalab.errors import StorageError
from lambdalab.local.daemon import start_daemon
from lambdalab.project import state_folder

from .conftest import command

LOOPBACK: Final = {"127.0.0.1", "::1"}
INTERNET: Final = {socket.AF_INET, socket.AF_INET6}
PRIVATE: Final = 0o077


def sockets(project: Path) -> list[tuple[str, Any]]:
    """Every socket of every process that runs in the project, with the process's name."""
    found = []
    for line in processes_of(project):
        pid, _, called = line.partition(" ")
        try:
            found += [(called, one) for one in psutil.Process(int(pid)).net_connections("all")]
        except psutil.NoSuchProcess:
            continue
    return found


def listening(project: Path) -> dict[int, str]:
    """Ports that are listened at, and the addresses."""
    return {one.laddr.port: one.laddr.ip for _, one in sockets(project) if one.status == psutil.CONN_LISTEN}


@pytest.fixture(scope="module")
def ports(project: Path, clean_environment: dict[str, str]) -> Iterator[dict[str, int]]:
    """A stack, Locust's page with two processes, and a debugger that waits, all under umask 077; where each listens."""
    taken = {name: free_port() for name in ("page", "master", "debugger")}

    def start(*arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [command(), *arguments],
            cwd=project, env=clean_environment, umask=PRIVATE, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    for path in (project / ".lambdalab").iterdir():  # what other tests left was written under another umask
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif not path.is_symlink():
            path.unlink()
    shutil.rmtree(project / ".aws-sam")  # to be built under this one
    assert start("up", "--port", "0", "--settings", "load").wait(240) == 0
    master = str(taken["master"])
    begun = [
        start("load", "--web-port", str(taken["page"]), "--processes", "2",
              "--master-bind-port", master, "--master-port", master),
        start("invoke", "PythonIngest", "-e", "events/direct-small.json", "--debug", str(taken["debugger"])),
    ]  # fmt: skip
    try:
        wait_until(lambda: set(taken.values()) <= set(listening(project)), 120)
        yield taken
    finally:
        for process in begun:
            os.killpg(process.pid, signal.SIGINT)
        for process in begun:
            process.wait(60)
        assert start("down").wait(60) == 0


def test_nothing_listens_but_on_loopback(project: Path, ports: dict[str, int]) -> None:
    found = sockets(project)
    heard = {(one.laddr.ip, one.laddr.port) for _, one in found if one.status == psutil.CONN_LISTEN}
    assert len(heard) >= len(ports) + 2, "emulator and plane as well"
    assert {ip for ip, _ in heard} <= LOOPBACK
    datagrams = [
        (called, one.laddr.ip)
        for called, one in found
        if one.type == socket.SOCK_DGRAM and one.family in INTERNET and one.laddr
    ]
    assert [called for called, ip in datagrams if ip not in LOOPBACK] == []


def test_no_socket_has_a_name_in_the_file_system(project: Path, ports: dict[str, int]) -> None:
    names = {one.laddr for _, one in sockets(project) if one.family == socket.AF_UNIX and one.laddr}
    assert [name for name in names if str(name).startswith("/")] == []


def test_umask_holds_for_all_that_is_written(project: Path, ports: dict[str, int]) -> None:
    looked_at: dict[Path, int] = {}
    for folder, folders, names in os.walk(project / ".lambdalab"):
        folders[:] = [name for name in folders if not Path(folder, name).is_symlink()]
        paths = [Path(folder, name) for name in [*folders, *names]]
        looked_at |= {path: path.stat().st_mode for path in paths if path.exists()}
    assert [path for path, mode in looked_at.items() if mode & PRIVATE] == []
    seen = {path.name for path in looked_at}
    assert seen >= {"stack.json", "plane.json", "plane.log", "emulator.log", "sam-build.log", "packages"}
    assert "handler.py" in seen, "a package that was unpacked"


def test_environment_variables_of_the_stack_are_for_its_user_alone(project: Path, ports: dict[str, int]) -> None:
    for line in processes_of(project):
        mode = Path(f"/proc/{line.partition(' ')[0]}/environ").stat().st_mode
        assert stat.S_IMODE(mode) == 0o400, line


def test_logs_are_private_whatever_the_umask(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    code = subprocess.run(
        [sys.executable, "-c", STARTS, str(log)], umask=0, check=False, capture_output=True, text=True
    )  # fmt: skip
    assert code.returncode == 0, code.stderr
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


STARTS: Final = f"""
import os, sys
from pathlib import Path
from {start_daemon.__module__} import start_daemon
os.waitpid(start_daemon(["true"], port=1, log_file=Path(sys.argv[1]), variables=os.environ).pid, 0)
"""


def test_the_state_folder_is_never_for_everybody_to_write(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", MAKES, str(tmp_path)], umask=0, check=True)
    folder = tmp_path / ".lambdalab"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    folder.chmod(0o777)
    with pytest.raises(StorageError, match="may be written by everybody; run `chmod o-w"):
        state_folder(tmp_path)


MAKES: Final = f"""
import sys
from pathlib import Path
from {state_folder.__module__} import state_folder
state_folder(Path(sys.argv[1]))
"""
