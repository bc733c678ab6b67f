"""A short ``python -m benchmarks.fuzz``, on a plane of its own beside the one of the other tests; and broken ones."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.fuzz.__main__ import RECORDINGS
from benchmarks.fuzz.attacks import recorded
from benchmarks.fuzz.campaign import Campaign, Findings
from benchmarks.fuzz.world import functions, victim
from local.whole import Up

SEEDS = recorded(RECORDINGS)
SECONDS = 4
LONGEST_S = 30
LEFT = "descriptors stay open"
HANG_S = 3
PLANT = """
import sys
if "lambdalab.local.plane" in sys.orig_argv:
    import os, time
    from lambdalab.local import http
    Connection = http.Connection
    refuse, made, on_body = Connection._refuse, Connection.connection_made, Connection.on_body
"""
"""Runs before the plane itself, from a ``sitecustomize`` on its ``PYTHONPATH``."""


def replace(method: str, *lines: str) -> str:
    """Code that puts a function in a method's place."""
    body = "".join(f"\n        {line}" for line in lines)
    return f"    def planted(self, *given):{body}\n    {method} = planted\n"


@pytest.fixture(scope="module")
def endpoint_url(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An emulator with the functions."""
    with functions(up.stack.endpoint_url, tmp_path_factory.mktemp("functions"), SEEDS):
        yield up.stack.endpoint_url


async def test_malformed_http_neither_stops_the_plane_nor_spoils_an_answer(endpoint_url: str, tmp_path: Path) -> None:
    assert len(SEEDS) > 10
    with victim(endpoint_url, tmp_path) as attacked:
        found = await Campaign(attacked, SEEDS, seed=20261121).run(SECONDS)
        assert attacked.plane.alive
    assert found.problems == []
    assert found.attacks.total() > 0
    assert set(found.statuses) >= {200, 400}
    assert attacked.troubles() == []  # in its end either


FAULTS = {
    "hangs on a large head": (
        replace("Connection._refuse", "if given[0] != 431: refuse(self, *given)"),
        "hangs: giant head",
    ),
    "says 200 to what is malformed": (
        replace("Connection._refuse", "refuse(self, 200 if given[0] == 400 else given[0])"),
        "VIOLATION 200 and not (400,)",
    ),
    "crashes on what is malformed": (
        replace("Connection._refuse", "os._exit(1)"),
        "the plane ended",
    ),
    "stands still on what is malformed": (
        replace("Connection._refuse", "time.sleep(600)"),
        "not answered: TimeoutError",
    ),
    "leaks descriptors": (
        replace(
            "Connection.connection_made",
            "made(self, *given)",
            "of = given[0].get_extra_info('socket')",
            "of.getpeername()[1] % 5 or os.dup(of.fileno())",
        ),
        LEFT,
    ),
    "loses a byte of long bodies": (
        replace("Connection.on_body", "on_body(self, given[0][:-1] if len(given[0]) > 100 else given[0])"),
        "answered 400",
    ),
}


@pytest.mark.parametrize(("fault", "told"), FAULTS.values(), ids=FAULTS)
async def test_a_fault_is_found(
    endpoint_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(PLANT + fault)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")

    def tells(found: Findings) -> bool:
        return any(told in problem for problem in found.problems)

    seconds = SECONDS if told == LEFT else LONGEST_S
    with victim(endpoint_url, tmp_path, grace_s=1) as attacked:
        found = await Campaign(attacked, SEEDS, 1, HANG_S, tells).run(seconds)
    assert tells(found), found.problems[:5]


def test_memory_that_grows_is_found() -> None:
    found = Findings(rss_mb=[(s, 100 + max(0, s - 300) * 0.2) for s in range(601)])
    assert found.growth() == "memory grows: 100 MB in the second quarter, 160 MB in the last"
    assert Findings(rss_mb=[(s, 100 + 30 * (s > 300)) for s in range(601)]).growth() is None
