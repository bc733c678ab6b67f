"""A client that costs next to nothing: one request, one ``send``, on a connection that stays open."""

import socket
from typing import Final

CHUNK_BYTES: Final = 65536


class RefusedError(Exception):
    """The answer was not a 200."""


class Client:
    """One kept-alive connection to one path."""

    def __init__(self, port: int, path: str, headers: str = "", timeout_s: float = 60) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{headers}Content-Length: "

    def post(self, body: bytes = b"{}") -> tuple[str, bytes]:
        """Headers and body of the answer."""
        self._socket.sendall(f"{self._head}{len(body)}\r\n\r\n".encode() + body)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, answer = received.partition(b"\r\n\r\n")
        text = head.decode("latin-1")
        length = int(header(text, "content-length"))
        while len(answer) < length:
            answer += self._receive()
        if " 200 " not in text.partition("\r\n")[0]:
            raise RefusedError(f"{text}\n{answer.decode(errors='replace')}")
        return text, answer

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes:
        chunk = self._socket.recv(CHUNK_BYTES)
        if not chunk:
            raise ConnectionError("the server ended the connection")
        return chunk


def header(head: str, name: str) -> str:
    """One header of an answer."""
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip()
    raise KeyError(name)
