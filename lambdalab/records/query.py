"""SQL over run directories: DuckDB reads their Parquet and JSON files, and can read nothing else."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from lambdalab.errors import StorageError, UsageError

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")
Row = tuple[Any, ...]
_TRIALS: Final = "trials.jsonl"
_MEMORY: Final = "2GB"
"""The most memory DuckDB may hold."""
_ROWS_AT_ONCE: Final = 1000


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Column names, and the rows in batches, each read from DuckDB when it is asked for."""

    columns: tuple[str, ...]
    batches: Iterator[list[Row]]


def query(sql: str, folders: Sequence[Path]) -> Answer:
    """Run one query over the views ``metrics`` (a row per invocation), ``trials`` and ``runs`` (``run.json``).

    Rows of runs of different schema versions stand together: a column that a run does not have is NULL in its rows.
    Ctrl-C ends it at once, while DuckDB's own threads may still work for a while.

    Args:
        sql: one statement of DuckDB's SQL that returns rows.
        folders: run directories with ``metrics.parquet``.

    Raises:
        UsageError: the statement is wrong, in DuckDB's own words, or takes too much memory, or reads or writes
            something else. Reading the batches raises it too.
        StorageError: a file is damaged.
    """
    import duckdb  # here, because the import takes long and only this command needs it

    metrics = [str(folder / "metrics.parquet") for folder in folders]
    runs = [str(folder / "run.json") for folder in folders]
    trials = [str(folder / _TRIALS) for folder in folders if (folder / _TRIALS).exists()]
    # Without these it takes most of the machine's memory, then fills the disk of the current folder.
    connection = duckdb.connect(":memory:", config={"memory_limit": _MEMORY, "temp_directory": ""})
    connection.execute("SET allowed_paths = ?", [[*metrics, *runs, *trials]])
    connection.execute("SET enable_external_access = false")
    try:
        for name, reader, files in (
            ("metrics", "read_parquet(?, union_by_name = true)", metrics),
            ("runs", "read_json(?, union_by_name = true)", runs),
            ("trials", "read_json(?, union_by_name = true, format = 'newline_delimited')", trials),
        ):
            if files:
                listed = "[" + ", ".join(_quoted(file) for file in files) + "]"
                connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {reader.replace('?', listed)}")  # noqa: S608
    except duckdb.Error as problem:
        raise StorageError(
            f"{_sentence(problem)}", next_step="write the run's files again with `lambdalab report RUN`"
        ) from problem
    connection.execute("SET lock_configuration = true")
    found = _interruptible(connection, lambda: connection.execute(sql))
    if found is None:  # nothing but blanks and comments
        raise UsageError("the query is empty", next_step="the views are metrics, trials and runs")

    def fetch() -> list[Row]:
        return _interruptible(connection, lambda: found.fetchmany(_ROWS_AT_ONCE))

    def batches(rows: list[Row]) -> Iterator[list[Row]]:
        while rows:
            yield rows
            rows = fetch()

    return Answer(columns=tuple(column[0] for column in found.description or ()), batches=batches(fetch()))


def _interruptible(connection: "duckdb.DuckDBPyConnection", work: Callable[[], T]) -> T:
    """Does a piece of DuckDB's work in another thread. In the main thread Ctrl-C would wait until it is done.

    Raises:
        UsageError: DuckDB refuses it.
    """
    import duckdb

    future: Future[T] = Future()

    def worker() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=worker, daemon=True).start()
    try:
        return future.result()
    except KeyboardInterrupt:
        connection.interrupt()
        raise
    except (MemoryError, duckdb.OutOfMemoryException) as problem:
        raise UsageError(
            f"the query needs more than {_MEMORY} of memory", next_step="select fewer columns or rows, or do not sort"
        ) from problem
    except duckdb.Error as problem:
        raise UsageError(
            f"DuckDB refused the query: {_sentence(problem)}",
            next_step="the views are metrics, runs and, of runs of messages, trials; see `DESCRIBE metrics`",
        ) from problem


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _sentence(problem: Exception) -> str:
    return " ".join(str(problem).split()).rstrip(".")
