"""Functions that somebody deployed for each cell, found by the beginning of their names: a protocol of what is there.

Levels are read as data, from configuration, environment and tags (those of ``lambdalab cells``), never from a name.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from lambdalab.aws.clients import Aws, access_errors
from lambdalab.design.cells import (
    CALLERS,
    LANGUAGE,
    MEMORY_MB,
    RESERVED_CONCURRENCY,
    Design,
    FactorialProtocol,
    Level,
)
from lambdalab.errors import UsageError
from lambdalab.planning.call_protocol import check_protocol
from lambdalab.scenario.base import CallScenario

if TYPE_CHECKING:
    from mypy_boto3_lambda.type_defs import FunctionConfigurationTypeDef

_NAMED_AT_MOST: Final = 3


def discover(aws: Aws, scenario: CallScenario, protocol: FactorialProtocol, prefix: str) -> FactorialProtocol:
    """What a protocol asks, of the functions whose names begin so: each is a cell, or one for each level of callers.

    Blocks, calls of a cell, callers and caps are the protocol's; everything else is the functions'.

    Raises:
        UsageError: there is none, one lacks what is needed, or two are of the same levels.
        ProtocolError: levels that the scenario does not know.
        AccessError: they cannot be asked for.
    """
    with access_errors("the functions of the account"):
        pages = aws.lambda_.get_paginator("list_functions").paginate()
        found = [one for page in pages for one in page["Functions"] if one["FunctionName"].startswith(prefix)]
    if not found:
        raise UsageError(
            f"no function in {aws.lambda_.meta.region_name} has a name that begins with {prefix!r}",
            next_step="deploy some with `lambdalab cells FILE --deploy`, or write another --function-prefix",
        )
    by_label: dict[str, dict[str, dict[str, Level]]] = {}
    lacking: dict[str, str] = {}
    for one in sorted(found, key=lambda function: function["FunctionName"]):
        name = one["FunctionName"]
        label, levels = _levels(aws, scenario, one)
        if lacks := [what for what, level in levels.items() if level is None]:
            lacking[name] = " and ".join(lacks)
        else:
            known = {what: level for what, level in levels.items() if level is not None}
            by_label.setdefault(label, {})[name] = known
    if lacking:
        some = [f"{name} has no {what}" for name, what in list(lacking.items())[:_NAMED_AT_MOST]]
        more = f", and {len(lacking) - _NAMED_AT_MOST} more functions lack something" * (len(lacking) > _NAMED_AT_MOST)
        raise UsageError(
            f"{', '.join(some)}{more}",
            next_step="say it in a variable or a tag of the function, or write a --function-prefix without it",
        )
    for label, functions in by_label.items():
        of_settings = {tuple(levels): name for name, levels in functions.items()}
        if len(of_settings) > 1:
            earlier, later = list(of_settings.values())[:2]
            raise UsageError(
                f"{earlier} and {later} are both of design {label!r} and have different settings",
                next_step="give each workload a design of its own, by the tag design",
            )
    asked = {design.label: design for design in protocol.designs}
    for label, functions in by_label.items():
        if label not in asked:
            raise UsageError(
                f"{next(iter(functions))} is of design {label!r}, which protocol {protocol.name} has not",
                next_step=f"name a protocol that has it; this one has: {', '.join(asked)}",
            )
    designs = tuple(_design(asked[label], functions) for label, functions in by_label.items())
    whole = replace(protocol, designs=designs, function_prefix=prefix)
    check_protocol(whole, f"what was found of {prefix}*")
    return whole


def _levels(
    aws: Aws, scenario: CallScenario, function: "FunctionConfigurationTypeDef"
) -> tuple[str, Mapping[str, Level | None]]:
    """The design of a function and its levels; None of what it does not say."""
    name = function["FunctionName"]
    with access_errors(f"function {name}"):
        tags = aws.lambda_.list_tags(Resource=function["FunctionArn"])["Tags"]
        reserved: Any = aws.lambda_.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
    runtime = function.get("Runtime", "")
    language = tags.get(LANGUAGE) or next((known for known in scenario.languages if runtime.startswith(known)), None)
    label, settings = scenario.deployed(function.get("Environment", {}).get("Variables", {}), tags)
    of_lab = {LANGUAGE: language, MEMORY_MB: function["MemorySize"], RESERVED_CONCURRENCY: reserved or 0}
    return label, {**of_lab, **settings}


def _design(asked: Design, functions: Mapping[str, dict[str, Level]]) -> Design:
    """What all functions have in common is a setting, what they differ in a factor; that of the lab is one anyway."""
    names = list(dict.fromkeys(name for levels in functions.values() for name in levels))
    found = {name: tuple(sorted({levels[name] for levels in functions.values()}, key=_order)) for name in names}
    is_factor = {name: len(found[name]) > 1 or name in (LANGUAGE, MEMORY_MB, RESERVED_CONCURRENCY) for name in names}
    factors = {name: levels for name, levels in found.items() if is_factor[name]}
    of_cells = {name: {what: levels[what] for what in factors} for name, levels in functions.items()}
    seen: dict[tuple[Level, ...], str] = {}
    for name, levels in of_cells.items():
        if (other := seen.setdefault(tuple(levels.values()), name)) != name:
            raise UsageError(
                f"{other} and {name} have the same levels, so they are no two cells",
                next_step="write a longer --function-prefix, so that one is left out",
            )
    return replace(
        asked,
        factors={**factors, CALLERS: asked.factors.get(CALLERS, (1,))},
        settings={name: levels[0] for name, levels in found.items() if not is_factor[name]},
        fraction=1,
        functions=of_cells,
    )


def _order(level: Level) -> tuple[bool, Level]:
    """Numbers by size, before words."""
    return isinstance(level, str), level
