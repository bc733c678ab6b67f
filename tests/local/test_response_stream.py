"""InvokeWithResponseStream, by boto3, of real functions: chunks come as they are written, then how it ended."""

import asyncio
import base64
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from lambdalab.local import runtime_api
from lambdalab.loopback import LOCAL_KEY
from local.support import Machine, go_spec, invoke_api, python_spec, running


@pytest.fixture
def released(go_package: Path) -> Iterator[Path]:
    """The name of a file that ends a function's wait; it is not there yet."""
    path = go_package / f"released-{secrets.token_hex(4)}"
    yield path
    path.unlink(missing_ok=True)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition; the test's own limit ends it."""
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)


def client(url: str) -> Any:
    session = boto3.Session(LOCAL_KEY, LOCAL_KEY, region_name="us-east-1")
    return session.client("lambda", endpoint_url=url)


async def streamed(url: str, event: object, **more: Any) -> tuple[list[bytes], dict[str, Any], dict[str, Any]]:
    """Chunks, the completion, and the head of an answer."""

    def call() -> tuple[list[bytes], dict[str, Any], dict[str, Any]]:
        aws = client(url)
        answer = aws.invoke_with_response_stream(FunctionName="under-test", Payload=json.dumps(event), **more)
        *chunks, last = list(answer["EventStream"])
        aws.close()
        return [chunk["PayloadChunk"]["Payload"] for chunk in chunks], last["InvokeComplete"], answer

    return await asyncio.to_thread(call)


async def test_chunks_come_while_the_function_writes(machine: Machine, go_package: Path, released: Path) -> None:
    async with running(machine, go_spec(go_package)) as function, invoke_api(function.pool) as url:
        aws = client(url)
        invoke = aws.invoke_with_response_stream
        event = json.dumps({"do": "stream_waits", "text": str(released)})
        answer = await asyncio.to_thread(invoke, FunctionName="under-test", Payload=event)
        events = iter(answer["EventStream"])
        first = await asyncio.to_thread(next, events)
        assert (first["PayloadChunk"]["Payload"], function.pool.in_flight) == (b"one", 1)
        await asyncio.to_thread(released.touch)
        rest = await asyncio.to_thread(list, events)
        aws.close()
    assert rest == [{"PayloadChunk": {"Payload": b"two"}}, {"InvokeComplete": {}}]
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    assert answer["ResponseStreamContentType"] == "application/vnd.amazon.eventstream"
    (report,) = function.reports
    assert (report.status, report.request_id) == (None, answer["ResponseMetadata"]["RequestId"])


async def test_a_function_that_does_not_stream_answers_in_one_chunk(machine: Machine) -> None:
    async with running(machine, python_spec()) as function, invoke_api(function.pool) as url:
        event = {"do": "echo", "text": "x" * 2_000_000}
        chunks, complete, _ = await streamed(url, event)
        _, tail, _ = await streamed(url, {"do": "echo"}, LogType="Tail")
    assert [json.loads(chunk) for chunk in chunks] == [event]
    assert complete == {}
    assert base64.b64decode(tail["LogResult"]).decode().splitlines()[-1].startswith("REPORT RequestId: ")


async def test_an_error_of_the_function_comes_with_the_completion(machine: Machine, go_package: Path) -> None:
    async with running(machine, python_spec()) as function, invoke_api(function.pool) as url:
        chunks, complete, _ = await streamed(url, {"do": "fail"})
    assert chunks == []
    assert complete["ErrorCode"] == "Function.Unknown"
    assert json.loads(complete["ErrorDetails"])["errorType"] == "ValueError"
    async with running(machine, go_spec(go_package)) as function, invoke_api(function.pool) as url:
        chunks, complete, _ = await streamed(url, {"do": "stream"})
        whole, good, _ = await streamed(url, {"do": "stream_whole"})
    assert b"".join(chunks) == b'"the first half'
    assert json.loads(complete["ErrorDetails"])["errorMessage"] == "broke in the middle"
    assert (b"".join(whole), good) == (b'"the first half and the second"', {})


async def test_a_function_that_ends_or_times_out_in_the_middle(
    machine: Machine, go_package: Path, released: Path
) -> None:
    async with running(machine, go_spec(go_package, timeout_s=1)) as function, invoke_api(function.pool) as url:
        chunks, crashed, _ = await streamed(url, {"do": "stream_leaves", "code": 3})
        assert (chunks, crashed) == ([b"one"], {"ErrorCode": "Runtime.TruncatedResponse"})
        chunks, late, _ = await streamed(url, {"do": "stream_waits", "text": str(released)})
    assert (chunks, late["ErrorCode"]) == ([b"one"], "Sandbox.Timedout")
    assert "Task timed out after 1.00 seconds" in late["ErrorDetails"]
    assert [(report.status, report.error_type) for report in function.reports] == [
        ("error", "Runtime.ExitError"),
        ("timeout", None),
    ]


async def test_a_stream_beyond_the_limit_breaks_off(
    machine: Machine, go_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_api, "STREAM_LIMIT_BYTES", 1_000_000)
    async with running(machine, go_spec(go_package)) as function, invoke_api(function.pool) as url:
        chunks, complete, _ = await streamed(url, {"do": "stream_large", "bytes": 1_000_000})
        assert (len(b"".join(chunks)), complete) == (1_000_000, {})
        chunks, complete, _ = await streamed(url, {"do": "stream_large", "bytes": 1_000_001})
    assert len(b"".join(chunks)) <= 1_000_000
    assert complete["ErrorCode"] == "Function.ResponseSizeTooLarge"


async def test_a_slow_caller_slows_the_function_down_and_one_that_left_does_not(
    machine: Machine, go_package: Path
) -> None:
    size = 30_000_000
    event = json.dumps({"do": "stream_large", "bytes": size}).encode()
    head = b"POST /2021-11-15/functions/under-test/response-streaming-invocations HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(event) + event
    async with running(machine, go_spec(go_package, timeout_s=30)) as function, invoke_api(function.pool) as url:
        for leaves in (False, True):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]), limit=1000)
            writer.write(request)
            await reader.readexactly(100)
            await asyncio.sleep(0.5)
            assert function.pool.in_flight == 1, "it waits until its caller takes more"
            if leaves:
                writer.close()
            else:
                read = bytearray()
                while not read.endswith(b"\r\n0\r\n\r\n"):
                    read += await reader.read(2**20)
                assert len(read) > size
                writer.close()
            await until(lambda: function.pool.in_flight == 0)
        assert [report.status for report in function.reports] == [None, None]


async def test_what_never_started_is_refused_as_invoke_refuses_it(machine: Machine) -> None:
    spec = python_spec(reserved_concurrency=0)
    async with running(machine, spec) as function, invoke_api(function.pool) as url:
        for more, code in (
            ({}, "TooManyRequestsException"),
            ({"InvocationType": "Event"}, "InvalidParameterValueException"),
            ({"Qualifier": "7"}, "ResourceNotFoundException"),
        ):
            with pytest.raises(ClientError, match=code):
                await streamed(url, {}, **more)


async def test_the_old_asynchronous_call_is_taken(machine: Machine) -> None:
    async with running(machine, python_spec()) as function, invoke_api(function.pool) as url:
        aws = client(url)
        answer = await asyncio.to_thread(aws.invoke_async, FunctionName="under-test", InvokeArgs='{"do": "echo"}')
        aws.close()
        assert answer["Status"] == 202
        await until(lambda: function.reports != [])
