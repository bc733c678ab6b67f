"""The arguments of a load run, on Locust's command line and in the form of its web page, and what they mean.

Each is a text to Locust, so that whatever is wrong with one is said by this project, in both places alike.
"""

import re
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from lambdalab.design.arms import Mode
from lambdalab.errors import LoadPlanError
from lambdalab.planning.load_schedule import Arrivals, LoadPlan, Message, Shape, check_plan
from lambdalab.planning.protocol import load_protocol
from lambdalab.project import results_folder
from lambdalab.settings_file import choose

T = TypeVar("T")

TARGETS: Final = ("local", "aws")
_SPAN = re.compile(r"(?=.)(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?")
_SHARED = re.compile(r"(?P<name>[^:]*)(?::(?P<share>\d+))?")
_KIND = re.compile(r"(?P<label>[^/*]*)(?:/(?P<mode>[^/*]*))?(?:\*(?P<share>\d+))?")
_SIZE_X_COUNT = re.compile(r"(?P<size>\d+)Bx(?P<count>\d+)")


class Argument(NamedTuple):
    """One argument; ``choices`` where only some words are taken, ``of_form`` whether a run's form has it."""

    default: str
    help: str
    choices: tuple[str, ...] | None = None
    of_form: bool = True


ARGUMENTS: Final[Mapping[str, Argument]] = {
    "shape": Argument("constant", "How the rate goes over time.", tuple(Shape)),
    "rate": Argument("10", "Messages per second: constant, ramp, spike, soak."),
    "duration": Argument("60s", "How long the rate is held: constant, ramp, soak. 90, 90s, 1m30s, 2h."),
    "rates": Argument("5,10,20,40", "Rates of the steps, with commas: steps."),
    "hold": Argument("30s", "How long each step is held: steps, spike, soak."),
    "ramp": Argument("30s", "How long the rate rises from 0: ramp."),
    "peak-rate": Argument("50", "Messages per second in the middle: spike."),
    "peak": Argument("10s", "How long that lasts: spike."),
    "replay": Argument("", "A CSV file whose first column has the time of each message: replay."),
    "blocks": Argument("10", "How often every language and message is sent: strict."),
    "arrivals": Argument("constant", "At equal distances, or at random.", tuple(Arrivals)),
    "languages": Argument("python,go", "Which functions, with ratios if any: go, or python:3,go:1."),
    "mix": Argument(
        "1024Bx10", "Messages as SIZEBxCOUNT or a label of protocols/strict.toml, then /mode, then *share."
    ),
    "batch-size": Argument("1", "Messages per request, 1 to 10; above 1 it is SendMessageBatch."),
    "max-messages": Argument("1000000", "No more are sent."),
    "max-time": Argument("4h", "Stop sending after this time."),
    "max-usd": Argument("10", "On AWS: nothing more is sent when so much may have been spent."),
    "target": Argument("local", "The local stack, or one on AWS by the ordinary AWS environment.", TARGETS),
    "stack-name": Argument("lambdalab-load", "The deployed stack on AWS."),
    "results": Argument("results", "The folder of run directories; empty: a run leaves nothing behind.", of_form=False),
    "seed": Argument("", "Of random arrivals and orders; drawn when empty."),
}
"""Every argument. Those of the form may change from run to run of one page."""


def add_arguments(parser: Any) -> None:
    """Adds the arguments to Locust's parser (its event ``init_command_line_parser``)."""
    parser.allow_abbrev = False  # else a mistyped option is taken for another without a word
    for name, argument in ARGUMENTS.items():  # not in a group of their own, which the form would leave out
        default = str(results_folder()) if name == "results" else argument.default
        added = parser.add_argument(f"--{name}", default=default, help=argument.help, choices=argument.choices)
        added.include_in_web_ui = argument.of_form  # as Locust's parser does with its own keyword


def check_typed(arguments: Sequence[str]) -> None:
    """Refuses arguments of a run without a page that cannot be run, without Locust and before anything is started.

    Args:
        arguments: the command line; what is Locust's own is not looked at.

    Raises:
        LoadPlanError: one is wrong.
    """
    parser = ArgumentParser(add_help=False, exit_on_error=False)
    add_arguments(parser)
    try:
        options, _ = parser.parse_known_args(arguments)
    except ArgumentError as error:
        raise LoadPlanError(f"load: {error}", next_step="see `locust -f load --help`") from error
    check_plan(plan_of(options, seed=0))


