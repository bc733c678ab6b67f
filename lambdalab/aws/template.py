"""The templates as far as the lab needs them: their parameters, with defaults and limits."""

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Any, Final, Required, TypedDict

import msgspec
import yaml

from lambdalab.aws.clients import Aws
from lambdalab.errors import UsageError
from lambdalab.project import TEMPLATE, shown

_TOGETHER: Final = {
    "Timeout", "VisibilityTimeout", "BudgetUsd", "BudgetEmail", "ReservedConcurrency", "MaximumConcurrency"
}  # fmt: skip
"""Parameters that limit each other where a template has them all."""


class _Parameter(TypedDict, total=False):
    """What the lab reads of a parameter."""

    Type: Required[str]
    Default: str | int | float | bool
    AllowedValues: list[str | int | float | bool]
    AllowedPattern: str
    MinValue: int | float | str
    MaxValue: int | float | str
    ConstraintDescription: str


def parameter_default(folder: Path, name: str) -> str:
    """The value that a parameter of the template in a folder has on AWS when nobody sets it."""
    parameters = _parameters(folder)
    if "Default" not in parameters.get(name, {}):
        raise UsageError(f"{shown(folder / TEMPLATE)} has no parameter {name} with a default", next_step="add it")
    return str(parameters[name]["Default"])


def read_template(text: str, name: str) -> dict[str, Any]:
    """A template in YAML or JSON; short functions such as ``!Ref`` become what they are given.

    Raises:
        UsageError: it is not YAML, or no template. ``name`` says which one.
    """
    try:
        template = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as problem:  # ValueError: a date or number that is none
        said = " ".join(str(problem).split())
        raise UsageError(f"{name} is not YAML: {said}", next_step="correct that place") from problem
    if not isinstance(template, dict):
        raise UsageError(f"{name} is no template: it holds no keys", next_step="write Resources and their properties")
    return template


def processed_template(aws: Aws, stack_name: str) -> dict[str, Any]:
    """A deployed stack's template after transforms, so without SAM's own types.

    Raises:
        botocore.exceptions.BotoCoreError, ClientError: it cannot be read (``access_errors``).
    """
    body: Any = aws.cloudformation.get_template(StackName=stack_name, TemplateStage="Processed")["TemplateBody"]
    return read_template(body, f"the template of stack {stack_name}") if isinstance(body, str) else body or {}


def check_parameters(folder: Path, values: dict[str, str]) -> None:
    """Refuses what AWS and the emulator would refuse, before anything is built and in one sentence.

    Args:
        folder: of the template.
        values: of its parameters.

    Raises:
        UsageError: a parameter is unknown, its value is outside the template's limits, or two do not go together.
    """
    parameters, template = _parameters(folder), shown(folder / TEMPLATE)
    for name, value in values.items():
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1)
            known = f"perhaps {near[0]} is meant" if near else f"it has {', '.join(sorted(parameters)) or 'none'}"
            raise UsageError(f"{template} has no parameter {name}", next_step=f"name one of its own: {known}")
        if not _allowed(parameters[name], value):
            rule = parameters[name].get("ConstraintDescription", f"see {template}")
            raise UsageError(f"{name}={value} is not allowed by {template}", next_step=f"it {rule}")
    together = {name: str(parameter.get("Default", "")) for name, parameter in parameters.items()} | values
    if not _TOGETHER.issubset(together):
        return
    timeout_s, visibility_s = together["Timeout"], together["VisibilityTimeout"]
    if timeout_s.isdecimal() and visibility_s.isdecimal() and int(visibility_s) < int(timeout_s):
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


def _allowed(parameter: _Parameter, value: str) -> bool:
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
def _parameters(folder: Path) -> dict[str, _Parameter]:
    """The parameters of the template in a folder. Their limits have been checked."""
    path = folder / TEMPLATE
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}", next_step="check the path") from problem
    except ValueError as problem:
        raise UsageError(f"{path} is not YAML: {problem}", next_step="correct that place") from problem
    try:
        found = msgspec.convert(read_template(content, str(path)).get("Parameters") or {}, dict[str, _Parameter])
    except msgspec.ValidationError as problem:
        raise UsageError(f"{path}: Parameters are wrong: {problem}", next_step="correct that place") from problem
    for name, parameter in found.items():
        try:
            re.compile(parameter.get("AllowedPattern", ""))
            float(parameter.get("MinValue", 0)), float(parameter.get("MaxValue", 0))
        except (re.error, ValueError) as problem:
            raise UsageError(
                f"{path}: the limits of {name} are wrong: {problem}", next_step="correct them"
            ) from problem
    return found


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
