"""What every kind of run directory shares: its place, its manifest, its result files, and the link to the newest.

A manifest says by its ``kind`` what was measured; one without a kind is of messages, as those were first.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final, Generic, Self, TypeVar

import msgspec

from lambdalab.errors import StorageError, UsageError
from lambdalab.lock import Lock, hold
from lambdalab.machine_load import BlockLoad
from lambdalab.records.manifest import MESSAGES, Manifest
from lambdalab.records.pipeline import Graph
from lambdalab.records.record_files import DAMAGED, append, read_lines, replace, replacing, storage

_encoder: Final = msgspec.json.Encoder(decimal_format="string")
_ROWS_AT_ONCE: Final = 10_000
M = TypeVar("M", bound=Manifest)


class _Header(msgspec.Struct):
    """As much of a manifest as every kind and version of it has."""

    schema_version: int
    kind: str = MESSAGES


class RunFolder(Generic[M]):
    """One run's files. Every method raises StorageError when its file cannot be read or written.

    Attributes:
        kind: of its manifest, as it is written there.
        version: of its manifest that this lambdalab reads.
        manifest_type: what it is read as.
    """

    kind: ClassVar[str]
    version: ClassVar[int]
    manifest_type: type[M]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, results: Path, manifest: M) -> Self:
        """Makes the folder of a new run, writes its manifest and points ``latest`` at it.

        Raises:
            StorageError: the results folder cannot be written.
        """
        run = cls(results / manifest.run_id)
        with storage(run.folder, "made"):
            run.folder.mkdir(parents=True)
        run.write_manifest(manifest)
        run._point_latest()
        return run

    @classmethod
    def open(cls, results: Path, run_id: str) -> Self:
        """Finds a run by its id, by ``latest`` or by a path.

        Raises:
            UsageError: there is no such run, or the folder is not one.
            StorageError: the folder may not be read.
        """
        return cls(find_run(results, run_id))

    def held(self) -> AbstractContextManager[Lock]:
        """Holds the folder, so that only this process writes its measurements (``lock.hold``).

        Raises:
            InUseError: another process does.
        """
        return hold(self.folder / "lock", f"run {self.folder.name}")

    def write_manifest(self, manifest: M) -> None:
        """Replaces ``run.json``."""
        replace(self.folder / "run.json", manifest)

    def manifest(self) -> M:
        """Reads ``run.json``.

        Raises:
            UsageError: it is of another kind of run.
            StorageError: it is damaged, or of another version of this format.
        """
        path = self.folder / "run.json"
        content, header = _read_header(path)
        if header.kind != self.kind:
            raise UsageError(
                f"{self.folder} is a run of kind {header.kind}, and only one of kind {self.kind} can be used here",
                next_step="name another run; `lambdalab report` and `lambdalab run --resume` take either kind",
            )
        if header.schema_version == self.version:
            try:
                return msgspec.json.decode(content, type=self.manifest_type)
            except DAMAGED as error:
                raise _damaged(path, error) from error
        raise StorageError(
            f"{path} has schema version {header.schema_version}, this lambdalab reads {self.version}",
            next_step="read it with the lambdalab version it names",
        )

    def write_pipeline(self, graph: Graph) -> None:
        """Replaces ``pipeline.json``."""
        replace(self.folder / "pipeline.json", graph)

    def write_summary(self, summary: msgspec.Struct) -> None:
        """Replaces ``summary.json``."""
        replace(self.folder / "summary.json", summary)

    def write_report(self, page: str) -> None:
        """Replaces ``report.html``."""
        with replacing(self.report_file) as file:
            file.write(page.encode())

    def append_block_load(self, load: BlockLoad) -> None:
        """Writes what other programs took of the machine during a block."""
        append(self.folder / "machine.jsonl", [load])

    def block_loads(self) -> list[BlockLoad]:
        """What other programs took, block by block; none of a run on AWS."""
        return read_lines(self.folder / "machine.jsonl", BlockLoad)

    @property
    def report_file(self) -> Path:
        return self.folder / "report.html"

    @property
    def is_reported(self) -> bool:
        """Whether all of the run has been written."""
        return self.report_file.exists()

    def _point_latest(self) -> None:
        """A ``latest`` that is no link is somebody's own and stays."""
        link = self.folder.parent / "latest"
        with storage(link, "written"):
            if link.is_symlink() or not link.exists():
                fresh = link.with_name("latest.unfinished")
                fresh.unlink(missing_ok=True)
                fresh.symlink_to(self.folder.name)
                fresh.replace(link)


def find_run(results: Path, run_id: str) -> Path:
    """The folder of a run of any kind, by its id, by ``latest`` or by a path.

    Raises:
        UsageError: there is no such run, or the folder is not one.
        StorageError: the folder may not be read.
    """
    folder = Path(run_id) if "/" in run_id else results / run_id
    with storage(folder, "read"):
        if (folder / "run.json").is_file():
            return folder.resolve()
        known = sorted(path.parent.name for path in results.glob("*/run.json") if not path.parent.is_symlink())
    raise UsageError(
        f"{folder} is not a run directory",
        next_step=f"the newest run in {results} is {known[-1]}" if known else "measure one with `lambdalab run`",
    )


def kind_of(folder: Path) -> str:
    """Which kind of run a folder holds.

    Raises:
        StorageError: its manifest is damaged.
    """
    return _read_header(folder / "run.json")[1].kind


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Replaces a CSV file; what is missing is empty, and numbers keep all their digits."""
    with replacing(path) as file:
        _write(file, columns, rows)


def write_parquet(path: Path, columns: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces a Parquet file; what is missing is null, and money keeps its exact decimals.

    Args:
        path: the file.
        columns: their names and types.
        rows: by the names of columns.
    """
    import pyarrow as pa  # here, because the import takes 0.2 s and most commands never need it
    from pyarrow import json, parquet

    schema = pa.schema([(name, _arrow_type(pa, kind)) for name, kind in columns.items()])
    reading = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    left = iter(rows)
    with replacing(path) as file, parquet.ParquetWriter(file, schema) as writer:
        while some := list(islice(left, _ROWS_AT_ONCE)):  # as dictionaries they take far more memory than in the file
            # As JSON, because Arrow imports pandas, which takes longer than the rest, when it reads Python's values.
            lines = b"\n".join(map(_encoder.encode, some))
            writer.write_table(json.read_json(pa.BufferReader(lines), parse_options=reading))


def cell_text(value: object) -> str:
    """A value as a cell of a CSV file."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{Decimal(repr(value)):f}"
        case Decimal():
            return f"{value:f}"
        case _:
            return str(value)


def _write(file: BinaryIO, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell_text(value) for value in row] for row in rows)
    text.detach()  # what it holds is written, and the file stays open


def _arrow_type(pa: Any, annotation: Any) -> Any:
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), Decimal: pa.decimal128(38, 18)}
    return next(kinds[kind] for kind in kinds if annotation is kind or annotation == (kind | None))


def _read_header(path: Path) -> tuple[bytes, _Header]:
    with storage(path, "read"):
        content = path.read_bytes()
    try:
        return content, msgspec.json.decode(content, type=_Header)
    except DAMAGED as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> StorageError:
    return StorageError(f"{path} is damaged: {error}", next_step="restore it, or measure again")
