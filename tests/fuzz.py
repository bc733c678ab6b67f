"""How long the tests draw: as they are in ``make test``, ``LAMBDALAB_FUZZ`` times as many examples in ``make fuzz``.

In ``make test`` the examples are the same each time. Otherwise they are drawn anew, and a failure is printed with what
draws it again.
"""

import os
from typing import Final

from hypothesis import HealthCheck, settings

FACTOR: Final = int(os.environ.get("LAMBDALAB_FUZZ", "1"))

settings.register_profile(
    "lambdalab",
    deadline=None,  # a timing is no assertion
    derandomize=FACTOR == 1,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
settings.load_profile("lambdalab")


def examples(number: int) -> settings:
    """So many examples, or as many times more as asked for."""
    return settings(max_examples=number * FACTOR)
