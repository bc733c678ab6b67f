"""Which environment an invocation gets: re-use, scale-out up to the limit, throttle, expiry, replacement."""

import asyncio
import secrets
import time
import uuid
from collections.abc import Callable
from typing import Final

from lambdalab.local.concurrency import Account, ScaleOut, ThrottledError
from lambdalab.local.environment import Environment, Outcome
from lambdalab.local.function import FunctionSpec
from lambdalab.local.runtime_api import Answer, Stream

IDLE_LIMIT_S: Final = 600.0
"""Lambda promises no lifetime; ten idle minutes are long enough for any protocol and short enough to free memory."""

_CRASHES: Final = ("Runtime.ExitError", "Runtime.OutOfMemory")


class Pool:
    """The environments of one function.

    Args:
        spec: the function; ``reconfigure`` replaces it.
        create: makes a new environment of a spec, not yet initialised.
        account: the concurrency it shares with other functions, one of its own by default.
        scale_out: how fast it gets environments, as fast as on Lambda by default.
    """

    def __init__(
        self,
        spec: FunctionSpec,
        create: Callable[[FunctionSpec], Environment],
        account: Account | None = None,
        scale_out: ScaleOut | None = None,
    ) -> None:
        self.spec = spec
        self._create = create
        self._account = account or Account()
        self._scale_out = scale_out or ScaleOut()
        self._account.join(self)
        self._idle: list[Environment] = []
        self._busy: set[Environment] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self.cold_starts = self.invocations = self.throttles = 0
        self.warm_invocations = self.errors = self.timeouts = self.crashes = self.resets = 0

    @property
    def limit(self) -> int:
        """How many invocations may run at once; without a reservation, of all functions that have none."""
        return self._account.unreserved if self.reserved_concurrency is None else self.reserved_concurrency

    @property
    def reserved_concurrency(self) -> int | None:
        """As configured."""
        return self.spec.reserved_concurrency

    @property
    def environments(self) -> tuple[Environment, ...]:
        """All that exist now."""
        return (*self._busy, *self._idle)

    @property
    def in_flight(self) -> int:
        """How many are running an invocation."""
        return len(self._busy)

    async def invoke(
        self,
        payload: bytes,
        *,
        request_id: str | None = None,
        client_context: str | None = None,
        answered: Callable[[Answer], None] = lambda _: None,
        stream: Stream | None = None,
    ) -> tuple[str, Outcome]:
        """Runs one invocation; returns its request id, a new one if none is given, and what became of it.

        ``answered`` gets the answer a little earlier, unless the environment failed. ``stream`` takes the response of a
        function that streams it.

        Raises:
            ThrottledError: a limit of concurrency, or of how fast it may grow, is reached.
        """
        environment, is_new = self._take()
        request_id = request_id or str(uuid.uuid4())
        trace_id = new_trace_id()
        try:
            if is_new:
                self.cold_starts += 1
                await environment.initialise()
            self.invocations += 1
            self.warm_invocations += not is_new
            self.resets += environment.pid is None
            outcome = await environment.invoke(
                payload,
                request_id=request_id,
                trace_id=trace_id,
                client_context=client_context,
                answered=answered,
                stream=stream,
            )
        except BaseException:
            self._busy.discard(environment)
            self._dispose(environment)
            raise
        self._give_back(environment)
        self._count(outcome)
        return request_id, outcome

    def recycle(self) -> None:
        """The next invocation starts cold: idle environments end now, busy ones after their invocation."""
        self.reconfigure(self.spec)

    def reconfigure(self, spec: FunctionSpec) -> None:
        """Takes a new configuration; environments of the old one serve no further invocation."""
        # A copy, so that environments of an equal but earlier spec are told apart by identity.
        self.spec = type(spec)(**{name: getattr(spec, name) for name in spec.__struct_fields__})
        for environment in self._idle:
            self._dispose(environment)
        self._idle.clear()

    def expire(self) -> None:
        """Ends environments that have been idle for too long or have died."""
        oldest = time.monotonic() - IDLE_LIMIT_S
        for environment in [e for e in self._idle if e.idle_since < oldest or not e.alive]:
            self._idle.remove(environment)
            self._dispose(environment)

    async def close(self) -> None:
        """Ends every environment."""
        for environment in self.environments:
            self._dispose(environment)
        self._idle.clear()
        self._busy.clear()
        await asyncio.gather(*self._closing)
        self._account.leave(self)

    def _take(self) -> tuple[Environment, bool]:
        try:
            return self._taken()
        except ThrottledError:
            self.throttles += 1
            raise

    def _taken(self) -> tuple[Environment, bool]:
        self._account.check(self)
        while self._idle and not self._idle[-1].alive:
            self._dispose(self._idle.pop())
        if self._idle:
            environment, is_new = self._idle.pop(), False
        elif self._scale_out.take():
            environment, is_new = self._create(self.spec), True
        else:  # AWS does not say which reason it gives here
            raise ThrottledError(self)
        self._busy.add(environment)
        return environment, is_new

    def _give_back(self, environment: Environment) -> None:
        if environment not in self._busy:  # closed meanwhile
            return
        self._busy.remove(environment)
        if environment.spec is self.spec:
            self._idle.append(environment)
        else:
            self._dispose(environment)

    def _count(self, outcome: Outcome) -> None:
        report = outcome.report
        self.errors += outcome.answer.error_type is not None
        self.timeouts += report.status == "timeout"
        self.crashes += report.error_type in _CRASHES

    def _dispose(self, environment: Environment) -> None:
        task = asyncio.get_running_loop().create_task(environment.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def new_trace_id() -> str:
    """An X-Ray trace header that asks for no sampling."""
    random_hex = secrets.token_hex(20)
    return f"Root=1-{int(time.time()):08x}-{random_hex[:24]};Parent={random_hex[24:]};Sampled=0"
