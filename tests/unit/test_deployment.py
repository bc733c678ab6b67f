"""Functions are built when something they are made of has changed, and only then. What runs sam is a stand-in."""

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from samples import ROOT

from lambdalab.build import deployment
from lambdalab.build.deployment import build, local_parameters, packed_template
from lambdalab.errors import ToolError

FOLDER = Path(".aws-sam/local")
BUILT = """
Resources:
  Go:
    Type: AWS::Serverless::Function
    Metadata: {SamResourceId: Go}
    Properties: {CodeUri: Go, Handler: bootstrap}
  Far: {Type: AWS::Serverless::Function, Properties: {CodeUri: {Bucket: code, Key: far.zip}}}
  Queue: {Type: AWS::SQS::Queue}
  Alarm: {Type: AWS::CloudWatch::Alarm, DependsOn: [Go], Properties: {A: {Ref: Go}, B: {'Fn::GetAtt': [Go, Arn]}}}
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run; each of them empties the folder, as sam does."""
    for name in ("template.yaml", "samconfig.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("src", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "protocols").mkdir()
    run: list[list[str]] = []

    def run_tool(command: list[str], **_: Any) -> None:
        run.append(command)
        shutil.rmtree(FOLDER, ignore_errors=True)
        (FOLDER / "Go").mkdir(parents=True)
        (FOLDER / "Go/bootstrap").write_text("#!/bin/sh\n")
        (FOLDER / "Go/bootstrap").chmod(0o755)
        (FOLDER / "template.yaml").write_text(BUILT)

    monkeypatch.setattr(deployment, "run_tool", run_tool)
    monkeypatch.setattr(deployment, "tool", lambda name: name)
    monkeypatch.chdir(tmp_path)
    return run


def test_what_is_built_is_not_built_again(commands: list[list[str]]) -> None:
    parameters = local_parameters({})
    build(parameters)
    build(parameters | {"MaxReceiveCount": "9"})
    build(local_parameters({}, "load"))
    assert len(commands) == 1
    assert commands[0][:4] == ["sam", "build", "--config-env", "local"]


def test_what_is_deployed_is_the_build_with_its_code_packed(commands: list[list[str]]) -> None:
    build(local_parameters({}))
    template = packed_template()
    assert template is not None
    packed = json.loads(template.read_text())["Resources"]
    assert packed["Go"]["Properties"] == {"CodeUri": "Go.zip", "Handler": "bootstrap"}
    assert packed["Far"]["Properties"] == {"CodeUri": {"Bucket": "code", "Key": "far.zip"}}
    assert packed["Queue"] == {"Type": "AWS::SQS::Queue"}
    with zipfile.ZipFile(FOLDER / "Go.zip") as archive:
        (entry,) = archive.infolist()
        assert archive.read(entry) == b"#!/bin/sh\n"
    assert (entry.filename, oct(entry.external_attr >> 16)) == ("bootstrap", "0o100755")


@pytest.mark.parametrize("damage", ["its code is gone", "it is no JSON", "it is a list"])
def test_a_packed_build_that_somebody_changed_is_left_to_sam(commands: list[list[str]], damage: str) -> None:
    build(local_parameters({}))
    assert len(commands) == 1
    template = packed_template()
    assert template is not None
    if damage == "its code is gone":
        (FOLDER / "Go.zip").unlink()
    else:
        template.write_text("{" if damage == "it is no JSON" else "[]")
    assert packed_template() is None


def test_a_template_that_names_further_files_is_left_to_sam(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    further = "  Api: {Type: AWS::Serverless::Api, Properties: {StageName: v1, DefinitionUri: template.yaml}}\n"
    monkeypatch.setattr(sys.modules[__name__], "BUILT", BUILT + further)
    build(local_parameters({}))
    assert packed_template() is None
    build(local_parameters({}))
    assert len(commands) == 1


def test_modules_of_go_share_versions_so_that_each_package_is_compiled_once() -> None:
    versions: dict[str, set[str]] = {}
    for module in ROOT.glob("**/go.mod"):
        if not {".venv", ".lambdalab", ".aws-sam"} & set(module.relative_to(ROOT).parts):
            for name, version in re.findall(r"^\t?(?:require )?(\S+\.\S+) (v\S+)", module.read_text(), re.MULTILINE):
                versions.setdefault(name, set()).add(version)
    assert len(versions) > 10
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


SOURCES = ("src/python/ingest/handler.py", "src/go/ingest/go.sum", "template.yaml", "tools/sam.txt")


@pytest.mark.parametrize("changed", SOURCES)
def test_a_change_is_built(commands: list[list[str]], changed: str) -> None:
    build(local_parameters({}))
    with Path(changed).open("a") as file:
        file.write("\n# changed\n")
    build(local_parameters({}))
    assert len(commands) == 2


@pytest.mark.parametrize("name", ["Architecture", "PythonRuntime"])
def test_another_machine_is_built_for(commands: list[list[str]], name: str) -> None:
    build(local_parameters({}))
    build(local_parameters({name: "another"}))
    assert len(commands) == 2


def test_debugging_is_built_for(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    build(local_parameters({}))
    monkeypatch.setenv("SAM_BUILD_MODE", "debug")
    build(local_parameters({}))
    assert len(commands) == 2


def test_a_build_by_hand_and_one_that_failed_are_none(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(local_parameters({}))
    (FOLDER / "made-of").unlink()  # sam empties it
    build(local_parameters({}))
    assert len(commands) == 2

    def fail(*_: Any, **__: Any) -> None:
        shutil.rmtree(FOLDER)
        raise ToolError("sam failed", next_step="look")

    with monkeypatch.context() as patch:
        patch.setattr(deployment, "run_tool", fail)
        with pytest.raises(ToolError):
            build(local_parameters({"Architecture": "another"}))
    build(local_parameters({}))
    assert len(commands) == 3
