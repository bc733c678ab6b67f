"""The work message: parsing and validation. contracts/cases.json holds the cases that Python and Go both pass."""

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from errors import IngestError, printable

MAX_SIZE_BYTES = 400_000  # DynamoDB's limit is 409,600 bytes with names and keys
MAX_COUNT = 4096
MAX_BATCH_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 32

_FIELDS = ("batch_id", "size_bytes", "count", "label", "mode")
_WORD = re.compile(r"[A-Za-z0-9._:-]+")
_MODES = ("sequential", "concurrent", "batch")


@dataclass(frozen=True, slots=True)
class Message:
    """One accepted message, defaults filled in."""

    batch_id: str
    size_bytes: int
    count: int
    label: str
    mode: str


def parse_text(body: str) -> Message:
    """Parse the body of an SQS message."""
    try:
        value = json.loads(
            body, object_pairs_hook=_unique_keys, parse_int=_bounded_int, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        raise _invalid_json() from None
    return parse_value(value)


def parse_value(value: object) -> Message:
    """Parse a direct event, which the Lambda runtime has already read: duplicate keys cannot be seen any more."""
    if not _is_sound(value, MAX_DEPTH):
        raise _invalid_json()
    if not isinstance(value, dict):
        raise IngestError("InvalidMessage", "message must be a JSON object")
    unknown = value.keys() - _FIELDS
    if unknown:
        name = printable(min(unknown))
        known = ", ".join(_FIELDS)
        raise IngestError("UnknownField", f"{name} is not a field of the message; the fields are {known}", name)
    if "batch_id" not in value:
        raise IngestError("MissingField", "batch_id is required", "batch_id")
    batch_id = _word(value, "batch_id", None, 256)
    size_bytes = _integer(value, "size_bytes", 1024, MAX_SIZE_BYTES)
    count = _integer(value, "count", 100, MAX_COUNT)
    label = _word(value, "label", f"{size_bytes}Bx{count}", 64)
    mode = _mode(value)
    if size_bytes * count > MAX_BATCH_BYTES:
        raise IngestError("InvalidValue", f"size_bytes times count must be at most {MAX_BATCH_BYTES}")
    return Message(batch_id, size_bytes, count, label, mode)


def _word(fields: dict[str, Any], name: str, default: str | None, longest: int) -> str:
    value = fields.get(name, default)
    rule = f"{name} must be a string of 1 to {longest} characters from A-Z a-z 0-9 . _ : -"
    if not isinstance(value, str):
        raise IngestError("InvalidType", rule, name)
    if len(value) > longest or not _WORD.fullmatch(value):
        raise IngestError("InvalidValue", rule, name)
    return value


def _integer(fields: dict[str, Any], name: str, default: int, most: int) -> int:
    value = fields.get(name, default)
    rule = f"{name} must be an integer from 1 to {most}"
    if type(value) is not int:  # a bool is an int to isinstance
        raise IngestError("InvalidType", rule, name)
    if not 1 <= value <= most:
        raise IngestError("InvalidValue", rule, name)
    return value


def _mode(fields: dict[str, Any]) -> str:
    value = fields.get("mode", "sequential")
    rule = "mode must be sequential, concurrent or batch"
    if not isinstance(value, str):
        raise IngestError("InvalidType", rule, "mode")
    if value not in _MODES:
        raise IngestError("InvalidValue", rule, "mode")
    return value


def is_unicode(text: str) -> bool:
    """Whether a text is free of lone surrogates, which have no UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _is_sound(value: object, depth: int) -> bool:
    """Whether a value nests at most `depth` levels and all its text is Unicode, free of lone surrogates."""
    if isinstance(value, str):
        return is_unicode(value)
    if isinstance(value, dict):
        return depth > 0 and all(_is_sound(key, 0) and _is_sound(item, depth - 1) for key, item in value.items())
    if isinstance(value, list):
        return depth > 0 and all(_is_sound(item, depth - 1) for item in value)
    return True


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("duplicate key")
    return value


def _bounded_int(digits: str) -> int:
    # Python refuses to convert very long numbers. Twenty digits are already beyond every bound, and stay so when cut.
    return int(digits[:20])


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _invalid_json() -> IngestError:
    rule = f"message must be JSON: valid UTF-8, no key twice in an object, at most {MAX_DEPTH} levels"
    return IngestError("InvalidJson", rule)
