"""Licences of everything that is installed or linked, against tools/licenses.toml; and whether the locks are whole.

Asks nothing of the network: what is looked at is what `make setup` installed and what Go has downloaded to build.
Exit code 1 names every package that is not allowed, every exception nobody needs, and everything without a hash.
"""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from lambdalab.build.deployment import host_parameters
from lambdalab.build.tools import go_folder, interpreter_for
from lambdalab.project import project_root, state_folder

GO_MODULES: Final = ("src/go/*", "scenarios/*/src/go/*", "tests/local/go")
"""Folders of Go modules, as patterns below the project."""
OURS: Final = ("lambdalab",)
_TEXTS: Final = {
    "Apache-2.0": r"Apache License\s+Version 2\.0",
    "MIT-0": r"MIT No Attribution",
    "MIT": r"Permission is hereby granted, free of charge",
    "BSD-3-Clause": r"Redistribution and use in source and binary forms.*(?:Neither the names? of|used to endorse)",
    "BSD-2-Clause": r"Redistribution and use in source and binary forms",
}
"""How the text of a licence is known; the first that fits."""
_EXPRESSION: Final = re.compile(r"[A-Za-z0-9.+-]+( (OR|AND) [A-Za-z0-9.+-]+)*")
_FILES: Final = re.compile(r"(LICEN[CS]E|COPYING)(?!-SUMMARY)", re.IGNORECASE)


class Part(NamedTuple):
    """Something that others made: where it is used, its name and version, and its licence as far as it is known."""

    where: str
    name: str
    version: str
    license: str | None


def python_parts(where: str, folder: Path, names: dict[str, str]) -> Iterator[Part]:
    """What is installed in one environment, its installer's own pip and setuptools left out.

    Args:
        where: the environment's name.
        folder: its site-packages.
        names: SPDX identifiers of what packages write otherwise.
    """
    for found in importlib.metadata.distributions(path=[str(folder)]):
        if found.name not in (*OURS, "pip", "setuptools"):
            yield Part(where, found.name, found.version, _declared(found.metadata, names))


def _declared(metadata: Any, names: dict[str, str]) -> str | None:
    """An SPDX expression: the package's own, or of its classifiers, any of which may be chosen, or of its License."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [
        entry.rpartition(" :: ")[2] for entry in metadata.get_all("Classifier") or () if "License ::" in entry
    ]
    if classifiers and all(entry in names for entry in classifiers):
        return " OR ".join(names[entry] for entry in classifiers)
    text = str(metadata.get("License") or "").strip()
    return names.get(text, text if _EXPRESSION.fullmatch(text) else None)


def go_parts(module: Path) -> Iterator[Part]:
    """The modules that a Go module's packages and tests are built from, by the text of their licence files."""
    variables = {**os.environ, "PATH": f"{go_folder()}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    command = ["go", "list", "-deps", "-test", "-json=Module", "./..."]
    done = subprocess.run(command, cwd=module, env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"audit: `{' '.join(command)}` failed in {module}: {done.stderr.strip()}")
    decoder, text, seen = json.JSONDecoder(), done.stdout.strip(), set()
    while text:
        package, end = decoder.raw_decode(text)
        text = text[end:].lstrip()
        found = package.get("Module", {})
        if found and not found.get("Main") and found["Path"] not in seen:
            seen.add(found["Path"])
            yield Part(str(module), found["Path"], found["Version"], _of_texts(Path(found["Dir"])))


def _of_texts(folder: Path) -> str | None:
    texts = [path.read_text(errors="replace") for path in sorted(folder.iterdir()) if _FILES.match(path.name)]
    found = [
        next((name for name, text in _TEXTS.items() if re.search(text, content, re.DOTALL)), None) for content in texts
    ]
    return None if not found or None in found else " AND ".join(sorted({name for name in found if name}))


def is_allowed(expression: str | None, allowed: frozenset[str]) -> bool:
    """Whether an SPDX expression without parentheses can be kept: of an OR one side, of an AND all."""
    if expression is None or "(" in expression:
        return False
    return any(
        all(part.strip() in allowed for part in re.split(r"\s+AND\s+", choice))
        for choice in re.split(r"\s+OR\s+", expression)
    )


def judge(parts: list[Part], rules: dict[str, Any]) -> list[str]:
    """What is wrong, one sentence each."""
    allowed, exceptions = frozenset(rules["allowed"]), dict(rules["exceptions"])
    faults = [
        f"{part.name} {part.version} ({part.where}) has licence {part.license or 'unknown'}; allow it in "
        "tools/licenses.toml with a reason, or do without it"
        for part in parts
        if not is_allowed(part.license, allowed) and part.name not in exceptions
    ]
    needed = {part.name for part in parts if not is_allowed(part.license, allowed)}
    faults += [f"nothing needs the exception for {name} any more; remove it" for name in set(exceptions) - needed]
    return faults + [f"the exception for {name} has no reason" for name, why in exceptions.items() if not why["reason"]]


def unlocked(lock: dict[str, Any]) -> list[str]:
    """Files of uv.lock without a hash; the project itself has none."""
    return [
        f"{package['name']} {package['version']} in uv.lock: {file['url'].rpartition('/')[2]} has no sha256 hash"
        for package in lock["package"]
        for file in [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
        if not str(file.get("hash", "")).startswith("sha256:")
    ]


def main() -> int:
    """Prints what was looked at and what is wrong."""
    root = project_root()
    rules = tomllib.loads((root / "tools/licenses.toml").read_text())
    lock = tomllib.loads((root / "uv.lock").read_text())
    environments = {"lambdalab": Path(sys.prefix)}
    environments |= {name: state_folder() / "tools" / name for name in ("aws-sam-cli", "ministack")}
    runtime = host_parameters()["PythonRuntime"]
    environments |= {runtime: interpreter_for(runtime).parent.parent}
    parts: list[Part] = []
    for where, folder in environments.items():
        (site_packages,) = folder.glob("lib/python*/site-packages")
        parts += python_parts(where, site_packages, rules["names"])
    for module in sorted(found for pattern in GO_MODULES for found in root.glob(f"{pattern}/go.mod")):
        parts += go_parts(module.parent)
    for (where, license_), count in sorted(
        Counter((part.where, part.license or "not declared") for part in parts).items()
    ):
        print(f"{Path(where).name:20} {count:4}  {license_}")
    installed = {re.sub(r"[-_.]+", "-", part.name).lower() for part in parts if part.where == "lambdalab"}
    elsewhere = sorted(package["name"] for package in lock["package"] if package["name"] not in {*installed, *OURS})
    print(f"locked for other systems or Pythons, and not looked at: {', '.join(elsewhere) or 'none'}")
    faults = judge(parts, rules) + unlocked(lock)
    for fault in faults:
        print(f"audit: {fault}", file=sys.stderr)
    print(f"{len(parts)} packages and modules, {len(rules['exceptions'])} exceptions, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
