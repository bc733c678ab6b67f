"""A local stack that lives as long as a run: what ends it, what keeps it, what clears it away."""

import errno
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from samples import ROOT

from lambdalab.errors import PlaneError, StorageError, UsageError
from lambdalab.local import stack as module
from lambdalab.local.daemon import Daemon, start_daemon
from lambdalab.local.stack import LocalStack, running_stack, stack_for_a_while, take_down
from lambdalab.local.stack import bring_up as really_bring_up


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalStack]:
    """Two processes that do nothing, in the place of emulator and plane."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(module, "_state_file", lambda: tmp_path / "stack.json")
    monkeypatch.setattr(module, "state_folder", lambda: tmp_path)

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


def test_it_ends_also_when_nothing_reads_what_is_said(stack: LocalStack) -> None:
    def unread(_: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError), stack_for_a_while(unread):
        pass
    assert not stack.plane.alive
    assert not stack.emulator.alive


def test_a_full_disk_keeps_it_because_the_logs_are_only_there(stack: LocalStack) -> None:
    with pytest.raises(StorageError) as caught, stack_for_a_while(lambda _: None):
        raise StorageError("p", next_step="n")
    assert stack.emulator.alive
    assert stack.plane.alive
    assert "lambdalab down" in caught.value.__notes__[0]


def test_a_stack_that_is_up_serves_a_run_that_wants_its_cpu_scale(
    stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    module._save(stack)
    monkeypatch.setattr(LocalStack, "status", lambda _: {"cpu_scale": 0.5, "latency": None})
    for wanted in (None, 0.5):
        with stack_for_a_while(lambda _: None, cpu_scale=wanted) as found:
            assert found == stack
        assert stack.plane.alive
    said = r"--cpu-scale 2 is not what the local stack that is up was brought up with; end that with `lambdalab down`"
    with pytest.raises(UsageError, match=said), stack_for_a_while(lambda _: None, cpu_scale=2.0):
        pytest.fail("it began")


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


@pytest.mark.parametrize(
    ("dead", "said"),
    [
        (("emulator",), r"the local stack's emulator \(pid \d+\) has ended; see .*/emulator\.log, then"),
        (("plane",), r"the local stack's plane \(pid \d+\) has ended; see .*/plane\.log, then"),
        (("emulator", "plane"), r"the local stack's emulator \(pid \d+\) and plane \(pid \d+\) have ended; see"),
        ((), r"the local stack's emulator \(pid \d+\) does not answer at http://127\.0\.0\.1:1/\S+: .*refused"),
    ],
    ids=["emulator", "plane", "both", "silent"],
)
def test_status_names_the_part_that_is_dead(stack: LocalStack, dead: tuple[str, ...], said: str) -> None:
    for name in dead:
        getattr(stack, name).end(grace_s=1)
    with pytest.raises(PlaneError, match=said):
        stack.status()


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"])
def test_status_of_a_part_that_answers_nonsense(stack: LocalStack, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reply() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        emulator = msgspec.structs.replace(stack.emulator, port=listener.getsockname()[1])
        with pytest.raises(PlaneError, match=r"emulator .* does not answer"):
            msgspec.structs.replace(stack, emulator=emulator).status()
        thread.join()


def test_a_part_that_is_about_to_end_is_said_to_have_ended(stack: LocalStack) -> None:
    """Killed, it closes its port first."""
    ending = threading.Timer(0.2, stack.emulator.end, kwargs={"grace_s": 1})
    ending.start()
    with pytest.raises(PlaneError, match=r"emulator \(pid \d+\) has ended"):
        stack.status()
    ending.join()


def test_a_stack_that_is_up_is_left_alone(stack: LocalStack) -> None:
    module._save(stack)
    with pytest.raises(PlaneError, match=r"the local stack s is up already, at \S+; see `lambdalab status`, or end"):
        really_bring_up(lambda _: None)
    assert stack.plane.alive


def test_what_is_left_of_a_dead_stack_is_named_and_in_the_way(stack: LocalStack) -> None:
    module._save(stack)
    stack.plane.end(grace_s=1)
    with pytest.raises(PlaneError, match=r"plane \(pid \d+\) has ended, .* in the way; clear .* `lambdalab down`"):
        really_bring_up(lambda _: None)
    assert stack.emulator.alive


def test_drawn_ports_are_free_and_none_that_an_outgoing_connection_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        taken = listener.getsockname()[1]
        drawn = iter((taken - 1, taken, 20_000))
        monkeypatch.setattr(random, "choice", lambda _: next(drawn))
        assert module._ports(0) == (20_000, 20_001)
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(module._DRAWN_PORTS) + 1 < max(lowest, 32_768)


def test_a_port_that_is_not_allowed_is_not_called_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(PlaneError) as caught:
        module._ports(80)
    said = "port 80 on 127.0.0.1 cannot be used (Permission denied); choose another with --port, from 1024 on."
    assert str(caught.value) == said
