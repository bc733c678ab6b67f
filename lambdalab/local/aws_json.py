"""The plane's frequent calls, to SQS and CloudWatch Logs, on the event loop and over kept-alive connections.

A mapping makes two calls for every few messages, and every invocation has three log lines. Through boto3 a call costs a
change of thread and over a millisecond of CPU, more than an invocation costs here. Signing by botocore would be the
larger part of what is left, so it is done here; a test compares the two. The protocol is AWS JSON, as botocore's models
of the two services state it.
"""

import asyncio
import functools
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
import httptools
import msgspec
from botocore.exceptions import ClientError

from lambdalab.local.http import RECEIVED

ANSWER_LIMIT_S: Final = 30.0
"""Longer than the longest poll; a service that takes longer is taken for gone."""


_SERVICES: Final = {
    "sqs": ("AmazonSQS", "application/x-amz-json-1.0"),
    "logs": ("Logs_20140328", "application/x-amz-json-1.1"),
}
"""By signing name: what stands before an action in ``X-Amz-Target``, and the content type."""


class AwsJson:
    """Calls of one service.

    Args:
        endpoint_url: where it is.
        session: credentials and region to sign with.
        service: ``sqs`` or ``logs``.
    """

    def __init__(self, endpoint_url: str, session: boto3.Session, service: str) -> None:
        credentials = session.get_credentials()
        assert credentials is not None
        self._credentials: Any = credentials
        self._service, self._region = service, session.region_name
        self._prefix, self._content_type = _SERVICES[service]
        self._where = urlsplit(endpoint_url.rstrip("/") + "/")
        self._idle: list[_Connection] = []

    async def call(self, action: str, **parameters: Any) -> dict[str, Any]:
        """Does one action, such as ``ReceiveMessage``, with its parameters as the API reference names them.

        Raises:
            ClientError: the service refused it.
            OSError: there was no answer.
        """
        request = self._request(action, msgspec.json.encode(parameters))
        while True:
            connection = self._idle.pop() if self._idle else None
            kept_alive = connection is not None
            connection = connection or await self._connect()
            try:
                status, body = await asyncio.wait_for(connection.exchange(request), ANSWER_LIMIT_S)
                break
            except ConnectionError:
                if not kept_alive:  # one that was may have been closed meanwhile
                    raise
            except BaseException:
                connection.close()
                raise
        if connection.usable:
            self._idle.append(connection)
        return _answer(action, status, body)

    def close(self) -> None:
        """Closes the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _request(self, action: str, body: bytes) -> bytes:
        """The bytes on the wire, signed. Source: AWS, "Create a signed AWS API request" (Signature Version 4)."""
        credentials = self._credentials.get_frozen_credentials()
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = {"content-type": self._content_type, "host": self._where.netloc, "x-amz-date": now}
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        headers["x-amz-target"] = f"{self._prefix}.{action}"  # the names are in order, as they are signed
        lines, names = "".join(f"{name}:{value}\n" for name, value in headers.items()), ";".join(headers)
        canonical = f"POST\n{self._where.path}\n\n{lines}\n{names}\n{_sha256(body)}"
        scope = f"{now[:8]}/{self._region}/{self._service}/aws4_request"
        signature = hmac.digest(
            _signing_key(credentials.secret_key, scope),
            f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{_sha256(canonical.encode())}".encode(),
            "sha256",
        ).hex()
        head = (
            f"POST {self._where.path} HTTP/1.1\n{lines}content-length:{len(body)}\n"
            f"authorization:AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}\n\n"
        )
        return head.replace("\n", "\r\n").encode("latin-1") + body

    async def _connect(self) -> "_Connection":
        where = self._where
        secure = where.scheme == "https"
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection, where.hostname or "", where.port or (443 if secure else 80), ssl=secure or None
        )
        return connection


class _Connection(asyncio.BufferedProtocol):
    """One exchange at a time; the callbacks named ``on_*`` belong to the parser."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._body: list[bytes] = []
        self._keep_alive = True

    @property
    def usable(self) -> bool:
        return self._keep_alive and self._transport is not None and not self._transport.is_closing()

    def exchange(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Sends a request; the future is the answer's status and body."""
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport is None:
            self._answer.set_exception(ConnectionResetError("the service has closed the connection"))
        else:
            self._transport.write(request)
        return self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(
                ConnectionResetError(f"the service has closed the connection: {exc or 'at its end'}")
            )

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's signature
        return RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self._parser.feed_data(RECEIVED[:nbytes])
        except httptools.HttpParserError:
            self.close()  # which ends the exchange

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._keep_alive = self._parser.should_keep_alive()
        body, self._body = b"".join(self._body), []
        if not self._keep_alive:
            self.close()
        if status >= 200 and self._answer is not None and not self._answer.done():
            self._answer.set_result((status, body))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@functools.lru_cache(maxsize=4)
def _signing_key(secret: str, scope: str) -> bytes:
    """The same for all requests of a day."""
    return functools.reduce(
        lambda key, part: hmac.digest(key, part.encode(), "sha256"), scope.split("/"), f"AWS4{secret}".encode()
    )


def _answer(action: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body or b"{}")
    except ValueError:
        answer = None
    if status == 200 and isinstance(answer, dict):
        return answer
    details: Mapping[str, Any] = answer if isinstance(answer, dict) else {}
    code = str(details.get("__type", status)).rpartition("#")[2]
    message = str(details.get("message") or details.get("Message") or body[:200].decode("utf-8", "replace"))
    raise ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        action,
    )
