"""The command line. What each command does is a Python call documented where it lives."""

import os
import signal
import sys
from typing import Final, NoReturn

EXIT_INTERRUPTED: Final = 130


def main() -> NoReturn:
    """Runs the command line, and ends with an exit code (docs/cli.md). Ctrl-C while it still loads is no traceback."""
    try:
        from lambdalab.cli.app import run_app

        code = run_app()
    except BrokenPipeError:  # of `| head`, which has read enough: end as every other program does
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        raise
    except KeyboardInterrupt:
        sys.stderr.write("lambdalab: interrupted\n")
        code = EXIT_INTERRUPTED
    sys.exit(code)
