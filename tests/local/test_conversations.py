"""What the real runtime clients say to the plane, against what they were recorded to say.

``conversations/<client>/<case>.txt`` is what the version says that the lab pins; ``<case>@newest.txt`` exists where the
newest version on its registry says something else. Both are pinned: in ``lambdalab/build/tools.py`` and
``tools/awslambdaric-newest.txt``, in ``go/go.mod`` and ``go/newest.mod``. A version that is not here yet is fetched by
uv or Go from their registries, once. After a change that is meant, record anew and read the difference::

    LAMBDALAB_RECORD=1 .venv/bin/python -m pytest tests/local/test_conversations.py
"""

import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from lambdalab.build.tools import RUNTIME_CLIENT, run_tool
from lambdalab.local.function import FunctionSpec
from lambdalab.local.runtime_api import RESPONSE_LIMIT_BYTES
from lambdalab.project import state_folder
from local.support import GO_FUNCTION, Machine, built_go, go_spec, python_spec, running
from local.tap import shown, tap_environments

ROOT: Final = Path(__file__).parents[2]
RECORDINGS: Final = Path(__file__).parent / "conversations"
NEWEST_PYTHON: Final = ROOT / "tools" / "awslambdaric-newest.txt"
RECORD: Final = "LAMBDALAB_RECORD"
QUOTES: Final = 2
"""Bytes that JSON adds to a text."""
VERSION_SAID: Final = re.compile(rb"(?:aws-lambda-python/[\d.]+-|aws-lambda-go@v)([\d.]+\d)")
"""A client's own version, in its User-Agent or in a stack trace."""
AT_LIMIT: Final = RESPONSE_LIMIT_BYTES - QUOTES

Case = tuple[list[dict[str, Any]], dict[str, Any]]
"""The events that are sent one after the other, and what the function's configuration is besides."""
COMMON: Final[dict[str, Case]] = {
    "success": ([{"do": "sleep", "s": 0}, {"do": "sleep", "s": 0}], {}),
    "handler-error": ([{"do": "fail"}, {"do": "sleep", "s": 0}], {}),
    "exit-in-the-middle": ([{"do": "leave", "code": 3}, {"do": "sleep", "s": 0}], {}),
    "largest-answer": ([{"do": "large", "bytes": AT_LIMIT}, {"do": "sleep", "s": 0}], {}),
    "too-large-answer": ([{"do": "large", "bytes": AT_LIMIT + 1}, {"do": "sleep", "s": 0}], {}),
}
CASES: Final[dict[str, dict[str, Case]]] = {
    "awslambdaric": COMMON
    | {
        "unhandled-exception": ([{"do": "quit_python"}, {"do": "sleep", "s": 0}], {}),
        "init-error": ([{}], {"handler": "broken.handler"}),
        "no-such-handler": ([{}], {"handler": "handlers.absent"}),
        "exit-in-init": ([{}], {"handler": "dies.handler"}),
    },
    "aws-lambda-go": COMMON
    | {
        "panic": ([{"do": "panic"}, {"do": "sleep", "s": 0}], {}),
        "panic-in-init": ([{}], {"variables": {"PANIC_IN_INIT": "1"}}),
        "stream": ([{"do": "stream_whole"}, {"do": "sleep", "s": 0}], {}),
        "stream-that-breaks": ([{"do": "stream"}, {"do": "sleep", "s": 0}], {}),
    },
}


def version_in(text: str) -> str:
    found = re.search(r"(?:awslambdaric==|aws-lambda-go v)([\d.]+)", text)
    assert found is not None, text
    return found[1]


PINNED: Final = {
    "awslambdaric": version_in(RUNTIME_CLIENT),
    "aws-lambda-go": version_in((GO_FUNCTION / "go.mod").read_text()),
}
NEWEST: Final = {
    "awslambdaric": version_in(NEWEST_PYTHON.read_text()),
    "aws-lambda-go": version_in((GO_FUNCTION / "newest.mod").read_text()),
}
# A version that is both is listened to once.
HEARD: Final = [
    ((name, which), case)
    for name, cases in CASES.items()
    for which in ("pinned", "newest")
    if which == "pinned" or PINNED[name] != NEWEST[name]
    for case in cases
]


@dataclass(frozen=True)
class Client:
    """A runtime client in one version, and how a function runs with it."""

    name: str
    which: str
    machine: Machine
    spec: FunctionSpec


@pytest.fixture(scope="session")
def client(request: pytest.FixtureRequest, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Client:
    name, which = request.param
    if name == "aws-lambda-go":
        package = built_go(tmp_path_factory.mktemp("package"), "go.mod" if which == "pinned" else "newest.mod")
        return Client(name, which, machine, go_spec(package, timeout_s=20))
    if which == "newest":
        machine = replace(machine, interpreter=newest_interpreter())
    return Client(name, which, machine, python_spec(timeout_s=20))


def newest_interpreter() -> Path:
    """A Python with the newest runtime client only, made once by uv."""
    folder = state_folder(ROOT) / "interpreters" / f"awslambdaric-{NEWEST['awslambdaric']}"
    python, done = folder / "bin" / "python", folder / "done"
    if not done.exists():
        uv = str(Path(sys.executable).with_name("uv"))
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        run_tool([uv, "venv", "--quiet", "--clear", "--no-python-downloads", "--python", version, str(folder)])
        run_tool([uv, "pip", "install", "--quiet", "--python", str(python), "--requirements", str(NEWEST_PYTHON)])
        done.touch()
    return python


@pytest.mark.parametrize(
    ("client", "case"),
    HEARD,
    indirect=["client"],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
async def test_client_says_what_it_was_recorded_to_say(
    client: Client, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, changes = CASES[client.name][case]
    taps = tap_environments(monkeypatch)
    spec = msgspec.structs.replace(client.spec, **changes)
    async with running(client.machine, spec) as function:
        for event in events:
            await function.invoke(event)
            (environment,) = function.pool.environments
            if environment.pid is None:
                await taps[-1].ended()
        places = {str(spec.package): "/var/task", str(client.machine.interpreter.parents[1]): "/var/lang"}
        said = shown(taps, places)
        versions = {found.decode() for tap in taps for turn in tap.turns for found in VERSION_SAID.findall(turn.data)}
    for tap in taps:
        await tap.close()
    assert versions <= {(PINNED if client.which == "pinned" else NEWEST)[client.name]}
    compare(client, case, said)


def compare(client: Client, case: str, said: str) -> None:
    pinned = RECORDINGS / client.name / f"{case}.txt"
    newest = pinned.with_stem(f"{case}@newest")
    if os.environ.get(RECORD) == "1":
        pinned.parent.mkdir(parents=True, exist_ok=True)
        if client.which == "pinned":
            pinned.write_text(said)
        elif pinned.read_text() != said:
            newest.write_text(said)
        else:
            newest.unlink(missing_ok=True)
    recorded = newest if client.which == "newest" and newest.exists() else pinned
    assert said == recorded.read_text(), f"{client.name} ({client.which}) no longer says {recorded.name}"


def test_function_under_test_has_the_client_of_the_go_function() -> None:
    assert PINNED["aws-lambda-go"] == version_in((ROOT / "src/go/ingest/go.mod").read_text())


def test_every_recording_belongs_to_a_case() -> None:
    known = {f"{name}/{case}" for name, cases in CASES.items() for case in cases}
    found = {f"{path.parent.name}/{path.stem.removesuffix('@newest')}" for path in RECORDINGS.glob("*/*.txt")}
    assert found == known
