"""The command ``load``: it starts Locust with this project's load, and hands everything else on."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command_line import Call, one_sentence
from command_line import call_fixture as call_fixture
from command_line import project_fixture as project_fixture
from samples import ROOT

from lambdalab.cli.app import load_commands
from lambdalab.local import stack


class TakenOver(BaseException):
    """What ``execve`` does not do: come back."""


def test_it_becomes_locust_with_every_other_argument(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def execve(program: str, arguments: list[str], variables: dict[str, str]) -> None:
        assert program == arguments[0]
        assert variables == dict(os.environ), "its page and its options choose between the local stack and AWS"
        calls.append(arguments)
        raise TakenOver

    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(TakenOver):
        call("load", "--headless", "--rate", "50", "-P", "8090", "--languages", "go")
    ((program, *arguments),) = calls
    assert Path(program) == Path(sys.executable).with_name("locust")
    assert arguments[:2] == ["-f", str(project / "load")]
    assert arguments[2:4] == ["--config", str(project / "pyproject.toml")], "which binds Locust to loopback"
    assert arguments[4:] == ["--headless", "--rate", "50", "-P", "8090", "--languages", "go"]


@pytest.mark.parametrize("code", [0, 1, 4])
def test_with_up_it_waits_for_locust_then_ends_the_stack_and_says_what_locust_says(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    events: list[Any] = []

    @contextmanager
    def for_a_while(_: object, *, folder: Path, settings: str) -> Any:
        events.append((folder, settings))
        try:
            yield
        finally:
            events.append("down")

    monkeypatch.setattr(stack, "stack_for_a_while", for_a_while)
    load_commands()  # in their order, before one of them is looked up
    monkeypatch.setattr("lambdalab.cli.load._refuse_early", lambda _: None)
    monkeypatch.setattr(
        "lambdalab.cli.load._locust", lambda arguments: [sys.executable, "-c", f"raise SystemExit({code})"]
    )
    assert call("load", "--up", "--headless").code == code
    assert events == [(project, "load"), "down"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--rate", "0"], "load: rate is 0; "),
        (["--rate", "many"], 'load: --rate is "many"; '),
        (["--shape", "cube"], "load: argument --shape: invalid choice: 'cube'"),
    ],
)
def test_a_plan_that_cannot_run_is_refused_before_a_stack_is_brought_up(
    call: Call, monkeypatch: pytest.MonkeyPatch, typed: list[str], said: str
) -> None:
    monkeypatch.setattr(stack, "stack_for_a_while", None)
    ended = call("load", "--up", "--headless", *typed)
    assert ended.code == 2
    assert said.removeprefix("load: ") in one_sentence(ended)


@pytest.mark.usefixtures("project")
def test_an_option_locust_does_not_know_is_refused_before_a_stack_is_brought_up() -> None:
    program = Path(sys.executable).with_name("lambdalab")
    done = subprocess.run(
        [program, "load", "--up", "--headles"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "unrecognized arguments: --headles" in done.stderr
    assert "starting the emulator" not in done.stderr
