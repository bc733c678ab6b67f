"""The command line: parse, call, print, exit. What each command does is a Python call documented where it lives."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lambdalab import __version__
from lambdalab.errors import InvalidRunError, LambdalabError, PlaneError, UsageError

EXIT_VERDICT: Final = 1
EXIT_INTERRUPTED: Final = 130
PIPED_WIDTH: Final = 120

app = typer.Typer(
    help="Measures what an AWS Lambda function costs and how fast it is, in Python and in Go.",
    epilog="Exit codes: 0 good, 1 a verdict or a function failed, 2 usage, 3 environment, 4 invalid run, 130 Ctrl-C.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


class TargetName(StrEnum):
    """Where a run happens."""

    LOCAL = "local"
    AWS = "aws"


def _console(*, stderr: bool = False) -> Console:
    """Colour and width of the terminal; piped, a width at which no table breaks."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


@contextmanager
def _steps() -> Iterator[Any]:
    """Shows what is being done: a spinner on a terminal, a line each where there is none."""
    console = _console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            yield lambda text: status.update(f"{text} ...")
    else:
        yield lambda text: console.print(f"{text} ...")


@app.command(epilog="Example:  lambdalab up --port 4600")
def up(
    port: Annotated[
        int, typer.Option(help="Port of the emulator on 127.0.0.1; the plane takes the next one. 0: any two free ones.")
    ] = 4566,
    parameter: Annotated[
        list[str] | None, typer.Option(help="Template parameter KEY=VALUE that differs from samconfig's local ones.")
    ] = None,
) -> None:
    """Bring up a local stack: emulator, template.yaml deployed to it, and the plane that runs the functions."""
    from lambdalab.local.stack import bring_up, running_stack

    pairs = [text.partition("=") for text in parameter or []]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise UsageError(f"--parameter {key!r} is not KEY=VALUE", next_step="write for example MemorySize=512")
    if running_stack() is not None:
        raise UsageError(
            "a local stack is up already", next_step="see `lambdalab status`, or end it with `lambdalab down`"
        )
    with _steps() as step:
        stack = bring_up(step, port=port, parameters={key: value for key, _, value in pairs})
    _console().print(
        f"The local stack [bold]{stack.stack_name}[/] is up.\n"
        f"  export AWS_ENDPOINT_URL={stack.endpoint_url} AWS_ENDPOINT_URL_LAMBDA={stack.lambda_endpoint_url}\n"
        "  export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1"
    )


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything the plane knows as JSON.")] = False,
) -> None:
    """Show the local stack: where it listens, its functions, their environments and counts."""
    from lambdalab.report.status import render_status

    stack = _local_stack()
    found = stack.status()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _console().print(render_status(stack.endpoint_url, stack.lambda_endpoint_url, found))


@app.command()
def down() -> None:
    """End the local stack; the emulator keeps nothing."""
    from lambdalab.local.stack import running_stack, take_down

    stack = running_stack()
    if stack is None:
        typer.echo("no local stack is up")
        return
    with _steps() as step:
        step("stopping the local stack")
        take_down(stack)


