"""How sam is called for this project: this machine's parameters, and the environment it runs in."""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lambdalab import loopback, samconfig
from lambdalab.design import Architecture
from lambdalab.errors import UsageError
from lambdalab.package import zipped
from lambdalab.project import project_root, state_folder
from lambdalab.template import read_template
from lambdalab.tools import find_python, go_caches, go_version, run_tool, search_path, tool

ARCHITECTURES: Final = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
PREFERRED_PYTHON: Final = "3.12"
"""The template's default runtime; used when this machine has it."""
_MADE_OF: Final = "made-of"
"""In a build folder: the digest of what was built there."""
_PACKED: Final = "packed.json"
CODE: Final = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri"}
"""Types of resources whose property ``sam build`` makes the path of a folder."""
_NEVER_AGAIN_S: Final = 4102444800.0
"""The year 2100, in epoch seconds."""
_NOT_LOCAL: Final = ("SavedQueries", "Alarms", "AlarmTopicArn", "Dashboard", "Tracing", "BudgetUsd", "BudgetEmail")
"""Parameters of what watches a stack on AWS. The emulator lacks some of it, and nobody looks at the rest there."""


def host_parameters() -> dict[str, str]:
    """Template parameters for this machine: its architecture, and python3.12 or else the lab's own Python."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    version = PREFERRED_PYTHON if own != PREFERRED_PYTHON and find_python(PREFERRED_PYTHON) else own
    return {"Architecture": ARCHITECTURES[platform.machine()], "PythonRuntime": f"python{version}"}


def go_variables() -> dict[str, str]:
    """The environment in which Go is compiled for Lambda. Compilations in the same one share Go's cache."""
    return loopback.build_variables() | _compiling()


def build_variables() -> dict[str, str]:
    """The environment in which sam builds, or does something else that needs no stack."""
    return loopback.build_variables() | _compiling() | _quiet_sam()


def local_variables(endpoint_url: str, lambda_endpoint_url: str | None = None) -> dict[str, str]:
    """The environment in which sam works with a local stack.

    Args:
        endpoint_url: the emulator.
        lambda_endpoint_url: the plane; by default the emulator.
    """
    return loopback.variables(endpoint_url, lambda_endpoint_url) | _compiling() | _quiet_sam()


def aws_variables() -> dict[str, str]:
    """The environment in which sam works with AWS: the user's own, and how functions are compiled."""
    return loopback.own_variables() | _compiling() | {"SAM_CLI_TELEMETRY": "0"}


def _compiling() -> dict[str, str]:
    # sam's Go builder has no settings for these: a static, stripped binary without the old RPC entry point.
    # With SAM_BUILD_MODE=debug, which is sam's own and switches optimisation off, the symbols stay.
    stripped = "" if os.environ.get("SAM_BUILD_MODE") == "debug" else "-ldflags=-s "
    flags = {"CGO_ENABLED": "0", "GOFLAGS": f"-trimpath {stripped}-tags=lambda.norpc"}
    return flags | go_caches() | {"PATH": search_path()}


def _quiet_sam() -> dict[str, str]:
    """Variables of sam's own: it sends no telemetry, polls often, and does not ask PyPI for its newest version.

    For the last, sam has a date in its own folder (``samcli/lib/utils/version_checker.py``) and no variable.
    """
    folder = state_folder() / "sam"
    folder.mkdir(exist_ok=True)
    settings = folder / "metadata.json"
    if not settings.exists():
        settings.write_text(json.dumps({"lastVersionCheck": _NEVER_AGAIN_S}))
    return {"SAM_CLI_TELEMETRY": "0", "SAM_CLI_POLL_DELAY": "0.5", "__SAM_CLI_APP_DIR": str(folder)}


def is_local(environment: str) -> bool:
    """Whether an environment of samconfig.toml is for the emulator: ``local``, or a further template's ``-local``."""
    return environment == "local" or environment.endswith("-local")


def local_environment(settings: str) -> str:
    """The environment by which sam builds and deploys a local stack of these settings."""
    return settings if is_local(settings) else "local"


def local_stack(settings: str) -> tuple[str, str]:
    """The name of a local stack of these settings, and its template."""
    environment = local_environment(settings)
    return samconfig.stack_name(environment), samconfig.template_file(environment)


