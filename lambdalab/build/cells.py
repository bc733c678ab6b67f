"""A function for every cell: copies of a template's functions, each with the settings of one cell, added to its stack.

For those who measure functions of fixed settings, which they find by the beginning of their names. Levels travel as
data: in a copy's configuration, environment and tags. A name is made of them and never read.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import msgspec
from botocore.exceptions import ClientError

from lambdalab.aws.clients import UNRESERVED_FLOOR, Aws, access_errors, most_reservable
from lambdalab.design.cells import LANGUAGE, MEMORY_MB, RESERVED_CONCURRENCY, Cell, Design, Level
from lambdalab.errors import StackError, UsageError
from lambdalab.settings_file import choose, read

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A function's (Lambda, CreateFunction)."""
_DESIGN: Final = "design"


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The function of a language: its logical id in the template, and what follows the name of its copies."""

    resource: str
    suffix: str = ""


class NamedDesign(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cells of one kind of work; ``name`` is that of their functions, with ``{factor}`` where a level stands."""

    label: str
    name: str
    factors: dict[str, tuple[Level, ...]]
    settings: dict[str, Level] = {}


class CellsFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cells file. ``scenario`` is the one whose template has the functions."""

    scenario: str
    functions: dict[str, Source]
    designs: tuple[NamedDesign, ...]


class CellFunction(msgspec.Struct, frozen=True, kw_only=True):
    """The function of one cell. ``reserved_concurrency`` 0: none."""

    function_name: str
    resource: str
    cell: Cell
    settings: dict[str, Level]

    @property
    def reserved_concurrency(self) -> int:
        return self.cell.reserved_concurrency or 0

    @property
    def logical_id(self) -> str:
        return "Cell" + re.sub(r"[^A-Za-z0-9]", "", self.function_name.title())


def load_cells(path: Path) -> CellsFile:
    """Reads a cells file.

    Raises:
        UsageError: it cannot be read, or what it says cannot be deployed.
    """
    file = read(path, CellsFile, UsageError)
    for design in file.designs:
        where = f"{path}: design {design.label}"
        if LANGUAGE not in design.factors:
            raise UsageError(f"{where} has no factor {LANGUAGE}", next_step=f"add it: {', '.join(file.functions)}")
        for factor, levels in design.factors.items():
            for level in levels:
                _check_level(where, factor, level, file.functions)
        for factor in re.findall(r"\{(\w*)\}", design.name):
            if factor not in design.factors:
                raise UsageError(
                    f"{where} has no factor {factor!r} for its name", next_step=choose(factor, design.factors)
                )
    seen: dict[str, str] = {}
    for function in _functions(file):
        name = function.function_name
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{path}: {name} is no function's name", next_step="use at most 64 letters, digits, - and _"
            )
        if function.logical_id in seen:
            raise UsageError(
                f"{path}: cell {function.cell.name} would be named {name}, like {seen[function.logical_id]}",
                next_step="put every factor into the name, and the language by a suffix",
            )
        seen[function.logical_id] = function.cell.name
    return file


def choose_cells(file: CellsFile, only: Mapping[str, Collection[str]]) -> list[CellFunction]:
    """The functions of those cells that have one of the levels of every factor in ``only``; ``design`` is one too.

    Raises:
        UsageError: a factor or level is not in the file, or no cell has them all.
    """
    found = _functions(file)
    known: dict[str, list[str]] = {}
    for function in found:
        for factor, level in _levels(function).items():
            known.setdefault(factor, [])
            if level not in known[factor]:
                known[factor].append(level)
    for factor, levels in only.items():
        if factor not in known:
            raise UsageError(f"no design has a factor {factor!r}", next_step=choose(factor, known))
        for level in levels:
            if level not in known[factor]:
                raise UsageError(f"{factor} has no level {level!r}", next_step=choose(level, known[factor]))
    chosen = [f for f in found if all(_levels(f).get(factor) in levels for factor, levels in only.items())]
    if not chosen:
        named = ", ".join(f"{factor}={','.join(levels)}" for factor, levels in only.items())
        raise UsageError(f"no cell has {named}", next_step="choose factors of one design")
    return chosen


def add_cells(template: dict[str, Any], functions: Sequence[CellFunction]) -> dict[str, Any]:
    """A template with a function for every cell, beside all it has.

    Args:
        template: with long functions such as ``{"Ref": ...}``, as ``sam build`` writes it.
        functions: of which copies are made of the functions they name.

    Raises:
        UsageError: the template lacks such a function, or its function has no such setting.
    """
    resources = dict(template["Resources"])
    everywhere = template.get("Globals", {}).get("Function", {}).get("Environment", {}).get("Variables", {})
    for function in functions:
        if function.resource not in template["Resources"]:
            raise UsageError(
                f"the template has no function {function.resource}", next_step=choose(function.resource, resources)
            )
        copy = deepcopy(template["Resources"][function.resource])
        properties = copy["Properties"]
        variables = properties.setdefault("Environment", {}).setdefault("Variables", {})
        levels = function.settings | function.cell.levels
        wanted = {name.upper(): str(level) for name, level in levels.items() if name not in (LANGUAGE, MEMORY_MB)}
        for name in wanted:
            if name not in everywhere and name not in variables:
                raise UsageError(
                    f"{function.resource} has no variable {name} for {name.lower()}",
                    next_step=choose(name, {**everywhere, **variables}),
                )
        variables.update(wanted)
        reserved: object = function.reserved_concurrency or {"Ref": "AWS::NoValue"}
        properties |= {"FunctionName": function.function_name, "ReservedConcurrentExecutions": reserved}
        if function.cell.memory_mb is not None:
            properties["MemorySize"] = function.cell.memory_mb
        tags = {_DESIGN: function.cell.design, **{name: str(level) for name, level in levels.items()}}
        properties["Tags"] = properties.get("Tags", {}) | tags
        copy.setdefault("Metadata", {})["SamResourceId"] = function.logical_id
        resources[function.logical_id] = copy
    return template | {"Resources": resources}


def reservable(aws: Aws, functions: Sequence[CellFunction]) -> int:
    """How many environments the account has left to reserve for these functions, with what they have by now.

    Raises:
        AccessError: it cannot be asked for.
    """
    with access_errors("the account's Lambda settings"):
        unreserved = aws.lambda_.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    held = 0
    for function in functions:
        with access_errors(f"function {function.function_name}"):
            try:
                found = aws.lambda_.get_function_concurrency(FunctionName=function.function_name)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != "ResourceNotFoundException":
                    raise
            else:
                held += found.get("ReservedConcurrentExecutions", 0)
    return most_reservable(unreserved, held)


def reserve(aws: Aws, functions: Sequence[CellFunction]) -> None:
    """Reserves what the cells say where CloudFormation is the emulator's, which drops that of a template.

    Raises:
        AccessError: the plane refuses.
    """
    for function in functions:
        if function.reserved_concurrency:
            with access_errors(f"function {function.function_name}"):
                aws.lambda_.put_function_concurrency(
                    FunctionName=function.function_name,
                    ReservedConcurrentExecutions=function.reserved_concurrency,
                )


def check_reservation(functions: Sequence[CellFunction], there: int) -> None:
    """Refuses what AWS would refuse in the middle of the deployment.

    Raises:
        StackError: the functions would reserve more than there is to reserve.
    """
    wanted = sum(function.reserved_concurrency for function in functions)
    if wanted > there:
        raise StackError(
            f"these {len(functions)} functions reserve {wanted:,} environments, and the account has {there:,} left to "
            f"reserve, since {UNRESERVED_FLOOR} must stay unreserved: AWS would refuse them, so nothing was deployed",
            next_step=f"choose fewer cells with --only, lower the levels of {RESERVED_CONCURRENCY}, or ask for a "
            "higher quota (Lambda, Concurrent executions)",
        )


def _functions(file: CellsFile) -> list[CellFunction]:
    found = []
    for design in file.designs:
        for cell in Design(label=design.label, invocations=1, factors=design.factors).cells:
            source = file.functions[cell.language]
            name = re.sub(r"\{(\w+)\}", lambda factor, cell=cell: str(cell.levels[factor[1]]), design.name)  # type: ignore[misc]
            found.append(
                CellFunction(
                    function_name=name + source.suffix, resource=source.resource, cell=cell, settings=design.settings
                )
            )
    return found


def _levels(function: CellFunction) -> dict[str, str]:
    return {_DESIGN: function.cell.design, **{name: str(level) for name, level in function.cell.levels.items()}}


def _check_level(where: str, factor: str, level: Level, languages: Collection[str]) -> None:
    if factor == LANGUAGE:
        if level not in languages:
            raise UsageError(
                f"{where}: there is no function of language {level!r}", next_step=choose(str(level), languages)
            )
        return
    limits = {MEMORY_MB: (128, 10_240), RESERVED_CONCURRENCY: (0, 99_999)}  # Lambda's, and the template's
    if factor in limits:
        low, high = limits[factor]
        if not isinstance(level, int) or not low <= level <= high:
            raise UsageError(f"{where}: {factor} is {level!r}", next_step=f"use a whole number from {low} to {high}")
