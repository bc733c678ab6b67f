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
from pathlib import Path
from typing import IO, Final

from lambdalab.deployment import build, go_variables, local_parameters

_STACKS: Final = (
    "dead_letters",
    "doctor",
    "exposure",
    "measurer",
    "roles",
    "s3_stack",
    "sam_local",
    "secrets",
)
BESIDE: Final[tuple[tuple[str, ...], ...]] = (
    ("tests/e2e", "tests/unit"),
    # What builds and deploys first: what holds rates wants the cores, which are freer towards the end.
    (*(f"tests/e2e/test_{name}.py" for name in _STACKS), "tests/chaos", "tests/browser", "tests/load"),
)
"""Files and folders of each part that runs beside the rest; what one names is in no other, nor in the rest."""
_PYTEST: Final = (sys.executable, "-m", "pytest")


def main() -> int:
    """Returns the exit code of a part that failed, 0 when none did."""
    for settings in ("local", "s3-local") if Path("samconfig.toml").exists() else ():
        print(f"building the functions of {settings}, once for all tests", flush=True)
        build(settings, local_parameters({}, settings))
    for module in sorted(Path("src/go").glob("*/go.mod")):
        done = subprocess.run(["go", "test", "-count=1", "./..."], cwd=module.parent, env=go_variables(), check=False)
        if done.returncode:
            return done.returncode
    beside = [[path for path in part if Path(path).exists()] for part in BESIDE]
    named = [path for part in beside for path in part]
    print(f"{', '.join(named)} run beside the other tests; what they say comes after theirs", flush=True)
    signal.signal(signal.SIGINT, lambda *_: None)  # all hear it as well, and are waited for
    parts: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
    for part in filter(None, beside):
        said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open until the part has ended
        others = [f"--ignore={path}" for path in named if path not in part]
        parts.append((subprocess.Popen([*_PYTEST, *part, *others], stdout=said, stderr=subprocess.STDOUT), said))
    rest = subprocess.Popen([*_PYTEST, *(f"--ignore={path}" for path in named)])

    def interrupt(*_: object) -> None:
        for process in (rest, *(process for process, _ in parts)):
            process.send_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, interrupt)
    code = rest.wait()
    for (process, said), part in zip(parts, filter(None, beside), strict=True):
        if process.poll() is None:
            print(f"waiting for {', '.join(part)}", flush=True)
        code = process.wait() or code
        said.seek(0)
        shutil.copyfileobj(said, sys.stdout.buffer)
        sys.stdout.flush()
        said.close()
    return code


if __name__ == "__main__":
    if sys.argv[1:]:
        os.execv(sys.executable, [*_PYTEST, *sys.argv[1:]])  # noqa: S606 - no shell is wanted
    sys.exit(main())
