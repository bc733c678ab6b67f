"""What `lambdalab invoke` prints of an answer, over HTTP against a stand-in of the plane."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from command_line import project_fixture  # noqa: F401

from lambdalab import cli
from lambdalab.cli import local_stack as command
from lambdalab.local.daemon import Daemon, _start_time_ticks
from lambdalab.local.stack import LocalStack

BYTES = b'\xff\xfe\x00 caf\xe9 {"a": \x80}'
KNOWN = {"logical_names": {"F": "f"}, "functions": {"f": {}}}
LINES = {"skipped": 0, "lines": ["START\n", "a line\n"], "next": 2, "done": True}


@pytest.fixture(params=[None, "Unhandled"])
def error(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str | None]:
    """The plane's stand-in, whose function answers bytes; with its error header or without."""

    class Plane(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.reply(json.dumps(LINES if "/lines" in self.path else KNOWN).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(BYTES, **({"X-Amz-Function-Error": request.param} if request.param else {}))

        def reply(self, body: bytes, **headers: str) -> None:
            self.send_response(200)
            for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Plane) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ticks = _start_time_ticks(os.getpid())
        assert ticks is not None
        daemon = Daemon(pid=os.getpid(), start_time_ticks=ticks, port=server.server_port)
        monkeypatch.setattr(command, "local_stack", lambda: LocalStack(stack_name="s", emulator=daemon, plane=daemon))
        yield request.param
        server.shutdown()


@pytest.mark.usefixtures("project")
def test_an_answer_that_is_not_utf8_is_printed_as_it_is(
    error: str | None, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("sys.argv", ["lambdalab", "invoke", "F", "-e", "events/direct-small.json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capfdbinary.readouterr()
    assert out == BYTES + b"\n"
    assert b"a line\n" in err
    assert ended.value.code == (0 if error is None else 1)
