"""What the lab imports is what pyproject.toml declares, and nothing that it declares is unused."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import Final

from samples import ROOT

ELSEWHERE: Final = {"awslambdaric", "ministack", "uvicorn", "backlog", "deployments", "overlay"}
"""Installed where functions or the emulator run, or beside the emulator's program."""
PROGRAMS: Final = {"uv"}


def test_imports_and_declared_dependencies_are_the_same() -> None:
    imported: set[str] = set()
    for path in (ROOT / "lambdalab").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0] for name in node.names}
    imported -= {*sys.stdlib_module_names, *ELSEWHERE, "lambdalab"}
    imported = {name for name in imported if not name.startswith("mypy_boto3_")}  # types only
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {name.partition(">")[0] for name in project["dependencies"]} - PROGRAMS
    found = packages_distributions()
    assert {found[name][0].lower() for name in imported} == declared
