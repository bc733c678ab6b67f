"""The templates as far as the lab needs them: their parameters, with defaults and limits."""

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lambdalab.errors import UsageError
from lambdalab.project import project_root


def parameter_default(name: str) -> str:
    """The value a parameter has on AWS when nobody sets it."""
    return str(_parameters(project_root())[name]["Default"])


def read_template(text: str) -> dict[str, Any]:
    """A template in YAML or JSON; short functions such as ``!Ref`` become what they are given."""
    template: dict[str, Any] = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    return template


def check_parameters(values: dict[str, str], template: str = "template.yaml") -> None:
    """Refuses what AWS and the emulator would refuse, before anything is built and in one sentence.

    Raises:
        UsageError: a parameter is unknown, its value is outside the template's limits, or two do not go together.
    """
    parameters = _parameters(project_root(), template)
    for name, value in values.items():
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1)
            known = f"perhaps {near[0]} is meant" if near else f"it has {', '.join(sorted(parameters))}"
            raise UsageError(f"{template} has no parameter {name}", next_step=f"name one of its own: {known}")
        if not _allowed(parameters[name], value):
            rule = parameters[name].get("ConstraintDescription", f"see {template}")
            raise UsageError(f"{name}={value} is not allowed by {template}", next_step=f"it {rule}")
    if template != "template.yaml":
        return
    together = {name: str(parameter["Default"]) for name, parameter in parameters.items()} | values
    timeout_s, visibility_s = together["Timeout"], together["VisibilityTimeout"]
    if int(visibility_s) < int(timeout_s):
        raise UsageError(
            f"VisibilityTimeout={visibility_s} is less than Timeout={timeout_s}, which Lambda refuses of a queue",
            next_step=f"set VisibilityTimeout={6 * int(timeout_s)}, six times Timeout, or lower Timeout",
        )
    if bool(together["BudgetUsd"]) != bool(together["BudgetEmail"]):
        raise UsageError(
            f"BudgetUsd={together['BudgetUsd']} and BudgetEmail={together['BudgetEmail']} do not go together",
            next_step="state both, or leave both empty",
        )
    if together["ReservedConcurrency"] == "1" and together["MaximumConcurrency"]:
        raise UsageError(
            f"MaximumConcurrency={together['MaximumConcurrency']} does not go with ReservedConcurrency=1: "
            "the queue would be throttled",
            next_step="leave one of them empty, for example ReservedConcurrency=",
        )


def _allowed(parameter: dict[str, Any], value: str) -> bool:
    if parameter["Type"] == "Number":
        if not re.fullmatch(r"\d+", value):
            return False
        low, high = parameter.get("MinValue", 0), parameter.get("MaxValue", float("inf"))
        if not float(low) <= int(value) <= float(high):
            return False
    if "AllowedValues" in parameter and value not in map(str, parameter["AllowedValues"]):
        return False
    return re.fullmatch(parameter.get("AllowedPattern", ".*"), value) is not None


@cache
def _parameters(root: Path, template: str = "template.yaml") -> dict[str, dict[str, Any]]:
    parameters: dict[str, dict[str, Any]] = read_template((root / template).read_text())["Parameters"]
    return parameters


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short tags, whose meaning is not needed here."""


def _ignore_tag(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    match node:
        case yaml.ScalarNode():
            return loader.construct_scalar(node)
        case yaml.SequenceNode():
            return loader.construct_sequence(node)
        case yaml.MappingNode():
            return loader.construct_mapping(node)


_Loader.add_multi_constructor("!", _ignore_tag)
