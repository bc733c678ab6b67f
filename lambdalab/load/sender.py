"""SendMessage and SendMessageBatch from greenlets: kept-alive connections, signed by awscrt, retried with jitter.

Through boto3 a message costs over a millisecond of CPU, which bounds one process at some 600 a second and is measured
as latency of the target. The protocol is AWS JSON, as botocore's model of SQS states it; credentials, region and
endpoint are boto3's, so that the ordinary AWS environment holds.
"""

import hashlib
import os
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import boto3
import gevent
import httptools
import msgspec
from awscrt.auth import AwsCredentialsProvider, AwsSigningConfig, aws_sign_request
from awscrt.http import HttpHeaders, HttpRequest
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from gevent import socket
from gevent.ssl import SSLContext, create_default_context

from lambdalab.aws.clients import access_errors, without_secrets

ANSWER_LIMIT_S: Final = 10.0
"""An answer that takes longer is taken for lost."""
PATIENCE_S: Final = 20.0
"""No attempt begins later than this after the first."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
WRONG_MD5: Final = "the queue has another message: MD5OfMessageBody is not that of what was sent"

_CONTENT_TYPE: Final = "application/x-amz-json-1.0"
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidClientTokenId"})
_RETRIED: Final = frozenset(
    {
        "InternalError", "InternalFailure", "KmsThrottled", "RequestLimitExceeded", "RequestThrottled",
        "RequestThrottledException", "RequestTimeout", "RequestTimeoutException", "ServiceUnavailable", "SlowDown",
        "Throttling", "ThrottledException", "ThrottlingException", "TooManyRequestsException",
    }
)  # fmt: skip
"""What passes by itself: as botocore's standard mode has it (``botocore/retries/standard.py``), and SQS's own."""
_RETRIED_STATUS: Final = frozenset({429, 500, 502, 503, 504})


class Outcome(NamedTuple):
    """What became of one message; ``error`` is None if and only if ``message_id`` is not."""

    message_id: str | None
    error: str | None
    attempts: int


class _Answer(NamedTuple):
    """What one attempt came to for one message."""

    message_id: str | None = None
    error: str | None = None
    again: bool = False


class SqsSender:
    """Sends to the queues of one endpoint. As many connections are open as messages are under way.

    Args:
        endpoint_url: where SQS is.
        session: credentials, which are read anew for each request and may be refreshed meanwhile.
        region: the endpoint's.

    Raises:
        AccessError: there are no credentials.
    """

    def __init__(self, endpoint_url: str, session: boto3.Session, region: str) -> None:
        self._where = urlsplit(endpoint_url.rstrip("/") + "/")
        self._region = region
        with access_errors("SQS"):
            self._source: Any = session.get_credentials()
            if self._source is None:
                raise NoCredentialsError
        self._credentials: Any = None
        self._provider: AwsCredentialsProvider | None = None
        self._idle: list[_Connection] = []
        self._secure: SSLContext | None = None
        if self._where.scheme == "https":
            self._secure = create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))

    def send(self, queue_url: str, bodies: Sequence[str]) -> list[Outcome]:
        """Sends one message, or up to ten as a batch, and again what failed in passing.

        Returns:
            What became of each, in the order given. Nothing is raised for what the service or the network do.
        """
        outcomes: dict[int, Outcome] = {}
        left = dict(enumerate(bodies))
        until = time.monotonic() + PATIENCE_S
        attempt = 0
        while True:
            attempt += 1
            pause_s = random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt))  # noqa: S311 - jitter
            is_last = time.monotonic() + pause_s > until
            for place, answer in self._attempt(queue_url, left, batch=len(bodies) > 1).items():
                if is_last or not answer.again:
                    outcomes[place] = Outcome(answer.message_id, answer.error, attempt)
                    del left[place]
            if not left:
                return [outcomes[place] for place in range(len(bodies))]
            gevent.sleep(pause_s)

    def close(self) -> None:
        """Closes the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _attempt(self, queue_url: str, bodies: Mapping[int, str], *, batch: bool) -> dict[int, _Answer]:
        request: dict[str, Any] = {"QueueUrl": queue_url}
        if batch:
            request["Entries"] = [{"Id": str(place), "MessageBody": body} for place, body in bodies.items()]
        else:
            request["MessageBody"] = bodies[0]
        try:
            status, content = self._call("SendMessageBatch" if batch else "SendMessage", msgspec.json.encode(request))
        except OSError as error:
            return dict.fromkeys(bodies, _Answer(error=f"no answer: {error or type(error).__name__}", again=True))
        except (BotoCoreError, ClientError) as error:  # of reading the credentials
            return dict.fromkeys(bodies, _Answer(error=f"no credentials: {error}"))
        try:
            found = msgspec.json.decode(content or b"{}", type=dict[str, Any])
        except msgspec.DecodeError:
            found = {}
        if status != 200 or not found:
            return dict.fromkeys(bodies, self._refusal(status, found, content))
        if not batch:
            return {0: _taken(found, bodies[0])}
        taken = {int(entry["Id"]): _taken(entry, bodies[int(entry["Id"])]) for entry in found.get("Successful", ())}
        refused = {
            int(entry["Id"]): _Answer(
                error=without_secrets(f"{entry['Code']}: {entry.get('Message', '')}"),
                again=not entry["SenderFault"] or entry["Code"] in _RETRIED,
            )
            for entry in found.get("Failed", ())
        }
        unsaid = dict.fromkeys(bodies, _Answer(error="the answer to the batch does not mention it"))
        return unsaid | refused | taken

    def _refusal(self, status: int, found: Mapping[str, Any], content: bytes) -> _Answer:
        code = str(found.get("__type", status)).rpartition("#")[2]
        said = found.get("message") or found.get("Message") or content[:200].decode("utf-8", "replace")
        renewed = code in _EXPIRED and self._source.get_frozen_credentials() != self._credentials
        again = renewed or code in _RETRIED or status in _RETRIED_STATUS
        return _Answer(error=without_secrets(f"{code}: {said}"), again=again)

    def _call(self, action: str, body: bytes) -> tuple[int, bytes]:
        """One exchange.

        Raises:
            OSError: there was no answer.
        """
        request = self._signed(action, body)
        while True:
            kept_alive = bool(self._idle)
            connection = self._idle.pop() if kept_alive else _Connection(self._where.hostname, self._port, self._secure)
            try:
                answer = connection.exchange(request)
            except ConnectionError:
                connection.close()
                if not kept_alive:
                    raise
                self.close()  # the service has closed one that was idle; so it may have the others
            except BaseException:
                connection.close()
                raise
            else:
                if connection.usable:
                    self._idle.append(connection)
                else:
                    connection.close()
                return answer

    @property
    def _port(self) -> int:
        return self._where.port or (443 if self._secure else 80)

    def _signed(self, action: str, body: bytes) -> bytes:
        """The bytes on the wire."""
        credentials = self._source.get_frozen_credentials()
        if credentials != self._credentials:
            self._credentials = credentials
            self._provider = AwsCredentialsProvider.new_static(
                credentials.access_key, credentials.secret_key, credentials.token
            )
        headers = HttpHeaders(
            [("Host", self._where.netloc), ("Content-Type", _CONTENT_TYPE), ("X-Amz-Target", f"AmazonSQS.{action}")]
        )
        config = AwsSigningConfig(
            credentials_provider=self._provider,
            region=self._region,
            service="sqs",
            signed_body_value=hashlib.sha256(body).hexdigest(),
        )
        # What is static is signed before the call returns: the future is done, and nothing waits.
        aws_sign_request(HttpRequest("POST", self._where.path, headers), config).result()
        token = f"X-Amz-Security-Token: {credentials.token}\r\n" if credentials.token else ""
        return (
            f"POST {self._where.path} HTTP/1.1\r\nHost: {self._where.netloc}\r\nContent-Type: {_CONTENT_TYPE}\r\n"
            f"X-Amz-Target: AmazonSQS.{action}\r\nContent-Length: {len(body)}\r\n{token}"
            f"X-Amz-Date: {headers.get('X-Amz-Date')}\r\nAuthorization: {headers.get('Authorization')}\r\n\r\n"
        ).encode("latin-1") + body


