"""Output of functions as it comes, and what `status` tells of them, over the real stack."""

import contextlib
import io
import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from lambdalab.errors import UsageError
from lambdalab.invoke import live
from lambdalab.invoke.invocation import invoke_local
from lambdalab.invoke.live import read_lines, since_ms
from lambdalab.report.console import print_line
from local.whole import ROOT, Up, wait_until

PROGRAM = str(Path(sys.executable).with_name("lambdalab"))


def event(count: int = 3, size_bytes: int = 10) -> bytes:
    batch_id = f"live:{secrets.token_hex(4)}"
    return json.dumps({"batch_id": batch_id, "count": count, "size_bytes": size_bytes, "label": "LIVE"}).encode()


def run(up: Up, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], cwd=up.project, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("function", ["PythonIngest", "GoIngest"])
def test_output_is_given_while_the_function_runs(up: Up, function: str) -> None:
    name = up.status()["logical_names"][function]
    in_flight: list[int] = []
    lines: list[str] = []

    def on_line(line: str) -> None:
        if line.startswith("START "):
            in_flight.append(up.status()["functions"][name]["in_flight"])
        lines.append(line)

    with contextlib.chdir(up.project):
        result = invoke_local(up.stack, function, event(count=100, size_bytes=65536), on_line)
    assert in_flight == [1]
    request_id = json.loads(result.payload)["request_id"]
    assert [line.split()[0] for line in lines[-2:]] == ["END", "REPORT"]
    assert all(request_id in line for line in lines), "and of no other invocation"
    assert "".join(lines).endswith(result.log[-200:])


def test_invoke_shows_all_lines_and_the_answer_alone_on_standard_output(up: Up) -> None:
    (up.project / "event.json").write_bytes(event())
    done = run(up, "invoke", "PythonIngest", "-e", "event.json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["written"] == 3
    kinds = [line.split()[0] for line in done.stderr.splitlines() if not line.startswith("{")]
    assert kinds == ["START", "END", "REPORT"]
    assert "\tDuration: " in done.stderr, "the tabs are Lambda's"


def test_logs_are_followed_until_ctrl_c(up: Up) -> None:
    shown = up.project / "followed.txt"
    with shown.open("w") as out:
        process = subprocess.Popen(
            [PROGRAM, "logs", "--follow", "--since", "1h"],
            cwd=up.project,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            ids = [
                json.loads(up.invoke(up.arm(language).function_name, json.loads(event()))["Payload"])["request_id"]
                for language in ("python", "go")
            ]
            wanted = [f"{f} REPORT RequestId: {r}\t" for f, r in zip(("PythonIngest", "GoIngest"), ids, strict=True)]
            wait_until(lambda: all(line in shown.read_text() for line in wanted), 30)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=10)
        finally:
            process.kill()
            process.wait()
    assert (process.returncode, said) == (130, "")
    text = shown.read_text()
    assert "\x1b" not in text
    for request_id in ids:
        assert text.count(f"REPORT RequestId: {request_id}") == 1, "no line twice"


def test_following_ends_when_the_stack_does(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object) -> None:
        raise EndedError

    class EndedError(Exception):
        pass

    monkeypatch.setattr(type(up.stack), "require_alive", ended)
    monkeypatch.setattr(type(up.stack), "status", lambda _: {"logical_names": {}, "functions": {}})
    with pytest.raises(EndedError):
        list(read_lines(up.stack, None, 0, follow=True))


def test_logs_come_by_time_of_one_function_and_from_a_time_on(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    invoked = {
        up.invoke(up.arm(language).function_name, json.loads(event()))["ResponseMetadata"]["RequestId"]
        for language in ("python", "go", "python")
    }

    def found(function: str | None, since: int) -> list[live.Line]:
        with contextlib.chdir(up.project):
            return list(read_lines(up.stack, function, since, follow=False))

    def reported() -> set[str]:
        return {line.message.split()[2] for line in found(None, 0) if line.message.startswith("REPORT ")}

    wait_until(lambda: invoked <= reported(), 10)
    everything = found(None, 0)
    times = [line.timestamp_ms for line in everything]
    assert times == sorted(times)
    assert {line.function for line in everything} == {"PythonIngest", "GoIngest"}
    assert {line.function for line in found("GoIngest", 0)} == {"GoIngest"}
    assert found(up.arm("go").function_name, 0) == found("GoIngest", 0)
    middle = times[len(times) // 2]
    assert all(line.timestamp_ms >= middle for line in found(None, middle))
    monkeypatch.setattr(live, "_PAGE_EVENTS", 40)  # more than share one millisecond
    assert found(None, 0) == everything
    with pytest.raises(UsageError, match=r"no function 'Rust'; name one of: GoIngest, PythonIngest\."):
        found("Rust", 0)


@pytest.mark.parametrize("follow", [[], ["--follow", "--since", "1s"]])
def test_a_reader_that_has_seen_enough_ends_it_as_it_ends_other_programs(up: Up, follow: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [PROGRAM, "logs", *(follow or ["--since", "1d"])],
        cwd=up.project,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=30,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("30s", NOW_MS - 30_000),
        ("5m", NOW_MS - 300_000),
        ("1h", NOW_MS - 3_600_000),
        ("2d", NOW_MS - 2 * 86_400_000),
        ("1w", NOW_MS - 7 * 86_400_000),
        ("999999999w", 0),
        ("2026-01-31T12:00:00Z", 1_769_860_800_000),
        ("2026-01-31T13:00:00+01:00", 1_769_860_800_000),
    ],
)
def test_since(text: str, expected_ms: int) -> None:
    assert since_ms(text, NOW_MS) == expected_ms


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "-5m", "yesterday", "2026-13-01"])
def test_since_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="is no time; write 5m, 1h, 2d or"):
        since_ms(text, NOW_MS)


