"""Filter criteria of a queue's event source mapping: which message bodies reach the function.

Sources: AWS Lambda Developer Guide, "Control which events Lambda sends to your function" and "Using event filtering
with an Amazon SQS event source"; the rules inside a pattern are Amazon EventBridge's, with its view of arrays: one
element that matches is enough.
"""

import json
import operator
from collections.abc import Callable, Iterable
from typing import Any, Final

from lambdalab.errors import PlaneError

Body = Callable[[str], bool]
Rule = Callable[[Any], bool]
MISSING: Final = object()
COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def body_filter(patterns: Iterable[str]) -> Body:
    """Whether a message body passes: one pattern that matches is enough, and no patterns pass everything.

    Raises:
        PlaneError: a pattern is not one for ``body``, or holds a rule that does not exist.
    """
    compiled = [_pattern(pattern) for pattern in patterns]

    def passes(body: str) -> bool:
        return not compiled or any(matches(body) for matches in compiled)

    return passes


def _pattern(text: str) -> Body:
    try:
        pattern = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _refused(f"a filter pattern is not JSON: {text!r}") from error
    if not isinstance(pattern, dict) or set(pattern) != {"body"}:
        raise _refused(f"a queue's filter has the one key body, this one is {text}")
    wanted = pattern["body"]
    if isinstance(wanted, dict):
        matches = _fields(wanted)
        return lambda body: (value := _json(body)) is not MISSING and matches(value)
    matches = _rules(wanted)
    return lambda body: _json(body) is MISSING and matches(body)


def _json(body: str) -> Any:
    """A body's value, or ``MISSING`` when it is plain text: a pattern for one form drops bodies of the other."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return MISSING


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _fields(pattern: dict[str, Any]) -> Rule:
    """All fields of an object must match; of ``$or`` one alternative must."""
    if not pattern:
        raise _refused("an object in a filter has no fields")
    checks: list[Callable[[dict[str, Any]], bool]] = [_field(name, wanted) for name, wanted in pattern.items()]

    def matches(value: Any) -> bool:
        objects = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]
        return any(all(check(item) for check in checks) for item in objects or [{}])

    return matches


def _field(name: str, wanted: Any) -> Callable[[dict[str, Any]], bool]:
    if name == "$or":
        if not isinstance(wanted, list) or len(wanted) < 2 or not all(isinstance(item, dict) for item in wanted):
            raise _refused("$or wants a list of two or more objects")
        alternatives = [_fields(item) for item in wanted]
        return lambda item: any(alternative(item) for alternative in alternatives)
    matches = _fields(wanted) if isinstance(wanted, dict) else _rules(wanted)
    return lambda item: matches(item.get(name, MISSING))


def _rules(wanted: Any) -> Rule:
    """A list of rules for one field: one of them must match."""
    if not isinstance(wanted, list) or not wanted:
        raise _refused(f"a field's rules are a list that is not empty, not {wanted!r}")
    absent = any(rule == {"exists": False} for rule in wanted)
    rules = [_rule(rule) for rule in wanted if rule != {"exists": False}]

    def matches(value: Any) -> bool:
        leaves = _leaves(value)
        return any(rule(leaf) for rule in rules for leaf in leaves) or (absent and not leaves)

    return matches


def _leaves(value: Any) -> list[Any]:
    """The plain values of a field. An object has none: its fields are fields of their own."""
    found, left = [], [value]
    while left:
        item = left.pop()
        if isinstance(item, list):
            left.extend(item)
        elif item is not MISSING and not isinstance(item, dict):
            found.append(item)
    return found


def _rule(rule: Any) -> Rule:
    if not isinstance(rule, dict):
        return _equals(rule)
    if len(rule) != 1:
        raise _refused(f"a rule has one key, this one is {rule}")
    ((name, argument),) = rule.items()
    match name, argument:
        case "prefix", str():
            return lambda value: isinstance(value, str) and value.startswith(argument)
        case "suffix", str():
            return lambda value: isinstance(value, str) and value.endswith(argument)
        case "equals-ignore-case", str():
            return lambda value: isinstance(value, str) and value.casefold() == argument.casefold()
        case "exists", True:
            return lambda _: True
        case "numeric", list():
            return _numeric(argument)
        case "anything-but", _:
            return _anything_but(argument)
    raise _refused(f"there is no such filter rule: {rule}")


def _equals(wanted: Any) -> Rule:
    if isinstance(wanted, list):
        raise _refused(f"a rule is a value or an object, not {wanted}")
    # True equals 1 in Python, but not in JSON.
    return lambda value: isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _anything_but(argument: Any) -> Rule:
    if isinstance(argument, dict):
        if not set(argument) <= {"prefix", "suffix", "equals-ignore-case"}:
            raise _refused(f"there is no such rule in anything-but: {argument}")
        refused = [_rule(argument)]
    elif argument == []:
        raise _refused("anything-but names no value")
    else:
        refused = [_equals(wanted) for wanted in (argument if isinstance(argument, list) else [argument])]
    return lambda value: not any(rule(value) for rule in refused)


def _numeric(argument: list[Any]) -> Rule:
    pairs = list(zip(argument[::2], argument[1::2], strict=False))
    if len(argument) not in (2, 4) or not all(
        isinstance(sign, str) and sign in COMPARISONS and _is_number(n) for sign, n in pairs
    ):
        raise _refused(f"numeric wants one or two comparisons such as '>', 0, not {argument}")
    return lambda value: _is_number(value) and all(COMPARISONS[sign](value, number) for sign, number in pairs)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refused(problem: str) -> PlaneError:
    return PlaneError(f"{problem}, which Lambda would refuse", next_step="correct FilterCriteria of the mapping")
