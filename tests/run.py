"""Runs pytest with the arguments it is given; without any, all tests: Go's, then Python's, in parts beside each other.

Go is tested as it is compiled for Lambda, and the functions are built before, so that hardly a test builds anything.
Most tests wait, so several at once take little more than the longest. Each part is an ordinary pytest: all hear Ctrl-C
from the terminal and clean up, and each names at its end what it left out.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Final

from lambdalab.build.deployment import build, go_variables, local_parameters
from lambdalab.project import scenario_folders

_STACKS: Final = (
    "dead_letters",
    "doctor",
    "exposure",
    "held_stack",
    "limits",
    "loopback",
    "measurer",
    "replaced_emulator",
    "roles",
    "sam_local",
    "secrets",
)
BESIDE: Final[tuple[tuple[str, ...], ...]] = (
    ("tests/e2e", "scenarios"),
    # What builds and deploys first: what holds rates wants the cores, which are freer towards the end.
    (*(f"tests/e2e/test_{name}.py" for name in _STACKS), "tests/chaos", "tests/browser", "tests/load"),
    ("tests/unit",),
)
"""Files and folders of each part that runs beside the rest; what one names is in no other, nor in the rest."""
_AT_ONCE: Final = 3
"""Parts that run at the same time, the rest among them. A further one begins when one of them has ended."""
_PYTEST: Final = (sys.executable, "-u", "-m", "pytest")  # what it said is there even if it had to be ended


def main() -> int:
    """Returns the exit code of a part that failed, 0 when none did."""
    for name, folder in scenario_folders().items() if Path("samconfig.toml").exists() else ():
        print(f"building the functions of {name}, once for all tests", flush=True)
        build(local_parameters({}, folder=folder), folder)
    for module in sorted(
        path for source in ("src", "scenarios/*/src") for path in Path().glob(f"{source}/go/*/go.mod")
    ):
        done = subprocess.run(["go", "test", "-count=1", "./..."], cwd=module.parent, env=go_variables(), check=False)
        if done.returncode:
            return done.returncode
    beside = [part for part in ([path for path in part if Path(path).exists()] for part in BESIDE) if part]
    named = [path for part in beside for path in part]
    print(f"{', '.join(named)} run beside the other tests; what they say comes after theirs", flush=True)
    waiting = [Part(part, [f"--ignore={path}" for path in named if path not in part]) for part in beside]
    rest = Part(["tests"], [f"--ignore={path}" for path in named])
    rest.begin(None)
    begun = [rest]

    def interrupt(*_: object) -> None:
        waiting.clear()
        for part in begun:
            part.interrupt()

    signal.signal(signal.SIGINT, lambda *_: waiting.clear())  # all hear it as well, and are waited for
    signal.signal(signal.SIGTERM, interrupt)
    while waiting or any(part.is_running for part in begun):
        if waiting and sum(part.is_running for part in begun) < _AT_ONCE:
            part = waiting.pop(0)
            part.begin(tempfile.TemporaryFile())  # noqa: SIM115 - open until the part has ended
            begun.append(part)
        time.sleep(0.1)
    # What failed is said last, where one looks first.
    codes = [part.end() for part in sorted(begun, key=Part.has_failed)]
    return next(filter(None, codes), 0)


class Part:
    """One pytest, of some files and folders.

    Args:
        paths: what it tests; everything if there is none.
        options: for pytest.
    """

    def __init__(self, paths: list[str], options: list[str]) -> None:
        self._command = [*_PYTEST, *paths, *options]
        self._said: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def begin(self, said: IO[bytes] | None) -> None:
        """Starts it; ``said`` keeps what it says until its end, without one it is said at once."""
        self._said = said
        stderr = None if said is None else subprocess.STDOUT
        self._process = subprocess.Popen(self._command, stdout=said, stderr=stderr)

    def has_failed(self) -> bool:
        """Whether its exit code is another than 0."""
        assert self._process is not None
        return self._process.wait() != 0

    def interrupt(self) -> None:
        """Ends it as Ctrl-C does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Says what it said, and returns its exit code."""
        assert self._process is not None
        if self._said is not None:
            self._said.seek(0)
            shutil.copyfileobj(self._said, sys.stdout.buffer)
            sys.stdout.flush()
            self._said.close()
        return self._process.wait()


if __name__ == "__main__":
    if sys.argv[1:]:
        os.execv(sys.executable, [*_PYTEST, *sys.argv[1:]])  # noqa: S606 - no shell is wanted
    sys.exit(main())
