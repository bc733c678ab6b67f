"""The Docker engine, where ``sam local`` runs functions, and the bridge between its containers and the emulator.

A container cannot reach what listens on the loopback of its host. So for as long as a command runs a forwarder listens
at the host's end of Docker's own network, and nowhere else, and passes the connections of that network on to the
emulator.
"""

import asyncio
import contextlib
import ipaddress
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from lambdalab import loopback
from lambdalab.errors import PlaneError, SetupError

INSTALL: Final = "install one, on Debian or Ubuntu `apt-get install docker.io`, and start it"
_LONGEST_CALL_S: Final = 60.0
_BLOCK_BYTES: Final = 64 * 1024


def docker(*arguments: str, longest_s: float = _LONGEST_CALL_S) -> "subprocess.CompletedProcess[str]":
    """One call of Docker's command line; its exit code is for the caller.

    Raises:
        SetupError: there is none, or its engine does not answer in time.
    """
    try:
        return subprocess.run(
            ["docker", *arguments],
            env=loopback.build_variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=longest_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise SetupError("`sam local` needs Docker, and there is no `docker` on PATH", next_step=INSTALL) from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(
            f"the Docker engine did not answer `docker {arguments[0]}` within {longest_s:g} s",
            next_step="see whether it is well with `docker info`",
        ) from error


def configure_without_proxies(folder: Path) -> None:
    """Makes a folder for ``DOCKER_CONFIG``: the user's own, without the proxies that clients put into containers.

    A proxy cannot reach the bridge of ``bridged``.
    """
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    settings = own / "config.json"
    for path in own.iterdir() if own.is_dir() else ():
        if path != settings:
            (folder / path.name).symlink_to(path.absolute())
    with contextlib.suppress(OSError, ValueError, AttributeError):  # absent or damaged: its clients ignore it as well
        found = json.loads(settings.read_bytes())
        kept = {name: value for name, value in found.items() if name != "proxies"}
        (folder / settings.name).write_text(json.dumps(kept))


def require_engine() -> None:
    """Raises SetupError where no Docker engine answers."""
    done = docker("version", "--format", "{{.Server.Version}}")
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1].rstrip(".?")
        raise SetupError(f"`sam local` needs a Docker engine, and none answers: {said}", next_step=INSTALL)


def host_interface() -> ipaddress.IPv4Interface:
    """The host's address in the network that containers are in by default, with that network.

    Raises:
        SetupError: the engine has no such network.
    """
    done = docker("network", "inspect", "bridge")
    configured = json.loads(done.stdout)[0]["IPAM"]["Config"] if done.returncode == 0 else []
    for network in configured or []:
        subnet = ipaddress.ip_network(network["Subnet"])
        if subnet.version == 4:
            # Docker leaves the gateway out where it is the first address.
            address = network.get("Gateway") or next(subnet.hosts())
            return ipaddress.IPv4Interface(f"{address}/{subnet.prefixlen}")
    raise SetupError(
        "the Docker engine has no network `bridge`, by which containers reach this machine",
        next_step="see `docker network ls`, and start the engine without --bridge=none",
    )


@contextlib.asynccontextmanager
async def bridged(host: ipaddress.IPv4Interface, port: int) -> AsyncIterator[int]:
    """Passes connections to ``host`` on to ``port`` of this machine's loopback, as long as the block lasts.

    Only those of its network: this machine may take packets for the address on its other interfaces too.

    Yields:
        The port at which it listens, a free one.

    Raises:
        PlaneError: the address is not one of this machine's.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if ipaddress.ip_address(writer.get_extra_info("peername")[0]) not in host.network:
            writer.close()
            return
        # Either end may leave, and the other one is told; a cancelled connection is one that outlived the block.
        with contextlib.suppress(OSError, asyncio.CancelledError), _closed(writer):
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", port)
            with _closed(onward_writer):
                await asyncio.gather(_copy(reader, onward_writer), _copy(onward_reader, writer))

    try:
        server = await asyncio.start_server(passed_on, str(host.ip), 0)
    except OSError as error:
        raise PlaneError(
            f"{host.ip}, by which containers reach their host, is no address of this machine ({error.strerror})",
            next_step="use a Docker engine that runs on this machine itself",
        ) from error
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(_BLOCK_BYTES):
        writer.write(block)
        await writer.drain()
    writer.write_eof()


@contextlib.contextmanager
def _closed(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.close()
