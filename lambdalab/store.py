"""The run directory: what a run leaves on disk, written as it happens.

::

    results/<run_id>/run.json         the manifest
                     trials.jsonl     one line per trial, appended when it ends
                     platform.jsonl   log lines as collected
                     metrics.csv, metrics.parquet   one row per invocation
                     summary.json     every number that is shown
    results/latest -> <run_id>

A line cut off by a crash is ignored when read and overwritten when the run goes on.
"""

import csv
import os
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import msgspec

from lambdalab.errors import StorageError, UsageError
from lambdalab.model import InvocationRow, LogLine, Manifest, TrialResult

SCHEMA_VERSION: Final = 1
T = TypeVar("T", bound=msgspec.Struct)
_NEXT_STEP: Final = "check the folder's owner and the free space, or choose another with --results"


class _storage:  # noqa: N801 - reads as a statement
    """Turns an OSError into one sentence that names the file."""

    def __init__(self, path: Path, verb: str) -> None:
        self._path, self._verb = path, verb

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, OSError):
            raise StorageError(
                f"{self._path} cannot be {self._verb}: {error.strerror or error}", next_step=_NEXT_STEP
            ) from error


class RunDirectory:
    """One run's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen_events: set[str] | None = None

    @classmethod
    def create(cls, results: Path, manifest: Manifest) -> "RunDirectory":
        """Makes the folder of a new run and writes its manifest.

        Raises:
            StorageError: the results folder cannot be written.
        """
        run = cls(results / manifest.run_id)
        with _storage(run.folder, "made"):
            run.folder.mkdir(parents=True)
        run.write_manifest(manifest)
        run._point_latest()
        return run

    @classmethod
    def open(cls, results: Path, run_id: str) -> "RunDirectory":
        """Finds a run by its id, by ``latest`` or by a path.

        Raises:
            UsageError: there is no such run, or the folder is not one.
        """
        folder = Path(run_id) if "/" in run_id else results / run_id
        if not (folder / "run.json").is_file():
            known = sorted(path.parent.name for path in results.glob("*/run.json") if not path.parent.is_symlink())
            have = f"the newest is {known[-1]}" if known else "measure one with `lambdalab run`"
            raise UsageError(f"{folder} is not a run directory", next_step=f"name one of {results}; {have}")
        return cls(folder.resolve())

    def write_manifest(self, manifest: Manifest) -> None:
        """Replaces ``run.json``."""
        self._write("run.json", msgspec.json.format(msgspec.json.encode(manifest)))

    def manifest(self) -> Manifest:
        """Reads ``run.json``.

        Raises:
            StorageError: it is damaged, or of another version of this format.
        """
        path = self.folder / "run.json"
        with _storage(path, "read"):
            content = path.read_bytes()
        try:
            manifest = msgspec.json.decode(content, type=Manifest)
        except msgspec.DecodeError as error:
            raise StorageError(f"{path} is damaged: {error}", next_step="restore it, or measure again") from error
        if manifest.schema_version != SCHEMA_VERSION:
            raise StorageError(
                f"{path} has schema version {manifest.schema_version}, this lambdalab reads {SCHEMA_VERSION}",
                next_step="read it with the lambdalab version it names",
            )
        return manifest

    def append_trial(self, result: TrialResult) -> None:
        """Writes one trial and waits until it is on the disk."""
        self._append("trials.jsonl", [result])

    def trials(self) -> list[TrialResult]:
        """All trials so far, in the order they were executed."""
        return self._lines("trials.jsonl", TrialResult)

    def append_log_lines(self, lines: Iterable[LogLine]) -> None:
        """Writes the lines that are not there yet; collecting twice does no harm."""
        if self._seen_events is None:
            self._seen_events = {line.event_id for line in self.log_lines()}
        new = {line.event_id: line for line in lines if line.event_id not in self._seen_events}
        if new:
            self._append("platform.jsonl", list(new.values()))
            self._seen_events.update(new)

    def log_lines(self) -> list[LogLine]:
        """All log lines collected so far."""
        return self._lines("platform.jsonl", LogLine)

    def write_rows(self, rows: Sequence[InvocationRow]) -> None:
        """Writes ``metrics.csv`` and ``metrics.parquet``; money keeps its exact decimals in both."""
        import pyarrow as pa
        from pyarrow import parquet

        columns = InvocationRow.__struct_fields__
        path = self.folder / "metrics.csv"
        with _storage(path, "written"), path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([_cell(getattr(row, column)) for column in columns] for row in rows)
        schema = pa.schema([(f.name, _arrow_type(pa, f.type)) for f in msgspec.structs.fields(InvocationRow)])
        table = pa.Table.from_pylist([msgspec.structs.asdict(row) for row in rows], schema=schema)
        with _storage(self.folder / "metrics.parquet", "written"):
            parquet.write_table(table, self.folder / "metrics.parquet")

    def write_summary(self, summary: msgspec.Struct) -> None:
        """Replaces ``summary.json``."""
        self._write("summary.json", msgspec.json.format(msgspec.json.encode(summary)))

    def _write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        with _storage(path, "written"):
            unfinished = path.with_suffix(".unfinished")
            unfinished.write_bytes(content)
            unfinished.replace(path)

    def _append(self, name: str, records: Sequence[msgspec.Struct]) -> None:
        path = self.folder / name
        with _storage(path, "written"), path.open("ab+") as file:
            _cut_unfinished_line(file)
            file.write(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
            file.flush()
            os.fsync(file.fileno())

    def _lines(self, name: str, kind: type[T]) -> list[T]:
        path = self.folder / name
        if not path.exists():
            return []
        with _storage(path, "read"):
            *lines, _ = path.read_bytes().split(b"\n")
        decoder = msgspec.json.Decoder(kind)
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(decoder.decode(line))
            except msgspec.DecodeError as error:
                raise StorageError(
                    f"{path}, line {number}, is damaged: {error}", next_step="remove that line, or measure again"
                ) from error
        return records

    def _point_latest(self) -> None:
        link = self.folder.parent / "latest"
        with _storage(link, "written"):
            if link.is_symlink() or not link.exists():
                fresh = link.with_suffix(".new")
                fresh.unlink(missing_ok=True)
                fresh.symlink_to(self.folder.name)
                fresh.replace(link)


def _cut_unfinished_line(file: Any) -> None:
    """Removes what a crash left after the last line end."""
    file.seek(0, os.SEEK_END)
    end = file.tell()
    if end == 0:
        return
    file.seek(0)
    content = file.read()
    if not content.endswith(b"\n"):
        file.truncate(content.rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case Decimal():
            return f"{value:f}"
        case _:
            return str(value)


def _arrow_type(pa: Any, annotation: Any) -> Any:
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), Decimal: pa.decimal128(38, 18)}
    return next(kinds[kind] for kind in kinds if annotation is kind or annotation == (kind | None))
