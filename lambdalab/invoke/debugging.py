"""One invocation of a function of the local stack under a debugger; what to attach with is in docs/operations.md."""

import socket
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

from lambdalab import loopback
from lambdalab.build.tools import debugger_for
from lambdalab.errors import PlaneError, SetupError
from lambdalab.invoke.invocation import Result
from lambdalab.invoke.live import OnLine, no_such_function, watching
from lambdalab.local.debug import has_debug_information
from lambdalab.local.function import CUSTOM_RUNTIMES
from lambdalab.local.invoke_api import REQUEST_ID
from lambdalab.local.stack import LocalStack


def debug_local(
    stack: LocalStack, function: str, payload: bytes, *, port: int, on_line: OnLine, progress: Callable[[str], None]
) -> Result:
    """Invokes a function in an environment of its own, under a debugger that waits for its client.

    There is no timeout and no limit of CPU or memory. No REPORT is written, and no line reaches the log group, so that
    nothing of it can be taken for a measurement.

    Args:
        stack: a local stack that is up.
        function: logical id in template.yaml, or the deployed name.
        payload: the event, as JSON.
        port: where the debugger listens on 127.0.0.1.
        on_line: given every line of output as it comes.
        progress: told what is done before the debugger listens.

    Raises:
        UsageError: the stack has no such function.
        SetupError: the port is taken, the debugger cannot be installed, or the program has no debug information.
        PlaneError: the plane refuses or ends.
    """
    status = stack.status()
    name = status["logical_names"].get(function, function)
    if name not in status["functions"]:
        raise no_such_function(function, status["logical_names"])
    found = status["functions"][name]
    if found["runtime"] in CUSTOM_RUNTIMES:
        _require_debug_information(function, Path(found["package"]) / "bootstrap")
    debugger_for(found["runtime"], progress)
    _require_free(port)
    progress(f"{function} waits for a debugger on 127.0.0.1:{port}; no timeout, no CPU limit, so not a measurement")
    request_id = str(uuid.uuid4())
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{stack.lambda_endpoint_url}/_lambdalab/functions/{name}/debug/{port}",
        data=payload,
        headers={"Content-Type": "application/json", REQUEST_ID: request_id},
    )
    try:
        with watching(stack, request_id, on_line), loopback.open_url(request, timeout_s=None) as answer:
            return Result(payload=answer.read(), log="", function_error=answer.headers.get("X-Amz-Function-Error"))
    except urllib.error.HTTPError as error:
        said = error.read().decode("utf-8", "replace")
        raise PlaneError(f"the plane refused to debug {function}: {said}", next_step="mend what it names") from error
    except OSError as error:
        raise PlaneError(
            f"the plane did not finish the invocation of {function}: {error}", next_step="see `lambdalab status`"
        ) from error


def _require_debug_information(function: str, program: Path) -> None:
    try:
        has_it = has_debug_information(program)
    except OSError as error:
        raise SetupError(
            f"{program} of {function} cannot be read: {error.strerror}", next_step="deploy the function again"
        ) from error
    if not has_it:
        raise SetupError(
            f"the program of {function} was built without debug information (-ldflags=-s), as for a measurement",
            next_step="build it for debugging: `lambdalab down`, then `SAM_BUILD_MODE=debug lambdalab up`",
        )


def _require_free(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise PlaneError(
                f"port {port} on 127.0.0.1 cannot be had ({error.strerror})",
                next_step="choose another with --debug, or end what listens there",
            ) from error
