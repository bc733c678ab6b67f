"""How a function runs under a debugger: what is put before its program, and limits that do not slow it down.

debugpy listens and waits for its client before the runtime client starts; delve holds the process at its entry
until its client lets it go on. Either way init and handler can be stepped through.
"""

import struct
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from lambdalab.build.tools import debugger_program
from lambdalab.local.function import CUSTOM_RUNTIMES, FunctionSpec
from lambdalab.local.limits import Limits

NO_TIMEOUT_S: Final = 365 * 24 * 3600
"""A year: the deadline a function is told has to be some date."""


def under_debugger(spec: FunctionSpec, port: int, tools: Path) -> FunctionSpec:
    """The function as it is started under a debugger that listens on 127.0.0.1.

    Args:
        spec: the function as deployed.
        port: the debugger's.
        tools: the folder that holds the debugger (``lambdalab.build.tools.debugger_for`` puts it there).
    """
    program, address = str(debugger_program(tools, spec.runtime)), f"127.0.0.1:{port}"
    if spec.runtime in CUSTOM_RUNTIMES:
        options = ["--headless", "--api-version=2", "--accept-multiclient", f"--listen={address}"]
        debugger = [program, "exec", *options]
    else:
        # Python's own modules as files, or breakpoints in them are missed and debugpy warns of it.
        debugger = ["-X", "frozen_modules=off", program, "--listen", address, "--wait-for-client"]
    return replace(spec, timeout_s=NO_TIMEOUT_S, debugger=tuple(debugger))


def has_debug_information(program: Path) -> bool:
    """Whether an ELF file (64 bits, little-endian) holds DWARF; ``-ldflags=-s`` and ``-w`` leave it out. See elf(5).

    Raises:
        OSError: it cannot be read.
    """
    content = program.read_bytes()
    if content[:6] != b"\x7fELF\x02\x01":
        return False
    (table,) = struct.unpack_from("<Q", content, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", content, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", content, table + index * size) for index in range(count)]
    if names_index >= count:
        return False
    start = sections[names_index][4]
    names = {content[start + name :].partition(b"\0")[0] for name, *_ in sections}
    return not names.isdisjoint({b".debug_info", b".zdebug_info"})


class Unthrottled(Limits):
    """The limits of a debugged environment: none, since the debugger would be limited as well; only its processes.

    delve puts the function into a process group of its own, so the processes are those of the session.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._session: int | None = None

    def enter(self, pid: int) -> None:
        self._session = pid
        self._limits.enter(pid)

    def limit_memory(self, memory_mb: int) -> None:
        pass

    def limit_cpu(self, memory_mb: int | None) -> None:
        pass

    def pids(self) -> list[int]:
        found = {int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()}
        return sorted({*self._limits.pids(), *(pid for pid in found if _session_of(pid) == self._session)})

    def oom_kills(self) -> int:
        return self._limits.oom_kills()

    def close(self) -> None:
        self._limits.close()


def _session_of(pid: int) -> int:
    """Field 6 of ``/proc/<pid>/stat``; 0 when the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[3])
    except OSError:
        return 0
