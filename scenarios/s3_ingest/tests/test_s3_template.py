"""What template.yaml and samconfig.toml promise, checked without deploying anything."""

import re
from pathlib import Path
from typing import Any

import pytest
from sam_template import overrides, samconfig, template
from test_template import LANGUAGES, accepts, without_language

FOLDER = Path(__file__).parents[1]
TEMPLATE = template(FOLDER)
PARAMETERS = TEMPLATE["Parameters"]
ENVIRONMENTS = ("default", "local")
KINDS = ("S3Ingest", "Role", "TracingPolicy", "FailedAlarm", "ErrorAlarm", "ThrottleAlarm", "Logs")


def properties(logical_id: str) -> Any:
    return TEMPLATE["Resources"][logical_id]["Properties"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_says_what_it_is_and_what_it_may_be(name: str) -> None:
    parameter = PARAMETERS[name]
    assert parameter["Description"]
    assert parameter["ConstraintDescription"]
    assert accepts(parameter, str(parameter["Default"]))


def test_the_guide_lists_every_parameter_with_its_default() -> None:
    guide = (FOLDER / "README.md").read_text()
    section = guide.split("\n## Parameters\n")[1].split("\n## ")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE))
    defaults = {name: str(parameter["Default"]) for name, parameter in PARAMETERS.items()}
    assert listed == {name: f"`{default}`" if default else "empty" for name, default in defaults.items()}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_states_every_parameter_and_deploys_what_it_built(environment: str) -> None:
    stated, commands = overrides(environment, FOLDER), samconfig(FOLDER)[environment]
    assert set(stated) == set(PARAMETERS)
    assert [name for name, value in stated.items() if not accepts(PARAMETERS[name], value)] == []
    build = commands["build"]["parameters"]
    assert build["build_dir"] == f".aws-sam/{environment}"
    assert build["cached"] is False
    deploy = commands["deploy"]["parameters"]
    assert deploy["template_file"] == f"{build['build_dir']}/template.yaml"
    assert deploy["confirm_changeset"] is (environment == "default")
    assert (deploy["capabilities"], deploy["tags"]) == ("CAPABILITY_IAM", "project=lambdalab")


@pytest.mark.parametrize("kind", KINDS)
def test_the_languages_differ_in_names_only(kind: str) -> None:
    python, go = (without_language(TEMPLATE["Resources"][f"{language}{kind}"], language) for language in LANGUAGES)
    if kind == "S3Ingest":
        for function in (python, go):
            assert function["Metadata"].pop("Permission")["Fn::If"][0] == "HasTracing"
            del function["Metadata"]
            for differs in ("CodeUri", "Handler", "Runtime"):
                del function["Properties"][differs]
    assert python == go
    queries = {name for name, body in TEMPLATE["Resources"].items() if body["Type"] == "AWS::Logs::QueryDefinition"}
    shared = {"Objects", "ObjectsPolicy", *queries}
    assert set(TEMPLATE["Resources"]) == shared | {f"{language}{kind}" for language in LANGUAGES for kind in KINDS}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_function_may_write_objects_and_its_log_and_nothing_else(language: str) -> None:
    (policy,) = properties(f"{language}Role")["Policies"]
    writes, logs = policy["PolicyDocument"]["Statement"]
    assert writes["Action"] == ["s3:PutObject", "s3:AbortMultipartUpload"]
    assert writes["Resource"] == [{"Fn::Sub": f"${{Objects.Arn}}/{workload}/*"} for workload in ("events", "batch")]
    assert logs["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert f"log-group:${{{language}Logs}}:*" in logs["Resource"]["Fn::Sub"]


def test_the_bucket_is_private_encrypted_and_empties_itself() -> None:
    bucket = properties("Objects")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    uploads, objects = bucket["LifecycleConfiguration"]["Rules"]
    assert uploads["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert objects["ExpirationInDays"] == {"Ref": "ObjectRetentionDays"}
    assert {rule["Status"] for rule in (uploads, objects)} == {"Enabled"}
    (statement,) = properties("ObjectsPolicy")["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Resource"] == [{"Fn::GetAtt": ["Objects", "Arn"]}, {"Fn::Sub": "${Objects.Arn}/*"}]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


@pytest.mark.parametrize("language", LANGUAGES)
def test_logs_expire_after_a_week_and_an_invocation_has_15_minutes_by_default(language: str) -> None:
    logs = properties(f"{language}Logs")
    assert logs["RetentionInDays"] == {"Ref": "LogRetentionDays"}
    assert properties(f"{language}S3Ingest")["LoggingConfig"]["LogGroup"] == {"Ref": f"{language}Logs"}
    assert TEMPLATE["Globals"]["Function"]["Timeout"] == {"Ref": "Timeout"}
    assert (PARAMETERS["LogRetentionDays"]["Default"], PARAMETERS["Timeout"]["Default"]) == (7, 15 * 60)


def test_every_factor_reaches_the_functions_as_data() -> None:
    variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    assert variables == {
        "OUTPUT_BUCKET": {"Ref": "Objects"},
        "WORKLOAD": {"Ref": "Workload"},
        "BATCH_EVENTS": {"Ref": "BatchEvents"},
        "EVENT_BYTES": {"Ref": "EventBytes"},
        "OBJECT_MB": {"Ref": "ObjectMb"},
        "MULTIPART_MB": {"Ref": "MultipartMb"},
        "PARALLELISM": {"Ref": "Parallelism"},
        "RESERVED_CONCURRENCY": {"Fn::If": ["HasReservedConcurrency", {"Ref": "ReservedConcurrency"}, "0"]},
    }


def test_what_is_switched_off_says_why() -> None:
    skipped = TEMPLATE["Resources"]["Objects"]["Metadata"]["checkov"]["skip"]
    assert {entry["id"] for entry in skipped} == {"CKV_AWS_18", "CKV_AWS_21"}
    assert all(len(entry["comment"]) > 20 for entry in skipped)
