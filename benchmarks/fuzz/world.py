"""What is attacked: a plane with two functions that must answer rightly and one that is hostile, on an emulator."""

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lambdalab.aws.clients import Aws
from lambdalab.build.tools import interpreter_for, search_path
from lambdalab.local.daemon import Daemon
from lambdalab.local.settings import Settings
from lambdalab.local.startup import start_plane

STACK_NAME: Final = "lambdalab-fuzz"
BUCKET: Final = "lambdalab-fuzz"
PYTHON: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
HERE: Final = Path(__file__).parent
FUNCTIONS: Final = HERE.parent / "functions"
ECHOES: Final = ("fuzz-python", "fuzz-go")
HOSTILE: Final = "fuzz-hostile"
HOSTILE_TIMEOUT_S: Final = 2
ECHO_TIMEOUT_S: Final = 60
TROUBLE: Final = re.compile(r"Traceback|Exception in|never retrieved| ERROR | CRITICAL |ResourceWarning")


@dataclass(frozen=True)
class Victim:
    """A plane, and what can be seen of it from outside."""

    plane: Daemon
    log_file: Path

    def status(self) -> dict[str, Any]:
        """What the plane says of itself."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.plane.port}/_lambdalab/status", timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def runtime_ports(self, status: Mapping[str, Any]) -> list[int]:
        """The ports of the Runtime APIs of the functions that must answer rightly."""
        ports = []
        for name in ECHOES:
            for pid in status["functions"][name]["pids"]:
                with contextlib.suppress(OSError):
                    found = re.search(rb"AWS_LAMBDA_RUNTIME_API=[^:]+:(\d+)", Path(f"/proc/{pid}/environ").read_bytes())
                    ports += [int(found[1])] if found else []
        return ports

    def rss_mb(self) -> float:
        """Resident memory of the plane's process (statm: proc_pid_statm(5)), in MB of 2^20 bytes."""
        pages = int(Path(f"/proc/{self.plane.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.plane.pid}/fd").iterdir()))

    def troubles(self) -> list[str]:
        """Lines of its log that tell of an exception nobody handled, or of an error, each with the line after it."""
        lines = self.log_file.read_text(errors="replace").splitlines()
        return [" | ".join(lines[i : i + 2]) for i, line in enumerate(lines) if TROUBLE.search(line)]


@contextlib.contextmanager
def functions(endpoint_url: str, folder: Path, seeds: Sequence[bytes]) -> Iterator[None]:
    """Deploys the functions on an emulator; takes them down again."""
    aws = Aws(endpoint_url=endpoint_url)
    try:
        _deploy(aws, folder, seeds)
        yield
        aws.cloudformation.delete_stack(StackName=STACK_NAME)
    finally:
        aws.cloudformation.close()


@contextlib.contextmanager
def victim(endpoint_url: str, folder: Path, grace_s: float = 20) -> Iterator[Victim]:
    """A plane of its own for the deployed functions; it has ``grace_s`` to end by itself."""
    settings = Settings(
        endpoint_url=endpoint_url,
        stack_name=STACK_NAME,
        port=_free_port(),
        folder=str(folder),
        interpreters={PYTHON: str(interpreter_for(PYTHON))},
    )
    plane = start_plane(settings, folder)
    try:
        yield Victim(plane, folder / "plane.log")
    finally:
        plane.end(grace_s=grace_s)


def _deploy(aws: Aws, folder: Path, seeds: Sequence[bytes]) -> None:
    packages = {
        "fuzz-python": (
            PYTHON,
            "echo.handler",
            ECHO_TIMEOUT_S,
            {"echo.py": (FUNCTIONS / "python/echo.py").read_bytes()},
        ),
        "fuzz-go": ("provided.al2023", "bootstrap", ECHO_TIMEOUT_S, {"bootstrap": _built(folder)}),
        HOSTILE: ("provided.al2023", "bootstrap", HOSTILE_TIMEOUT_S, _hostile(seeds)),
    }
    s3: Any = aws.session.client("s3", endpoint_url=aws.cloudformation.meta.endpoint_url)
    s3.create_bucket(Bucket=BUCKET)
    resources = {}
    for name, (runtime, handler, timeout_s, files) in packages.items():
        s3.put_object(Bucket=BUCKET, Key=f"{name}.zip", Body=_zipped(files))
        resources[name.title().replace("-", "")] = {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "FunctionName": name,
                "Runtime": runtime,
                "Handler": handler,
                "Role": "arn:aws:iam::000000000000:role/none",
                "MemorySize": 1769,
                "Timeout": timeout_s,
                "Code": {"S3Bucket": BUCKET, "S3Key": f"{name}.zip"},
            },
        }
    s3.close()
    aws.cloudformation.create_stack(StackName=STACK_NAME, TemplateBody=json.dumps({"Resources": resources}))
    aws.cloudformation.get_waiter("stack_create_complete").wait(
        StackName=STACK_NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )


def _hostile(seeds: Sequence[bytes]) -> dict[str, bytes]:
    start = f"#!{interpreter_for(PYTHON).resolve()} -B\n".encode()
    return {
        "bootstrap": start + (HERE / "hostile.py").read_bytes(),
        "attacks.py": (HERE / "attacks.py").read_bytes(),
        "seeds.txt": b"\n".join(seed.hex().encode() for seed in seeds),
    }


def _zipped(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o755 << 16
            archive.writestr(entry, data)
    return content.getvalue()


def _built(folder: Path) -> bytes:
    binary = folder / "echo"
    variables = {**os.environ, "PATH": search_path(), "CGO_ENABLED": "0"}
    command = ["go", "build", "-trimpath", "-ldflags=-s", "-tags=lambda.norpc", "-o", str(binary), "./echo"]
    subprocess.run(command, cwd=FUNCTIONS / "go", env=variables, check=True)
    return binary.read_bytes()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port
