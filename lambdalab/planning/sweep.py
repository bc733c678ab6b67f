"""A sweep: a protocol whose arms are all combinations of settings, made from lists instead of from a file."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Final

from lambdalab.analysis.frontier import Limits
from lambdalab.design.arms import Factors, Load, Protocol, Start
from lambdalab.planning.protocol import check_protocol
from lambdalab.statistics.estimates import smallest_n

BLOCKS: Final = 20
"""Without a limit on a percentile: the median's 95 % interval is then between the 6th and the 15th sample."""
COLD_LOAD: Final = Load(label="WARMUP", size_bytes=1024, count=1, start=Start.COLD)


def sweep_blocks(limits: Limits) -> int:
    """How many blocks answer the question.

    With a limit on the 95th percentile as many as its interval needs and a tenth more: some samples may not count.
    """
    return BLOCKS if limits.max_p95_ms is None else math.ceil(1.1 * smallest_n(0.95, 0.95))


def sweep_protocol(factors: Factors, *, sizes_bytes: Sequence[int], counts: Sequence[int], blocks: int) -> Protocol:
    """The cold load of ``strict``, then every size with every count.

    Args:
        factors: the settings; the arms are all their combinations.
        sizes_bytes: of an item.
        counts: of the items of a message.
        blocks: how often every arm runs.

    Raises:
        ProtocolError: a setting is not one that can be run, or there is none of a kind.
    """
    warm = tuple(
        Load(label=f"{size}Bx{count}", size_bytes=size, count=count, start=Start.WARM)
        for size, count in product(sizes_bytes, counts)
    )
    protocol = Protocol(
        name="sweep",
        scenario="ingest",
        description="Every combination of settings, one message at a time: cost against latency.",
        blocks=blocks,
        factors=factors,
        loads=(COLD_LOAD, *warm),
    )
    check_protocol(protocol, "the sweep")
    return protocol
