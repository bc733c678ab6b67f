"""SQS as far as a load run needs it, a stack to find its queues in, and a table that has the items of every message.

Every message that comes is written down.

It checks nothing but what it is asked to get wrong: it answers late, not at all, or with the refusal of a test.
"""

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs

Refusal = tuple[int, dict[str, Any]]
LANGUAGES: Final = ("python", "go")


def refusal(code: str, message: str = "no", status: int = 400) -> Refusal:
    """How SQS refuses a request."""
    return status, {"__type": f"com.amazonaws.sqs#{code}", "message": message}


def md5(body: str) -> str:
    return hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()


class FakeAws:
    """The endpoint, on a free port of 127.0.0.1, in threads of this process.

    Attributes:
        messages: body and time of arrival (``time.monotonic``) of each message taken, in order.
        requests: the action and the headers of each request.
        answer: what a test answers to an action instead; None of a request: as usual.
        refuse_entry: of a batch: the error of an entry, None: taken.
        frozen_until: nothing is answered before.
        drop: how many requests are next cut off without an answer.
        reservation: the stack's ReservedConcurrency.
        connections: how many were made.
    """

    def __init__(self) -> None:
        self.messages: list[tuple[str, float]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answer: Callable[[str, dict[str, Any]], Refusal | None] = lambda _, __: None
        self.refuse_entry: Callable[[str], dict[str, Any] | None] = lambda _: None
        self.frozen_until = 0.0
        self.drop = 0
        self.reservation = ""
        self.connections = 0
        self.lock = threading.Lock()
        self._start(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bodies(self) -> list[dict[str, Any]]:
        """Every message taken, decoded."""
        return [json.loads(body) for body, _ in self.messages]

    def refuse_connections(self) -> None:
        """Nothing listens any more, and what was connected is cut off."""
        self._server.shutdown()
        self._server.server_close()
        self._server.close_all()

    def listen_again(self) -> None:
        """On the same port."""
        self._start(self.port)

    def close(self) -> None:
        self.refuse_connections()

    def _start(self, port: int) -> None:
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.fake = self
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def take(self, body: str) -> dict[str, str]:
        with self.lock:
            self.messages.append((body, time.monotonic()))
            return {"MessageId": f"m-{len(self.messages)}", "MD5OfMessageBody": md5(body)}

    def do(self, action: str, asked: dict[str, Any]) -> Refusal:
        found = self.answer(action, asked)
        if found is not None:
            return found
        match action:
            case "SendMessage":
                return 200, self.take(asked["MessageBody"])
            case "SendMessageBatch":
                taken, failed = [], []
                for entry in asked["Entries"]:
                    error = self.refuse_entry(entry["MessageBody"])
                    if error is None:
                        taken.append({"Id": entry["Id"], **self.take(entry["MessageBody"])})
                    else:
                        failed.append({"Id": entry["Id"], **error})
                return 200, {"Successful": taken, "Failed": failed}
            case "GetQueueAttributes":
                counts = dict.fromkeys(("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"), "0")
                return 200, {"Attributes": {"QueueArn": "arn:aws:sqs:us-east-1:0:queue", **counts}}
            case "Query":
                batch_id = asked["ExpressionAttributeValues"][":pk"]["S"].removeprefix("batch_id#")
                return 200, {"Count": sum(body["count"] for body in self.bodies() if body["batch_id"] == batch_id)}
            case "DescribeStacks":
                return 200, {"xml": self._stack()}
            case "ListStackResources":
                return 200, {"xml": "<ListStackResourcesResult><StackResourceSummaries/></ListStackResourcesResult>"}
        return refusal("InvalidAction", action)

    def _stack(self) -> str:
        outputs = "".join(
            f"<member><OutputKey>{language.capitalize()}{kind}</OutputKey><OutputValue>{value}</OutputValue></member>"
            for language in LANGUAGES
            for kind, value in {
                "FunctionName": language,
                "QueueUrl": f"{self.url}/000000000000/{language}",
                "DeadLetterQueueUrl": f"{self.url}/000000000000/{language}-dead",
                "TableName": language,
                "LogGroupName": language,
            }.items()
        )
        parameters = (
            "<member><ParameterKey>ReservedConcurrency</ParameterKey>"
            f"<ParameterValue>{self.reservation}</ParameterValue></member>"
        )
        return (
            "<DescribeStacksResult><Stacks><member><StackName>lambdalab-load</StackName>"
            "<CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>CREATE_COMPLETE</StackStatus>"
            f"<Parameters>{parameters}</Parameters><Outputs>{outputs}</Outputs></member></Stacks></DescribeStacksResult>"
        )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    fake: FakeAws

    def __init__(self, *args: Any) -> None:
        self.open: set[Any] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        self.fake.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def close_all(self) -> None:
        for request in list(self.open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)  # both ways, so that nothing is taken whose answer cannot leave
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that a test cut off."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        target = self.headers.get("X-Amz-Target")
        if target is None:
            asked: dict[str, Any] = {name: values[0] for name, values in parse_qs(content.decode()).items()}
            action = asked["Action"]
        else:
            asked, action = json.loads(content), target.rpartition(".")[2]
        fake = self.server.fake
        with fake.lock:
            fake.requests.append((action, dict(self.headers.items())))
            dropped = fake.drop > 0 and action.startswith("SendMessage")
            fake.drop -= dropped
        if dropped:
            self.close_connection = True
            return
        while (wait_s := fake.frozen_until - time.monotonic()) > 0:
            time.sleep(wait_s)
        status, found = fake.do(action, asked)
        if "xml" in found:
            body = f"<{action}Response>{found['xml']}</{action}Response>".encode()
        else:
            body = json.dumps(found).encode()
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        pass
