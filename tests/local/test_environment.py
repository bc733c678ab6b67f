"""Environments and pools with the real runtime clients: what a caller, the log and the next invocation see."""

import asyncio
import contextlib
import json
import math
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lambdalab.local import environment as environment_module
from lambdalab.local import pool as pool_module
from lambdalab.local.concurrency import ThrottledError
from lambdalab.local.environment import Outcome
from lambdalab.local.function import FunctionSpec, environment_variables
from lambdalab.local.output import LINE_LIMIT_BYTES
from lambdalab.local.runtime_api import Answer
from lambdalab.logs.platform_lines import billed_ms, parse_failure
from local.support import (
    ARN,
    CREDENTIALS,
    Machine,
    Running,
    answer,
    cgroup_of,
    cpu_limit_us,
    error,
    exists,
    go_spec,
    gone,
    memory_limit_bytes,
    open_descriptors,
    python_spec,
    running,
    state,
)


@pytest.fixture(params=["python", "go"])
def spec(request: pytest.FixtureRequest, go_package: Path) -> FunctionSpec:
    return python_spec() if request.param == "python" else go_spec(go_package)


def pid_of(function: Running) -> int:
    (found,) = function.pool.environments
    assert found.pid is not None
    return found.pid


def causes(function: Running) -> list[tuple[str, str]]:
    """What the platform logged of invocations that it ended."""
    found = (parse_failure(line) for line in function.lines)
    return [(failure.error_type, failure.message) for failure in found if failure is not None]


async def test_first_invocation_is_cold_and_the_second_warm(machine: Machine, spec: FunctionSpec) -> None:
    async with running(machine, spec) as function:
        for _ in range(2):
            answer(await function.invoke(do="facts"))
    cold, warm = function.reports
    assert cold.init_ms is not None
    assert cold.init_ms > 1
    assert cold.billed_ms == billed_ms(cold.duration_ms, cold.init_ms)
    assert cold.billed_ms >= math.floor(cold.duration_ms + cold.init_ms)
    assert warm.init_ms is None
    assert warm.billed_ms == math.ceil(warm.duration_ms)
    for report in (cold, warm):
        assert report.refused is None
        assert report.status is None
        assert report.memory_mb == 512
        assert report.max_memory_mb is not None
        assert 2 < report.max_memory_mb < 100
    assert (function.pool.cold_starts, function.pool.invocations) == (1, 2)


async def test_caller_has_the_answer_before_the_report_unless_the_environment_failed(
    machine: Machine, spec: FunctionSpec
) -> None:
    async with running(machine, spec) as function:
        seen: list[tuple[bytes, int]] = []

        def answered(given: Answer) -> None:
            seen.append((given.payload, len(function.reports)))

        payload = b'{"do":"facts"}'
        _, outcome = await function.pool.invoke(payload, answered=answered)
        assert seen == [(outcome.answer.payload, 0)]
        assert len(function.reports) == 1
        await function.pool.invoke(b'{"do":"leave","code":1}', answered=answered)
    assert len(seen) == 1


async def test_environment_is_free_for_who_follows_the_answer_at_once(machine: Machine) -> None:
    async with running(machine, python_spec(reserved_concurrency=1)) as function:
        running_on: list[asyncio.Task[tuple[str, Outcome]]] = []
        for _ in range(20):
            given: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            work = function.pool.invoke(b'{"do":"echo"}', answered=given.set_result)
            running_on.append(asyncio.create_task(work))
            await given
        await asyncio.gather(*running_on)
    assert (function.pool.cold_starts, function.pool.throttles, len(function.reports)) == (1, 0, 20)


async def test_lines_stand_in_lambdas_order(machine: Machine) -> None:
    async with running(machine, python_spec("chatty.handler")) as function:
        outcome = await function.invoke({})
        await function.invoke({})
    kinds = [re.split(r"[ \n]", line)[0] if line[0].isupper() else line.strip() for line in function.lines]
    once = ["START", "said in the handler", "END", "REPORT"]
    assert kinds == ["said in init", *once, *once]
    requests = re.findall(r"^(?:START|END|REPORT) RequestId: (\S+)", function.text, re.MULTILINE)
    assert requests[:3] == [requests[0]] * 3
    assert requests[3:] == [requests[3]] * 3
    assert requests[0] != requests[3]
    assert outcome.log_tail.decode().startswith("START RequestId:")
    assert outcome.log_tail.decode().endswith("\t\n")


