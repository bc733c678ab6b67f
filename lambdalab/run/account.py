"""What an AWS account allows, as far as a run depends on it and it can be asked."""

from collections.abc import Collection, Mapping
from typing import Final

from lambdalab.aws.clients import UNRESERVED_FLOOR, access_errors, most_reservable
from lambdalab.errors import AccessError, UsageError
from lambdalab.local.concurrency import ACCOUNT_CONCURRENCY
from lambdalab.records.manifest import QueuedFunction
from lambdalab.run.local_target import LocalTarget
from lambdalab.run.target import AwsTarget

UNCHECKED: Final = (
    "DynamoDB's throughput limits of the account and its tables",
    "Logs Insights queries that others have under way (100 at once in an account)",
    "what else of the account uses Lambda during the run",
)
"""No call tells these before the run meets them."""


def account_limits(target: AwsTarget, functions: Collection[QueuedFunction]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Asks for the concurrency of account and functions.

    Returns:
        What was found, each in a sentence, warnings beginning with ``caution``; and what could not be checked.
    """
    found = [
        f"caution: {name} has reserved concurrency 0 and takes no invocation"
        for name in sorted({f.function_name for f in functions if f.reserved_concurrency == 0})
    ]
    try:
        with access_errors("the account's Lambda settings"):
            limit = target.aws.lambda_.get_account_settings()["AccountLimit"]
    except AccessError as error:
        return tuple(found), (f"the account's concurrency: {error.problem}", *UNCHECKED)
    total, unreserved = limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]
    found.append(f"concurrency: {total} in the account, {unreserved} of them unreserved")
    sharing = {f.function_name for f in functions if f.reserved_concurrency is None}
    if len(sharing) > unreserved:
        found.append(f"caution: {len(sharing)} functions without reserved concurrency share {unreserved} environments")
    return tuple(found), UNCHECKED


def require_concurrency(
    target: AwsTarget, reserved: Mapping[str, int | None], wanted: Mapping[str, int], callers: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Refuses reservations that Lambda would refuse in mid-run: it keeps 100 of an account's concurrency unreserved.

    Args:
        target: where.
        reserved: what is reserved now, by function.
        wanted: the most that each function will reserve; those of which nothing is asked keep what they have.
        callers: the most calls at once.

    Returns:
        As ``account_limits``, without what only a run of messages depends on.

    Raises:
        UsageError: they do not go together.
    """
    now = sum(concurrency or 0 for concurrency in reserved.values())
    if isinstance(target, LocalTarget):
        total, unreserved = ACCOUNT_CONCURRENCY, ACCOUNT_CONCURRENCY - now
    else:
        try:
            with access_errors("the account's Lambda settings"):
                limit = target.aws.lambda_.get_account_settings()["AccountLimit"]
        except AccessError as error:
            return (), (f"the account's concurrency: {error.problem}", *UNCHECKED[-1:])
        total, unreserved = limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]
    asked = sum(wanted.get(name, concurrency or 0) for name, concurrency in reserved.items())
    most = most_reservable(unreserved, now)
    if asked > most:
        raise UsageError(
            f"the functions would reserve a concurrency of {asked} together, and this account can reserve {most}: "
            f"of {total} it has {unreserved + now} left, and Lambda keeps {UNRESERVED_FLOOR} unreserved",
            next_step="lower factors.reserved_concurrency, or ask AWS for more",
        )
    found = [f"concurrency: {total} in the account, {unreserved} of them unreserved"]
    if callers > total:
        found.append(
            f"caution: {callers} callers at once, and the account runs {total} invocations: many are throttled"
        )
    return tuple(found), UNCHECKED[-1:]
