"""The commands over what is on disk: query, prices."""

import csv
import io
import os
import sys
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lambdalab.cli import EXIT_INTERRUPTED, completion
from lambdalab.cli.app import app, complain
from lambdalab.cli.running import RESULTS, Results
from lambdalab.errors import UsageError
from lambdalab.report.console import make_console

if TYPE_CHECKING:
    from lambdalab.records.query import Answer


_ALL: Final = "all"


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@app.command(epilog="Example:  lambdalab query 'select arm, label, median(duration_ms) from metrics group by all'")
def query(
    sql: Annotated[str, typer.Argument(help="One statement of DuckDB's SQL over the views metrics, trials, runs.")],
    run_id: Annotated[
        str,
        typer.Argument(
            autocompletion=completion.runs,
            help="A run's id, its folder, latest, or all: every run of the results folder.",
        ),
    ] = "latest",
    results: Results = RESULTS,
    form: Annotated[
        Format | None, typer.Option("--format", help="table on a terminal and csv where there is none, by default.")
    ] = None,
) -> None:
    """Query one run or all runs with SQL."""
    from lambdalab.records.query import query as ask

    if form is None:
        form = Format.TABLE if sys.stdout.isatty() else Format.CSV
    write = {Format.TABLE: _write_tables, Format.CSV: _write_csv, Format.JSON: _write_json}[form]
    try:
        write(ask(sql, _folders(results, run_id)))
    except KeyboardInterrupt as problem:
        complain("interrupted", problem)
        os._exit(EXIT_INTERRUPTED)  # DuckDB has nothing to save, and waiting for its threads can take minutes


def _write_tables(answer: "Answer") -> None:
    """Prints a table for every batch, because a table needs all its rows to know how wide its columns are."""
    from lambdalab.report.layout import print_whole

    console = make_console()
    for rows in chain([next(answer.batches, [])], answer.batches):
        table = Table(*answer.columns, box=SIMPLE_HEAD)
        for row in rows:
            table.add_row(*("" if value is None else str(value) for value in row))
        print_whole(console, Group(table))


def _write_csv(answer: "Answer") -> None:
    for rows in chain([[answer.columns]], answer.batches):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        typer.echo(text.getvalue(), nl=False)


def _write_json(answer: "Answer") -> None:
    """Prints one array, laid out as if it had been written at once."""
    import msgspec

    before = "["
    for rows in answer.batches:
        array = [dict(zip(answer.columns, row, strict=True)) for row in rows]
        text = msgspec.json.format(msgspec.json.encode(array)).decode()
        typer.echo(before + text.removeprefix("[").removesuffix("\n]"), nl=False)
        before = ","
    typer.echo("[]" if before == "[" else "\n]")


def _folders(results: Path, run_id: str) -> list[Path]:
    from lambdalab.records.trial_files import RunDirectory

    if run_id != _ALL:
        folders = [RunDirectory.open(results, run_id).folder]
    else:
        folders = sorted(path.parent for path in results.glob("*/run.json") if not path.parent.is_symlink())
    found = [folder for folder in folders if (folder / "metrics.parquet").is_file()]
    if not found:
        raise UsageError(
            f"{folders[0] if len(folders) == 1 else results} has no metrics.parquet",
            next_step="write it with `lambdalab report RUN`, or measure with `lambdalab run`",
        )
    return found


prices = typer.Typer(help="Price sheets.", epilog="Example:  lambdalab prices show us-east-1", no_args_is_help=True)
app.add_typer(prices, name="prices")


@prices.command(epilog="Example:  lambdalab prices show us-east-1")
def show(
    region: Annotated[str, typer.Argument(help="A region of prices/, or the path of a sheet.")] = "us-east-1",
) -> None:
    """Print a price sheet: every price with its source."""
    from decimal import Decimal

    import msgspec

    from lambdalab.pricing.costs import load_price_sheet, priced
    from lambdalab.report.layout import print_whole

    sheet = load_price_sheet(region)
    table = Table("price", "USD", "source", box=SIMPLE_HEAD)
    told = msgspec.to_builtins(sheet, builtin_types=(Decimal,))
    for service, members in told.items():
        if isinstance(members, dict):
            for key, price in priced(service, members):
                table.add_row(key, f"{price:f}", members["source"])
    print_whole(make_console(), Group(Text(f"{sheet.name}, {sheet.currency}", style="bold"), table))


@prices.command(epilog="Example:  lambdalab prices refresh --region us-east-1")
def refresh(region: Annotated[str, typer.Option(help="Whose prices.")] = "us-east-1") -> None:
    """Read a region's prices from the AWS price list into a new dated sheet; needs AWS credentials."""
    import datetime

    from lambdalab.aws.clients import Aws
    from lambdalab.aws.price_list import refresh as read_and_write
    from lambdalab.project import project_root

    path = read_and_write(Aws(), region, project_root() / "prices", datetime.datetime.now(datetime.UTC).date())
    typer.echo(os.path.relpath(path))
