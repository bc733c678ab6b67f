"""Measures how the load generator sends; with ``--end-to-end``, how messages go through a local stack.

Exit code 0: measured; 1: the generator missed something demanded; 2 and 3: as of lambdalab; 130: Ctrl-C.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.load import end_to_end, generator
from benchmarks.load.stack import Emulator
from lambdalab.cli import EXIT_INTERRUPTED
from lambdalab.errors import LambdalabError

EMULATORS = {None: (Emulator.LAB,), "only": (Emulator.STOCK,), "both": (Emulator.LAB, Emulator.STOCK)}


def main() -> int:
    """Parses the arguments and runs one of the two benchmarks."""
    parser = _parser()
    arguments = parser.parse_args()
    if not arguments.end_to_end:
        if arguments != parser.parse_args([]):
            parser.error("every other option needs --end-to-end")
        generator.run()
        return 0
    try:
        end_to_end.run(
            arguments.languages,
            arguments.rates,
            arguments.seconds,
            EMULATORS[arguments.stock_emulator],
            json_file=arguments.json,
            profiled=arguments.profile,
        )
    except LambdalabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    rates = "; ".join(f"{language} {','.join(map(str, found))}" for language, found in end_to_end.RATES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--end-to-end", action="store_true", help="measure a local stack under load instead of the generator alone"
    )
    parser.add_argument(
        "--languages",
        type=_languages,
        default=tuple(end_to_end.RATES),
        help="functions, with commas (default go,python)",
    )
    parser.add_argument("--rates", type=_rates, help=f"messages per second of the steps, with commas (default {rates})")
    parser.add_argument(
        "--seconds",
        type=_positive,
        default=end_to_end.SECONDS,
        help=f"how long each rate is offered (default {end_to_end.SECONDS})",
    )
    parser.add_argument("--json", type=_new_file, metavar="FILE", help="also write every figure to this file")
    parser.add_argument(
        "--stock-emulator",
        nargs="?",
        const="only",
        choices=("only", "both"),
        help="serve the emulator by MiniStack's own server and queues; both: measure each step with either, in turns",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="offer the highest rate once more and name the functions in which emulator or plane spend most time",
    )
    return parser


def _languages(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if unknown := [language for language in found if language not in end_to_end.RATES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no language; choose from {','.join(end_to_end.RATES)}")
    return found


def _rates(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _new_file(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
