"""``lambdalab dlq`` as a user types it: messages a real function gave up, seen, explained, and sent back."""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Begin, Run
from .test_aws_target import clients

POISON = {"python": ("no json", '{"batch_id": "run:poison", "count": -1}'), "go": ('{"batch_id": 7}',)}


@pytest.fixture(scope="module")
def variables(lambdalab: Run) -> Iterator[dict[str, str]]:
    """A stack whose functions give a message up after one attempt."""
    short = ("Timeout=10", "VisibilityTimeout=10", "MaxReceiveCount=1")  # nothing is throttled under the load settings
    done = lambdalab(
        "up", "--port", "0", "--settings", "load", *(word for pair in short for word in ("--parameter", pair))
    )
    assert done.returncode == 0, done.stderr
    yield dict(word.split("=", 1) for word in done.stdout.split() if "=" in word)
    lambdalab("down")


@pytest.fixture(scope="module")
def outputs(variables: dict[str, str]) -> dict[str, str]:
    (stack,) = clients(variables, "cloudformation").describe_stacks(StackName="lambdalab-local")["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


MAP = """\
lambdalab-local (local stack): 2 functions

GoQueue  queue
├─► GoIngest  function, provided.al2023  batches of 1, at most 10 at once
│   └╌╌ GoTable  table                   named by TABLE_NAME
└─▻ GoDeadLetterQueue  queue             dead letters after 1 receive

PythonQueue  queue
├─► PythonIngest  function, python       batches of 1, at most 10 at once
│   └╌╌ PythonTable  table               named by TABLE_NAME
└─▻ PythonDeadLetterQueue  queue         dead letters after 1 receive
"""


def test_the_map_shows_both_paths(
    lambdalab: Run, project: Path, variables: dict[str, str], outputs: dict[str, str]
) -> None:
    shown = lambdalab("map", "--svg", "map.svg")
    assert shown.returncode == 0, shown.stderr
    assert [line.split() for line in re.sub(r"python3\.\d+", "python", shown.stdout).splitlines()] == [
        line.split() for line in MAP.splitlines()
    ]
    assert "PythonDeadLetterQueue" in (project / "map.svg").read_text()

    local = json.loads(lambdalab("map", "--json").stdout)
    assert local["unread"] == []
    addresses = {entry["id"]: entry["address"] for entry in local["entries"]}
    for language in ("Python", "Go"):
        assert addresses[f"{language}Queue"] == outputs[f"{language}QueueUrl"]
        assert addresses[f"{language}Ingest"] == outputs[f"{language}FunctionName"]
    by_aws = lambdalab("map", "--json", "--target", "aws", "--stack-name", "lambdalab-local", **variables)
    assert by_aws.returncode == 0, by_aws.stderr
    found = json.loads(by_aws.stdout)
    assert (found["target"], found["entries"], found["resources"]) == ("aws", local["entries"], local["resources"])


def until(what: Callable[[], bool], *, limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def counts(lambdalab: Run) -> dict[str, int]:
    done = lambdalab("dlq", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {row["language"]: row["visible"] for row in json.loads(done.stdout)}


def test_what_functions_give_up_is_counted_and_explained(
    lambdalab: Run, variables: dict[str, str], outputs: dict[str, str]
) -> None:
    sqs = clients(variables, "sqs")
    for language, bodies in POISON.items():
        for body in bodies:
            url = outputs[f"{language.capitalize()}QueueUrl"]
            attribute = {"who": {"DataType": "String", "StringValue": "a test"}}
            sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attribute)
    until(lambda: counts(lambdalab) == {"python": 2, "go": 1})

    shown = lambdalab("dlq", "show", "--json")
    assert shown.returncode == 0, shown.stderr
    letters = json.loads(shown.stdout)
    assert {(letter["language"], letter["body"]) for letter in letters} == {
        (language, body) for language, bodies in POISON.items() for body in bodies
    }
    assert all(letter["attributes"]["who"]["StringValue"] == "a test" for letter in letters)
    codes = {letter["body"]: letter["error"]["code"] for letter in letters}
    assert codes == {"no json": "InvalidJson", POISON["python"][1]: "InvalidValue", POISON["go"][0]: "InvalidType"}

    text = lambdalab("dlq", "show", "--language", "go", "--limit", "1")
    assert text.returncode == 0
    assert '"{\\"batch_id\\": 7}"' in text.stdout
    assert "InvalidType" in text.stdout
    assert "python" not in text.stdout
    table = lambdalab("dlq", "list")
    assert outputs["GoDeadLetterQueueUrl"] in table.stdout


def test_a_redrive_says_first_what_it_would_do(lambdalab: Run, outputs: dict[str, str]) -> None:
    done = lambdalab("dlq", "redrive", "--rate", "2")
    assert done.returncode == 0, done.stderr
    assert f"python: 2 messages would go from {outputs['PythonDeadLetterQueueUrl']}" in done.stdout
    assert "in about 1 s" in done.stdout
    assert "nothing was moved; add --yes" in done.stderr
    assert counts(lambdalab) == {"python": 2, "go": 1}


def test_what_is_still_bad_comes_back_and_the_other_language_is_left_alone(
    lambdalab: Run, outputs: dict[str, str]
) -> None:
    done = lambdalab("dlq", "redrive", "--language", "go", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"go: 1 message went from {outputs['GoDeadLetterQueueUrl']} to {outputs['GoQueueUrl']}" in done.stdout
    assert "python" not in done.stdout
    until(lambda: counts(lambdalab) == {"python": 2, "go": 1})


def items(variables: dict[str, str], table: str) -> list[str]:
    pages: Any = clients(variables, "dynamodb").get_paginator("scan").paginate(TableName=table)
    return sorted(item["pk"]["S"] for page in pages for item in page["Items"])


def test_ctrl_c_loses_nothing_and_a_second_redrive_does_the_rest(
    lambdalab: Run, begin: Begin, variables: dict[str, str], outputs: dict[str, str]
) -> None:
    sqs, dead = clients(variables, "sqs"), outputs["GoDeadLetterQueueUrl"]
    sqs.purge_queue(QueueUrl=dead)
    until(lambda: counts(lambdalab)["go"] == 0)
    batches = [f"redriven:{n:02}" for n in range(40)]
    for batch_id in batches:
        sqs.send_message(QueueUrl=dead, MessageBody=json.dumps({"batch_id": batch_id, "count": 1}))

    process = begin("dlq", "redrive", "--language", "go", "--rate", "5", "--yes")
    until(lambda: len(items(variables, outputs["GoTableName"])) > 0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert "nothing is lost" in err
    left = counts(lambdalab)["go"]
    assert 0 < left < 40
    assert f"go: {40 - left} messages went" in out
    assert f"left: {left}" in out

    done = lambdalab("dlq", "redrive", "--language", "go", "--rate", "500", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"go: {left} messages went" in done.stdout
    until(lambda: len(items(variables, outputs["GoTableName"])) == 40)
    assert items(variables, outputs["GoTableName"]) == [f"batch_id#{batch_id}" for batch_id in batches]


def test_on_aws_it_is_the_same(lambdalab: Run, variables: dict[str, str], project: Path) -> None:
    done = lambdalab("dlq", "list", "--target", "aws", "--stack-name", "lambdalab-local", "--json", **variables)
    assert done.returncode == 0, done.stderr
    assert {row["language"]: row["visible"] for row in json.loads(done.stdout)} == {"python": 2, "go": 0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "--language", "rust"), "has no dead-letter queue for language 'rust'; name one of: python, go."),
        (("redrive", "--rate", "0"), "invalid value '0' for '--rate'"),
        (("show", "--limit", "1001"), "invalid value '1001' for '--limit'"),
        (("list", "--stack-name", "x"), "--stack-name x names a stack on AWS, and the target is local"),
    ],
)
def test_what_cannot_be_asked(lambdalab: Run, variables: dict[str, str], arguments: tuple[str, ...], said: str) -> None:
    done = lambdalab("dlq", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
