"""What `.venv/bin/sam` adds to sam: the local stack's endpoint and this machine's parameters, and nothing else."""

import os
import sys
from pathlib import Path

import pytest
from samples import ROOT

from lambdalab.build import deployment
from lambdalab.errors import ToolError
from lambdalab.invoke import sam
from lambdalab.local.daemon import Daemon
from lambdalab.local.stack import LocalStack


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(deployment, "host_parameters", lambda: {"Architecture": "arm64", "PythonRuntime": "python3.13"})


@pytest.mark.parametrize(
    ("given", "local"),
    [
        (["deploy", "--config-env", "local"], True),
        (["deploy", "--config-env=local"], True),
        (["deploy"], False),
        (["deploy", "--config-env", "load"], False),
        (["deploy", "local"], False),
        (["local", "invoke"], False),
        ([], False),
    ],
)
def test_which_arguments_mean_the_local_stack(given: list[str], local: bool) -> None:
    assert sam.is_local(given) is local


@pytest.mark.parametrize("environment", ["s3", "s3-local", "default", "local"])
@pytest.mark.usefixtures("never_start")
def test_an_environment_that_the_scenario_lacks_is_refused_with_those_it_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], environment: str
) -> None:
    command = ("build", f"--config-env={environment}")
    if environment in ("default", "local"):
        with pytest.raises(Started):
            call(monkeypatch, *command)
        return
    assert call(monkeypatch, *command) == 2
    assert capsys.readouterr().err == (
        f"sam: samconfig.toml has no environment {environment}; name one of default, local, load, "
        "or change to the folder of its scenario: scenarios/s3_ingest.\n"
    )
    with pytest.raises(Started):
        call(monkeypatch, *command, "--config-file", "another.toml")


def test_in_the_folder_of_a_scenario_parameters_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "scenarios/s3_ingest")
    completed = sam.arguments(["build", "--config-env", "local"])
    assert {"Workload=events", "Architecture=arm64", "PythonRuntime=python3.13"} < set(completed)
    assert not any(pair.startswith("BatchSize=") for pair in completed)


@pytest.mark.usefixtures("never_start")
def test_containers_are_made_ready_for_the_root_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT / "scenarios/s3_ingest")
    assert call(monkeypatch, "local", "invoke", "GoS3Ingest", "--config-env", "local") == 2
    assert capsys.readouterr().err.startswith("sam: sam local is not made ready for scenario s3-ingest: its containers")


def test_options_may_stand_before_the_command() -> None:
    assert "--parameter-overrides" in sam.arguments(["--debug", "build", "--config-env", "local"])


@pytest.mark.parametrize("command", ["build", "deploy", "local invoke", "local start-lambda"])
def test_a_local_build_or_deploy_is_for_this_machine(command: str) -> None:
    given = [*command.split(), "--config-env", "local"]
    completed = sam.arguments(given)
    assert completed[: len(given)] == given
    option, *pairs = completed[len(given) :]
    assert option == "--parameter-overrides"
    assert {"Architecture=arm64", "PythonRuntime=python3.13"} < set(pairs)
    assert len({pair.split("=")[0] for pair in pairs}) == len(pairs), "each parameter once"


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["--version"],
        ["build"],
        ["deploy", "--guided"],
        ["validate", "--config-env", "local"],
        ["local", "generate-event", "sqs", "receive-message", "--config-env", "local"],
        ["local", "invoke", "--help", "--config-env", "local"],
        ["deploy", "--config-env", "local", "--parameter-overrides", "MemorySize=256"],
        ["build", "--config-env=local", "--parameter-overrides=MemorySize=256"],
    ],
)
def test_everything_else_is_passed_on_unchanged(given: list[str]) -> None:
    assert sam.arguments(given) == given


class Started(Exception):  # noqa: N818 - no failure
    """In place of the process that sam would become."""

    def __init__(self, program: Path, command: list[str], variables: dict[str, str]) -> None:
        super().__init__(program)
        self.command = command
        self.variables = variables


@pytest.fixture
def never_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(program: Path, command: list[str], variables: dict[str, str]) -> None:
        raise Started(program, command, variables)

    monkeypatch.setattr(os, "execve", start)
    monkeypatch.setattr(sam, "tool", lambda name: Path("/tools") / name)
    monkeypatch.setattr(sam, "aws_variables", lambda: {"for": "AWS"})
    monkeypatch.setattr(sam, "build_variables", lambda: {"for": "a build"})
    monkeypatch.setattr(sam, "local_variables", lambda url, lambda_url: {"emulator": url, "plane": lambda_url})


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sam", *arguments])
    return sam.main()


@pytest.mark.parametrize("command", ["build", "validate", "local generate-event", "local invoke --help"])
@pytest.mark.usefixtures("never_start")
def test_what_speaks_to_no_stack_needs_none(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(sam, "running_stack", lambda: None)
    with pytest.raises(Started) as started:
        call(monkeypatch, *command.split(), "--config-env", "local")
    assert started.value.variables == {"for": "a build"}
    assert started.value.command[0] == "/tools/sam"


@pytest.mark.parametrize(
    "command", ["deploy", "delete", "sync", "list", "logs", "package", "local invoke", "local start-lambda"]
)
@pytest.mark.usefixtures("never_start")
def test_the_local_environment_never_reaches_aws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setattr(sam, "running_stack", lambda: None)
    assert call(monkeypatch, *command.split(), "--config-env", "local") == 3
    assert capsys.readouterr().err == "sam: no local stack is up to work with; start one with `lambdalab up`.\n"


@pytest.mark.parametrize("option", [["--env-vars", "env.json"], ["--env-vars=env.json"], ["-n", "env.json"]])
@pytest.mark.usefixtures("never_start")
def test_variables_that_would_hide_the_emulators_endpoint_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert call(monkeypatch, "local", "invoke", "GoIngest", "--config-env", "local", *option) == 2
    assert capsys.readouterr().err.startswith("sam: --env-vars is given, and this sam makes that file itself")


@pytest.mark.parametrize("command", ["deploy", "remote", "logs"])
@pytest.mark.usefixtures("never_start")
def test_the_local_environment_asks_the_emulator_and_for_lambda_the_plane(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def daemon(port: int) -> Daemon:
        return Daemon(pid=1, start_time_ticks=1, port=port)

    stack = LocalStack(stack_name="s", emulator=daemon(4566), plane=daemon(4567))
    monkeypatch.setattr(sam, "running_stack", lambda: stack)
    with pytest.raises(Started) as started:
        call(monkeypatch, command, "--config-env", "local")
    assert started.value.variables == {
        "emulator": "http://127.0.0.1:4566",
        "plane": "http://127.0.0.1:4567",
    }


@pytest.mark.usefixtures("never_start")
def test_a_deploy_to_aws_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Started) as started:
        call(monkeypatch, "deploy")
    assert started.value.variables == {"for": "AWS"}
    assert started.value.command == ["/tools/sam", "deploy"]


def test_without_its_tool_the_next_step_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(_: str) -> Path:
        raise ToolError("sam is not installed for this project", next_step="run `make setup`")

    monkeypatch.setattr(sam, "tool", absent)
    assert call(monkeypatch, "--version") == 3
    assert capsys.readouterr().err == "sam: sam is not installed for this project; run `make setup`.\n"