async def test_context_tells_the_function_of_its_invocation(machine: Machine) -> None:
    async with running(machine, python_spec(timeout_s=7)) as function:
        context = json.dumps({"custom": {"who": "j\u00f6rg"}})
        request_id, outcome = await function.pool.invoke(b'{"do": "facts"}', client_context=context)
        found = answer(outcome)
    assert found["request_id"] == request_id
    assert found["arn"] == ARN
    assert found["memory"] == "512"
    assert found["client"] == {"who": "j\u00f6rg"}
    assert 6500 < found["remaining_ms"] <= 7000


@pytest.mark.parametrize("language", ["python", "go"])
async def test_variables_are_exactly_lambdas(
    machine: Machine, go_package: Path, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_OF_THE_TEST", "must not be seen")
    variables = {"OWN": "1", "PATH": "/own", "AWS_REGION": "cannot be set"}
    spec = (python_spec if language == "python" else lambda **c: go_spec(go_package, **c))(variables=variables)
    async with running(machine, spec) as function:
        found = answer(await function.invoke(do="facts"))["variables"]
        (environment,) = function.pool.environments
    found = found if isinstance(found, dict) else dict(pair.split("=", 1) for pair in found)
    assert ("TMPDIR" in found) == (machine.files.kind == "none")
    found.pop("TMPDIR", None)
    trace_id = found.pop("_X_AMZN_TRACE_ID")
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", trace_id)
    found.pop("LC_CTYPE", None)  # CPython sets it where the machine lacks en_US.UTF-8 (PEP 538)
    assert re.fullmatch(r"127\.0\.0\.1:\d+", found["AWS_LAMBDA_RUNTIME_API"])
    assert found == environment_variables(
        spec, CREDENTIALS, runtime_api=found["AWS_LAMBDA_RUNTIME_API"], log_stream=environment.log_stream
    )
    names = {name for name in found if not name.startswith("AWS_")}
    assert names == {"_HANDLER", "HOME", "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT", "LANG", "OWN", "PATH", "TZ"}
    assert "AWS_OF_THE_TEST" not in found
    assert (found["OWN"], found["PATH"], found["AWS_REGION"]) == ("1", "/own", "eu-west-1")
    assert ("AWS_EXECUTION_ENV" in found) == (language == "python")


async def test_only_the_package_and_the_runtime_client_can_be_imported(machine: Machine) -> None:
    async with running(machine, python_spec()) as function:
        found = answer(await function.invoke(do="facts"))
        assert error(await function.invoke(do="sdk")) == ("Runtime.ImportModuleError", "No module named 'boto3'") or (
            error(await function.invoke(do="sdk")) == ("ModuleNotFoundError", "No module named 'boto3'")
        )
    package = found["variables"]["LAMBDA_TASK_ROOT"]
    assert found["folder"] == package
    assert not [
        path
        for path in found["path"]
        if path.startswith(str(Path.cwd())) and "/interpreters/" not in path and path != package
    ]


async def test_exception_goes_to_the_caller_as_the_function_reported_it(machine: Machine) -> None:
    async with running(machine, python_spec()) as function:
        failed = await function.invoke(do="fail")
        answer(await function.invoke(do="echo"))
    body = json.loads(failed.answer.payload)
    assert (body["errorType"], body["errorMessage"]) == ("ValueError", "nein: \u00e4")
    assert "in fail" in "".join(body["stackTrace"])
    first, second = function.reports
    assert (first.status, second.init_ms, second.status) == (None, None, None)


async def test_go_error_and_panic(machine: Machine, go_package: Path) -> None:
    async with running(machine, go_spec(go_package)) as function:
        assert error(await function.invoke(do="fail")) == ("errorString", "nein")
        panicked = await function.invoke(do="panic")
        answer(await function.invoke(do="echo"))
    assert error(panicked) == ("string", "ohne Grund")
    assert [report.init_ms is None for report in function.reports] == [False, True, True]
    assert [report.error_type for report in function.reports] == [None, "Runtime.ExitError", None]


async def test_go_stream_that_breaks_is_an_error_by_its_trailer(machine: Machine, go_package: Path) -> None:
    async with running(machine, go_spec(go_package)) as function:
        assert error(await function.invoke(do="stream")) == ("errorString", "broke in the middle")
        answer(await function.invoke(do="echo"))


@pytest.mark.parametrize(
    ("handler", "error_type", "message"),
    [
        (
            "broken.handler",
            "Runtime.ImportModuleError",
            "Unable to import module 'broken': No module named 'no_such_module'",
        ),
        (
            "nothing.handler",
            "Runtime.ImportModuleError",
            "Unable to import module 'nothing': No module named 'nothing'",
        ),
        ("handlers.nothing", "Runtime.HandlerNotFound", "Handler 'nothing' missing on module 'handlers'"),
        (
            "handlers",
            "Runtime.MalformedHandlerName",
            "Bad handler 'handlers': not enough values to unpack (expected 2, got 1)",
        ),
    ],
)
async def test_init_error_is_logged_tried_again_and_told_to_the_caller(
    machine: Machine, handler: str, error_type: str, message: str
) -> None:
    async with running(machine, python_spec(handler)) as function:
        for _ in range(2):
            assert error(await function.invoke({})) == (error_type, message)
    form = rf"^INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: (\w+)\tStatus: error\tError Type: {error_type}$"
    assert re.findall(form, function.text, re.MULTILINE) == ["init", "invoke", "invoke"]
    assert function.text.count(f"[ERROR] {error_type}: ") == 3, "the runtime client says why, each time"
    assert causes(function) == []
    assert [(r.init_ms, r.status, r.error_type) for r in function.reports] == [(None, "error", error_type)] * 2


async def test_process_that_ends_in_init(machine: Machine) -> None:
    async with running(machine, python_spec("dies.handler")) as function:
        outcome = await function.invoke({})
    assert error(outcome) == ("Runtime.ExitError", "Error: Runtime exited with error: exit status 3")
    assert function.text.count("INIT_REPORT") == 2
    assert causes(function) == [("Runtime.ExitError", "Runtime exited with error: exit status 3")]


async def test_init_has_ten_seconds_and_then_the_functions_own_timeout(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_module, "INIT_LIMIT_S", 0.3)
    async with running(machine, python_spec("slow.handler", timeout_s=1)) as function:
        outcome = await function.invoke({})
    assert error(outcome) == ("Sandbox.Timedout", "Error: Task timed out after 1.00 seconds")
    found = re.findall(
        r"^INIT_REPORT Init Duration: ([\d.]+) ms\tPhase: (\w+)\tStatus: timeout$", function.text, re.MULTILINE
    )
    assert [phase for _, phase in found] == ["init", "invoke"]
    assert [float(took_ms) >= limit_ms for (took_ms, _), limit_ms in zip(found, (300, 1000), strict=True)] == [
        True,
        True,
    ]
    assert function.reports[0].status == "timeout"


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (None, 0o755, r"Couldn't find valid bootstrap\(s\): \[.*/bootstrap\]"),
        (b"#!/bin/sh\n", 0o644, r"fork/exec .*/bootstrap: permission denied"),
        (b"\x7fELF of another machine", 0o755, r"fork/exec .*/bootstrap: exec format error"),
        (b"", 0o755, r"fork/exec .*/bootstrap: exec format error"),
    ],
    ids=["missing", "not executable", "wrong format", "empty"],
)
async def test_bootstrap_that_cannot_be_started(
    machine: Machine, tmp_path: Path, content: bytes | None, mode: int, message: str
) -> None:
    if content is not None:
        (tmp_path / "bootstrap").write_bytes(content)
        (tmp_path / "bootstrap").chmod(mode)
    before = open_descriptors()
    async with running(machine, go_spec(tmp_path)) as function:
        error_type, text = error(await function.invoke({}))
    assert error_type == "Runtime.InvalidEntrypoint"
    assert re.fullmatch("Error: " + message, text)
    assert function.reports[0].error_type == "Runtime.InvalidEntrypoint"
    ((logged_type, logged),) = causes(function)
    assert logged_type == "Runtime.InvalidEntrypoint"
    assert re.fullmatch(message, logged)
    assert len(open_descriptors()) <= len(before) + 1


