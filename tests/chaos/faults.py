"""What goes wrong in a run of the fault suite, and when: drawn from a seed before anything is sent."""

import json
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

Kind = Literal["killed", "timeout", "memory", "malformed", "refused", "delayed", "plane"]
OF_A_BATCH: Final[tuple[Kind, ...]] = ("killed", "timeout", "memory", "malformed")
"""Faults of one invocation, ordered when its batch arrives."""
OF_THE_WORLD: Final[tuple[Kind, ...]] = ("refused", "delayed", "plane")
"""Faults that hit whatever is under way."""
WORDS: Final[dict[str, str]] = {
    "killed": "environment killed in mid-batch",
    "timeout": "handler timed out",
    "memory": "handler out of memory",
    "malformed": "malformed partial-batch answer",
    "refused": "emulator refused calls",
    "delayed": "emulator delayed calls",
    "plane": "plane killed and restarted",
}
ITEMS: Final = 10
"""Of each message."""
NO_JSON: Final = '{"batchItemFailures":['
"""Only Go can answer this: Python's runtime client writes the JSON itself."""
_LAST: Final = 0.7
"""No fault begins after this share of the messages, so that something is left for it, and for what is tried again."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is sent and goes wrong; messages, poison and ``each`` (faults of a batch) per language and kind.

    A message is hit by at most one fault of a batch and once by each of the world, so it is received at most
    ``2 + sum(world)`` times; ``MaxReceiveCount`` must not be below that.
    """

    messages: int
    poison: int
    each: int
    world: dict[Kind, int]
    window_s: tuple[float, float]
    """For how long the emulator refuses or delays."""
    delay_s: tuple[float, float]
    """By how much it delays a call."""
    rate: int
    """Messages a second, of both languages together."""
    parameters: dict[str, str]
    """Template parameters in the place of those of samconfig's environment ``load``.

    MaxReceiveCount is that of ``load``, but the lab's tests have another default."""
    cpu_scale: float
    """CPU of a function in the place of what goes with its memory: more, and the run is shorter."""
    longest_s: float
    """From the first message until every queue must be empty."""

    @property
    def receives_at_most(self) -> int:
        return 2 + sum(self.world.values())


_LONG: Final = Size(
    messages=1000,
    poison=50,
    each=8,
    world={"refused": 3, "delayed": 3, "plane": 2},
    window_s=(2, 4),
    delay_s=(1, 2.5),
    rate=40,
    parameters={"BatchSize": "5", "Timeout": "10", "VisibilityTimeout": "15", "MaxReceiveCount": "10"},
    cpu_scale=1,
    longest_s=600,
)
LEAST_MESSAGES: Final = 100
"""Fewer would not be under way for as long as the faults of the world take."""


def long_form(messages: int = _LONG.messages) -> Size:
    """The long form with that many messages of each language; fewer than its own get fewer faults."""
    share = min(1, messages / _LONG.messages)
    world: dict[Kind, int] = {kind: max(1, round(times * share)) for kind, times in _LONG.world.items()}
    return replace(_LONG, messages=messages, each=max(2, round(_LONG.each * share)), world=world)


SHORT: Final = Size(
    messages=100,
    poison=10,
    each=2,
    world={"refused": 1, "delayed": 1, "plane": 1},
    window_s=(1.5, 2),
    delay_s=(0.5, 1),
    rate=20,
    parameters={
        "BatchSize": "5",
        "Timeout": "7",
        "VisibilityTimeout": "8",
        "MaxReceiveCount": "10",
        "MemorySize": "256",
        "MaximumConcurrency": "3",
    },
    cpu_scale=4,
    longest_s=240,
)


