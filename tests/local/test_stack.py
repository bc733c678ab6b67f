"""The whole stack: messages in, items out, whatever happens in between; and the plane as Lambda for boto3."""

import base64
import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from lambdalab.errors import EventError, UsageError
from lambdalab.invoke.invocation import invoke_local
from lambdalab.local.http import BODY_LIMIT_BYTES
from lambdalab.logs.platform_lines import parse_report
from lambdalab.run.target import Resources
from local.support import exists
from local.whole import LANGUAGES, Up, both, processes_of, wait_until

LONG = {"python": 30, "go": 100}
POISON = '{"batch_id": "poison", "count": \u00fc"\n\t broken '


def batch(count: int = 3, size_bytes: int = 100, label: str = "TEST") -> dict[str, Any]:
    return {"batch_id": f"t:{secrets.token_hex(4)}", "size_bytes": size_bytes, "count": count, "label": label}


def long(language: str) -> dict[str, Any]:
    """Takes long enough to be killed, and also on a slow and busy machine far less than the timeout."""
    return batch(LONG[language], 65536, "LONG")


def settle(up: Up, language: str, timeout_s: float = 40) -> None:
    wait_until(lambda: up.drained(language), timeout_s)


def sequence(items: list[dict[str, Any]]) -> list[int]:
    return sorted(int(item["seq"]["N"]) for item in items)


@pytest.fixture(autouse=True)
def nothing_dead(up: Up) -> Iterator[None]:
    """Every message that a test does not expect in a dead-letter queue must stay out of it."""
    yield
    for language in LANGUAGES:
        settle(up, language)
        assert up.dead_letters(language) == []


