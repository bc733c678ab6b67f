"""What template.yaml and samconfig.toml promise, checked without deploying anything."""

import re
from typing import Any

import pytest
from sam_template import ROOT, overrides, properties, resource, samconfig, template

LANGUAGES = {"Python": "python", "Go": "go"}
KINDS = ("Ingest", "Role", "Queue", "DeadLetterQueue", "DeadLetterAlarm", "Table", "Logs")
PARAMETERS = template()["Parameters"]
ENVIRONMENTS = tuple(samconfig())


def accepts(parameter: dict[str, Any], value: str) -> bool:
    """Answer what CloudFormation would: whether the parameter may have this value."""
    if "AllowedValues" in parameter:
        return value in {str(allowed) for allowed in parameter["AllowedValues"]}
    if "AllowedPattern" in parameter:
        return re.fullmatch(parameter["AllowedPattern"], value) is not None
    return value.isdecimal() and parameter["MinValue"] <= int(value) <= parameter["MaxValue"]


def without_language(value: Any, language: str) -> Any:
    """Replace the language's name by a placeholder wherever it stands."""
    if isinstance(value, dict):
        return {key: without_language(inner, language) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_language(inner, language) for inner in value]
    if isinstance(value, str):
        marked = re.sub(rf"\b{language}(?=\b|[A-Z])", "<Language>", value)
        return re.sub(rf"\b{LANGUAGES[language]}\b", "<language>", marked)
    return value


# --- parameters


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_says_what_it_is_and_what_it_may_be(name: str) -> None:
    parameter = PARAMETERS[name]
    assert parameter["Description"]
    assert parameter["ConstraintDescription"]
    assert accepts(parameter, str(parameter["Default"]))


def test_the_deployment_guide_lists_every_parameter_with_its_default() -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text()
    section = guide.split("\n## Parameters\n")[1].split("\n## ")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE))
    defaults = {name: str(parameter["Default"]) for name, parameter in PARAMETERS.items()}
    assert listed == {name: f"`{default}`" if default else "empty" for name, default in defaults.items()}


@pytest.mark.parametrize("value", ["", "1", "2", "1000", "99999"])
def test_reserved_concurrency_is_empty_or_at_least_one(value: str) -> None:
    assert accepts(PARAMETERS["ReservedConcurrency"], value)


@pytest.mark.parametrize("value", ["0", "01", "-1", "1.5", "many", " "])
def test_reserved_concurrency_that_would_stop_the_function_or_is_no_number_is_refused(value: str) -> None:
    assert not accepts(PARAMETERS["ReservedConcurrency"], value)


@pytest.mark.parametrize("value", ["", "2", "9", "10", "999", "1000"])
def test_maximum_concurrency_is_empty_or_what_lambda_allows(value: str) -> None:
    assert accepts(PARAMETERS["MaximumConcurrency"], value)


@pytest.mark.parametrize("value", ["0", "1", "1001", "9999", "02"])
def test_maximum_concurrency_outside_what_lambda_allows_is_refused(value: str) -> None:
    assert not accepts(PARAMETERS["MaximumConcurrency"], value)


def test_one_reserved_environment_and_a_maximum_are_refused_together() -> None:
    (rule,) = template()["Rules"].values()
    assert rule["RuleCondition"] == {"Fn::Equals": [{"Ref": "ReservedConcurrency"}, "1"]}
    assert [entry["Assert"] for entry in rule["Assertions"]] == [{"Fn::Equals": [{"Ref": "MaximumConcurrency"}, ""]}]


def test_a_message_stays_hidden_for_six_time_limits_by_default() -> None:
    assert PARAMETERS["VisibilityTimeout"]["Default"] == 6 * PARAMETERS["Timeout"]["Default"]


# --- both languages alike


def test_each_language_has_the_same_resources() -> None:
    expected = {f"{language}{kind}" for language in LANGUAGES for kind in KINDS}
    queries = {name for name, body in template()["Resources"].items() if body["Type"] == "AWS::Logs::QueryDefinition"}
    assert set(template()["Resources"]) - queries == expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_languages_differ_in_names_only(kind: str) -> None:
    python, go = (without_language(resource(f"{language}{kind}"), language) for language in LANGUAGES)
    if kind == "Ingest":
        for function in (python, go):
            del function["Metadata"]
            for differs in ("CodeUri", "Handler", "Runtime"):
                del function["Properties"][differs]
    assert python == go


