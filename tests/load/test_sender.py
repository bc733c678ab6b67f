"""What the sender puts on the wire, what it makes of answers, and what it does again."""

import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import botocore.auth
import gevent
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import RefreshableCredentials
from botocore.session import get_session

from lambdalab.errors import AccessError
from lambdalab.load import sender
from lambdalab.load.sender import WRONG_MD5, SqsSender
from load.fake_aws import FakeAws, md5, refusal


@pytest.fixture
def aws() -> Iterator[FakeAws]:
    fake = FakeAws()
    yield fake
    fake.close()


@pytest.fixture
def queue(aws: FakeAws) -> str:
    return f"{aws.url}/000000000000/python"


@pytest.fixture
def sqs(aws: FakeAws) -> Iterator[SqsSender]:
    made = SqsSender(aws.url, boto3.Session("id", "secret"), "eu-central-1")
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "PATIENCE_S", 0.5)


@pytest.mark.parametrize("token", [None, "a/session+token=="])
def test_signed_as_botocore_does(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    session = boto3.Session("id", "secret", token)
    wire = SqsSender("http://127.0.0.1:4566", session, "eu-central-1")._signed("SendMessage", b'{"a":"\xc3\xa4"}')
    head, _, body = wire.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    assert line == "POST / HTTP/1.1"
    assert headers["Content-Length"] == str(len(body))

    now = datetime.strptime(headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: now)
    signed = {name: headers[name] for name in ("Content-Type", "X-Amz-Target")}
    request = AWSRequest("POST", "http://127.0.0.1:4566/", headers=signed, data=body)
    credentials: Any = session.get_credentials()
    SigV4Auth(credentials, "sqs", "eu-central-1").add_auth(request)
    assert headers["Authorization"] == request.headers["Authorization"]
    assert headers.get("X-Amz-Security-Token") == token


def test_a_message_is_taken_and_the_connection_kept(aws: FakeAws, sqs: SqsSender, queue: str) -> None:
    outcomes = [sqs.send(queue, [f"body {i}"])[0] for i in range(5)]
    assert [(one.error, one.attempts) for one in outcomes] == [(None, 1)] * 5
    assert [one.message_id for one in outcomes] == [f"m-{i}" for i in range(1, 6)]
    assert [body for body, _ in aws.messages] == [f"body {i}" for i in range(5)]
    assert aws.connections == 1


def test_a_batch_is_one_request_and_each_entry_has_its_own_outcome(aws: FakeAws, sqs: SqsSender, queue: str) -> None:
    aws.refuse_entry = lambda body: (
        {"SenderFault": True, "Code": "InvalidMessageContents", "Message": "not allowed"} if body == "b" else None
    )
    outcomes = sqs.send(queue, ["a", "b", "c"])
    assert [one.message_id for one in outcomes] == ["m-1", None, "m-2"]
    assert [one.error for one in outcomes] == [None, "InvalidMessageContents: not allowed", None]
    assert Counter(action for action, _ in aws.requests) == {"SendMessageBatch": 1}, "the sender's fault is not retried"


def test_only_the_entries_that_failed_are_sent_again(aws: FakeAws, sqs: SqsSender, queue: str) -> None:
    refused: Counter[str] = Counter()

    def refuse(body: str) -> dict[str, Any] | None:
        refused[body] += 1
        passing = body == "b" and refused[body] < 3
        return {"SenderFault": False, "Code": "InternalError"} if passing else None

    aws.refuse_entry = refuse
    assert [(one.error, one.attempts) for one in sqs.send(queue, ["a", "b", "c"])] == [(None, 1), (None, 3), (None, 1)]
    assert refused == {"a": 1, "b": 3, "c": 1}
    assert sorted(body for body, _ in aws.messages) == ["a", "b", "c"]


def test_an_entry_the_answer_does_not_mention_is_an_error(aws: FakeAws, sqs: SqsSender, queue: str) -> None:
    aws.answer = lambda *_: (200, {"Successful": [{"Id": "0", "MessageId": "m", "MD5OfMessageBody": md5("a")}]})
    outcomes = sqs.send(queue, ["a", "b"])
    assert outcomes[0].error is None
    assert outcomes[1].error == "the answer to the batch does not mention it"


def test_another_md5_is_an_error_and_not_sent_again(aws: FakeAws, sqs: SqsSender, queue: str) -> None:
    aws.answer = lambda *_: (200, {"MessageId": "m", "MD5OfMessageBody": md5("something else")})
    (outcome,) = sqs.send(queue, ["a"])
    assert (outcome.message_id, outcome.error, outcome.attempts) == (None, WRONG_MD5, 1)


@pytest.mark.parametrize(
    "answer", [refusal("RequestThrottled", status=403), refusal("InternalFailure", status=500), (503, {})]
)
def test_what_passes_is_tried_again(aws: FakeAws, sqs: SqsSender, queue: str, answer: Any) -> None:
    aws.answer = lambda *_: answer if len(aws.requests) < 3 else None
    (outcome,) = sqs.send(queue, ["a"])
    assert (outcome.error, outcome.attempts) == (None, 3)
    assert len(aws.messages) == 1


@pytest.mark.parametrize(
    "code", ["AccessDenied", "QueueDoesNotExist", "InvalidMessageContents", "InvalidParameterValue"]
)
def test_what_does_not_pass_is_not(aws: FakeAws, sqs: SqsSender, queue: str, code: str) -> None:
    aws.answer = lambda *_: refusal(code, "that is why")
    (outcome,) = sqs.send(queue, ["a"])
    assert (outcome.message_id, outcome.error, outcome.attempts) == (None, f"{code}: that is why", 1)


@pytest.mark.usefixtures("impatient")
def test_what_does_not_pass_for_long_is_given_up_with_its_reason(aws: FakeAws, sqs: SqsSender, queue: str) -> None:
    aws.answer = lambda *_: refusal("ServiceUnavailable", "later", status=503)
    (outcome,) = sqs.send(queue, ["a"])
    assert outcome.error == "ServiceUnavailable: later"
    assert outcome.attempts == len(aws.requests) > 1


def test_connections_that_are_cut_off_are_made_anew(aws: FakeAws, sqs: SqsSender, queue: str) -> None:
    assert sqs.send(queue, ["before"])[0].error is None
    aws.drop = 4
    outcomes = [greenlet.get() for greenlet in [gevent.spawn(sqs.send, queue, [f"{i}"]) for i in range(10)]]
    assert [one[0].error for one in outcomes] == [None] * 10
    assert sorted(body for body, _ in aws.messages) == sorted(["before", *map(str, range(10))])


def test_an_idle_connection_that_was_closed_costs_no_attempt(aws: FakeAws, sqs: SqsSender, queue: str) -> None:
    assert sqs.send(queue, ["before"])[0].error is None
    aws.refuse_connections()
    aws.listen_again()
    assert sqs.send(queue, ["after"])[0] == ("m-2", None, 1)


@pytest.mark.usefixtures("impatient")
def test_nobody_listening_is_said(aws: FakeAws, sqs: SqsSender, queue: str) -> None:
    aws.refuse_connections()
    (outcome,) = sqs.send(queue, ["a"])
    assert outcome.error is not None
    assert outcome.error.startswith("no answer: ")
    assert "refused" in outcome.error
    assert outcome.attempts > 1
    aws.listen_again()


def test_an_answer_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, aws: FakeAws, sqs: SqsSender, queue: str
) -> None:
    monkeypatch.setattr(sender, "ANSWER_LIMIT_S", 0.2)
    aws.frozen_until = time.monotonic() + 1
    (outcome,) = sqs.send(queue, ["a"])
    assert outcome.error is None
    assert outcome.attempts > 1


