"""One synchronous invocation of a function of the local stack, with its log."""

import base64
import contextlib
import io
import sys
import uuid
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from botocore.exceptions import ClientError, ParamValidationError

from lambdalab.aws.clients import access_errors
from lambdalab.errors import AccessError, EventError, LambdalabError, PlaneError, UsageError
from lambdalab.invoke.live import OnLine, watching
from lambdalab.local.invoke_api import PAYLOAD_LIMITS_BYTES, REQUEST_ID
from lambdalab.local.stack import LocalStack

_LIMIT_BYTES: Final = PAYLOAD_LIMITS_BYTES["RequestResponse"]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What the function answered, byte for byte. ``function_error`` is None for a success; ``log`` is the last 4 KB."""

    payload: bytes
    log: str
    function_error: str | None


def read_event(name: str) -> bytes:
    """An event, checked to be JSON.

    Args:
        name: of a file; ``-`` is standard input.

    Raises:
        EventError: it cannot be read, is larger than Lambda takes, or is not JSON.
    """
    shown = "the event on standard input" if name == "-" else f"event file {name}"
    try:
        with _opened(name) as file:
            content = file.read(_LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        problem = error.strerror if isinstance(error, OSError) else error
        raise EventError(f"{shown} cannot be read: {problem}", next_step="name a JSON file, see events/") from error
    if len(content) > _LIMIT_BYTES:
        raise EventError(
            f"{shown} has more than the {_LIMIT_BYTES:,} bytes that Lambda takes",
            next_step="keep what is large in S3, and name it in the event",
        )
    try:
        msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        raise EventError(f"{shown} is not JSON: {error}", next_step="mend it, or start from one of events/") from error
    return content


def _opened(name: str) -> contextlib.AbstractContextManager[BinaryIO]:
    if name != "-":
        return Path(name).open("rb")
    return contextlib.nullcontext(io.BytesIO() if sys.stdin is None else sys.stdin.buffer)  # None: it was closed


def invoke_local(stack: LocalStack, function: str, payload: bytes, on_line: OnLine = lambda _: None) -> Result:
    """Invokes a function and waits for its answer.

    Args:
        stack: a local stack that is up.
        function: logical id in template.yaml, or the deployed name.
        payload: the event, as JSON.
        on_line: given every line the invocation writes, as it comes.

    Raises:
        UsageError: the stack has no such function.
        EventError: the event is too large, or not one that Lambda takes.
        PlaneError: the function is throttled.
        AccessError: the plane does not answer.
    """
    known, request_id = ", ".join(sorted(stack.status()["logical_names"])), str(uuid.uuid4())
    with (
        access_errors(f"function {function}"),
        closing(stack.aws().lambda_invoke) as client,
        watching(stack, request_id, on_line),
    ):
        client.meta.events.register(
            "before-call.lambda.Invoke", lambda params, **_: params["headers"].update({REQUEST_ID: request_id})
        )
        try:
            answer = client.invoke(FunctionName=function, Payload=payload, LogType="Tail")
        except ParamValidationError as error:
            raise UsageError(f"{function!r} is no name of a function", next_step=f"name one of: {known}") from error
        except ClientError as error:
            raise _refusal(error, function, known) from error
        return Result(
            payload=answer["Payload"].read(),
            log=base64.b64decode(answer.get("LogResult", "")).decode("utf-8", "replace"),
            function_error=answer.get("FunctionError"),
        )


def _refusal(error: ClientError, function: str, known: str) -> LambdalabError:
    """What the plane's refusal means to who invokes; ``known`` lists the functions there are."""
    said = error.response.get("Error", {}).get("Message", str(error))
    match error.response["ResponseMetadata"]["HTTPStatusCode"]:
        case 404:
            return UsageError(f"the local stack has no function {function!r}", next_step=f"name one of: {known}")
        case 400 | 413:
            return EventError(f"{function} does not take this event: {said}", next_step="mend it, or see events/")
        case 429:
            return PlaneError(
                f"{function} is throttled: {said}", next_step="wait for its invocations, or raise ReservedConcurrency"
            )
        case status:
            return AccessError(
                f"the plane answered {status} for {function}: {said}", next_step="see `lambdalab status`"
            )