@dataclass
class Orders:
    """The faults of one language's batches. Each is due when so many messages have come for the first time."""

    seed: str
    messages: int
    each: int
    kinds: Sequence[Kind]
    due: list[tuple[int, Kind]] = field(init=False)
    _fresh: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        drawn = _spread(self._random, [kind for kind in self.kinds for _ in range(self.each)])
        self.due = [(int(share * self.messages), kind) for share, kind in drawn]

    def again(self, kind: Kind) -> None:
        """Orders a fault anew that something else has kept from happening."""
        self.due.insert(0, (0, kind))

    def only(self, kinds: Iterable[Kind]) -> None:
        """Replaces what is left: each of these is due at once."""
        self.due = [(0, kind) for kind in kinds]

    def order(self, records: Sequence[Any], good: Collection[str], *, json_only: bool) -> dict[str, Any] | None:
        """Draws what happens to a batch. Returns None if nothing does.

        Only batches whose good messages all come for the first time are hit, so that none is hit twice.

        Args:
            records: the batch.
            good: the ids of those of its messages that are no poison.
            json_only: whether the function's runtime client answers with nothing but JSON.
        """
        received = {record["messageId"]: record["attributes"]["ApproximateReceiveCount"] for record in records}
        if any(received[message_id] != "1" for message_id in good):
            return None
        self._fresh += len(good)
        if not good or not self.due or self._fresh <= self.due[0][0]:
            return None
        _, kind = self.due.pop(0)
        if kind == "killed":
            put = self._random.randint(1, ITEMS * len(good))
            return {"kind": kind, "put": put, "before": self._random.random() < 0.5}
        after = self._random.randrange(len(records) + (kind == "malformed"))
        return {"kind": kind, "after": after, "answer": self._malformed(records, json_only=json_only)}

    def _malformed(self, records: Sequence[Any], *, json_only: bool) -> str:
        """An answer that fails the whole batch (AWS Lambda Developer Guide, "Implementing partial batch responses")."""
        identifier = records[0]["messageId"]
        failures: list[Any] = [
            {"itemIdentifier": ""},
            {"itemIdentifier": None},
            {"itemIdentifer": identifier},
            {"itemIdentifier": f"{identifier}-of-another-batch"},
        ]
        answers = [json.dumps({"batchItemFailures": [failure]}) for failure in failures]
        return self._random.choice(answers if json_only else [*answers, NO_JSON])


def schedule(seed: str, world: dict[Kind, int]) -> list[tuple[float, Kind]]:
    """The faults of the world, each with the share of the work after which it begins."""
    return _spread(random.Random(seed), [kind for kind, times in world.items() for _ in range(times)])


def _spread(drawn: random.Random, kinds: list[Kind]) -> list[tuple[float, Kind]]:
    """Kinds in random order, one at a random place in each of as many equal parts."""
    drawn.shuffle(kinds)
    return [(_LAST * (i + drawn.random()) / len(kinds), kind) for i, kind in enumerate(kinds)]


def poison(seed: str, number: int) -> list[str]:
    """Bodies that no function takes, each different, of whatever SQS carries: its whole set of characters, many sizes.

    Source of the set: Amazon SQS API Reference, SendMessage, MessageBody.
    """
    drawn = random.Random(seed)

    def text(length: int) -> str:
        spans = ((0x20, 0x7E), (0x09, 0x0A), (0x0D, 0x0D), (0xA0, 0xD7FF), (0xE000, 0xFFFD), (0x10000, 0x1FFFF))
        return "".join(chr(drawn.randint(*drawn.choice(spans))) for _ in range(length))

    shapes = (
        lambda i: f"poison {i} {text(drawn.randrange(200))}",
        lambda i: json.dumps({"batch_id": f"poison {i}", "count": 10}),  # a space is no character of a batch id
        lambda i: json.dumps({"batch_id": f"poison-{i}", "count": 0, "label": text(20)}, ensure_ascii=False),
        lambda i: f'\r\n\t {{"batch_id":"poison-{i}","count":1,"count":2}} \n',
        lambda i: json.dumps({"batch_id": f"poison-{i}", "of": text(drawn.randrange(20_000))}),
    )
    return [shapes[i % len(shapes)](i) for i in range(number)]
