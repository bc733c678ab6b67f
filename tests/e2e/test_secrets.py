"""Credentials that real commands are given turn up nowhere: no file, no output, no command line, no other process."""

import base64
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest
from command_line import PROTOCOL
from load.fake_aws import FakeAws, Refusal, refusal
from local.whole import processes_of

from lambdalab.loopback import LOCAL_KEY
from lambdalab.project import machine_folder

from .conftest import Run, command
from .iam_calls import Recorder

PLACES: Final = ("environment", "profile", "config")
STACK: Final = ("--target", "aws", "--stack-name", "lambdalab-local")
LOAD: Final = ("load", "--headless", "--only-summary", "--loglevel", "DEBUG", "--duration", "2s", *STACK)
CRASH: Final = """
import lambdalab.run.target
def send(*_):
    raise RuntimeError("on purpose")
lambdalab.run.target.AwsTarget.send = send
"""


def planted(place: str) -> dict[str, str]:
    """Credentials as AWS gives them, and recognisable."""
    return {
        "AWS_ACCESS_KEY_ID": f"ASIA{place.upper():Q<16}",
        "AWS_SECRET_ACCESS_KEY": f"secret/+{place:z<32}",
        "AWS_SESSION_TOKEN": f"token//{place}+{'0123456789abcdef' * 20}==",
    }


def needles() -> dict[bytes, str]:
    """Every planted text in every form it may take, and its name."""
    found = {}
    for place in PLACES:
        for name, value in planted(place).items():
            text = value[:60]  # also the beginning of one that was cut
            for form in (text, quote(text, safe=""), base64.b64encode(text.encode()).decode()[:-4], repr(text)[1:-1]):
                found[form.encode()] = f"{name} of {place}"
    return found


def leaks(content: bytes) -> set[str]:
    return {name for needle, name in NEEDLES.items() if needle in content}


NEEDLES: Final = needles()
ANY: Final = re.compile(b"|".join(map(re.escape, NEEDLES)))


class Watch:
    """Looks at the command lines of all processes of the machine until it is ended."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.looked_at: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    content = path.read_bytes()
                except OSError:
                    continue
                self.looked_at.add(content.replace(b"\0", b" ").decode(errors="replace"))
                if ANY.search(content):
                    self.found.add(content.decode(errors="replace"))

    def end(self) -> None:
        self._end.set()
        self._thread.join()


class Scene:
    """What was run, what it said, and who had which environment while the stack was up."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.temporary = project / "temporary"
        self.done: dict[str, subprocess.CompletedProcess[str]] = {}
        self.environments: dict[str, bytes] = {}
        self.watch = Watch()

    def look_at_environments(self) -> None:
        for line in processes_of(self.project):
            pid, _, called = line.partition(" ")
            self.environments[called] = Path(f"/proc/{pid}/environ").read_bytes()


