"""A local stack that lives as long as a run: what ends it, what keeps it, what clears it away."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import ROOT

from lambdalab.errors import PlaneError, StorageError
from lambdalab.local import stack as module
from lambdalab.local.daemon import Daemon, start_daemon
from lambdalab.local.stack import LocalStack, running_stack, stack_for_a_while, take_down


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalStack]:
    """Two processes that do nothing, in the place of emulator and plane."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(module, "_state_file", lambda: tmp_path / "stack.json")

    def daemon(name: str) -> Daemon:
        log_file = tmp_path / f"{name}.log"
        return start_daemon(["sleep", "60"], port=1, log_file=log_file, variables=dict(os.environ))

    made = LocalStack(stack_name="s", emulator=daemon("emulator"), plane=daemon("plane"))
    monkeypatch.setattr(module, "bring_up", lambda *_, **__: made)
    yield made
    take_down(made)


def test_it_ends_with_its_run(stack: LocalStack) -> None:
    with stack_for_a_while(lambda _: None) as found:
        assert found.plane.alive
    assert not stack.plane.alive
    assert not stack.emulator.alive


def test_it_ends_when_the_run_fails(stack: LocalStack) -> None:
    with pytest.raises(PlaneError), stack_for_a_while(lambda _: None):
        raise PlaneError("p", next_step="n")
    assert not stack.emulator.alive


def test_a_full_disk_keeps_it_because_the_logs_are_only_there(stack: LocalStack) -> None:
    with pytest.raises(StorageError) as caught, stack_for_a_while(lambda _: None):
        raise StorageError("p", next_step="n")
    assert stack.emulator.alive
    assert stack.plane.alive
    assert "lambdalab down" in caught.value.__notes__[0]


def test_what_is_left_of_a_stack_is_cleared_away(stack: LocalStack, tmp_path: Path) -> None:
    module._save(stack)
    stack.plane.end(grace_s=1)
    with stack_for_a_while(lambda _: None):
        assert not stack.emulator.alive
    assert running_stack() is None


def test_ctrl_c_does_not_stop_a_take_down_half_way(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> None:
    end = Daemon.end

    def interrupted(self: Daemon, *, grace_s: float) -> None:
        signal.raise_signal(signal.SIGINT)
        end(self, grace_s=grace_s)

    monkeypatch.setattr(Daemon, "end", interrupted)
    take_down(stack)
    assert not stack.emulator.alive
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
