"""How many environments functions may have at once, what they share, and how fast one may get more.

Sources: AWS Lambda Developer Guide, "Understanding Lambda function scaling", "Configuring reserved concurrency",
"Lambda scaling behavior", "Lambda quotas".
"""

import time
from typing import Final, Protocol

from lambdalab.aws.clients import most_reservable

ACCOUNT_CONCURRENCY: Final = 1000
SCALE_OUT: Final = 1000
SCALE_OUT_S: Final = 10.0


class Function(Protocol):
    """What an account has to know of each of its functions."""

    @property
    def reserved_concurrency(self) -> int | None:
        """None takes part in what is left of the account's."""

    @property
    def in_flight(self) -> int:
        """Invocations that run now."""


class ThrottledError(Exception):
    """A function may not run one invocation more now; ``reason`` is the Invoke API's word for it."""

    def __init__(self, function: Function) -> None:
        self.reason: Final = (
            "ConcurrentInvocationLimitExceeded"
            if function.reserved_concurrency is None
            else "ReservedFunctionConcurrentInvocationLimitExceeded"
        )
        super().__init__(self.reason)


class Account:
    """The concurrency of an account in one Region; functions join it.

    Nothing is kept but the functions themselves, so a reservation that changes under way counts at once.
    """

    def __init__(self, concurrency: int = ACCOUNT_CONCURRENCY) -> None:
        self._concurrency = concurrency
        self._functions: list[Function] = []

    def join(self, function: Function) -> None:
        self._functions.append(function)

    def leave(self, function: Function) -> None:
        self._functions.remove(function)

    @property
    def unreserved(self) -> int:
        """What the functions without a reservation share."""
        return max(0, self._concurrency - sum(f.reserved_concurrency or 0 for f in self._functions))

    def most_reserved(self, function: Function | None = None) -> int:
        """The highest reservation a function may be given; of all together without one."""
        if function is None:
            return most_reservable(self._concurrency)
        return most_reservable(self.unreserved, function.reserved_concurrency or 0)

    def check(self, function: Function) -> None:
        """Whether a function may run one invocation more.

        Raises:
            ThrottledError: it may not.
        """
        if function.reserved_concurrency is None:
            used = sum(f.in_flight for f in self._functions if f.reserved_concurrency is None)
            limit = self.unreserved
        else:
            used, limit = function.in_flight, function.reserved_concurrency
        if used >= limit:
            raise ThrottledError(function)


class ScaleOut:
    """How fast one function gets environments: 1,000 every 10 s, refilled continuously and never saved up."""

    def __init__(self, environments: int = SCALE_OUT, per_s: float = SCALE_OUT_S) -> None:
        self._most, self._rate = environments, environments / per_s
        self._left, self._seen_s = float(environments), time.monotonic()

    def take(self) -> bool:
        """Whether there may be one more environment now; counts it if so."""
        now_s = time.monotonic()
        self._left = min(self._most, self._left + (now_s - self._seen_s) * self._rate)
        self._seen_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True