def test_the_outputs_of_the_languages_have_systematic_names() -> None:
    kinds = (
        "FunctionName",
        "FunctionArn",
        "QueueUrl",
        "QueueArn",
        "DeadLetterQueueUrl",
        "TableName",
        "LogGroupName",
    )
    expected = {f"{language}{kind}" for language in LANGUAGES for kind in kinds}
    assert set(template()["Outputs"]) == {"Scenario"} | expected
    assert template()["Outputs"]["Scenario"]["Value"] == "ingest"
    for kind in kinds:
        python, go = (without_language(template()["Outputs"][f"{language}{kind}"], language) for language in LANGUAGES)
        assert python == go


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_sources_lie_where_the_function_says(language: str) -> None:
    assert properties(f"{language}Ingest")["CodeUri"] == f"src/{LANGUAGES[language]}/ingest"
    assert (ROOT / properties(f"{language}Ingest")["CodeUri"]).is_dir()


def test_settings_that_decide_speed_and_cost_are_stated_once_for_both_languages() -> None:
    shared = template()["Globals"]["Function"]
    assert shared["Architectures"] == [{"Ref": "Architecture"}]
    assert shared["MemorySize"] == {"Ref": "MemorySize"}
    assert shared["Timeout"] == {"Ref": "Timeout"}
    for language in LANGUAGES:
        own = properties(f"{language}Ingest")
        assert shared.keys() & own.keys() == {"Environment"}, "which SAM merges"
        assert not shared["Environment"]["Variables"].keys() & own["Environment"]["Variables"].keys()


