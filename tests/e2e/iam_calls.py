"""What AWS would authorise: a loopback proxy that writes down each call as IAM knows it, action and resource.

The action is read from the request by botocore's own models of the services. IAM knows some operations by another
name: a batch of SQS is authorised as its single operation, Invoke as InvokeFunction (Service Authorization Reference,
"Actions, resources, and condition keys" of SQS and of Lambda).
"""

import http.client
import json
import re
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import botocore.session

PREFIXES: Final = {"monitoring": "cloudwatch"}
"""Where IAM's name of a service is not the one requests are signed for."""
IAM_NAMES: Final = {
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "lambda:Invoke": "lambda:InvokeFunction",
}
ARN: Final = "arn:aws:{service}:us-east-1:000000000000:{name}"
"""Region and account of the emulator."""
NO_RESOURCE: Final = "*"
FUNCTIONS: Final = ("exec-env/AWS_Lambda_", "aws-sdk-go")
"""Marks of a function's SDK: Lambda names the runtime to Python; a custom runtime has no such variable, and only
functions are written in Go."""
_HOP: Final = {"connection", "transfer-encoding", "keep-alive", "content-length"}


class Call(NamedTuple):
    """One call that was answered. ``by_function`` is whether a Lambda function made it, by its SDK's user agent."""

    action: str
    resource: str
    status: int
    by_function: bool


class Recorder:
    """Passes AWS calls on, those of Lambda to ``lambda_url``, and keeps what they were."""

    def __init__(self, url: str, lambda_url: str) -> None:
        self.calls: list[Call] = []
        self._lock = threading.Lock()
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                scope = re.search(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/", self.headers.get("Authorization", ""))
                service = scope[1] if scope else "unsigned"
                upstream = http.client.HTTPConnection(
                    urlsplit(lambda_url if service == "lambda" else url).netloc, timeout=120
                )
                try:
                    upstream.request(self.command, self.path, body, dict(self.headers.items()))
                    answer = upstream.getresponse()
                    content = answer.read()
                finally:
                    upstream.close()
                with recorder._lock:
                    recorder.calls += _calls(service, self.command, self.path, self.headers, body, answer.status)
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOP:
                        self.send_header(name, value)
                told = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", told)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do  # noqa: N815 - the names http.server wants

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that was ended in the middle of a call."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def succeeded(self) -> list[Call]:
        """Those that did something: what a service refused needs no permission to be refused."""
        with self._lock:
            return [call for call in self.calls if call.status < 300]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _calls(service: str, method: str, path: str, headers: Any, body: bytes, status: int) -> list[Call]:
    operation, asked = _operation(service, method, path, headers, body)
    prefix = PREFIXES.get(service, service)
    action = IAM_NAMES.get(f"{prefix}:{operation}", f"{prefix}:{operation}")
    by_function = any(mark in headers.get("User-Agent", "") for mark in FUNCTIONS)
    return [Call(action, resource, status, by_function) for resource in _resources(prefix, asked)]


def _operation(service: str, method: str, path: str, headers: Any, body: bytes) -> tuple[str, dict[str, Any]]:
    """The operation's name, and those of its parameters that name a resource."""
    if target := headers.get("X-Amz-Target"):
        return target.rpartition(".")[2], json.loads(body)
    if found := re.search(r"/operation/(\w+)$", path):  # Smithy RPC v2
        return found[1], {}
    if service == "lambda":
        for name, verb, pattern in _routes(service):
            if verb == method and (matched := pattern.fullmatch(urlsplit(path).path.rstrip("/"))):
                return name, {key: unquote(value) for key, value in matched.groupdict().items()}
    if service == "s3":
        return _of_s3(method, path), {}
    asked = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
    return asked.get("Action", f"{method} {path}"), asked


def _of_s3(method: str, path: str) -> str:
    """What IAM asks for, of reads: a HEAD of bucket or object has no action of its own (S3, "Required permissions")."""
    place = urlsplit(path)
    asked = parse_qs(place.query, keep_blank_values=True).keys() & {"uploads", "notification"}
    match method, "/" in place.path.strip("/"), *asked:
        case "GET", False, "uploads":
            return "ListBucketMultipartUploads"
        case "GET", False, "notification":
            return "GetBucketNotification"
        case (("GET" | "HEAD"), False):
            return "ListBucket"
        case (("GET" | "HEAD"), True):
            return "GetObject"
    return f"{method} {path}"


@cache
def _routes(service: str) -> list[tuple[str, str, re.Pattern[str]]]:
    """Operation, method and path of a REST service, the most literal path first."""
    model = botocore.session.get_session().get_service_model(service)
    found = []
    for name in model.operation_names:
        trait = model.operation_model(name).http
        path = trait["requestUri"].partition("?")[0].rstrip("/")
        found.append((name, trait["method"], re.compile(re.sub(r"\{(\w+)\+?\}", r"(?P<\1>[^/]+)", path))))
    return sorted(found, key=lambda route: route[2].pattern.count("(?P<"))


def _resources(prefix: str, asked: dict[str, Any]) -> list[str]:
    """The ARNs a call is about; NO_RESOURCE of one that names none."""
    match prefix:
        case "dynamodb":
            tables = asked.get("RequestItems", {asked.get("TableName"): None})
            names = [f"table/{table}" for table in tables]
        case "sqs":
            names = [asked.get("QueueUrl", asked.get("QueueName", "")).rpartition("/")[2]]
        case "logs" if group := asked.get("logGroupName"):
            stream = f"log-stream:{asked['logStreamName']}" if "logStreamName" in asked else ""
            names = [f"log-group:{group}:{stream}"]
        case "lambda" if name := asked.get("FunctionName"):
            names = [f"function:{name.rpartition(':')[2]}"]
        case "lambda" if uuid := asked.get("UUID"):
            names = [f"event-source-mapping:{uuid}"]
        case "cloudformation" if stack := asked.get("StackName"):
            names = [f"stack/{stack}/"]
        case _:
            return [NO_RESOURCE]
    return [ARN.format(service=prefix, name=name) for name in names]
