"""A whole local stack for tests: emulator, deployed template and plane, in a project folder of its own."""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from lambdalab.aws.clients import Aws
from lambdalab.design.arms import Arm
from lambdalab.local.daemon import Daemon, start_daemon
from lambdalab.local.poller import WAIT_S
from lambdalab.local.stack import LocalStack, bring_up, running_stack, take_down
from lambdalab.run.local_target import LocalTarget, local_target
from lambdalab.run.target import Resources
from local.support import exists

ROOT: Final = Path(__file__).parents[2]
PARTS: Final = ("template.yaml", "scenarios", "samconfig.toml", "src", "protocols", "tools")
BUILT: Final = ".aws-sam/local"
"""Of every scenario; what is not made of these sources is built anew."""
_LEFT_OUT: Final = ("__pycache__", ".aws-sam", "tests")
LANGUAGES: Final = ("python", "go")
PARAMETERS: Final = {"Timeout": "10", "VisibilityTimeout": "10", "MaxReceiveCount": "2"}
T = TypeVar("T")


def project(folder: Path, parts: tuple[str, ...] = PARTS, *, built: bool = True) -> Path:
    """A project with this one's sources and installed tools, without its state; with what ``tests/run.py`` built."""
    for name in parts:  # copies: sam writes paths of what lies behind a link relative to where the link is
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        else:
            shutil.copy(ROOT / name, folder / name)
    for found in (*ROOT.glob(BUILT), *ROOT.glob(f"scenarios/*/{BUILT}")) if built else ():
        shutil.copytree(found, folder / found.relative_to(ROOT))
    (folder / ".lambdalab").mkdir()
    for name in ("tools", "interpreters", "pythons"):
        (ROOT / ".lambdalab" / name).mkdir(parents=True, exist_ok=True)
        (folder / ".lambdalab" / name).symlink_to(ROOT / ".lambdalab" / name)
    return folder


@dataclass
class Up:
    """The stack, and what tests do with it."""

    project: Path
    stack: LocalStack

    @classmethod
    def start(cls, folder: Path, settings: str = "local", **parameters: str) -> "Up":
        with contextlib.chdir(folder):
            changes = PARAMETERS | parameters
            return cls(folder, bring_up(lambda _: None, port=0, parameters=changes, settings=settings))

    def end(self) -> None:
        for aws in (self.aws, self.emulator, self.target.aws):
            for client in (value for value in vars(aws).values() if hasattr(value, "get_waiter")):
                client.close()
        with contextlib.chdir(self.project):
            take_down(self.stack)
            assert running_stack() is None

    @cached_property
    def aws(self) -> Aws:
        """Clients of the stack; a plane that takes another's place takes its port as well."""
        return self.stack.aws()

    @cached_property
    def emulator(self) -> Aws:
        """Clients that speak to the emulator alone, past the plane."""
        return Aws(endpoint_url=self.stack.endpoint_url)

    @cached_property
    def target(self) -> LocalTarget:
        return local_target(self.stack)

    def arm(self, language: str) -> Resources:
        return self.target.resources(Arm(name=language, language=language))

    def status(self) -> dict[str, Any]:
        with contextlib.chdir(self.project):
            return self.stack.status()

    def pids(self, language: str) -> list[int]:
        found: list[int] = self.status()["functions"][self.arm(language).function_name]["pids"]
        return found

    def send(self, language: str, body: str | dict[str, Any]) -> str:
        text = body if isinstance(body, str) else json.dumps(body)
        return self.aws.sqs.send_message(QueueUrl=self.arm(language).queue_url, MessageBody=text)["MessageId"]

    def items(self, language: str, batch_id: str) -> list[dict[str, Any]]:
        pages = self.aws.dynamodb.get_paginator("query").paginate(
            TableName=self.arm(language).table_name,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"batch_id#{batch_id}"}},
            ConsistentRead=True,
        )
        return [dict(item) for page in pages for item in page["Items"]]

    def invoke(self, function_name: str, payload: object = None, client: Any = None, **arguments: Any) -> Any:
        """Invokes as boto3 does and reads the answer to its end, which frees the connection."""
        body = {} if payload is None else {"Payload": json.dumps(payload)}
        answer = (client or self.aws.lambda_).invoke(FunctionName=function_name, **(body | arguments))
        return answer | {"Payload": answer["Payload"].read()}

    def depth(self, queue_url: str) -> int:
        return self.target.queue_depth(queue_url)

    def drained(self, language: str) -> bool:
        return self.depth(self.arm(language).queue_url) == 0

    def dead_letters(self, language: str) -> list[str]:
        """Bodies in the dead-letter queue, taken out of it."""
        url = self.arm(language).dead_letter_queue_url
        bodies = []
        while messages := self.aws.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                bodies.append(message["Body"])
                self.aws.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    @contextlib.contextmanager
    def visibility(self, seconds: int) -> Any:
        """Another visibility timeout of both queues for a while."""
        for value in (seconds, int(PARAMETERS["VisibilityTimeout"])):
            for language in LANGUAGES:
                self.aws.sqs.set_queue_attributes(
                    QueueUrl=self.arm(language).queue_url, Attributes={"VisibilityTimeout": str(value)}
                )
            time.sleep(WAIT_S + 0.1)  # a poll that is waiting keeps the value it began with
            if value == seconds:
                yield

    def start_plane(self, port: int, **changes: Any) -> Daemon:
        """One more plane on the same emulator, from the first one's settings but for ``changes``."""
        folder = self.project / ".lambdalab"
        settings = json.loads((folder / "plane.json").read_bytes()) | {"port": port} | changes
        (folder / f"plane-{port}.json").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "lambdalab.local.plane", str(folder / f"plane-{port}.json")]
        with contextlib.chdir(self.project):
            plane = start_daemon(command, port=port, log_file=folder / f"plane-{port}.log", variables=dict(os.environ))
        self_after = msgspec.structs.replace(self.stack, plane=plane)

        def answers() -> bool:
            with contextlib.suppress(Exception), contextlib.chdir(self.project):
                return bool(self_after.status())
            return False

        wait_until(answers, 20)
        return plane


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.05)


def both(work: Callable[[str], T]) -> list[T]:
    """Does the same for both languages at once."""
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(work, LANGUAGES))


def processes_of(folder: Path) -> list[str]:
    """The processes that run in a folder or from it."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid() and exists(int(process.name)):
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                where = str((process / "cwd").readlink())
                if str(folder) in command or where.startswith(str(folder)):
                    found.append(f"{process.name} {command}")
    return found
