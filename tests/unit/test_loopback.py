"""What keeps a local command on this machine, under every environment a user may have, with a trap for the network."""

import ast
import json
import os
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from samples import ROOT
from trap import Trap, damaged_files, hostile_files, hostile_variables

from lambdalab import loopback
from lambdalab.aws.clients import Aws
from lambdalab.build.deployment import aws_variables, build_variables, local_variables
from lambdalab.errors import AccessError

REFUSED: Final = (ClientError, ResponseParserError)
KINDS: Final = ("variables", "files", "damaged files", "everything")


class Emulator:
    """An endpoint on loopback that counts requests and refuses each, or redirects it."""

    def __init__(self, moved_to: str | None = None) -> None:
        self.requests = 0
        emulator = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                emulator.requests += 1
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(400 if moved_to is None else 302)
                if moved_to is not None:
                    self.send_header("Location", moved_to)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    found = Emulator()
    yield found
    found.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    found = Trap()
    yield found
    assert found.asked == []
    found.close()


@pytest.fixture(params=KINDS)
def hostile(request: pytest.FixtureRequest, trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """This process's environment as a user's that leads to the trap; the kind of it."""
    made = {
        "variables": hostile_variables(trap.url),
        "files": hostile_files(tmp_path, trap.url),
        "damaged files": damaged_files(tmp_path),
    }
    made["everything"] = made["damaged files"] | made["files"] | made["variables"]
    for name, value in made[request.param].items():
        monkeypatch.setenv(name, value)
    return str(request.param)


@pytest.mark.usefixtures("hostile")
def test_every_client_of_a_local_stack_asks_its_endpoint_only(emulator: Emulator) -> None:
    aws = Aws(endpoint_url=emulator.url, lambda_endpoint_url=emulator.url)
    assert aws.session.region_name == loopback.LOCAL_REGION
    calls = {
        "cloudformation": "list_stacks",
        "dynamodb": "list_tables",
        "lambda_": "list_functions",
        "logs": "describe_log_groups",
        "s3": "list_buckets",
        "sns": "list_topics",
        "sqs": "list_queues",
        "sts": "get_caller_identity",
    }
    for service, call in calls.items():
        before = emulator.requests
        with pytest.raises(REFUSED):
            getattr(getattr(aws, service), call)()
        assert emulator.requests == before + 1, service


@pytest.mark.usefixtures("hostile")
def test_a_client_with_settings_of_its_own_uses_no_proxy_either(emulator: Emulator) -> None:
    with pytest.raises(REFUSED):
        loopback.session().client("sqs", endpoint_url=emulator.url).list_queues()


CHILD: Final = """
import boto3, json, os, urllib.request
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
for service, call in (("s3", "list_buckets"), ("sqs", "list_queues"), ("lambda", "list_functions")):
    try:
        getattr(boto3.client(service), call)()
    except (ClientError, ResponseParserError):
        pass
print(json.dumps({"proxies": urllib.request.getproxies(), "path": os.environ["PATH"]}))
"""


@pytest.mark.parametrize("hostile", ["everything"], indirect=True)
@pytest.mark.usefixtures("hostile")
def test_a_process_of_a_local_stack_asks_its_endpoint_only(emulator: Emulator) -> None:
    before = emulator.requests
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env=local_variables(emulator.url), capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert emulator.requests == before + 3
    assert found["proxies"] == {}
    assert os.environ["PATH"] in found["path"], "what is not AWS's stays"


@pytest.mark.usefixtures("hostile")
def test_every_aws_variable_of_a_process_is_ours(emulator: Emulator) -> None:
    for found in (local_variables(emulator.url), build_variables()):
        assert {name: value for name, value in found.items() if name.startswith("AWS_")} == {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
            "AWS_ENDPOINT_URL": (endpoint := found["AWS_ENDPOINT_URL"]),
            "AWS_ENDPOINT_URL_LAMBDA": endpoint,
        }
        assert endpoint in (emulator.url, loopback.NO_ENDPOINT)


def test_lambda_of_a_process_is_the_plane() -> None:
    found = loopback.variables("http://127.0.0.1:4566", "http://127.0.0.1:4567")
    assert found["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert found["AWS_ENDPOINT_URL_LAMBDA"] == "http://127.0.0.1:4567"


@pytest.mark.parametrize(
    ("given", "direct"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"no_proxy": "example.com"}, "example.com,localhost,127.0.0.1,::1"),
        ({"no_proxy": "a,127.0.0.1", "NO_PROXY": "a,b"}, "a,127.0.0.1,b,localhost,::1"),
        ({"NO_PROXY": "*"}, "*"),
        ({"no_proxy": "*", "NO_PROXY": "*"}, "*"),
    ],
)
def test_a_build_reaches_registries_by_the_proxy_and_loopback_without(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], direct: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (given | {"HTTPS_PROXY": "http://proxy.example:3128"}).items():
        monkeypatch.setenv(name, value)
    found = build_variables()
    assert found["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert found["no_proxy"] == found["NO_PROXY"] == direct


def test_sam_never_asks_for_its_newest_version_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lambdalab.build.deployment.state_folder", lambda: tmp_path)
    monkeypatch.setattr("lambdalab.build.deployment.search_path", lambda: "/bin")
    for found in (build_variables(), local_variables(loopback.NO_ENDPOINT)):
        settings = json.loads((Path(found["__SAM_CLI_APP_DIR"]) / "metadata.json").read_text())
        assert settings["lastVersionCheck"] > 4e9
        assert found["SAM_CLI_TELEMETRY"] == "0"


def test_what_speaks_to_aws_keeps_the_users_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hostile_variables("http://proxy.example:3128").items():
        monkeypatch.setenv(name, value)
    assert Aws().variables() == dict(os.environ)
    kept = aws_variables()
    assert {name: kept[name] for name in hostile_variables("http://proxy.example:3128")} == hostile_variables(
        "http://proxy.example:3128"
    )


ASKS: Final = """
import sys, urllib.error
from lambdalab.loopback import open_url
try:
    open_url(sys.argv[1], timeout_s=5)
except urllib.error.HTTPError as error:
    sys.exit(error.code != 400)
"""


@pytest.mark.parametrize("hostile", ["everything"], indirect=True)
@pytest.mark.usefixtures("hostile")
def test_a_request_of_our_own_uses_no_proxy(emulator: Emulator) -> None:
    """In a process of its own, because urllib reads the proxies when an opener is made."""
    subprocess.run([sys.executable, "-c", ASKS, emulator.url], check=True)


def test_a_redirect_is_not_followed(trap: Trap) -> None:
    moved = Emulator(moved_to=f"{trap.url}/elsewhere")
    with pytest.raises(urllib.error.HTTPError) as refused:
        loopback.open_url(moved.url, timeout_s=5)
    moved.close()
    with refused.value as answer:
        assert answer.code == 302


@pytest.mark.parametrize("url", ["http://127.0.0.1:4566", "http://localhost:1/x", "http://[::1]:1", "http://127.1.2.3"])
def test_loopback_has_many_names(url: str) -> None:
    loopback.require_loopback(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://sqs.us-east-1.amazonaws.com",
        "http://0.0.0.0:4566",
        "http://10.0.0.1",
        "http://127.0.0.1.example.com",
        "http://localhost@example.com",
        "http://169.254.169.254/latest",
        "nonsense",
        "file://localhost/etc/passwd",
    ],
)
def test_a_local_stack_is_nowhere_else(url: str) -> None:
    made = (lambda: Aws(endpoint_url=url), lambda: loopback.variables(url), lambda: loopback.open_url(url, 1))
    for make in (*made, lambda: Aws(endpoint_url=loopback.NO_ENDPOINT, lambda_endpoint_url=url)):
        with pytest.raises(AccessError, match="is not on this machine's loopback"):
            make()


