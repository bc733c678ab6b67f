"""A trap in place of the network, and the environments of users that lead to it."""

import os
import threading
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Trap:
    """A server on loopback that stands for every proxy and every other endpoint.

    Attributes:
        asked: the first line of each request; of TLS, its first bytes.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(StreamRequestHandler):
            timeout = 5

            def handle(self) -> None:
                asked.append(self.rfile.readline(200).decode("latin-1"))
                self.wfile.write(REFUSAL)

        class Server(ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def hostile_variables(url: str) -> dict[str, str]:
    """A shell set up for another machine: proxies, endpoints and credentials that are of no use here."""
    proxies = {f"{scheme}_proxy": url for scheme in ("http", "https", "all")}
    services = ("S3", "SQS", "STS", "IAM", "LAMBDA", "LOGS", "DYNAMODB", "CLOUDFORMATION", "CLOUDWATCH_LOGS")
    return {
        **proxies,
        **{name.upper(): value for name, value in proxies.items()},
        **{f"AWS_ENDPOINT_URL_{service}": url for service in services},
        "NO_PROXY": "example.com",
        "AWS_ENDPOINT_URL": url,
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "AWS_PROFILE": "nope",
        "AWS_DEFAULT_PROFILE": "nope either",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/example",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/nonexistent",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": url,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": url,
        "AWS_CA_BUNDLE": "/nonexistent",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "AWS_MAX_ATTEMPTS": "many",
        "AWS_RETRY_MODE": "unknown",
        "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "unknown",
    }


def hostile_files(folder: Path, url: str) -> dict[str, str]:
    """Configuration files whose profiles lead to the trap, with no variable but those that name them."""
    config, credentials = folder / "config", folder / "credentials"
    settings = f"region = eu-central-1\nuse_fips_endpoint = true\nendpoint_url = {url}\nservices = elsewhere\n"
    services = "".join(
        f"{name} =\n  endpoint_url = {url}\n" for name in ("s3", "sqs", "sts", "lambda", "cloudformation", "dynamodb")
    )
    config.write_text(
        f"[default]\n{settings}\n[profile x]\n{settings}credential_process = /bin/false\n"
        f"s3 =\n  addressing_style = virtual\n  use_accelerate_endpoint = true\n[services elsewhere]\n{services}"
    )
    credentials.write_text("[x]\nrole_arn = arn:aws:iam::123456789012:role/example\nsource_profile = absent\n")
    files = {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
    return files | {"AWS_PROFILE": "x"}


def damaged_files(folder: Path) -> dict[str, str]:
    """Configuration files that no parser takes, where a user without any variables has them."""
    (folder / ".aws").mkdir()
    for name in ("config", "credentials"):
        (folder / ".aws" / name).write_text("[default\n= what\n")
    return {"HOME": str(folder)}


def user_environment() -> dict[str, str]:
    """This process's environment without anything of AWS and without proxies."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AWS_") and not name.lower().endswith("_proxy")
    }
