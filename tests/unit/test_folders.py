"""Commands in another folder than the project's: where runs are found and written."""

from argparse import ArgumentParser
from pathlib import Path

import pytest
from command_line import Call, call_fixture, one_sentence, project_fixture  # noqa: F401
from samples import RUN_ID, make_lines, make_manifest, make_results

from lambdalab.load.arguments import add_arguments
from lambdalab.project import results_folder
from lambdalab.records.trial_files import RunDirectory


@pytest.fixture
def below(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder below a project that has a run; commands are called from there."""
    manifest = make_manifest()
    store = RunDirectory.create(project / "results", manifest)
    for result in make_results(manifest):
        store.append_trial(result)
        store.append_log_lines(make_lines(result))
    folder = project / "a folder" / "of é"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def test_a_run_is_found_from_a_folder_below_the_project(call: Call, below: Path) -> None:
    reported = call("report", "latest")
    assert reported.code == 0, reported.err
    assert f"files: ../../results/{RUN_ID}\n" in reported.out
    assert call("report", RUN_ID).code == 0
    assert call("query", "select count(*) as n from runs").out == "n\n1\n"
    assert f"run {RUN_ID}" not in call("plan").err
    for command in (["compare", "latest"], ["run", "--resume", "latest"], ["sweep", "--resume", "latest"]):
        assert "is not a run directory" not in call(*command).err, command
    assert list(below.iterdir()) == []


def test_a_folder_of_results_that_is_typed_is_of_the_current_folder(call: Call, below: Path) -> None:
    ended = call("report", "latest", "--results", "results")
    assert one_sentence(ended) == "results/latest is not a run directory; measure one with `lambdalab run`."
    assert call("report", "latest", "--results", "../../results").code == 0


def test_a_load_run_goes_to_the_projects_results(below: Path) -> None:
    parser = ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args([]).results == "../../results"


def test_without_a_project_results_are_of_the_current_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert results_folder() == Path("results")
