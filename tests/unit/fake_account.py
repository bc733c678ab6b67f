"""An AWS account over HTTP, as far as ``lambdalab doctor`` asks one: real botocore, answers that a test can change."""

import json
import threading
import time
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

SECRET: Final = "SecretThatMustNeverShow"
TOKEN: Final = "TokenThatMustNeverShow"
LANGUAGES: Final = ("Python", "Go")
_REST: Final = {
    "account-settings": "GetAccountSettings",
    "configuration": "GetFunctionConfiguration",
    "concurrency": "GetFunctionConcurrency",
    "event-source-mappings": "ListEventSourceMappings",
}


class FakeAccount:
    """The endpoint, on a free port of 127.0.0.1, in threads of this process.

    Attributes:
        answers: of an action what is answered, as JSON or, of an action of the Query protocol, as XML.
        refusals: of an action, or of ``*`` for all, the error code it is refused with.
        asked: every action that was asked for.
        date: the Date header of answers; None: none.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refusals: dict[str, str] = {}
        self.date: str | None = None
        self.answers: dict[str, Any] = {
            "GetCallerIdentity": "<GetCallerIdentityResult><Arn>arn:aws:iam::000000000000:user/me</Arn>"
            "<UserId>me</UserId><Account>000000000000</Account></GetCallerIdentityResult>",
            "GetAccountSettings": account_settings(1000, 1000),
            "DescribeStacks": _stack(),
            "ListStackResources": "<ListStackResourcesResult><StackResourceSummaries/></ListStackResourcesResult>",
            "GetFunctionConfiguration": {
                "Runtime": "provided.al2023", "Architectures": ["arm64"], "MemorySize": 128, "Timeout": 300,
                "CodeSha256": "digest",
            },
            "GetFunctionConcurrency": {},
            "ListEventSourceMappings": mapping(10),
            "GetQueueAttributes": queue(),
            "DescribeTable": table(),
            "GetServiceQuota": {
                "L-C491D5A4": {"Quota": {"QuotaCode": "L-C491D5A4", "Value": 120000.0}},
                "L-AB614373": {"Quota": {"QuotaCode": "L-AB614373", "Value": 40000.0}},
            },
        }  # fmt: skip
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.fake = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def account_settings(total: int, unreserved: int) -> dict[str, Any]:
    return {"AccountLimit": {"ConcurrentExecutions": total, "UnreservedConcurrentExecutions": unreserved}}


def mapping(maximum_concurrency: int | None, batch_size: int = 1) -> dict[str, Any]:
    scaling = {} if maximum_concurrency is None else {"MaximumConcurrency": maximum_concurrency}
    found = {"EventSourceArn": "arn:aws:sqs:q", "BatchSize": batch_size, "ScalingConfig": scaling}
    return {"EventSourceMappings": [found]}


def queue(visibility_s: int = 1800, receives: int | None = 10) -> dict[str, Any]:
    redrive = {} if receives is None else {"RedrivePolicy": json.dumps({"maxReceiveCount": receives})}
    return {"Attributes": {"QueueArn": "arn:aws:sqs:q", "VisibilityTimeout": str(visibility_s), **redrive}}


def table(mode: str = "PAY_PER_REQUEST", **more: Any) -> dict[str, Any]:
    found = {"BillingModeSummary": {"BillingMode": mode}, "WarmThroughput": {"WriteUnitsPerSecond": 4000}}
    return {"Table": {"TableName": "t", "ProvisionedThroughput": {"WriteCapacityUnits": 5}, **found, **more}}


def _stack() -> str:
    kinds = ("FunctionName", "QueueUrl", "DeadLetterQueueUrl", "TableName", "LogGroupName")
    outputs = "".join(
        f"<member><OutputKey>{name}{kind}</OutputKey><OutputValue>{name}</OutputValue></member>"
        for name in LANGUAGES
        for kind in kinds
    )
    return (
        "<DescribeStacksResult><Stacks><member><StackName>lambdalab</StackName>"
        "<CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>CREATE_COMPLETE</StackStatus>"
        f"<Outputs>{outputs}</Outputs></member></Stacks></DescribeStacksResult>"
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    fake: FakeAccount


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        last = [part for part in urlsplit(self.path).path.split("/") if part][-1]
        self._answer(_REST[last], {})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        target = self.headers.get("X-Amz-Target")
        if target is None:
            self._answer(parse_qs(content.decode())["Action"][0], {}, query=True)
        else:
            self._answer(target.rpartition(".")[2], json.loads(content))

    def _answer(self, action: str, asked: dict[str, Any], *, query: bool = False) -> None:
        fake = self.server.fake
        fake.asked.append(action)
        code = fake.refusals.get(action, fake.refusals.get("*"))
        if fake.date is not None and abs(parsedate_to_datetime(fake.date).timestamp() - time.time()) > 300:
            code = "SignatureDoesNotMatch"  # as AWS does where the clocks differ by more than five minutes
        if code is not None:
            # AWS repeats what was signed, the session token among it, when a signature is wrong.
            said = f"no; the canonical string was x-amz-security-token:{TOKEN} {SECRET}"
            body = (
                f"<ErrorResponse><Error><Code>{code}</Code><Message>{said}</Message></Error></ErrorResponse>"
                if query
                else json.dumps({"__type": code, "message": said})
            )
            self._send(400, body, code)
            return
        found = fake.answers[action]
        if action in ("GetServiceQuota", "GetAWSDefaultServiceQuota"):
            found = found[asked["QuotaCode"]]
        self._send(200, f"<{action}Response>{found}</{action}Response>" if query else json.dumps(found))

    def _send(self, status: int, body: str, code: str | None = None) -> None:
        self.send_response_only(status)
        if self.server.fake.date is not None:
            self.send_header("Date", self.server.fake.date)
        if code is not None:
            self.send_header("x-amzn-ErrorType", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        pass
