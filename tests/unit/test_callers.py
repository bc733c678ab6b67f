"""Callers against a Lambda that answers by script, over real HTTP with the client that runs use."""

import base64
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from lambdalab.aws.clients import Aws
from lambdalab.design.cells import Cell, Design
from lambdalab.errors import AccessError, PlaneError
from lambdalab.planning.call_protocol import PlannedCall, PlannedCell
from lambdalab.records.calls import Call
from lambdalab.run import callers as callers_module
from lambdalab.run.callers import Callers

DESIGN = Design(label="d", invocations=6, factors={"language": ("go",)})
TAIL = "START RequestId: 1\nREPORT RequestId: 1\tDuration: 1.00 ms\n"


class ScriptedLambda(ThreadingHTTPServer):
    """Answers Invoke by what the event says; ``most_at_once`` is how many calls were under way together."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.under_way = self.most_at_once = 0
        self.gate = threading.Event()
        self.barrier: threading.Barrier | None = None
        self.seen: Counter[str] = Counter()

    def handle_error(self, *_: object) -> None:
        """A connection that was cut on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedLambda

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["X-Amz-Log-Type"] == "Tail"
        with self.server.lock:
            self.server.seen[event["do"]] += 1
            self.server.under_way += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.under_way)
        if self.server.barrier is not None:
            self.server.barrier.wait(10)
        if event["do"] == "hang":
            self.server.gate.wait(30)
        with self.server.lock:
            self.server.under_way -= 1
        self._reply(event["do"])

    def _reply(self, what: str) -> None:
        refusals = {"throttle": (429, "TooManyRequestsException"), "broken": (500, "ServiceException"),
                    "denied": (403, "AccessDeniedException")}  # fmt: skip
        if what == "drop":
            self.close_connection = True
            self.connection.close()
            return
        status, kind = refusals.get(what, (200, None))
        body = json.dumps({"message": "no"} if kind else {"ok": True}).encode()
        if what == "no json":
            body = b"<html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-amzn-RequestId", f"id-{what}")
        if kind:
            self.send_header("x-amzn-ErrorType", kind)
        elif what == "crash":
            self.send_header("X-Amz-Function-Error", "Unhandled")
        if not kind:
            self.send_header("X-Amz-Log-Result", base64.b64encode(TAIL.encode()).decode())
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[ScriptedLambda]:
    server = ScriptedLambda()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.gate.set()
    server.shutdown()
    server.server_close()
    thread.join()


def make(server: ScriptedLambda, *events: str, callers: int = 1, timeout_s: float = 20.0) -> list[Call]:
    """Makes a call for each event; their ids are their places."""
    url = f"http://127.0.0.1:{server.server_address[1]}"
    client = Aws(endpoint_url=url, lambda_endpoint_url=url).lambda_callers(callers, timeout_s)
    try:
        return make_with(client, *events, callers=callers)
    finally:
        client.close()


def make_with(
    client: Any, *events: str, callers: int = 1, require_answer: Callable[[], None] = lambda: None
) -> list[Call]:
    """Makes a call for each event; whatever ends it has what was made as ``made``."""
    made: list[Call] = []
    calls = tuple(PlannedCall(call_id=str(i), seed=i, warmup=False) for i in range(len(events)))
    cell = PlannedCell(
        block=3, place=1, design=DESIGN, calls=calls, cell=Cell(design="d", levels={"language": "go"})
    )  # fmt: skip

    def event(planned: PlannedCall) -> dict[str, object]:
        return {"do": events[planned.seed]}

    try:
        Callers(client, "f", event, made.append, require_answer).make(cell, calls, callers, attempt=2)
    except BaseException as error:
        error.made = made  # type: ignore[attr-defined]
        raise
    return made


def test_every_call_is_written_down_as_it_was_seen(scripted: ScriptedLambda) -> None:
    made = make(scripted, "well", "throttle", "crash", "broken", "drop", "no json", "well")
    assert [call.call_id for call in made] == list("0123456")
    well, throttled, crashed, broken, dropped, odd, _ = made
    assert all((call.block, call.cell, call.attempt) == (3, "d language=go", 2) for call in made)
    assert (well.error, well.function_error, well.throttled, well.log_tail) == (None, None, False, TAIL)
    assert json.loads(bytes(well.answer)) == {"ok": True}
    assert (throttled.throttled, throttled.error) == (True, "TooManyRequestsException: no")
    assert throttled.request_id == "id-throttle"
    assert (crashed.function_error, crashed.error) == ("Unhandled", None)
    assert broken.error == "ServiceException: no"
    assert (dropped.error or "").startswith("ConnectionClosedError: ")
    assert odd.error == "what came back is no JSON: <html>"
    assert all(call.finished for call in made)
    assert all(call.elapsed_ms > 0 for call in made)
    assert scripted.seen["throttle"] == scripted.seen["broken"] == scripted.seen["drop"] == 1, "nothing is repeated"


