"""TOML files written by hand (protocols, price sheets): found by name, read strictly, refused in one sentence.

A key nobody reads is a setting the user believes in, so unknown keys are refused like wrong values are.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args

import msgspec

from lambdalab.errors import UsageError
from lambdalab.project import project_root, shown

T = TypeVar("T", bound=msgspec.Struct)

_AT = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?", re.DOTALL)
_KEY = re.compile(r"Object (?P<fault>contains unknown|missing required) field `(?P<key>.*)`")


def locate(
    name_or_path: str | Path,
    folder: str,
    error: type[UsageError],
    roots: Callable[[], Sequence[Path]] = lambda: [project_root()],
) -> Path:
    """Find a settings file: a bare name means ``<folder>/<name>.toml`` of the project, the rest is a path.

    Args:
        name_or_path: ``strict``, or a path, which ends in ``.toml`` or has a separator.
        folder: folder under a root that bare names refer to.
        error: what to raise when a bare name is unknown; it lists those of the first root.
        roots: looked through one after the other. A path needs none.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml" or len(path.parts) != 1:
        return path
    homes = [root / folder for root in roots()]
    for home in homes:
        if (found := home / f"{path.name}.toml").is_file():
            return found
    known = sorted(file.stem for file in homes[0].glob("*.toml"))
    raise error(f'{shown(homes[0])}/ has no "{path.name}"', next_step=choose(path.name, known))


def read(path: Path, kind: type[T], error: type[UsageError]) -> T:
    """Read the file as a ``kind``. Numbers with a point become exact decimals, since prices are among them.

    Args:
        path: a TOML file.
        kind: a struct that forbids unknown fields.
        error: what to raise for a file that cannot be read, is not TOML, or does not fit ``kind``.
    """
    data = read_toml(path, error)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as problem:
        raise _refusal(path, kind, data, str(problem), error) from problem


def read_toml(path: Path, error: type[UsageError]) -> dict[str, Any]:
    """Read a TOML file. Numbers with a point become exact decimals.

    Args:
        path: the file.
        error: what to raise for a file that cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}", next_step="check the path") from problem
    except (ValueError, RecursionError) as problem:  # not UTF-8, or not TOML, or nested deeper than Python's stack
        raise error(f"{path} is not TOML: {problem}", next_step="correct that place") from problem


def choose(word: str, known: Collection[str]) -> str:
    """Word the next step after an unknown ``word``: the nearest known one, if any is near, and all there are."""
    near = difflib.get_close_matches(word, known, n=1)
    listed = ", ".join(known) or "none"
    return f'perhaps "{near[0]}" is meant; there are: {listed}' if near else f"there are: {listed}"


def _refusal(path: Path, kind: Any, data: Any, message: str, error: type[UsageError]) -> UsageError:
    """Tell what msgspec found with file, key and value."""
    found = _AT.fullmatch(message)
    what, where = (found["what"], found["where"] or "") if found else (message, "")
    if "..." in where:  # msgspec does not tell at which key of a table
        table = where.partition("[...]")[0]
        return error(f"{path}: {table} is wrong: {what[:1].lower() + what[1:]}", next_step="correct that place")
    value: Any = data
    for step in re.findall(r"\w+", where):  # `loads[0].count` -> loads, 0, count
        if step.isdigit():
            value, kind = value[int(step)], get_args(kind)[0]
        else:
            value, kind = value[step], {f.encode_name: f.type for f in msgspec.structs.fields(kind)}[step]
            kind = get_args(kind)[0] if isinstance(kind, UnionType) else kind  # of `Stop | None`
    if key := _KEY.fullmatch(what):
        full_key = f"{where}.{key['key']}".lstrip(".")
        if key["fault"] == "missing required":
            return error(f'{path}: key "{full_key}" is missing', next_step="add it")
        known = [field.encode_name for field in msgspec.structs.fields(kind)]
        return error(f'{path}: key "{full_key}" is unknown', next_step=choose(key["key"], known))
    shown = f'"{value}"' if isinstance(value, str) else value
    return error(f"{path}: {where} is {shown}", next_step=what[:1].lower() + what[1:])
