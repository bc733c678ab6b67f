"""The scenarios whose functions are called: one module each, found by being here (docs/add-a-scenario.md)."""

import pkgutil
from functools import cache
from importlib import import_module

from lambdalab.errors import UsageError
from lambdalab.factorial.scenario import CallScenario
from lambdalab.settings_file import choose


@cache
def call_scenarios() -> dict[str, CallScenario]:
    """All of them by name."""
    modules = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return {module.SCENARIO.name: module.SCENARIO for module in modules}


def call_scenario(name: str) -> CallScenario:
    """One of them.

    Raises:
        UsageError: there is none of that name.
    """
    known = call_scenarios()
    if name not in known:
        raise UsageError(f"there is no scenario {name!r} whose functions are called", next_step=choose(name, known))
    return known[name]
