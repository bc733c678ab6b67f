"""What the plane knows of a deployed function, and the environment variables Lambda gives it."""

from pathlib import Path
from typing import Final

import msgspec

from lambdalab.local.filesystem import FileSystem, layer_variables

# A custom runtime starts its own bootstrap; a managed one is started with the runtime client of its language.
CUSTOM_RUNTIMES: Final = ("provided.al2023", "provided.al2")


class FunctionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A function's configuration as deployed, and where its unpacked package lies."""

    name: str
    arn: str
    runtime: str
    handler: str
    memory_mb: int
    timeout_s: int
    variables: dict[str, str]
    log_group: str
    revision_id: str
    package: Path
    reserved_concurrency: int | None = None
    debugger: tuple[str, ...] = ()
    """What stands before the function's own program when it runs under a debugger."""
    tmp_mb: int = 512
    layers: Path | None = None
    """The folder its unpacked layers lie in, one over the other."""

    @property
    def region(self) -> str:
        """The region in the function's ARN."""
        return self.arn.split(":")[3]


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What a function's SDK signs with, and where it sends to (None: AWS itself)."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    endpoint_url: str | None = None


def command(spec: FunctionSpec, interpreter: Path | None) -> list[str]:
    """The program of an environment: the package's own bootstrap, or the Python runtime client."""
    if spec.runtime in CUSTOM_RUNTIMES:
        return [*spec.debugger, str(spec.package / "bootstrap")]
    # -B: a package is read-only on Lambda, so byte code is never written beside it and every cold start compiles.
    return [str(interpreter), "-B", *spec.debugger, "-m", "awslambdaric", spec.handler]


def environment_variables(
    spec: FunctionSpec,
    credentials: Credentials,
    *,
    runtime_api: str,
    log_stream: str,
    files: FileSystem | None = None,
) -> dict[str, str]:
    """Exactly what the function sees; nothing of this machine's own environment passes.

    Source: AWS Lambda Developer Guide, "Defined runtime environment variables".
    """
    reserved = {
        "_HANDLER": spec.handler,
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_DEFAULT_REGION": spec.region,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": spec.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": spec.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_REGION": spec.region,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": str(spec.package),
    }
    if credentials.session_token:
        reserved["AWS_SESSION_TOKEN"] = credentials.session_token
    if spec.runtime not in CUSTOM_RUNTIMES:
        reserved["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{spec.runtime}"
    if credentials.endpoint_url:
        reserved["AWS_ENDPOINT_URL"] = credentials.endpoint_url
    # HOME: on Lambda no home folder exists, so an SDK finds no settings of this machine's user there.
    defaults = {
        "HOME": "/nonexistent",
        "LANG": "en_US.UTF-8",
        "PATH": "/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "TZ": ":UTC",
    }
    if files is not None:
        defaults |= files.variables | layer_variables(files.opt, spec.runtime)
    return defaults | spec.variables | reserved
