"""SQL over run directories: DuckDB reads their Parquet and JSON files, and can read nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lambdalab.errors import StorageError, UsageError

_TRIALS: Final = "trials.jsonl"


class Answer:
    """Column names and rows."""

    def __init__(self, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        self.columns = tuple(columns)
        self.rows = list(rows)


def query(sql: str, folders: Sequence[Path]) -> Answer:
    """Run one query over the views ``metrics`` (a row per invocation), ``trials`` and ``runs`` (``run.json``).

    Rows of runs of different schema versions stand together: a column that a run does not have is NULL in its rows.

    Args:
        sql: one statement of DuckDB's SQL that returns rows.
        folders: run directories with ``metrics.parquet``.

    Raises:
        UsageError: the statement is wrong, in DuckDB's own words, or reads or writes something else.
        StorageError: a file is damaged.
    """
    import duckdb  # here, because the import takes long and only this command needs it

    metrics = [str(folder / "metrics.parquet") for folder in folders]
    runs = [str(folder / "run.json") for folder in folders]
    trials = [str(folder / _TRIALS) for folder in folders if (folder / _TRIALS).exists()]
    with duckdb.connect(":memory:") as connection:
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
        try:
            found = connection.execute(sql)
            if found is None:  # nothing but blanks and comments
                raise UsageError("the query is empty", next_step="the views are metrics, trials and runs")
            columns = [column[0] for column in found.description or ()]
            return Answer(columns, found.fetchall())
        except duckdb.Error as problem:
            raise UsageError(
                f"DuckDB refused the query: {_sentence(problem)}",
                next_step="the views are metrics, trials and runs; see their columns with `DESCRIBE metrics`",
            ) from problem


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _sentence(problem: Exception) -> str:
    return " ".join(str(problem).split()).rstrip(".")
