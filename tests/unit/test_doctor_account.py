"""``lambdalab doctor --target aws``: an account over HTTP, made wrong in every way a check knows."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from command_line import Call, Ended, call_fixture, one_sentence, project_fixture  # noqa: F401
from fake_account import SECRET, TOKEN, FakeAccount, account_settings, mapping, queue, table

from lambdalab.doctor import examine
from lambdalab.doctor.findings import ok


@pytest.fixture
def account(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAccount]:
    """An account with nothing wrong, and keys for it; of this machine, which other tests look at, nothing is told."""
    fake = FakeAccount()
    monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(examine, "machine_findings", lambda *_, **__: [ok("machine", "left out")])
    yield fake
    fake.close()


def checks(ended: Ended) -> dict[str, dict[str, Any]]:
    assert "Traceback" not in ended.out + ended.err
    assert SECRET not in ended.out + ended.err
    assert TOKEN not in ended.out + ended.err
    return {check["check"]: check for check in json.loads(ended.out)["checks"]}


def examined(call: Call, *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
    ended = call("doctor", "--target", "aws", *arguments, "--json")
    assert ended.code == code, ended
    found = checks(ended)
    assert (code == 3) == any(check["verdict"] == "wrong" for check in found.values())
    return found


def test_an_account_with_nothing_wrong(call: Call, account: FakeAccount) -> None:
    found = examined(call)
    notes = {name: check["found"] for name, check in found.items() if check["verdict"] != "ok"}
    assert list(notes) == ["region"], "the endpoint of a test is not AWS"
    assert "arn:aws:iam::000000000000:user/me, from env; temporary, and nothing says until when" in str(found)
    assert found["concurrency"]["found"].startswith("1,000 environments at once")
    assert found["go visibility"]["found"] == "VisibilityTimeout 1800 s, Timeout 300 s"


def test_a_line_for_each_check_and_a_sum(call: Call, account: FakeAccount) -> None:
    account.answers["GetQueueAttributes"] = queue(visibility_s=60)
    ended = call("doctor", "--target", "aws")
    assert ended.code == 3
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["ok", "warning", "ok", "ok"]
    said = (
        "wrong    go visibility       VisibilityTimeout 60 s, Timeout 300 s: messages come again while the function "
        "works on them; deploy with VisibilityTimeout=1800, or a lower Timeout"
    )
    assert said in lines
    assert ended.err.splitlines()[-1] == (
        f"lambdalab: 2 of {len(lines)} checks are wrong: python visibility, go visibility; follow the advice shown."
    )


def test_without_credentials_nothing_more_is_asked(
    call: Call, account: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    found = examined(call, code=3)
    assert found["credentials"]["found"] == "none were found"
    assert list(found)[-1] == "credentials"
    assert account.asked == []


def test_without_a_region(call: Call, account: FakeAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    assert examined(call, "--stack-name", "other", code=3)["region"]["found"] == "none is set"


def test_a_profile_that_is_not_there(call: Call, account: FakeAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "nobody" in examined(call, code=3)["region"]["found"]


def test_a_region_without_prices(call: Call, account: FakeAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-9")
    assert examined(call, code=3)["prices"]["verdict"] == "wrong"


def test_a_region_that_makes_no_host_name(call: Call, account: FakeAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "no region")
    found = examined(call, code=3)
    assert "no region" in found["region"]["found"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ExpiredToken", "the AWS credentials have expired (ExpiredToken)"),
        ("InvalidClientTokenId", "AWS does not accept the credentials (InvalidClientTokenId)"),
        ("SignatureDoesNotMatch", "AWS does not accept the credentials (SignatureDoesNotMatch)"),
    ],
)
def test_credentials_that_aws_refuses(call: Call, account: FakeAccount, code: str, said: str) -> None:
    account.refusals["*"] = code
    found = examined(call, code=3)
    assert found["credentials"]["found"] == said
    assert set(account.asked) == {"GetCallerIdentity"}


@pytest.mark.parametrize(("minutes", "verdict"), [(20, "warning"), (300, "ok")])
def test_credentials_that_end_soon(
    call: Call, account: FakeAccount, monkeypatch: pytest.MonkeyPatch, minutes: int, verdict: str
) -> None:
    until = datetime.now(UTC) + timedelta(minutes=minutes, seconds=30)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", until.isoformat(timespec="seconds"))
    found = examined(call)["credentials"]
    assert f"valid until {until:%Y-%m-%d %H:%M} UTC" in found["found"]
    assert found["verdict"] == verdict


def test_credentials_that_ended_before(call: Call, account: FakeAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    until = datetime.now(UTC) - timedelta(hours=1)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", until.isoformat(timespec="seconds"))
    assert examined(call, code=3)["credentials"]["found"] == "they have expired"
    assert account.asked == []


@pytest.mark.parametrize(("seconds", "verdict"), [(0, "ok"), (-200, "warning"), (1000, "wrong")])
def test_a_clock_that_is_not_that_of_aws(call: Call, account: FakeAccount, seconds: int, verdict: str) -> None:
    account.date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    found = examined(call, code=3 if verdict == "wrong" else 0)
    assert found["clock of AWS"]["verdict"] == verdict


@pytest.mark.parametrize(
    ("operation", "check", "action"),
    [
        ("GetAccountSettings", "concurrency", "lambda:GetAccountSettings"),
        ("GetServiceQuota", "quota in flight", "servicequotas:GetServiceQuota"),
        ("DescribeStacks", "deployed stack", "cloudformation:DescribeStacks"),
        ("ListStackResources", "deployed stack", "cloudformation:ListStackResources"),
        ("GetFunctionConfiguration", "go function", "lambda:GetFunctionConfiguration"),
        ("GetFunctionConcurrency", "go function", "lambda:GetFunctionConcurrency"),
        ("ListEventSourceMappings", "go function", "lambda:ListEventSourceMappings"),
        ("GetQueueAttributes", "go function", "sqs:GetQueueAttributes"),
        ("DescribeTable", "go table", "dynamodb:DescribeTable"),
    ],
)
def test_what_may_not_be_read_is_said_with_the_permission(
    call: Call, account: FakeAccount, operation: str, check: str, action: str
) -> None:
    account.refusals[operation] = "AccessDeniedException"
    found = examined(call, "--rate", "1")
    assert found[check]["verdict"] == "warning"
    assert found[check]["found"] == f"could not be read: AccessDeniedException on {operation}"
    assert found[check]["next_step"] == f"grant {action} to this identity"
    assert found["generator"]["verdict"] == "ok", "the other checks go on"


def test_every_permission_is_documented(call: Call, account: FakeAccount) -> None:
    account.refusals["GetServiceQuota"] = "NoSuchResourceException"
    account.answers["GetAWSDefaultServiceQuota"] = account.answers["GetServiceQuota"]
    examined(call, "--rate", "1")
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    for operation in set(account.asked):
        assert f":{operation}`" in text, operation


def test_quotas_are_the_accounts_own(call: Call, account: FakeAccount) -> None:
    quotas = account.answers["GetServiceQuota"]
    quotas["L-AB614373"]["Quota"]["Value"] = 10.0
    del quotas["L-C491D5A4"]["Quota"]["Value"]
    found = examined(call, "--rate", "10", code=3)
    assert found["quota table writes"]["found"] == "10 (Service Quotas L-AB614373)"
    assert found["quota in flight"]["found"].startswith("120,000, AWS's documented default")
    assert (found["go writes"]["verdict"], found["go writes"]["there"]) == ("wrong", 10.0)


def test_quotas_of_an_endpoint_without_service_quotas(call: Call, account: FakeAccount) -> None:
    account.refusals["GetServiceQuota"] = "UnknownOperationException"
    found = examined(call)
    assert found["quota table writes"]["means"] == "taken to be 40,000, AWS's documented default"


def test_no_stack_yet_and_no_room_for_its_reservations(call: Call, account: FakeAccount) -> None:
    account.refusals["DescribeStacks"] = "ValidationError"
    account.answers["GetAccountSettings"] = account_settings(10, 10)
    found = examined(call, code=3)
    assert found["deployed stack"]["found"] == "there is no stack named lambdalab"
    assert found["concurrency"]["verdict"] == "wrong"
    assert (found["concurrency"]["needed"], found["concurrency"]["there"]) == (102, 10)
    account.answers["GetAccountSettings"] = account_settings(1000, 102)
    assert examined(call)["concurrency"]["verdict"] == "ok"


@pytest.mark.parametrize(
    ("action", "answer", "arguments", "check", "verdict"),
    [
        ("GetQueueAttributes", queue(visibility_s=600), (), "go visibility", "warning"),
        ("GetQueueAttributes", queue(receives=None), (), "go redrive", "warning"),
        ("GetQueueAttributes", queue(receives=2), (), "go redrive", "warning"),
        ("GetFunctionConcurrency", {"ReservedConcurrentExecutions": 0}, (), "go concurrency", "wrong"),
        ("GetFunctionConcurrency", {"ReservedConcurrentExecutions": 5}, (), "go concurrency", "warning"),
        ("GetFunctionConcurrency", {"ReservedConcurrentExecutions": 1}, ("--rate", "1"), "go concurrency", "wrong"),
        ("GetFunctionConcurrency", {"ReservedConcurrentExecutions": 10}, (), "go concurrency", "ok"),
    ],
)
def test_settings_that_do_not_go_together(
    call: Call, account: FakeAccount, action: str, answer: Any, arguments: tuple[str, ...], check: str, verdict: str
) -> None:
    account.answers[action] = answer
    assert examined(call, *arguments, code=3 if verdict == "wrong" else 0)[check]["verdict"] == verdict


def test_a_queue_that_nothing_leads_from(call: Call, account: FakeAccount) -> None:
    account.answers["ListEventSourceMappings"] = {"EventSourceMappings": []}
    assert examined(call, code=3)["go function"]["found"] == "nothing leads from queue Go to Go"


def test_a_rate_beside_what_the_account_and_the_stack_allow(call: Call, account: FakeAccount) -> None:
    account.answers["ListEventSourceMappings"] = mapping(None)
    account.answers["GetAccountSettings"] = account_settings(10, 10)
    found = examined(call, "--rate", "100", "--languages", "go")
    busy = found["go environments"]
    assert (busy["needed"], busy["there"], busy["verdict"]) == (25.0, 10, "warning"), "an assumption is no proof"
    assert "assumed, no run here measured it" in busy["found"]
    assert found["account"]["verdict"] == "warning"
    assert found["go warm table"]["there"] == 4000
    assert found["go writes"]["there"] == 40_000, "an on-demand table has no capacity units of its own"
    account.answers["DescribeTable"] = table(OnDemandThroughput={"MaxWriteRequestUnits": 100})
    assert examined(call, "--rate", "100", "--languages", "go", code=3)["go writes"]["there"] == 100
    account.answers["DescribeTable"] = table("PROVISIONED")
    assert examined(call, "--rate", "100", "--languages", "go", code=3)["go writes"]["there"] == 5


def test_an_endpoint_that_does_not_answer(call: Call, account: FakeAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "does not answer" in examined(call, code=3)["credentials"]["found"]


def test_outside_of_a_project(call: Call, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    ended = call("doctor", "--target", "aws")
    assert "no lambdalab project in" in one_sentence(ended)
    assert ended.code == 3
