"""The run directory: what a run leaves on disk, written as it happens.

::

    results/<run_id>/run.json         the manifest
                     pipeline.json    the pipeline graph of the stack when the run began
                     trials.jsonl     one line per trial, appended when it ends
                     platform.jsonl   log lines as collected
                     machine.jsonl    locally: what other programs took of the machine, one line per block
                     pipeline.jsonl, ending.json   of a load run: queues and functions second by second; what was left
                     metrics.csv, metrics.parquet   one row per invocation
                     summary.json     every number that is shown
    results/latest -> <run_id>
    results/aa.json                   what A/A runs resolved, by machine and design

Lines are appended and, but for those of a load run, reach the disk before the run goes on; the other files are replaced
whole, so that a reader finds the old content or the new. A line cut off by a crash is ignored when read and overwritten
when the run goes on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from lambdalab.errors import StorageError
from lambdalab.records.load import Ending, PipelineSample
from lambdalab.records.manifest import MESSAGES, MessageManifest
from lambdalab.records.record_files import (
    DAMAGED,
    append,
    as_lines,
    read_blocks,
    read_lines,
    read_lines_from,
    replace,
    replacing,
    storage,
)
from lambdalab.records.run_directory import RunFolder, write_csv, write_parquet
from lambdalab.records.trials import InvocationRow, LogLine, TrialResult

SCHEMA_VERSION: Final = 4
_SAMPLES_BYTES: Final = 2**17
R = TypeVar("R")


class RunDirectory(RunFolder[MessageManifest]):
    """One run's files. Every method raises StorageError when its file cannot be read or written."""

    kind = MESSAGES
    version = SCHEMA_VERSION
    manifest_type = MessageManifest

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._collected: set[str] | None = None

    def append_trial(self, result: TrialResult) -> None:
        """Writes one trial and waits until it is on the disk."""
        append(self.folder / "trials.jsonl", [result])

    def append_trials(self, results: Iterable[TrialResult]) -> None:
        """Writes many trials and does not wait for the disk, as whoever sends messages at a rate cannot."""
        append(self.folder / "trials.jsonl", results, waits=False)

    def write_trials(self, results: Iterable[TrialResult]) -> None:
        """Replaces ``trials.jsonl``: what becomes of a load run's messages is known when it has ended."""
        with replacing(self.folder / "trials.jsonl") as file:
            file.write(as_lines(results))

    def trials(self) -> list[TrialResult]:
        """All trials so far, in the order they were executed."""
        return read_lines(self.folder / "trials.jsonl", TrialResult)

    def trials_from(self, position: int) -> tuple[list[TrialResult], int]:
        """Those written behind a position of the file, 0 being its begin, and the position behind them."""
        return read_lines_from(self.folder / "trials.jsonl", TrialResult, position)

    def append_sample(self, sample: PipelineSample) -> None:
        """Writes how a load run's pipeline was at a moment."""
        append(self.folder / "pipeline.jsonl", [sample], waits=False)

    @property
    def is_watched(self) -> bool:
        """Whether somebody has begun to write down how the pipeline is."""
        return (self.folder / "pipeline.jsonl").exists()

    def samples(self) -> list[PipelineSample]:
        """How the pipeline was, moment by moment; none but of a load run."""
        return read_lines(self.folder / "pipeline.jsonl", PipelineSample)

    def samples_from(self, position: int) -> tuple[list[PipelineSample], int]:
        """Some hundred behind a position of the file, and the position behind them; none when there are no more."""
        return read_lines_from(self.folder / "pipeline.jsonl", PipelineSample, position, _SAMPLES_BYTES)

    def write_ending(self, ending: Ending) -> None:
        """Replaces ``ending.json``."""
        replace(self.folder / "ending.json", ending)

    def ending(self) -> Ending | None:
        """How a load run ended; None while it has not.

        Raises:
            StorageError: the file is damaged.
        """
        path = self.folder / "ending.json"
        with storage(path, "read"):
            if not path.exists():
                return None
            content = path.read_bytes()
        try:
            return msgspec.json.decode(content, type=Ending)
        except DAMAGED as error:
            raise StorageError(f"{path} is damaged: {error}", next_step="restore it, or measure again") from error

    def append_log_lines(self, lines: Iterable[LogLine]) -> None:
        """Writes the lines that are not there yet; collecting twice does no harm.

        Where reading them fails midway, those that came before are written all the same.
        """
        seen = {line.event_id for line in self.log_lines()} if self._collected is None else self._collected
        self._collected = None  # a failure may leave some of them written: then the file is asked again
        new: dict[str, LogLine] = {}
        try:
            new.update((line.event_id, line) for line in lines if line.event_id not in seen)
        finally:
            if new:
                append(self.folder / "platform.jsonl", new.values())
        self._collected = seen.union(new)

    def log_lines(self) -> list[LogLine]:
        """All log lines collected so far."""
        return read_lines(self.folder / "platform.jsonl", LogLine)

    def log_blocks(self, read: Callable[[bytes], R]) -> Iterator[R]:
        """What ``read`` makes of all log lines collected so far, some thousands at a time and in their order.

        A file of any size takes little memory. A large one is read by as many processes as there are cores, so
        ``read`` must be a function of a module, and what it returns must pickle. It gets the lines as they are in the
        file, and raises ValueError for one that is no log line.
        """
        return read_blocks(self.folder / "platform.jsonl", LogLine, read)

    def write_rows(self, rows: Sequence[InvocationRow]) -> None:
        """Replaces ``metrics.csv`` and ``metrics.parquet``; money keeps its exact decimals in both."""
        _write_csv(self.folder / "metrics.csv", rows, InvocationRow)
        columns = {field.name: field.type for field in msgspec.structs.fields(InvocationRow)}
        write_parquet(self.folder / "metrics.parquet", columns, (msgspec.structs.asdict(row) for row in rows))

    def write_cells(self, cells: Sequence[msgspec.Struct], kind: type[msgspec.Struct]) -> None:
        """Replaces ``cells.csv``."""
        _write_csv(self.folder / "cells.csv", cells, kind)


def _write_csv(path: Path, rows: Sequence[msgspec.Struct], kind: type[msgspec.Struct]) -> None:
    columns = kind.__struct_fields__
    write_csv(path, columns, ([getattr(row, column) for column in columns] for row in rows))
