"""What template.yaml and samconfig.toml promise, checked without deploying anything."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sam_template import ROOT, overrides, properties, resource, samconfig, template, template_folders

LANGUAGES = {"Python": "python", "Go": "go"}
KINDS = (
    "Ingest",
    "Role",
    "TracingPolicy",
    "Queue",
    "DeadLetterQueue",
    "QueuePolicy",
    "DeadLetterAlarm",
    "OldestMessageAlarm",
    "ErrorAlarm",
    "ThrottleAlarm",
    "Table",
    "Logs",
)
SHARED = {"LanguagesDashboard", "AccountBudget"}
WATCHES = {"SavedQueries", "Alarms", "Dashboard"}
"""Parameters of what the emulator is not given."""
PARAMETERS = template()["Parameters"]
ENVIRONMENTS = ("default", "local", "load")


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


def resources(kind: str) -> dict[str, Any]:
    """The properties of every resource of a type."""
    return {name: body["Properties"] for name, body in template()["Resources"].items() if body["Type"] == kind}


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
    rule = template()["Rules"]["MaximumConcurrencyFitsReservation"]
    assert rule["RuleCondition"] == {"Fn::Equals": [{"Ref": "ReservedConcurrency"}, "1"]}
    assert [entry["Assert"] for entry in rule["Assertions"]] == [{"Fn::Equals": [{"Ref": "MaximumConcurrency"}, ""]}]


def test_a_message_stays_hidden_for_six_time_limits_by_default() -> None:
    assert PARAMETERS["VisibilityTimeout"]["Default"] == 6 * PARAMETERS["Timeout"]["Default"]


# --- both languages alike


def test_each_language_has_the_same_resources() -> None:
    expected = {f"{language}{kind}" for language in LANGUAGES for kind in KINDS}
    queries = set(resources("AWS::Logs::QueryDefinition"))
    assert set(template()["Resources"]) - queries - SHARED == expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_languages_differ_in_names_only(kind: str) -> None:
    python, go = (without_language(resource(f"{language}{kind}"), language) for language in LANGUAGES)
    if kind == "Ingest":
        for function in (python, go):
            del function["Metadata"]["BuildMethod"]
            function["Metadata"].pop("BuildProperties", None)
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
    assert alarms_of(f"{language}DeadLetterQueue") == {"ApproximateNumberOfMessagesVisible": 1}


# --- who watches


def mentioned(value: Any) -> str:
    """The resource a Ref or GetAtt names."""
    (found,) = value.values()
    return str(found if isinstance(found, str) else found[0])


def alarms_of(logical_id: str) -> dict[str, Any]:
    """Metric and threshold of each alarm about a resource."""
    found = {}
    for alarm in resources("AWS::CloudWatch::Alarm").values():
        (dimension,) = alarm["Dimensions"]
        if mentioned(dimension["Value"]) == logical_id:
            found[alarm["MetricName"]] = alarm["Threshold"]
    return found


def test_every_function_and_every_queue_has_its_alarms() -> None:
    dead_letters = {
        mentioned(queue["RedrivePolicy"]["deadLetterTargetArn"])
        for queue in resources("AWS::SQS::Queue").values()
        if "RedrivePolicy" in queue
    }
    expected: dict[str, dict[str, Any]] = {
        name: {"ApproximateNumberOfMessagesVisible": 1}
        if name in dead_letters
        else {"ApproximateAgeOfOldestMessage": {"Ref": "VisibilityTimeout"}}
        for name in resources("AWS::SQS::Queue")
    }
    expected |= {name: {"Errors": 1, "Throttles": 1} for name in resources("AWS::Serverless::Function")}
    assert {name: alarms_of(name) for name in expected} == expected
    assert sum(len(metrics) for metrics in expected.values()) == len(resources("AWS::CloudWatch::Alarm"))


@pytest.mark.parametrize("name", resources("AWS::CloudWatch::Alarm"))
def test_an_alarm_is_optional_speaks_within_a_minute_and_only_of_what_happened(name: str) -> None:
    alarm = properties(name)
    assert resource(name)["Condition"] == "HasAlarms"
    assert (alarm["Period"], alarm["EvaluationPeriods"], alarm["TreatMissingData"]) == (60, 1, "notBreaching")
    assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
    functions = resources("AWS::Serverless::Function")
    expected = {"AWS/Lambda": "Sum", "AWS/SQS": "Maximum"}
    assert alarm["Statistic"] == expected[alarm["Namespace"]]
    (dimension,) = alarm["Dimensions"]
    about_function = mentioned(dimension["Value"]) in functions
    assert (dimension["Name"], alarm["Namespace"]) == (
        ("FunctionName", "AWS/Lambda") if about_function else ("QueueName", "AWS/SQS")
    )
    topic = ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]
    assert alarm["AlarmActions"] == {"Fn::If": topic}


@pytest.mark.parametrize(
    "value", ["", "arn:aws:sns:us-east-1:123456789012:alarms", "arn:aws-cn:sns:cn-north-1:1" + 11 * "2" + ":a"]
)
def test_an_alarm_topic_is_empty_or_an_arn(value: str) -> None:
    assert accepts(PARAMETERS["AlarmTopicArn"], value)


@pytest.mark.parametrize(
    "value", ["alarms", "arn:aws:sqs:us-east-1:123456789012:alarms", "arn:aws:sns:us-east-1:1:alarms"]
)
def test_what_is_no_topic_is_refused(value: str) -> None:
    assert not accepts(PARAMETERS["AlarmTopicArn"], value)


def charts() -> list[Any]:
    (dashboard,) = resources("AWS::CloudWatch::Dashboard").values()
    widgets: list[Any] = json.loads(dashboard["DashboardBody"]["Fn::Sub"])["widgets"]
    return widgets


def series(language: str) -> Iterator[tuple[str, str, str]]:
    """Chart, metric and statistic of each line of a language, which its label names."""
    for chart in charts():
        for *metric, shown in chart["properties"]["metrics"]:
            if shown["label"].split()[0] == language:
                unnamed = without_language([*metric, shown["label"]], language)
                yield chart["properties"]["title"], str(unnamed), shown.get("stat", "")


def test_every_chart_of_the_dashboard_shows_both_languages_alike() -> None:
    python, go = (list(series(language)) for language in LANGUAGES)
    assert python == go
    assert {title for title, _, _ in python} == {chart["properties"]["title"] for chart in charts()}
    total = sum(len(chart["properties"]["metrics"]) for chart in charts())
    assert len(python) + len(go) == total
    assert total <= 50, "with more metrics a dashboard is never free of charge"


def test_a_language_has_its_colours_on_the_dashboard() -> None:
    colours: dict[str, set[str]] = {language: set() for language in LANGUAGES}
    for chart in charts():
        for *_, shown in chart["properties"]["metrics"]:
            colours[shown["label"].split()[0]].add(shown["color"])
    assert not set.intersection(*colours.values())


def test_the_dashboard_shows_every_function_queue_and_table_and_nothing_else() -> None:
    (dashboard,) = resources("AWS::CloudWatch::Dashboard").values()
    shown = set(re.findall(r"\$\{(\w+)(?:\.QueueName)?\}", dashboard["DashboardBody"]["Fn::Sub"]))
    kinds = ("AWS::Serverless::Function", "AWS::SQS::Queue", "AWS::DynamoDB::Table")
    assert shown == {name for kind in kinds for name in resources(kind)}


def test_the_charts_of_the_dashboard_fit_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for chart in charts():
        cells = {
            (x, y)
            for x in range(chart["x"], chart["x"] + chart["width"])
            for y in range(chart["y"], chart["y"] + chart["height"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24, "a dashboard is 24 columns wide"
        assert chart["properties"]["region"] == "${AWS::Region}"
        taken |= cells


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_function_that_is_traced_may_write_traces_before_it_is_configured(language: str) -> None:
    assert template()["Globals"]["Function"]["Tracing"] == {"Ref": "Tracing"}
    assert PARAMETERS["Tracing"]["Default"] == "PassThrough"
    policy = f"{language}TracingPolicy"
    assert resource(policy)["Condition"] == "HasTracing"
    assert properties(policy)["Roles"] == [{"Ref": f"{language}Role"}]
    (statement,) = properties(policy)["PolicyDocument"]["Statement"]
    assert statement["Action"] == ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
    first = {"Fn::If": ["HasTracing", {"Ref": policy}, "none"]}
    assert resource(f"{language}Ingest")["Metadata"]["Permission"] == first


def test_the_budget_is_made_only_for_an_amount_and_an_address() -> None:
    assert resource("AccountBudget")["Condition"] == "HasBudget"
    (assertion,) = template()["Rules"]["BudgetHasAmountAndAddress"]["Assertions"]
    neither, both = assertion["Assert"]["Fn::Or"]
    empty = [{"Fn::Equals": [{"Ref": name}, ""]} for name in ("BudgetUsd", "BudgetEmail")]
    assert neither == {"Fn::And": empty}
    assert both == {"Fn::And": [{"Fn::Not": [one]} for one in empty]}
    budget = properties("AccountBudget")
    assert budget["Budget"]["BudgetLimit"] == {"Amount": {"Ref": "BudgetUsd"}, "Unit": "USD"}
    assert "CostFilters" not in budget["Budget"], "a tag nobody activated would keep it silent"
    for warning in budget["NotificationsWithSubscribers"]:
        assert warning["Subscribers"] == [{"SubscriptionType": "EMAIL", "Address": {"Ref": "BudgetEmail"}}]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("BudgetUsd", "", True),
        ("BudgetUsd", "5", True),
        ("BudgetUsd", "0", False),
        ("BudgetUsd", "5.5", False),
        ("BudgetUsd", "-1", False),
        ("BudgetEmail", "", True),
        ("BudgetEmail", "me@example.org", True),
        ("BudgetEmail", "me", False),
        ("BudgetEmail", "me@example.org you@example.org", False),
    ],
)
def test_what_a_budget_takes(name: str, value: str, allowed: bool) -> None:
    assert accepts(PARAMETERS[name], value) is allowed


# --- nobody in


def test_every_queue_is_encrypted() -> None:
    queues = resources("AWS::SQS::Queue").values()
    assert len(queues) == 2 * len(LANGUAGES)
    assert all(queue["SqsManagedSseEnabled"] is True for queue in queues)


def test_every_queue_refuses_what_comes_without_tls() -> None:
    guarded = [mentioned(queue) for policy in resources("AWS::SQS::QueuePolicy").values() for queue in policy["Queues"]]
    assert sorted(guarded) == sorted(resources("AWS::SQS::Queue"))
    for policy in resources("AWS::SQS::QueuePolicy").values():
        (statement,) = policy["PolicyDocument"]["Statement"]
        assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "sqs:*")
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_nothing_is_public() -> None:
    openings = {"AWS::Lambda::Permission", "AWS::Lambda::Url", "AWS::S3::Bucket", "AWS::Serverless::Api"}
    assert not {body["Type"] for body in template()["Resources"].values()} & openings
    for function in resources("AWS::Serverless::Function").values():
        assert "FunctionUrlConfig" not in function
        assert {event["Type"] for event in function["Events"].values()} == {"SQS"}
    for role in resources("AWS::IAM::Role").values():
        (trusted,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert trusted["Principal"] == {"Service": "lambda.amazonaws.com"}
    for policy in resources("AWS::SQS::QueuePolicy").values():
        assert {statement["Effect"] for statement in policy["PolicyDocument"]["Statement"]} == {"Deny"}
    for name, output in template()["Outputs"].items():
        assert "Export" not in output, name


def test_every_log_group_expires() -> None:
    assert all(
        group["RetentionInDays"] == {"Ref": "LogRetentionDays"} for group in resources("AWS::Logs::LogGroup").values()
    )


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


UNTAGGED = {
    "AWS::Logs::QueryDefinition",
    "AWS::SQS::QueuePolicy",
    "AWS::IAM::Policy",
    "AWS::CloudWatch::Dashboard",
}
"""Resource types without tags in CloudFormation."""


def test_everything_that_can_carry_the_project_tag_does() -> None:
    project = {"Key": "project", "Value": "lambdalab"}
    assert template()["Globals"]["Function"]["Tags"] == {"project": "lambdalab"}
    for logical_id, body in template()["Resources"].items():
        if body["Type"] not in UNTAGGED | {"AWS::Serverless::Function"}:
            own = body["Properties"]
            assert project in (own["ResourceTags"] if logical_id == "AccountBudget" else own["Tags"]), logical_id


# --- checkers


def suppressed(file: str) -> dict[str, str]:
    """Rules that a checker's file switches off, and the comment right above each."""
    found, above = {}, ""
    for line in (ROOT / file).read_text().splitlines():
        rule = re.fullmatch(r"  - ([A-Z]\w+\d)", line)
        if rule:
            found[rule[1]] = above
        above = line.strip() if line.startswith("  #") else ""
    return found


