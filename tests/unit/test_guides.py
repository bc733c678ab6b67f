"""What README, CITATION.cff and the guide to faults must say, checked against the project."""

import tomllib

import pytest
import yaml
from samples import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TABLE = (ROOT / "docs" / "operations.md").read_text().split("\n## When something is wrong\n")[1].split("\n## ")[0]


def test_a_citation_names_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert citation["title"]
    assert citation["authors"]
    assert "(CITATION.cff)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "seen",
    [
        "Runtime.HandlerNotFound",
        "Runtime.ImportModuleError",
        "Runtime.InvalidEntrypoint",
        "exec format error",
        "AccessDeniedException",
        "the event source mapping is refused",
        "were there already",
    ],
)
def test_the_guide_has_a_line_for_every_fault_of_the_study(seen: str) -> None:
    (line,) = (line for line in TABLE.splitlines() if seen in line.split(" | ")[0])
    _, means, remedy = line.strip("| ").split(" | ")
    assert means
    assert remedy
