"""How sam is called for a scenario: this machine's parameters, and the environment it runs in.

Where a function takes a ``folder``, that is the scenario's; by default the one that the current folder belongs to.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lambdalab import loopback
from lambdalab.aws.package import zipped
from lambdalab.aws.template import read_template
from lambdalab.build import samconfig
from lambdalab.build.samconfig import LOCAL
from lambdalab.build.tools import find_python, go_caches, go_version, run_tool, search_path, tool
from lambdalab.design.arms import Architecture
from lambdalab.errors import UsageError
from lambdalab.project import (
    TEMPLATE,
    project_root,
    scenario_folder,
    scenario_folders,
    scenario_name,
    shown,
    state_folder,
)

ARCHITECTURES: Final = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
PREFERRED_PYTHON: Final = "3.12"
"""The template's default runtime; used when this machine has it."""
_MADE_OF: Final = "made-of"
"""In a build folder: the digest of what was built there."""
_PACKED: Final = "packed.json"
CODE: Final = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri"}
"""Types of resources whose property ``sam build`` makes the path of a folder."""
_REFERENCES: Final = ("Ref", "Fn::GetAtt", "Fn::Sub")
_NEVER_AGAIN_S: Final = 4102444800.0
"""The year 2100, in epoch seconds."""
_LOAD: Final = "load"
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


def local_parameters(changes: dict[str, str], settings: str = LOCAL, folder: Path | None = None) -> dict[str, str]:
    """The parameters of a local stack: samconfig's, then this machine's, then ``changes``.

    Args:
        changes: what differs.
        settings: ``local``, or ``load``, of which everything is taken but what watches a stack.
        folder: the scenario's.

    Raises:
        UsageError: no local stack can have these settings.
    """
    folder = folder or scenario_folder()
    known = [name for name in samconfig.environments(folder) if name in (LOCAL, _LOAD)]
    if settings not in known:
        raise UsageError(
            f"no local stack of scenario {scenario_name(folder)} has settings {settings}",
            next_step=f"name one of {', '.join(known)}{_other_scenarios(folder)}"
            if known
            else f"add [{LOCAL}.global.parameters] to {shown(folder / samconfig.FILE)}",
        )
    local = samconfig.parameter_overrides(folder, LOCAL)
    stated = samconfig.parameter_overrides(folder, settings)
    watching = {name: local[name] for name in _NOT_LOCAL if name in local}
    return local | stated | watching | host_parameters() | changes


def _other_scenarios(folder: Path) -> str:
    """What a next step says of further scenarios, which are named by themselves."""
    others = [name for name, of in scenario_folders().items() if of != folder]
    return f", or another scenario, such as `lambdalab up {others[-1]}`" if others else ""


def overrides(parameters: dict[str, str]) -> list[str]:
    """``parameters`` as sam takes them on its command line, where nothing is written as a pair of quotes."""
    return ["--parameter-overrides", *(f"{key}=" + (value or '""') for key, value in parameters.items())]


def build(parameters: dict[str, str], folder: Path | None = None) -> None:
    """Builds the functions of a local stack, unless they are built and nothing that they are made of has changed.

    sam empties its folder before it builds, so that a build by hand is never taken for one of this.

    Args:
        parameters: the stack's.
        folder: the scenario's.

    Raises:
        ToolError: sam is missing, or the build failed.
    """
    folder = folder or scenario_folder()
    note = samconfig.build_dir(folder, LOCAL) / _MADE_OF
    made_of = _made_of(folder, parameters)
    if note.is_file() and note.read_text() == made_of:
        return
    arguments = [str(tool("sam")), "build", "--config-env", LOCAL, *overrides(parameters)]
    with contextlib.chdir(folder):
        run_tool(arguments, log_file=state_folder() / "sam-build.log", variables=build_variables())
    _pack(note.parent)
    note.write_text(made_of)


def built_template(folder: Path) -> Path:
    """The template that ``sam build`` left for a local stack."""
    return samconfig.build_dir(folder, LOCAL) / TEMPLATE


def packed_template(folder: Path | None = None) -> Path | None:
    """The template that ``build`` packed; None if only ``sam deploy`` can deploy the build.

    That is where a template names further files to upload, or where somebody removed or changed what was packed.
    """
    packed = built_template(folder or scenario_folder()).with_name(_PACKED)
    try:
        resources = json.loads(packed.read_bytes())["Resources"].values()
        archives = [archive for resource in resources if (archive := _code_of(resource)) is not None]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return packed if all((packed.parent / archive).is_file() for archive in archives) else None


def _code_of(resource: Any) -> str | None:
    """Where the code of a function or a layer is, if its template says so in a text."""
    code = resource.get("Properties", {}).get(CODE.get(resource.get("Type"), ""))
    return code if isinstance(code, str) else None


def _pack(folder: Path) -> None:
    """Writes the template of a build once more, as JSON and with its folders of code as zip files.

    It is deployed much faster: else code is compressed and YAML is parsed at each deployment.
    """
    built, packed = folder / "template.yaml", folder / _PACKED
    template = read_template(built.read_text(encoding="utf-8"), str(built))
    for name, resource in template.get("Resources", {}).items():
        code = _code_of(resource)
        if code is not None and (folder / code).is_dir():
            archive = folder / f"{name}.zip"
            archive.write_bytes(zipped(folder / code))
            resource["Properties"][CODE[resource["Type"]]] = archive.name
    packed.unlink(missing_ok=True)
    archives = {f"{name}.zip" for name in template.get("Resources", {})}
    properties = [resource.get("Properties") for resource in template.get("Resources", {}).values()]
    if not any(text not in archives and _is_file(folder, text) for text in _texts(properties)):
        packed.write_text(json.dumps(template))


def _texts(value: object) -> Iterator[str]:
    """Every text in properties, at whatever depth, but for references: a build has folders named like resources."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            if key not in _REFERENCES:
                yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _is_file(folder: Path, text: str) -> bool:
    try:
        return (folder / text).exists() and text != ""
    except (OSError, ValueError):  # too long for a path, or with a null
        return False


def _made_of(folder: Path, parameters: dict[str, str]) -> str:
    """A digest of everything a build depends on: sources, template, tools, and for what it is built."""
    root, go = project_root(), go_variables()
    tools = (go["GOFLAGS"], go_version(shutil.which("go", path=go["PATH"]) or ""))
    digest = hashlib.sha256(repr((parameters["Architecture"], parameters["PythonRuntime"], tools)).encode())
    sources = (path for path in (folder / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    for path in (folder / TEMPLATE, *sorted((root / "tools").glob("*.txt")), *sorted(sources)):
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
