"""Reads the templates and samconfig.toml for the tests: CloudFormation's short tags as the long form they stand for."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]


class _Loader(yaml.SafeLoader):
    pass


def _long_form(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        raise yaml.constructor.ConstructorError(problem=f"!{tag} of a mapping", problem_mark=node.start_mark)
    if tag == "GetAtt":
        value = value.split(".", 1)
    return {tag if tag in {"Ref", "Condition"} else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _long_form)


@cache
def template(folder: Path = ROOT) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((folder / "template.yaml").read_text(), Loader=_Loader)  # noqa: S506
    return loaded


def template_folders() -> list[Path]:
    """The folder of every template of the project, the root's first."""
    return [ROOT, *(file.parent for file in sorted(ROOT.glob("scenarios/*/template.yaml")))]


def resource(logical_id: str) -> Any:
    return template()["Resources"][logical_id]


def properties(logical_id: str) -> Any:
    return resource(logical_id)["Properties"]


@cache
def samconfig(folder: Path = ROOT) -> dict[str, Any]:
    loaded = tomllib.loads((folder / "samconfig.toml").read_text())
    return {name: value for name, value in loaded.items() if name != "version"}


def overrides(environment: str, folder: Path = ROOT) -> dict[str, str]:
    stated = samconfig(folder)[environment]["global"]["parameters"]["parameter_overrides"]
    pairs = (entry.split("=", 1) for entry in stated)
    return {name: value.strip('"') for name, value in pairs}
