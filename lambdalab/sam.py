"""``sam``, isolated and pinned, as ``.venv/bin/sam``.

It is aws-sam-cli unchanged, with two additions for ``--config-env local``: the endpoint is the running local stack,
never AWS, and Architecture and PythonRuntime are this machine's unless they are given.
"""

import itertools
import os
import platform
import sys
import tomllib
from collections.abc import Sequence
from typing import Final

from lambdalab.aws import LOCAL_KEY, LOCAL_REGION
from lambdalab.errors import LambdalabError, StackError
from lambdalab.project import project_root
from lambdalab.tools import find_python, search_path, tool

ARCHITECTURES: Final = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
PREFERRED_PYTHON: Final = "3.12"
"""The template's default runtime; used when this machine has it."""


def host_parameters() -> dict[str, str]:
    """Template parameters for this machine: its architecture, and python3.12 or else the lab's own Python."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    version = PREFERRED_PYTHON if own != PREFERRED_PYTHON and find_python(PREFERRED_PYTHON) else own
    return {"Architecture": ARCHITECTURES[platform.machine()], "PythonRuntime": f"python{version}"}


def variables(endpoint_url: str | None) -> dict[str, str]:
    """The environment sam runs in; with an endpoint, the emulator's fixed credentials as well."""
    found = {**os.environ, "SAM_CLI_TELEMETRY": "0", "PATH": search_path()}
    if endpoint_url is None:
        return found
    found.pop("AWS_PROFILE", None)
    return found | {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": LOCAL_KEY,
        "AWS_SECRET_ACCESS_KEY": LOCAL_KEY,
        "AWS_DEFAULT_REGION": LOCAL_REGION,
    }


def local_overrides(changes: dict[str, str]) -> list[str]:
    """``--parameter-overrides`` for a local build or deploy: samconfig's list, with ``changes`` over it."""
    settings = tomllib.loads((project_root() / "samconfig.toml").read_text())
    written: list[str] = settings["local"]["global"]["parameters"]["parameter_overrides"]
    merged = dict(pair.split("=", 1) for pair in written) | changes
    return ["--parameter-overrides", *(f"{key}={value}" for key, value in merged.items())]


def is_local(given: Sequence[str]) -> bool:
    """Whether the arguments select the samconfig environment ``local``."""
    return "--config-env=local" in given or ("--config-env", "local") in itertools.pairwise(given)


def arguments(given: Sequence[str]) -> list[str]:
    """What sam is called with: the user's arguments, completed for a local build or deploy."""
    chosen = any(argument.startswith("--parameter-overrides") for argument in given)
    if not is_local(given) or given[0] not in ("build", "deploy") or chosen:
        return list(given)
    return [*given, *local_overrides(host_parameters())]


def main() -> int:  # returns only when sam cannot be started
    """Runs sam with this process's arguments."""
    given = sys.argv[1:]
    try:
        completed = arguments(given)
        # Whatever else is asked of the local environment, it must never reach AWS.
        offline = not is_local(given) or given[0] in ("build", "validate", "local")
        endpoint_url = None if offline else _local_endpoint()
        program = tool("sam")
    except LambdalabError as error:
        print(f"sam: {error}", file=sys.stderr)
        return error.exit_code
    return os.execve(program, [str(program), *completed], variables(endpoint_url))  # noqa: S606


def _local_endpoint() -> str:
    from lambdalab.local.stack import running_stack

    stack = running_stack()
    if stack is None:
        raise StackError("no local stack is up to deploy to", next_step="start one with `lambdalab up`")
    return stack.endpoint_url
