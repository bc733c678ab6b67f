"""The command line in this process: what is typed, what is printed, how it ends; and docs/cli.md tells the same."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import typer
from command_line import PROTOCOL, Call, Ended, call_fixture, one_sentence, project_fixture  # noqa: F401
from fake_target import FakeTarget
from samples import ROOT, RUN_ID, make_manifest, make_result, make_trials

from lambdalab import cli
from lambdalab.analysis.bill import Terms
from lambdalab.analysis.frontier import Limits
from lambdalab.analysis.message_analysis import Summary
from lambdalab.build import deployment
from lambdalab.cli import app as cli_app
from lambdalab.cli import running, runs
from lambdalab.cli import sweep as sweep_command
from lambdalab.errors import AccessError, UsageError
from lambdalab.load.arguments import ARGUMENTS
from lambdalab.local import stack as local_stack
from lambdalab.logs.platform_lines import parse_report, render_report
from lambdalab.records.pipeline import Graph
from lambdalab.records.trial_files import RunDirectory
from lambdalab.run import experiment, runner
from lambdalab.run.local_target import LocalTarget
from lambdalab.run.target import Resources

DOCS = (ROOT / "docs" / "cli.md").read_text()
COMMANDS = (
    "up",
    "status",
    "down",
    "invoke",
    "sam-local",
    "logs",
    "calibrate",
    "map",
    "run",
    "report",
    "sweep",
    "load",
    "compare",
    "aa",
    "plan",
    "query",
    "doctor",
    "cells",
    "destroy",
    "prices",
    "dlq",
)


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> FakeTarget:
    """A target in memory in place of every other."""
    fake = FakeTarget()

    @contextmanager
    def place(*_: Any, **asked: Any) -> Iterator[FakeTarget]:
        fake.asked = asked
        yield fake

    monkeypatch.setattr(runs, "target_of", place)
    monkeypatch.setattr(sweep_command, "target_of", place)
    monkeypatch.setattr(runner, "EMPTY_QUEUE_WAIT_S", 0.0)
    return fake


REAL_TARGET_OF = running.target_of


# help and documentation


def options_of(command: Any) -> dict[str, str | None]:
    """Every way to write every option of a command and of the commands under it, with its help."""
    return {
        name: getattr(parameter, "help", None)
        for each in (command, *(getattr(command, "commands", {}).values() if command is not GROUP else ()))
        for parameter in each.params
        if parameter.param_type_name == "option"
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


def section(command: str) -> str:
    """What docs/cli.md says of a command."""
    (found,) = re.findall(rf"^## lambdalab {command}\b.*?(?=^## |\Z)", DOCS, re.MULTILINE | re.DOTALL)
    return str(found)


cli_app.load_commands()
GROUP: Any = typer.main.get_command(cli_app.app)


def test_help_lists_every_command_in_order() -> None:
    # In a process of its own: here another test may have loaded some of the commands before the others.
    program = Path(sys.executable).with_name("lambdalab")
    said = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    assert tuple(re.findall(r"^│ ([a-z]\S*)", said, re.MULTILINE)) == COMMANDS
    assert set(GROUP.commands) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_and_every_option_a_help(call: Call, name: str) -> None:
    ended = call(name, "--help")
    assert ended.code == 0
    assert f"Example:  lambdalab {name}" in ended.out
    for option, text in options_of(GROUP.commands[name]).items():
        assert text, f"{name} {option} has no help"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented_where_its_command_is(name: str) -> None:
    for option in options_of(GROUP.commands[name]):
        assert f"| `{option}`" in section(name) or f", `{option}` |" in section(name) or option == "--help", option


def test_the_documentation_names_no_option_that_does_not_exist() -> None:
    known = {option for name in COMMANDS for option in options_of(GROUP.commands[name])} | set(options_of(GROUP))
    known |= {"--headless", "--processes", *(f"--{name}" for name in ARGUMENTS)}  # passed on to Locust
    own = re.sub(r"^\.venv/bin/sam .*$", "", DOCS, flags=re.MULTILINE)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", own)) - known - {"--help"} == set()
    assert set(options_of(GROUP)) <= set(re.findall(r"--[a-z-]+", DOCS))


def test_the_documented_examples_can_be_parsed() -> None:
    examples = re.findall(r"^    (?:.*\| )?lambdalab ([\w-]+)(.*)$", DOCS, re.MULTILINE)
    assert len(examples) >= 8
    for name, arguments in examples:
        GROUP.commands[name].make_context(name, arguments.split())


def test_the_documented_exit_codes_are_those_there_are() -> None:
    table = DOCS[DOCS.index("## Exit codes") : DOCS.index("## lambdalab\n")]
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert codes == {0, cli_app.EXIT_VERDICT, 2, 3, 4, cli_app.EXIT_DEFECT, cli.EXIT_INTERRUPTED, 128 + signal.SIGPIPE}


def test_version(call: Call) -> None:
    assert call("--version") == Ended(0, "lambdalab 0.1.0\n", "")


def test_completion_knows_the_commands() -> None:
    program = Path(sys.executable).with_name("lambdalab")
    for begun, commands in {"r": ["run", "report"], "do": ["down", "doctor"]}.items():
        words = {"_LAMBDALAB_COMPLETE": "complete_bash", "COMP_WORDS": f"lambdalab {begun}", "COMP_CWORD": "1"}
        done = subprocess.run([program], env=os.environ | words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.split(), done.stderr) == (0, commands, "")


def test_completion_is_shown_and_ends_well() -> None:
    program = Path(sys.executable).with_name("lambdalab")
    # The shell is found among the processes above, so that one of them must be bash wherever this test runs.
    command = ["bash", "-c", '"$0" --show-completion bash; exit $?', str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "complete -o default -F" in done.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("run --protocol eq", ["equal-volume"]),
        ("report ", ["20260102-b", "20260101-a", "latest"]),
        ("query 1 20260101", ["20260101-a"]),
        ("compare latest 20260102", ["20260102-b"]),
        ("run --resume 2026", ["20260102-b", "20260101-a"]),
    ],
)
def test_completion_knows_protocols_and_runs(project: Path, typed: str, offered: list[str]) -> None:
    for name in ("20260101-a", "20260102-b"):
        (project / "results" / name).mkdir(parents=True)
        (project / "results" / name / "run.json").touch()
    (project / "results" / "latest").symlink_to("20260102-b")
    (project / "below").mkdir()
    words = {"_LAMBDALAB_COMPLETE": "complete_bash", "COMP_WORDS": f"lambdalab {typed}"}
    words["COMP_CWORD"] = str(typed.count(" ") + 1)
    program = Path(sys.executable).with_name("lambdalab")
    done = subprocess.run(
        [program], cwd=project / "below", env=os.environ | words, capture_output=True, text=True, check=False
    )
    assert (done.returncode, sorted(done.stdout.split()), done.stderr) == (0, sorted(offered), "")


def test_a_flag_has_no_type_in_the_help(call: Call) -> None:
    said = call("run", "--help").out
    assert "<bool>" not in said
    assert "<str>" in said


# what was typed is wrong


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("plan sweep", 2, "plan knows scenarios, and sweep is a command; write the settings as factors of a protocol"),
        ("run nope", 2, "there is no scenario 'nope'; there are: ingest, s3-ingest."),
        ("run --protocol nope", 2, 'protocols/ has no "nope"; there are: aa, equal-volume, modes, precise, strict.'),
        ("run --protocol absent.toml", 2, "absent.toml cannot be read: No such file or directory; check the path."),
        ("run --protocol bad.toml", 2, 'bad.toml: key "blokcs" is unknown; perhaps "blocks" is meant; there are: '),
        ("run --protocol label.toml", 2, 'label.toml: loads[0].label is "no spaces please"; use 1 to 64 letters'),
        ("run", 3, "no local stack is up; start one with `lambdalab up`, or add --up to a run."),
        ("run --resume nope", 2, "results/nope is not a run directory; measure one with `lambdalab run`."),
        ("run --resume latest --results nowhere", 2, "nowhere/latest is not a run directory; measure one with"),
        ("run --resume latest --blocks 3", 2, "--blocks cannot be changed when a run goes on with --resume; leave"),
        ("run --resume latest --seed 3", 2, "--seed cannot be changed when a run goes on"),
        ("run --resume latest --protocol strict", 2, "--protocol cannot be changed when a run goes on"),
        ("run --stack-name mine", 2, "--stack-name mine names a stack on AWS, and the target is local; add --target"),
        ("run --target aws --up", 2, "--up brings up a local stack, and the target is aws; leave --up or --target aws"),
        ("run --latency 2026-11-21", 2, "--latency 2026-11-21 is for the local stack that --up brings up; add --up"),
        ("run --up --latency nope", 2, 'latencies/ has no "nope"; there are: 2026-11-21.'),
        ("up --latency bad.toml", 2, 'bad.toml: key "scenario" is unknown; there are: name, date, seed, calls.'),
        ("run --target aws --stack-name other", 3, "no AWS region is set for the cloudformation endpoint; set"),
        ("run --target aws", 3, "no AWS credentials were found for"),  # in the region of samconfig.toml
        ("destroy", 3, "no AWS credentials were found for"),
        ("plan --stack-name x", 2, "--stack-name x names a stack on AWS, and the target is local; add --target aws"),
        ("run --build x=nowhere", 2, "--build x=nowhere: there is no folder 'nowhere'; make one with `sam build --con"),
        ("run --build x --build x=.", 2, "--build names 'x' twice; give each build a name of its own."),
        ("run --protocol arm.toml --build x", 2, "with --build: factors.architecture is ['arm64']; leave it or"),
        ("run --protocol arm.toml", 2, "architecture arm64 cannot be chosen locally: functions run on this"),
        ("run --build x_y", 2, 'protocol strict with --build: factors.build[0] is "x_y"; use 1 to 32 letters'),
        ("sweep", 3, "no local stack is up; start one with `lambdalab up`, or add --up to a run."),
        ("sweep --memory 64", 2, "the sweep: factors.memory_mb[0] is 64; write a number from 128 to 10240."),
        ("sweep --memory 128,128", 2, "the sweep: factors.memory_mb[1] is 128; name each level once; a block"),
        ("sweep --batch-size 11", 2, "the sweep: factors.batch_size[0] is 11; write a number from 1 to 10; more"),
        ("sweep --batch-size ten", 2, "--batch-size is 'ten'; write whole numbers, with commas between."),
        ("sweep --memory lots", 2, "--memory is 'lots'; write whole numbers, with commas between."),
        ("sweep --memory 128,", 2, "--memory is '128,'; write whole numbers, with commas between."),
        ("sweep --mode slow", 2, "--mode is 'slow'; write sequential or concurrent or batch, with commas between."),
        ("sweep --language rust", 2, 'the sweep: factors.language[0] is "rust"; there are: python, go.'),
        ("sweep --size 0", 2, "the sweep: loads[1].size_bytes is 0; write a number from 1 to 400000."),
        ("sweep --architecture arm64", 2, "architecture arm64 cannot be chosen locally: functions run on this machine"),
        ("sweep --architecture arm", 2, "--architecture is 'arm'; write x86_64 or arm64, with commas between."),
        ("sweep --resume nope", 2, "results/nope is not a run directory; measure one with `lambdalab run`."),
        ("sweep --resume latest --batch-size 5", 2, "--batch-size cannot be changed when a run goes on with --resume;"),
        ("sweep --resume latest --memory 128", 2, "--memory cannot be changed when a run goes on with --resume;"),
        ("run --resume latest --without-cpu-limit", 2, "--without-cpu-limit cannot be changed when a run goes on"),
        ("sweep --target aws --without-cpu-limit", 2, "--without-cpu-limit is for local runs, and on AWS Lambda"),
        ("sweep --target aws --up", 2, "--up brings up a local stack, and the target is aws; leave --up or"),
        ("status", 3, "no local stack is up; start one with"),
        ("status --json", 3, "no local stack is up; start one with"),
        ("report", 2, "results/latest is not a run directory; measure one with `lambdalab run`."),
        ("report ./template.yaml", 2, "template.yaml is not a run directory; measure one with `lambdalab run`."),
        ("report ./" + "x" * 300, 3, "cannot be read: File name too long; check the folder's owner"),
        ("invoke PythonIngest -e absent.json", 2, "event file absent.json cannot be read: No such file or directory;"),
        ("invoke PythonIngest -e .", 2, "event file . cannot be read: Is a directory; name a JSON file, see events/."),
        ("invoke PythonIngest -e bad.toml", 2, "event file bad.toml is not JSON: JSON is malformed: invalid character"),
        ("invoke PythonIngest -e nan.json", 2, "event file nan.json is not JSON: "),
        ("invoke PythonIngest -e deep.json", 2, "event file deep.json is not JSON: "),
        ("invoke PythonIngest -e latin.json", 2, "event file latin.json is not JSON: "),
        ("invoke PythonIngest -e events/sqs-small.json", 3, "no local stack is up; start one with"),
        ("invoke PythonIngest -e events/sqs-small.json --debug 5678", 3, "no local stack is up; start one with"),
        ("logs", 3, "no local stack is up; start one with"),
        ("logs --since 5", 2, "--since '5' is no time; write 5m, 1h, 2d or 2026-01-31T12:00:00."),
        ("up nope", 2, "there is no scenario 'nope'; there are: ingest, s3-ingest."),
        ("up --settings default", 2, "no local stack of scenario ingest has settings default; name one of local, lo"),
        ("up --settings s3-local", 2, "of local, load, or another scenario, such as `lambdalab up s3-ingest`."),
        ("up s3-ingest --settings load", 2, "no local stack of scenario s3-ingest has settings load; name one of loc"),
        ("up s3-ingest --parameter Memory=1", 2, "scenarios/s3_ingest/template.yaml has no parameter Memory; name one"),
        ("up --parameter MemorySize", 2, "--parameter 'MemorySize' is not KEY=VALUE; write for example Mem"),
        ("up --parameter =1", 2, "--parameter '=1' is not KEY=VALUE;"),
        ("up --parameter Memory=512", 2, "template.yaml has no parameter Memory; name one of its own: perhaps Mem"),
        ("up --parameter MemorySize=64", 2, "MemorySize=64 is not allowed by template.yaml; it must be a whole number"),
        ("up --parameter Timeout=900 --parameter VisibilityTimeout=60", 2, "VisibilityTimeout=60 is less than"),
        ("up --parameter MaximumConcurrency=2", 2, "MaximumConcurrency=2 does not go with ReservedConcurrency=1: the"),
        ("run --seed 99999999999999999999", 2, "invalid value '99999999999999999999' for '--seed': Input should be"),
        ("doctor --rate fast", 2, '--rate is "fast"; write for example 10.'),
        ("doctor --rate 0", 2, "load: rate is 0; write a number above 0, 100000 at most."),
        ("doctor --rate 10 --mix nope", 2, '--mix has label "nope"; there are: '),
        ("doctor --languages go", 2, "--languages is of a load, and there is none; add --rate, or leave --languages"),
        ("doctor --stack-name mine", 2, "--stack-name mine names a stack on AWS, and the target is local; add"),
        ("up --parameter MemorySize=lots", 2, "MemorySize=lots is not allowed by template.yaml; it must be"),
    ],
)  # fmt: skip
def test_one_sentence_and_a_next_step(call: Call, project: Path, arguments: str, code: int, said: str) -> None:
    (project / "bad.toml").write_text(PROTOCOL.replace("blocks", "blokcs"))
    (project / "arm.toml").write_text(PROTOCOL.replace('"go"]', '"go"]\narchitecture = ["arm64"]'))
    (project / "label.toml").write_text(PROTOCOL.replace("WARMUP", "no spaces please"))
    (project / "nan.json").write_text('{"count": NaN}')
    (project / "deep.json").write_text("[" * 100_000)
    (project / "latin.json").write_bytes(b'{"label": "\xe9"}')
    ended = call(*arguments.split())
    assert said in one_sentence(ended)
    assert ended.code == code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("frob", "no such command 'frob'; see `lambdalab --help`."),
        ("run --frob", "no such option: --frob; see `lambdalab run --help`."),
        ("run --blcks 3", "no such option: --blcks (Possible options: --blocks); see"),
        ("run --blocks 0", "invalid value '0' for '--blocks': Input should be greater than or equal to 1; see"),
        ("run --blocks x", "invalid value 'x' for '--blocks': Input should be a valid integer"),
        ("run --target moon", "invalid value 'moon' for '--target': 'moon' is not one of 'local', 'aws'; see"),
        ("up --port 70000", "invalid value '70000' for '--port': Input should be less than or equal to 65534"),
        ("invoke F -e x --debug 0", "invalid value '0' for '--debug': Input should be greater than or equal to 1; see"),
        ("invoke", "missing argument 'function'; see `lambdalab invoke --help`."),
    ],
)
def test_what_typer_refuses_is_one_sentence_too(call: Call, arguments: str, said: str) -> None:
    ended = call(*arguments.split())
    assert said in one_sentence(ended)
    assert ended.code == 2


def test_ctrl_c_before_a_command_has_begun_is_no_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_app, "run_app", interrupted)
    assert call("report") == Ended(cli.EXIT_INTERRUPTED, "", "lambdalab: interrupted\n")


def test_without_a_command_the_help_is_shown(call: Call) -> None:
    assert call() == call("--help")


def test_outside_of_a_project(call: Call, tmp_path_factory: pytest.TempPathFactory) -> None:
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    for arguments in ("run", "status", "up"):
        ended = call(arguments)
        assert "no lambdalab project in" in one_sentence(ended)
        assert ended.code == 3


def test_a_state_folder_that_cannot_be_made(call: Call, project: Path) -> None:
    (project / ".lambdalab").write_text("")
    ended = call("status")
    assert ".lambdalab cannot be made: File exists; check the folder's owner" in one_sentence(ended)
    assert ended.code == 3


@pytest.mark.parametrize(("variable", "value"), [("AWS_REGION", "us-east-1"), ("AWS_PROFILE", "nobody")])
def test_without_credentials(call: Call, monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    ended = call("run", "--target", "aws", "--yes")
    one_sentence(ended)
    assert ended.code == 3


def test_an_event_comes_from_standard_input_too(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{oops")))
    ended = call("invoke", "PythonIngest", "-e", "-")
    assert one_sentence(ended).startswith("the event on standard input is not JSON: ")
    assert ended.code == 2


def test_a_defect_is_told_as_one_and_is_no_verdict(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("of the test")

    monkeypatch.setattr(local_stack, "running_stack", fail)
    ended = call("status")
    assert ended.code == 70
    assert ended.err.startswith("Traceback")
    assert ended.err.endswith("lambdalab: this is a defect of lambdalab; report it with the lines above.\n")


# runs


def run_folder(project: Path) -> Path:
    return (project / "results" / "latest").resolve()


def valid_rows(project: Path) -> list[str]:
    with (run_folder(project) / "metrics.csv").open(newline="") as file:
        return [row["trial"] for row in csv.DictReader(file) if row["valid"] == "true"]


def test_a_run_shows_its_result_and_where_its_files_are(call: Call, project: Path, target: FakeTarget) -> None:
    ended = call("run", "--protocol", "tiny.toml", "--blocks", "6", "--seed", "7")
    assert ended.code == 0, ended.err
    assert ended.err == "".join(f"block {n} of 6 ...\n" for n in range(1, 7))
    assert "WARMUP   python/go   duration     1.000 [1.000, 1.000]" in ended.out
    assert ended.out.endswith(f"files: results/{run_folder(project).name}\n")
    assert len(valid_rows(project)) == 24
    assert {path.name for path in run_folder(project).iterdir()} == {
        "run.json", "trials.jsonl", "platform.jsonl", "metrics.csv", "metrics.parquet", "summary.json",
        "report.html", "pipeline.json",
    }  # fmt: skip
    graph = msgspec.json.decode((run_folder(project) / "pipeline.json").read_bytes(), type=Graph)
    assert graph == target.pipeline()
    manifest = RunDirectory(run_folder(project)).manifest()
    assert (manifest.seed, manifest.protocol.blocks, manifest.protocol.name) == (7, 6, "tiny")


def test_a_report_is_the_same_again_from_the_files_alone(call: Call, project: Path, target: FakeTarget) -> None:
    first = call("run", "--protocol", "tiny.toml")
    files = {path.name: path.read_bytes() for path in run_folder(project).iterdir()}
    (project / "prices").unlink()
    again = call("report")
    assert again == Ended(0, first.out, "")
    assert {path.name: path.read_bytes() for path in run_folder(project).iterdir()} == files


def test_conclude_runs_once(call: Call, target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    concluded: list[Path] = []
    conclude = experiment.conclude

    def watch(store: RunDirectory, terms: Terms | None, limits: Limits) -> Summary:
        concluded.append(store.folder)
        return conclude(store, terms, limits)

    monkeypatch.setattr(experiment, "conclude", watch)
    call("run", "--protocol", "tiny.toml")
    assert len(concluded) == 1


def test_an_invalid_run_is_shown_and_ends_with_4(call: Call, project: Path, target: FakeTarget) -> None:
    target.lose = 1
    ended = call("run", "--protocol", "tiny.toml")
    assert ended.code == 4
    assert "invalid run: no valid sample of python WARMUP, go WARMUP, python SMALL, go SMALL" in ended.out
    assert "  2 x 99 of 100 items are in the table" in ended.out
    assert ended.err.splitlines()[-1].startswith(
        f"lambdalab: run {run_folder(project).name} is invalid: no valid sample"
    )
    assert call("report").code == 4


SIGNALS = {
    "ctrl-c": lambda _: os.kill(os.getpid(), signal.SIGINT),
    "terminated": lambda _: os.kill(os.getpid(), signal.SIGTERM),
}


@pytest.mark.parametrize("how", SIGNALS)
def test_an_interrupted_run_is_shown_and_goes_on(call: Call, project: Path, target: FakeTarget, how: str) -> None:
    target.faults["send go 2"] = SIGNALS[how]
    ended = call("run", "--protocol", "tiny.toml", "--results", "mine here", "--seed", "1", "--up")
    folder = (project / "mine here" / "latest").resolve()
    go_on = f"lambdalab run ingest --resume {folder.name} --target local --results 'mine here' --up"

    assert ended.code == 130
    assert "invalid run: only " in ended.out
    assert ended.err.splitlines()[-2:] == [
        "lambdalab: interrupted",
        f"lambdalab: what was measured is in mine here/{folder.name}; go on with `{go_on}`.",
    ]
    assert {"metrics.csv", "summary.json"} <= {path.name for path in folder.iterdir()}
    assert "restore" in target.calls

    target.faults.clear()
    done = call("run", "--resume", folder.name, "--results", "mine here")
    assert done.code == 0, done.err
    assert "valid samples 4/4, " in done.out


def test_a_problem_comes_after_the_result_and_decides_the_exit_code(
    call: Call, project: Path, target: FakeTarget
) -> None:
    target.faults |= {
        "send go 2": AccessError("queue-go is gone", next_step="look for it"),
        "restore": AccessError("the configuration was not restored", next_step="set it back"),
    }
    ended = call("run", "--protocol", "tiny.toml", "--seed", "1")
    assert ended.code == 3
    assert "REPORT lines" in ended.out
    name = run_folder(project).name
    go_on = f"lambdalab run ingest --resume {name} --target local"
    assert ended.err.splitlines()[-3:] == [
        "lambdalab: queue-go is gone; look for it.",
        "lambdalab: the configuration was not restored; set it back.",
        f"lambdalab: what was measured is in results/{name}; go on with `{go_on}`.",
    ]


def test_a_defect_in_the_middle_of_a_run_loses_nothing(call: Call, project: Path, target: FakeTarget) -> None:
    target.faults["send go 2"] = ZeroDivisionError("of the test")
    ended = call("run", "--protocol", "tiny.toml")
    assert ended.code == 70
    assert "REPORT lines" in ended.out
    assert "go on with" in ended.err


def test_when_even_the_result_cannot_be_written_both_are_said(call: Call, project: Path, target: FakeTarget) -> None:
    def break_the_disk(_: FakeTarget) -> None:
        (run_folder(project) / "metrics.csv.unfinished").mkdir()
        raise AccessError("queue-go is gone", next_step="look for it")

    target.faults["send go 2"] = break_the_disk
    ended = call("run", "--protocol", "tiny.toml")
    assert ended.code == 3
    errors = ended.err.splitlines()
    assert errors[-3] == "lambdalab: queue-go is gone; look for it."
    assert "metrics.csv cannot be written: Is a directory" in errors[-2]


def test_a_start_that_is_refused_leaves_no_run(
    call: Call, target: FakeTarget, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "EMPTY_QUEUE_WAIT_S", 0.0)
    assert call("run", "--protocol", "tiny.toml").code == 0
    before = sorted((project / "results").iterdir()), (project / "results" / "latest").readlink()
    target.depths["queue-go"] = 2
    ended = call("run", "--protocol", "tiny.toml")
    assert "queue queue-go is not empty (2 messages)" in one_sentence(ended)
    assert ended.code == 3
    assert before == (sorted((project / "results").iterdir()), (project / "results" / "latest").readlink())


def test_a_run_whose_first_trial_fails_does_not_say_that_something_was_measured(call: Call, target: FakeTarget) -> None:
    target.faults["start_cold python"] = target.faults["start_cold go"] = AccessError("no", next_step="ask")
    ended = call("run", "--protocol", "tiny.toml")
    assert "lambdalab: nothing was measured; go on with `lambdalab run ingest --resume" in ended.err
    assert ended.code == 3


def test_a_complete_run_that_goes_on_is_not_noted_as_resumed(call: Call, target: FakeTarget, project: Path) -> None:
    assert call("run", "--protocol", "tiny.toml").code == 0
    assert call("run", "--resume", "latest").code == 0
    assert RunDirectory.open(project / "results", "latest").manifest().resumed_at == ()


@pytest.mark.parametrize("results", ["tiny.toml", "/proc/nothing"])
def test_results_that_cannot_be_written_end_before_anything_is_sent(
    call: Call, target: FakeTarget, results: str
) -> None:
    ended = call("run", "--results", results)
    assert "cannot be made: " in one_sentence(ended)
    assert ended.code == 3
    assert not any(name.startswith("send") for name in target.calls)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"memory_mb": 512}, "began with python memory_mb 128, and now it is 512; set it back, or start a new run."),
        ({"code_sha256": "new"}, "began with python code_sha256 digest of python, and now it is new; set it back"),
        ({"runtime": "python3.13"}, "began with python runtime python3.12, and now it is python3.13;"),
    ],
)
def test_a_run_does_not_go_on_with_another_function(
    call: Call, target: FakeTarget, changed: dict[str, Any], said: str
) -> None:
    assert call("run", "--protocol", "tiny.toml").code == 0
    target.changed = changed
    ended = call("run", "--resume", "latest")
    assert said in one_sentence(ended)
    assert ended.code == 2


def test_a_run_does_not_go_on_elsewhere(call: Call, target: FakeTarget) -> None:
    assert call("run", "--protocol", "tiny.toml").code == 0
    target.stack = msgspec.structs.replace(target.stack, name="other")
    ended = call("run", "--resume", "latest")
    assert "was made on local stack lambdalab-local, not on local stack other; resume it where" in one_sentence(ended)
    assert ended.code == 2


class OnPlane(FakeTarget, LocalTarget):
    """The same on a plane, which says of itself what a test wants."""

    def __init__(self, **plane: Any) -> None:
        super().__init__()
        self.plane = plane
        self.local: Any = SimpleNamespace(status=lambda: self.plane)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"cpu_scale": 1.0}, "began with plane cpu_scale 0.5, and now it is 1.0; set it back, or start a new run."),
        ({"cpu_limit": "none"}, "began with plane cpu_limit cgroup v2, and now it is none; set it back"),
        (
            {"latency": {"name": "a", "date": "b", "seed": 1}},
            "began with latency model none, and now it is a b, seed 1;",
        ),
    ],
)
def test_a_run_does_not_go_on_under_other_conditions(tmp_path: Path, now: dict[str, Any], said: str) -> None:
    target = OnPlane(cpu_limit="cgroup v2", cpu_scale=0.5, latency=None)
    run = RunDirectory.create(tmp_path, make_manifest(cpu_scale=0.5))
    experiment.resume_run(target, run)
    assert len(run.manifest().resumed_at) == 1
    target.plane |= now
    with pytest.raises(UsageError, match=said):
        experiment.resume_run(target, run)
    assert len(run.manifest().resumed_at) == 1


# builds and sweeps


class SlowCandidate(FakeTarget):
    """The second build takes twice as long."""

    def send(self, of_arm: Resources, bodies: Sequence[str]) -> str:
        message = super().send(of_arm, bodies)
        if self.configured[-1].build == "candidate":
            report = parse_report(self.lines[-1].message)
            assert report is not None
            slow = msgspec.structs.replace(report, duration_ms=31.48, billed_ms=162 if report.init_ms else 32)
            self.lines[-1] = msgspec.structs.replace(self.lines[-1], message=render_report(slow))
        return message


def test_a_slow_build_is_a_regression_with_default_settings(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def place(*_: Any, **__: Any) -> Iterator[FakeTarget]:
        yield SlowCandidate()

    monkeypatch.setattr(runs, "target_of", place)
    monkeypatch.setattr(runner, "EMPTY_QUEUE_WAIT_S", 0.0)
    builds = ("--build", "baseline", "--build", "candidate")
    ended = call("run", "--protocol", "tiny.toml", *builds)
    assert ended.code == 1, ended.out + ended.err
    assert "8 blocks instead of 1: fewer find no difference between these builds" in ended.err
    assert "Verdict: regression: " in ended.out
    assert call("run", "--protocol", "tiny.toml", "--blocks", "8", *builds).code == 1
    assert call("report").code == 0, "it shows, and judges nothing"


def test_fewer_blocks_than_a_comparison_of_builds_needs_are_refused(call: Call, target: FakeTarget) -> None:
    ended = call("run", "--protocol", "tiny.toml", "--blocks", "7", "--build", "a", "--build", "b")
    assert ended.code == 2
    assert one_sentence(ended).startswith(
        "--blocks is 7, and 6 comparisons of builds find no difference, however large, in fewer than 8; ask for 8"
    )
    assert target.calls == []


def test_builds_are_arms_and_the_command_that_goes_on_names_them(call: Call, project: Path, target: FakeTarget) -> None:
    (project / "built").mkdir()
    target.faults["send go 2"] = SIGNALS["ctrl-c"]
    given = ("--build", "baseline", "--build", "candidate=built")
    ended = call("run", "--protocol", "tiny.toml", "--seed", "1", *given)
    assert ended.code == 130
    assert ended.err.endswith("--target local --build baseline --build candidate=built`.\n")
    assert target.asked["builds"] == {"candidate": project / "built"}, "the other is what is deployed"
    arms = RunDirectory(run_folder(project)).manifest().protocol.arms
    assert [arm.name for arm in arms] == [f"{a}-{b}" for a in ("python", "go") for b in ("baseline", "candidate")]

    target.faults.clear()
    wrong = call("run", "--resume", "latest", "--build", "other=built")
    assert (wrong.code, wrong.err) == (
        2,
        f"lambdalab: run {run_folder(project).name} has no build 'other'; its builds are: baseline, candidate.\n",
    )
    target.changed = {"code_sha256": "another"}
    assert "; name every build as before, or start a new run." in call("run", "--resume", "latest").err
    target.changed = {}
    done = call("run", "--resume", "latest", *given)
    assert done.code == 0, done.err
    assert "valid samples 64/64, " in done.out, "tiny has 1 block, and 6 comparisons need 8"


def cells_of(project: Path) -> list[dict[str, str]]:
    with (run_folder(project) / "cells.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_measures_every_combination_and_answers(call: Call, project: Path, target: FakeTarget) -> None:
    ended = call("sweep", "--memory", "128,512", "--mode", "sequential,batch", "--count", "10,20", "--blocks", "2")
    assert ended.code == 0, ended.err
    protocol = RunDirectory(run_folder(project)).manifest().protocol
    assert (protocol.name, protocol.blocks) == ("sweep", 2)
    assert [(load.label, load.count, load.start.value) for load in protocol.loads] == [
        ("WARMUP", 1, "cold"), ("1024Bx10", 10, "warm"), ("1024Bx20", 20, "warm"),
    ]  # fmt: skip
    combinations = {(a, mb, m) for a in ("python", "go") for mb in (128, 512) for m in ("sequential", "batch")}
    for block in range(2):
        of_block = target.configured[8 * block : 8 * block + 8]
        assert {(arm.language, arm.memory_mb, arm.mode) for arm in of_block} == combinations
    cells = cells_of(project)
    assert [(cell["label"], cell["arm"]) for cell in cells] == [
        (load.label, arm.name) for load in protocol.loads for arm in protocol.arms
    ]
    assert {cell["n"] for cell in cells} == {"2"}
    assert {cell["duration_ms"] for cell in cells} == {"15.74"}
    assert {cell["duration_ms_low"] for cell in cells} == {""}, "two samples have no interval"
    assert "Cost against latency, 1024Bx20: medians" in ended.out
    assert "1024Bx20: no recommendation: no limit was given, so any point of the front may be the" in ended.out
    assert "no valid sample" not in ended.out


def test_a_sweep_over_batch_sizes(call: Call, project: Path, target: FakeTarget) -> None:
    ended = call(
        "sweep", "--memory", "128", "--language", "go", "--batch-size", "1,10", "--count", "3", "--blocks", "6"
    )
    assert ended.code == 0, ended.err
    assert {arm.batch_size for arm in target.configured} == {1, 10}
    assert [(cell["label"], cell["arm"], cell["batch_size"], cell["n"]) for cell in cells_of(project)] == [
        (label, f"go-{size}msg", str(size), "6") for label in ("WARMUP", "1024Bx3") for size in (1, 10)
    ]
    one, ten = (float(cell["usd_per_million"]) for cell in cells_of(project)[2:])
    with (run_folder(project) / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "1024Bx3"]
    of_ten = [row for row in rows if row["batch_size"] == "10"]
    assert {(row["written"], row["valid"]) for row in of_ten} == {("30", "true")}
    assert ten == pytest.approx(float(of_ten[0]["cost_total_usd"]) * 1e6 / 10, rel=1e-3)
    assert ten < one, "ten messages share one execution"


def test_a_finished_sweep_is_answered_again_without_a_target(
    call: Call, project: Path, target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("sweep", "--memory", "128,512", "--language", "go", "--blocks", "6").code == 0
    monkeypatch.setattr(sweep_command, "target_of", None)
    rows = (run_folder(project) / "metrics.csv").read_bytes()
    ended = call("sweep", "--resume", "latest", "--max-usd-per-million", "500")
    assert ended.code == 0, ended.err
    assert "1024Bx100: take go-128MB: the fastest of 2 that keep at most 500 USD per million messages" in ended.out
    assert [cell["arm"] for cell in cells_of(project) if cell["recommended"] == "true"] == ["go-128MB", "go-128MB"]
    ended = call("sweep", "--resume", "latest", "--max-usd-per-million", "1")
    assert (ended.code, ended.err) == (1, ""), "a gate that fails"
    assert "1024Bx100: no recommendation: no setting keeps at most 1 USD" in ended.out
    ended = call("sweep", "--resume", "latest", "--max-p95-ms", "100")
    assert "no recommendation: a 95th percentile with an interval needs 53 more samples in a cell" in ended.out
    assert ended.code == 4, "undecided is no verdict"
    assert f"the limits of sweep {run_folder(project).name} cannot be decided: 1024Bx100: a 95th perc" in ended.err
    assert (run_folder(project) / "metrics.csv").read_bytes() == rows


def test_an_interrupted_sweep_goes_on_with_its_limits(call: Call, project: Path, target: FakeTarget) -> None:
    target.faults["send go 3"] = SIGNALS["ctrl-c"]
    ended = call("sweep", "--memory", "128,512", "--language", "go", "--blocks", "2", "--max-usd-per-million", "500")
    assert ended.code == 130
    folder = run_folder(project).name
    go_on = f"lambdalab sweep --resume {folder} --target local --max-usd-per-million 500"
    assert ended.err.splitlines()[-1].endswith(f"go on with `{go_on}`.")
    assert target.calls.count("restore") == 1
    target.faults.clear()
    done = call(*go_on.split()[1:])
    assert done.code == 4, "two blocks decide nothing"
    assert "valid samples 8/8, " in done.out


def test_with_a_limit_on_a_percentile_there_are_blocks_enough_for_one(
    call: Call, project: Path, target: FakeTarget
) -> None:
    ended = call("sweep", "--memory", "128", "--language", "go", "--max-p95-ms", "16")
    assert ended.code == 0, ended.err
    assert call("sweep", "--resume", "latest", "--max-p95-ms", "0.5").code == 1
    assert "1024Bx100: take go: the cheapest of 1 that keep p95 of Duration at most 16 ms" in ended.out
    assert {cell["n"] for cell in cells_of(project)} == {"65"}


def test_each_architecture_is_built_for_the_deployed_stack(
    call: Call, target: FakeTarget, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    built: list[tuple[str, dict[str, str]]] = []
    target.name = "aws"
    target.builds = {}
    target.stack = msgspec.structs.replace(target.stack, parameters={"Timeout": "9"})
    monkeypatch.setattr(sweep_command, "target_of", REAL_TARGET_OF)
    monkeypatch.setattr("lambdalab.run.target.aws_target", lambda *_: target)
    monkeypatch.setattr(deployment, "build_for", lambda *asked: built.append(asked))
    settings = ("--target", "aws", "--stack-name", "lambdalab-local", "--yes", "--language", "go", "--memory", "128")
    ended = call("sweep", *settings, "--architecture", "x86_64,arm64", "--blocks", "1")
    assert ended.code == 0, ended.err
    assert built == [("x86_64", {"Timeout": "9"}), ("arm64", {"Timeout": "9"})]
    folder = project / ".lambdalab" / "builds"
    assert target.builds == {"x86_64": folder / "x86_64", "arm64": folder / "arm64"}
    assert {arm.name for arm in target.configured} == {"go-x86_64", "go-arm64"}


# on AWS


def test_spending_needs_a_yes_also_when_a_run_goes_on(call: Call, project: Path, target: FakeTarget) -> None:
    target.name = "aws"
    ended = call("run", "--protocol", "tiny.toml", "--target", "aws")
    assert ended.code == 2
    # 2 x (2 x 300 s x 0.125 GB x 0.0000166667 USD + requests, units and lines) = 0.0028 USD; rounded up
    assert ended.err.splitlines()[0] == (
        "4 messages and 202 items to stack lambdalab-local in us-east-1, in about 1 minutes; "
        "about 0.01 USD, at most 0.01 USD, if every invocation ran into its timeout"
    )
    assert "  concurrency: 1000 in the account, 998 of them unreserved" in ended.err.splitlines()
    assert "  not checked: what else of the account uses Lambda during the run" in ended.err.splitlines()
    assert ended.err.splitlines()[-1] == (
        "lambdalab: a run on AWS costs money and nobody can be asked here; add --yes."
    )
    assert not (project / "results").exists()
    assert not any(call.startswith("send") for call in target.calls)

    assert call("run", "--protocol", "tiny.toml", "--target", "aws", "--yes", "--seed", "1").code == 0
    ended = call("run", "--resume", "latest", "--target", "aws")
    assert ended.code == 2
    assert "0 messages and 0 items" in ended.err


@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 130), (typer.Abort(), 130)])
def test_who_is_asked_may_refuse(
    call: Call, target: FakeTarget, monkeypatch: pytest.MonkeyPatch, answer: bool | typer.Abort, code: int
) -> None:
    def ask(*_: object, **__: object) -> bool:
        if isinstance(answer, typer.Abort):
            raise answer
        return answer

    target.name = "aws"
    monkeypatch.setattr(typer, "confirm", ask)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert call("run", "--protocol", "tiny.toml", "--target", "aws").code == code


# stop rules, caps and plans

STOP = "blocks = 40\n[stop]\nmin_blocks = 6\n"


def test_a_run_tells_how_far_its_stop_rule_is_and_why_it_ended(call: Call, project: Path, target: FakeTarget) -> None:
    (project / "tiny.toml").write_text(PROTOCOL.replace("blocks = 1\n", STOP))
    ended = call("run", "--protocol", "tiny.toml", "--seed", "7")
    assert ended.code == 0, ended.err
    lines = ended.err.splitlines()
    assert lines[0] == "block 1 of at most 40 ..."
    assert lines[1] == "block 2 of at most 40, no interval yet (1 of at least 6 samples) ..."
    assert len(lines) == 6
    assert "ended by: precision reached; cold starts by configuration-bump" in ended.out
    assert call("run", "--resume", "latest").out == ended.out


def test_a_target_that_was_not_reached_is_visible(call: Call, project: Path, target: FakeTarget) -> None:
    (project / "tiny.toml").write_text(PROTOCOL.replace("blocks = 1\n", STOP + "[caps]\nattempts = 2\n"))
    ended = call("run", "--protocol", "tiny.toml")
    assert ended.code == 0, ended.err
    assert "ended by: attempts cap" in ended.out
    assert "caution: target not reached: 4 cells have no interval (ended by: attempts cap)" in ended.out


def test_a_budget_ends_a_run_on_aws_and_keeps_what_was_measured(call: Call, project: Path, target: FakeTarget) -> None:
    target.name = "aws"
    capped = PROTOCOL.replace("blocks = 1\n", "blocks = 40\n[caps]\nusd = 0.001\n")
    (project / "tiny.toml").write_text(capped)
    ended = call("run", "--protocol", "tiny.toml", "--target", "aws", "--yes")
    assert ended.code == 0, ended.err
    assert "ended by: usd cap" in ended.out
    assert 4 <= len(valid_rows(project)) < 40, "a block costs about 0.00026 USD"


def test_cold_starts_the_target_does_not_make_are_refused(call: Call, project: Path, target: FakeTarget) -> None:
    (project / "tiny.toml").write_text(PROTOCOL.replace("blocks = 1\n", 'blocks = 1\ncold = "recycle"\n'))
    ended = call("run", "--protocol", "tiny.toml")
    assert one_sentence(ended) == (
        "protocol tiny wants cold starts by recycle, and target local makes them by configuration-bump; "
        'write cold = "configuration-bump", or leave it out.'
    )
    assert ended.code == 2
    assert not (project / "results").exists()


def test_a_plan_needs_nothing_that_is_up_and_sends_nothing(call: Call, project: Path) -> None:
    ended = call("plan", "--protocol", "tiny.toml", "--blocks", "12")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("ingest, protocol tiny, target local, 12 blocks\n48 messages, 2,424 items, about ")
    assert "- assumed, since there is no earlier run" in ended.out
    assert not (project / "results").exists()


def test_a_plan_as_json_is_the_same(call: Call, project: Path) -> None:
    found = json.loads(call("plan", "--protocol", "precise", "--json").out)
    assert (found["blocks_least"], found["blocks_most"], found["messages_most"]) == (10, 200, 800)
    assert float(found["usd"]) < float(found["usd_at_most"])


# damaged runs


@pytest.fixture
def finished(project: Path) -> RunDirectory:
    manifest = make_manifest()
    run = RunDirectory.create(project / "results", manifest)
    for trial in make_trials(manifest):
        run.append_trial(make_result(trial))
    return run


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.json", b"", "run.json is damaged: Input data was truncated; restore it, or measure again."),
        ("run.json", b"{}", "run.json is damaged: Object missing required field `schema_version`"),
        ("run.json", b'{"schema_version": 9}', "run.json has schema version 9, this lambdalab reads 4"),
        ("trials.jsonl", b"{}\n", "trials.jsonl, line 1, is damaged: Object missing required field"),
        ("platform.jsonl", b"\xff\n", "platform.jsonl, line 1, is damaged: JSON is malformed: invalid"),
    ],
)
def test_a_damaged_run(call: Call, finished: RunDirectory, name: str, content: bytes, said: str) -> None:
    (finished.folder / name).write_bytes(content)
    ended = call("report", RUN_ID)
    assert said in one_sentence(ended)
    assert ended.code == 3


def test_damaged_prices(call: Call, finished: RunDirectory) -> None:
    manifest = json.loads((finished.folder / "run.json").read_text())
    del manifest["prices"]["sqs"]
    (finished.folder / "run.json").write_text(json.dumps(manifest))
    ended = call("report")
    assert "run.json is damaged: Object missing required field `sqs` of prices; restore it" in one_sentence(ended)
    assert ended.code == 3


def test_a_run_killed_before_its_first_block_ended_is_readable(call: Call, finished: RunDirectory) -> None:
    file = finished.folder / "trials.jsonl"
    file.write_bytes(file.read_bytes()[:-10])
    ended = call("report")
    assert ended.code == 4
    assert "invalid run: only 3 of 4 trials were run" in ended.out