async def test_timeout_kills_and_the_next_invocation_initialises_silently(machine: Machine, spec: FunctionSpec) -> None:
    async with running(machine, msgspec.structs.replace(spec, timeout_s=1)) as function:
        outcome = await function.invoke(do="sleep", s=30)
        pid = function.pool.environments[0].pid
        await asyncio.sleep(0.2)  # whatever the plane learns late of that end must not matter
        answer(await function.invoke(do="facts"))
        answer(await function.invoke(do="facts"))
    assert pid is None
    assert error(outcome) == ("Sandbox.Timedout", "Error: Task timed out after 1.00 seconds")
    assert causes(function) == [("Sandbox.Timedout", "Task timed out after 1.00 seconds")]
    first, second, third = function.reports
    assert (first.status, first.error_type) == ("timeout", None)
    assert first.init_ms is not None
    assert 1000 <= first.duration_ms < 10_000
    assert first.max_memory_mb is not None
    assert (second.init_ms, second.status) == (None, None)
    assert second.duration_ms > first.init_ms / 10  # init lies inside it, however busy the machine was then or now
    assert (third.init_ms, third.status) == (None, None)
    assert function.pool.cold_starts == 1
    assert len({line for line in function.lines if line.startswith("INIT_REPORT")}) == 0


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ({"do": "leave", "code": 3}, "Error: Runtime exited with error: exit status 3"),
        ({"do": "leave", "code": 0}, "Error: Runtime exited without providing a reason"),
        ({"do": "killed"}, "Error: Runtime exited with error: signal: killed"),
    ],
)
async def test_crash_and_the_invocation_after_it(machine: Machine, do: dict[str, Any], message: str) -> None:
    async with running(machine, python_spec()) as function:
        answer(await function.invoke(do="echo"))
        assert error(await function.invoke(do)) == ("Runtime.ExitError", message)
        line = next(line for line in function.lines if parse_failure(line) is not None)
        after = function.lines[function.lines.index(line) + 1 :]
        assert [text.split()[0] for text in after] == ["END", "REPORT"], "the cause stands before END"
        assert causes(function) == [("Runtime.ExitError", message.removeprefix("Error: "))]
        await asyncio.sleep(0.2)
        assert answer(await function.invoke(do="facts"))["invocations"] == 1
    _, crashed, last = function.reports
    assert (crashed.status, crashed.error_type, crashed.init_ms) == ("error", "Runtime.ExitError", None)
    assert (last.status, last.init_ms) == (None, None)
    assert function.pool.cold_starts == 1


