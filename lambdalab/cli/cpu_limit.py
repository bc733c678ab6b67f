"""What the commands that measure say, and let one ask for, where nothing limits the CPU of local functions."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lambdalab.run.target import AwsTarget

WithoutCpuLimit = Annotated[
    bool,
    typer.Option(
        "--without-cpu-limit", help="Measure several memory sizes locally even if nothing limits CPU and memory here."
    ),
]


def caution(target: "AwsTarget") -> None:
    """Says before functions run that nothing limits their CPU and memory, if that is so."""
    from lambdalab.run.circumstances import caution_before

    if (said := caution_before(target)) is not None:
        typer.echo(f"caution: {said}", err=True)
