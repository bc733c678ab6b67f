"""Files of a project with anything in them: what reads them answers, or refuses in one sentence."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from command_line import Call, call_fixture, one_sentence, project_fixture  # noqa: F401
from fuzz import examples
from hypothesis import given
from hypothesis import strategies as st
from samples import ROOT
from test_damaged_files import INSTEAD, ODD_TOML, Damage, changed_bytes, changed_json

from lambdalab.aws import template
from lambdalab.aws.template import check_parameters
from lambdalab.build import deployment, samconfig
from lambdalab.build.cells import load_cells
from lambdalab.build.deployment import local_parameters
from lambdalab.errors import LambdalabError, UsageError
from lambdalab.invoke.invocation import read_event
from lambdalab.load.arguments import read_times
from lambdalab.local.latency import load_latency
from lambdalab.local.stack import running_stack
from lambdalab.planning.call_protocol import load_protocol as load_factorial
from lambdalab.planning.protocol import load_protocol
from lambdalab.project import scenario_folder
from lambdalab.run.calibration import last_calibration

Reader = Callable[[Path], object]


def read_samconfig(_: Path) -> object:
    folder = scenario_folder()
    for name in samconfig.environments(folder):
        samconfig.build_dir(folder, name), samconfig.region_of(name), samconfig.parameter_overrides(folder, name)
    return local_parameters({}), local_parameters({}, "load"), samconfig.stack_name(folder, "local")


def read_template(_: Path) -> object:
    template._parameters.cache_clear()
    check_parameters(scenario_folder(), {"Timeout": "10", "Architecture": "arm64"})
    return template.parameter_default(scenario_folder(), "GoRuntime")


def inside(_: Path) -> object:
    return running_stack(), last_calibration()


READERS: Final[dict[str, Reader]] = {
    "samconfig.toml": read_samconfig,
    "template.yaml": read_template,
    "protocols/strict.toml": load_protocol,
    "scenarios/s3_ingest/protocols/s3-ingest.toml": load_factorial,
    "latencies/2026-11-21.toml": load_latency,
    "scenarios/s3_ingest/cells.toml": load_cells,
    "events/sqs-small.json": lambda path: read_event(str(path)),
    ".lambdalab/calibration.json": inside,
    ".lambdalab/stack.json": inside,
    "times.csv": read_times,
}
BESIDE: Final = ("scenarios/s3_ingest/template.yaml", "scenarios/s3_ingest/scenario.py")
"""What reading the others takes."""
MADE: Final = {
    ".lambdalab/calibration.json": json.dumps(
        {"measured_at": "2026-11-21", "python": "CPython 3.11.7", "million_rounds_per_s": 2.5, "slowest": 2.4,
         "fastest": 2.6}
    ),
    ".lambdalab/stack.json": json.dumps({"stack_name": "a", "emulator": {"pid": 1}, "plane": {"pid": 2}}),
    "times.csv": "time\n0\n1.5\n2026\n",
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with files of its own."""
    folder = tmp_path_factory.mktemp("project")
    for name in (*READERS, *BESIDE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name in MADE:
            (folder / name).write_text(MADE[name])
        else:
            shutil.copy(ROOT / name, folder / name)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(deployment, "host_parameters", dict)
    return folder


def read(name: str, path: Path) -> None:
    """Reads a file; a refusal is one sentence that names it."""
    try:
        READERS[name](path)
    except LambdalabError as error:
        said = str(error)
        assert "\n" not in said
        assert len(said) < 2000
        assert said.endswith(".")
        assert path.name in said or said.startswith(
            ("no local stack of scenario ingest has settings ", "no lambdalab project in ")
        )


@st.composite
def changed_settings(draw: st.DrawFn, content: bytes) -> bytes:
    """A value that is another, in TOML or YAML; or a line that is gone."""
    lines = content.splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    for mark in (b" = ", b": "):
        if mark in lines[at]:
            lines[at] = lines[at].partition(mark)[0] + mark + draw(ODD_TOML)
            return b"\n".join(lines)
    del lines[at]
    return b"\n".join(lines)


@pytest.mark.parametrize("name", READERS)
@examples(40)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_a_sentence(folder: Path, name: str, data: st.DataObject) -> None:
    path = folder / name
    content = (MADE[name].encode() if name in MADE else (ROOT / name).read_bytes())  # fmt: skip
    damage = [changed_bytes(content)]
    damage.append(changed_json(content) if path.suffix == ".json" else changed_settings(content))
    path.write_bytes(data.draw(st.one_of(*damage)))
    read(name, path)


@pytest.mark.parametrize("instead", INSTEAD.values(), ids=INSTEAD)
@pytest.mark.parametrize("name", READERS)
def test_something_else_in_the_place_of_a_file(folder: Path, name: str, instead: Damage) -> None:
    instead(folder / name)
    read(name, folder / name)


@pytest.mark.parametrize("value", ["3", "true", "'A=1'", "['A']", "[3]", "{a = 1}", "[['A=1']]", "nan"])
@pytest.mark.parametrize("key", ["parameter_overrides", "stack_name", "region", "build_dir"])
def test_a_setting_of_another_type_is_used_or_refused(folder: Path, key: str, value: str) -> None:
    path = folder / "samconfig.toml"
    path.write_text(f"version = 0.1\n[local.global.parameters]\nstack_name = 'x'\n{key} = {value}\n".replace(
        "stack_name = 'x'\nstack_name", "stack_name"))  # fmt: skip
    read("samconfig.toml", path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("local = 3", "samconfig.toml: local is"),
        ("[local]\nglobal = 3", "samconfig.toml: local.global is 3; write a table, [local.global]."),
        ("[local.global.parameters]", "samconfig.toml: local has no stack_name; add it to [local.global.parameters]."),
        ("[local", "samconfig.toml is not TOML: "),
        (
            "[local.global.parameters]\nparameter_overrides = 3",
            "samconfig.toml: parameter_overrides of local is 3; write a list of 'KEY=VALUE'.",
        ),
    ],
)
def test_what_is_wrong_with_samconfig_is_said_with_its_place(folder: Path, text: str, said: str) -> None:
    (folder / "samconfig.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        samconfig.parameter_overrides(folder, "local"), samconfig.stack_name(folder, "local")
    assert said in str(caught.value)


def test_parameters_are_read_as_sam_reads_them(folder: Path) -> None:
    text = "[local.global.parameters]\nstack_name = 'all'\nparameter_overrides = 'A=1 B=\"two words\" C='\n"
    (folder / "samconfig.toml").write_text(text)
    assert samconfig.parameter_overrides(folder, "local") == {"A": "1", "B": "two words", "C": ""}
    (folder / "samconfig.toml").write_text(text + "[local.deploy.parameters]\nstack_name = 'one'\n")
    assert samconfig.stack_name(folder, "local") == "one"
    (folder / "samconfig.toml").write_text("[local.global.parameters]\nstack_name = 'all'\n")
    assert samconfig.parameter_overrides(folder, "local") == {}


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("template.yaml", "Resources: [", "template.yaml is not YAML: "),
        ("template.yaml", "Resources: {}", "has no parameter Architecture; name one of its own: it has none."),
        ("template.yaml", "Parameters: 3", "template.yaml: Parameters are wrong: Expected `object`, got `int`"),
        ("template.yaml", "Parameters: {A: {}}", "missing required field `Type`"),
        ("template.yaml", "- a", "template.yaml is no template: it holds no keys"),
        ("samconfig.toml", "[local.global.parameters", "samconfig.toml is not TOML: "),
        ("samconfig.toml", "[local.global.parameters]\nstack_name = 'x'\n", "VisibilityTimeout"),
    ],
)  # fmt: skip
def test_up_refuses_a_damaged_project_in_a_sentence(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: str, said: str
) -> None:
    monkeypatch.setattr(deployment, "host_parameters", lambda: {"Architecture": "arm64"})
    (project / file).unlink()
    (project / file).write_text(content)
    if said == "VisibilityTimeout":  # a section without parameters takes the template's defaults
        assert local_parameters({}) == {"Architecture": "arm64"}
        return
    ended = call("up", "--port", "4700")
    assert ended.code == 2, ended.err
    assert said in one_sentence(ended)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"[" * 3000, b'{"a": \xc3}', b"nothing"])
def test_an_event_on_standard_input_that_is_no_json_is_refused(
    call: Call, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    ended = call("invoke", "PythonIngest", "-e", "-")
    assert ended.code == 2
    assert "the event on standard input is not JSON" in one_sentence(ended)


def test_an_event_file_that_is_a_folder_is_refused(call: Call, project: Path) -> None:
    ended = call("invoke", "PythonIngest", "-e", ".")
    assert (ended.code, "event file . cannot be read: Is a directory" in one_sentence(ended)) == (2, True)


def test_an_event_without_an_end_is_not_read_to_its_end(call: Call) -> None:
    ended = call("invoke", "PythonIngest", "-e", "/dev/zero")
    assert ended.code == 2
    assert "event file /dev/zero has more than the 6,291,456 bytes that Lambda takes" in one_sentence(ended)


def test_a_closed_standard_input_has_no_event(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    ended = call("invoke", "PythonIngest", "-e", "-")
    assert (ended.code, "the event on standard input is not JSON" in one_sentence(ended)) == (2, True)
