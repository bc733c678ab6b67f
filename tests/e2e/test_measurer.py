"""docs/policies/measure.json allows whoever measures on AWS exactly the calls that the commands make there."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import botocore.session
import pytest
from botocore import xform_name
from local.whole import ROOT

from .conftest import Run
from .iam_calls import NO_RESOURCE, Recorder
from .test_aws_target import clients

STACK: Final = "lambdalab-local"
NOWHERE: Final = ("local/", "invoke/live.py", "cli/")
"""What never speaks to AWS: the plane and `lambdalab logs` speak to the emulator, the command line to the library."""
NO_MEASURING: Final = ("doctor/", "aws/dead_letters.py", "aws/logged_errors.py", "aws/deletion.py")
"""Whose permissions stand in docs/operations.md: looking at an account and operating a stack measure nothing."""
OF_CALLS: Final = ("run/call_", "run/callers.py", "run/discovery.py")
"""Whose permissions stand in scenarios/s3_ingest/README.md: they measure another stack."""
OTHER_CALLS: Final = {
    "dynamodb:deleteitem",
    "lambda:putfunctionconcurrency",
    "lambda:deletefunctionconcurrency",
}
"""Of modules that speak to AWS as well, but not of measuring: `lambdalab sam-local` takes items out of a table, and a
factorial run changes reserved concurrency."""
CLIENTS: Final = ("cloudformation", "cloudwatch", "dynamodb", "lambda", "logs", "pricing", "sqs")
WITHOUT_RESOURCES: Final = {
    "cloudwatch:GetMetricData",
    "lambda:GetAccountSettings",
    "lambda:ListEventSourceMappings",
    "logs:GetQueryResults",
    "pricing:GetProducts",
}
"""For these IAM takes no resource (Service Authorization Reference, column "Resource types" of each service)."""
Statement = dict[str, Any]
Done = list["subprocess.CompletedProcess[str]"]


def policy() -> list[Statement]:
    text = (ROOT / "docs/policies/measure.json").read_text()
    for name, value in {"REGION": "us-east-1", "ACCOUNT": "000000000000", "STACK": STACK}.items():
        text = re.sub(rf"\b{name}\b", value, text)
    statements: list[Statement] = json.loads(text)["Statement"]
    return statements


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def permits(statement: Statement, action: str, resource: str) -> bool:
    named = any(fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"]))
    return action in statement["Action"] and named


@pytest.fixture(scope="module")
def recorder(lambdalab: Run, project: Path, tiny: str) -> Iterator[tuple[Recorder, Done]]:
    """Every kind of command that can have AWS for its target, and what was called."""
    done = lambdalab("up", "--port", "0", "--parameter", "ReservedConcurrency=2")  # with 1 load is refused
    assert done.returncode == 0, done.stderr
    stack = dict(word.split("=", 1) for word in done.stdout.split() if "=" in word)
    found = Recorder(stack["AWS_ENDPOINT_URL"], stack["AWS_ENDPOINT_URL_LAMBDA"])
    variables = {name: value for name, value in stack.items() if not name.startswith("AWS_ENDPOINT_URL")}
    variables |= {"AWS_ENDPOINT_URL": found.url, "AWS_REGION": "us-east-1"}
    sqs = clients(stack, "sqs")
    dead = [url for url in sqs.list_queues()["QueueUrls"] if "DeadLetter" in url]
    aws = ("--target", "aws", "--stack-name", STACK)
    one = ("--blocks", "1", "--yes", *aws)
    quiet = ("--headless", "--only-summary", "--rate", "20", "--duration", "4s", "--batch-size", "5")
    with ThreadPoolExecutor(1) as thread:
        load = thread.submit(lambdalab, "load", *quiet, *aws, **variables)
        while not load.done() and not any(call.action == "sqs:SendMessage" for call in found.calls):
            time.sleep(0.05)
        for url in dead:  # before the books are made, so that dead letters are looked at
            sqs.send_message(QueueUrl=url, MessageBody="somebody else's")
        ended = [load.result()]
    for url in dead:
        sqs.purge_queue(QueueUrl=url)
    shutil.copytree(project / ".aws-sam/local", project / "other-build")
    for name in ("PythonIngest", "GoIngest"):
        (project / "other-build" / name / "marker").touch()  # makes it another package
    ended += [
        lambdalab("run", "--protocol", tiny, "--build", "b=other-build", *one, **variables),
        lambdalab(
            "sweep", "--memory", "256", "--batch-size", "2", "--count", "1", "--language", "go", *one, **variables
        ),
        lambdalab("prices", "refresh", **variables),
    ]
    yield found, ended
    found.close()
    lambdalab("down")


def test_the_commands_did_their_work(
    recorder: tuple[Recorder, Done],
) -> None:
    *measured, prices = recorder[1]
    for done in measured:  # a busy machine may make a run invalid, which still made its calls
        assert done.returncode in (0, 4), done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert "was refused" in prices.stderr, "the emulator has no price list; that it is asked is enough"


def test_the_policy_allows_every_call_and_nothing_else(
    recorder: tuple[Recorder, Done],
) -> None:
    called = {(call.action, call.resource) for call in recorder[0].calls}
    statements = policy()
    forbidden = [call for call in called if not any(permits(statement, *call) for statement in statements)]
    assert forbidden == [], "too few"
    idle = [
        (statement["Sid"], action, resource)
        for statement in statements
        for action in statement["Action"]
        for resource in listed(statement["Resource"])
        if not any(permits(statement | {"Action": [action], "Resource": resource}, *call) for call in called)
    ]
    assert idle == [], "too many"


def test_every_call_in_the_source_was_made(
    recorder: tuple[Recorder, Done],
) -> None:
    called = {call.action.lower() for call in recorder[0].calls}
    models = botocore.session.get_session()
    operations = {name: set(map(xform_name, models.get_service_model(name).operation_names)) for name in CLIENTS}
    found = set()
    for path in (ROOT / "lambdalab").rglob("*.py"):
        if path.relative_to(ROOT / "lambdalab").as_posix().startswith(NOWHERE + NO_MEASURING + OF_CALLS):
            continue
        text = path.read_text()
        for service, method in re.findall(rf"\b_?({'|'.join(CLIENTS)})_?\.(\w+)\(", text):
            if method in operations[service]:
                found.add(f"{service}:{method.replace('_', '')}")
        for service, name in re.findall(rf"\b_?({'|'.join(CLIENTS)})_?\.get_paginator\(\"(\w+)\"", text):
            found.add(f"{service}:{name.replace('_', '')}")
    found = {call.replace("sendmessagebatch", "sendmessage") for call in found}
    assert len(found) > 15, "the pattern finds nothing any more"
    assert sorted(found - called - OTHER_CALLS) == [], "record it above, then allow it in docs/policies/measure.json"


def test_what_is_not_narrowed_cannot_be() -> None:
    for statement in policy():
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in statement["Action"])
        if NO_RESOURCE in listed(statement["Resource"]):
            assert set(statement["Action"]) == WITHOUT_RESOURCES
        else:
            named = [re.search(rf"[:/]{STACK}\b", resource) for resource in listed(statement["Resource"])]
            assert all(named) or "Condition" in statement
