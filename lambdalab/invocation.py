"""One synchronous invocation of a function of the local stack, with its log."""

import base64
import sys
import uuid
from pathlib import Path

import msgspec
from botocore.exceptions import ClientError

from lambdalab.aws import access_errors
from lambdalab.errors import EventError, UsageError
from lambdalab.live import OnLine, watching
from lambdalab.local.invoke_api import REQUEST_ID
from lambdalab.local.stack import LocalStack


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What the function answered. ``function_error`` is None for a success; ``log`` is the last 4 KB."""

    payload: str
    log: str
    function_error: str | None


def read_event(name: str) -> bytes:
    """An event, checked to be JSON.

    Args:
        name: of a file; ``-`` is standard input.

    Raises:
        EventError: it cannot be read or is not JSON.
    """
    shown = "the event on standard input" if name == "-" else f"event file {name}"
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        problem = error.strerror if isinstance(error, OSError) else error
        raise EventError(f"{shown} cannot be read: {problem}", next_step="name a JSON file, see events/") from error
    try:
        msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        raise EventError(f"{shown} is not JSON: {error}", next_step="mend it, or start from one of events/") from error
    return content


def invoke_local(stack: LocalStack, function: str, payload: bytes, on_line: OnLine = lambda _: None) -> Result:
    """Invokes a function and waits for its answer.

    Args:
        stack: a local stack that is up.
        function: logical id in template.yaml, or the deployed name.
        payload: the event, as JSON.
        on_line: given every line the invocation writes, as it comes.

    Raises:
        UsageError: the stack has no such function.
        AccessError: the plane refuses or does not answer.
    """
    status = stack.status()
    client, request_id = stack.aws().lambda_invoke, str(uuid.uuid4())
    client.meta.events.register(
        "before-call.lambda.Invoke", lambda params, **_: params["headers"].update({REQUEST_ID: request_id})
    )
    with watching(stack, request_id, on_line), access_errors(f"function {function}"):
        try:
            answer = client.invoke(FunctionName=function, Payload=payload, LogType="Tail")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "ResourceNotFoundException":
                raise
            known = ", ".join(sorted(status["logical_names"]))
            raise UsageError(
                f"the local stack has no function {function!r}", next_step=f"name one of: {known}"
            ) from error
        return Result(
            payload=answer["Payload"].read().decode(),
            log=base64.b64decode(answer.get("LogResult", "")).decode("utf-8", "replace"),
            function_error=answer.get("FunctionError"),
        )