@pytest.mark.parametrize("file", [".cfnlintrc", ".checkov.yaml"])
def test_a_rule_is_switched_off_for_a_reason_and_listed(file: str) -> None:
    table = (ROOT / "docs" / "reliability.md").read_text()
    rules = suppressed(file)
    assert len(rules) == len(re.findall(r"^  - [A-Z]", (ROOT / file).read_text(), re.MULTILINE)) > 0
    for rule, reason in rules.items():
        assert len(reason) > 20, rule
        assert f"`{rule}`" in table


def test_what_is_switched_off_in_the_template_says_why() -> None:
    lines = [line for line in (ROOT / "template.yaml").read_text().splitlines() if "ignore_checks" in line]
    assert len(lines) == len(LANGUAGES)
    assert all("] # " in line for line in lines)


# --- samconfig.toml


def test_there_are_three_environments_and_two_at_least_of_every_scenario() -> None:
    assert samconfig().keys() == {*ENVIRONMENTS}
    for folder in template_folders():
        assert {"default", "local"} <= samconfig(folder).keys(), folder
        commands = [command["parameters"] for settings in samconfig(folder).values() for command in settings.values()]
        templates = {command["template_file"] for command in commands if "template_file" in command}
        assert all(name.startswith(".aws-sam/") for name in templates), "each builds the template beside it"


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
    environments = [settings for folder in template_folders() for settings in samconfig(folder).values()]
    stacks = [settings["global"]["parameters"]["stack_name"] for settings in environments]
    assert len(set(stacks)) == len(stacks)


