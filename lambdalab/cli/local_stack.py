"""The commands of the local stack: up, status, down, invoke, sam-local, logs."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambdalab.cli import EXIT_INTERRUPTED, completion
from lambdalab.cli.app import EXIT_VERDICT, app
from lambdalab.errors import PlaneError, UsageError
from lambdalab.report.console import make_console, print_line, reader_is_gone, say

if TYPE_CHECKING:
    from lambdalab.local.stack import LocalStack
    from lambdalab.lock import Lock

Scenario = Annotated[
    str | None,
    typer.Argument(
        autocompletion=completion.scenarios, help="The scenario's name; by default that of the current folder."
    ),
]
CpuScale = Annotated[
    float,
    typer.Option(min=0.05, max=20, help="Multiply every CPU share: models a slower (below 1) or faster core."),
]


@app.command(
    epilog="Example:  lambdalab up --port 4600 --parameter MemorySize=512\n\nExample:  lambdalab up --settings load"
)
def up(
    scenario: Scenario = None,
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65534,
            help="Port of the emulator on 127.0.0.1; the plane takes the next one. 0: any two free ones.",
        ),
    ] = 4566,
    parameter: Annotated[
        list[str] | None,
        typer.Option(help="Template parameter KEY=VALUE that differs from those of --settings; may be repeated."),
    ] = None,
    settings: Annotated[
        str,
        typer.Option(help="Environment of the scenario's samconfig.toml: local for the strict protocol, or load."),
    ] = "local",
    latency: Annotated[
        str | None,
        typer.Option(help="A latency model of latencies/, or the path of one: adds these service latencies."),
    ] = None,
    cpu_scale: CpuScale = 1.0,
) -> None:
    """Bring up a local stack: emulator, a scenario's template deployed to it, and the plane that runs the functions."""
    from lambdalab.local.stack import bring_up
    from lambdalab.lock import hold_stack
    from lambdalab.project import scenario_folder
    from lambdalab.scenario.found import folder_of

    parameters = {}
    for text in parameter or []:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"--parameter {text!r} is not KEY=VALUE", next_step="write for example MemorySize=512")
        parameters[key] = value
    folder = scenario_folder() if scenario is None else folder_of(scenario)
    with hold_stack():
        stack = bring_up(
            say, port=port, parameters=parameters, folder=folder, settings=settings, latency=latency,
            cpu_scale=cpu_scale,
        )  # fmt: skip
    typer.echo(
        f"The local stack {stack.stack_name} is up.\n"
        f"  export AWS_ENDPOINT_URL={stack.endpoint_url} AWS_ENDPOINT_URL_LAMBDA={stack.lambda_endpoint_url}\n"
        "  export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1"
    )


@app.command(epilog="Example:  lambdalab status --json")
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything the plane knows as JSON.")] = False,
) -> None:
    """Show the local stack: where it listens, its functions, their environments and counts."""
    from lambdalab.report.layout import print_whole
    from lambdalab.report.status import render_status

    stack = local_stack()
    found = stack.status()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_whole(make_console(), render_status(stack.endpoint_url, stack.lambda_endpoint_url, found))


@app.command(epilog="Example:  lambdalab down")
def down() -> None:
    """End the local stack; the emulator keeps nothing. Refused while a run measures on it."""
    from lambdalab.lock import hold_stack

    with hold_stack():  # before what takes long to import, so that a refusal comes at once
        from lambdalab.local.stack import running_stack, take_down

        stack = running_stack()
        if stack is None:
            typer.echo("no local stack is up")
            return
        say("stopping the local stack")
        take_down(stack)


@app.command(epilog="Example:  lambdalab invoke PythonIngest -e events/sqs-small.json")
def invoke(
    function: Annotated[str, typer.Argument(help="Logical id or name of a function of the local stack.")],
    event: Annotated[str, typer.Option("--event", "-e", help="A JSON file, or - for standard input.")],
    debug: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, metavar="PORT", help="Run it under a debugger that listens on this port of 127.0.0.1."
        ),
    ] = None,
) -> None:
    """Invoke one function of the local stack: its answer on standard output, its log on standard error as it comes."""
    from lambdalab.invoke.debugging import debug_local
    from lambdalab.invoke.invocation import invoke_local, read_event

    payload = read_event(event)
    console = make_console(stderr=True)

    def show(line: str) -> None:
        print_line(console, line)

    if debug is None:
        result = invoke_local(local_stack(), function, payload, show)
    else:
        result = debug_local(local_stack(), function, payload, port=debug, on_line=show, progress=say)
    typer.echo(result.payload)
    if result.function_error is not None:
        raise typer.Exit(EXIT_VERDICT)