@pytest.mark.needs("cgroup")
async def test_memory_limit_holds(machine: Machine, spec: FunctionSpec) -> None:
    async with running(machine, msgspec.structs.replace(spec, memory_mb=128, timeout_s=20)) as function:
        outcome = await function.invoke(do="allocate", mb=400)
        answer(await function.invoke(do="echo"))
    assert error(outcome) == ("Runtime.OutOfMemory", "Error: Runtime exited with error: signal: killed")
    first, second = function.reports
    assert (first.status, first.error_type) == ("error", "Runtime.OutOfMemory")
    assert (second.status, second.init_ms) == (None, None)


async def test_peak_memory_is_measured_and_never_falls(machine: Machine) -> None:
    async with running(machine, python_spec()) as function:
        for mb in (1, 60, 1):
            answer(await function.invoke(do="allocate", mb=mb))
        peaks = [report.max_memory_mb or 0 for report in function.reports]
    assert 55 <= peaks[1] - peaks[0] <= 75
    assert peaks[1] <= peaks[2] <= peaks[1] + 5


@pytest.mark.needs("cgroup")
async def test_peak_memory_counts_children_also_when_they_have_ended(machine: Machine) -> None:
    async with running(machine, python_spec()) as function:
        for do in ("echo", "large_child", "end_children"):
            answer(await function.invoke(do=do))
        peaks = [report.max_memory_mb or 0 for report in function.reports]
    assert peaks[1] - peaks[0] >= 60
    assert peaks[2] >= peaks[1]


async def test_large_events_and_answers(machine: Machine, spec: FunctionSpec) -> None:
    size = 5 * 1024 * 1024
    async with running(machine, spec) as function:
        assert answer(await function.invoke(do="measure", text="x" * size)) == size
        assert len(answer(await function.invoke(do="large", bytes=size))) == size
        assert len(answer(await function.invoke(do="large", bytes=6 * 1024 * 1024))) == 6 * 1024 * 1024


@pytest.mark.parametrize("megabytes", [7, 20])
async def test_answer_that_is_too_large(machine: Machine, spec: FunctionSpec, megabytes: int) -> None:
    size = megabytes * 1024 * 1024
    async with running(machine, spec) as function:
        outcome = await function.invoke(do="large", bytes=size)
        answer(await function.invoke(do="echo"))
    message = f"Response payload size ({size + 2} bytes) exceeded maximum allowed payload size (6291556 bytes)."
    assert error(outcome) == ("Function.ResponseSizeTooLarge", message)


