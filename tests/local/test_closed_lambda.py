"""The emulator runs no function, by whatever way it is asked to."""

import io
import json
import secrets
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from lambdalab.local.closed_lambda import closed_lambda
from local.support import PYTHON_RUNTIME, Emulated

CODE: Final = """
import pathlib

def handler(event, context):
    pathlib.Path({marker!r}).write_text("ran")
    return {{"statusCode": 200}}
"""


@pytest.fixture
def marker(emulated: Emulated, tmp_path: Path) -> Iterator[Path]:
    """What the function ``marked-...`` leaves if it runs; its name is the marker's."""
    path = tmp_path / f"marked-{secrets.token_hex(4)}"
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("app.py", CODE.format(marker=str(path)))
    create: Any = emulated.aws.lambda_.create_function
    role = "arn:aws:iam::000000000000:role/none"
    create(
        FunctionName=path.name, Runtime=PYTHON_RUNTIME, Handler="app.handler", Role=role,
        Code={"ZipFile": package.getvalue()},
    )  # fmt: skip
    yield path
    emulated.aws.lambda_.delete_function(FunctionName=path.name)


def test_calls_run_nothing(emulated: Emulated, marker: Path) -> None:
    lambda_: Any = emulated.aws.lambda_
    answer = lambda_.invoke(FunctionName=marker.name, Payload="{}")
    assert json.load(answer["Payload"])["errorType"] == "Runtime.DockerError"
    stream = lambda_.invoke_with_response_stream(FunctionName=marker.name, Payload="{}")["EventStream"]
    assert b"Runtime.DockerError" in next(iter(stream))["PayloadChunk"]["Payload"]
    assert not marker.exists()


def test_a_websocket_runs_nothing(emulated: Emulated, marker: Path) -> None:
    api: Any = emulated.aws.session.client("apigatewayv2", endpoint_url=emulated.url)
    made = api.create_api(Name="talk", ProtocolType="WEBSOCKET", RouteSelectionExpression="$request.body.action")
    api_id = made["ApiId"]
    arn = emulated.aws.lambda_.get_function_configuration(FunctionName=marker.name)["FunctionArn"]
    uri = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{arn}/invocations"
    integration = api.create_integration(ApiId=api_id, IntegrationType="AWS_PROXY", IntegrationUri=uri)
    target = f"integrations/{integration['IntegrationId']}"
    api.create_route(ApiId=api_id, RouteKey="$connect", Target=target)
    api.create_stage(ApiId=api_id, StageName="live")

    address = urlsplit(emulated.url)
    request = (
        f"GET /_aws/execute-api/{api_id}/live HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=20) as connection:
        connection.sendall(request.encode())
        status = connection.recv(100).split(b"\r\n")[0]
    api.delete_api(ApiId=api_id)
    api.close()
    assert (marker.exists(), b" 101 " in status) == (False, False), status


def test_emulator_connects_to_loopback_only(tmp_path: Path) -> None:
    """A template can name a host elsewhere, such as the issuer of an authorizer's tokens."""
    code = """
import socket, sys, urllib.request
for where in ("http://192.0.2.1:9/", "http://cognito-idp.us-east-1.amazonaws.com/", sys.argv[1]):
    try:
        print(urllib.request.urlopen(where, timeout=5).status)
    except OSError as error:
        print(error)
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"http://127.0.0.1:{server.getsockname()[1]}/"
        variables = {"PYTHONPATH": closed_lambda(tmp_path)["PYTHONPATH"]}
        with subprocess.Popen([sys.executable, "-c", code, here], env=variables, stdout=subprocess.PIPE) as process:
            server.settimeout(20)
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            out, _ = process.communicate(timeout=20)
    elsewhere = "is not on loopback, and a local stack is nowhere else>"
    address, name, answered = out.decode().splitlines()
    assert address.endswith(f"192.0.2.1 {elsewhere}")
    assert name.endswith(f"cognito-idp.us-east-1.amazonaws.com {elsewhere}")
    assert answered == "200"
