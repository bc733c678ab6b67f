"""The same event to both ingest functions, run by the real runtime clients: the same answer, log records and items.

What may differ is what docs/contracts.md says of direct events and of what a runtime client refuses by itself.
"""

import asyncio
import codecs
import contextlib
import json
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

import pytest
from contract.fake_dynamodb import FakeDynamoDB, without_clock
from fuzz import examples
from hypothesis import example, given

from lambdalab.build.deployment import go_variables
from lambdalab.local.environment import Environment
from lambdalab.local.function import Credentials, FunctionSpec
from lambdalab.local.pool import Pool
from lambdalab.logs.platform_lines import is_platform_line
from local.odd_events import DAMAGED, EVENTS
from local.support import CREDENTIALS, Machine, go_spec, python_spec

ROOT: Final = Path(__file__).parents[2]
WARM: Final = b'{"Records":[]}'
LONG_INTEGER: Final = re.compile(r"(?<![0-9.eE+])(?<![eE]-)[0-9]{4301,}(?![0-9.eE])")
NO_JSON: Final = "no JSON"
LONG: Final = "an integer longer than Python reads"
BLIND: Final = "a direct event with a key twice, or any with a byte order mark: Python's runtime client hides it"
T = TypeVar("T")


class Said(NamedTuple):
    """What one invocation gave: answer, error type, log lines and calls to DynamoDB, clocks and language taken out."""

    payload: bytes
    error_type: str | None
    log: list[str]
    puts: list[str]

    @property
    def answer(self) -> Any:
        return json.loads(self.payload)

    @property
    def any_answer(self) -> str:
        return of_any_language(without_clock(self.answer))

    @property
    def records(self) -> list[str]:
        """Those of the lines that are log records: a stack trace would be another."""
        return [line for line in self.log if line.startswith('{"_aws":')]


@dataclass
class Function:
    """One of the two, in an environment that lives as long as it does not fail."""

    language: str
    pool: Pool = field(repr=False)
    dynamodb: FakeDynamoDB = field(repr=False)
    lines: list[str] = field(default_factory=list, repr=False)

    async def invoke(self, payload: bytes, request_id: str) -> Said:
        self.lines.clear()
        self.dynamodb.puts.clear()
        _, outcome = await self.pool.invoke(payload, request_id=request_id)
        said = Said(
            payload=outcome.answer.payload,
            error_type=outcome.answer.error_type,
            log=[as_logged(line) for line in self.lines if not is_platform_line(line)],
            puts=sorted(of_any_language(json.dumps(put, sort_keys=True)) for put in self.dynamodb.puts),
        )
        if outcome.report.status is not None:  # so that the next event finds no first invocation here alone
            await self.pool.invoke(WARM)
        return said


def as_logged(line: str) -> str:
    """A log record without clocks and language, other lines as they are."""
    return of_any_language(without_clock(json.loads(line))) if line.startswith("{") else line


def of_any_language(text: str) -> str:
    return text.replace('"lang":"python"', '"lang":"go"').replace('"lang": {"S": "python"}', '"lang": {"S": "go"}')


@dataclass
class Both:
    """The two functions, on an event loop of their own, so that tests may draw."""

    loop: asyncio.AbstractEventLoop
    functions: list[Function] = field(default_factory=list, repr=False)
    """How many events of each kind came."""
    messages: int = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    def invoke(self, payload: bytes) -> tuple[Said, Said]:
        """Python's and Go's."""
        return self.run(self._invoke(payload))

    async def _invoke(self, payload: bytes) -> tuple[Said, Said]:
        request_id = str(uuid.uuid4())
        in_python, in_go = await asyncio.gather(*(one.invoke(payload, request_id) for one in self.functions))
        return in_python, in_go


def packages(folder: Path) -> dict[str, FunctionSpec]:
    """The functions as ``sam build`` packs them."""
    (folder / "go").mkdir()
    build = ["go", "build", "-o", str(folder / "go/bootstrap"), "."]
    subprocess.run(build, cwd=ROOT / "src/go/ingest", env=go_variables(), check=True)
    source = ROOT / "src/python/ingest"
    shutil.copytree(source, folder / "python", ignore=shutil.ignore_patterns("__pycache__"))
    install = ["uv", "pip", "install", "--quiet", "--target", str(folder / "python")]
    install += ["-r", str(source / "requirements.txt"), "--python", sys.executable]
    subprocess.run(install, env=go_variables(), check=True)
    settings: dict[str, Any] = {"variables": {"TABLE_NAME": "items"}, "memory_mb": 1769, "timeout_s": 60}
    return {
        "python": python_spec("handler.handler", package=folder / "python", **settings),
        "go": go_spec(folder / "go", **settings),
    }


