"""Runs pytest with the arguments it is given; without any, all tests, those of whole runs beside the others.

Most tests wait, so two halves at once take little more than the longer one. Each is an ordinary pytest: both hear
Ctrl-C from the terminal and clean up, and both name at their end what they left out.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Final

BESIDE: Final = ("tests/e2e", "tests/load")
_PYTEST: Final = (sys.executable, "-m", "pytest")


def main() -> int:
    """Returns the exit code of a half that failed, 0 when none did."""
    names = " and ".join(BESIDE)
    print(f"{names} run beside the other tests; what they say comes after theirs", flush=True)
    signal.signal(signal.SIGINT, lambda *_: None)  # both hear it as well, and are waited for
    with tempfile.TemporaryFile() as said:
        beside = subprocess.Popen([*_PYTEST, *BESIDE], stdout=said, stderr=subprocess.STDOUT)
        others = subprocess.Popen([*_PYTEST, *(f"--ignore={folder}" for folder in BESIDE)])

        def interrupt(*_: object) -> None:
            for half in (beside, others):
                half.send_signal(signal.SIGINT)

        signal.signal(signal.SIGTERM, interrupt)
        code = others.wait()
        if beside.poll() is None:
            print(f"waiting for {names}", flush=True)
        code = beside.wait() or code
        said.seek(0)
        shutil.copyfileobj(said, sys.stdout.buffer)
    return code


if __name__ == "__main__":
    if sys.argv[1:]:
        os.execv(sys.executable, [*_PYTEST, *sys.argv[1:]])  # noqa: S606 - no shell is wanted
    sys.exit(main())
