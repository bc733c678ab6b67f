"""The command map: the pipeline of a deployed stack, as text, JSON or SVG."""

from pathlib import Path
from typing import Annotated

import typer

from lambdalab.cli.app import app
from lambdalab.cli.place import place_of
from lambdalab.cli.running import StackName, TargetName
from lambdalab.errors import StorageError
from lambdalab.report.console import make_console


@app.command(
    "map",
    epilog="Example:  lambdalab map\n\nExample:  lambdalab map --svg pipeline.svg\n\n"
    "Example:  lambdalab map --target aws --stack-name my-stack --json",
)
def map_(
    context: typer.Context,
    target: Annotated[TargetName, typer.Option(help="Where the stack is.")] = TargetName.LOCAL,
    stack_name: StackName = "lambdalab",
    as_json: Annotated[bool, typer.Option("--json", help="Print the graph as JSON.")] = False,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Also draw it into this SVG file.")] = None,
) -> None:
    """Show the pipeline of a deployed stack: what wakes each function, where work goes next, what does not run."""
    import msgspec

    from lambdalab.report.map_svg import draw_map
    from lambdalab.report.map_text import render_map

    graph = place_of(context, target, stack_name).pipeline()
    if svg is not None:
        try:
            svg.write_text(draw_map(graph), encoding="utf-8")
        except OSError as error:
            raise StorageError(
                f"{svg} cannot be written: {error.strerror}", next_step="name another file with --svg"
            ) from error
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(graph)).decode())
        return
    console = make_console()
    for line in render_map(graph, console.width):
        console.print(line, soft_wrap=True)