@pytest.mark.parametrize(
    ("function", "event", "kind", "said"),
    [
        ("Nope", b"{}", UsageError, "the local stack has no function 'Nope'; name one of: GoIngest, PythonIngest."),
        ("", b"{}", UsageError, "'' is no name of a function; name one of: GoIngest, PythonIngest."),
        ("GoIngest", b"[1", EventError, "GoIngest does not take this event: Could not parse request body into json"),
        ("GoIngest", b'"%s"' % (b"x" * 6_300_000), EventError, "GoIngest does not take this event: "),
    ],
)
def test_an_invocation_that_is_refused_is_said_in_a_sentence(
    up: Up, function: str, event: bytes, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as caught:
        invoke_local(up.stack, function, event)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(said)


def test_an_invocation_answers_with_its_log(up: Up) -> None:
    result = invoke_local(up.stack, "GoIngest", json.dumps(batch()).encode())
    assert (result.function_error, json.loads(result.payload)["written"]) == (None, 3)
    assert "REPORT RequestId: " in result.log


def test_same_message_three_times_leaves_its_items_once(up: Up) -> None:
    message = batch(count=10)

    def thrice(language: str) -> list[int]:
        for _ in range(3):
            up.send(language, message)
        settle(up, language)
        return sequence(up.items(language, message["batch_id"]))

    assert both(thrice) == [list(range(10))] * 2


@pytest.mark.parametrize("mode", ["concurrent", "batch"])
def test_a_mode_writes_every_item_once_also_when_delivered_again(up: Up, mode: str) -> None:
    message = batch(count=60, size_bytes=2000) | {"mode": mode}  # two full calls of a batch and a part of one

    def written(language: str) -> tuple[list[dict[str, Any]], list[int], dict[str, Any]]:
        up.send(language, message)
        settle(up, language)
        first = up.items(language, message["batch_id"])
        up.send(language, message)
        settle(up, language)
        answer = json.loads(up.invoke(up.arm(language).function_name, message)["Payload"])
        return first, sequence(up.items(language, message["batch_id"])), answer

    for first, again, answer in both(written):
        assert sequence(first) == again == list(range(60))
        assert {item["payload"]["S"] for item in first} == {"x" * 2000}
        assert answer["mode"] == mode
        if mode == "batch":
            assert (answer["written"], answer["put_ms"]["n"], answer.get("duplicates")) == (60, 3, None)
        else:
            assert (answer["written"], answer["put_ms"]["n"], answer["duplicates"]) == (0, 60, 60)


def test_items_of_both_languages_are_equal_but_for_language_and_time(up: Up) -> None:
    message = batch(count=5, size_bytes=1024)

    def written(language: str) -> list[dict[str, Any]]:
        local_start = time.time()
        up.stack.recycle(up.arm(language).function_name)
        up.send(language, message)
        settle(up, language)
        items = sorted(up.items(language, message["batch_id"]), key=lambda item: item["sk"]["S"])
        for item in items:
            assert item.pop("lang") == {"S": language}
            assert local_start * 1000 - 1 < int(item.pop("t_start_ms")["N"]) < time.time() * 1000 + 1
        return items

    with contextlib.chdir(up.project):
        python, go = both(written)
    assert python == go
    assert len(python) == 5
    assert python[0] == {
        "pk": {"S": f"batch_id#{message['batch_id']}"},
        "sk": {"S": "seq#0"},
        "label": {"S": "TEST"},
        "size_bytes": {"N": "1024"},
        "seq": {"N": "0"},
        "payload": {"S": "x" * 1024},
        "cold_start": {"BOOL": True},
    }


def test_malformed_message_ends_in_the_dead_letter_queue_alone_and_unchanged(up: Up) -> None:
    good = batch()

    def poisoned(language: str) -> tuple[list[str], int]:
        up.send(language, POISON)
        up.send(language, good)
        settle(up, language)
        return up.dead_letters(language), len(up.items(language, good["batch_id"]))

    with up.visibility(2):
        assert both(poisoned) == [([POISON], 3)] * 2


def test_only_the_poison_of_a_batch_fails(up: Up) -> None:
    goods = [batch() for _ in range(4)]

    def mapping(language: str) -> str:
        name = up.arm(language).function_name
        return up.aws.lambda_.list_event_source_mappings(FunctionName=name)["EventSourceMappings"][0]["UUID"]

    def batch_sizes() -> set[int]:
        return {found["batch_size"] for found in up.status()["mappings"].values()}

    def resize(size: int) -> None:
        for language in LANGUAGES:
            up.aws.lambda_.update_event_source_mapping(UUID=mapping(language), BatchSize=size, Enabled=False)
        wait_until(lambda: batch_sizes() == {size}, 5)

    def poisoned(language: str) -> tuple[list[str], list[int], int]:
        before = up.status()["functions"][up.arm(language).function_name]["invocations"]
        bodies = [json.dumps(good) for good in goods]
        up.aws.sqs.send_message_batch(
            QueueUrl=up.arm(language).queue_url,
            Entries=[{"Id": str(i), "MessageBody": body} for i, body in enumerate([*bodies[:2], POISON, *bodies[2:]])],
        )
        settle(up, language)
        after = up.status()["functions"][up.arm(language).function_name]["invocations"]
        found = [len(up.items(language, good["batch_id"])) for good in goods]
        return up.dead_letters(language), found, after - before

    resize(5)
    try:
        with up.visibility(2):
            for dead, found, invocations in both(poisoned):
                assert dead == [POISON]
                assert found == [3] * 4
                assert invocations <= 4  # one message at a time would be six
    finally:
        resize(1)


def test_every_setting_of_a_mapping_is_followed(up: Up) -> None:
    name = up.arm("go").function_name
    (deployed,) = up.aws.lambda_.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
    good, other = batch(label="WANTED"), batch(label="OTHER")

    def update(**settings: Any) -> None:
        up.aws.lambda_.update_event_source_mapping(UUID=deployed["UUID"], Enabled=False, **settings)

    def followed(**wanted: Any) -> bool:
        found = up.status()["mappings"][name]
        return {key: found[key] for key in wanted} == wanted

    pattern = json.dumps({"body": {"label": ["WANTED"]}})
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"ScalingConfig": {"MaximumConcurrency": 2}}, {"maximum_concurrency": 2}),
        ({"MaximumBatchingWindowInSeconds": 1}, {"window_s": 1}),
        ({"BatchSize": 20}, {"batch_size": 20}),
        ({"FilterCriteria": {"Filters": [{"Pattern": pattern}]}}, {"filters": 1}),
        ({"FunctionResponseTypes": []}, {"reports_batch_item_failures": False}),
    ]
    try:
        for settings, wanted in changes:
            update(**settings)
            wait_until(lambda wanted=wanted: followed(**wanted), 5)  # type: ignore[misc]
        with pytest.raises(up.aws.lambda_.exceptions.InvalidParameterValueException, match="not a pattern"):
            update(FilterCriteria={"Filters": [{"Pattern": "not a pattern"}]})  # what Lambda refuses changes nothing
        assert followed(filters=1)
        up.send("go", good)
        up.send("go", other)
        settle(up, "go")
        assert up.status()["mappings"][name]["filtered"] == 1
        assert [len(up.items("go", sent["batch_id"])) for sent in (good, other)] == [3, 0]
    finally:
        update(
            BatchSize=1,
            MaximumBatchingWindowInSeconds=0,
            ScalingConfig={},
            FilterCriteria={"Filters": []},
            FunctionResponseTypes=["ReportBatchItemFailures"],
        )
    wait_until(lambda: followed(batch_size=1, filters=0, maximum_concurrency=None, window_s=0), 5)