@pytest.mark.parametrize(
    ("written", "logged"),
    [
        (b"two\nlines\n", ["two\n", "lines\n"]),
        (b"no end", ["no end"]),
        (b"one\nno end", ["one\n", "no end"]),
        (b"\n", ["\n"]),
        (b"", []),
        (b"\xff\xfe bad \xc3\n", ["\ufffd\ufffd bad \ufffd\n"]),
        (b"nul \x00\r\n", ["nul \x00\r\n"]),
    ],
)
async def test_output_becomes_log_lines_of_its_own_invocation(
    machine: Machine, written: bytes, logged: list[str]
) -> None:
    async with running(machine, python_spec()) as function:
        await function.invoke(do="write", hex=written.hex())
        first = list(function.lines)
        await function.invoke(do="echo")
    assert first[1:-2] == logged
    assert len(function.lines) == len(first) + 3


async def test_output_without_an_end_before_a_crash_stays_with_it(machine: Machine, go_package: Path) -> None:
    async with running(machine, go_spec(go_package)) as function:
        await function.invoke(do="write")
        assert function.lines[1] == "without an end"
        await function.invoke(do="leave", code=1)
        await function.invoke(do="echo")
    assert function.text.count("without an end") == 1


async def test_endless_output_does_not_outlive_the_timeout(machine: Machine) -> None:
    async with running(machine, python_spec(timeout_s=1, memory_mb=3538)) as function:
        outcome = await function.invoke(do="flood")
        assert function.reports[0].status == "timeout"
        assert function.reports[0].duration_ms < 5000  # it would never end
        assert len(outcome.log_tail) == 4096
        assert outcome.log_tail.endswith(b"Status: timeout\n")
        answer(await function.invoke(do="echo"))


async def test_very_long_line_is_logged_in_pieces(machine: Machine) -> None:
    async with running(machine, python_spec(timeout_s=20)) as function:
        await function.invoke(do="write", hex=(b"y" * (LINE_LIMIT_BYTES * 2 + 10) + b"\n").hex())
    pieces = function.lines[1:-2]
    assert "".join(pieces) == "y" * (LINE_LIMIT_BYTES * 2 + 10) + "\n"
    assert max(map(len, pieces)) <= LINE_LIMIT_BYTES * 1.5


@pytest.mark.parametrize("ending", ["close", "timeout"])
async def test_child_that_was_left_behind_is_ended(machine: Machine, ending: str) -> None:
    async with running(machine, python_spec(timeout_s=1)) as function:
        child = answer(await function.invoke(do="child", detached=False))
        assert exists(child)
        if ending == "timeout":
            await function.invoke(do="sleep", s=30)
            assert await gone(child)
    assert await gone(child)


@pytest.mark.needs("cgroup")
@pytest.mark.parametrize("ending", ["close", "crash"])
async def test_child_that_left_the_process_group_is_ended_too(machine: Machine, ending: str) -> None:
    async with running(machine, python_spec()) as function:
        child = answer(await function.invoke(do="child", detached=True))
        if ending == "crash":
            await function.invoke(do="leave", code=1)
            assert await gone(child)
    assert await gone(child)


async def test_frozen_between_invocations(machine: Machine) -> None:
    async with running(machine, python_spec()) as function:
        before = answer(await function.invoke(do="tick"))
        for _ in range(200):  # the signal reaches a thread that runs only at its next turn
            if state(pid_of(function)) == "T":
                break
            await asyncio.sleep(0.01)
        assert state(pid_of(function)) == "T"
        await asyncio.sleep(0.5)
        after = answer(await function.invoke(do="tick"))
    assert before > 0
    assert after - before < 50  # half a second would be some 200