@app.command(
    "sam-local",
    epilog="Example:  lambdalab sam-local\n\nExample:  lambdalab sam-local events/sqs-small.json events/sqs-batch.json",
)
def sam_local(
    events: Annotated[list[str] | None, typer.Argument(help="Event files; all of events/ by default.")] = None,
) -> None:
    """Run the functions in Docker with sam local, and compare what they answer and write with the local stack."""
    from rich.console import Group

    from lambdalab.invoke.sam_local import compare
    from lambdalab.local.docker import require_engine
    from lambdalab.local.stack import stack_for_a_while
    from lambdalab.lock import hold_stack
    from lambdalab.project import project_root
    from lambdalab.report.layout import new_table, print_whole

    require_engine()  # before minutes are spent on a stack
    chosen = events or sorted(map(str, (project_root() / "events").glob("*.json")))
    with hold_stack(), stack_for_a_while(say, folder=project_root()) as stack:
        found = compare(stack, chosen, invoke=chosen, progress=say)
    table = new_table("function", "event", "sam local", "compared with the local stack", numbers=())
    for one in found:
        table.add_row(one.function, Path(one.event).name, one.command, one.difference or "same answer, same items")
    print_whole(make_console(), Group(table))
    if any(one.difference is not None for one in found):
        raise typer.Exit(EXIT_VERDICT)


@app.command(epilog="Example:  lambdalab logs PythonIngest --follow --since 1h")
def logs(
    function: Annotated[
        str | None, typer.Argument(help="Logical id or name of a function of the local stack; all by default.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Follow new lines, until Ctrl-C.")] = False,
    since: Annotated[str, typer.Option(help="Begin at this time: 30s, 5m, 1h, 2d, 1w ago, or ISO 8601.")] = "10m",
) -> None:
    """Show what the functions of the local stack, and Lambda about them, wrote to their log groups."""
    from lambdalab.invoke.live import read_lines, since_ms

    begin_ms = since_ms(since, int(time.time() * 1000))
    console = make_console()

    def waiting() -> None:
        if reader_is_gone():  # of `| head`, also while no line comes
            raise BrokenPipeError

    try:
        for line in read_lines(local_stack(), function, begin_ms, follow=follow, waiting=waiting):
            print_line(console, line.message, function=line.function, timestamp_ms=line.timestamp_ms)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


@app.command(epilog="Example:  lambdalab calibrate")
def calibrate() -> None:
    """Measure how fast one core of this machine is; runs record it."""
    from lambdalab.run.calibration import calibrate as measure

    found = measure()
    typer.echo(
        f"{found.million_rounds_per_s:.3f} million rounds/s on one core with {found.python} "
        f"({found.slowest:.3f} to {found.fastest:.3f})"
    )


def local_stack(scenario: str | None = None) -> "LocalStack":
    """The stack that is up; ``scenario`` is the one whose stack is needed, when only that will do.

    Raises:
        PlaneError: none is.
    """
    from lambdalab.local.stack import running_stack
    from lambdalab.scenario.found import current_scenario

    stack = running_stack()
    if stack is None:
        up = "lambdalab up" if scenario in (None, current_scenario()) else f"lambdalab up {scenario}"
        raise PlaneError("no local stack is up", next_step=f"start one with `{up}`, or add --up to a run")
    return stack


@contextmanager
def held_local_stack(
    scenario: str, *, temporary: bool, latency: str | None = None, cpu_scale: float | None = None
) -> "Iterator[tuple[LocalStack, Lock]]":
    """Holds the local stack for one run of a scenario; brings it up for as long if asked to and none is up.

    Raises:
        InUseError: another process uses it.
        PlaneError: none is up, or it cannot be brought up.
    """
    from lambdalab.lock import hold_stack

    with hold_stack() as lock:  # before what takes long to import, so that a refusal comes at once
        if temporary:
            from lambdalab.local.stack import stack_for_a_while
            from lambdalab.scenario.found import folder_of

            folder = folder_of(scenario)
            with stack_for_a_while(say, latency=latency, cpu_scale=cpu_scale, folder=folder) as stack:
                yield stack, lock
        else:
            yield local_stack(scenario), lock
