"""The commands of the local stack: up, status, down, invoke."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from lambdalab.cli.app import EXIT_VERDICT, app
from lambdalab.console import make_console, say
from lambdalab.errors import PlaneError, UsageError

if TYPE_CHECKING:
    from lambdalab.local.stack import LocalStack

CpuScale = Annotated[
    float,
    typer.Option(min=0.05, max=20, help="Multiply every CPU share: models a slower (below 1) or faster core."),
]


@app.command(epilog="Example:  lambdalab up --port 4600 --parameter MemorySize=512")
def up(
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
        typer.Option(help="Template parameter KEY=VALUE that differs from samconfig's local ones; may be repeated."),
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(help="A latency model of latencies/, or the path of one: services answer as late as it says."),
    ] = None,
    cpu_scale: CpuScale = 1.0,
) -> None:
    """Bring up a local stack: emulator, template.yaml deployed to it, and the plane that runs the functions."""
    from lambdalab.local.stack import bring_up, running_stack

    parameters = {}
    for text in parameter or []:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"--parameter {text!r} is not KEY=VALUE", next_step="write for example MemorySize=512")
        parameters[key] = value
    if running_stack() is not None:
        raise UsageError(
            "a local stack is up already", next_step="see `lambdalab status`, or end it with `lambdalab down`"
        )
    stack = bring_up(say, port=port, parameters=parameters, latency=latency, cpu_scale=cpu_scale)
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


@app.command(epilog="Example:  lambdalab calibrate")
def calibrate() -> None:
    """Measure how fast one core of this machine is; runs record it."""
    from lambdalab.calibration import calibrate as measure

    found = measure()
    typer.echo(
        f"{found.million_rounds_per_s:.3f} million rounds/s on one core with {found.python} "
        f"({found.slowest:.3f} to {found.fastest:.3f})"
    )


@app.command(epilog="Example:  lambdalab down")
def down() -> None:
    """End the local stack; the emulator keeps nothing."""
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
) -> None:
    """Invoke one function of the local stack: its answer on standard output, its log on standard error."""
    from lambdalab.invocation import invoke_local, read_event

    payload = read_event(event)
    result = invoke_local(local_stack(), function, payload)
    typer.echo(result.log, err=True, nl=False)
    typer.echo(result.payload)
    if result.function_error is not None:
        raise typer.Exit(EXIT_VERDICT)


def local_stack() -> "LocalStack":
    """The stack that is up.

    Raises:
        PlaneError: none is.
    """
    from lambdalab.local.stack import running_stack

    stack = running_stack()
    if stack is None:
        raise PlaneError("no local stack is up", next_step="start one with `lambdalab up`, or add --up to a run")
    return stack
