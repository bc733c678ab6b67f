"""What is measured: an emulator with a stack of no-op functions, a plane attached to it, and AWS's emulator (RIE)."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lambdalab.aws.clients import Aws
from lambdalab.build.tools import interpreter_for, search_path
from lambdalab.local.daemon import Daemon, start_daemon
from lambdalab.local.settings import Settings
from lambdalab.local.stack import LocalStack
from lambdalab.local.startup import start_emulator, start_plane
from lambdalab.loopback import LOCAL_KEY, LOCAL_REGION
from lambdalab.project import state_folder

LANGUAGES: Final = ("python", "go")
MEMORY_MB: Final = (128, 1769)
RUNTIMES: Final = {"python": f"python{sys.version_info.major}.{sys.version_info.minor}", "go": "provided.al2023"}
HANDLERS: Final = {"python": "noop.handler", "go": "bootstrap"}
ROLE: Final = "arn:aws:iam::000000000000:role/none"
STACK_NAME: Final = "lambdalab-benchmark"
BUCKET: Final = "lambdalab-benchmark"
FUNCTIONS: Final = Path(__file__).parents[1] / "functions"
RIE_PATH: Final = "/2015-03-31/functions/function/invocations"


def name_of(language: str, memory_mb: int) -> str:
    """The name of a deployed function."""
    return f"noop-{language}-{memory_mb}"


def path_of(name: str) -> str:
    """Where a function is invoked."""
    return f"/2015-03-31/functions/{name}/invocations"


@dataclass(frozen=True)
class World:
    """Everything that runs."""

    stack: LocalStack
    plane: Aws
    """Clients for which the plane is Lambda."""
    emulator: Aws
    """Clients for which MiniStack is Lambda."""
    rie_port: int


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """Builds, starts and deploys everything, and ends it again."""
    with contextlib.ExitStack() as undo:
        port, plane_port, rie_port, runtime_port = free_ports(4)
        emulator = start_emulator(port, folder, own_lambda=True)
        undo.callback(emulator.end, grace_s=2)
        endpoint_url = f"http://127.0.0.1:{port}"
        aws = Aws(endpoint_url=endpoint_url)
        _deploy(aws, folder)
        interpreter = interpreter_for(RUNTIMES["python"])
        settings = Settings(
            endpoint_url=endpoint_url,
            stack_name=STACK_NAME,
            port=plane_port,
            folder=str(folder),
            interpreters={RUNTIMES["python"]: str(interpreter)},
        )
        plane = start_plane(settings, folder)
        undo.callback(plane.end, grace_s=15)
        stack = LocalStack(stack_name=STACK_NAME, emulator=emulator, plane=plane)
        rie = _start_rie(interpreter, rie_port, runtime_port, folder)
        undo.callback(rie.end, grace_s=2)
        yield World(stack=stack, plane=stack.aws(), emulator=aws, rie_port=rie_port)


def code(language: str, folder: Path) -> bytes:
    """The package of a function."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        if language == "python":
            archive.write(FUNCTIONS / "python" / "noop.py", "noop.py")
        else:
            archive.write(_built(folder), "bootstrap")
    return content.getvalue()


def _built(folder: Path) -> Path:
    binary = folder / "bootstrap"
    if not binary.exists():
        variables = {**os.environ, "PATH": search_path(), "CGO_ENABLED": "0"}
        command = ["go", "build", "-trimpath", "-ldflags=-s", "-tags=lambda.norpc", "-o", str(binary), "./noop"]
        subprocess.run(command, cwd=FUNCTIONS / "go", env=variables, check=True)
    return binary


def _deploy(aws: Aws, folder: Path) -> None:
    s3: Any = aws.session.client("s3", endpoint_url=aws.sqs.meta.endpoint_url)
    s3.create_bucket(Bucket=BUCKET)
    for language in LANGUAGES:
        s3.put_object(Bucket=BUCKET, Key=f"{language}.zip", Body=code(language, folder))
    s3.close()
    resources = {
        f"{language.title()}{memory_mb}": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "FunctionName": name_of(language, memory_mb),
                "Runtime": RUNTIMES[language],
                "Handler": HANDLERS[language],
                "Role": ROLE,
                "MemorySize": memory_mb,
                "Timeout": 30,
                "Code": {"S3Bucket": BUCKET, "S3Key": f"{language}.zip"},
            },
        }
        for language in LANGUAGES
        for memory_mb in MEMORY_MB
    }
    aws.cloudformation.create_stack(StackName=STACK_NAME, TemplateBody=json.dumps({"Resources": resources}))
    aws.cloudformation.get_waiter("stack_create_complete").wait(
        StackName=STACK_NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )


def _start_rie(interpreter: Path, port: int, runtime_port: int, folder: Path) -> Daemon:
    """AWS's emulator around the Python function, with the interpreter and the runtime client the plane uses."""
    (binary,) = (state_folder() / "tools" / "aws-sam-cli").glob("lib/*/site-packages/samcli/local/rapid/*-rie-x86_64")
    binary.chmod(binary.stat().st_mode | 0o100)
    command = [str(binary), "--log-level", "error"]
    command += ["--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    command += ["--runtime-api-address", f"127.0.0.1:{runtime_port}"]
    command += [str(interpreter), "-B", "-m", "awslambdaric", HANDLERS["python"]]
    variables = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(FUNCTIONS / "python"),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB[-1]),
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "30",
        "AWS_REGION": LOCAL_REGION,
        "AWS_ACCESS_KEY_ID": LOCAL_KEY,
        "AWS_SECRET_ACCESS_KEY": LOCAL_KEY,
    }
    daemon = start_daemon(command, port=port, log_file=folder / "rie.log", variables=variables)
    deadline = time.monotonic() + 10
    while daemon.alive and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return daemon
        time.sleep(0.05)
    daemon.end(grace_s=0)
    sys.exit(f"the RIE did not start: {(folder / 'rie.log').read_text()}")


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
