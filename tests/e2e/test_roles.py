"""The functions' roles allow what their path really calls, on its own queue, table and log group, and nothing else."""

import json
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import pytest
from local.whole import LANGUAGES, Up, both, wait_until

from .iam_calls import Recorder

LAMBDA_POLLS: Final = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
"""What Lambda does with a queue under the function's role (Lambda Developer Guide, "Creating and configuring an Amazon
SQS event source mapping": the managed policy AWSLambdaSQSQueueExecutionRole, without its actions on logs)."""
LAMBDA_LOGS: Final = {"logs:CreateLogStream", "logs:PutLogEvents"}
"""What Lambda does with a log group that exists (the same policy; its CreateLogGroup is for one that does not)."""
PLANE_ALONE: Final = {
    "sqs:GetQueueUrl": "the plane knows a queue by its ARN and needs the URL; Lambda does not",
    "sqs:ChangeMessageVisibility": "the plane gives back what it received when it ends; Lambda's own policy lacks it",
}
BY_CONDITION: Final = {"HasTracing": {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}}
"""What a role is given with a switch that is off by default, and that the emulator cannot show: what Lambda sends to
X-Ray (Lambda Developer Guide, "Visualize Lambda function invocations using AWS X-Ray")."""
TRANSFORM: Final = """
import json, os, sys
os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
from samcli.yamlhelper import yaml_parse
from samtranslator.translator.transform import transform
class Managed:
    def load(self):
        return {}
template = yaml_parse(sys.stdin.read())
for resource in template["Resources"].values():
    if "CodeUri" in resource.get("Properties", {}):  # as `sam deploy` uploads it
        resource["Properties"]["CodeUri"] = "s3://bucket/key"
print(json.dumps(transform(template, {"AWS::Region": "us-east-1"}, Managed())))
"""
"""AWS's own transform, as sam ships it."""


