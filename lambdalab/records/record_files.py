"""Files of records: one JSON document, or one a line. Every function raises StorageError when a file cannot be used.

Files are replaced whole, so that a reader finds the old content or the new; lines are appended, and one that a crash
cut off is ignored when read and overwritten by the next.
"""

import contextlib
import functools
import gc
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import msgspec

from lambdalab.errors import StorageError

_NEXT_STEP: Final = "check the folder's owner and the free space, or choose another with --results"
_SPAN_BYTES: Final = 2**21
_LARGE_SPANS: Final = 16
"""From so many pieces on (32 MB, a hundred thousand lines) other processes are worth their start."""
DAMAGED: Final = (ValueError, RecursionError)
"""What reading a file raises that is not JSON, not UTF-8, not such a record, or nests deeper than Python's stack."""
T = TypeVar("T", bound=msgspec.Struct)
R = TypeVar("R")
S = TypeVar("S")


def read_records(path: Path, kind: type[T]) -> list[T]:
    """Reads a file of many runs; one that is not there has no records.

    Raises:
        StorageError: it cannot be read, or is damaged.
    """
    with storage(path, "read"):
        if not path.exists():
            return []
        content = path.read_bytes()
    try:
        return msgspec.json.decode(content, type=list[kind])  # type: ignore[valid-type]
    except DAMAGED as error:
        raise StorageError(f"{path} is damaged: {error}", next_step="remove it, and measure again") from error


def write_records(path: Path, records: Sequence[msgspec.Struct]) -> None:
    """Replaces a file of many runs.

    Raises:
        StorageError: it cannot be written.
    """
    replace(path, records)


def replace(path: Path, record: msgspec.Struct | Sequence[msgspec.Struct]) -> None:
    """Replaces a file of one JSON document, written so that people can read it."""
    with replacing(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(record)) + b"\n")


def append(path: Path, records: Iterable[msgspec.Struct], *, waits: bool = True) -> None:
    """Adds records to a file of lines, over what a crash left after the last one.

    Args:
        path: the file; made when it is not there.
        records: one a line.
        waits: until they are on the disk.
    """
    with storage(path, "written"), path.open("ab+") as file:
        _cut_unfinished_line(file)
        file.write(as_lines(records))
        if waits:
            _to_disk(file)


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """All records of a file of lines; none when it is not there. A line without its end is left out."""
    return read_lines_from(path, kind, 0)[0]


def read_lines_from(path: Path, kind: type[T], position: int, at_most_bytes: int = -1) -> tuple[list[T], int]:
    """The records behind a position of a file of lines, 0 being its begin, and the position behind them."""
    with storage(path, "read"):
        if not path.exists():
            return [], position
        with path.open("rb") as file:
            file.seek(position)
            whole, end, _ = file.read(at_most_bytes).rpartition(b"\n")
    return (_decoded(kind, path, whole, position), position + len(whole) + 1) if end else ([], position)


def read_blocks(path: Path, kind: type[msgspec.Struct], read: Callable[[bytes], R]) -> Iterator[R]:
    """What ``read`` makes of a file of lines, some thousands at a time and in their order.

    A file of any size takes little memory. A large one is read by as many processes as there are cores, so
    ``read`` must be a function of a module, and what it returns must pickle.

    Args:
        path: the file; one that is not there gives nothing.
        kind: what a line is, to say which one is not.
        read: gets lines as they are in the file, and raises ValueError for one that is no such record.
    """
    with storage(path, "read"):
        if not path.exists():
            return
        spans = list(_spans(path))
    read_span = functools.partial(_read_span, path, kind, read)
    workers = len(os.sched_getaffinity(0))
    if len(spans) < _LARGE_SPANS or workers == 1:
        for span in spans:
            with storage(path, "read"):
                yield read_span(span)
        return
    found = _in_processes(workers, functools.partial(_quietly, read_span), spans)
    for span in spans:
        try:
            block = next(found, None)
        except BrokenProcessPool:  # somebody ended a worker: the rest is read here
            block = None
        with storage(path, "read"):
            yield read_span(span) if block is None else block  # what fails there fails here in words


def _in_processes(workers: int, read: Callable[[S], R], spans: Sequence[S]) -> Iterator[R]:
    # A fork of this process, which has threads of libraries, could inherit a lock that nobody will release.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, context, initializer=gc.disable) as pool:  # no cycles there
        yield from pool.map(read, spans)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which takes the place of another when it is whole and on the disk."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    with storage(path, "written"):
        try:
            with unfinished.open("wb") as file:
                yield file
                _to_disk(file)
            unfinished.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise


def _spans(path: Path) -> Iterator[tuple[int, int]]:
    """Cuts a file at line ends: where each piece begins and ends."""
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = 0
        while begin < size:
            file.seek(begin + _SPAN_BYTES)
            file.readline()
            end = min(file.tell(), size)
            yield begin, end
            begin = end


def _read_span(path: Path, kind: type[msgspec.Struct], read: Callable[[bytes], R], span: tuple[int, int]) -> R:
    begin, end = span
    with path.open("rb") as file:
        file.seek(begin)
        content = file.read(end - begin)
    if not content.endswith(b"\n"):
        content = content[: content.rfind(b"\n") + 1]
    try:
        return read(content)
    except DAMAGED:
        _decoded(kind, path, content[:-1], begin)  # says which line it is
        raise


def _quietly(read_span: Callable[[tuple[int, int]], R], span: tuple[int, int]) -> R | None:
    try:
        return read_span(span)
    except (OSError, StorageError):
        return None


def _decoded(kind: type[T], path: Path, content: bytes, begin: int) -> list[T]:
    """The records of whole lines, which begin at byte ``begin`` of the file."""
    decoder = msgspec.json.Decoder(kind)
    with contextlib.suppress(*DAMAGED):
        records = decoder.decode_lines(content)
        if len(records) == content.count(b"\n") + 1:  # it passes over empty lines
            return records
    records = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            records.append(decoder.decode(line))
        except DAMAGED as error:
            before = path.read_bytes()[:begin].count(b"\n")
            raise StorageError(
                f"{path}, line {before + number}, is damaged: {error}", next_step="remove that line, or measure again"
            ) from error
    return records


@contextlib.contextmanager
def storage(path: Path, verb: str) -> Iterator[None]:
    """Turns an OSError into one sentence that names the file."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be {verb}: {error.strerror or error}", next_step=_NEXT_STEP) from error


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _cut_unfinished_line(file: BinaryIO) -> None:
    """Removes what a crash left after the last line end; leaves the position at the end."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read() != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)


def as_lines(records: Iterable[msgspec.Struct]) -> bytes:
    """A line of JSON for each record."""
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)
