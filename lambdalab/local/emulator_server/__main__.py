"""Serves the emulator's ASGI application by uvicorn, which parses HTTP in C.

It runs in the emulator's own Python, isolated from the lab's, as ``python lambdalab/local/emulator_server``, so it
imports nothing of the lab. Its arguments are the host and the port to listen on.
"""

import gc
import json
import resource
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvicorn
from deployments import fingerprint
from ministack.app import app
from ministack.services import sqs
from overlay import install

ABOUT_PATH: Final = "/_lambdalab/emulator"
DEPLOYED_PATH: Final = "/_lambdalab/deployed"
_KEEP_ALIVE_S: Final = 75
"""As long as the emulator's own server keeps a connection."""
Asgi = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[dict[str, Any]], Awaitable[None]]], Any]


def with_about(app: Asgi, about: dict[str, Any]) -> Asgi:
    """The application, which also says at ``ABOUT_PATH`` how it is served, at ``DEPLOYED_PATH`` what is deployed."""
    own: dict[str, Callable[[], dict[str, Any]]] = {
        ABOUT_PATH: lambda: about,
        DEPLOYED_PATH: lambda: {"fingerprint": fingerprint()},
    }

    async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] in own:
            body = json.dumps(own[scope["path"]]()).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await app(scope, receive, send)

    return answer


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    host, port = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    why_not = install(sqs)
    if why_not is not None:
        print(f"queues slow down with their backlog: {why_not}", flush=True)
    gc.freeze()  # what is loaded now is never looked at again
    uvicorn.run(
        with_about(app, {"slow_queues": why_not}),
        host=host,
        port=int(port),
        loop="uvloop",
        http="httptools",
        ws="wsproto",
        lifespan="on",  # an application that fails to start must end the process
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
        server_header=False,
        date_header=False,
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