def test_environment_killed_in_the_middle_of_a_batch_loses_nothing(up: Up) -> None:
    def killed(language: str) -> tuple[int, list[int]]:
        message = long(language)
        up.send(language, message)
        wait_until(lambda: len(up.items(language, message["batch_id"])) >= 10, 20)
        (pid,) = up.pids(language)
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        partial = len(up.items(language, message["batch_id"]))
        settle(up, language, 50)
        return partial, sequence(up.items(language, message["batch_id"]))

    for language, (partial, found) in zip(LANGUAGES, both(killed), strict=True):
        assert 10 <= partial < LONG[language]
        assert found == list(range(LONG[language]))


def test_plane_killed_in_the_middle_of_a_batch_loses_nothing_and_leaves_nothing(up: Up) -> None:
    message = long("python")
    first = up.send("python", message)
    assert first
    up.send("go", batch())  # so that there is an idle, stopped environment as well
    settle(up, "go")
    wait_until(lambda: len(up.items("python", message["batch_id"])) >= 5, 20)
    pids = [pid for language in LANGUAGES for pid in up.pids(language)]
    groups = list(Path("/sys/fs/cgroup").glob(f"**/lambdalab-{up.stack.plane.pid}"))
    os.kill(up.stack.plane.pid, signal.SIGKILL)
    wait_until(lambda: not any(exists(pid) for pid in pids), 5)
    wait_until(lambda: not any(folder.exists() for folder in groups), 5)
    assert len(pids) == 2
    later = batch()
    up.send("go", later)
    os.waitpid(up.stack.plane.pid, 0)
    up.stack = msgspec.structs.replace(up.stack, plane=up.start_plane(up.stack.plane.port))
    for language in LANGUAGES:
        settle(up, language, 50)
    assert sequence(up.items("python", message["batch_id"])) == list(range(LONG["python"]))
    assert sequence(up.items("go", later["batch_id"])) == [0, 1, 2]


def test_plane_that_is_asked_to_end_finishes_its_batch_and_leaves_nothing(up: Up) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    before = processes_of(up.project)
    second = up.start_plane(port)
    client = msgspec.structs.replace(up.stack, plane=second).aws().lambda_
    with contextlib.closing(client):
        for language in LANGUAGES:
            up.invoke(up.arm(language).function_name, batch(), client)
    groups = list(Path("/sys/fs/cgroup").glob(f"**/lambdalab-{second.pid}"))
    began = time.monotonic()
    second.end(grace_s=20)
    assert time.monotonic() - began < 8
    assert not [folder for folder in groups if folder.exists()]
    wait_until(lambda: len(processes_of(up.project)) <= len(before), 5)
    assert (up.project / ".lambdalab" / f"plane-{port}.log").read_text() == ""


