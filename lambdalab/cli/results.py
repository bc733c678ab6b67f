"""What a command shows of a run when it has ended, however it ended, and how the command then ends."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from lambdalab.cli.app import EXIT_VERDICT, complain
from lambdalab.errors import InvalidRunError, LambdalabError
from lambdalab.report.console import make_console, run_progress

if TYPE_CHECKING:
    from lambdalab.analysis.bill import Terms
    from lambdalab.analysis.call_summary import FactorialSummary
    from lambdalab.analysis.frontier import Limits
    from lambdalab.analysis.summary import Summary
    from lambdalab.records.trial_files import RunDirectory
    from lambdalab.records.trials import Trial
    from lambdalab.run.target import AwsTarget
    from lambdalab.statistics.comparison import Comparison

MOST_BLOCKS: Final = 10_000
"""What --blocks takes."""


def end_by_verdict(comparisons: "Sequence[Comparison]") -> None:
    """Ends with 1 for a regression.

    Raises:
        InvalidRunError: there are too few blocks to decide.
    """
    from lambdalab.analysis.pairing import blocks_that_decide
    from lambdalab.statistics.comparison import Verdict

    if any(of.verdict is Verdict.REGRESSION for of in comparisons):
        raise typer.Exit(EXIT_VERDICT)
    undecided = [of for of in comparisons if of.may_be_worse]
    needed = blocks_that_decide(undecided)
    if needed is not None:
        there = min(of.n_blocks for of in undecided)
        more = f"measure at least {needed:,} blocks"
        other = "measure on a quieter machine, or accept more with `lambdalab compare RUN --margin SHARE`"
        raise InvalidRunError(
            f"{there:,} blocks are too few to decide; about {needed:,} would decide",
            next_step=more if needed <= MOST_BLOCKS else other,
        )


@contextmanager
def shown_also_after_a_failure(
    folder: Path, *, go_on: str, measured: Callable[[], bool], show: Callable[[], object]
) -> Iterator[None]:
    """Where the block fails or is interrupted, what was measured is shown before that is said, and how to go on."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as problem:
        try:
            show()
        except LambdalabError as second:
            problem.add_note(str(second))
        kept = f"what was measured is in {folder}" if measured() else "nothing was measured"
        problem.add_note(f"{kept}; go on with `{go_on}`.")
        if isinstance(problem, KeyboardInterrupt):
            complain("interrupted", problem)  # and typer ends with EXIT_INTERRUPTED
        raise


def execute_visibly(target: "AwsTarget", store: "RunDirectory") -> None:
    """Runs what is left, and shows how far that is."""
    from lambdalab.run.experiment import execute

    protocol = store.manifest().protocol
    with run_progress(protocol, len(protocol.arms) * len(protocol.loads)) as progress:

        def told(trial: "Trial") -> None:
            progress.step(trial.block, trial.position, f"{trial.arm} {trial.load.label}")

        execute(target, store, told, progress.standing)


def show_result(store: "RunDirectory", terms: "Terms | None" = None, limits: "Limits | None" = None) -> "Summary":
    """Writes the result of a run and shows it.

    Raises:
        InvalidRunError: it must not be used.
    """
    summary = conclude_and_show(store, terms, limits)
    refuse_invalid(summary, next_step=f"read the reasons in {store.folder / 'metrics.csv'} and run it again")
    return summary


def refuse_invalid(summary: "Summary | FactorialSummary", *, next_step: str) -> None:
    """Says what is wrong with a run that must not be used.

    Raises:
        InvalidRunError: it is such a run.
    """
    if summary.faults:
        raise InvalidRunError(f"run {summary.run_id} is invalid: {'; '.join(summary.faults)}", next_step=next_step)


def conclude_and_show(store: "RunDirectory", terms: "Terms | None" = None, limits: "Limits | None" = None) -> "Summary":
    """Writes rows, summary and page, and of a sweep its cells; shows the summary, the bill, and a sweep's answer."""
    from lambdalab.analysis.frontier import NO_LIMITS
    from lambdalab.report.cost import render_bill
    from lambdalab.report.frontier import render_frontiers
    from lambdalab.report.layout import print_whole
    from lambdalab.report.terminal import show
    from lambdalab.run.experiment import conclude, write_cells

    summary = conclude(store, terms, limits or NO_LIMITS)
    console = make_console()
    show(summary, console)
    if summary.bill is not None:
        print_whole(console, render_bill(summary.bill))
    if limits is not None:
        write_cells(store, summary)
        print_whole(console, render_frontiers(summary.frontiers))
    say_where(store.folder)
    return summary


def say_where(folder: Path) -> None:
    """The last lines of a result."""
    shown = os.path.relpath(folder)
    typer.echo(f"report: {shown}/report.html")
    typer.echo(f"files: {shown}")
