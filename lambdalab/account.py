"""What an AWS account allows, as far as a run depends on it and it can be asked."""

from collections.abc import Collection
from typing import Final

from lambdalab.aws import access_errors
from lambdalab.errors import AccessError
from lambdalab.model import FunctionFacts
from lambdalab.target import AwsTarget

UNCHECKED: Final = (
    "DynamoDB's throughput limits of the account and its tables",
    "Logs Insights queries that others have under way (100 at once in an account)",
    "what else of the account uses Lambda during the run",
)
"""No call tells these before the run meets them."""


def account_limits(target: AwsTarget, functions: Collection[FunctionFacts]) -> tuple[tuple[str, ...], tuple[str, ...]]:
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