def listening_addresses(pids: list[int]) -> set[str]:
    """Local addresses, as /proc/net/tcp writes them, on which these processes listen."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].rsplit(":", 1)[0])
    return found


def test_everything_listens_on_loopback_only(up: Up) -> None:
    for language in LANGUAGES:
        up.invoke(up.arm(language).function_name, batch())
    pids = [int(line.split()[0]) for line in processes_of(up.project)]
    assert {up.stack.plane.pid, up.stack.emulator.pid, *up.pids("python"), *up.pids("go")} <= set(pids)
    assert listening_addresses(pids) == {"0100007F"}


def test_invoke_answers_and_tells_the_end_of_the_log(up: Up) -> None:
    for language in LANGUAGES:
        up.stack.recycle(up.arm(language).function_name)
        message = batch()
        answer = up.invoke(up.arm(language).function_name, message, LogType="Tail")
        assert answer["StatusCode"] == 200
        assert answer["ExecutedVersion"] == "$LATEST"
        assert "FunctionError" not in answer
        summary = json.loads(answer["Payload"])
        assert (summary["written"], summary["duplicates"]) == (3, 0)
        tail = base64.b64decode(answer["LogResult"]).decode()
        lines = tail.splitlines()
        report = parse_report(lines[-1])
        assert report is not None
        assert report.refused is None
        assert report.init_ms is not None
        assert report.request_id == summary["request_id"] == answer["ResponseMetadata"]["RequestId"]
        assert [line.split()[0] for line in (lines[0], lines[-2])] == ["START", "END"]
        assert json.loads(lines[1])["batch_id"] == message["batch_id"]
        assert "LogResult" not in up.invoke(up.arm(language).function_name)


@pytest.mark.parametrize("form", ["arn", "logical", "qualifier", "name with qualifier"])
def test_function_may_be_named_in_every_way(up: Up, form: str) -> None:
    name = up.arm("python").function_name
    arn = up.aws.lambda_.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
    names = {"arn": arn, "logical": "PythonIngest", "qualifier": name, "name with qualifier": f"{name}:$LATEST"}
    extra: dict[str, Any] = {"Qualifier": "$LATEST"} if form == "qualifier" else {}
    assert up.invoke(names[form], batch(), **extra)["StatusCode"] == 200


def test_dry_run_runs_nothing(up: Up) -> None:
    name = up.arm("python").function_name
    before = up.status()["functions"][name]["invocations"]
    assert up.invoke(name, InvocationType="DryRun")["StatusCode"] == 204
    assert up.status()["functions"][name]["invocations"] == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"FunctionName": "nobody"}, "ResourceNotFoundException"),
        ({"Payload": "{"}, "InvalidRequestContentException"),
        ({"Payload": "NaN"}, "InvalidRequestContentException"),
        ({"Payload": "[" * 100_000}, "InvalidRequestContentException"),
        ({"Payload": '"' + "x" * (6 * 1024 * 1024) + '"'}, "RequestTooLargeException"),
        ({"Payload": '"' + "x" * (17 * 1024 * 1024) + '"'}, "RequestTooLargeException"),
        ({"Qualifier": "prod"}, "ResourceNotFoundException"),
        ({"InvocationType": "Event", "Payload": "{"}, "InvalidRequestContentException"),
        ({"InvocationType": "Event", "Payload": '"' + "x" * (1024 * 1024 - 1) + '"'}, "RequestTooLargeException"),
        ({"InvocationType": "Event", "Qualifier": "prod"}, "ResourceNotFoundException"),
        ({"InvocationType": "Later"}, "InvalidParameterValueException"),
        ({"LogType": "Head"}, "InvalidParameterValueException"),
        ({"FunctionName": "nobody", "InvocationType": "Event"}, "ResourceNotFoundException"),
        ({"ClientContext": base64.b64encode(b'"' + b"x" * 2686 + b'"').decode()}, "InvalidRequestContentException"),
        ({"ClientContext": "not base64"}, "InvalidRequestContentException"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_invoke_refuses_by_lambdas_own_names(up: Up, arguments: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError) as caught:
        up.aws.lambda_.invoke(**({"FunctionName": up.arm("python").function_name} | arguments))
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["RequestId"]


def test_largest_payload_and_context_are_taken(up: Up) -> None:
    name = up.arm("python").function_name
    payload = " " * (6 * 1024 * 1024 - 2) + "{}"
    context = base64.b64encode(b'"' + b"x" * 2683 + b'"').decode()
    assert len(context) == 3580
    answer = up.aws.lambda_.invoke(FunctionName=name, Payload=payload, ClientContext=context)
    assert answer["StatusCode"] == 200
    assert answer["FunctionError"] == "Unhandled"
    assert json.loads(answer["Payload"].read())["errorType"]


def test_second_invocation_at_a_time_is_throttled(up: Up) -> None:
    name = up.arm("python").function_name
    once = up.aws.session.client(  # boto3 would try again until the first is done
        "lambda", endpoint_url=up.stack.lambda_endpoint_url, config=Config(retries={"total_max_attempts": 1})
    )
    with contextlib.closing(once), ThreadPoolExecutor(1) as threads:
        slow = threads.submit(up.invoke, name, long("python"))
        wait_until(lambda: up.status()["functions"][name]["in_flight"] == 1, 5)
        with pytest.raises(once.exceptions.TooManyRequestsException) as caught:
            once.invoke(FunctionName=name)
        assert slow.result()["StatusCode"] == 200
    assert dict(caught.value.response)["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert up.status()["functions"][name]["throttles"] >= 1


def test_reservation_that_leaves_less_than_a_hundred_is_refused(up: Up) -> None:
    name, other = (up.arm(language).function_name for language in LANGUAGES)
    reserve = up.aws.lambda_.put_function_concurrency
    with pytest.raises(up.aws.lambda_.exceptions.InvalidParameterValueException, match=r"minimum value of \[100\]"):
        reserve(FunctionName=name, ReservedConcurrentExecutions=900)
    assert up.status()["functions"][name]["concurrency_limit"] == 1
    try:
        reserve(FunctionName=name, ReservedConcurrentExecutions=899)
        up.aws.lambda_.delete_function_concurrency(FunctionName=other)
        limits = {name: f["concurrency_limit"] for name, f in up.status()["functions"].items()}
        assert limits == {name: 899, other: 101}
    finally:
        for one in (name, other):
            reserve(FunctionName=one, ReservedConcurrentExecutions=1)


def variables(up: Up, name: str) -> dict[str, str]:
    found = up.aws.lambda_.get_function_configuration(FunctionName=name)
    return dict(found["Environment"]["Variables"])


def is_cold(up: Up, name: str) -> bool:
    answer = up.invoke(name, batch(1), LogType="Tail")
    report = parse_report(base64.b64decode(answer["LogResult"]).decode().splitlines()[-1])
    assert report is not None
    return report.init_ms is not None


@pytest.mark.parametrize("through", ["the plane", "the emulator"])
def test_configuration_changes_are_followed(up: Up, through: str) -> None:
    name = up.arm("go").function_name
    client = (up.aws if through == "the plane" else up.emulator).lambda_
    original = variables(up, name)
    is_cold(up, name)
    assert not is_cold(up, name)
    for wanted in (original | {"MARK": "\u00e4"}, original):
        client.update_function_configuration(FunctionName=name, Environment={"Variables": wanted})
        if through == "the emulator":
            wait_until(lambda: up.pids("go") == [], 5)
        assert is_cold(up, name)
        (pid,) = up.pids("go")
        seen = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8")
        assert ("MARK=\u00e4" in seen) == ("MARK" in wanted)
        assert not is_cold(up, name)


def test_failure_behind_the_plane_is_passed_on_as_it_is(up: Up) -> None:
    with pytest.raises(up.aws.lambda_.exceptions.ResourceNotFoundException):
        up.aws.lambda_.get_function_configuration(FunctionName="nobody")


def test_code_beyond_lambdas_limit_is_refused_and_not_cut_off(up: Up) -> None:
    name = up.arm("go").function_name
    before = up.emulator.lambda_.get_function_configuration(FunctionName=name)["CodeSha256"]
    with pytest.raises(ClientError, match="RequestEntityTooLargeException"):
        up.aws.lambda_.update_function_code(FunctionName=name, ZipFile=bytes(BODY_LIMIT_BYTES * 3 // 4))
    assert up.emulator.lambda_.get_function_configuration(FunctionName=name)["CodeSha256"] == before


def test_logs_hold_start_end_and_report_of_every_invocation(up: Up) -> None:
    for language in LANGUAGES:
        arm = up.arm(language)
        message = batch()
        answer = up.invoke(arm.function_name, message)
        request_id = answer["ResponseMetadata"]["RequestId"]

        found: list[dict[str, Any]] = []

        def complete(arm: Resources = arm, request_id: str = request_id, found: list[dict[str, Any]] = found) -> bool:
            events = up.aws.logs.filter_log_events(logGroupName=arm.log_group, filterPattern=f'"{request_id}"')
            found[:] = [dict(event) for event in events["events"]]
            return len(found) == 4

        wait_until(complete, 5)
        assert [re.split(r"[ {]", event["message"])[0] for event in found] == ["START", "", "END", "REPORT"]
        assert len({event["logStreamName"] for event in found}) == 1
        assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", found[0]["logStreamName"])
        report = parse_report(found[3]["message"])
        assert report is not None
        assert report.refused is None


def test_other_host_names_are_refused(up: Up) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", up.stack.plane.port)
    connection.request("GET", "/_lambdalab/status", headers={"Host": "evil.example"})
    assert connection.getresponse().status == 403
    connection.close()


@pytest.mark.needs("image")
def test_size_of_tmp_is_followed(up: Up) -> None:
    name = up.arm("python").function_name

    def room_mb() -> int:
        up.invoke(name, batch(1))
        (pid,) = up.pids("python")
        room = os.statvfs(f"/proc/{pid}/root/tmp")
        return room.f_bavail * room.f_frsize >> 20

    change = up.aws.lambda_.update_function_configuration
    change(FunctionName=name, EphemeralStorage={"Size": 1024})
    try:
        assert 1024 <= room_mb() <= 1028
    finally:
        change(FunctionName=name, EphemeralStorage={"Size": 512})
    assert 512 <= room_mb() <= 516


def test_layer_of_the_configuration_reaches_the_next_environment(up: Up) -> None:
    name = up.arm("python").function_name
    layer = BytesIO()
    with zipfile.ZipFile(layer, "w") as archive:
        archive.writestr("python/of_the_layer.py", "x = 1")
    lambda_ = up.aws.lambda_
    arn = lambda_.publish_layer_version(LayerName="of-the-test", Content={"ZipFile": layer.getvalue()})[
        "LayerVersionArn"
    ]
    lambda_.update_function_configuration(FunctionName=name, Layers=[arn])
    try:
        up.invoke(name, batch(1))
        (pid,) = up.pids("python")
        environ = dict(pair.split("=", 1) for pair in Path(f"/proc/{pid}/environ").read_text().split("\0") if pair)
        shown = Path(f"/proc/{pid}/root{environ['PYTHONPATH'].split(':')[-1]}")
        assert (shown / "of_the_layer.py").read_text() == "x = 1"
    finally:
        lambda_.update_function_configuration(FunctionName=name, Layers=[])
    up.invoke(name, batch(1))
    (pid,) = up.pids("python")
    assert "PYTHONPATH" not in Path(f"/proc/{pid}/environ").read_text()