def transformed(template: Path, tools: Path) -> dict[str, Any]:
    done = subprocess.run(
        [str(tools / "aws-sam-cli/bin/python"), "-c", TRANSFORM],
        input=template.read_text(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["Resources"]
    return found


@pytest.fixture(scope="module")
def up(project: Path) -> Iterator[Up]:
    found = Up.start(project, ReservedConcurrency="")  # direct invocations beside the queue's
    yield found
    found.end()


@pytest.fixture(scope="module")
def recorder(up: Up) -> Iterator[Recorder]:
    """Both functions in all modes, from the queue and directly, good and bad, under a plane before which it stands."""
    up.stack.plane.end(grace_s=15)
    found = Recorder(up.stack.endpoint_url, up.stack.endpoint_url)
    plane = up.start_plane(up.stack.plane.port, endpoint_url=found.url)

    def work(language: str) -> None:
        for mode in ("sequential", "concurrent", "batch"):
            body = {"batch_id": f"roles-{mode}", "count": 30, "size_bytes": 64, "mode": mode}
            up.send(language, body)
            up.send(language, body)  # once more: items that are there already
            up.invoke(up.arm(language).function_name, body | {"batch_id": f"direct-{mode}"})
            wait_until(lambda: len(up.items(language, f"roles-{mode}")) == 30, 60)  # noqa: B023
        up.send(language, "this is no JSON")
        wait_until(lambda: len(up.dead_letters(language)) == 1, 60)
        wait_until(lambda: up.drained(language), 60)

    try:
        both(work)
        logged = {f"log-group:{up.arm(language).log_group}:" for language in LANGUAGES}
        wait_until(
            lambda: (
                logged == {g for g in logged for c in found.succeeded() if c.action[5:8] == "Put" and g in c.resource}
            ),
            30,
        )
        yield found
    finally:
        plane.end(grace_s=15)
        found.close()


@pytest.fixture(scope="module")
def resources(project: Path) -> dict[str, Any]:
    return transformed(project / "template.yaml", project / ".lambdalab/tools")


def granted(up: Up, role: dict[str, Any]) -> set[tuple[str, str]]:
    """Action and ARN of every statement of a role, as deployed."""
    ids = up.target.stack.resources

    def arn(value: Any) -> str:
        if sub := value.get("Fn::Sub"):
            for name, physical in (ids | PSEUDO).items():
                sub = sub.replace(f"${{{name}}}", physical)
            return str(sub)
        logical, attribute = value["Fn::GetAtt"]
        assert attribute == "Arn"
        kind, name = up.target.stack.types[logical], ids[logical].rpartition("/")[2]
        return {
            "AWS::SQS::Queue": f"arn:aws:sqs:us-east-1:000000000000:{name}",
            "AWS::DynamoDB::Table": f"arn:aws:dynamodb:us-east-1:000000000000:table/{name}",
        }[kind]

    found = set()
    for policy in role["Properties"]["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            assert set(statement) <= {"Sid", "Effect", "Action", "Resource"}, statement
            assert statement["Effect"] == "Allow"
            assert isinstance(statement["Action"], list)
            found |= {(action, arn(statement["Resource"])) for action in statement["Action"]}
    return found


PSEUDO: Final = {"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": "000000000000"}


def used(up: Up, recorder: Recorder, language: str) -> set[tuple[str, str]]:
    """Action and resource of what was called for one function: by itself, and by the plane as Lambda for it."""
    arm = up.arm(language)
    own = {arm.table_name, arm.queue_url.rpartition("/")[2]}
    found = set()
    for call in recorder.succeeded():
        service, name = call.action.partition(":")[0], call.resource.partition("000000000000:")[2]
        if name.removeprefix("table/") in own and (call.by_function or service == "sqs"):
            found.add((call.action, call.resource))
        if name.startswith(f"log-group:{arm.log_group}:"):
            found.add((call.action, call.resource))
    return {(action, resource) for action, resource in found if action not in PLANE_ALONE}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_role_allows_each_action_that_is_called_and_no_other(
    up: Up, recorder: Recorder, resources: dict[str, Any], language: str
) -> None:
    allowed = granted(up, resources[f"{language.capitalize()}Role"])
    called = used(up, recorder, language)

    def permits(rule: tuple[str, str], call: tuple[str, str]) -> bool:
        return rule[0] == call[0] and fnmatchcase(call[1], rule[1])

    assert [call for call in called if not any(permits(rule, call) for rule in allowed)] == [], "too few"
    assert [rule for rule in allowed if not any(permits(rule, call) for call in called)] == [], "too many"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_plane_polls_and_logs_with_the_actions_lambda_does(up: Up, recorder: Recorder, language: str) -> None:
    called = {action for action, _ in used(up, recorder, language)}
    assert {action for action in called if action.startswith("sqs:")} == LAMBDA_POLLS
    assert {action for action in called if action.startswith("logs:")} == LAMBDA_LOGS


def test_a_function_calls_nothing_but_its_own_table(up: Up, recorder: Recorder) -> None:
    by_functions = {(call.action, call.resource) for call in recorder.calls if call.by_function}
    tables = {f"arn:aws:dynamodb:us-east-1:000000000000:table/{up.arm(language).table_name}" for language in LANGUAGES}
    assert {resource for _, resource in by_functions} == tables
    assert {action for action, _ in by_functions} == {"dynamodb:PutItem", "dynamodb:BatchWriteItem"}


def test_sam_adds_no_role_and_no_policy(resources: dict[str, Any]) -> None:
    iam = {name: body for name, body in resources.items() if body["Type"].startswith("AWS::IAM::")}
    roles = {name: body["Properties"] for name, body in iam.items() if body["Type"] == "AWS::IAM::Role"}
    assert set(roles) == {"PythonRole", "GoRole"}
    for role in roles.values():
        assert set(role) <= {"AssumeRolePolicyDocument", "Policies", "Tags"}
        (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert (trust["Principal"], trust["Action"]) == ({"Service": "lambda.amazonaws.com"}, "sts:AssumeRole")
    functions = [body for body in resources.values() if body["Type"] == "AWS::Lambda::Function"]
    assert sorted(body["Properties"]["Role"]["Fn::GetAtt"][0] for body in functions) == ["GoRole", "PythonRole"]
    for name in set(iam) - set(roles):
        added = iam[name]
        assert added["Type"] == "AWS::IAM::Policy", name
        (statement,) = added["Properties"]["PolicyDocument"]["Statement"]
        assert set(statement["Action"]) == BY_CONDITION[added["Condition"]], name


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_the_names_of_log_streams_are_open_in_a_role(up: Up, resources: dict[str, Any], language: str) -> None:
    for action, resource in granted(up, resources[f"{language.capitalize()}Role"]):
        # Lambda makes up the names of log streams.
        fixed = resource.removesuffix(":*") if action in LAMBDA_LOGS else resource
        assert "*" not in action + fixed
        assert "?" not in fixed
