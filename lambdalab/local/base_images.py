"""Images for ``sam local`` where no registry of images can be reached, made of this machine's own files.

AWS's are called ``public.ecr.aws/lambda/...``. Those made here are called ``lambdalab/...`` and never take these names.
They hold what is needed and nothing else:

- a shell, ``mv`` and ``chmod``, which sam's own Dockerfile calls to add the Runtime Interface Emulator;
- for Python, this machine's interpreter without its packages in ``/var/lang`` and the runtime client with what starts
  it in ``/var/runtime``, where AWS has both;
- the libraries that these are linked with, as ``ldd`` finds them.

Files are read and streamed to ``docker import``, so neither root nor a network is needed. What else was looked at is in
docs/decisions/0011-sam-local.md.
"""

import contextlib
import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import IO, Final

import msgspec

from lambdalab import loopback
from lambdalab.build.deployment import ARCHITECTURES
from lambdalab.build.tools import RUNTIME_CLIENT, interpreter_for
from lambdalab.errors import ToolError
from lambdalab.local.docker import docker
from lambdalab.local.function import CUSTOM_RUNTIMES

_MADE: Final = "lambdalab/"
_LONGEST_IMPORT_S: Final = 600.0
_PROGRAMS: Final = ("sh", "mv", "chmod")
_OPENED_LATER: Final = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2")
"""What the C library opens by name, so that no program is linked with it; newer ones have the latter two built in."""
_LEFT_OUT: Final = re.compile(
    r"(site-packages|dist-packages|config-.*|test|idlelib|tkinter|turtledemo|ensurepip|lib2to3)/|.*/_tkinter\.|.*\.opt-\d\.pyc$"
)
"""What of an interpreter's library a function has to bring itself, or has no use for."""
_BOOTSTRAP: Final = "#!/bin/sh\nexec /var/lang/bin/{runtime} /var/runtime/bootstrap.py\n"
_BOOTSTRAP_PY: Final = """import os, sys
sys.path.insert(0, os.environ.get("LAMBDA_TASK_ROOT", "/var/task"))
from awslambdaric.__main__ import main
main([sys.argv[0], os.environ["_HANDLER"]])
"""
"""By this name `sam local --debug-port` starts it."""
_SETTINGS: Final = (
    "ENV PATH=/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin",
    "ENV LANG=en_US.UTF-8 TZ=:UTC LAMBDA_TASK_ROOT=/var/task LAMBDA_RUNTIME_DIR=/var/runtime",
    "WORKDIR /var/task",
)


class _Python(msgspec.Struct, frozen=True):
    """What an interpreter says of itself."""

    version: str
    program: Path
    library: Path
    """The folder of its standard library."""
    packages: Path
    """The folder of the runtime client."""


def public_image(runtime: str) -> str:
    """AWS's image of a runtime for this machine, as sam names it (samcli/local/docker/lambda_image.py)."""
    name = runtime.replace(".", ":", 1) if runtime in CUSTOM_RUNTIMES else runtime.replace("python", "python:")
    return f"public.ecr.aws/lambda/{name}-{ARCHITECTURES[platform.machine()]}"


def has_image(name: str) -> bool:
    """Whether the engine has it."""
    return docker("image", "inspect", name).returncode == 0


def is_made(image: str) -> bool:
    """Whether an image was made here."""
    return image.startswith(_MADE)


def made_image(runtime: str) -> str:
    """The name of what :func:`make_image` makes of a runtime on this machine as it is now.

    The name changes with what is in it: sam keeps the image it makes of one under a name without the tag.
    """
    inside = [Path(__file__).read_text(), RUNTIME_CLIENT]
    if runtime not in CUSTOM_RUNTIMES:
        inside.append(_python(runtime).version)
    return f"{_MADE}{runtime}-{hashlib.sha256(''.join(inside).encode()).hexdigest()[:12]}"


