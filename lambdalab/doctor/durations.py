"""How long a message takes a function: as the newest run here measured it, or as a plan assumes it."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from lambdalab.design.arms import Start
from lambdalab.errors import LambdalabError
from lambdalab.planning.load_schedule import Message
from lambdalab.planning.plan import ASSUMED_ITEM_MS, assumed_item_ms
from lambdalab.records.conditions import Conditions, run_alike
from lambdalab.records.manifest import MessageManifest, QueuedFunction
from lambdalab.records.record_files import DAMAGED
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import Estimate

MOST_RUNS: Final = 200
"""No older ones are opened."""


class Duration(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of one message; ``source`` says from where, ``measured`` whether anybody measured it."""

    seconds: float
    source: str
    measured: bool


class _Cell(msgspec.Struct, frozen=True):
    arm: str
    label: str
    start: str
    duration_ms: Estimate | None


class _Cells(msgspec.Struct, frozen=True):
    """As much of ``summary.json`` as is needed."""

    cells: tuple[_Cell, ...] = ()


def find_duration(results: Path, facts: QueuedFunction, message: Message, conditions: Conditions) -> Duration:
    """The median Duration of warm invocations with one such message in the newest run that has it, else an assumption.

    Args:
        results: the folder of run directories; damaged and unlike runs are passed over.
        facts: the function; the run's must run alike.
        message: size, count and mode.
        conditions: those here, under which the run must have been made.
    """
    folders = sorted((path.parent for path in results.glob("*/summary.json")), reverse=True)
    for folder in islice((folder for folder in folders if not folder.is_symlink()), MOST_RUNS):
        try:
            manifest = RunDirectory(folder).manifest()
            if not conditions.allow(manifest):
                continue
            cells = msgspec.json.decode((folder / "summary.json").read_bytes(), type=_Cells).cells
        except (LambdalabError, OSError, *DAMAGED):
            continue
        for cell, messages in _fitting(manifest, cells, facts, message):
            if cell.duration_ms is not None:
                seconds = cell.duration_ms.median / 1000 / messages
                return Duration(seconds=seconds, source=f"median of run {manifest.run_id}", measured=True)
    seconds = message.count * assumed_item_ms(facts.memory_mb) / 1000
    source = f"assumed, no run here measured it: {ASSUMED_ITEM_MS:g} ms a put at 128 MB, less with more memory"
    return Duration(seconds=seconds, source=source, measured=False)


def _fitting(
    manifest: MessageManifest, cells: tuple[_Cell, ...], facts: QueuedFunction, message: Message
) -> Iterator[tuple[_Cell, int]]:
    """The cells of such messages, with how many of them one invocation had."""
    loads = {load.label: load for load in manifest.protocol.loads}
    arms = {arm.name: arm for arm in manifest.protocol.arms}
    for cell in cells:
        load, arm, theirs = loads.get(cell.label), arms.get(cell.arm), manifest.functions.get(cell.arm)
        if load is None or arm is None or theirs is None or cell.start != Start.WARM:
            continue
        if (load.size_bytes, load.count) != (message.size_bytes, message.count):
            continue
        if not run_alike(facts, theirs):
            continue
        if manifest.load is None and arm.mode == message.mode:
            yield cell, arm.messages
        elif manifest.load is not None and cell.label == message.label and theirs.batch_size == 1:
            yield cell, 1  # with a larger batch it is not known how many messages an invocation had
