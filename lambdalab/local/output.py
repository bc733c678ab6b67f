"""The log stream of one environment: what its processes write, in lines, and what the platform writes between them."""

import asyncio
import os
from collections.abc import Callable
from typing import Final

LINE_LIMIT_BYTES: Final = 256 * 1024
"""A longer line is logged in pieces."""
_TAIL_BYTES: Final = 4096
_READ_BYTES: Final = 64 * 1024
_READS_AT_ONCE: Final = 16
"""A function that never stops writing must not keep the plane from its other work."""


class Output:
    """Reads a pipe that processes write to.

    Args:
        emit: takes a line; must not block.

    Attributes:
        tail: the last 4 KB of lines, as ``LogType=Tail`` gives them; its owner empties it.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self.tail = b""
        self._emit = emit
        self._read_end = -1
        self._partial = b""

    def open(self) -> int:
        """Begins to read a new pipe; returns its end for writing, which the caller closes."""
        self._read_end, write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        asyncio.get_running_loop().add_reader(self._read_end, self._drain)
        return write_end

    def log(self, line: str) -> None:
        """A line of the platform's own."""
        self.tail = (self.tail + line.encode())[-_TAIL_BYTES:]
        self._emit(line)

    def flush(self) -> None:
        """Logs all that has been written so far: a pipe holds no more than is read at once."""
        if self._read_end >= 0:
            self._drain()
        self._log_partial()

    def close(self) -> None:
        """Logs what is left and ends the pipe, if there is one."""
        self.flush()
        if self._read_end >= 0:
            asyncio.get_running_loop().remove_reader(self._read_end)
            os.close(self._read_end)
            self._read_end = -1

    def _drain(self) -> bool:
        """Reads some of what was written and logs the whole lines; False when nothing is left."""
        for _ in range(_READS_AT_ONCE):
            try:
                chunk = os.read(self._read_end, _READ_BYTES)
            except BlockingIOError:
                return False
            if not chunk:
                asyncio.get_running_loop().remove_reader(self._read_end)
                return False
            *lines, self._partial = (self._partial + chunk).split(b"\n")
            for line in lines:
                self._log_bytes(line + b"\n")
            if len(self._partial) >= LINE_LIMIT_BYTES:
                self._log_partial()
        return True

    def _log_partial(self) -> None:
        partial, self._partial = self._partial, b""
        self._log_bytes(partial)

    def _log_bytes(self, line: bytes) -> None:
        for start in range(0, len(line), LINE_LIMIT_BYTES):
            self.log(line[start : start + LINE_LIMIT_BYTES].decode("utf-8", "replace"))
