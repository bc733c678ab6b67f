"""The plan of the fault suite, over many seeds: every fault finds a batch, and no message is hit too often."""

import random
from typing import Any

import pytest

from chaos.faults import LEAST_MESSAGES, OF_A_BATCH, SHORT, Orders, Size, long_form

BATCH: int = 5


def batches(drawn: random.Random, ids: list[str], count: str) -> list[list[dict[str, Any]]]:
    """Messages in batches of any size, now and then with poison that comes again."""
    found, left = [], list(ids)
    while left:
        size = drawn.randint(1, BATCH)
        taken, left = left[:size], left[size:]
        batch = [{"messageId": one, "attributes": {"ApproximateReceiveCount": count}} for one in taken]
        if size < BATCH and drawn.random() < 0.3:
            poison = {"messageId": "poison", "attributes": {"ApproximateReceiveCount": str(drawn.randint(1, 10))}}
            batch.insert(drawn.randint(0, len(batch)), poison)
        found.append(batch)
    return found


def hit(orders: Orders, sent: list[list[dict[str, Any]]]) -> tuple[list[str], list[str]]:
    """The kinds that were ordered, and the messages they hit."""
    kinds, messages = [], []
    for batch in sent:
        good = [record["messageId"] for record in batch if record["messageId"] != "poison"]
        if order := orders.order(batch, good, json_only=False):
            kinds.append(order["kind"])
            messages += good
            assert order["kind"] != "killed" or 1 <= order["put"] <= 10 * len(good)
            assert order.get("after", 0) <= len(batch)
    return kinds, messages


@pytest.mark.parametrize("size", [SHORT, long_form(LEAST_MESSAGES), long_form(1000)], ids=["short", "least", "long"])
def test_every_fault_happens_whatever_the_seed_and_however_messages_fall(size: Size) -> None:
    for seed in range(700):
        drawn = random.Random(seed)
        orders = Orders(str(seed), size.messages, size.each, OF_A_BATCH)
        ids = [str(number) for number in range(size.messages)]
        came_again = set(drawn.sample(ids, drawn.randint(0, size.messages)))  # hit by the world before they were asked
        first = [one for one in ids if one not in came_again]
        kinds, messages = hit(orders, batches(drawn, first, "1"))
        assert hit(orders, batches(drawn, list(came_again), "2")) == ([], []), "hit by one fault of a batch at most"
        missing = [kind for kind in OF_A_BATCH if kind not in kinds]
        orders.only(missing)
        more = [f"more:{number}" for number in range(len(missing) * BATCH)]
        some, others = hit(orders, batches(drawn, more, "1"))
        assert some == missing
        assert len({*messages, *others}) == len(messages) + len(others)


def test_with_few_messages_there_are_few_faults_and_none_passes_the_receives() -> None:
    assert (long_form(1000).each, long_form(5000).each) == (8, 8)
    for messages in (LEAST_MESSAGES, 250, 1000, 10_000):
        size = long_form(messages)
        assert size.each * len(OF_A_BATCH) * BATCH <= messages
        assert min(size.world.values()) >= 1
        assert size.receives_at_most <= int(size.parameters["MaxReceiveCount"])
