"""The commands that judge: compare, aa.

Modules that take long to import are imported by the command that needs them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lambdalab.cli import completion
from lambdalab.cli.app import EXIT_VERDICT, app
from lambdalab.cli.cpu_limit import caution
from lambdalab.cli.results import end_by_verdict, execute_visibly, refuse_invalid
from lambdalab.cli.running import (
    RESULTS,
    ProtocolName,
    Results,
    TargetName,
    chosen_protocol,
    target_of,
    with_enough_blocks,
)
from lambdalab.errors import InvalidRunError, UsageError
from lambdalab.report.console import make_console

if TYPE_CHECKING:
    from lambdalab.analysis.call_rows import MeasuredCalls
    from lambdalab.analysis.call_summary import FactorialSummary
    from lambdalab.analysis.message_rows import MeasuredRun
    from lambdalab.analysis.summary import Summary
    from lambdalab.design.arms import Protocol
    from lambdalab.records.trial_files import RunDirectory
    from lambdalab.run.target import AwsTarget
    from lambdalab.statistics.comparison import Comparison

_AFTER_ONE_ANOTHER: Final = "measured one after the other: a drift between the runs looks like a change of the function"


@app.command(epilog="Example:  lambdalab compare 20261121-100000-ingest-abcd latest --margin 0.03")
def compare(
    base: Annotated[
        str,
        typer.Argument(
            metavar="A", autocompletion=completion.runs, help="The run to compare with: its id, its folder, or latest."
        ),
    ],
    candidate: Annotated[
        str | None,
        typer.Argument(
            metavar="[B]",
            autocompletion=completion.runs,
            help="The run to judge. Without it the arms of A are compared.",
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0.001, max=1, help="The smallest change that matters, as a share: 0.025 is 2.5 %.")
    ] = 0.025,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull-request comment.")] = False,
    allow_unlike: Annotated[
        bool, typer.Option("--allow-unlike", help="Compare runs of different machines, targets, prices or loads.")
    ] = False,
    results: Results = RESULTS,
) -> None:
    """Judge B against A, or the arms of one run; exits 1 only on a regression, 4 if blocks are too few to decide."""
    from lambdalab.analysis.answer import warm_labels

    first, cautions = _measured(results, base)
    if candidate is None:
        found, notes = _of_arms(results, base, first, margin)
        notes += [f"caution: {caution}" for caution in cautions]
    else:
        second, others = _measured(results, candidate)
        found, notes = _of_runs(first, second, margin, allow_unlike=allow_unlike)
        of_both = {caution: "" for caution in cautions if caution in others}
        of_one = {caution: run for run, said in (("A: ", cautions), ("B: ", others)) for caution in said}
        notes += [f"caution: {run}{caution}" for caution, run in (of_one | of_both).items()]
    _print(warm_labels(first.manifest), found, notes, markdown=markdown)
    end_by_verdict(found)


@app.command(epilog="Example:  lambdalab aa --language go --runs 2 --up")
def aa(
    scenario: Annotated[str, typer.Argument(help="What to measure.")] = "ingest",
    protocol: ProtocolName = "aa",
    language: Annotated[str, typer.Option(help="Whose function is compared with itself.")] = "python",
    count: Annotated[int, typer.Option("--runs", min=1, max=100, help="How many runs.")] = 1,
    blocks: Annotated[
        int | None, typer.Option(min=6, max=10_000, help="Blocks of each run; the protocol's own by default.")
    ] = None,
    results: Results = RESULTS,
    temporary: Annotated[
        bool, typer.Option("--up", help="Bring a local stack up when none is up, and end it afterwards.")
    ] = False,
) -> None:
    """Compare one build with itself: any difference found is a false positive; the smallest detectable one is saved."""
    from rich.console import Group

    from lambdalab.analysis.pairing import in_a_sentence
    from lambdalab.analysis.resolution import most_allowed, runs_that_differ
    from lambdalab.report.layout import print_whole
    from lambdalab.report.terminal import render_comparisons, render_resolved
    from lambdalab.run.experiment import conclude_aa

    design = _against_itself(chosen_protocol(scenario, protocol, blocks), language, exactly=blocks is not None)
    design = with_enough_blocks(design, asked=blocks is not None)
    with target_of(TargetName.LOCAL, "", design, temporary=temporary) as target:
        caution(target)
        stores = [_run(target, design, results) for _ in range(count)]
    record, found = conclude_aa(stores)
    console = make_console()
    for run_id, comparisons in found.items():
        typer.echo(run_id)
        print_whole(console, Group(*render_comparisons(comparisons, in_a_sentence(comparisons))))
    print_whole(console, Group(*render_resolved(record)))
    differ, allowed = runs_that_differ(found.values()), most_allowed(count)
    typer.echo(
        f"{record.false_differences} of {record.comparisons} comparisons claim a difference of {language} from itself, "
        f"in {differ} of {count} runs; at most {allowed} may"
    )
    if differ > allowed:
        raise typer.Exit(EXIT_VERDICT)


def _of_arms(
    results: Path, run_id: str, run: "MeasuredRun | MeasuredCalls", margin: float
) -> "tuple[tuple[Comparison, ...], list[str]]":
    from lambdalab.analysis.call_rows import MeasuredCalls
    from lambdalab.analysis.pairing import compare_arms
    from lambdalab.records.trial_files import RunDirectory
    from lambdalab.run.experiment import known_resolutions

    if isinstance(run, MeasuredCalls):
        name = run.manifest.run_id
        raise UsageError(
            f"run {name} is of calls: it has cells, and what its factors do is in its report",
            next_step=f"read it with `lambdalab report {name}`, or name a second run of calls to judge",
        )
    resolutions = known_resolutions(RunDirectory.open(results, run_id), run.manifest, run.trials)
    found = compare_arms(run.manifest, run.rows, margin=margin, resolutions=resolutions)
    if not found:
        raise InvalidRunError(f"run {run.manifest.run_id} has one arm only", next_step="name a second run to judge")
    return found, [f"arms of {run.manifest.run_id}, interleaved in blocks"]


def _of_runs(
    first: "MeasuredRun | MeasuredCalls", second: "MeasuredRun | MeasuredCalls", margin: float, *, allow_unlike: bool
) -> "tuple[tuple[Comparison, ...], list[str]]":
    from lambdalab.analysis.call_rows import MeasuredCalls
    from lambdalab.analysis.pairing import compare_call_runs, compare_runs, differences

    before, after = first.manifest, second.manifest
    if before.run_id == after.run_id:
        raise UsageError(f"A and B are both run {before.run_id}", next_step="name two runs, or one to compare its arms")
    unlike = list(differences(before, after))
    if unlike and not allow_unlike:
        raise UsageError(
            f"runs {before.run_id} and {after.run_id} are unlike: {'; '.join(unlike)}",
            next_step="measure both alike, or add --allow-unlike",
        )
    alike = "cells" if isinstance(first, MeasuredCalls) else "arms and loads"
    if isinstance(first, MeasuredCalls) and isinstance(second, MeasuredCalls):
        found = compare_call_runs((first.manifest, first.rows), (second.manifest, second.rows), margin=margin)
    elif not isinstance(first, MeasuredCalls) and not isinstance(second, MeasuredCalls):
        found = compare_runs((first.manifest, first.rows), (second.manifest, second.rows), margin=margin)
    else:
        raise UsageError(
            f"of runs {before.run_id} and {after.run_id} one is of messages and one of calls",
            next_step="compare two of a kind",
        )
    if not found:
        raise InvalidRunError(
            f"runs {before.run_id} and {after.run_id} have no {alike} in common",
            next_step=f"compare runs of the same {alike}",
        )
    notes = [f"A is {before.run_id}, B is {after.run_id}", _AFTER_ONE_ANOTHER]
    return found, [*notes, *(f"unlike: {each}" for each in unlike)]


def _print(warm: set[str], found: "tuple[Comparison, ...]", notes: list[str], *, markdown: bool) -> None:
    from rich.console import Group

    from lambdalab.analysis.answer import contrasts
    from lambdalab.analysis.pairing import in_a_sentence
    from lambdalab.report.answer import contrast_lines
    from lambdalab.report.layout import print_whole
    from lambdalab.report.markdown import markdown_of
    from lambdalab.report.terminal import render_answer, render_comparisons
    from lambdalab.statistics.comparison import Metric

    verdict = in_a_sentence(found)
    lines = list(contrast_lines(*(contrasts(found, metric, warm=warm) for metric in (Metric.DURATION, Metric.COST))))
    if markdown:
        typer.echo(markdown_of(verdict, lines, found, notes))
        return
    judged = Group(*render_answer([("Verdict", verdict), *lines]), *render_comparisons(found))
    print_whole(make_console(), judged)
    for note in notes:
        typer.echo(note)


def _measured(results: Path, run_id: str) -> "tuple[MeasuredRun | MeasuredCalls, tuple[str, ...]]":
    """A run that may be used, and the cautions with which to read it."""
    from lambdalab.records.manifest import CALLS
    from lambdalab.records.run_directory import find_run, kind_of

    folder = find_run(results, run_id)
    return _measured_calls(folder) if kind_of(folder) == CALLS else _measured_messages(folder)


def _measured_calls(folder: Path) -> "tuple[MeasuredCalls, tuple[str, ...]]":
    from lambdalab.analysis.call_analysis import summarise
    from lambdalab.analysis.call_rows import read_calls
    from lambdalab.records.call_files import FactorialDirectory
    from lambdalab.scenario.found import call_scenario

    store = FactorialDirectory(folder)
    scenario = call_scenario(store.manifest().protocol.scenario)
    run = read_calls(store, scenario)
    summary = summarise(run.manifest, run.rows, scenario, run.prices, block_loads=store.block_loads())
    _refuse_invalid(summary, folder)
    return run, summary.cautions


def _measured_messages(folder: Path) -> "tuple[MeasuredRun, tuple[str, ...]]":
    from lambdalab.analysis.message_analysis import summarise
    from lambdalab.analysis.message_rows import read_run
    from lambdalab.records.trial_files import RunDirectory

    store = RunDirectory(folder)
    run = read_run(store)
    summary = summarise(
        run.manifest,
        run.trials,
        run.rows,
        damaged_lines=run.damaged_lines,
        books=run.books,
        block_loads=store.block_loads(),
    )
    _refuse_invalid(summary, folder)
    return run, summary.cautions


def _against_itself(protocol: "Protocol", language: str, *, exactly: bool) -> "Protocol":
    """The protocol with two arms that are the same function.

    Args:
        protocol: what is asked.
        language: whose function.
        exactly: whether its blocks were asked for, so that no stop rule ends the run before: a resolution holds for as
            many blocks as it was measured with.

    Raises:
        UsageError: there is no such language, or the protocol varies something else.
    """
    from msgspec.structs import replace

    from lambdalab.planning.protocol import LANGUAGES_OF_SCENARIO

    languages = LANGUAGES_OF_SCENARIO[protocol.scenario]
    if language not in languages:
        raise UsageError(f"--language is {language!r}", next_step=f"name one of: {', '.join(languages)}")
    design = replace(protocol, factors=replace(protocol.factors, language=(language,), build=("a", "b")))
    if len(design.arms) != 2:
        raise UsageError(
            f"protocol {protocol.name} varies more than the language, and A/A needs two equal arms",
            next_step="name a protocol with one mode and one memory size",
        )
    return replace(design, stop=None) if exactly else design


def _run(target: "AwsTarget", protocol: "Protocol", results: Path) -> "RunDirectory":
    """One finished run, which may be used."""
    from lambdalab.run.experiment import conclude, new_run

    store = new_run(target, protocol, results)
    with store.held():
        execute_visibly(target, store)
        _refuse_invalid(conclude(store), store.folder)
    return store


def _refuse_invalid(summary: "Summary | FactorialSummary", folder: Path) -> None:
    see = f"see the reasons with `lambdalab report {folder.name}`, and run it again"
    refuse_invalid(summary, next_step=see)
