"""As much of a debugger's client as the tests need: the Debug Adapter Protocol, and delve's JSON-RPC."""

import contextlib
import itertools
import json
import socket
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Self

ANSWER_S = 30.0


@contextlib.contextmanager
def connected(port: int, timeout_s: float) -> Iterator[socket.socket]:
    """A connection to a debugger that may not listen yet."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            client = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nobody listens on {port} within {timeout_s} s"
            time.sleep(0.05)
    with client:
        yield client


class Dap:
    """What VS Code speaks to debugpy."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._stream = client.makefile("rb")
        self._numbers = itertools.count(1)
        self._unread: deque[dict[str, Any]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def send(self, command: str, **arguments: Any) -> int:
        number = next(self._numbers)
        body = json.dumps({"seq": number, "type": "request", "command": command, "arguments": arguments}).encode()
        self._client.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return number

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return self.answer(self.send(command, **arguments))

    def answer(self, number: int) -> dict[str, Any]:
        found = self._await(lambda message: message["type"] == "response" and message["request_seq"] == number)
        assert found["success"], found
        return dict(found.get("body") or {})

    def event(self, name: str) -> dict[str, Any]:
        return dict(
            self._await(lambda message: message["type"] == "event" and message["event"] == name).get("body") or {}
        )

    def _await(self, wanted: Any) -> dict[str, Any]:
        for message in list(self._unread):
            if wanted(message):
                self._unread.remove(message)
                return message
        while True:
            message = self._read()
            if wanted(message):
                return message
            self._unread.append(message)

    def _read(self) -> dict[str, Any]:
        size = 0
        while line := self._stream.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        assert size, "the debugger has left"
        return dict(json.loads(self._stream.read(size)))


class Delve:
    """What the dlv client speaks to a headless dlv."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._stream = client.makefile("rb")
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def send(self, method: str, **arguments: Any) -> None:
        call = {"method": f"RPCServer.{method}", "params": [arguments], "id": next(self._numbers)}
        self._client.sendall(json.dumps(call).encode() + b"\n")

    def ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        self.send(method, **arguments)
        found = json.loads(self._stream.readline())
        assert found["error"] is None, found
        return dict(found["result"])
