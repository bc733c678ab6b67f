"""The command cells: a function for every cell of a design, listed, held to the account's quota, deployed."""

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambdalab.cli.app import app
from lambdalab.cli.local_stack import local_stack
from lambdalab.cli.running import TargetName, refuse_contradictions
from lambdalab.errors import ToolError, UsageError
from lambdalab.report.console import make_console, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lambdalab.build.cells import CellFunction


@app.command(
    epilog="Example:  lambdalab cells cells.toml --only memory_mb=512,1024 --only reserved_concurrency=0\n\n"
    "Example:  lambdalab cells cells.toml --only design=events --only language=go --deploy"
)
def cells(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A cells file: designs, and how their functions are named.")],
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="FACTOR=LEVEL[,LEVEL]: cells with one of these; may be repeated. The design is a factor too."
        ),
    ] = None,
    deploy: Annotated[bool, typer.Option("--deploy", help="Build and deploy them; else nothing is changed.")] = False,
    target: Annotated[TargetName, typer.Option(help="Where; local is the local stack that is up.")] = TargetName.AWS,
    stack_name: Annotated[
        str | None, typer.Option(help="The stack they are added to, on AWS; by default samconfig's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the functions as JSON.")] = False,
) -> None:
    """List a function for every cell of a design with what they reserve, and deploy them with --deploy.

    More than the account has left to reserve is refused before anything is deployed.
    """
    import msgspec

    from lambdalab.aws.clients import Aws
    from lambdalab.build.cells import check_reservation, choose_cells, load_cells, reservable, reserve
    from lambdalab.build.deployment import aws_variables, local_variables
    from lambdalab.scenario.found import folder_of

    refuse_contradictions(context, target)
    found = load_cells(file)
    folder = folder_of(found.scenario)
    chosen = choose_cells(found, _only(only or []))
    local = local_stack(found.scenario) if target is TargetName.LOCAL else None
    if local is not None:
        local.require_alive()
    rows = [
        {"function_name": f.function_name, "copy_of": f.resource, **f.cell.levels, "design": f.cell.design}
        for f in chosen
    ]
    if not as_json:
        _show(chosen)
    there = reservable(Aws() if local is None else local.aws(), chosen)
    wanted = sum(function.reserved_concurrency for function in chosen)
    if as_json:
        said = {"functions": rows, "reserved_concurrency": wanted, "reservable": there}
        typer.echo(msgspec.json.format(msgspec.json.encode(said)).decode())
    else:
        typer.echo(f"{len(chosen)} functions reserve {wanted:,} of the {there:,} environments there are to reserve")
    check_reservation(chosen, there)
    if deploy:
        variables = aws_variables() if local is None else local_variables(local.endpoint_url, local.lambda_endpoint_url)
        _deploy(chosen, folder, stack_name, variables, is_local=local is not None)
        if local is not None:
            reserve(local.aws(), chosen)
        typer.echo(f"{len(chosen)} functions are deployed")
    elif not as_json:
        typer.echo("nothing was deployed; to do it, add --deploy", err=True)


def _only(given: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in given:
        factor, equals, levels = text.partition("=")
        if not factor or not equals or not all(levels.split(",")):
            raise UsageError(f"--only {text!r} is not FACTOR=LEVEL", next_step="write for example memory_mb=512,1024")
        found.setdefault(factor, []).extend(levels.split(","))
    return found


def _show(functions: "Sequence[CellFunction]") -> None:
    from rich.console import Group

    from lambdalab.report.layout import new_table, print_whole

    factors = list(dict.fromkeys(factor for function in functions for factor in function.cell.levels))
    table = new_table("function", "copy of", numbers=factors)
    for function in functions:
        levels = (str(function.cell.levels.get(factor, "")) for factor in factors)
        table.add_row(function.function_name, function.resource, *levels)
    print_whole(make_console(), Group(table))


def _deploy(
    functions: "Sequence[CellFunction]",
    folder: Path,
    stack_name: str | None,
    variables: dict[str, str],
    *,
    is_local: bool,
) -> None:
    """Builds a scenario, adds the cells to what was built, and has sam deploy it, as the scenario's settings say."""
    import yaml

    from lambdalab.build import samconfig
    from lambdalab.build.cells import add_cells
    from lambdalab.build.deployment import build_variables, local_parameters, overrides
    from lambdalab.build.tools import run_tool, tool
    from lambdalab.project import state_folder

    own = overrides(local_parameters({}, folder=folder)) if is_local else []
    settings = samconfig.LOCAL if is_local else samconfig.DEFAULT
    sam, environment = str(tool("sam")), ["--config-env", settings]
    built = samconfig.build_dir(folder, settings)
    say("building the functions")
    with contextlib.chdir(folder):
        log_file = state_folder() / "sam-build.log"
        run_tool([sam, "build", *environment, *own], log_file=log_file, variables=build_variables())
        template = built / "cells.yaml"
        cells_added = add_cells(yaml.safe_load((built / "template.yaml").read_text()), functions)
        template.write_text(yaml.safe_dump(cells_added, sort_keys=False))
        say(f"deploying {len(functions)} functions beside those of the template")
        command = [sam, "deploy", *environment, "--config-file", str(folder / samconfig.FILE)]
        command += ["--template-file", str(template), *own, *(["--stack-name", stack_name] if stack_name else [])]
        done = subprocess.run(command, env=variables, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise ToolError(
            f"`sam deploy` ended with exit code {done.returncode}", next_step="see what it said, and try again"
        )
