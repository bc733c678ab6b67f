"""Records what a function's runtime client and the plane's Runtime API say to each other, byte by byte.

A ``Tap`` is a relay on loopback between the two. A recording is shown as text: a line for each line on the wire (CRLF
is between them), ``>`` from the client, ``<`` from the plane. What differs from run to run, and what is long, stands
in guillemets.
"""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest

from lambdalab.local import environment
from lambdalab.local.runtime_api import RuntimeApi

CHUNK_BYTES: Final = 65536
LONG_RUN: Final = re.compile(r"(.)\1{64,}")
"""So many of the same character are shown as their number."""
REPLACED: Final = (
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "«request id»"),
    (r"(?i)(Deadline-Ms: )\d+", r"\1«ms»"),
    (r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16}", "«trace»"),
    (r"127\.0\.0\.1:\d+", "«runtime api»"),
    (r"(aws-lambda-go/)go[\w.]+", r"\1«go»"),
    (r"(aws-lambda-python/)[\d.]+-[\d.]+", r"\1«python»-«version»"),
    (r"(aws-lambda-go@)v[\d.]+", r"\1«version»"),
    (r'("line": ?)\d+', r"\1«n»"),
    (r"\bline \d+", "line «n»"),
    (r',\{"path":"(?:runtime|reflect)/[^}]*\}', ""),  # frames of Go itself: another in each of its versions
    (r',"(?:runtime|reflect)/[\w.]+"', ""),
)


@dataclass
class Turn:
    """What one side said on one connection until another spoke."""

    connection: int
    sender: str
    data: bytearray = field(default_factory=bytearray)


class Tap:
    """One relay, for one life of a function's process."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.connections = 0
        self._upstream = 0
        self._server: asyncio.Server | None = None
        self._open: set[int] = set()
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, upstream: str) -> str:
        """Listens in front of an address; returns the one to give to the client."""
        self._upstream = int(upstream.rsplit(":", 1)[1])
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def ended(self) -> None:
        """Waits until the client has closed every connection, as it has when its process is gone."""
        await self._all_closed.wait()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        self._open.add(number)
        self._all_closed.clear()
        plane_reader, plane_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        back = asyncio.create_task(self._pump(plane_reader, writer, number, "<"))
        try:
            await self._pump(reader, plane_writer, number, ">")
            self._open.discard(number)
            if not self._open:
                self._all_closed.set()
            await back
        finally:
            back.cancel()
            writer.close()
            plane_writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int, sender: str
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                self._keep(connection, sender, data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    def _keep(self, connection: int, sender: str, data: bytes) -> None:
        last = self.turns[-1] if self.turns else None
        if last is None or (last.connection, last.sender) != (connection, sender):
            last = Turn(connection, sender)
            self.turns.append(last)
        last.data += data


def tap_environments(monkeypatch: pytest.MonkeyPatch) -> list[Tap]:
    """From now on a tap for each Runtime API that an environment starts, in order."""
    taps: list[Tap] = []

    class TappedApi(RuntimeApi):
        async def start(self) -> str:
            taps.append(Tap())
            return await taps[-1].start(await super().start())

    monkeypatch.setattr(environment, "RuntimeApi", TappedApi)
    return taps


def shown(taps: list[Tap], places: dict[str, str]) -> str:
    """Recordings as text; ``places`` maps a path of this machine to the word it is shown as."""
    lines: list[str] = []
    for process, tap in enumerate(taps, start=1):
        lines.append(f"== process {process}" + ("" if tap.turns else ": says nothing"))
        connection = 0
        for turn in tap.turns:
            if turn.connection != connection:
                connection = turn.connection
                lines.append(f"-- connection {connection}")
            lines += (f"{turn.sender} {line}".rstrip(" ") for line in _lines(bytes(turn.data), places))
    return "\n".join(lines) + "\n"


def _lines(data: bytes, places: dict[str, str]) -> Iterator[str]:
    written = [line.decode("utf-8", "backslashreplace") for line in data.split(b"\r\n")]
    lines = [_normal(line, places) for line in written]
    body = lines.index("") if "" in lines else len(lines)
    for i in range(body, len(lines)):
        if lines[i] != written[i] and re.fullmatch("[0-9a-f]+", lines[i - 1]):
            lines[i - 1] = "«size»"  # of a chunk
    if lines[body:] != written[body:]:
        lines[:body] = [re.sub(r"(?i)^(content-length: )\d+$", r"\1«n»", line) for line in lines[:body]]
    return _without_repeats([_shortened(line) for line in lines])


def _normal(line: str, places: dict[str, str]) -> str:
    for place, word in places.items():
        line = line.replace(place, word)
    for pattern, replacement in REPLACED:
        line = re.sub(pattern, replacement, line)
    return line


def _shortened(line: str) -> str:
    line = LONG_RUN.sub(lambda run: f"«{run[1]} x {len(run[0])}»", line)
    return line.replace("\n", "␊").replace("\r", "␍")


def _without_repeats(lines: list[str]) -> Iterator[str]:
    """Chunks that come many times are shown once."""
    i = 0
    while i < len(lines):
        pair, times = lines[i : i + 2], 1
        while len(pair) == 2 and lines[i + 2 * times : i + 2 * times + 2] == pair:
            times += 1
        if times > 2:
            yield from pair
            yield f"«these two lines {times} times»"
            i += 2 * times
        else:
            yield lines[i]
            i += 1
