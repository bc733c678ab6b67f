"""The plane's own calls to AWS: their signature is botocore's."""

from datetime import UTC, datetime

import boto3
import botocore.auth
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from lambdalab.local.aws_json import AwsJson


@pytest.mark.parametrize("token", [None, "a/session+token=="])
@pytest.mark.parametrize("service", ["sqs", "logs"])
def test_signed_as_botocore_does(monkeypatch: pytest.MonkeyPatch, service: str, token: str | None) -> None:
    session = boto3.Session("id", "secret", token, region_name="eu-central-1")
    credentials = session.get_credentials()
    assert credentials is not None
    wire = AwsJson("http://127.0.0.1:4566", session, service)._request("Act", b'{"a":"\xc3\xa4"}')
    head, _, body = wire.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = {name: value for name, _, value in (line.partition(":") for line in lines)}
    assert line == "POST / HTTP/1.1"
    assert headers["content-length"] == str(len(body))

    now = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: now)
    signed = {name: headers[name] for name in ("content-type", "x-amz-target")}
    request = AWSRequest("POST", "http://127.0.0.1:4566/", headers=signed, data=body)
    SigV4Auth(credentials, service, "eu-central-1").add_auth(request)
    assert headers["authorization"] == request.headers["Authorization"]
    assert headers.get("x-amz-security-token") == token
