"""The error tree: as drawn, as built, and as it speaks."""

import re

import pytest
from boto3 import Session

from lambdalab import errors
from lambdalab.aws.clients import access_errors
from lambdalab.errors import AccessError, LambdalabError

DRAWN = re.compile(r"^    (?P<indent>[│ ]*)(?:[├└]── )?(?P<name>\w+Error)(?: +(?P<code>\d))?", re.MULTILINE)


def drawn_tree() -> list[tuple[int, str, str | None]]:
    """Depth, name and exit code, in the order of the docstring."""
    assert errors.__doc__ is not None
    tree = errors.__doc__[: errors.__doc__.index("Exit code 1")]
    found = []
    for match in DRAWN.finditer(tree):
        at_root = match[0].strip() == match["name"]
        found.append((0 if at_root else 1 + len(match["indent"]) // 4, match["name"], match["code"]))
    return found


def real_tree(root: type[LambdalabError] = LambdalabError, depth: int = 0) -> list[tuple[int, str, int]]:
    found = [(depth, root.__name__, root.exit_code)]
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            found += real_tree(child, depth + 1)
    return found


def test_the_tree_drawn_is_the_tree_of_classes() -> None:
    assert [(depth, name) for depth, name, _ in drawn_tree()] == [(depth, name) for depth, name, _ in real_tree()]
    assert len(drawn_tree()) > 10


def test_the_exit_codes_drawn_are_those_of_the_classes() -> None:
    code = None
    for (depth, name, drawn), (_, _, real) in zip(drawn_tree(), real_tree(), strict=True):
        if depth == 0:
            continue
        if depth == 1:
            assert drawn is not None, f"{name} begins a branch and has a code"
            code = int(drawn)
        assert real == code, name


def test_no_failure_ends_with_success_or_a_verdict() -> None:
    assert {code for _, _, code in real_tree()} == {2, 3, 4}


def test_a_message_is_one_sentence_and_the_next_step() -> None:
    error = LambdalabError("table x is not there", next_step="deploy it")
    assert str(error) == "table x is not there; deploy it."
    assert (error.problem, error.next_step) == ("table x is not there", "deploy it")


def test_a_text_of_others_does_not_end_in_two_full_stops() -> None:
    assert str(LambdalabError("MemorySize=1 is refused", next_step="it must be more.")).endswith("be more.")


@pytest.mark.parametrize("kind", [errors.ToolError, errors.InvalidRunError, errors.ProtocolError])
def test_every_kind_is_caught_as_the_labs_own(kind: type[LambdalabError]) -> None:
    with pytest.raises(LambdalabError):
        raise kind("a", next_step="b")


def test_credentials_that_have_expired_are_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2026-01-01T00:00:00Z")
    sqs = Session(region_name="us-east-1").client("sqs", endpoint_url="http://127.0.0.1:1")
    with pytest.raises(AccessError, match="the AWS credentials for queue q have expired"), access_errors("queue q"):
        sqs.list_queues()
