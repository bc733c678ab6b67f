"""The Docker engine as the lab sees it, and the bridge to the emulator; no engine is needed for these tests."""

import asyncio
import json
import os
import platform
import socket
import tarfile
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from lambdalab.errors import PlaneError, SetupError, ToolError
from lambdalab.local.base_images import made_image, make_image, public_image
from lambdalab.local.docker import INSTALL, bridged, configure_without_proxies, host_interface, require_engine

BRIDGE = "127.0.0.2"
HOST = IPv4Interface(f"{BRIDGE}/8")
"""In the place of the host's address in Docker's network: one more of this machine's that is not the emulator's."""
Say = Callable[[str], None]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Puts a `docker` on PATH that is this shell script."""

    def says(script: str) -> None:
        program = tmp_path / "docker"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return says


def test_without_docker_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError) as caught:
        require_engine()
    assert str(caught.value) == f"`sam local` needs Docker, and there is no `docker` on PATH; {INSTALL}."
    assert caught.value.exit_code == 3


def test_a_command_line_without_an_engine_is_none(docker: Say) -> None:
    docker("echo 'Cannot connect to the Docker daemon at unix:///run/docker.sock.' >&2; exit 1")
    with pytest.raises(SetupError) as caught:
        require_engine()
    said = "Cannot connect to the Docker daemon at unix:///run/docker.sock"
    assert str(caught.value) == f"`sam local` needs a Docker engine, and none answers: {said}; {INSTALL}."


@pytest.mark.parametrize(
    ("configured", "address"),
    [
        ([{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.5"}], "172.17.0.5"),
        ([{"Subnet": "172.17.0.0/16"}], "172.17.0.1"),
        ([{"Subnet": "fd00::/64"}, {"Subnet": "10.9.0.0/24"}], "10.9.0.1"),
    ],
)
def test_the_hosts_address_in_dockers_network(docker: Say, configured: list[dict[str, str]], address: str) -> None:
    docker(f"echo '{json.dumps([{'IPAM': {'Config': configured}}])}'")
    assert str(host_interface().ip) == address


@pytest.mark.parametrize("script", ["exit 1", """echo '[{"IPAM": {"Config": null}}]'"""])
def test_an_engine_without_that_network(docker: Say, script: str) -> None:
    docker(script)
    with pytest.raises(SetupError, match="has no network `bridge`"):
        host_interface()


def test_the_bridge_passes_both_ways_listens_there_only_and_ends() -> None:
    async def emulator(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    async def run() -> int:
        server = await asyncio.start_server(emulator, "127.0.0.1", 0)
        async with server, bridged(HOST, server.sockets[0].getsockname()[1]) as port:
            reader, writer = await asyncio.open_connection(BRIDGE, port)
            writer.write(b"x" * 1_000_000)
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 30) == b"X" * 1_000_000
            writer.close()
            await writer.wait_closed()
            with socket.socket() as free:  # nobody has it at another address
                free.bind(("127.0.0.1", port))
            _, idle = await asyncio.open_connection(BRIDGE, port)  # a kept-alive connection does not hold it up
        idle.close()
        await idle.wait_closed()
        return port

    port = asyncio.run(asyncio.wait_for(run(), 60))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((BRIDGE, port), timeout=5)


def test_who_is_not_in_that_network_reaches_nothing_by_it() -> None:
    async def run() -> tuple[bytes, bytes]:
        async def emulator(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"here")
            writer.close()

        async def heard(own: str, port: int) -> bytes:
            reader, writer = await asyncio.open_connection(BRIDGE, port, local_addr=(own, 0))
            writer.write_eof()
            try:
                return await asyncio.wait_for(reader.read(), 30)
            finally:
                writer.close()

        server = await asyncio.start_server(emulator, "127.0.0.1", 0)
        narrow = IPv4Interface(f"{BRIDGE}/32")
        async with server, bridged(narrow, server.sockets[0].getsockname()[1]) as port:
            return await heard(BRIDGE, port), await heard("127.0.0.3", port)

    assert asyncio.run(asyncio.wait_for(run(), 60)) == (b"here", b"")


def test_an_address_that_is_not_this_machines() -> None:
    async def run() -> None:
        async with bridged(IPv4Interface("192.0.2.1/24"), 1):  # TEST-NET-1 (RFC 5737)
            pass

    with pytest.raises(PlaneError, match=r"192\.0\.2\.1, by which containers reach their host, is no address of this"):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("runtime", "machine", "image"),
    [
        ("python3.12", "x86_64", "public.ecr.aws/lambda/python:3.12-x86_64"),
        ("provided.al2023", "aarch64", "public.ecr.aws/lambda/provided:al2023-arm64"),
    ],
)
def test_the_name_of_aws_image(monkeypatch: pytest.MonkeyPatch, runtime: str, machine: str, image: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert public_image(runtime) == image
    assert not made_image("provided.al2023").startswith("public.ecr.aws/")


def test_an_image_holds_what_its_programs_are_linked_with(tmp_path: Path, docker: Say) -> None:
    docker(f"cat > {tmp_path}/image.tar")
    assert make_image("provided.al2023") == made_image("provided.al2023")
    with tarfile.open(tmp_path / "image.tar") as archive:
        found = {entry.name: entry for entry in archive}
    assert {"bin/sh", "bin/mv", "bin/chmod", "tmp", "var/task"} <= found.keys()
    assert found["tmp"].mode == 0o1777
    assert any(name.endswith("/libc.so.6") for name in found)
    assert any("/ld-linux" in name for name in found), "the loader itself"
    assert {(entry.uid, entry.gid, entry.issym()) for entry in found.values()} == {(0, 0, False)}


def test_an_engine_that_does_not_take_the_image(docker: Say) -> None:
    docker("echo 'no space left on device' >&2; exit 1")
    with pytest.raises(
        ToolError, match=r"`docker import` of lambdalab/provided\.al2023-.* failed: no space left on device"
    ):
        make_image("provided.al2023")


def test_dockers_configuration_for_containers_has_no_proxies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, made = tmp_path / "own", tmp_path / "made"
    (own / "contexts").mkdir(parents=True)
    made.mkdir()
    proxies = {"default": {"httpProxy": "http://proxy.example:3128"}}
    (own / "config.json").write_text(json.dumps({"credsStore": "pass", "proxies": proxies}))
    monkeypatch.setenv("DOCKER_CONFIG", str(own))
    configure_without_proxies(made)
    assert json.loads((made / "config.json").read_text()) == {"credsStore": "pass"}
    assert (made / "contexts").resolve() == own / "contexts"


@pytest.mark.parametrize("text", [None, "{damaged", "[]"])
def test_dockers_configuration_may_be_absent_or_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    if text is not None:
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker" / "config.json").write_text(text)
    configure_without_proxies(made)
    assert list(made.iterdir()) == []
