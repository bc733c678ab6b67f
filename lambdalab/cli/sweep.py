"""The command sweep: every combination of settings in one run, cost against latency, and which setting to take."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args

import typer

from lambdalab.cli import completion
from lambdalab.cli.app import EXIT_VERDICT, app
from lambdalab.cli.cpu_limit import WithoutCpuLimit
from lambdalab.cli.results import show_result
from lambdalab.cli.running import (
    MAX_SEED,
    RESULTS,
    MaxMinutes,
    MaxUsd,
    Results,
    TargetName,
    measure,
    refuse_contradictions,
    target_of,
    with_ceilings,
)
from lambdalab.errors import InvalidRunError, UsageError

if TYPE_CHECKING:
    from lambdalab.analysis.frontier import Limits
    from lambdalab.analysis.message_analysis import Summary
    from lambdalab.design.arms import Protocol

T = TypeVar("T")


@app.command(
    epilog="Example:  lambdalab sweep --memory 128,512,1769 --language go --up\n\n"
    "Example:  lambdalab sweep --resume latest --max-usd-per-million 3"
)
def sweep(
    context: typer.Context,
    memory: Annotated[str, typer.Option(help="Memory sizes in MB, with commas between.")] = "128,256,512,1024,1769",
    language: Annotated[str, typer.Option(help="Languages.")] = "python,go",
    mode: Annotated[str, typer.Option(help="Ways of writing: sequential, concurrent, batch.")] = "sequential",
    count: Annotated[str, typer.Option(help="Items of a message.")] = "100",
    size: Annotated[str, typer.Option(help="Bytes of an item's payload.")] = "1024",
    architecture: Annotated[
        str | None, typer.Option(help="x86_64,arm64: each is built; on AWS only. As deployed by default.")
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(help="Batch sizes of the SQS mapping, 1 to 10: each trial sends one. As deployed by default."),
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="How often every arm runs; 20 by default, 65 with --max-p95-ms."),
    ] = None,
    max_p95_ms: Annotated[
        float | None, typer.Option(min=0.001, help="Recommend the cheapest whose p95 is within this limit.")
    ] = None,
    max_usd_per_million: Annotated[
        float | None, typer.Option(min=0.000001, help="Recommend only what a million messages at most may cost.")
    ] = None,
    target: Annotated[TargetName, typer.Option(help="Where the functions run.")] = TargetName.LOCAL,
    stack_name: Annotated[str, typer.Option(help="The deployed stack, for --target aws.")] = "lambdalab",
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Seed of the order of arms; drawn and recorded by default.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.runs,
            help="Go on with an interrupted sweep, or answer a finished one again: its id, or latest.",
        ),
    ] = None,
    results: Results = RESULTS,
    temporary: Annotated[
        bool, typer.Option("--up", help="Bring a local stack up for this sweep when none is up, and end it afterwards.")
    ] = False,
    max_minutes: MaxMinutes = None,
    max_usd: MaxUsd = None,
    without_cpu_limit: WithoutCpuLimit = False,
    yes: Annotated[bool, typer.Option("--yes", help="On AWS: spend without asking.")] = False,
) -> None:
    """Measure every combination of settings, and print cost against latency with what to take under a limit."""
    from lambdalab.analysis.frontier import Limits
    from lambdalab.design.arms import Architecture, Factors, Mode
    from lambdalab.planning.sweep import sweep_blocks, sweep_protocol
    from lambdalab.records.trial_files import RunDirectory
    from lambdalab.run.experiment import trials_left

    refuse_contradictions(context, target)
    limits = Limits(max_p95_ms=max_p95_ms, max_usd_per_million=max_usd_per_million)
    previous = None if resume is None else RunDirectory.open(results, resume)
    if previous is not None:
        protocol = previous.manifest().protocol
        if not trials_left(previous):
            _end_by_limits(show_result(previous, limits=limits), protocol, limits)
            return
    else:
        protocol = sweep_protocol(
            Factors(
                language=tuple(language.split(",")),
                memory_mb=_numbers("memory", memory),
                mode=_words("mode", mode, tuple(Mode)),
                architecture=()
                if architecture is None
                else _words("architecture", architecture, get_args(Architecture)),
                batch_size=() if batch_size is None else _numbers("batch-size", batch_size),
            ),
            counts=_numbers("count", count),
            sizes_bytes=_numbers("size", size),
            blocks=sweep_blocks(limits) if blocks is None else blocks,
        )
        protocol = with_ceilings(protocol, max_minutes, max_usd)
    options = ["--max-p95-ms", f"{max_p95_ms:g}"] if max_p95_ms is not None else []
    options += ["--max-usd-per-million", f"{max_usd_per_million:g}"] if max_usd_per_million is not None else []
    options += ["--up"] if temporary else []
    with target_of(target, stack_name, protocol, temporary=temporary, resuming=previous is not None) as place:
        summary = measure(
            place, protocol, previous, results, seed=seed, yes=yes, command=["sweep"], options=options, limits=limits,
            without_cpu_limit=without_cpu_limit,
        )  # fmt: skip
    _end_by_limits(summary, protocol, limits)


def _end_by_limits(summary: "Summary", protocol: "Protocol", limits: "Limits") -> None:
    """Ends with 1 if no setting keeps the limits under a warm load.

    The time of the cold load is mostly that of the first invocation, so it is shown and does not decide.

    Raises:
        InvalidRunError: there are too few samples to decide.
    """
    from lambdalab.analysis.frontier import NO_LIMITS, samples_missing
    from lambdalab.design.arms import Start

    if limits == NO_LIMITS:
        return
    warm = {load.label for load in protocol.loads if load.start is not Start.COLD}
    failed = [of for of in summary.frontiers if of.label in warm and of.recommended is None]
    for frontier in failed:
        if samples_missing(frontier.points, limits):
            raise InvalidRunError(
                f"the limits of sweep {summary.run_id} cannot be decided: {frontier.label}: {frontier.because}",
                next_step="measure again with more --blocks",
            )
    if failed:
        raise typer.Exit(EXIT_VERDICT)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    return _each(option, text, int, "whole numbers")


def _words(option: str, text: str, known: Sequence[T]) -> tuple[T, ...]:
    by_name = {str(word): word for word in known}
    return _each(option, text, by_name.__getitem__, " or ".join(by_name))


def _each(option: str, text: str, read: Callable[[str], T], what: str) -> tuple[T, ...]:
    try:
        return tuple(read(word.strip()) for word in text.split(","))
    except (ValueError, KeyError) as error:
        raise UsageError(f"--{option} is {text!r}", next_step=f"write {what}, with commas between") from error
