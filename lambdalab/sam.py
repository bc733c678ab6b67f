"""``sam``, isolated and pinned, as ``.venv/bin/sam``.

It is aws-sam-cli unchanged, with two additions for ``--config-env local``: the endpoints are the running local stack's,
Lambda's the plane's, never AWS, and Architecture and PythonRuntime are this machine's unless they are given.
"""

import itertools
import os
import sys
from collections.abc import Sequence

from lambdalab.deployment import local_parameters, overrides, variables
from lambdalab.errors import LambdalabError, StackError
from lambdalab.local.stack import running_stack
from lambdalab.tools import tool


def is_local(given: Sequence[str]) -> bool:
    """Whether the arguments select the samconfig environment ``local``."""
    return "--config-env=local" in given or ("--config-env", "local") in itertools.pairwise(given)


def command_of(given: Sequence[str]) -> str:
    """The command among the arguments; options such as ``--debug`` may stand before it."""
    return next((argument for argument in given if not argument.startswith("-")), "")


def arguments(given: Sequence[str]) -> list[str]:
    """What sam is called with: the user's arguments, completed for a local build, deploy or ``sam local``."""
    chosen = any(argument.startswith("--parameter-overrides") for argument in given)
    if not is_local(given) or command_of(given) not in ("build", "deploy", "local") or chosen:
        return list(given)
    return [*given, *overrides(local_parameters({}))]


def main() -> int:  # returns only when sam cannot be started
    """Runs sam with this process's arguments."""
    given = sys.argv[1:]
    try:
        completed = arguments(given)
        # Whatever else is asked of the local environment, it must never reach AWS.
        offline = not is_local(given) or command_of(given) in ("build", "validate", "local")
        environment = variables(None) if offline else _local_variables()
        program = tool("sam")
    except LambdalabError as error:
        print(f"sam: {error}", file=sys.stderr)
        return error.exit_code
    return os.execve(program, [str(program), *completed], environment)  # noqa: S606


def _local_variables() -> dict[str, str]:
    stack = running_stack()
    if stack is None:
        raise StackError("no local stack is up to deploy to", next_step="start one with `lambdalab up`")
    return variables(stack.endpoint_url) | {"AWS_ENDPOINT_URL_LAMBDA": stack.lambda_endpoint_url}
