"""The lines of one invocation while it runs, for a caller that chose its request id and asks for them."""

import asyncio
import time
from collections import defaultdict, deque
from typing import Any, Final

KEPT_LINES: Final = 10_000
"""Of one invocation, until they are asked for; what a faster function writes is skipped and counted."""
_BEFORE_LINES: Final = 1000
_POLL_S: Final = 0.02
_WAIT_S: Final = 1.0
_KEPT_S: Final = 30.0


class _Watch:
    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.count = 0
        self.done = False

    def add(self, line: str) -> None:
        self.lines.append(line)
        self.count += 1


class Watches:
    """Finds the lines of watched invocations among all that environments write.

    A log stream belongs to one environment, which runs one invocation at a time: what stands in it from START to REPORT
    is that invocation's, and what stood there before START its environment's init.
    """

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}
        self._before: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_BEFORE_LINES))
        self._running: dict[str, _Watch] = {}

    def open(self, request_id: str) -> None:
        """Begins to keep the lines of an invocation that is about to start."""
        self._watches[request_id] = _Watch()

    def close(self, request_id: str) -> None:
        """The invocation is over; what was kept can be read for a while."""
        self._watches[request_id].done = True
        asyncio.get_running_loop().call_later(_KEPT_S, self._watches.pop, request_id, None)
        if all(watch.done for watch in self._watches.values()):
            self._before.clear()
            self._running.clear()

    def add(self, request_id: str, line: str) -> None:
        """Takes a line of a known invocation."""
        self._watches[request_id].add(line)

    def emit(self, stream: str, line: str) -> None:
        """Takes a line of any environment; costs nothing while nobody watches."""
        if not self._watches:
            return
        if line.startswith("START RequestId: "):
            before = self._before.pop(stream, ())
            if (watch := self._watches.get(line.split()[2])) is not None:
                self._running[stream] = watch
                for earlier in before:
                    watch.add(earlier)
        if (running := self._running.get(stream)) is not None:
            running.add(line)
        else:
            self._before[stream].append(line)
        if line.startswith("REPORT RequestId: "):
            self._running.pop(stream, None)
            self._before.pop(stream, None)

    async def read(self, request_id: str, start: int) -> dict[str, Any]:
        """The lines from number ``start`` on, waited for up to a second.

        Returns:
            ``lines``; ``skipped``, how many before them were not kept; ``next``, where to go on; ``done``, whether
            the invocation is over and these are its last.
        """
        deadline = time.monotonic() + _WAIT_S
        watch = self._watches.get(request_id)
        while (watch is None or (watch.count <= start and not watch.done)) and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
            watch = self._watches.get(request_id)
        if watch is None:
            return {"lines": [], "skipped": 0, "next": start, "done": False}
        kept_from = watch.count - len(watch.lines)
        lines = list(watch.lines)[max(start - kept_from, 0) :]
        return {"lines": lines, "skipped": max(kept_from - start, 0), "next": watch.count, "done": watch.done}