def test_sending_goes_on_beside_a_request_that_is_not_answered(aws: FakeAws, sqs: SqsSender, queue: str) -> None:
    aws.frozen_until = time.monotonic() + 0.5
    waiting = [gevent.spawn(sqs.send, queue, [f"{i}"]) for i in range(50)]
    gevent.joinall(waiting)
    assert aws.connections == 50, "each had a connection of its own"
    assert len(aws.messages) == 50


def _refreshable(*, expired: bool) -> tuple[boto3.Session, list[int]]:
    """A session whose credentials change when they are refreshed, and the list of refreshes."""
    refreshes: list[int] = []

    def found(hours: int) -> dict[str, str]:
        expires = datetime.now(UTC) + timedelta(hours=hours)
        return {
            "access_key": f"key{len(refreshes)}",
            "secret_key": "secret",
            "token": f"token{len(refreshes)}",
            "expiry_time": expires.isoformat(),
        }

    def refresh() -> dict[str, str]:
        refreshes.append(1)
        return found(6)

    core = get_session()
    made = RefreshableCredentials.create_from_metadata(found(-1 if expired else 6), refresh, "test")
    core._credentials = made  # type: ignore[attr-defined]
    return boto3.Session(botocore_session=core), refreshes


def test_credentials_that_expire_during_the_run_are_refreshed(aws: FakeAws, queue: str) -> None:
    session, refreshes = _refreshable(expired=True)
    made = SqsSender(aws.url, session, "eu-central-1")
    assert made.send(queue, ["a"])[0].error is None
    assert refreshes == [1]
    headers = aws.requests[-1][1]
    assert headers["X-Amz-Security-Token"] == "token1"
    assert "Credential=key1/" in headers["Authorization"]
    made.close()


def test_a_refusal_as_expired_is_tried_again_when_there_are_new_credentials(aws: FakeAws, queue: str) -> None:
    session, _ = _refreshable(expired=False)
    made = SqsSender(aws.url, session, "eu-central-1")

    def answer(*_: Any) -> Any:
        if "key0" not in aws.requests[-1][1]["Authorization"]:
            return None
        credentials: Any = session.get_credentials()
        credentials._expiry_time = datetime.now(UTC) - timedelta(hours=1)  # as if the service knew first
        return refusal("ExpiredToken", "expired", 403)

    aws.answer = answer
    (outcome,) = made.send(queue, ["a"])
    assert (outcome.error, outcome.attempts) == (None, 2)
    made.close()


def test_credentials_that_stay_expired_are_given_up_at_once(aws: FakeAws, sqs: SqsSender, queue: str) -> None:
    aws.answer = lambda *_: refusal("ExpiredToken", "expired", 403)
    assert sqs.send(queue, ["a"])[0] == (None, "ExpiredToken: expired", 1)


def test_no_credentials_are_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def get_credentials(self) -> None:
            return None

    session: Any = Nothing()
    with pytest.raises(AccessError, match="no AWS credentials were found for SQS; set AWS_PROFILE"):
        SqsSender("http://127.0.0.1:1", session, "eu-central-1")


def test_an_answer_without_content_is_an_error(aws: FakeAws, sqs: SqsSender, queue: str) -> None:
    aws.answer = lambda *_: (200, {})
    (outcome,) = sqs.send(queue, ["a"])
    assert outcome.message_id is None
    assert outcome.error == "200: {}"
