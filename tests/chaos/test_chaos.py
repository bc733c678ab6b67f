"""The short form of the fault suite: every kind of fault at least once, in both languages."""

import os
import secrets
import time
from pathlib import Path

from local.whole import processes_of

from chaos.faults import SHORT
from chaos.suite import Suite


def test_faults_lose_nothing_double_nothing_and_dead_letter_poison_only(tmp_path: Path) -> None:
    seed = os.environ.get("LAMBDALAB_CHAOS_SEED") or secrets.token_hex(4)
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}")

    say(f"seed {seed}; evidence in {tmp_path}")
    result = Suite(tmp_path, seed, SHORT, say).run()
    say("the stack is down")
    print(result.table())
    assert not result.problems, "\n".join(result.problems)
    assert processes_of(tmp_path) == []
    if os.environ.get("LAMBDALAB_REQUIRE_ALL") == "1":
        assert result.left_out == []
