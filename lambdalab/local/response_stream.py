"""The answer of InvokeWithResponseStream: chunks of a response as the function writes them, then how it ended.

Framing: Smithy specification, "Amazon Event Stream". Members: AWS Lambda API Reference, InvokeWithResponseStream.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Final

from lambdalab.local.http import Connection, Exchange, Response
from lambdalab.local.runtime_api import Answer

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
TRUNCATED: Final = "Runtime.TruncatedResponse"
"""The error code of a response that broke off because the runtime ended."""
_STRING: Final = 7
_EXITED: Final = ("Runtime.ExitError", "Runtime.OutOfMemory")


class ResponseStream:
    """Writes one answer to a caller. A caller that takes it slowly slows the function down; one that left does not.

    Args:
        exchange: the caller's request.
        headers: the answer's headers.
    """

    def __init__(self, exchange: Exchange, headers: Mapping[str, str]) -> None:
        self._exchange, self._headers = exchange, {"Content-Type": CONTENT_TYPE, **headers}
        self._source: Connection | None = None
        self._streamed = self._begun = self._ended = False

    def begin(self, source: Connection) -> None:
        """The function begins to stream, over a connection that can be held."""
        self._source, self._streamed = source, True
        self._begin()

    def write(self, piece: bytes) -> None:
        """Hands on what the function wrote."""
        self._begin()
        self._exchange.write(encode("PayloadChunk", "application/octet-stream", piece))

    def end(self, answer: Answer, log_tail: bytes | None) -> None:
        """Ends the answer, once: the payload of a function that does not stream, and what the invocation came to.

        Args:
            answer: the function's.
            log_tail: the end of its log in base64, if the caller asked for it.
        """
        if self._ended:
            return
        self._ended = True
        complete = {} if answer.error_type is None else self._error(answer.error_type, answer.payload)
        if answer.error_type is None and not self._streamed and answer.payload:
            self.write(answer.payload)
        if log_tail is not None:
            complete["LogResult"] = log_tail.decode("ascii")
        self._begin()
        self._exchange.write(encode("InvokeComplete", "application/json", json.dumps(complete).encode()))
        self._exchange.end()
        self._source = None

    def fail(self) -> None:
        """Ends an answer that has begun, because the plane itself failed."""
        if self._begun:
            self.end(Answer(payload=b"the plane failed; see its log", error_type="ServiceException"), None)

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._exchange.begin(Response(200, headers=self._headers), self._hold)

    def _hold(self, stop: bool) -> None:
        if self._source is not None:
            self._source.hold(stop)

    def _error(self, error_type: str, payload: bytes) -> dict[str, str]:
        if self._streamed and error_type in _EXITED:
            return {"ErrorCode": TRUNCATED}
        return {"ErrorCode": error_type, "ErrorDetails": payload.decode(errors="replace")}


def encode(event_type: str, content_type: str, payload: bytes) -> bytes:
    """One message of an event stream."""
    named = {":event-type": event_type, ":content-type": content_type, ":message-type": "event"}
    headers = b"".join(
        struct.pack(f"!B{len(name)}sBH{len(value)}s", len(name), name.encode(), _STRING, len(value), value.encode())
        for name, value in named.items()
    )
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = b"".join((prelude, struct.pack("!I", zlib.crc32(prelude)), headers, payload))
    return message + struct.pack("!I", zlib.crc32(message))
