"""Starts the emulator with its own Lambda closed, and kept on loopback (docs/decisions/0015 and 0017)."""

from pathlib import Path
from typing import Final

_SITE: Final = """\
import ipaddress
import os
import socket
import sys


def is_address(host):
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def is_here(host):
    return ipaddress.ip_address(host).is_loopback if is_address(host) else host in (None, "", b"", "localhost")


def kept(connect):
    def only_here(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_here(address[0]):
            raise ConnectionRefusedError(f"{address[0]} is not on loopback, and a local stack is nowhere else")
        return connect(self, address)

    return only_here


def getaddrinfo(host, *more, **options):
    if not is_here(host) and not is_address(host):  # a name would be asked of a server elsewhere
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is not on loopback, and a local stack is nowhere else")
    return find(host, *more, **options)


find, socket.getaddrinfo = socket.getaddrinfo, getaddrinfo
socket.socket.connect = kept(socket.socket.connect)
socket.socket.connect_ex = kept(socket.socket.connect_ex)
if os.path.basename(sys.orig_argv[-1]) == "_worker.py":
    os.write(2, b"functions run in the plane only\\n")
    os._exit(1)
"""
"""What every Python of the emulator imports first. It connects to loopback only, and runs no function.

A template can name any host, as the issuer of tokens, the target of an HTTP integration or the endpoint of a topic.
"""


def closed_lambda(folder: Path) -> dict[str, str]:
    """The variables by which MiniStack runs no function.

    It then runs functions in containers only and finds no Docker. For a Python function behind a WebSocket API it
    starts ``_worker.py`` all the same, and that process ends before it reads the function.

    Args:
        folder: the emulator's own; a file is written to it.
    """
    site = folder / "emulator-site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_SITE)
    return {
        "LAMBDA_STRICT": "1",
        "DOCKER_HOST": "unix:///nonexistent/lambdalab-closed",
        "PYTHONPATH": str(site),
    }
