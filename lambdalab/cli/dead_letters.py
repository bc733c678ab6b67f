"""The commands of dead-letter queues: dlq list, show, redrive."""

import json
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.text import Text

from lambdalab.cli import EXIT_INTERRUPTED
from lambdalab.cli.app import app
from lambdalab.cli.place import place_of
from lambdalab.cli.running import StackName, TargetName
from lambdalab.errors import AccessError
from lambdalab.report.console import counted_progress, make_console

if TYPE_CHECKING:
    from lambdalab.aws.dead_letters import DeadLetter, Depth

dlq = typer.Typer(
    help="Messages that were given up: count them, read them, send them back.",
    epilog="Example:  lambdalab dlq list\n\nExample:  lambdalab dlq redrive --language go --rate 5 --yes",
    no_args_is_help=True,
)
app.add_typer(dlq, name="dlq")

Target = Annotated[TargetName, typer.Option(help="Where the queues are.")]
Languages = Annotated[
    list[str] | None, typer.Option("--language", help="Only this language's queue; may be repeated. All by default.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@dlq.command("list", epilog="Example:  lambdalab dlq list --target aws --stack-name lambdalab-load")
def list_(
    context: typer.Context,
    target: Target = TargetName.LOCAL,
    stack_name: StackName = "lambdalab",
    as_json: AsJson = False,
) -> None:
    """Count the messages of every dead-letter queue, and tell how old the oldest is."""
    from lambdalab.aws.dead_letters import dead_letter_queues, depth

    place = place_of(context, target, stack_name)
    depths = [depth(place.aws, queue) for queue in dead_letter_queues(place.stack)]
    if as_json:
        _print_json(depths)
        return
    from lambdalab.report.layout import print_whole

    print_whole(make_console(), _render_depths(depths, datetime.now(UTC).timestamp() * 1000))


@dlq.command(epilog="Example:  lambdalab dlq show --language python --limit 3 --json")
def show(
    context: typer.Context,
    target: Target = TargetName.LOCAL,
    stack_name: StackName = "lambdalab",
    language: Languages = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many messages of each queue.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Read messages and give them back; their receive count rises by one."""
    from lambdalab.aws.dead_letters import dead_letter_queues, look

    place = place_of(context, target, stack_name)
    queues = dead_letter_queues(place.stack, language or ())
    letters = [letter for queue in queues for letter in look(place.aws, queue, at_most=limit)]
    if as_json:
        _print_json(letters)
        return
    console = make_console()
    for part in _render_letters(letters):
        console.print(part, soft_wrap=True)


@dlq.command(epilog="Example:  lambdalab dlq redrive --language go --rate 5 --yes")
def redrive(
    context: typer.Context,
    target: Target = TargetName.LOCAL,
    stack_name: StackName = "lambdalab",
    language: Languages = None,
    rate: Annotated[int, typer.Option(min=1, max=500, help="Messages per second, to each queue in turn.")] = 10,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would be done.")] = False,
) -> None:
    """Send messages back to the queue they came from, unchanged. A dry run unless --yes is given."""
    from lambdalab.aws.dead_letters import dead_letter_queues, depth
    from lambdalab.aws.dead_letters import redrive as move

    place = place_of(context, target, stack_name)
    refused: list[str] = []
    twice: list[str] = []
    with _stopped_by_signal() as stop, _noted(refused, twice):
        for queue in dead_letter_queues(place.stack, language or ()):
            if stop.is_set():
                break
            before = depth(place.aws, queue, look_at=0)
            there = before.visible
            where = f"from {queue.url} to {queue.source_url}"
            if not yes or not there:
                hidden = f"; hidden, for a minute if a redrive was killed: {before.hidden}" if before.hidden else ""
                typer.echo(
                    f"{queue.language}: {_messages(there)} would go {where}, in about {there / rate:.0f} s{hidden}"
                )
                continue
            with counted_progress(f"redriving {queue.language}", there) as progress:
                done = move(place.aws, queue, per_s=rate, stop=stop, progress=progress)
            if done.refused:
                refused.append(f"{queue.source_url} did not take {_messages(done.refused)} ({done.refusal})")
            if done.twice:
                twice.append(f"{queue.url} did not give up {_messages(done.twice)} that went ({done.undeleted})")
            left = "not known"
            try:
                rest = depth(place.aws, queue, look_at=0)
                left = str(rest.visible + rest.hidden)
            finally:
                typer.echo(f"{queue.language}: {_messages(done.moved)} went {where}; left: {left}")
    if refused or twice:
        raise AccessError("; ".join(refused + twice), next_step=_after(refused=bool(refused), twice=bool(twice)))
    if stop.is_set():
        typer.echo("lambdalab: interrupted; what was in hand was finished, and nothing is lost.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    if not yes:
        typer.echo("nothing was moved; add --yes to do it", err=True)


@contextmanager
def _noted(*problems: list[str]) -> Iterator[None]:
    """What is known already is said as well when a queue does not answer."""
    try:
        yield
    except AccessError as error:
        for problem in (one for some in problems for one in some):
            error.add_note(f"{problem}.")
        raise


def _after(*, refused: bool, twice: bool) -> str:
    """What to do about messages that stayed."""
    steps = ["look at them with `lambdalab dlq show`"]
    if refused:
        steps.append("redrive again what was refused")
    if twice:
        steps.append("what did not go away went already: redriving sends it once more, which writes the same items")
    return ", and ".join(steps)


@contextmanager
def _stopped_by_signal() -> Iterator[threading.Event]:
    """Set by Ctrl-C or SIGTERM, so that what is in hand is finished; the second one ends it at once."""
    stop = threading.Event()

    def handle(_: int, __: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _messages(count: int) -> str:
    return f"{count} message" if count == 1 else f"{count} messages"


def _print_json(found: object) -> None:
    import msgspec

    typer.echo(json.dumps(msgspec.to_builtins(found), indent=2))


def _render_depths(depths: "Sequence[Depth]", now_ms: float) -> Group:
    """How many messages each queue holds, and for how long."""
    from lambdalab.report.layout import new_table

    table = new_table("language", numbers=("messages", "hidden", "oldest"))
    for name in ("dead-letter queue", "came from"):
        table.add_column(name, no_wrap=True)
    for of in depths:
        oldest = "" if of.oldest_sent_at_ms is None else _age(now_ms - of.oldest_sent_at_ms)
        if of.looked_at < of.visible:
            oldest = f"at least {oldest}" if oldest else ""
        table.add_row(of.language, str(of.visible), str(of.hidden), oldest, of.queue_url, of.source_queue_url)
    return Group(table)


def _render_letters(letters: "Sequence[DeadLetter]") -> Iterator[Text]:
    """Message after message: what it is, why it was given up if that is known, its attributes, its body."""
    if not letters:
        yield Text("no message is there to be read")
    for letter in letters:
        sent = datetime.fromtimestamp(letter.sent_at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        yield Text(f"{letter.language} {letter.message_id}", style="bold")
        yield Text(f"  sent {sent}, received {letter.receive_count} times, this look included")
        if letter.error is not None:
            yield Text(f"  {letter.error['code']}: {letter.error['message']}", style="red")
        for name, attribute in letter.attributes.items():
            value = attribute.get("StringValue", attribute.get("BinaryValue", ""))
            yield Text(f"  {name} ({attribute['DataType']}): {json.dumps(value)}")
        yield Text(f"  {json.dumps(letter.body)}")


def _age(age_ms: float) -> str:
    return str(timedelta(seconds=max(0, round(age_ms / 1000))))
