"""A fingerprint of what is deployed, so that the plane need not read it all each second to see that nothing changed.

Reading a stack of two functions through the AWS API takes about 60 ms of CPU time, here and in the plane.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

_STACK_DETAILS = ("StackStatus", "LastUpdatedTime", "Parameters", "Outputs")


def fingerprint(modules: Mapping[str, Any] = sys.modules) -> str | None:
    """Of all functions, event source mappings and stacks; None where this emulator keeps them in another way.

    Args:
        modules: the emulator's modules by name. It imports a service with its first request, so one that is missing
            holds nothing yet.
    """
    try:
        kept = [*_functions(modules), *_stacks(modules)]
    except (AttributeError, KeyError, TypeError):
        return None
    return hashlib.sha256(repr(kept).encode()).hexdigest()


def _functions(modules: Mapping[str, Any]) -> Iterator[object]:
    module = modules.get("ministack.services.lambda_svc")
    if module is not None:
        for key, function in list(module._functions._data.items()):
            # A configuration has an id of its revision; what follows it does not change that.
            yield key, function["config"], function["concurrency"]
            yield function["event_invoke_config"], function["event_invoke_configs"]
        yield from list(module._esms._data.items())


def _stacks(modules: Mapping[str, Any]) -> Iterator[object]:
    module = modules.get("ministack.services.cloudformation")
    if module is not None:
        for key, stack in list(module._stacks._data.items()):
            yield key, [stack.get(detail) for detail in _STACK_DETAILS], list(stack["_resources"])
