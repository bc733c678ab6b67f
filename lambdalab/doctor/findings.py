"""What a check finds, and how it is said when a check cannot look."""

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Final

import msgspec
from botocore.exceptions import ClientError

from lambdalab.errors import LambdalabError

_DENIED: Final = ("AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation")
_EXPIRED: Final = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
_UNKNOWN: Final = (
    "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "SignatureDoesNotMatch",
    "InvalidSignatureException", "InvalidSignature", "AuthFailure", "MissingAuthenticationToken",
)  # fmt: skip
_ACTIONS: Final = {
    "GetCallerIdentity": "sts",
    "GetAccountSettings": "lambda",
    "GetFunctionConfiguration": "lambda",
    "GetFunctionConcurrency": "lambda",
    "ListEventSourceMappings": "lambda",
    "DescribeStacks": "cloudformation",
    "ListStackResources": "cloudformation",
    "GetQueueAttributes": "sqs",
    "DescribeTable": "dynamodb",
    "GetServiceQuota": "servicequotas",
    "GetAWSDefaultServiceQuota": "servicequotas",
}
"""The calls of all checks, with the service whose IAM action they are."""


class Verdict(StrEnum):
    """``warning``: it works, but not as well or not all of it; ``wrong``: something people come for does not work."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line: what was found, what it means, the next step; ``needed`` and ``there`` are a figure and its limit."""

    check: str
    verdict: Verdict
    found: str
    means: str | None = None
    next_step: str | None = None
    needed: float | None = None
    there: float | None = None

    @property
    def sentence(self) -> str:
        """All it says but check and verdict."""
        means = "" if self.means is None else f": {self.means}"
        return f"{self.found}{means}" + ("" if self.next_step is None else f"; {self.next_step}")


def ok(check: str, found: str, means: str | None = None) -> Finding:
    """A check that found nothing wrong."""
    return Finding(check=check, verdict=Verdict.OK, found=found, means=means)


def warning(check: str, found: str, means: str | None, next_step: str) -> Finding:
    """A check that found something a user should know."""
    return Finding(check=check, verdict=Verdict.WARNING, found=found, means=means, next_step=next_step)


def wrong(check: str, found: str, means: str | None, next_step: str) -> Finding:
    """A check that found something that has to be mended."""
    return Finding(check=check, verdict=Verdict.WRONG, found=found, means=means, next_step=next_step)


def look(check: str, findings: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Makes a check; one that cannot look says why, in its own line."""
    try:
        yield from findings()
    except LambdalabError as error:
        yield refused(check, error)
    except OSError as error:
        yield warning(check, f"could not be looked at: {error}", None, "check the owner of what it names")


def refused(check: str, error: LambdalabError) -> Finding:
    """Says a failure. Of AWS's own words only the code: those about signatures can hold a session token."""
    cause = error.__cause__
    if not isinstance(cause, ClientError):
        return wrong(check, error.problem, None, error.next_step)
    code, operation = cause.response.get("Error", {}).get("Code", "an error"), cause.operation_name
    if code in _DENIED:
        action = f"{_ACTIONS[operation]}:{operation}" if operation in _ACTIONS else operation
        return warning(check, f"could not be read: {code} on {operation}", None, f"grant {action} to this identity")
    if code in _EXPIRED:
        return wrong(check, f"the AWS credentials have expired ({code})", None, "sign in again")
    if code in _UNKNOWN:
        return wrong(check, f"AWS does not accept the credentials ({code})", None, "check the keys, or sign in again")
    return wrong(check, f"{operation} was refused: {code}", None, error.next_step)
