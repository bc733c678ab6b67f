"""An S3 for tests: it swallows objects of any size, remembers what it was asked, and fails where a test says so.

With ``upstream`` what it does not fail goes on to the real emulator.
"""

import hashlib
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Lock, Thread
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

_XML = '<?xml version="1.0" encoding="UTF-8"?>'


@dataclass(frozen=True)
class Call:
    """One request: its operation, the number of its part, and the length and hash of its body."""

    operation: str
    part: int
    length: int
    sha256: str
    body: bytes = field(repr=False, default=b"")


class ScriptedS3:
    """Answers on the loopback address until it is closed.

    ``faults`` holds, for an operation and part number (0 for none), the answers of its next calls: a status and a
    code; status 0 closes the connection instead.
    """

    def __init__(self, upstream: str | None = None) -> None:
        self.faults: dict[tuple[str, int], list[tuple[int, str]]] = {}
        self.calls: list[Call] = []
        self.most_at_once = 0
        self.delay_s = 0.0
        """Every answer waits so long."""
        self.gathering: Barrier | None = None
        """Parts are answered when so many are there at once."""
        self._under_way = 0
        self._lock = Lock()
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                scripted._serve(self, upstream)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def of(self, operation: str) -> list[Call]:
        return sorted((call for call in self.calls if call.operation == operation), key=lambda call: call.part)

    def _serve(self, handler: BaseHTTPRequestHandler, upstream: str | None) -> None:
        query = parse_qs(urlsplit(handler.path).query, keep_blank_values=True)
        part = int(query.get("partNumber", ["0"])[0])
        operation = _operation(handler.command, query)
        if part:
            with self._lock:
                self._under_way += 1
                self.most_at_once = max(self.most_at_once, self._under_way)
            if self.gathering:
                self.gathering.wait(timeout=20)
        time.sleep(self.delay_s)
        try:
            call = self._read(handler, operation, part, keep=upstream is not None or operation == "Complete")
            with self._lock:
                self.calls.append(call)
                fault = next(iter(self.faults.get((operation, part), [])), None)
                if fault:
                    self.faults[operation, part].pop(0)
        finally:
            if part:
                with self._lock:
                    self._under_way -= 1
        if fault:
            _refuse(handler, *fault)
        elif upstream:
            _forward(handler, upstream, call.body)
        else:
            _answer(handler, 200, _body(call), ETag=f'"{call.sha256[:32]}"')

    @staticmethod
    def _read(handler: BaseHTTPRequestHandler, operation: str, part: int, *, keep: bool) -> Call:
        left = length = int(handler.headers.get("Content-Length", "0"))
        seen, kept = hashlib.sha256(), bytearray()
        while left and (piece := handler.rfile.read(min(left, 1 << 20))):
            left -= len(piece)
            seen.update(piece)
            if keep:
                kept += piece
        return Call(operation, part, length, seen.hexdigest(), bytes(kept))


def _operation(method: str, query: dict[str, list[str]]) -> str:
    if "uploads" in query:
        return "Create"
    if "partNumber" in query:
        return "Part"
    if "uploadId" in query:
        return {"POST": "Complete", "DELETE": "Abort"}[method]
    return {"PUT": "Put"}.get(method, method)


def _body(call: Call) -> str:
    if call.operation == "Create":
        return f"{_XML}<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
    if call.operation == "Complete":
        return f'{_XML}<CompleteMultipartUploadResult><ETag>"e"</ETag></CompleteMultipartUploadResult>'
    return ""


def _refuse(handler: BaseHTTPRequestHandler, status: int, code: str) -> None:
    if not status:
        handler.close_connection = True
        return
    _answer(handler, status, f"{_XML}<Error><Code>{escape(code)}</Code><Message>m</Message></Error>")


def _forward(handler: BaseHTTPRequestHandler, upstream: str, body: bytes) -> None:
    request = urllib.request.Request(f"{upstream}{handler.path}", data=body, method=handler.command)
    for name, value in handler.headers.items():
        if not re.fullmatch("host|connection|content-length", name, re.IGNORECASE):
            request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            content, status, headers = answer.read(), answer.status, answer.headers
    except urllib.error.HTTPError as error:
        content, status, headers = error.read(), error.code, error.headers
    kept = {name: headers[name] for name in ("ETag", "x-amz-checksum-crc32", "Content-Type") if headers[name]}
    _answer(handler, status, content.decode(), **kept)


def _answer(handler: BaseHTTPRequestHandler, status: int, content: str, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    if status != 204:
        handler.send_header("Content-Length", str(len(content.encode())))
    handler.end_headers()
    handler.wfile.write(content.encode())
    handler.wfile.flush()
