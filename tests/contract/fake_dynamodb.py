"""A DynamoDB for tests: it answers puts from a script and keeps what it was asked."""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

_CLOCK = re.compile(r'("(?:Timestamp|started_ms|finished_ms|batch_elapsed_ms|p50|p95|max)":)[0-9.]+')
_PUT_CLOCK = re.compile(r'("t_start_ms": ?{"N": ?)"[0-9]+"')


class FakeDynamoDB:
    """A DynamoDB that answers puts from a script, the last answer for ever, and keeps what it was asked.

    ``leave`` in an answer is how many of the call's items stay unprocessed, the last ones first.
    """

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = [{"status": 200, "body": {}}]
        self.puts: list[dict[str, Any]] = []
        self._lock = Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body go out as two packets

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                put = json.loads(_PUT_CLOCK.sub(r'\1"<clock>"', body.decode()))
                operation = "BatchWriteItem" if "RequestItems" in put else "PutItem"
                assert self.headers["X-Amz-Target"] == f"DynamoDB_20120810.{operation}"
                with fake._lock:
                    fake.puts.append(put)
                answer = fake.answer(put)
                if answer.get("drop"):
                    self.close_connection = True
                    return
                if "leave" in answer:
                    left = json.loads(body)["RequestItems"]["items"][::-1][: answer["leave"]]
                    answer = answer | {"body": answer["body"] | {"UnprocessedItems": {"items": left}}}
                content = answer["text"] if "text" in answer else json.dumps(answer["body"])
                self.send_response(answer["status"])
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content.encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def answer(self, put: dict[str, Any]) -> dict[str, Any]:
        """Take the next answer of the script; a test may put a function of its own here."""
        with self._lock:
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def without_clock(value: object) -> str:
    """Write a value as the functions write JSON, every reading of a clock replaced by <clock>."""
    return _CLOCK.sub(r'\1"<clock>"', json.dumps(value, separators=(",", ":")))