def make_image(runtime: str) -> str:
    """Makes the image of a runtime.

    Returns:
        Its name.

    Raises:
        ToolError: the engine does not take it, or this machine lacks the interpreter.
    """
    name = made_image(runtime)
    changes = [word for line in _SETTINGS for word in ("--change", line)]
    command = ["docker", "import", *changes, "-", f"{name}:latest"]
    with subprocess.Popen(
        command,
        env=loopback.build_variables(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as importing:
        assert importing.stdin is not None
        assert importing.stderr is not None
        limit = threading.Timer(_LONGEST_IMPORT_S, importing.kill)
        limit.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # it says itself why it ended
                _write(importing.stdin, runtime)
                importing.stdin.close()
            said = importing.stderr.read().decode("utf-8", "replace").strip()
        except BaseException:  # else half an image would get the name
            importing.kill()
            raise
        finally:
            limit.cancel()
    if importing.returncode != 0:
        said = said or f"it was not done within {_LONGEST_IMPORT_S:g} s"
        raise ToolError(f"`docker import` of {name} failed: {said}", next_step="see `docker info`")
    return name


def _write(stream: IO[bytes], runtime: str) -> None:
    """The image's files as a tar, all of them root's."""
    programs = {Path(shutil.which(name) or f"/bin/{name}") for name in _PROGRAMS}
    files = {Path("/bin") / program.name: program for program in programs}
    python = None if runtime in CUSTOM_RUNTIMES else _python(runtime)
    if python is not None:
        files[Path("/var/lang/bin") / runtime] = python.program
        files |= _tree(python.library, Path("/var/lang/lib") / runtime, without=_LEFT_OUT)
        files |= _tree(python.packages, Path("/var/runtime"))
    linked = {path for path in files.values() if path in programs or ".so" in path.name}
    libraries = _libraries(linked | ({python.program} if python else set()))
    with tarfile.open(fileobj=stream, mode="w|", dereference=True) as archive:
        for folder, mode in (("tmp", 0o1777), ("var/task", 0o755), ("opt", 0o755), ("etc", 0o755)):
            _add_entry(archive, folder, b"", mode, tarfile.DIRTYPE)
        _add_entry(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        if python is not None:
            _add_entry(archive, "var/runtime/bootstrap.py", _BOOTSTRAP_PY.encode(), 0o644)
            _add_entry(archive, "var/runtime/bootstrap", _BOOTSTRAP.format(runtime=runtime).encode(), 0o755)
        for inside, path in sorted((files | {path: path for path in libraries}).items()):
            archive.add(path, str(inside), recursive=False, filter=_of_root)


def _tree(folder: Path, inside: Path, *, without: re.Pattern[str] | None = None) -> dict[Path, Path]:
    """The files below a folder, by where they are to be."""
    files = ((path, path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {inside / name: path for path, name in files if without is None or not without.match(str(name))}


def _libraries(programs: set[Path]) -> set[Path]:
    """What programs and libraries are linked with, as the loader finds it, and what the C library opens beside that."""
    try:
        said = subprocess.run(
            ["ldd", *map(str, programs)], env=loopback.variables(), capture_output=True, text=True, check=False
        ).stdout
    except OSError as error:
        raise ToolError(
            f"ldd cannot be started: {error.strerror}", next_step="install it, it comes with glibc"
        ) from error
    found = {Path(path) for path in re.findall(r"(?:=>\s|^\s)\s*(/\S+) \(0x", said, re.MULTILINE)}
    beside = {path.parent / name for path in found if path.name == "libc.so.6" for name in _OPENED_LATER}
    return found | {path for path in beside if path.exists()}


def _add_entry(archive: tarfile.TarFile, name: str, content: bytes, mode: int, kind: bytes = tarfile.REGTYPE) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size = kind, mode, len(content)
    archive.addfile(entry, io.BytesIO(content))


def _of_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def _python(runtime: str) -> _Python:
    asked = (
        "import json, os, sys, sysconfig as at; program = os.path.realpath(sys._base_executable); "
        "print(json.dumps([sys.version, program, at.get_path('stdlib'), at.get_path('purelib')]))"
    )
    command, variables = [str(interpreter_for(runtime)), "-c", asked], loopback.variables()
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    version, program, library, packages = json.loads(done.stdout)
    return _Python(version, Path(program), Path(library), Path(packages))
