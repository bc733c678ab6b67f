"""Fuzzes the HTTP of a real plane: ``python -m benchmarks.fuzz --minutes 10``.

Exit code 0: nothing was found; 1: what is printed was.
"""

import argparse
import asyncio
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.fuzz.attacks import recorded
from benchmarks.fuzz.campaign import Campaign, Findings
from benchmarks.fuzz.world import functions, victim
from lambdalab.local.startup import start_emulator

RECORDINGS: Final = Path(__file__).parents[2] / "tests" / "local" / "conversations"
SHOWN_PROBLEMS: Final = 20


def main() -> int:
    """Run it and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long to attack (default 10)")
    parser.add_argument("--seed", type=int, default=1, help="the attacks' seed (default 1)")
    arguments = parser.parse_args()
    seeds = recorded(RECORDINGS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        emulator = start_emulator(port, folder)
        try:
            url = f"http://127.0.0.1:{port}"
            with functions(url, folder, seeds), victim(url, folder) as attacked:
                found = asyncio.run(_run(Campaign(attacked, seeds, arguments.seed), arguments.minutes * 60))
        finally:
            emulator.end(grace_s=2)
    _show(found)
    return 1 if found.problems else 0


async def _run(campaign: Campaign, seconds: float) -> Findings:
    return await campaign.run(seconds)


def _show(found: Findings) -> None:
    for title, counts in (
        ("attacks", found.attacks),
        ("answers by status", found.statuses),
        ("right answers of", found.answered),
    ):
        print(f"\n{title}: {counts.total():,}")
        for what, count in sorted(counts.items(), key=str):
            print(f"  {what!s:30} {count:>10,}")
    print(f"\nresident memory, MB: first {found.rss_mb[0][1]:.0f}, highest {found.peak_mb(0, 1):.0f}, ", end="")
    print(f"in the second quarter {found.peak_mb(0.25, 0.5):.0f}, in the last {found.peak_mb(0.75, 1):.0f}")
    print(
        f"descriptors: first {found.descriptors[0]}, most {max(found.descriptors)}, at the end {found.descriptors[-1]}"
    )
    print(f"load of the machine: {' '.join(f'{load:.1f}' for load in os.getloadavg())}")
    print(f"\nproblems: {len(found.problems)}")
    for problem in found.problems[:SHOWN_PROBLEMS]:
        print(f"  {problem}")


if __name__ == "__main__":
    sys.exit(main())
