"""Callers that invoke one function at once, each waiting for its answer before it calls again.

Every call is one Invoke (``RequestResponse``) with the tail of its log, made once: nothing is repeated silently.
"""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from lambdalab.aws.clients import access_errors, without_secrets
from lambdalab.errors import LambdalabError
from lambdalab.planning.call_protocol import PlannedCall, PlannedCell
from lambdalab.records.calls import INTERRUPTED, Call

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

GRACE_S: Final = 20.0
"""After Ctrl-C calls under way are awaited for so long; later answers are not written down."""
_LOOK_S: Final = 0.2
_NO_ROOM: Final = "TooManyRequestsException"
_SERVER_ERROR: Final = 500
_AFTER_SENDING: Final = (ReadTimeoutError, ConnectionClosedError, ResponseStreamingError, IncompleteReadError)
"""With these the function may have run; no other failure of botocore is of one call alone."""


class Callers:
    """Some threads that make the calls of one cell, and write down each as it ends.

    Args:
        client: for Invoke, with as many connections as there are callers.
        function_name: whom they call.
        event: of a call.
        done: told each call when it ended, by one thread at a time.
        require_answer: raises a LambdalabError if Lambda itself has ended; asked when a connection breaks.
    """

    def __init__(
        self,
        client: "LambdaClient",
        function_name: str,
        event: Callable[[PlannedCall], Mapping[str, object]],
        done: Callable[[Call], None],
        require_answer: Callable[[], None] = lambda: None,
    ) -> None:
        self._client, self._function_name, self._event, self._done = client, function_name, event, done
        self._require_answer = require_answer
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ended = threading.Semaphore(0)
        self._at_work = 0
        self._failure: BaseException | None = None
        self._under_way: dict[str, Call] = {}

    def make(self, cell: PlannedCell, calls: Sequence[PlannedCall], callers: int, attempt: int) -> None:
        """Makes the calls; returns when all have ended.

        Raises:
            AccessError: Lambda does not answer, or refuses for another reason than throttling.
            PlaneError: a part of the local stack has ended; calls under way are made again when the run goes on.
            StorageError: a call could not be written down.
        """
        left = iter(calls)
        try:
            for number in range(1, min(callers, len(calls)) + 1):
                work = threading.Thread(
                    target=self._work, args=(cell, left, attempt), name=f"caller {number}", daemon=True
                )
                work.start()
                self._at_work += 1
            while self._at_work:
                self._await_one(_LOOK_S)
        finally:
            self._end()
        if self._failure is not None:
            with access_errors(f"function {self._function_name}"):
                raise self._failure

    def _await_one(self, timeout_s: float) -> None:
        """Not by ``Thread.join``: interrupted by Ctrl-C, that takes a thread for ended that is not (bpo-45274)."""
        if self._ended.acquire(timeout=timeout_s):
            self._at_work -= 1

    def _end(self) -> None:
        """Lets calls under way come to their end, and gives up those that do not."""
        self._stop.set()
        deadline = time.monotonic() + GRACE_S
        while self._at_work and (left_s := deadline - time.monotonic()) > 0:
            self._await_one(left_s)
        with self._lock:
            given_up, self._under_way = list(self._under_way.values()), {}
            for call in given_up:
                self._done(call)

    def _work(self, cell: PlannedCell, left: Iterator[PlannedCall], attempt: int) -> None:
        try:
            self._make_some(cell, left, attempt)
        except BaseException as failure:
            self._fail(failure)
        finally:
            self._ended.release()

    def _make_some(self, cell: PlannedCell, left: Iterator[PlannedCall], attempt: int) -> None:
        while not self._stop.is_set():
            with self._lock:
                planned = next(left, None)
            if planned is None:
                return
            begun = Call(
                call_id=planned.call_id,
                block=cell.block,
                cell=cell.cell.name,
                warmup=planned.warmup,
                attempt=attempt,
                sent_at_ms=time.time_ns() // 1_000_000,
                elapsed_ms=0.0,
                error=f"{INTERRUPTED} while it was under way",
            )
            with self._lock:
                self._under_way[planned.call_id] = begun
            ended = self._call(begun, json.dumps(self._event(planned)).encode())
            with self._lock:
                if self._under_way.pop(planned.call_id, None) is not None:
                    self._done(ended)

    def _call(self, begun: Call, payload: bytes) -> Call:
        """What became of a call. A failure that every further call would meet as well ends the run."""
        began_ns = time.perf_counter_ns()

        def ended(**what: object) -> Call:
            return msgspec.structs.replace(
                begun, elapsed_ms=(time.perf_counter_ns() - began_ns) / 1e6, **({"error": None} | what)
            )

        try:
            answer = self._client.invoke(FunctionName=self._function_name, Payload=payload, LogType="Tail")
            body = answer["Payload"].read()
        except ClientError as refusal:
            detail, metadata = refusal.response.get("Error", {}), refusal.response["ResponseMetadata"]
            said = without_secrets(f"{detail.get('Code')}: {detail.get('Message')}")
            throttled = detail.get("Code") == _NO_ROOM
            if throttled or metadata["HTTPStatusCode"] >= _SERVER_ERROR:
                return ended(error=said, throttled=throttled, request_id=metadata.get("RequestId"))
            self._fail(refusal)
            return ended(error=f"{INTERRUPTED} by {said}")
        except _AFTER_SENDING as failure:
            if self._is_down():
                return ended(error=f"{INTERRUPTED} by {type(failure).__name__}")
            return ended(error=without_secrets(f"{type(failure).__name__}: {failure}"))
        except BotoCoreError as failure:
            if not self._is_down():
                self._fail(failure)
            return ended(error=f"{INTERRUPTED} by {type(failure).__name__}")
        call = ended(
            request_id=answer["ResponseMetadata"].get("RequestId"),
            function_error=answer.get("FunctionError"),
            log_tail=base64.b64decode(answer.get("LogResult", "")).decode("utf-8", "replace") or None,
        )
        return _with_answer(call, body)

    def _is_down(self) -> bool:
        """Whether Lambda itself has ended, by which the run fails."""
        try:
            self._require_answer()
        except LambdalabError as failure:
            self._fail(failure)
            return True
        return False

    def _fail(self, failure: BaseException) -> None:
        self._failure = self._failure or failure
        self._stop.set()


def _with_answer(call: Call, body: bytes) -> Call:
    try:
        msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return msgspec.structs.replace(call, error=f"what came back is no JSON: {body[:100].decode(errors='replace')}")
    return msgspec.structs.replace(call, answer=msgspec.Raw(body))
