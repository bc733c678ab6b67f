"""``sam``, isolated and pinned, as ``.venv/bin/sam``.

It is aws-sam-cli unchanged, with three additions for ``--config-env local``: the endpoints are the running local
stack's, Lambda's the plane's, never AWS; Architecture and PythonRuntime are this machine's unless they are given; and
the containers of ``sam local`` reach the local stack and know its tables (lambdalab/local/containers.py). An
environment that the scenario does not have is refused, because sam itself would go on without any settings.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from lambdalab.build import samconfig
from lambdalab.build.deployment import aws_variables, build_variables, local_parameters, local_variables, overrides
from lambdalab.build.samconfig import LOCAL
from lambdalab.build.tools import tool
from lambdalab.errors import LambdalabError, StackError, UsageError
from lambdalab.local.containers import ensure_images, sam_local_options
from lambdalab.local.stack import LocalStack, running_stack
from lambdalab.project import ROOT_SCENARIO, scenario_folder, scenario_folders, scenario_name, shown
from lambdalab.report.console import say

_RUN_FUNCTIONS: Final = ("invoke", "start-lambda", "start-api")
"""The commands of ``sam local`` that start containers."""


def environment_of(given: Sequence[str]) -> str | None:
    """The samconfig environment that the arguments select, if they do."""
    pairs = [*itertools.pairwise(given), *(tuple(argument.split("=", 1)) for argument in given if "=" in argument)]
    return next((value for name, value in pairs if name == "--config-env"), None)


def is_local(given: Sequence[str]) -> bool:
    """True if the arguments select the environment for the emulator."""
    return environment_of(given) == LOCAL


def command_of(given: Sequence[str]) -> str:
    """The command among the arguments; options such as ``--debug`` may stand before it."""
    return next((argument for argument in given if not argument.startswith("-")), "")


def runs_functions(given: Sequence[str]) -> bool:
    """Whether this is a command of ``sam local`` that starts containers."""
    if command_of(given) != "local" or "--help" in given or "-h" in given:
        return False
    return command_of(given[list(given).index("local") + 1 :]) in _RUN_FUNCTIONS


def arguments(given: Sequence[str]) -> list[str]:
    """What sam is called with: the user's arguments, completed for a local build, deploy or ``sam local``."""
    chosen = any(argument.startswith("--parameter-overrides") for argument in given)
    for_this_machine = command_of(given) in ("build", "deploy") or runs_functions(given)
    if not is_local(given) or not for_this_machine or chosen:
        return list(given)
    return [*given, *overrides(local_parameters({}))]


def main() -> int:  # returns only when sam cannot be started, or has to be waited for
    """Runs sam with this process's arguments."""
    given = sys.argv[1:]
    try:
        _refuse_unknown_environment(given)
        completed = arguments(given)
        program = tool("sam")
        if is_local(given) and runs_functions(given):
            _refuse_other_scenario()
            _refuse_own_variables(given)
            stack = _local_stack()
            images = ensure_images(stack, say)
            return asyncio.run(_in_containers([str(program), *completed], stack, images))
        if not is_local(given):
            environment = aws_variables()
        elif command_of(given) in ("build", "validate", "local"):
            environment = build_variables()
        else:
            environment = _variables_of(_local_stack())
    except LambdalabError as error:
        print(f"sam: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return os.execve(program, [str(program), *completed], environment)  # noqa: S606


def _variables_of(stack: LocalStack) -> dict[str, str]:
    return local_variables(stack.endpoint_url, stack.lambda_endpoint_url)


async def _in_containers(command: Sequence[str], stack: LocalStack, images: dict[str, str]) -> int:
    """Runs ``sam local`` with a way from its containers to the emulator, and ends that way with it."""
    async with sam_local_options(stack, images) as (options, docker_variables):
        variables = _variables_of(stack) | docker_variables
        process = await asyncio.create_subprocess_exec(*command, *options, env=variables)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the terminal tells sam as well, which then cleans up

        def pass_on() -> None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

        loop.add_signal_handler(signal.SIGTERM, pass_on)
        code = await process.wait()
    return 128 - code if code < 0 else code


def _refuse_own_variables(given: Sequence[str]) -> None:
    if any(argument == "-n" or argument.startswith("--env-vars") for argument in given):
        raise UsageError(
            "--env-vars is given, and this sam makes that file itself for --config-env local: "
            "with the emulator's address and the variables of the deployed functions",
            next_step="leave it out; to change a variable, change the deployed function's",
        )


def _refuse_unknown_environment(given: Sequence[str]) -> None:
    environment = environment_of(given)
    if environment is None or any(argument.startswith("--config-file") for argument in given):
        return
    known = samconfig.environments(folder := scenario_folder())
    if environment not in known:
        others = [shown(other) for other in scenario_folders().values() if other != folder]
        raise UsageError(
            f"{shown(folder / samconfig.FILE)} has no environment {environment}",
            next_step=f"name one of {', '.join(known)}, or change to the folder of its scenario: {', '.join(others)}",
        )


def _refuse_other_scenario() -> None:
    if (name := scenario_name(scenario_folder())) != ROOT_SCENARIO:
        raise UsageError(
            f"sam local is not made ready for scenario {name}: its containers would not reach the local stack",
            next_step=f"bring the stack up with `lambdalab up {name}` and use `sam remote invoke`",
        )


def _local_stack() -> LocalStack:
    stack = running_stack()
    if stack is None:
        raise StackError("no local stack is up to work with", next_step="start one with `lambdalab up`")
    return stack