# --- each path


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_failed_message_alone_returns_to_the_queue(language: str) -> None:
    (event,) = properties(f"{language}Ingest")["Events"].values()
    assert event["Type"] == "SQS"
    assert event["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert event["Properties"]["Queue"] == {"Fn::GetAtt": [f"{language}Queue", "Arn"]}


@pytest.mark.parametrize(
    ("setting", "condition"),
    [("ReservedConcurrency", "HasReservedConcurrency"), ("MaximumConcurrency", "HasMaximumConcurrency")],
)
def test_an_empty_concurrency_leaves_the_property_out(setting: str, condition: str) -> None:
    assert template()["Conditions"][condition] == {"Fn::Not": [{"Fn::Equals": [{"Ref": setting}, ""]}]}
    (event,) = properties("PythonIngest")["Events"].values()
    stated = {
        "ReservedConcurrency": template()["Globals"]["Function"]["ReservedConcurrentExecutions"],
        "MaximumConcurrency": event["Properties"]["ScalingConfig"],
    }[setting]
    name, present, absent = stated["Fn::If"]
    assert name == condition
    assert {"Ref": setting} in (present, present.get("MaximumConcurrency"))
    assert absent == {"Ref": "AWS::NoValue"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_message_that_keeps_failing_is_kept_aside_and_raises_an_alarm(language: str) -> None:
    redrive = properties(f"{language}Queue")["RedrivePolicy"]
    assert redrive["deadLetterTargetArn"] == {"Fn::GetAtt": [f"{language}DeadLetterQueue", "Arn"]}
    assert redrive["maxReceiveCount"] == {"Ref": "MaxReceiveCount"}
    fourteen_days_s = 14 * 24 * 3600
    assert properties(f"{language}DeadLetterQueue")["MessageRetentionPeriod"] == fourteen_days_s
    alarm = properties(f"{language}DeadLetterAlarm")
    assert alarm["MetricName"] == "ApproximateNumberOfMessagesVisible"
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanOrEqualToThreshold", 1)
    dead_letters = {"Fn::GetAtt": [f"{language}DeadLetterQueue", "QueueName"]}
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": dead_letters}]


def test_every_queue_is_encrypted() -> None:
    queues = [body for body in template()["Resources"].values() if body["Type"] == "AWS::SQS::Queue"]
    assert len(queues) == 2 * len(LANGUAGES)
    assert all(queue["Properties"]["SqsManagedSseEnabled"] is True for queue in queues)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_table_is_keyed_by_text_and_billed_by_request(language: str) -> None:
    table = properties(f"{language}Table")
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["KeySchema"] == [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ]
    assert {entry["AttributeType"] for entry in table["AttributeDefinitions"]} == {"S"}
    assert properties(f"{language}Ingest")["Environment"]["Variables"] == {"TABLE_NAME": {"Ref": f"{language}Table"}}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_log_group_exists_before_the_function_and_expires(language: str) -> None:
    function, logs = properties(f"{language}Ingest"), properties(f"{language}Logs")
    assert function["LoggingConfig"] == {"LogGroup": {"Ref": f"{language}Logs"}, "LogFormat": "Text"}
    assert logs["LogGroupName"]["Fn::Sub"] == f"/aws/lambda/{function['FunctionName']['Fn::Sub']}"
    assert logs["RetentionInDays"] == {"Ref": "LogRetentionDays"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_role_allows_exactly_what_the_path_needs(language: str) -> None:
    role = properties(f"{language}Role")
    assert "ManagedPolicyArns" not in role
    (policy,) = role["Policies"]
    granted = {
        action: statement["Resource"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    queue = {"Fn::GetAtt": [f"{language}Queue", "Arn"]}
    group = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:"
    streams = {"Fn::Sub": f"{group}${{{language}Logs}}:*"}
    assert granted == {
        "sqs:ReceiveMessage": queue,
        "sqs:DeleteMessage": queue,
        "sqs:ChangeMessageVisibility": queue,
        "sqs:GetQueueAttributes": queue,
        "dynamodb:BatchWriteItem": {"Fn::GetAtt": [f"{language}Table", "Arn"]},
        "dynamodb:PutItem": {"Fn::GetAtt": [f"{language}Table", "Arn"]},
        "logs:CreateLogStream": streams,
        "logs:PutLogEvents": streams,
    }
    assert {statement["Effect"] for statement in policy["PolicyDocument"]["Statement"]} == {"Allow"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_policy_is_added_to_the_role_behind_its_back(language: str) -> None:
    assert properties(f"{language}Ingest")["Role"] == {"Fn::GetAtt": [f"{language}Role", "Arn"]}
    assert "Policies" not in properties(f"{language}Ingest")


def test_everything_that_can_carry_the_project_tag_does() -> None:
    project = {"Key": "project", "Value": "lambdalab"}
    assert template()["Globals"]["Function"]["Tags"] == {"project": "lambdalab"}
    for logical_id, body in template()["Resources"].items():
        if body["Type"] not in {"AWS::Logs::QueryDefinition", "AWS::Serverless::Function"}:
            assert project in body["Properties"]["Tags"], logical_id


# --- samconfig.toml


def test_there_are_three_environments() -> None:
    assert set(ENVIRONMENTS) == {"default", "local", "load"}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_states_every_parameter_with_a_value_the_template_accepts(environment: str) -> None:
    stated = overrides(environment)
    assert set(stated) == set(PARAMETERS)
    assert [name for name, value in stated.items() if not accepts(PARAMETERS[name], value)] == []


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_keeps_the_visibility_timeout_at_six_time_limits(environment: str) -> None:
    stated = overrides(environment)
    assert int(stated["VisibilityTimeout"]) == 6 * int(stated["Timeout"])


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_deploys_what_it_built(environment: str) -> None:
    commands = samconfig()[environment]
    build_dir = commands["build"]["parameters"]["build_dir"]
    assert build_dir == f".aws-sam/{environment}"
    assert commands["build"]["parameters"]["cached"] is False
    for command in ("deploy", "local_invoke"):
        assert commands[command]["parameters"]["template_file"] == f"{build_dir}/template.yaml"


def test_environments_have_stacks_of_their_own() -> None:
    stacks = [samconfig()[environment]["global"]["parameters"]["stack_name"] for environment in ENVIRONMENTS]
    assert len(set(stacks)) == len(ENVIRONMENTS)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_is_billed_is_confirmed_first(environment: str) -> None:
    deploy = samconfig()[environment]["deploy"]["parameters"]
    assert deploy["confirm_changeset"] is (environment != "local")
    assert deploy["capabilities"] == "CAPABILITY_IAM"
    assert deploy["tags"] == "project=lambdalab"


@pytest.mark.parametrize("environment", ["default", "local"])
def test_the_strict_settings_allow_one_message_at_a_time(environment: str) -> None:
    stated = overrides(environment)
    assert (stated["ReservedConcurrency"], stated["BatchSize"], stated["MaximumConcurrency"]) == ("1", "1", "")


def test_the_emulator_gets_the_strict_settings() -> None:
    machine = {"Architecture", "PythonRuntime", "SavedQueries"}
    local, default = overrides("local"), overrides("default")
    assert {name for name in local if local[name] != default[name]} <= machine
    assert local["SavedQueries"] == "false"


def test_load_settings_bound_the_queue_and_not_the_function() -> None:
    stated = overrides("load")
    assert stated["ReservedConcurrency"] == ""
    assert int(stated["MaximumConcurrency"]) >= 2
    assert int(stated["MaxReceiveCount"]) > PARAMETERS["MaxReceiveCount"]["Default"]