class _Connection:
    """One exchange at a time; the callbacks named ``on_*`` belong to the parser."""

    def __init__(self, host: str | None, port: int, secure: SSLContext | None) -> None:
        self._socket = socket.create_connection((host, port), timeout=ANSWER_LIMIT_S)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if secure is not None:
                self._socket = secure.wrap_socket(self._socket, server_hostname=host)
        except BaseException:
            self._socket.close()
            raise
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._complete = False
        self.usable = True

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Sends a request and waits for its answer: status and body."""
        self._body, self._complete = [], False
        self._socket.sendall(request)
        while not self._complete:
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionResetError("the service has closed the connection")
            try:
                self._parser.feed_data(received)
            except httptools.HttpParserError as error:
                raise ConnectionAbortedError(f"what came is not HTTP: {error}") from error
        return self._parser.get_status_code(), b"".join(self._body)

    def close(self) -> None:
        self._socket.close()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:  # not a 100 Continue
            self._complete = True
            self.usable = self._parser.should_keep_alive()


def _taken(entry: Mapping[str, Any], body: str) -> _Answer:
    """What SQS says it has; SDKs for other languages compare the digest, boto3 does not."""
    if entry.get("MD5OfMessageBody") != hashlib.md5(body.encode(), usedforsecurity=False).hexdigest():
        return _Answer(error=WRONG_MD5)
    return _Answer(message_id=entry.get("MessageId"), error=None if "MessageId" in entry else "no MessageId came back")
