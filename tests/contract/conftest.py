"""What the contract tests share: the Python function's folder on the path, the case tables, a scripted DynamoDB."""

import json
import re
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src/python/ingest"))

CASES: list[dict[str, Any]] = json.loads((ROOT / "contracts/cases.json").read_text(encoding="utf-8"))
JSON_CASES = [case for case in CASES if case["expect"].get("error", {}).get("code") != "InvalidJson"]
SCENARIOS: list[dict[str, Any]] = json.loads(
    (ROOT / "contracts/scenarios.json").read_text(encoding="utf-8").replace("<lang>", "python")
)

_CLOCK = re.compile(r'("(?:Timestamp|started_ms|finished_ms|batch_elapsed_ms|p50|p95|max)":)[0-9.]+')
_PUT_CLOCK = re.compile(r'("t_start_ms": ?{"N": ?)"[0-9]+"')


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `case`, `json_case` or `scenario` once per entry of that table."""
    for fixture, entries in (("case", CASES), ("json_case", JSON_CASES), ("scenario", SCENARIOS)):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, entries, ids=[entry["name"] for entry in entries])


class FakeDynamoDB:
    """A DynamoDB that answers puts from a script, the last answer for ever, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = [{"status": 200, "body": {}}]
        self.puts: list[dict[str, Any]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                assert self.headers["X-Amz-Target"] == "DynamoDB_20120810.PutItem"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fake.puts.append(json.loads(_PUT_CLOCK.sub(r'\1"<clock>"', body.decode())))
                answer = fake.answers.pop(0) if len(fake.answers) > 1 else fake.answers[0]
                if answer.get("drop"):
                    self.close_connection = True
                    return
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

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def dynamodb() -> Iterator[FakeDynamoDB]:
    """Serve a scripted DynamoDB on the loopback address."""
    fake = FakeDynamoDB()
    yield fake
    fake.close()


@pytest.fixture
def environment(dynamodb: FakeDynamoDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what Lambda would set, and send the function's calls to the scripted DynamoDB."""
    for name, value in {
        "TABLE_NAME": "items",
        "AWS_ENDPOINT_URL": dynamodb.url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


def without_clock(value: object) -> str:
    """Write a value as the functions write JSON, every reading of a clock replaced by <clock>."""
    return _CLOCK.sub(r'\1"<clock>"', json.dumps(value, separators=(",", ":")))