@app.command(epilog="Example:  lambdalab run ingest --blocks 20 --seed 7      lambdalab run --resume latest")
def run(
    scenario: Annotated[str, typer.Argument(help="What to measure.")] = "ingest",
    protocol: Annotated[str, typer.Option(help="A protocol of protocols/, or the path of one.")] = "strict",
    target: Annotated[TargetName, typer.Option(help="Where the functions run.")] = TargetName.LOCAL,
    stack_name: Annotated[str, typer.Option(help="The deployed stack, for --target aws.")] = "lambdalab",
    blocks: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="How often every arm runs; the protocol's own by default.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the order of arms; drawn and recorded by default.")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with an interrupted run: its id, or latest.")] = None,
    results: Annotated[Path, typer.Option(help="Folder of run directories.")] = Path("results"),
    temporary: Annotated[
        bool, typer.Option("--up", help="Bring a local stack up for this run when none is up, and end it afterwards.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="On AWS: spend without asking.")] = False,
) -> None:
    """Run a protocol: send, drain, verify, collect, and print the comparison."""
    from lambdalab.experiment import new_run, resume_run
    from lambdalab.store import RunDirectory

    signal.signal(signal.SIGTERM, _as_interrupt)
    plan = _protocol(scenario, protocol, blocks)
    previous = None if resume is None else RunDirectory.open(results, resume)
    with _target(target, stack_name, temporary=temporary) as place:
        if previous is None:
            if target is TargetName.AWS:
                _confirm(place, plan, yes=yes)
            store = new_run(place, plan, results, seed=seed)
        else:
            store = previous
            resume_run(place, store)
        _execute_and_show(place, store)


@app.command()
def report(
    run_id: Annotated[str, typer.Argument(help="A run's id, its folder, or latest.")] = "latest",
    results: Annotated[Path, typer.Option(help="Folder of run directories.")] = Path("results"),
) -> None:
    """Print a run's comparison again, from its files alone."""
    from lambdalab.store import RunDirectory

    _conclude(RunDirectory.open(results, run_id))


@app.command(epilog="Example:  lambdalab invoke PythonIngest -e events/sqs-small.json")
def invoke(
    function: Annotated[str, typer.Argument(help="Logical id or name of a function of the local stack.")],
    event: Annotated[str, typer.Option("--event", "-e", help="A JSON file, or - for standard input.")],
) -> None:
    """Invoke one function of the local stack: its answer on standard output, its log on standard error."""
    from lambdalab.invocation import invoke_local, read_event

    payload = sys.stdin.buffer.read() if event == "-" else read_event(Path(event))
    result = invoke_local(_local_stack(), function, payload)
    typer.echo(result.log, err=True, nl=False)
    typer.echo(result.payload)
    if result.function_error is not None:
        raise typer.Exit(EXIT_VERDICT)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"lambdalab {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _protocol(scenario: str, name: str, blocks: int | None) -> Any:
    from msgspec.structs import replace

    from lambdalab.protocol import ARMS_OF_SCENARIO, load_protocol

    if scenario not in ARMS_OF_SCENARIO:
        raise UsageError(
            f"there is no scenario {scenario!r}", next_step=f"name one of: {', '.join(sorted(ARMS_OF_SCENARIO))}"
        )
    plan = load_protocol(name)
    if plan.scenario != scenario:
        raise UsageError(
            f"protocol {plan.name} is for scenario {plan.scenario}, not {scenario}",
            next_step=f"run `lambdalab run {plan.scenario} --protocol {name}`",
        )
    return plan if blocks is None else replace(plan, blocks=blocks)


@contextmanager
def _target(name: TargetName, stack_name: str, *, temporary: bool) -> Iterator[Any]:
    from lambdalab.local.stack import stack_for_a_while
    from lambdalab.target import aws_target, local_target

    if name is TargetName.AWS:
        yield aws_target(stack_name)
    elif temporary:
        with _steps() as step:
            context = stack_for_a_while(step)
            stack = context.__enter__()
        try:
            yield local_target(stack)
        finally:
            context.__exit__(None, None, None)
    else:
        yield local_target(_local_stack())


def _confirm(target: Any, plan: Any, *, yes: bool) -> None:
    """Says what a run on AWS can cost at most, and asks."""
    from lambdalab.experiment import ceiling_usd

    trials = plan.blocks * len(plan.arms) * len(plan.loads)
    items = plan.blocks * len(plan.arms) * sum(load.count for load in plan.loads)
    typer.echo(
        f"{trials} messages and {items:,} items to stack {target.stack.name} in {target.region}; "
        f"at most {ceiling_usd(target, plan):.2f} USD, if every invocation ran into its timeout",
        err=True,
    )
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("a run on AWS costs money and nobody can be asked here", next_step="add --yes")
    if not typer.confirm("Go on?", err=True):
        raise typer.Exit(EXIT_INTERRUPTED)


def _execute_and_show(target: Any, store: Any) -> None:
    """Runs, and whatever happens then, shows what was measured before saying what went wrong."""
    from lambdalab.experiment import execute

    problem: LambdalabError | None = None
    interrupted = False
    try:
        with _trials(store.manifest()) as progress:
            execute(target, store, progress)
    except LambdalabError as error:
        problem = error
    except KeyboardInterrupt:
        interrupted = True
    try:
        _conclude(store, fail=False)
    except LambdalabError as error:
        problem = problem or error
    hint = f"go on with `lambdalab run --resume {store.folder.name} --target {target.name}`"
    if problem is not None:
        problem.add_note(f"What was measured is in {store.folder}; {hint}.")
        raise problem
    if interrupted:
        typer.echo(f"interrupted; {hint}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    _conclude(store, quiet=True)


@contextmanager
def _trials(manifest: Any) -> Iterator[Any]:
    """Progress over trials: a bar on a terminal, a line per block where there is none."""
    console = _console(stderr=True)
    protocol = manifest.protocol
    total = protocol.blocks * len(protocol.arms) * len(protocol.loads)
    if not console.is_terminal:
        seen: set[int] = set()

        def line(trial: Any) -> None:
            if trial.block not in seen:
                seen.add(trial.block)
                console.print(f"block {trial.block} of {protocol.blocks} ...")

        yield line
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda trial: bar.update(
            task,
            completed=trial.position,
            description=f"block {trial.block}/{protocol.blocks} {trial.arm} {trial.load.label}",
        )


def _conclude(store: Any, *, fail: bool = True, quiet: bool = False) -> None:
    from lambdalab.experiment import conclude
    from lambdalab.report.terminal import show

    summary = conclude(store)
    if not quiet:
        show(summary, _console())
        _console().print(f"files: {os.path.relpath(store.folder)}", soft_wrap=True)
    if fail and summary.faults:
        raise InvalidRunError(
            f"run {summary.run_id} is invalid: {'; '.join(summary.faults)}",
            next_step=f"read the reasons in {store.folder / 'metrics.csv'} and run it again",
        )


def _local_stack() -> Any:
    from lambdalab.local.stack import running_stack

    stack = running_stack()
    if stack is None:
        raise PlaneError("no local stack is up", next_step="start one with `lambdalab up`, or add --up to a run")
    return stack


def _as_interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Runs the command line; every failure ends as a sentence and an exit code."""
    try:
        app()
    except LambdalabError as error:
        for line in (str(error), *getattr(error, "__notes__", [])):
            typer.echo(f"lambdalab: {line}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)