def test_callers_call_at_once_and_each_waits_for_its_answer(scripted: ScriptedLambda) -> None:
    scripted.barrier = threading.Barrier(3)  # nobody is answered until three are there
    made = make(scripted, *["well"] * 6, callers=3)
    assert {call.call_id for call in made} == set("012345")
    assert scripted.most_at_once == 3


def test_an_answer_that_does_not_come_is_an_error_of_that_call(scripted: ScriptedLambda) -> None:
    (call,) = make(scripted, "hang", timeout_s=0.2)
    assert (call.error or "").startswith("ReadTimeoutError: ")
    assert call.finished


def test_a_refusal_that_all_would_meet_ends_it_and_that_call_is_made_again(scripted: ScriptedLambda) -> None:
    with pytest.raises(AccessError, match="Invoke on function f was refused: AccessDeniedException: no") as caught:
        make(scripted, "well", "denied", "well")
    made: list[Call] = caught.value.made  # type: ignore[attr-defined]
    assert [call.finished for call in made] == [True, False]
    assert scripted.seen == {"well": 1, "denied": 1}


class Failing:
    """A client whose every call fails alike."""

    def __init__(self, failure: BotoCoreError) -> None:
        self.failure, self.calls = failure, 0

    def invoke(self, **_: Any) -> None:
        self.calls += 1
        raise self.failure


@pytest.mark.parametrize(
    "failure",
    [
        ReadTimeoutError(endpoint_url="https://a"),
        ConnectionClosedError(endpoint_url="https://a"),
        ResponseStreamingError(error="cut"),
        IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_failure_after_sending_is_of_that_call(failure: BotoCoreError) -> None:
    made = make_with(client := Failing(failure), "a", "b")
    assert [(call.error or "").partition(":")[0] for call in made] == [type(failure).__name__] * 2
    assert all(call.finished for call in made)
    assert client.calls == 2


@pytest.mark.parametrize(
    "failure", [ConnectionClosedError(endpoint_url="https://a"), EndpointConnectionError(endpoint_url="https://a")]
)
def test_a_plane_that_has_ended_ends_it_and_the_call_under_way_is_made_again(failure: BotoCoreError) -> None:
    def ended() -> None:
        raise PlaneError("the local stack's plane (pid 7) has ended", next_step="bring it up")

    with pytest.raises(PlaneError, match=r"plane \(pid 7\) has ended") as caught:
        make_with(client := Failing(failure), "a", "b", require_answer=ended)
    made: list[Call] = caught.value.made  # type: ignore[attr-defined]
    assert [(call.error, call.finished) for call in made] == [(f"interrupted by {type(failure).__name__}", False)]
    assert client.calls == 1


@pytest.mark.parametrize(
    "failure",
    [
        CredentialRetrievalError(provider="sso", error_msg="ended"),
        TokenRetrievalError(provider="sso", error_msg="ended"),
        UnauthorizedSSOTokenError(),
        SSOTokenLoadError(error_msg="no token"),
        NoCredentialsError(),
        ProxyConnectionError(proxy_url="http://proxy", error="refused"),
        SSLError(endpoint_url="https://a", error=OSError("untrusted")),
        ConnectTimeoutError(endpoint_url="https://a"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_failure_that_every_call_would_meet_ends_it_and_leaves_the_call_to_be_made(failure: BotoCoreError) -> None:
    with pytest.raises(AccessError, match="function f") as caught:
        make_with(client := Failing(failure), "a", "b", "c")
    made: list[Call] = caught.value.made  # type: ignore[attr-defined]
    assert [call.finished for call in made] == [False]
    assert client.calls == 1


def test_an_endpoint_that_is_gone_ends_it() -> None:
    gone: Any = type("Gone", (), {"server_address": ("127.0.0.1", 1)})()
    with pytest.raises(AccessError, match=r"http://127\.0\.0\.1:1/.* does not answer for function f"):
        make(gone, "well", "well")


@pytest.mark.parametrize("grace_s", [0.05, 20.0])
def test_after_an_interruption_calls_under_way_are_awaited_and_then_given_up(
    scripted: ScriptedLambda, monkeypatch: pytest.MonkeyPatch, grace_s: float
) -> None:
    monkeypatch.setattr(callers_module, "GRACE_S", grace_s)
    ending, end = threading.Event(), Callers._end

    def ends(callers: Callers) -> None:
        ending.set()
        end(callers)

    monkeypatch.setattr(Callers, "_end", ends)

    def interrupt() -> None:
        """Ctrl-C, when both callers wait for their answers."""
        while scripted.seen["hang"] < 2:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)
        if grace_s > 1:
            ending.wait(30)
            scripted.gate.set()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt) as caught:
        make(scripted, *["hang"] * 6, callers=2)
    made: list[Call] = caught.value.made  # type: ignore[attr-defined]
    assert {call.call_id for call in made} == {"0", "1"}, "no further one is begun"
    assert [call.finished for call in made] == [grace_s > 1] * 2
    scripted.gate.set()
    deadline = time.monotonic() + 10
    while scripted.under_way and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(made) == 2, "an answer that comes after that is not written down"