async def test_not_frozen_while_the_next_event_is_there(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    signal_group = os.killpg

    def killpg(group: int, number: int) -> None:
        sent.append(number)
        signal_group(group, number)

    monkeypatch.setattr(os, "killpg", killpg)
    async with running(machine, python_spec()) as function:
        for _ in range(5):
            answer(await function.invoke(do="echo"))
        for _ in range(200):  # until it is frozen
            if len(sent) == 3:
                break
            await asyncio.sleep(0.01)
        assert sent == [signal.SIGSTOP, signal.SIGCONT, signal.SIGSTOP]  # after init, for five events, after them
        answer(await function.invoke(do="echo"))
        assert sent[3:] == [signal.SIGCONT]


async def test_thread_that_never_stops_writing_holds_up_nobody(machine: Machine) -> None:
    async with running(machine, python_spec()) as function:
        for _ in range(3):
            answer(await function.invoke(do="babble"))
    assert len(function.reports) == 3
    assert "babble\n" in function.text


@pytest.mark.needs("cgroup")
@pytest.mark.parametrize(("memory_mb", "quota_us"), [(128, 1447), (512, 5789), (1769, 20000), (3538, 40000)])
async def test_cpu_is_limited_from_the_first_invocation_on(machine: Machine, memory_mb: int, quota_us: int) -> None:
    async with running(machine, python_spec(memory_mb=memory_mb, timeout_s=20)) as function:
        environment = function.pool._create(function.pool.spec)
        await environment.initialise()
        assert environment.pid is not None
        group = cgroup_of(environment.pid, "cpu")
        assert cpu_limit_us(group)[0] == -1
        assert memory_limit_bytes(cgroup_of(environment.pid, "memory")) == memory_mb * 1024 * 1024
        invocation = asyncio.create_task(
            environment.invoke(b'{"do": "work", "s": 0.1}', request_id="1", trace_id="", client_context=None)
        )
        await asyncio.sleep(0.05)
        assert not invocation.done()
        assert cpu_limit_us(group) == (quota_us, 20_000)
        assert (await invocation).answer.error_type is None
        await environment.close()
        assert not group.exists()


@pytest.mark.needs("cgroup")
async def test_init_after_a_reset_is_not_limited_either(machine: Machine) -> None:
    async with running(machine, python_spec(memory_mb=128, timeout_s=20)) as function:
        await function.invoke(do="echo")
        group = cgroup_of(pid_of(function), "cpu")
        await function.invoke(do="leave", code=1)
        invocation = asyncio.create_task(function.invoke(do="work", s=0.02))  # long enough to be seen limited
        seen = []
        while not invocation.done():
            seen.append(cpu_limit_us(group)[0])
            await asyncio.sleep(0.001)
    before = seen.index(-1)
    assert set(seen[:before]) <= {1447}  # still the killed process's
    assert list(dict.fromkeys(seen[before:])) == [-1, 1447]


async def test_a_process_may_open_1024_files(machine: Machine, spec: FunctionSpec) -> None:
    async with running(machine, spec) as function:
        found = answer(await function.invoke(do="open_files"))
    assert found["highest"] == 1023
    assert "too many open files" in found["error"].lower()


@pytest.mark.needs("tasks")
async def test_an_environment_may_have_1024_threads(machine: Machine) -> None:
    async with running(machine, python_spec(memory_mb=1769, timeout_s=30)) as function:
        within = answer(await function.invoke(do="start_threads", threads=1000))
        beyond = answer(await function.invoke(do="start_threads", threads=1100))
        answer(await function.invoke(do="echo"))
    assert within == {"started": 1000}
    assert 1000 < beyond["started"] < 1024
    assert beyond["error"] == "can't start new thread"


async def test_recycled_function_starts_cold(machine: Machine) -> None:
    async with running(machine, python_spec()) as function:
        await function.invoke(do="echo")
        pid = pid_of(function)
        function.pool.recycle()
        assert await gone(pid)
        await function.invoke(do="echo")
    assert [report.init_ms is not None for report in function.reports] == [True, True]


async def test_new_configuration_reaches_the_next_invocation_and_spares_the_running_one(machine: Machine) -> None:
    async with running(machine, python_spec()) as function:
        slow = asyncio.create_task(function.invoke(do="sleep", s=0.5))
        await asyncio.sleep(0.2)
        function.pool.reconfigure(python_spec(variables={"NEW": "1"}, memory_mb=256))
        found = answer(await function.invoke(do="facts"))
        assert found["variables"]["NEW"] == "1"
        assert found["memory"] == "256"
        assert answer(await slow) == "slept"
        assert len(function.pool.environments) == 1


async def test_idle_environment_expires(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(machine, python_spec()) as function:
        await function.invoke(do="echo")
        pid = pid_of(function)
        monkeypatch.setattr(pool_module, "IDLE_LIMIT_S", 0.0)
        function.pool.expire()
        assert await gone(pid)
        assert function.pool.environments == ()


async def test_environment_that_died_while_idle_is_replaced(machine: Machine, spec: FunctionSpec) -> None:
    async with running(machine, spec) as function:
        await function.invoke(do="echo")
        os.kill(pid_of(function), signal.SIGKILL)
        await asyncio.sleep(0.1)
        answer(await function.invoke(do="echo"))
    assert [report.init_ms is not None for report in function.reports] == [True, True]


async def test_reserved_concurrency_of_one_throttles_the_second(machine: Machine) -> None:
    async with running(machine, python_spec(reserved_concurrency=1)) as function:
        slow = asyncio.create_task(function.invoke(do="sleep", s=0.3))
        await asyncio.sleep(0.1)
        with pytest.raises(ThrottledError):
            await function.invoke(do="echo")
        assert answer(await slow) == "slept"
        answer(await function.invoke(do="echo"))
        assert (function.pool.throttles, function.pool.cold_starts, function.pool.invocations) == (1, 1, 2)


async def test_reserved_concurrency_of_zero_throttles_everything(machine: Machine) -> None:
    async with running(machine, python_spec(reserved_concurrency=0)) as function:
        with pytest.raises(ThrottledError):
            await function.invoke(do="echo")
        assert function.pool.environments == ()


async def test_concurrent_invocations_have_an_environment_each(machine: Machine) -> None:
    async with running(machine, python_spec(timeout_s=20)) as function:
        found = await asyncio.gather(*(function.invoke(do="sleep", s=0.3) for _ in range(4)))
        assert [answer(outcome) for outcome in found] == ["slept"] * 4
        assert function.pool.cold_starts == 4
        await function.invoke(do="echo")
        assert function.pool.cold_starts == 4


async def test_caller_that_gives_up_leaves_no_environment(machine: Machine) -> None:
    async with running(machine, python_spec()) as function:
        task = asyncio.create_task(function.invoke(do="sleep", s=5))
        await asyncio.sleep(0.4)
        pid = pid_of(function)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert await gone(pid)
        assert function.pool.environments == ()


async def test_close_leaves_nothing_behind(machine: Machine, spec: FunctionSpec) -> None:
    before = open_descriptors()
    async with running(machine, spec) as function:
        await function.invoke(do="echo")
        busy = [asyncio.create_task(function.invoke(do="sleep", s=5)) for _ in range(2)]
        await asyncio.sleep(0.4)
        pids = [environment.pid for environment in function.pool.environments]
        assert len(pids) == 2
    assert not [pid for pid in pids if pid is None or exists(pid)]
    outcomes = await asyncio.gather(*busy)
    assert {outcome.answer.error_type for outcome in outcomes} == {"Runtime.ExitError"}
    for root in getattr(machine.limiter, "_roots", ()):
        assert [child.name for child in root.iterdir() if child.is_dir()] == []
    await asyncio.sleep(0.05)
    assert len(open_descriptors()) <= len(before) + 1


async def test_unpacked_package_may_be_anywhere(machine: Machine, tmp_path: Path) -> None:
    package = tmp_path / "a folder with spaces and \u00fc"
    shutil.copytree(python_spec().package, package)
    async with running(machine, python_spec(package=package)) as function:
        began = time.time()
        assert answer(await function.invoke(do="facts"))["folder"] == str(package)
    assert not list(package.rglob("__pycache__")), f"byte code was written since {began}"


async def test_what_invocations_came_to_is_counted(machine: Machine) -> None:
    async with running(machine, python_spec(timeout_s=2)) as function:

        async def counts_after(**do: Any) -> tuple[int, ...]:
            await function.invoke(**do)
            pool = function.pool
            return (
                pool.cold_starts, pool.warm_invocations, pool.errors, pool.timeouts, pool.crashes, pool.resets
            )  # fmt: skip

        assert await counts_after(do="echo") == (1, 0, 0, 0, 0, 0)
        assert await counts_after(do="fail") == (1, 1, 1, 0, 0, 0)
        assert await counts_after(do="leave", code=1) == (1, 2, 2, 0, 1, 0)
        assert await counts_after(do="echo") == (1, 3, 2, 0, 1, 1)
        assert await counts_after(do="sleep", s=60) == (1, 4, 3, 1, 1, 1)
        assert await counts_after(do="echo") == (1, 5, 3, 1, 1, 2)
