"""samconfig.toml as far as the lab needs it: the environments of ``sam`` for one scenario, read as sam reads them.

Source: AWS SAM Developer Guide, "AWS SAM CLI configuration file": a setting of a command is in the table
``[ENVIRONMENT.COMMAND.parameters]``, one of every command in ``[ENVIRONMENT.global.parameters]``.
"""

import reprlib
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from lambdalab.errors import LambdalabError, UsageError
from lambdalab.project import scenario_folders, shown
from lambdalab.settings_file import read_toml

FILE: Final = "samconfig.toml"
LOCAL: Final = "local"
"""The environment for the emulator."""
DEFAULT: Final = "default"
"""The environment of a sam that is not told which: that for AWS."""


def environments(folder: Path) -> list[str]:
    """The names of all environments of the scenario in a folder.

    Raises:
        UsageError: the file cannot be read, or is not TOML.
    """
    return [name for name, table in _read(folder).items() if isinstance(table, dict)]


def stack_name(folder: Path, environment: str) -> str:
    """The name of the stack that an environment deploys.

    Raises:
        UsageError: the file is damaged, or names none.
    """
    return _text(folder, environment, "deploy", "stack_name")


def build_dir(folder: Path, environment: str) -> Path:
    """The folder that an environment builds into."""
    return folder / _text(folder, environment, "build", "build_dir", ".aws-sam/build")


def region_of(stack: str) -> str | None:
    """The region to which a scenario's environment deploys a stack of this name on AWS; None if none states one."""
    with suppress(LambdalabError):  # it is a default only
        for folder in scenario_folders().values():
            with suppress(LambdalabError):
                for environment in environments(folder):
                    if environment != LOCAL and _text(folder, environment, "deploy", "stack_name", "") == stack:
                        return _text(folder, environment, "deploy", "region", "") or None
    return None


def parameter_overrides(folder: Path, environment: str) -> dict[str, str]:
    """The template parameters that an environment states, by name.

    Raises:
        UsageError: the file is damaged, or the setting is something else than pairs of KEY=VALUE.
    """
    return _pairs(folder, environment, "parameter_overrides")


def tags(folder: Path, environment: str) -> dict[str, str]:
    """The tags of the stack that an environment deploys.

    Raises:
        UsageError: the file is damaged, or the setting is something else than pairs of KEY=VALUE.
    """
    return _pairs(folder, environment, "tags")


def _pairs(folder: Path, environment: str, key: str) -> dict[str, str]:
    found = _setting(folder, environment, "deploy", key, [])
    try:
        pairs = shlex.split(found) if isinstance(found, str) else found
        return {name: value.strip('"') for name, value in (pair.split("=", 1) for pair in pairs)}
    except (AttributeError, TypeError, ValueError):  # no list, or of something else than pairs
        raise UsageError(
            f"{shown(folder / FILE)}: {key} of {environment} is {reprlib.repr(found)}",
            next_step="write a list of 'KEY=VALUE'",
        ) from None


def _text(folder: Path, environment: str, command: str, key: str, default: str | None = None) -> str:
    found = _setting(folder, environment, command, key, default)
    if found is None:
        raise UsageError(
            f"{shown(folder / FILE)}: {environment} has no {key}",
            next_step=f"add it to [{environment}.global.parameters]",
        )
    if not isinstance(found, str):
        raise UsageError(
            f"{shown(folder / FILE)}: {key} of {environment} is {reprlib.repr(found)}",
            next_step="write a text in quotes",
        )
    return found


def _setting(folder: Path, environment: str, command: str, key: str, default: Any) -> Any:
    """A setting of a command, else of every command."""
    inside = _read(folder)
    for name in (command, "global"):
        section = inside
        for depth in (environment, f"{environment}.{name}", f"{environment}.{name}.parameters"):
            section = section.get(depth.rpartition(".")[2], {})
            if not isinstance(section, dict):
                raise UsageError(
                    f"{shown(folder / FILE)}: {depth} is {reprlib.repr(section)}",
                    next_step=f"write a table, [{depth}]",
                )
        if key in section:
            return section[key]
    return default


def _read(folder: Path) -> dict[str, Any]:
    return read_toml(folder / FILE, UsageError)
