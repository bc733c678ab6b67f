"""The local stack that one step of the end-to-end benchmark loads."""

import contextlib
import json
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final
from unittest.mock import patch

from lambdalab.design.arms import Arm
from lambdalab.local import startup
from lambdalab.local.stack import LocalStack, bring_up, take_down
from lambdalab.lock import Lock, hold_stack
from lambdalab.run.local_target import local_target

MAXIMUM_CONCURRENCY: Final = 60
"""Invocations of one queue at a time: more than two cores can use, so that it is not the limit."""
STOCK_PROGRAM: Final = Path(__file__).with_name("stock_emulator")
_WARM_UP_ITEMS: Final = 20
"""Items of a warm-up message: enough that invocations overlap and the mapping grows."""
_WARM_UP_BACKLOG: Final = 100
"""Messages that are waiting at least until every environment is there."""
_WARM_UP_S: Final = 90.0
"""Longest warm-up in seconds. The mapping needs 11 of them to grow from 5 invocations at a time to 60."""


class Emulator(StrEnum):
    """How the emulator is served."""

    LAB = "lab"
    """As in every local stack: uvicorn, and queues that do not walk their messages."""
    STOCK = "stock"
    """MiniStack as it comes."""


@contextlib.contextmanager
def loaded_stack(emulator: Emulator) -> Iterator[tuple[LocalStack, Lock]]:
    """A stack with load settings that lives as long as the block, and the lock that holds it.

    Raises:
        PlaneError, ToolError, InUseError: another stack is up, or this one cannot be brought up.
    """
    program = STOCK_PROGRAM if emulator is Emulator.STOCK else startup.EMULATOR_PROGRAM
    with hold_stack() as lock:
        with patch.object(startup, "EMULATOR_PROGRAM", program):
            parameters = {"MaximumConcurrency": str(MAXIMUM_CONCURRENCY)}
            stack = bring_up(lambda _: None, port=0, parameters=parameters, settings="load")
        try:
            yield stack, lock
        finally:
            take_down(stack)


def warm_up(stack: LocalStack, language: str) -> int:
    """Keeps a function busy until its queue uses as many environments as it may, then waits for the queue to be empty.

    Returns:
        How many environments there are. It is lower than ``MAXIMUM_CONCURRENCY`` on a machine that takes too long.
    """
    target = local_target(stack)
    of_arm = target.resources(Arm(name=language, language=language))
    deadline = time.monotonic() + _WARM_UP_S
    sent = environments = 0
    while time.monotonic() < deadline and environments < MAXIMUM_CONCURRENCY:
        if target.queue_depth(of_arm.queue_url) < _WARM_UP_BACKLOG:
            for begin in range(sent, sent + _WARM_UP_BACKLOG, 10):
                target.send(of_arm, [_body(number) for number in range(begin, begin + 10)])
            sent += _WARM_UP_BACKLOG
        time.sleep(0.2)
        environments = len(stack.plane_status()["functions"][of_arm.function_name]["pids"])
    while time.monotonic() < deadline and target.queue_depth(of_arm.queue_url):
        time.sleep(0.2)
    return environments


def _body(number: int) -> str:
    return json.dumps({"batch_id": f"warm-up:{number}", "size_bytes": 1024, "count": _WARM_UP_ITEMS})
