"""What every command shares: the application, how it ends, how a failure is said."""

import errno
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from typer.core import TyperOption
from typer.exceptions import TyperException

from lambdalab import __version__
from lambdalab.errors import LambdalabError, StorageError, UsageError
from lambdalab.report.console import reader_is_gone

EXIT_VERDICT: Final = 1
EXIT_DEFECT: Final = 70
"""EX_SOFTWARE of sysexits.h: Python's own 1 would read as a verdict."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write to standard output fails with; the files of the lab are written by what names them."""

app = typer.Typer(
    help="Measures what a Lambda function costs and how fast it is, in Python and in Go.",
    epilog="Exit codes: 0 good, 1 a verdict or a function failed, 2 usage, 3 environment, 4 invalid run, 130 Ctrl-C.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


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


def _type_of_value(self: Any, ctx: Any) -> str | None:
    """The type of an option's value for the help. A flag takes no value, and typer calls it ``<bool>``."""
    return None if self.is_flag else _display_type_rich(self, ctx)


_display_type_rich: Final = TyperOption.display_type_rich
TyperOption.display_type_rich = _type_of_value  # type: ignore[method-assign]


def complain(problem: str, error: BaseException) -> None:
    """Says a problem, and what was added to it on its way up, on standard error."""
    for line in dict.fromkeys((problem, *getattr(error, "__notes__", []))):
        typer.echo(f"lambdalab: {line}", err=True)


def load_commands() -> None:
    """Adds every command, in the order of ``--help``."""
    modules = (
        "local_stack",
        "map",
        "runs",
        "sweep",
        "load",
        "compare",
        "plan",
        "data",
        "doctor",
        "dead_letters",
        "cells",
        "destroy",
    )
    for module in modules:
        import_module(f"lambdalab.cli.{module}")


def run_app() -> int:
    """Runs the command line and returns its exit code. Says every failure in a sentence. SIGTERM is like Ctrl-C.

    Raises:
        BrokenPipeError: nothing reads the output any more.
    """
    load_commands()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    Console.on_broken_pipe = _raise_again  # type: ignore[method-assign]
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="lambdalab", standalone_mode=False) or 0
        print(end="", flush=True)
        return code
    except SystemExit as end:
        if isinstance(end.__context__, OSError):  # typer ends with 1 at every closed pipe, which means a verdict here
            return _fail(end.__context__)
        return end.code if isinstance(end.code, int) else 0  # so completion ends
    except Exception as error:
        return _fail(error)


def _fail(error: BaseException) -> int:
    """Says a failure, and returns the exit code."""
    if isinstance(error, TyperException):
        error = _usage_error(error)
    elif isinstance(error, BrokenPipeError) and reader_is_gone():
        raise error
    elif isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter tries again at its end
        error = StorageError(f"the output cannot be written: {error.strerror}", next_step="free some space")
    if isinstance(error, LambdalabError):
        complain(str(error), error)
        return error.exit_code
    traceback.print_exception(error)
    complain("this is a defect of lambdalab; report it with the lines above.", error)
    return EXIT_DEFECT


def _usage_error(refusal: TyperException) -> UsageError:
    """Words what typer refuses as every other failure is worded."""
    from pydantic import ValidationError  # here, because it takes a fifth of a command's start

    said = refusal.format_message().strip().removesuffix(".").replace("Value error, ", "")
    if isinstance(refusal.__cause__, ValidationError):
        said = said.replace("value", f"value {refusal.__cause__.errors()[0]['input']!r}", 1)
    command = context.command_path if (context := getattr(refusal, "ctx", None)) else "lambdalab"
    return UsageError(said[:1].lower() + said[1:], next_step=f"see `{command} --help`")


def _raise_again(self: Console) -> NoReturn:  # noqa: ARG001 - rich names it so
    """Keeps rich, which calls this where it has caught a closed pipe, from ending with 1: that means a verdict here."""
    raise
