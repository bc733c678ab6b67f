"""The whole of a run as Python calls: ``new_run``, ``execute``, ``conclude``. The command line only wraps these."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from lambdalab.analysis.bill import Terms, bill_of_run
from lambdalab.analysis.frontier import NO_LIMITS, Limits, SweptCell, frontiers, swept_cells
from lambdalab.analysis.message_analysis import Summary, summarise
from lambdalab.analysis.message_rows import read_run
from lambdalab.analysis.pairing import Resolutions, compare_arms
from lambdalab.analysis.resolution import Record, design_of, make_record, resolutions_of
from lambdalab.build.deployment import local_parameters
from lambdalab.design.arms import Arm, Protocol
from lambdalab.errors import UsageError
from lambdalab.planning.plan import EFFECT, Plan, find_experience, make_plan
from lambdalab.planning.protocol import schedule
from lambdalab.planning.stopping import StoppingRule
from lambdalab.pricing.costs import load_price_sheet
from lambdalab.project import project_root
from lambdalab.records.conditions import Conditions
from lambdalab.records.manifest import MessageManifest, QueuedFunction
from lambdalab.records.record_files import read_records, write_records
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import Trial, TrialResult
from lambdalab.report.html import render_html
from lambdalab.run.account import account_limits
from lambdalab.run.beginning import begin, note_resumption, note_stop, require_place
from lambdalab.run.circumstances import (
    conditions_at,
    conditions_without_stack,
    require_cpu_limit,
    require_same_functions,
)
from lambdalab.run.runner import Progress, Runner, kept_trials, remaining, require_empty_queues
from lambdalab.run.target import AwsTarget
from lambdalab.statistics.comparison import Comparison

_SEED_BITS: Final = 32
_AA: Final = "aa.json"


def new_run(
    target: AwsTarget,
    protocol: Protocol,
    results: Path,
    *,
    seed: int | None = None,
    load: dict[str, object] | None = None,
    without_cpu_limit: bool = False,
) -> RunDirectory:
    """Makes the run directory and writes down what is asked, before anything is sent.

    Args:
        target: where it will run.
        protocol: what will be run.
        results: the folder of run directories.
        seed: of the order of arms; drawn when None, and kept in the manifest either way.
        load: the plan of a load run.
        without_cpu_limit: whether several memory sizes may be measured where nothing limits CPU and memory.

    Raises:
        SetupError: nothing limits CPU and memory, and that is not allowed.
        StorageError: the folder cannot be written.
        UsageError: the protocol wants cold starts the target does not make.
        StackError, AccessError: the target is not what the protocol needs, or its queues are not empty.
    """
    if protocol.cold not in (None, target.cold_mode):
        raise UsageError(
            f"protocol {protocol.name} wants cold starts by {protocol.cold}, and target {target.name} makes them by "
            f"{target.cold_mode}",
            next_step=f'write cold = "{target.cold_mode}", or leave it out',
        )
    if not without_cpu_limit:
        require_cpu_limit(target, protocol.factors.memory_mb)
    require_empty_queues(target, protocol.arms)  # else there would be a run without a trial
    root = project_root()
    return begin(
        target,
        RunDirectory,
        results,
        functions={arm.name: target.facts(arm) for arm in protocol.arms},
        seed=seed,
        project=root,
        sources=(root / "src/python/ingest", root / "src/go/ingest"),
        protocol=protocol,
        cold_mode=target.cold_mode if load is None else None,
        load=load,
    )


def resume_run(target: AwsTarget, store: RunDirectory) -> None:
    """Notes that a run goes on.

    Raises:
        UsageError: it was made on another target or stack, or a function has changed since, so that its samples would
            not be alike.
    """
    require_place(target, store)
    manifest = store.manifest()
    require_same_functions(manifest, {arm.name: target.facts(arm) for arm in manifest.protocol.arms})
    if trials_left(store):
        note_resumption(store)


def trials_left(store: RunDirectory) -> list[Trial]:
    """What a run that goes on would execute.

    Raises:
        UsageError: it is a load run, whose messages wait for each other, so that a part cannot be measured apart.
    """
    manifest = store.manifest()
    if manifest.load is not None:
        raise UsageError(f"run {manifest.run_id} is a load run, and those do not go on", next_step="start a new one")
    if manifest.stopped is not None:
        return []
    return remaining(schedule(manifest.protocol, manifest.seed), kept_trials(store))


def execute(
    target: AwsTarget, store: RunDirectory, progress: Progress, standing: Callable[[str], None] = lambda _: None
) -> None:
    """Runs what is left of a run, until its blocks are done, its stop rule is satisfied or a cap is reached.

    Args:
        target: where.
        store: the run; why it stopped is written into its manifest at once.
        progress: told each trial before it begins.
        standing: told after each block how far the stop rule is.

    Raises:
        LambdalabError: see ``Runner.run``.
    """
    rule = StoppingRule(store, spends=target.name == "aws")

    def stop() -> str | None:
        reason = rule.reason()
        standing(rule.standing)
        if reason is not None:
            note_stop(store, reason)
        return reason

    Runner(target, store, progress, stop).run(trials_left(store))


def conclude(store: RunDirectory, terms: Terms | None = None, limits: Limits = NO_LIMITS) -> Summary:
    """Reads a run directory and writes rows, summary and page; may be repeated at any time, also for an unfinished run.

    The same files and terms always give the same rows, summary and page: even the prices are the run's own.

    Args:
        store: the run.
        terms: how to bill it; without free tier and monthly figures by default.
        limits: what a recommended setting must keep.

    Raises:
        StorageError: a file of the run is damaged, or one cannot be written.
    """
    manifest, prices, trials, rows, damaged_lines, books = read_run(store)
    store.write_rows(rows)
    found = known_resolutions(store, manifest, trials)
    summary = summarise(
        manifest,
        trials,
        rows,
        damaged_lines=damaged_lines,
        resolutions=found,
        books=books,
        block_loads=store.block_loads(),
        bill=bill_of_run(manifest, trials, rows, prices, terms or Terms()),
        fronts=frontiers(manifest.protocol, rows, limits),
    )
    store.write_summary(summary)
    store.write_report(render_html(summary, manifest, rows))
    return summary


def known_resolutions(store: RunDirectory, manifest: MessageManifest, trials: Collection[TrialResult]) -> Resolutions:
    """What A/A runs of this machine and the run's design could resolve.

    Raises:
        StorageError: ``aa.json`` beside the run is damaged.
    """
    records = read_records(store.folder.parent / _AA, Record)
    return resolutions_of(records, manifest, max((trial.trial.block for trial in trials), default=0))


def conclude_aa(stores: Sequence[RunDirectory]) -> tuple[Record, dict[str, tuple[Comparison, ...]]]:
    """Reads finished A/A runs of one design, and keeps what they resolve in ``aa.json`` beside them.

    Returns:
        The record, and by id what each run found, judged without any resolution known before.

    Raises:
        StorageError: a file is damaged, or cannot be written.
    """
    found = {}
    for store in stores:
        manifest, _, trials, rows, *_ = read_run(store)
        found[manifest.run_id] = compare_arms(manifest, rows)
    design = design_of(manifest, manifest.protocol.arms[0].name, max(trial.trial.block for trial in trials))
    record = make_record(design, found)
    path = stores[0].folder.parent / _AA
    write_records(path, [*(one for one in read_records(path, Record) if one.design != design), record])
    return record, found


def write_cells(store: RunDirectory, summary: Summary) -> None:
    """Writes every arm under every load, with its place on the front, into ``cells.csv``.

    Raises:
        StorageError: it cannot be written.
    """
    store.write_cells(swept_cells(store.manifest().protocol, summary.frontiers), SweptCell)


def plan_run(
    target: AwsTarget,
    protocol: Protocol,
    results: Path,
    *,
    left: Collection[Trial] | None = None,
    effect: float = EFFECT,
) -> Plan:
    """What a run on a target would ask for; nothing is sent.

    Args:
        target: where.
        protocol: what.
        results: the folder in which an earlier run may be found, to learn from.
        left: what is left of a run that goes on; None for a new one.
        effect: the change that should be found, as a share.

    Raises:
        PriceSheetError, StackError, AccessError: a price is missing, or the functions cannot be looked at.
    """
    functions = {arm.name: target.facts(arm) for arm in protocol.arms}
    blocks = None if left is None else len({trial.block for trial in left})
    planned = _plan(protocol, functions, results, conditions_at(target), blocks=blocks, effect=effect)
    if target.name == "local":
        return planned
    limits, unchecked = account_limits(target, functions.values())
    return msgspec.structs.replace(planned, limits=limits, unchecked=unchecked)


def plan_local_run(protocol: Protocol, results: Path, *, effect: float = EFFECT) -> Plan:
    """What a run on a local stack would ask for, when none is up: with the settings it would be brought up with."""
    settings = local_parameters({}, folder=project_root())
    functions = {arm.name: facts_of_settings(arm, settings) for arm in protocol.arms}
    return _plan(protocol, functions, results, conditions_without_stack(), effect=effect)


def facts_of_settings(arm: Arm, settings: Mapping[str, str]) -> QueuedFunction:
    """What the function of an arm would be, deployed with these template parameters."""
    return QueuedFunction(
        function_name=arm.language,
        language=arm.language,
        runtime=settings[f"{arm.language.capitalize()}Runtime"],
        architecture=settings["Architecture"],
        memory_mb=arm.memory_mb or int(settings["MemorySize"]),
        timeout_s=int(settings["Timeout"]),
        log_group=arm.language,
        code_sha256="",
        batch_size=arm.batch_size or int(settings["BatchSize"]),
        maximum_concurrency=int(settings["MaximumConcurrency"] or 0) or None,
        reserved_concurrency=int(settings["ReservedConcurrency"] or 0) or None,
        visibility_timeout_s=int(settings["VisibilityTimeout"]),
        max_receive_count=int(settings["MaxReceiveCount"]),
    )


def _plan(
    protocol: Protocol,
    functions: dict[str, QueuedFunction],
    results: Path,
    conditions: Conditions,
    *,
    effect: float,
    blocks: int | None = None,
) -> Plan:
    found = find_experience(results, protocol, functions, conditions)
    prices = load_price_sheet(conditions.region)
    return make_plan(
        protocol, functions, prices, target=conditions.target, blocks=blocks, experience=found, effect=effect
    )
