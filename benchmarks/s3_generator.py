"""How fast the Python S3 ingest function makes data, beside the system's own random source.

``python -m benchmarks.s3_generator`` from the project's folder; Go does the same in its ``generator_test.go``:
``cd scenarios/s3_ingest/src/go/s3ingest && go test -bench . -run '^$' ./internal/s3ingest``.
``scenarios/s3_ingest/README.md`` has what they said.
"""

import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

SOURCE: Final = Path(__file__).parents[1] / "scenarios/s3_ingest/src/python/s3_ingest"
PART_BYTES: Final = 8 * 1024 * 1024
ROUNDS: Final = 15


def best_mb_per_s(make: Callable[[], bytes]) -> float:
    """The best of some rounds, in MB of 1,000,000 bytes as Go's benchmarks have them."""
    best_s = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        make()
        best_s = min(best_s, time.perf_counter() - started)
    return PART_BYTES / best_s / 1e6


def main() -> None:
    """Prints both speeds and their ratio."""
    sys.path.insert(0, str(SOURCE))
    generator: Any = importlib.import_module("generator")
    ours, systems = (
        best_mb_per_s(lambda: generator.part(1, 0, PART_BYTES)),
        best_mb_per_s(lambda: os.urandom(PART_BYTES)),
    )
    print(
        f"generator {ours:.0f} MB/s, os.urandom {systems:.0f} MB/s: {ours / systems:.2f} times as fast; at least 0.50"
    )


if __name__ == "__main__":
    main()
