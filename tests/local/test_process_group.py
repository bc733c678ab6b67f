"""A process group by itself: what reaches all of its processes, and what is sent to none."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lambdalab.local.limits import Unlimited
from lambdalab.local.process_group import ProcessGroup
from local.support import exists, gone, state


@asynccontextmanager
async def two_processes() -> AsyncIterator[tuple[ProcessGroup, int]]:
    """A group, and the pid of its second process."""
    script = "sleep 300 & echo $!; wait"
    command = ["sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as leader:  # noqa: ASYNC220 - at once
        assert leader.stdout is not None
        group = ProcessGroup(leader, Unlimited(lambda _: None))
        try:
            yield group, int(await asyncio.to_thread(leader.stdout.readline))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader.pid, signal.SIGKILL)
            await group.exited


async def reaches(pid: int, letters: str) -> bool:
    """Whether a process has one of these states within two seconds."""
    for _ in range(200):
        if state(pid) in letters:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_all_are_frozen_thawed_and_killed() -> None:
    async with two_processes() as (group, child):
        group.freeze()
        assert await reaches(group.pid, "T")
        assert await reaches(child, "T")
        group.thaw()
        assert await reaches(group.pid, "SR")
        assert await reaches(child, "SR")
        group.freeze()
        group.kill()
        assert await gone(group.pid)
        assert await gone(child)
        assert await group.exited == -signal.SIGKILL


async def test_a_freeze_that_was_asked_for_does_not_come_after_a_thaw_or_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with two_processes() as (group, child):
        sent: list[int] = []
        really_killpg = os.killpg

        def killpg(pid: int, number: int) -> None:
            sent.append(number)
            really_killpg(pid, number)

        monkeypatch.setattr(os, "killpg", killpg)
        group.freeze_soon()
        group.thaw()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sent == []
        group.freeze_soon()
        await asyncio.sleep(0)
        group.kill()
        await group.exited
        group.freeze()
        group.thaw()
        assert sent == [signal.SIGKILL], "its pid may be another's by now"
        assert not exists(child) or await gone(child)
