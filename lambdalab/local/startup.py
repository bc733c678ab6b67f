"""Starts the two processes of a local stack, emulator and plane, and waits until they answer."""

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from lambdalab import loopback
from lambdalab.build.tools import tool_python
from lambdalab.errors import PlaneError
from lambdalab.local.closed_lambda import closed_lambda
from lambdalab.local.concurrency import ACCOUNT_CONCURRENCY
from lambdalab.local.daemon import Daemon, start_daemon
from lambdalab.local.settings import Settings

EMULATOR_PROGRAM: Final = Path(__file__).with_name("emulator_server")
_START_LIMIT_S: Final = 60.0


def start_emulator(port: int, folder: Path, *, own_lambda: bool = False) -> Daemon:
    """Starts the emulator and waits until it answers; it logs and lives in ``folder``.

    Args:
        port: where it listens.
        folder: its own.
        own_lambda: let it run functions itself, to measure it; a local stack has one Lambda, the plane.
    """
    settings = {
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",  # its own Lambda does not tell Go where the emulator is
        "LAMBDA_ACCOUNT_CONCURRENCY": str(ACCOUNT_CONCURRENCY),  # else GetAccountSettings tells what fits the machine
        **({} if own_lambda else closed_lambda(folder)),
        "IOT_MTLS_ENABLED": "0",  # else its MQTT listener opens on every interface
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
    }
    log_file = folder / "emulator.log"
    command = [str(tool_python("ministack")), str(EMULATOR_PROGRAM), "127.0.0.1", str(port)]
    emulator = start_daemon(command, port=port, log_file=log_file, variables=settings)
    try:
        _await_answer(f"http://127.0.0.1:{port}/_ministack/health", emulator, log_file, "the emulator")
    except BaseException:  # Ctrl-C too: nobody else knows of it yet
        emulator.end(grace_s=1)
        raise
    return emulator


def start_plane(settings: Settings, folder: Path) -> Daemon:
    """Starts a plane and waits until it answers."""
    settings_file = folder / "plane.json"
    settings_file.write_bytes(msgspec.json.encode(settings))
    command = [sys.executable, "-m", "lambdalab.local.plane", str(settings_file)]
    log_file = folder / "plane.log"
    # glibc raises this threshold by itself; bodies of megabytes then leave holes in the heap that are never given back.
    variables = loopback.variables(settings.endpoint_url) | {"MALLOC_MMAP_THRESHOLD_": str(256 * 1024)}
    plane = start_daemon(command, port=settings.port, log_file=log_file, variables=variables)
    try:
        _await_answer(f"http://127.0.0.1:{settings.port}/_lambdalab/status", plane, log_file, "the plane")
    except BaseException:
        plane.end(grace_s=5)
        raise
    return plane


def get(url: str) -> bytes:
    """What a process of the stack answers to GET.

    Raises:
        OSError: it does not answer, or with an error.
    """
    with loopback.open_url(url, timeout_s=5) as answer:
        return answer.read()


def _await_answer(url: str, daemon: Daemon, log_file: Path, name: str) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while daemon.alive and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            get(url)
            return
        time.sleep(0.05)
    lines = log_file.read_text(errors="replace").strip().splitlines()
    said = f": {lines[-1]}" if lines else ""
    state = "does not answer" if daemon.alive else "ended at once"
    raise PlaneError(f"{name} {state}{said}", next_step=f"see {log_file}")