@pytest.fixture(scope="module")
def both(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    found = Both(asyncio.new_event_loop())
    thread = threading.Thread(target=found.loop.run_forever)
    with contextlib.ExitStack() as undo:
        thread.start()
        undo.callback(found.loop.close)
        undo.callback(thread.join)
        undo.callback(found.loop.call_soon_threadsafe, found.loop.stop)
        for language, spec in packages(tmp_path_factory.mktemp("packages")).items():
            dynamodb = FakeDynamoDB()
            undo.callback(dynamodb.close)
            function = Function(language, Pool(spec, lambda _: pytest.fail("not yet")), dynamodb)
            function.pool = Pool(spec, creator(machine, function))
            found.functions.append(function)
            undo.callback(lambda pool: found.run(pool.close()), function.pool)
        found.invoke(WARM)
        yield found


def creator(machine: Machine, function: Function) -> Callable[[FunctionSpec], Environment]:
    credentials = Credentials(
        access_key_id=CREDENTIALS.access_key_id,
        secret_access_key=CREDENTIALS.secret_access_key,
        endpoint_url=function.dynamodb.url,
    )
    return lambda spec: Environment(
        spec,
        interpreter=machine.interpreter,
        credentials=credentials,
        limits=machine.limiter.create(uuid.uuid4().hex[:12]),
        emit=lambda _, line: function.lines.append(line),
    )


class TwiceError(ValueError):
    """An object has a key twice."""


def refuse(name: str) -> NoReturn:
    raise ValueError(name)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise TwiceError
    return dict(pairs)


def kind_of(payload: bytes) -> str:
    """How docs/contracts.md ("Message") says that both functions get an event."""
    if payload.startswith(codecs.BOM_UTF8):
        return BLIND
    try:
        text = payload.decode()
        event = json.loads(text, parse_constant=refuse, parse_int=len)
        if LONG_INTEGER.search(re.sub(r'"(?:\\.|[^"\\])*"', "", text)):
            return LONG
    except (ValueError, RecursionError):
        return NO_JSON
    if isinstance(event, dict) and "Records" in event:
        return "SQS"
    try:
        json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    except TwiceError:
        return BLIND
    return "direct"


def check(both: Both, payload: bytes) -> str:
    """Holds one event against everything that is promised; returns what it was."""
    in_python, in_go = both.invoke(payload)
    both.messages += len(in_go.records)
    kind = kind_of(payload)
    assert in_go.error_type is None, in_go
    assert in_go.log == in_go.records, in_go
    if kind in (NO_JSON, LONG):  # the runtime client refuses it, without a stack
        assert in_python.answer["errorType"] == "Runtime.UnmarshalError", in_python
        assert in_python.answer["stackTrace"] == [], in_python
        assert in_python.puts == []
        if kind == NO_JSON:
            assert in_go.answer["error"]["code"] == "InvalidJson"
            assert in_go.puts == []
        return kind
    if kind == BLIND:
        assert in_go.answer["error"]["code"] == "InvalidJson"
        assert in_python.answer.get("stackTrace", []) == []
        return kind
    assert in_python.error_type is None, in_python
    assert in_python.log == in_python.records, in_python
    assert in_python.any_answer == in_go.any_answer
    assert in_python.log == in_go.log
    assert in_python.puts == in_go.puts
    became = "refused" if "error" in in_go.answer else "items" if in_go.puts else "no items"
    return f"{kind}, {became}"


def test_both_functions_agree_and_every_kind_of_event_was_among_them(both: Both) -> None:
    seen = Counter[str]()

    @examples(1500)
    @given(EVENTS)
    def on_any_event(payload: bytes) -> None:
        seen[check(both, payload)] += 1

    @examples(500)
    @given(DAMAGED)
    @example(b"")
    @example(b"\xef\xbb\xbf{}")
    @example(b"\xff")
    @example(b'{"count":' + b"9" * 5000 + b"}")
    @example(b'{"batch_id":"a","batch_id":"b","count":1}')
    def on_damaged_events(payload: bytes) -> None:
        seen[check(both, payload)] += 1

    on_any_event()
    on_damaged_events()
    of_functions = {f"{kind}, {became}" for kind in ("SQS", "direct") for became in ("refused", "items", "no items")}
    print(f"{seen.total()} events, {both.messages} messages: {dict(seen)}")
    assert set(seen) == {*of_functions - {"direct, no items"}, NO_JSON, LONG, BLIND}