def local_parameters(changes: dict[str, str], settings: str = "local") -> dict[str, str]:
    """The parameters of a local stack: samconfig's, then this machine's, then ``changes``.

    Args:
        changes: what differs.
        settings: an environment of samconfig.toml; of ``load`` everything is taken but what watches a stack, and
            one that ends in ``-local`` belongs to a further template, so it is taken as it is.

    Raises:
        UsageError: no local stack can have these settings.
    """
    known = [name for name in samconfig.environments() if name == "load" or is_local(name)]
    if settings not in known:
        next_step = f"name one of {', '.join(known)}" if known else "add [local.global.parameters] to samconfig.toml"
        raise UsageError(f"no local stack has settings {settings}", next_step=next_step)
    stated = samconfig.parameter_overrides(settings)
    if local_environment(settings) == "local":
        local = samconfig.parameter_overrides("local")
        stated = local | stated | {name: local[name] for name in _NOT_LOCAL if name in local}
    return stated | host_parameters() | changes


def overrides(parameters: dict[str, str]) -> list[str]:
    """``parameters`` as sam takes them on its command line, where nothing is written as a pair of quotes."""
    return ["--parameter-overrides", *(f"{key}=" + (value or '""') for key, value in parameters.items())]


def build(settings: str, parameters: dict[str, str]) -> None:
    """Builds the functions of a local stack, unless they are built and nothing that they are made of has changed.

    sam empties its folder before it builds, so that a build by hand is never taken for one of this.

    Args:
        settings: an environment of samconfig.toml.
        parameters: the stack's.

    Raises:
        ToolError: sam is missing, or the build failed.
    """
    environment = local_environment(settings)
    note = project_root() / samconfig.build_dir(environment) / _MADE_OF
    made_of = _made_of(local_stack(settings)[1], parameters)
    if note.is_file() and note.read_text() == made_of:
        return
    arguments = [str(tool("sam")), "build", "--config-env", environment, *overrides(parameters)]
    with contextlib.chdir(project_root()):
        run_tool(arguments, log_file=state_folder() / "sam-build.log", variables=build_variables())
    _pack(note.parent)
    note.write_text(made_of)


def built_template(settings: str) -> Path:
    """The template that ``sam build`` left for a local stack."""
    return project_root() / samconfig.build_dir(local_environment(settings)) / "template.yaml"


def packed_template(settings: str) -> Path | None:
    """The template that ``build`` packed; None if it names files that only ``sam deploy`` can upload."""
    packed = built_template(settings).with_name(_PACKED)
    return packed if packed.is_file() else None


def _pack(folder: Path) -> None:
    """Writes the template of a build once more, as JSON and with its folders of code as zip files.

    It is deployed much faster: else code is compressed and YAML is parsed at each deployment.
    """
    built, packed = folder / "template.yaml", folder / _PACKED
    template = read_template(built.read_text(encoding="utf-8"), str(built))
    for name, resource in template.get("Resources", {}).items():
        code = resource.get("Properties", {}).get(CODE.get(resource.get("Type"), ""))
        if isinstance(code, str) and (folder / code).is_dir():
            archive = folder / f"{name}.zip"
            archive.write_bytes(zipped(folder / code))
            resource["Properties"][CODE[resource["Type"]]] = archive.name
    packed.unlink(missing_ok=True)
    archives = {f"{name}.zip" for name in template.get("Resources", {})}
    if not any(text not in archives and _is_file(folder, text) for text in _texts(template.get("Resources"))):
        packed.write_text(json.dumps(template))


def _texts(value: object) -> Iterator[str]:
    """Every text in a template, at whatever depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _is_file(folder: Path, text: str) -> bool:
    try:
        return (folder / text).exists() and text != ""
    except (OSError, ValueError):  # too long for a path, or with a null
        return False


def _made_of(template: str, parameters: dict[str, str]) -> str:
    """A digest of everything a build depends on: sources, template, tools, and for what it is built."""
    root, go = project_root(), go_variables()
    tools = (go["GOFLAGS"], go_version(shutil.which("go", path=go["PATH"]) or ""))
    digest = hashlib.sha256(repr((parameters["Architecture"], parameters["PythonRuntime"], tools)).encode())
    sources = (path for path in (root / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    for path in (root / template, *sorted((root / "tools").glob("*.txt")), *sorted(sources)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {path.stat().st_mode:o} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def build_folder(architecture: Architecture) -> Path:
    """Where the functions built for an architecture are kept: in ``.lambdalab/builds``."""
    return state_folder() / "builds" / architecture


def build_for(architecture: Architecture, parameters: dict[str, str]) -> None:
    """Builds the functions for an architecture into its folder.

    Args:
        architecture: which.
        parameters: those of the stack the build is for.

    Raises:
        ToolError: sam is missing, or the build failed.
    """
    folder = build_folder(architecture)
    folder.parent.mkdir(exist_ok=True)
    arguments = [str(tool("sam")), "build", "--build-dir", str(folder)]
    with contextlib.chdir(project_root()):
        run_tool(
            [*arguments, *overrides(parameters | {"Architecture": architecture})],
            log_file=folder.with_suffix(".log"),
            variables=build_variables(),
        )
