"""Ends what a killed plane leaves behind: environments are stopped between invocations and would stay so for ever.

A process of its own that reads from the plane until the plane is gone, however it went. A line ``+PID`` names a
process group to end then, ``-PID`` one that has ended; any other line is the folder of a control group.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from lambdalab import loopback
from lambdalab.local.cgroup import remove_tree


class Guard:
    """The plane's end of it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lambdalab.local.guard"],
            env=loopback.variables(),
            stdin=subprocess.PIPE,
            start_new_session=True,
            text=True,
            bufsize=1,
        )

    def tell(self, line: str) -> None:
        """Adds to, or takes from, what is to be ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody ended the guard; the plane goes on without
            self._process.stdin.write(f"{line}\n")

    def close(self) -> None:
        """Lets the guard look once more, and ends it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Waits for the end of the plane."""
    groups: set[int] = set()
    folders: list[Path] = []
    for line in map(str.strip, sys.stdin):
        match line[:1]:
            case "+":
                groups.add(int(line[1:]))
            case "-":
                groups.discard(int(line[1:]))
            case _:
                folders.append(Path(line))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for folder in folders:
        remove_tree(folder)


if __name__ == "__main__":
    main()