def test_environments_have_one_region_and_its_prices_are_there() -> None:
    environments = [settings for folder in template_folders() for settings in samconfig(folder).values()]
    (region,) = {settings["global"]["parameters"]["region"] for settings in environments}
    assert (ROOT / "prices" / f"{region}.toml").is_file()


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
    machine = {"Architecture", "PythonRuntime", *WATCHES}
    local, default = overrides("local"), overrides("default")
    assert {name for name in local if local[name] != default[name]} <= machine
    assert {local[name] for name in WATCHES} == {"false"}
    assert (local["Tracing"], local["BudgetUsd"], local["BudgetEmail"]) == ("PassThrough", "", "")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_nobody_pays_for_traces_or_gets_mail_unasked(environment: str) -> None:
    stated = overrides(environment)
    assert stated["Tracing"] == "PassThrough"
    assert {stated[name] for name in ("AlarmTopicArn", "BudgetUsd", "BudgetEmail")} == {""}


def test_load_settings_bound_the_queue_and_not_the_function() -> None:
    stated = overrides("load")
    assert stated["ReservedConcurrency"] == ""
    assert int(stated["MaximumConcurrency"]) >= 2
    assert int(stated["MaxReceiveCount"]) > PARAMETERS["MaxReceiveCount"]["Default"]
