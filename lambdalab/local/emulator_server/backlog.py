"""The messages of a standard queue, so that no call takes longer because many messages wait.

The emulator keeps them in a list that most of its calls walk from end to end: with 60,000 messages waiting, receiving
and deleting ten takes 159 ms. Here a call touches the messages it is about, and those whose time has come.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_STALE = 1000
"""Stale entries that a heap may hold beside twice the messages, before it is rebuilt."""
Message = dict[str, Any]
"""A message as the emulator makes it; ``visible_at`` and ``sent_at`` are seconds since 1970."""


class Backlog:
    """Holds messages. Deques and heaps hold numbers; one whose message was deleted or hidden meanwhile is passed over.

    To the emulator's other code it is a list in the order of sending.
    """

    def __init__(self, messages: Iterable[Message] = (), complete: Callable[[Message], None] = lambda _: None) -> None:
        self._complete = complete
        self._next = 0
        self._messages: dict[int, Message] = {}
        self._by_receipt: dict[str, int] = {}
        self._fresh: deque[int] = deque()
        self._returned: deque[int] = deque()
        self._unswept: deque[int] = deque()
        self._queued: set[int] = set()
        self._hidden: list[tuple[float, int]] = []
        self._by_age: list[tuple[float, int]] = []
        self._most_receives = 0
        for message in messages:
            self.append(message)

    def append(self, message: Message) -> None:
        """Adds a message that was sent, or moved here from another queue."""
        self._complete(message)
        number, self._next = self._next, self._next + 1
        self._messages[number] = message
        if message["receipt_handle"]:
            self._by_receipt[message["receipt_handle"]] = number
        heapq.heappush(self._hidden, (message["visible_at"], number))
        enqueued_at: Any = message.get("enqueued_at", message["sent_at"])
        heapq.heappush(self._by_age, (enqueued_at, number))

    def take(self, most: int, now: float, hide_s: float, receipt: Callable[[], str]) -> list[Message]:
        """Receives up to ``most`` visible messages and hides them; those that were received before come first."""
        self._show(now)
        taken: list[Message] = []
        while len(taken) < most and (waiting := self._returned or self._unswept or self._fresh):
            number = waiting.popleft()
            self._queued.discard(number)
            message = self._messages.get(number)
            if message is None or message["visible_at"] > now:
                continue
            self._by_receipt.pop(message["receipt_handle"], None)
            message["receipt_handle"] = receipt()
            message["receive_count"] += 1
            message["first_receive_at"] = message["first_receive_at"] or now
            self._by_receipt[message["receipt_handle"]] = number
            self._hide(number, now + hide_s)
            taken.append(message)
        return taken

    def hide(self, receipt: str, until: float) -> bool:
        """Changes when a message is visible again; False when no message has this receipt."""
        number = self._by_receipt.get(receipt)
        if number is None:
            return False
        self._hide(number, until)
        return True

    def delete(self, receipt: str) -> bool:
        """Deletes a message; False when no message has this receipt."""
        number = self._by_receipt.get(receipt)
        if number is None:
            return False
        self._drop(number)
        return True

    def expire(self, before: float) -> None:
        """Drops the messages that were enqueued at a moment or earlier."""
        while self._by_age and (self._by_age[0][0] <= before or self._by_age[0][1] not in self._messages):
            _, number = heapq.heappop(self._by_age)
            if number in self._messages:
                self._drop(number)

    def give_up(self, most_receives: int, now: float) -> list[Message]:
        """Removes and returns the visible messages that were received so often."""
        self._show(now)
        if most_receives != self._most_receives:
            self._unswept, self._returned = self._returned + self._unswept, deque()
            self._most_receives = most_receives
        given_up = []
        while self._unswept:
            number = self._unswept.popleft()
            message = self._messages.get(number)
            if message is None or message["visible_at"] > now:
                self._queued.discard(number)
            elif message["receive_count"] >= most_receives:
                self._queued.discard(number)
                self._drop(number)
                given_up.append(message)
            else:
                self._returned.append(number)
        return given_up

    def counts(self, now: float) -> tuple[int, int, int]:
        """How many messages are visible, in flight and delayed."""
        self._show(now)
        hidden = {number for at, number in self._hidden if self._is_due(at, number)}
        in_flight = sum(1 for number in hidden if self._messages[number]["receive_count"])
        return len(self._messages) - len(hidden), in_flight, len(hidden) - in_flight

    def clear(self) -> None:
        """Deletes every message."""
        self.__init__(complete=self._complete)  # type: ignore[misc]

    def remove(self, message: Message) -> None:
        """Deletes one message, as ``list.remove`` does.

        Raises:
            ValueError: it is not here.
        """
        number = next((number for number, found in self._messages.items() if found is message), None)
        if number is None:
            raise ValueError("no such message")
        self._drop(number)

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(list(self._messages.values()))

    def __getitem__(self, index: int) -> Message:
        if index == -1:
            return self._messages[next(reversed(self._messages))]
        return list(self._messages.values())[index]

    def _hide(self, number: int, until: float) -> None:
        self._messages[number]["visible_at"] = until
        heapq.heappush(self._hidden, (until, number))

    def _show(self, now: float) -> None:
        """Queues the messages whose time has come."""
        while self._hidden and self._hidden[0][0] <= now:
            at, number = heapq.heappop(self._hidden)
            if self._is_due(at, number) and number not in self._queued:
                self._queued.add(number)
                (self._unswept if self._messages[number]["receive_count"] else self._fresh).append(number)

    def _is_due(self, at: float, number: int) -> bool:
        message = self._messages.get(number)
        return message is not None and message["visible_at"] == at

    def _drop(self, number: int) -> None:
        message = self._messages.pop(number)
        self._by_receipt.pop(message["receipt_handle"], None)
        most = 2 * len(self._messages) + _STALE
        if len(self._hidden) > most:
            self._hidden = [entry for entry in self._hidden if self._is_due(*entry)]
            heapq.heapify(self._hidden)
        if len(self._by_age) > most:
            self._by_age = [entry for entry in self._by_age if entry[1] in self._messages]
            heapq.heapify(self._by_age)
