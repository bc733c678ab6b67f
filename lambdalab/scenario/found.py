"""The scenarios of a project by name, and the Python of those whose functions are called (docs/add-a-scenario.md).

A scenario is found by its folder. Its ``scenario.py`` is imported by path when it is first asked for; no module of the
lab names one.
"""

import inspect
import sys
import traceback
from collections.abc import Iterator
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

import msgspec

from lambdalab.errors import UsageError
from lambdalab.project import scenario_folder, scenario_folders, scenario_name, shown
from lambdalab.scenario.base import CallScenario
from lambdalab.settings_file import choose

FILE: Final = "scenario.py"
OBJECT: Final = "SCENARIO"
_GUIDE: Final = "docs/add-a-scenario.md"


def folder_of(name: str) -> Path:
    """The folder of a scenario.

    Raises:
        UsageError: there is none of that name.
    """
    known = scenario_folders()
    if name not in known:
        raise UsageError(f"there is no scenario {name!r}", next_step=choose(name, known))
    return known[name]


def current_scenario() -> str:
    """The name of the scenario that the current folder belongs to.

    Raises:
        SetupError: there is no project.
    """
    return scenario_name(scenario_folder())


def call_scenarios() -> list[str]:
    """The names of the scenarios whose functions are called: those that have a ``scenario.py``."""
    return [name for name, folder in scenario_folders().items() if (folder / FILE).is_file()]


def call_scenario(name: str) -> CallScenario:
    """The Python of a scenario whose functions are called, checked.

    Raises:
        UsageError: there is none of that name, its file cannot be imported, or it lacks something.
    """
    known = call_scenarios()
    if name not in known:
        raise UsageError(f"there is no scenario {name!r} whose functions are called", next_step=choose(name, known))
    return _load(folder_of(name) / FILE)


@cache
def _load(path: Path) -> CallScenario:
    module = _import(path)
    found: Any = getattr(module, OBJECT, None)
    if found is None:
        raise UsageError(
            f"{shown(path)} has no {OBJECT}", next_step=f"write `{OBJECT} = YourClass()` at its end ({_GUIDE})"
        )
    for fault in _faults(found):
        raise UsageError(f"{shown(path)}: {fault}", next_step=f"write it as {_GUIDE} says")
    scenario: CallScenario = found
    return scenario


class _Source(SourceFileLoader):
    """Compiles a file each time. Bytecode in ``__pycache__`` is taken for a file that changed within a second."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - the loader's interface
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def _import(path: Path) -> ModuleType:
    """Imports a file that no import statement can name.

    Raises:
        UsageError: it ends with an exception; its line and text are in the sentence.
    """
    loader = _Source(f"{FILE} of {path.parent}", str(path))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where msgspec and typing look up the names of a class's annotations
    try:
        loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        said = f"{type(error).__name__}: {' '.join(str(getattr(error, 'msg', error)).split())}"
        raise UsageError(
            f"{shown(path)}, line {_line(error, path)}, cannot be imported: {said}", next_step="correct that line"
        ) from error
    return module


def _line(error: Exception, path: Path) -> int:
    """The line of a file at which an import failed."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 1
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return next((line for line in reversed(lines) if line is not None), 1)


def _faults(found: Any) -> Iterator[str]:
    """What is wrong with a scenario's object beside ``CallScenario``, each in words."""
    for name in dir(found):
        if not name.startswith("_") and not hasattr(CallScenario, name):  # a slip of the pen would be left out unseen
            yield f"{OBJECT} has {name}, which is no member of a scenario: mend it, or begin it with an underscore"
    for name, kind in inspect.get_annotations(CallScenario).items():
        if not hasattr(found, name):
            yield f"{OBJECT} has no {name}"
            continue
        try:
            msgspec.convert(getattr(found, name), kind)
        except msgspec.ValidationError as error:
            yield f"{name} of {OBJECT} is {getattr(found, name)!r}, which is wrong: {error}"
    for name, method in inspect.getmembers(CallScenario, inspect.isfunction):
        if name.startswith("_"):
            continue
        own = getattr(found, name, None)
        if own is None:
            yield f"{OBJECT} has no {name}"
        elif not callable(own):
            yield f"{name} of {OBJECT} is {own!r}, not a method"
        elif not _takes(own, method):
            asked = ", ".join(_parameters(method))
            yield f"{name} of {OBJECT} does not take what it is given: {asked or 'nothing'}"


def _takes(own: Any, method: Any) -> bool:
    """Whether a method can be called with the parameters of another, those that are named there by their names."""
    asked = _parameters(method).values()
    by_place = [of.name for of in asked if of.kind is not of.KEYWORD_ONLY]
    by_name = {of.name: of.name for of in asked if of.kind is of.KEYWORD_ONLY}
    try:
        inspect.signature(own).bind(*by_place, **by_name)
    except (TypeError, ValueError):
        return False
    return True


def _parameters(method: Any) -> dict[str, inspect.Parameter]:
    """What a method of the protocol takes beside ``self``."""
    return dict(list(inspect.signature(method).parameters.items())[1:])
