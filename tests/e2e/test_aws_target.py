"""``--target aws`` over HTTP, with the plane as Lambda; the emulator's own Lambda runs nothing."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from .conftest import Run


def clients(variables: dict[str, str], service: str) -> Any:
    session: Any = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    return session.client(
        service,
        endpoint_url=variables.get(f"AWS_ENDPOINT_URL_{service.upper()}", variables["AWS_ENDPOINT_URL"]),
    )


def test_the_plane_stands_in_as_lambda(lambdalab: Run, project: Path, local_stack: dict[str, str]) -> None:
    lambda_ = clients(local_stack, "lambda")
    before = lambda_.get_function_configuration(FunctionName="lambdalab-local-python-ingest")["Environment"]

    done = lambdalab(
        "run", "--target", "aws", "--stack-name", "lambdalab-local", "--blocks", "1", "--yes", **local_stack
    )

    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((project / "results" / "latest" / "summary.json").read_text())
    assert summary["target"] == "aws"
    assert summary["rows_valid"] == summary["rows_total"] == 6
    after = lambda_.get_function_configuration(FunctionName="lambdalab-local-python-ingest")["Environment"]
    assert after == before, "the configuration bump must be undone"


def test_aws_target_says_that_the_endpoint_is_not_aws(project: Path) -> None:
    summary = json.loads((project / "results" / "latest" / "summary.json").read_text())
    assert any("is not AWS" in caution for caution in summary["cautions"])
    assert summary["cpu_limit"] != "AWS Lambda"


def test_spending_needs_a_yes(lambdalab: Run, local_stack: dict[str, str]) -> None:
    done = lambdalab("run", "--target", "aws", "--stack-name", "lambdalab-local", **local_stack)
    assert done.returncode == 2
    assert "add --yes" in done.stderr
    assert "at most" in done.stderr


@pytest.mark.parametrize(("service", "cut"), [("cloudformation", "no-such-stack")])
def test_a_stack_that_is_not_there(lambdalab: Run, local_stack: dict[str, str], service: str, cut: str) -> None:
    done = lambdalab("run", "--target", "aws", "--stack-name", cut, "--yes", **local_stack)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(f"lambdalab: there is no stack named {cut};")


def test_no_credentials(lambdalab: Run) -> None:
    done = lambdalab("run", "--target", "aws", "--yes", AWS_REGION="us-east-1")
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "no AWS credentials" in done.stderr


def test_a_table_that_refuses_writes_ends_the_run_and_keeps_what_was_measured(
    lambdalab: Run, project: Path, local_stack: dict[str, str]
) -> None:
    dynamodb = clients(local_stack, "dynamodb")
    tables = [name for name in dynamodb.list_tables()["TableNames"] if "Go" in name]
    dynamodb.delete_table(TableName=tables[0])

    done = lambdalab("run", "--blocks", "1", "--seed", "2")

    assert done.returncode == 4, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "WriteFailed" in done.stderr
    assert (project / "results" / "latest" / "trials.jsonl").read_text().count("\n") >= 1
    assert (project / "results" / "latest" / "metrics.csv").exists()


def test_the_emulators_own_lambda_runs_nothing(lambdalab: Run, local_stack: dict[str, str]) -> None:
    past_the_plane = {name: value for name, value in local_stack.items() if name != "AWS_ENDPOINT_URL_LAMBDA"}
    lambda_ = clients(past_the_plane, "lambda")
    event = json.dumps({"batch_id": "never", "count": 1})
    answer = lambda_.invoke(FunctionName="lambdalab-local-python-ingest", Payload=event)
    assert json.load(answer["Payload"])["errorType"] == "Runtime.DockerError"
    logged = lambdalab("logs", "PythonIngest", "--since", "1h")
    assert logged.returncode == 0, logged.stderr
    assert "REPORT RequestId" in logged.stdout
    assert "never" not in logged.stdout