def printed(*, terminal: bool, line: str, function: str | None) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, color_system="standard" if terminal else None, width=20)
    print_line(console, line, function=function, timestamp_ms=None if function is None else NOW_MS + 7)
    return file.getvalue()


def test_colours_are_for_a_terminal_only() -> None:
    report = "REPORT RequestId: x\tDuration: 1.00 ms\n"
    assert printed(terminal=False, line=report, function=None) == report
    assert printed(terminal=False, line="[b]own[/b]", function="F").endswith(".007 F [b]own[/b]\n")
    assert printed(terminal=True, line=report, function=None).startswith("\x1b[2mREPORT")
    timeout = "2026-11-30T10:00:00.000Z x Task timed out after 1.00 seconds"
    assert printed(terminal=False, line=f"{timeout}\n\n", function=None) == f"{timeout}\n"
    assert printed(terminal=True, line=f"{timeout}\n\n", function=None).startswith("\x1b[31m2026")
    own = printed(terminal=True, line="a line of its own, longer than the terminal", function="F")
    assert own.count("\n") == 1
    assert "\x1b[2m" in own.split("F ")[0], "the time is dim"
    assert "F " in own
    assert own.rstrip().endswith("a line of its own, longer than the terminal")
    colours = {
        printed(terminal=True, line="x", function=name).split("m")[-3:-2][0] for name in ("PythonIngest", "GoIngest")
    }
    assert len(colours) == 2


def test_status_keeps_its_contract(up: Up) -> None:
    schema = json.loads((ROOT / "contracts/status.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    name = up.arm("python").function_name
    before = up.status()["functions"][name]
    up.stack.recycle(name)
    up.invoke(name, json.loads(event()))
    up.invoke(name, json.loads(event()))
    wait_until(lambda: up.status()["functions"][name]["idle"] == 1, 5)
    found = up.status()
    jsonschema.validate(found, schema)
    assert set(found) == set(schema["required"])
    function = found["functions"][name]
    assert set(function) == set(schema["properties"]["functions"]["additionalProperties"]["required"])
    differences = {key: function[key] - before[key] for key in ("invocations", "cold_starts", "warm_invocations")}
    assert differences == {"invocations": 2, "cold_starts": 1, "warm_invocations": 1}
    assert (function["environments"], function["idle"], function["in_flight"]) == (1, 1, 0)
    assert (function["reserved_concurrency"], function["concurrency_limit"]) == (1, 1)
    as_json: dict[str, Any] = json.loads(run(up, "status", "--json").stdout)
    assert as_json.keys() == found.keys()
    table = run(up, "status")
    assert table.returncode == 0
    assert "queue poller of" in table.stdout