def plan_of(options: Namespace, seed: int) -> LoadPlan:
    """The plan that arguments stand for; it is not checked yet (``check_plan``).

    Args:
        options: as Locust holds them, from the command line or the form.
        seed: where none is given.

    Raises:
        LoadPlanError: one cannot be understood, or its file cannot be read; tells name, value and next step.
    """

    def read(name: str, convert: Callable[[str], T]) -> T:
        return _converted(name, str(getattr(options, name.replace("-", "_"))).strip(), convert)

    shape = read("shape", Shape)
    return LoadPlan(
        shape=shape,
        arrivals=read("arrivals", Arrivals),
        seed=seed if not options.seed else read("seed", int),
        rate=read("rate", float),
        duration_s=read("duration", seconds),
        rates=tuple(_converted("rates", part, float) for part in _parts(options.rates)),
        hold_s=read("hold", seconds),
        ramp_s=read("ramp", seconds),
        peak_rate=read("peak-rate", float),
        peak_s=read("peak", seconds),
        times_s=read_times(Path(options.replay)) if shape is Shape.REPLAY and options.replay else (),
        blocks=read("blocks", int),
        languages=_languages(options.languages),
        mix=tuple(map(_kind, _parts(options.mix))),
        batch_size=read("batch-size", int),
        max_messages=read("max-messages", int),
        max_s=read("max-time", seconds),
        max_usd=read("max-usd", float),
    )


def seconds(text: str) -> float:
    """A time such as ``90``, ``90s``, ``1m30s`` or ``0.5h``.

    Raises:
        ValueError: it is not one.
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return sum(float(found[unit] or 0) * size for unit, size in (("h", 3600), ("m", 60), ("s", 1)))


def read_times(path: Path) -> tuple[float, ...]:
    """Reads the times of a replay: the first column of a CSV file, as seconds or ISO 8601, after a heading if any.

    Returns:
        Seconds after the first one.

    Raises:
        LoadPlanError: the file cannot be read, or a line has no time or an earlier one than the line before.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise LoadPlanError(f"replay file {path} cannot be read: {error}", next_step="check the path") from error
    times: list[float] = []
    for number, line in enumerate(lines, 1):
        cell = line.split(",")[0].strip().strip('"')
        if not cell:
            continue
        time_s = _time(cell)
        if time_s is None:
            if number == 1:
                continue  # a heading
            raise LoadPlanError(
                f'{path}:{number}: "{cell[:40]}" is no time',
                next_step="write seconds, or ISO 8601 as 2026-11-21T10:00:00Z",
            )
        if times and time_s < times[-1]:
            raise LoadPlanError(
                f'{path}:{number}: "{cell[:40]}" is before the line above', next_step="sort the file by time"
            )
        times.append(time_s)
    return tuple(time_s - times[0] for time_s in times)


def _time(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(cell).timestamp()
    except ValueError:
        return None


def _converted(name: str, text: str, convert: Callable[[str], T]) -> T:
    try:
        return convert(text)
    except ValueError:
        argument = ARGUMENTS[name]
        next_step = choose(text, argument.choices) if argument.choices else f"write for example {argument.default or 7}"
        raise LoadPlanError(f'--{name} is "{text}"', next_step=next_step) from None


def _parts(text: str) -> list[str]:
    return [part.strip() for part in str(text).split(",") if part.strip()]


def _languages(text: str) -> dict[str, int]:
    shares: dict[str, int] = {}
    for part in _parts(text):
        found = _SHARED.fullmatch(part)
        if found is None or found["name"] in shares:
            raise LoadPlanError(f'--languages has "{part}"', next_step="write each once, such as python:3,go:1")
        shares[found["name"]] = int(found["share"] or 1)
    return shares


def _kind(text: str) -> Message:
    """One message of a mix, such as ``SMALL_1KBx100``, ``1024Bx10/batch`` or ``65536Bx100*3``."""
    found = _KIND.fullmatch(text)
    known = {load.label: load for load in load_protocol("strict").loads}
    if found is None:
        raise LoadPlanError(f'--mix has "{text}"', next_step="write for example 1024Bx10/batch*3")
    label, mode = found["label"], found["mode"] or Mode.SEQUENTIAL.value
    if mode not in tuple(Mode):
        raise LoadPlanError(f'--mix has mode "{mode}"', next_step=choose(mode, tuple(Mode)))
    load, sized = known.get(label), _SIZE_X_COUNT.fullmatch(label)
    if load is None and sized is None:
        raise LoadPlanError(f'--mix has label "{label}"', next_step=f"{choose(label, known)}; or write SIZEBxCOUNT")
    size_bytes, count = (load.size_bytes, load.count) if load else (int(sized["size"]), int(sized["count"]))  # type: ignore[index]
    # Two modes of one label are two kinds of message, and results are grouped by label.
    name = label if mode == Mode.SEQUENTIAL else f"{label}-{mode}"
    return Message(label=name, size_bytes=size_bytes, count=count, mode=Mode(mode), share=int(found["share"] or 1))
