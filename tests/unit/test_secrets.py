"""What AWS repeats of a refused request is cut before anybody reads it, and DEBUG does not write it either."""

import logging

import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from lambdalab.aws.clients import access_errors, without_secrets
from lambdalab.errors import AccessError

TOKEN = "IQoJb3JpZ2luX2VjE+/abc123=="


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"host:sqs\nx-amz-security-token:{TOKEN}\n\nhost;x", "host:sqs\nx-amz-security-token:...\n\nhost;x"),
        (f"?X-Amz-Security-Token={TOKEN}&X-Amz-Date=1", "?X-Amz-Security-Token=...&X-Amz-Date=1"),
        ("got 'AWS4-HMAC-SHA256 Credential=ASIAQ/2026/sqs, Sig", "got 'AWS4-HMAC-SHA256 Credential=.../2026/sqs, Sig"),
        ("User arn:aws:iam::1:user/x may not sqs:SendMessage", "User arn:aws:iam::1:user/x may not sqs:SendMessage"),
    ],
)
def test_secrets_are_cut_and_the_rest_stays(said: str, shown: str) -> None:
    assert without_secrets(said) == shown


def test_a_refusal_that_repeats_the_request_is_told_without_its_token() -> None:
    answer = {"Error": {"Code": "SignatureDoesNotMatch", "Message": f"x-amz-security-token:{TOKEN}"}}
    with pytest.raises(AccessError, match="SignatureDoesNotMatch") as refused, access_errors("queue q"):
        raise ClientError(answer, "SendMessage")  # type: ignore[arg-type]
    assert TOKEN not in str(refused.value)


def test_an_answer_that_is_none_is_not_repeated() -> None:
    with pytest.raises(AccessError, match="no answer of AWS") as refused, access_errors("queue q"):
        raise ResponseParserError(f"invalid XML received: {TOKEN}")
    assert TOKEN not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_botocore_does_not_write_requests_even_if_everything_is_at_debug() -> None:
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.DEBUG)
    try:
        assert not logging.getLogger("botocore.auth").isEnabledFor(logging.DEBUG)
        assert not logging.getLogger("botocore.endpoint").isEnabledFor(logging.DEBUG)
    finally:
        root.setLevel(before)
