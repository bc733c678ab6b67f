"""samconfig.toml as far as the lab needs it: the environments of ``sam``, read as sam reads them.

Source: AWS SAM Developer Guide, "AWS SAM CLI configuration file": a setting of a command is in the table
``[ENVIRONMENT.COMMAND.parameters]``, one of every command in ``[ENVIRONMENT.global.parameters]``.
"""

import reprlib
import shlex
from typing import Any, Final

from lambdalab.errors import LambdalabError, UsageError
from lambdalab.project import project_root
from lambdalab.settings_file import read_toml

_FILE: Final = "samconfig.toml"


def environments() -> list[str]:
    """The names of all environments.

    Raises:
        UsageError: the file cannot be read, or is not TOML.
    """
    return [name for name, table in _read().items() if isinstance(table, dict)]


def stack_name(environment: str) -> str:
    """The name of the stack that an environment deploys.

    Raises:
        UsageError: the file is damaged, or names none.
    """
    return _text(environment, "deploy", "stack_name")


def template_file(environment: str) -> str:
    """The template that an environment builds, relative to the project's root; ``template.yaml`` by default."""
    return _text(environment, "build", "template_file", "template.yaml")


def build_dir(environment: str) -> str:
    """The folder that an environment builds into, relative to the project's root."""
    return _text(environment, "build", "build_dir", ".aws-sam/build")


def region_of(stack: str) -> str | None:
    """The region to which an environment deploys a stack of this name on AWS; None if no environment states one."""
    try:
        for environment in environments():
            if not environment.endswith("local") and _text(environment, "deploy", "stack_name", "") == stack:
                return _text(environment, "deploy", "region", "") or None
    except LambdalabError:  # it is a default only
        pass
    return None


def parameter_overrides(environment: str) -> dict[str, str]:
    """The template parameters that an environment states, by name.

    Raises:
        UsageError: the file is damaged, or the setting is something else than pairs of KEY=VALUE.
    """
    return _pairs(environment, "parameter_overrides")


def tags(environment: str) -> dict[str, str]:
    """The tags of the stack that an environment deploys.

    Raises:
        UsageError: the file is damaged, or the setting is something else than pairs of KEY=VALUE.
    """
    return _pairs(environment, "tags")


def _pairs(environment: str, key: str) -> dict[str, str]:
    found = _setting(environment, "deploy", key, [])
    try:
        pairs = shlex.split(found) if isinstance(found, str) else found
        return {name: value.strip('"') for name, value in (pair.split("=", 1) for pair in pairs)}
    except (AttributeError, TypeError, ValueError):  # no list, or of something else than pairs
        raise UsageError(
            f"{_FILE}: {key} of {environment} is {reprlib.repr(found)}", next_step="write a list of 'KEY=VALUE'"
        ) from None


def _text(environment: str, command: str, key: str, default: str | None = None) -> str:
    found = _setting(environment, command, key, default)
    if found is None:
        raise UsageError(
            f"{_FILE}: {environment} has no {key}", next_step=f"add it to [{environment}.global.parameters]"
        )
    if not isinstance(found, str):
        raise UsageError(
            f"{_FILE}: {key} of {environment} is {reprlib.repr(found)}", next_step="write a text in quotes"
        )
    return found


def _setting(environment: str, command: str, key: str, default: Any) -> Any:
    """A setting of a command, else of every command."""
    tables = _table(_read(), environment, environment)
    for name in (command, "global"):
        section = _table(
            _table(tables, name, f"{environment}.{name}"), "parameters", f"{environment}.{name}.parameters"
        )
        if key in section:
            return section[key]
    return default


def _table(inside: dict[str, Any], key: str, full_name: str) -> dict[str, Any]:
    found = inside.get(key, {})
    if not isinstance(found, dict):
        raise UsageError(f"{_FILE}: {full_name} is {reprlib.repr(found)}", next_step=f"write a table, [{full_name}]")
    return found


def _read() -> dict[str, Any]:
    return read_toml(project_root() / _FILE, UsageError)