ONE_PLACE: Final = "lambdalab/loopback.py"
READ_BY_NAME: Final = {"AWS_CA_BUNDLE": "lambdalab/load/sender.py", "AWS_REGION": "lambdalab/aws/clients.py"}
"""Variables of AWS that one other module looks at, each for the target aws. Other variables may be read one by one."""
STARTS: Final = {
    *(f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")),
    *(f"asyncio.create_subprocess_{name}" for name in ("exec", "shell")),
}
NEVER: Final = {
    *(f"os.{name}" for name in ("system", "popen", "execv", "execvp", "execl", "execlp", "spawnv", "spawnl")),
    *(f"subprocess.{name}" for name in ("getoutput", "getstatusoutput")),
    *(f"boto3.{name}" for name in ("client", "resource", "setup_default_session")),
    *(f"os.{name}" for name in ("getenv", "putenv", "environb")),
}
ONLY_IN: Final = {
    "boto3.Session": ("lambdalab/aws/clients.py",),
    "botocore.session.Session": (),
    "botocore.session.get_session": (),
    "urllib.request.urlopen": ("lambdalab/aws/clients.py",),
    "urllib.request.build_opener": (),
    "urllib.request.urlretrieve": (),
}


def sources() -> Iterator[tuple[str, ast.AST]]:
    for folder in ("lambdalab", "load"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if name != ONE_PLACE:
                yield name, ast.parse(path.read_text())


def dotted(node: ast.AST) -> str:
    """A name such as ``subprocess.run``; what is no name is a ``?`` in it."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def faults(name: str, tree: ast.AST) -> Iterator[str]:
    """Every place of a module that starts a process, opens a session or reads the environment past the one place."""
    nodes = list(ast.walk(tree))
    by_name = set()
    for node in nodes:
        match node:
            case (
                ast.Call(func=ast.Attribute(value=environ, attr="get" | "pop" | "setdefault"), args=[key, *_])
                | ast.Subscript(value=environ, slice=key)
                | ast.Compare(left=key, comparators=[environ])
            ) if not (read := str(getattr(key, "value", ""))).startswith("AWS_") or READ_BY_NAME.get(read) == name:
                by_name.add(environ)
    for node in nodes:
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = dotted(node.func)
            if called in STARTS and all(keyword.arg != "env" for keyword in node.keywords):
                yield f"{where}: {called} without env"
            if name not in ONLY_IN.get(called, (name,)):
                yield f"{where}: {called}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            said = f"{node.value.id}.{node.attr}"
            if said in NEVER or (said == "os.environ" and node not in by_name):
                yield f"{where}: {said}"
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "subprocess", "boto3", "urllib.request"):
            yield f"{where}: from {node.module} import, which hides what is called"


def test_processes_sessions_and_requests_are_made_in_one_place() -> None:
    assert [fault for name, tree in sources() for fault in faults(name, tree)] == []


@pytest.mark.parametrize(
    "code",
    [
        "subprocess.run(['sam'])",
        "subprocess.run(['sam'], env=dict(os.environ))",
        "subprocess.run(['sam'], env=os.environ | {'A': 'b'})",
        "os.environ['AWS_PROFILE']",
        "os.environ.get('AWS_CA_BUNDLE')",
        "'AWS_PROFILE' in os.environ",
        "dict(os.environ)",
        "os.getenv('PATH')",
        "os.execv('sam', [])",
        "boto3.client('s3')",
        "boto3.Session()",
        "urllib.request.urlopen('http://127.0.0.1')",
        "from subprocess import run",
    ],
)
def test_the_search_finds_what_goes_past_the_one_place(code: str) -> None:
    assert list(faults("lambdalab/new.py", ast.parse(code)))


def test_the_search_leaves_the_rest_alone() -> None:
    code = "subprocess.run(['sam'], env=loopback.variables()); os.environ.get('PATH', ''); 'PATH' in os.environ"
    assert list(faults("lambdalab/new.py", ast.parse(code))) == []
