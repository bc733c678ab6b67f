"""The long form: ``make chaos SEED=7 MESSAGES=1000``."""

import argparse
import contextlib
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from chaos.faults import LEAST_MESSAGES, long_form
from chaos.suite import Suite


def main() -> int:
    """Runs the suite once; 0 when nothing was lost, doubled or dead-lettered that should not be, else 1."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", default=secrets.token_hex(4), help="of faults and poison; drawn if not given")
    parser.add_argument("--messages", type=int, default=long_form().messages, help="of each language, of 10 items each")
    asked = parser.parse_args()
    if asked.messages < LEAST_MESSAGES:
        parser.error(f"--messages is {asked.messages}; write at least {LEAST_MESSAGES}")
    for number in (signal.SIGINT, signal.SIGTERM):  # both end the local stack as well, in the background too
        signal.signal(number, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="lambdalab-chaos-"))
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

    say(f"seed {asked.seed}, evidence in {folder}")
    problems = ["it did not come to its end"]
    try:
        result = Suite(folder, asked.seed, long_form(asked.messages), say).run()
        problems = result.problems
        print(f"\n{result.table()}\n\n{result.seconds:.0f} s, seed {asked.seed}")
    except KeyboardInterrupt:
        say("interrupted; nothing is left running")
    finally:
        if problems:
            print("\nFAILED:", *problems, sep="\n  ", file=sys.stderr)
            print(f"Again with SEED={asked.seed}; evidence is kept in {folder}.", file=sys.stderr)
        else:
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
