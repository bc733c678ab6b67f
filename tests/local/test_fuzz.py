"""A short ``python -m benchmarks.fuzz``, on a plane of its own beside the one of the other tests."""

from pathlib import Path

from benchmarks.fuzz.__main__ import RECORDINGS
from benchmarks.fuzz.attacks import recorded
from benchmarks.fuzz.campaign import Campaign
from benchmarks.fuzz.world import victim
from local.whole import Up

SECONDS = 4


async def test_malformed_http_neither_stops_the_plane_nor_spoils_an_answer(up: Up, tmp_path: Path) -> None:
    seeds = recorded(RECORDINGS)
    assert len(seeds) > 10
    with victim(up.stack.endpoint_url, tmp_path, seeds) as attacked:
        found = await Campaign(attacked, seeds, seed=20261121).run(SECONDS)
        assert attacked.plane.alive
    assert found.problems == []
    assert found.attacks.total() > 0
    assert set(found.statuses) >= {200, 400}
    assert attacked.troubles() == []  # in its end either
