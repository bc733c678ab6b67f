"""Scenarios are found by their folders, and what is wrong with one is said in a sentence with the next step."""

import shutil
from pathlib import Path

import pytest
from command_line import Call, call_fixture, one_sentence, project_fixture  # noqa: F401
from samples import ROOT

from lambdalab.build.samconfig import region_of
from lambdalab.errors import SetupError, UsageError
from lambdalab.planning.protocol import protocol_file
from lambdalab.project import project_root, results_folder, scenario_folder, scenario_folders, state_folder
from lambdalab.scenario.found import call_scenario, call_scenarios, current_scenario, folder_of

GOOD = (ROOT / "scenarios/s3_ingest/scenario.py").read_text()


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a scenario that has a template alone, in a project of its own."""
    (tmp_path / "protocols").mkdir()
    (tmp_path / "template.yaml").touch()
    folder = tmp_path / "scenarios" / "another_one"
    folder.mkdir(parents=True)
    (folder / "template.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_folders_of_this_project() -> None:
    assert scenario_folders() == {"ingest": ROOT, "s3-ingest": ROOT / "scenarios" / "s3_ingest"}
    assert call_scenarios() == ["s3-ingest"]
    assert type(call_scenario("s3-ingest")).__name__ == "S3Ingest"
    assert call_scenario("s3-ingest") is call_scenario("s3-ingest")


@pytest.mark.parametrize("below", [".", "src/python", "empty"])
def test_a_folder_belongs_to_the_scenario_above_it_and_state_to_the_project(
    other: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    root = other.parents[1]
    (root / below).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(root / below)
    assert (scenario_folder(), project_root(), current_scenario()) == (root, root, "ingest")
    (other / below).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(other / below)
    assert (scenario_folder(), project_root(), current_scenario()) == (other, root, "another-one")
    assert state_folder() == root / ".lambdalab"
    assert results_folder().resolve() == root / "results"
    assert [path.name for path in other.iterdir() if path.name != below.partition("/")[0]] == ["template.yaml"]


def test_a_scenario_may_have_protocols_and_is_no_project_then(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (other / "protocols").mkdir()
    monkeypatch.chdir(other)
    assert project_root() == other.parents[1]


def test_without_the_project_around_it_a_scenario_is_a_project(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (other.parents[1] / "template.yaml").unlink()
    monkeypatch.chdir(other)
    with pytest.raises(SetupError, match="no lambdalab project in"):
        project_root()
    (other / "protocols").mkdir()
    assert project_root() == other


def test_a_folder_without_a_template_is_no_scenario(other: Path) -> None:
    (other.parent / "__pycache__").mkdir()
    assert list(scenario_folders()) == ["ingest", "another-one"]
    assert folder_of("another-one") == other
    assert call_scenarios() == []
    with pytest.raises(
        UsageError, match="there is no scenario 'another'; perhaps \"another-one\" is meant; there are: "
    ):
        folder_of("another")


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("another-one", "scenarios/another_one and scenarios/another-one are both scenario another-one; rename one of"),
        ("ingest", "scenarios/ingest and . are both scenario ingest; rename one of them."),
    ],
)
def test_a_name_that_is_taken_is_refused(other: Path, folder: str, said: str) -> None:
    shutil.copytree(other, other.with_name(folder))
    with pytest.raises(UsageError) as caught:
        scenario_folders()
    assert str(caught.value).startswith(said)


def test_a_bare_name_is_a_protocol_of_the_scenario_and_then_of_another(other: Path) -> None:
    for folder, names in ((other.parents[1], ("same", "own")), (other, ("same", "further"))):
        (folder / "protocols").mkdir(exist_ok=True)
        for name in names:
            (folder / "protocols" / f"{name}.toml").touch()
    assert protocol_file("same") == other.parents[1] / "protocols/same.toml"
    assert protocol_file("same", "another-one") == other / "protocols/same.toml"
    assert protocol_file("further") == other / "protocols/further.toml"
    assert protocol_file("absent.toml", "another-one") == Path("absent.toml")
    with pytest.raises(UsageError, match='scenarios/another_one/protocols/ has no "nope"; there are: further, same'):
        protocol_file("nope", "another-one")


def test_a_stack_of_any_scenario_has_the_region_of_its_settings(other: Path) -> None:
    parameters = "[default.global.parameters]\nstack_name = 'mine'\nregion = 'eu-west-1'\n"
    (other.parents[1] / "samconfig.toml").write_text("version = 0.1\n")
    (other / "samconfig.toml").write_text(parameters)
    assert (region_of("mine"), region_of("yours")) == ("eu-west-1", None)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "SCENARIO: Final[CallScenario] = S3Ingest()",
            "",
            " has no SCENARIO; write `SCENARIO = YourClass()` at its end (",
        ),
        (
            "    def verify(",
            "    def verified(",
            ": SCENARIO has verified, which is no member of a scenario: mend it, or begin it with an underscore;",
        ),
        ("class S3Ingest(CallScenario):", "class S3Ingest:", ": SCENARIO has no default_protocol; write it as"),
        (
            '    languages = ("python", "go")',
            "    languages = 3",
            ": languages of SCENARIO is 3, which is wrong: Expected `array`, got `int`; write it as",
        ),
        (
            '    languages = ("python", "go")',
            '    default_protocol = ["s3-ingest"]',
            ": default_protocol of SCENARIO is ['s3-ingest'], which is wrong: Expected `str`, got `array`; write it as",
        ),
        (
            "    def assumed(",
            "    assumed = 3\n    def _told(",
            ": assumed of SCENARIO is 3, not a method; write it as",
        ),
        (
            "    def remove(self, aws: Any, calls: list[Call])",
            "    def remove(self, aws: Any)",
            ": remove of SCENARIO does not take what it is given: aws, calls; write it as",
        ),
        (
            "calls: list[Call], *, remove: bool",
            "calls: list[Call], *, delete: bool",
            ": orphans of SCENARIO does not take what it is given: aws, outputs, run_id, calls, remove; write it as",
        ),
        (
            "import math\n",
            "import maths\n",
            ", line 6, cannot be imported: ModuleNotFoundError: No module named 'maths'; ",
        ),
        (
            "import math\n",
            "import math)\n",
            ", line 6, cannot be imported: SyntaxError: unmatched ')'; correct that line.",
        ),
        (
            "MB: Final = 2**20\n",
            "MB: Final = 1 / 0\n",
            "cannot be imported: ZeroDivisionError: division by zero; correct",
        ),
    ],
)
def test_what_is_wrong_with_a_scenario_is_a_sentence(other: Path, old: str, new: str, said: str) -> None:
    assert GOOD.count(old) == 1
    (other / "scenario.py").write_text(GOOD.replace(old, new))
    assert call_scenarios() == ["another-one"]
    with pytest.raises(UsageError) as caught:
        call_scenario("another-one")
    assert said in str(caught.value)
    assert str(caught.value).startswith("scenarios/another_one/scenario.py")
    assert len(str(caught.value).splitlines()) == 1
    (other / "scenario.py").write_text(GOOD)
    assert type(call_scenario("another-one")).__name__ == "S3Ingest"


def test_the_line_is_that_of_the_scenario_also_when_what_it_calls_fails(other: Path) -> None:
    (other / "scenario.py").write_text("import json\n\n\nSCENARIO = json.loads('{')\n")
    with pytest.raises(UsageError, match=r"scenario\.py, line 4, cannot be imported: JSONDecodeError: "):
        call_scenario("another-one")


def test_a_scenario_without_its_python_can_be_brought_up_and_not_measured(call: Call, project: Path) -> None:
    scenarios = project / "scenarios"
    shutil.rmtree(scenarios)
    (scenarios / "bare").mkdir(parents=True)
    for name in ("template.yaml", "samconfig.toml"):
        shutil.copy(ROOT / "scenarios/s3_ingest" / name, scenarios / "bare")
    said = one_sentence(call("up", "bare", "--parameter", "Memory=1"))
    assert said.startswith("scenarios/bare/template.yaml has no parameter Memory; ")
    for command in ("run", "plan"):
        assert one_sentence(call(command, "bare")) == (
            "scenario bare has no scenario.py, which says how its functions are measured; "
            "write scenarios/bare/scenario.py as docs/add-a-scenario.md says."
        )


def test_a_broken_scenario_is_in_the_way_of_no_other(call: Call, project: Path) -> None:
    scenarios = project / "scenarios"
    shutil.rmtree(scenarios)
    shutil.copytree(ROOT / "scenarios/s3_ingest", scenarios / "broken", ignore=shutil.ignore_patterns(".aws-sam"))
    (scenarios / "broken/scenario.py").write_text("import nothing_of_the_kind\n")
    assert call("plan").code == 0
    ended = call("plan", "broken")
    assert ended.code == 2
    assert one_sentence(ended).startswith("scenarios/broken/scenario.py, line 1, cannot be imported: ModuleNotFound")


@pytest.mark.parametrize("command", ["run", "plan --function-prefix f"])
def test_the_scenario_of_the_folder_is_measured(call: Call, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir("scenarios/s3_ingest")
    said = one_sentence(call(*command.split()))
    assert said == "no local stack is up; start one with `lambdalab up`, or add --up to a run."
    said = one_sentence(call("run", "ingest"))
    assert said == "no local stack is up; start one with `lambdalab up ingest`, or add --up to a run."


def test_the_scenario_of_the_folder_is_brought_up_and_destroyed(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("scenarios/s3_ingest")
    assert "scenarios/s3_ingest/template.yaml has no parameter X;" in one_sentence(call("up", "--parameter", "X=1"))
    assert one_sentence(call("up", "ingest", "--parameter", "X=1")).startswith("template.yaml has no parameter X;")
