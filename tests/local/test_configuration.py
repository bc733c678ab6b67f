"""Settings of an arm on deployed functions: memory, build and batch size, taken up by the plane and put back."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lambdalab.design.arms import Arm
from lambdalab.errors import UsageError
from lambdalab.run.local_target import LocalTarget, local_target
from local.whole import LANGUAGES, Up

CANDIDATE = """

_handler = handler


def handler(event, context):
    print("this is the candidate")
    return _handler(event, context)
"""
MESSAGE = {"batch_id": "configuration", "count": 1, "size_bytes": 1}


@pytest.fixture
def candidate(up: Up, tmp_path: Path) -> Path:
    """Another build: the Python function says so, the Go function is the other's bytes and one more file."""
    folder = tmp_path / "candidate"
    shutil.copytree(up.project / ".aws-sam" / "local", folder)
    with (folder / "PythonIngest" / "handler.py").open("a") as file:
        file.write(CANDIDATE)
    (folder / "GoIngest" / "candidate").touch()
    return folder


@pytest.fixture
def target(up: Up, candidate: Path) -> Iterator[LocalTarget]:
    made = local_target(up.stack, {"candidate": candidate})
    yield made
    made.restore()
    for client in (value for value in vars(made.aws).values() if hasattr(value, "get_waiter")):
        client.close()


def settings(up: Up, language: str) -> dict[str, Any]:
    found: Any = up.emulator.lambda_.get_function_configuration(FunctionName=up.arm(language).function_name)
    return {key: found.get(key) for key in ("MemorySize", "CodeSha256", "Environment", "Architectures")}


def log_of(up: Up, language: str) -> str:
    answer = up.invoke(up.arm(language).function_name, MESSAGE, LogType="Tail")
    assert "FunctionError" not in answer, answer
    return base64.b64decode(answer["LogResult"]).decode()


@pytest.mark.parametrize("language", LANGUAGES)
def test_memory_is_changed_without_a_deployment_and_put_back(up: Up, target: LocalTarget, language: str) -> None:
    before = settings(up, language)
    arm = Arm(name="more", language=language, memory_mb=512)
    assert target.facts(arm).memory_mb == 512, "what the arm will have, before it has it"
    target.configure(arm)
    assert settings(up, language) == before | {"MemorySize": 512}
    assert "Memory Size: 512 MB" in log_of(up, language)
    target.configure(Arm(name="as deployed", language=language))
    assert "Memory Size: 128 MB" in log_of(up, language)
    target.configure(arm)
    target.restore()
    assert settings(up, language) == before


@pytest.mark.parametrize("language", LANGUAGES)
def test_another_build_runs_under_its_own_digest_and_the_deployed_one_is_put_back(
    up: Up, target: LocalTarget, language: str
) -> None:
    before = settings(up, language)
    arm = Arm(name="candidate", language=language, build="candidate")
    facts = target.facts(arm)
    assert facts.code_sha256 != before["CodeSha256"]
    target.configure(arm)
    assert settings(up, language)["CodeSha256"] == facts.code_sha256 == target.facts(arm).code_sha256
    assert ("this is the candidate" in log_of(up, language)) is (language == "python")
    target.configure(Arm(name="deployed", language=language, build="baseline"))
    assert settings(up, language) == before
    target.configure(arm)
    target.restore()
    assert settings(up, language) == before
    assert "this is the candidate" not in log_of(up, language)


def test_the_same_files_are_the_same_package(candidate: Path, target: LocalTarget, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(candidate, again, copy_function=shutil.copy)  # with other times
    other = LocalTarget(target.local, target.stack, {"candidate": again})
    arm = Arm(name="candidate", language="go", build="candidate")
    assert other.facts(arm).code_sha256 == target.facts(arm).code_sha256


def test_a_folder_without_the_function_is_refused(target: LocalTarget, tmp_path: Path) -> None:
    other = LocalTarget(target.local, target.stack, {"empty": tmp_path / "empty"})
    with pytest.raises(UsageError, match=r"empty/GoIngest holds no built function; build it with `sam build"):
        other.configure(Arm(name="empty", language="go", build="empty"))
