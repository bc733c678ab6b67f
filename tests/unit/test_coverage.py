"""docs/coverage.md has one row for every requirement, and the tests and commands that its rows name exist."""

import ast
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple

import pytest
import typer
from sam_template import ROOT, template, template_folders

from lambdalab.cli import app as cli_app
from lambdalab.project import scenario_folders

PAGE: Final = (ROOT / "docs" / "coverage.md").read_text()
EVERYTHING: Final = "Every scenario"
REQUIRED: Final = {
    EVERYTHING: {"X": 4},
    "ingest": {"D": 25, "DD": 18, "DM": 10},
    "s3-ingest": {"S": 31, "SD": 17, "SM": 8},
}
"""Number of requirements of each section of the page, by the prefix of their ids. A new scenario adds its own here."""
SHOWN: Final = ("Built", "Otherwise", "In part")
NOT_SHOWN: Final = ("Not built", "Not shown")
"""How the third cell of a row begins. A row of the second kind, or of the first without more to say, has a reason."""


class Row(NamedTuple):
    """One requirement as the page has it."""

    id: str
    asked: str
    here: str
    shown_by: str


def sections(page: str) -> dict[str, list[Row]]:
    """The rows of each section, by its title without backticks."""
    found: dict[str, list[Row]] = {}
    for text in page.split("\n## ")[1:]:
        title, _, body = text.partition("\n")
        rows = re.findall(r"^\| ([A-Z]+\d+) \| (.*?) \| (.*?) \| (.*?) \|$", body, re.MULTILINE)
        found[title.partition(":")[0].strip("`")] = [Row(*row) for row in rows]
    return found


def scenarios() -> set[str]:
    """Every scenario the project has: of a template, of a protocol, or of a folder of its own."""
    deployed = {template(folder)["Outputs"]["Scenario"]["Value"] for folder in template_folders()}
    protocols = [file for folder in template_folders() for file in folder.glob("protocols/*.toml")]
    measured = {tomllib.loads(file.read_text())["scenario"] for file in protocols}
    return deployed | measured | scenario_folders().keys()


@cache
def python_tests(file: str) -> set[str]:
    """Names of the test functions of a file."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, functions)}


def is_command(words: list[str]) -> bool:
    """True if a command line of lambdalab begins with a command that exists and has only options that exist."""
    cli_app.load_commands()
    command: Any = typer.main.get_command(cli_app.app)
    for word in words:
        if subcommands := getattr(command, "commands", None):
            if word not in subcommands:
                return False
            command = subcommands[word]
        elif word.startswith("-") and not any(word in parameter.opts for parameter in command.params):
            return False
    return bool(words)


def exists(name: str) -> bool:
    """True if a test or a command of the page is there. Anything else that stands among them is not."""
    file, _, function = name.partition("::")
    if function:
        if not file.startswith(("tests/", "src/go/", "scenarios/")) or not (ROOT / file).is_file():
            return False
        if file.endswith("_test.go"):
            return function.startswith("Test") and f"\nfunc {function}(" in (ROOT / file).read_text()
        return function.startswith("test_") and function in python_tests(file)
    program, *words = shlex.split(name)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return bool(words) and set(words) <= set(targets)
    if program == "python" and words[:1] == ["-m"]:
        return (ROOT / f"{words[1].replace('.', '/')}.py").is_file()
    return program == "lambdalab" and is_command(words)


def faults(page: str) -> Iterator[str]:
    """What is wrong with the page."""
    found = sections(page)
    for title, required in REQUIRED.items():
        expected = [f"{prefix}{number}" for prefix, count in required.items() for number in range(1, count + 1)]
        rows = [row.id for row in found.get(title, [])]
        if rows != expected:
            wrong = sorted(set(expected) ^ set(rows)) or sorted({row for row in rows if rows.count(row) > 1})
            yield f"section {title} has not one row in order for each id: {', '.join(wrong) or 'another order'}"
    for row in (row for rows in found.values() for row in rows):
        status = next((word for word in (*SHOWN, *NOT_SHOWN) if re.match(rf"{word}\b", row.here)), None)
        names = re.findall(r"`([^`]+)`", row.shown_by)
        if status is None:
            yield f"{row.id} says none of {', '.join((*SHOWN, *NOT_SHOWN))}"
        elif status != "Built" and len(row.here) < len(status) + 20:
            yield f"{row.id} gives no reason"
        if row.shown_by != (", ".join(f"`{name}`" for name in names) or "-"):
            yield f"{row.id} names more than tests and commands: {row.shown_by}"
        if bool(names) is not (status in SHOWN):
            yield f"{row.id} is {status} and names {len(names)} tests or commands"
        yield from (f"{row.id} names {name}, which does not exist" for name in names if not exists(name))


def test_every_requirement_has_a_row_and_every_name_in_it_exists() -> None:
    assert list(faults(PAGE)) == []


def test_every_scenario_of_the_project_has_its_rows() -> None:
    assert REQUIRED.keys() - {EVERYTHING} == scenarios()
    assert sections(PAGE).keys() == REQUIRED.keys()


FAULTS: dict[str, tuple[Callable[[str], str], str]] = {
    "missing row": (lambda page: re.sub(r"\n\| D7 \|.*", "", page), "section ingest has not one row .*: D7$"),
    "missing last row": (lambda page: re.sub(r"\n\| SD17 \|.*", "", page), "section s3-ingest .*: SD17$"),
    "row twice": (lambda page: re.sub(r"(\n\| S3 \|.*)", r"\1\1", page), "section s3-ingest .*: S3$"),
    "unknown row": (lambda page: page.replace("| X4 |", "| X4 | a | Built. | `make test` |\n| X5 |"), ".*: X5$"),
    "row elsewhere": (lambda page: page.replace("## `s3-ingest`", "## S3"), "section s3-ingest has not"),
    "dead test": (
        lambda page: page.replace("::test_the_role_allows_exactly", "::test_the_role_allows_nearly"),
        "D6 names tests/unit/test_template.py::test_the_role_allows_nearly.*, which does not exist",
    ),
    "dead file": (lambda page: page.replace("tests/local/test_mapping.py", "tests/local/test_maps.py"), "X2 names"),
    "dead test of Go": (lambda page: page.replace("::TestScenarios`", "::TestScenario`"), "D10 names .*_test.go::Test"),
    "dead command": (lambda page: page.replace("`lambdalab cells", "`lambdalab cell"), ".* names lambdalab cell "),
    "dead option": (lambda page: page.replace("--function-prefix", "--name-prefix"), ".* names .*--name-prefix"),
    "dead target": (lambda page: page.replace("`make bench`", "`make benches`"), ".* names make benches"),
    "a file alone": (lambda page: page.replace("`make bench`", "`docs/cli.md`"), ".* names docs/cli.md"),
    "prose among names": (lambda page: page.replace("`make bench`", "make bench"), ".* names more than"),
    "no status": (lambda page: page.replace("| Built. |", "| Perhaps. |", 1), "X2 says none of Built"),
    "no reason": (lambda page: re.sub(r"\| In part: [^|]*", "| In part. ", page, count=1), "X3 gives no reason"),
    "nothing named": (lambda page: re.sub(r"(\n\| D8 .*\| )`.*` \|", r"\1- |", page), "D8 is Built and names 0"),
    "named, not built": (
        lambda page: page.replace("| Built. |", "| Not built: the reason would be here |", 1),
        "X2 is Not built and names 7",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_page_is_found(fault: str) -> None:
    change, said = FAULTS[fault]
    changed = change(PAGE)
    assert changed != PAGE
    assert [found for found in faults(changed) if re.match(said, found)]