@pytest.fixture(scope="module")
def scene(
    lambdalab: Run,
    project: Path,
    clean_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    outside = tmp_path_factory.mktemp("outside")
    keys = {place: {name.lower(): value for name, value in planted(place).items()} for place in PLACES}
    for place, heading in (("profile", "[planted]"), ("config", "[profile configured]")):
        (outside / place).write_text("\n".join([heading, *(f"{n} = {v}" for n, v in keys[place].items())]) + "\n")
    files = {"AWS_SHARED_CREDENTIALS_FILE": str(outside / "profile"), "AWS_CONFIG_FILE": str(outside / "config")}
    (outside / "sitecustomize.py").write_text(CRASH)
    scene = Scene(project)
    (project / "one.toml").write_text(PROTOCOL.replace('"python", "go"', '"go"').replace("count = 100", "count = 1"))
    scene.temporary.mkdir()
    base = files | {"AWS_REGION": "us-east-1", "TMPDIR": str(scene.temporary)}
    environment = base | planted("environment")
    profile, config = base | {"AWS_PROFILE": "planted"}, base | {"AWS_PROFILE": "configured"}

    def run(name: str, *arguments: str, **variables: str) -> None:
        scene.done[name] = lambdalab(*arguments, **variables)

    shutil.rmtree(project / ".aws-sam")  # sam shall build in this environment
    run("up", "up", "--port", "0", "--parameter", "ReservedConcurrency=2", **environment)
    stack = dict(word.split("=", 1) for word in scene.done["up"].stdout.split() if "=" in word)
    recorder, fake = Recorder(stack["AWS_ENDPOINT_URL"], stack["AWS_ENDPOINT_URL_LAMBDA"]), FakeAws()
    aws = {"AWS_ENDPOINT_URL": recorder.url}
    try:
        run("run", "run", "--protocol", "one.toml", "--blocks", "1", "--yes", *STACK, **config, **aws)
        run("run local", "run", "--protocol", "one.toml", "--blocks", "1", **environment)
        run("load", *LOAD, "--rate", "10", "--languages", "python", "--processes", "2", **profile, **aws)
        scene.look_at_environments()
        run("report", "report", "latest", **environment)
        run("status", "status", "--json", **environment)
        run("logs", "logs", **environment)
        run("crash", "run", "--protocol", "one.toml", "--yes", *STACK, **environment, **aws, PYTHONPATH=str(outside))
        nowhere = {"AWS_ENDPOINT_URL": fake.url}
        fake.answer = lambda action, _: mismatch(fake) if action == "SendMessage" else None
        run("unsigned load", *LOAD, "--rate", "5", "--results", "", **environment, **nowhere)
        fake.answer = lambda _, __: mismatch(fake)
        run("odd run", "run", "--yes", *STACK, **environment, **nowhere)
        fake.answer = lambda _, __: in_xml(mismatch(fake))
        run("unsigned run", "run", "--yes", *STACK, **environment, **nowhere)
        scene.done["killed"] = killed(project, clean_environment | environment | aws)
        yield scene
    finally:
        scene.watch.end()
        recorder.close()
        fake.close()
        lambdalab("down")


def mismatch(fake: FakeAws) -> Refusal:
    """As AWS refuses a wrong signature: it repeats the request it has signed itself, with all its headers."""
    headers = {name.lower(): value for name, value in fake.requests[-1][1].items()}
    signed = "\n".join(f"{name}:{headers[name]}" for name in ("host", "x-amz-date", "x-amz-security-token"))
    said = "The request signature we calculated does not match the signature you provided. The Canonical String for "
    return refusal(
        "SignatureDoesNotMatch",
        f"{said}this request should have been\n'POST\n/\n\n{signed}\n' by '{headers['authorization']}'",
        403,
    )


def in_xml(answer: Refusal) -> Refusal:
    """As CloudFormation speaks; the other is no answer that it could give."""
    status, found = answer
    code = found["__type"].rpartition("#")[2]
    return status, {"xml": f"<Error><Code>{code}</Code><Message>{escape(found['message'])}</Message></Error>"}


def killed(project: Path, variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """A run that is ended from outside as soon as it speaks, with all it said until then."""
    process: Any = subprocess.Popen(
        [command(), "run", "--protocol", "one.toml", "--yes", *STACK],
        cwd=project, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    first = process.stderr.readline()
    process.send_signal(signal.SIGABRT)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, first + err)


def test_everything_went_its_way(scene: Scene) -> None:
    """What did not happen could not leak."""
    codes = {name: done.returncode for name, done in scene.done.items()}
    said = {name: done.stdout + done.stderr for name, done in scene.done.items()}
    for name in ("up", "status", "logs"):
        assert codes[name] == 0, said[name]
    for name in ("run", "run local", "load", "report"):  # a busy machine may make a run invalid
        assert codes[name] in (0, 4), said[name]
    assert "RuntimeError: on purpose" in said["crash"]
    for name in ("unsigned load", "unsigned run"):
        assert "SignatureDoesNotMatch" in said[name]
        assert codes[name] != 0
    assert codes["odd run"] == 3
    assert "is no answer of AWS" in said["odd run"]
    assert codes["killed"] == -signal.SIGABRT
    assert "botocore" in said["load"], "botocore's log is there"
    assert len(list((scene.project / "results").glob("*/run.json"))) >= 3
    assert any("--processes 2" in called for called in scene.watch.looked_at)


def test_nothing_says_them(scene: Scene) -> None:
    for name, done in scene.done.items():
        assert leaks((done.stdout + done.stderr).encode()) == set(), f"{name}:\n{done.stdout}{done.stderr}"


def test_no_file_holds_them(scene: Scene) -> None:
    looked_at, found = set(), {}
    for folder, _, names in os.walk(scene.project):
        for path in (Path(folder, name) for name in names):
            if path.is_file():
                looked_at.add(path.name)
                if leaked := leaks(path.read_bytes()):
                    found[path] = leaked
    assert found == {}
    expected = {
        "run.json",
        "trials.jsonl",
        "platform.jsonl",
        "metrics.parquet",
        "report.html",
        "stack.json",
        "plane.json",
    }
    assert looked_at >= expected | {"plane.log", "emulator.log", "sam-build.log"}


def test_no_command_line_holds_them(scene: Scene) -> None:
    assert scene.watch.found == set()


def test_the_stack_and_the_functions_never_have_them(scene: Scene) -> None:
    parts = ("ministack", "lambdalab.local.plane", "awslambdaric", "bootstrap")
    assert [part for part in parts if not any(part in called for called in scene.environments)] == []
    for called, environment in scene.environments.items():
        assert leaks(environment) == set(), called
        if "lambdalab.local.plane" in called:
            assert f"AWS_ACCESS_KEY_ID={LOCAL_KEY}\0".encode() in environment + b"\0"
            assert b"AWS_SESSION_TOKEN=" not in environment


def test_temporary_files_are_private_and_have_names_nobody_can_foresee(scene: Scene) -> None:
    for path in scene.temporary.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        if path.name != machine_folder().name:  # whose owner and mode are checked before it is used
            assert re.fullmatch(r"\w*[a-z0-9_]{8}", path.name), path
