"""Serves the emulator by MiniStack's own server (hypercorn and h11), with MiniStack's own queues.

It takes the place of ``lambdalab/local/emulator_server`` and runs in the emulator's own Python as that does. It gets
the same arguments, host and port; MiniStack reads both from its environment. Only the answer at ``ABOUT_PATH`` is the
lab's, because ``lambdalab load`` asks for it.
"""

import runpy
import sys
from pathlib import Path
from typing import Final

import ministack.app

_SERVER: Final = Path(__file__).parents[3] / "lambdalab" / "local" / "emulator_server"


def main() -> None:
    """Serves until SIGTERM."""
    sys.path.insert(0, str(_SERVER))  # it imports its own modules by their plain names
    with_about = runpy.run_path(str(_SERVER / "__main__.py"))["with_about"]
    ministack.app.app = with_about(ministack.app.app, {"slow_queues": "MiniStack as it comes"})
    del sys.argv[1:]
    ministack.app.main()


if __name__ == "__main__":
    main()
