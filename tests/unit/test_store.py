"""The run directory: what is on the disk after every call, and after every way a call can fail."""

import csv
import io
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet
from samples import PRICES, ROOT, RUN_ID, make_lines, make_manifest, make_result, make_trials, record_line, request_id

from lambdalab.analysis.message_rows import join
from lambdalab.errors import StorageError, UsageError
from lambdalab.logs.observations import observe
from lambdalab.records import record_files, run_directory
from lambdalab.records.run_directory import cell_text
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import InvocationRow

MANIFEST = make_manifest()
RESULTS = [make_result(trial) for trial in make_trials(MANIFEST)]
COLUMNS = [
    *("run_id", "scenario", "target", "latency_model", "cpu_scale", "arm", "language", "mode", "architecture"),
    *("memory_mb", "batch_size", "trial", "block", "label"),
    *("request_id", "invocation_messages", "started_at", "cold_start", "duration_ms", "billed_ms", "init_ms"),
    *("max_memory_mb", "queue_wait_ms", "end_to_end_ms", "written", "duplicates", "sdk_retries", "receive_count"),
    *("wru", "log_bytes", "cost_lambda_usd", "cost_dynamodb_usd", "cost_sqs_usd", "cost_logs_usd", "cost_total_usd"),
    *("cost_per_item_usd", "valid", "reason"),
]
"""As the design has them, in its order, and five more."""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "results", MANIFEST)


def sample_rows() -> list[InvocationRow]:
    """A good row, one without REPORT and a reason with comma, quote and line end, and one without anything."""
    good, no_report, nothing = RESULTS[:3]
    lines = [
        *make_lines(good),
        *make_lines(no_report, record_line(no_report, error={"code": "X", "message": 'a, "b"\nc'})),
    ]
    return join(MANIFEST, [good, no_report, nothing], observe(lines), PRICES)


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """A disk that is full at so many bytes a file: the kernel refuses to write beyond (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# manifest and folder


def test_a_new_run_is_a_folder_with_its_manifest(run: RunDirectory) -> None:
    assert run.folder.name == RUN_ID
    assert run.manifest() == MANIFEST
    assert [path.name for path in run.folder.iterdir()] == ["run.json"]
    assert (run.trials(), run.log_lines()) == ([], [])


def test_the_price_sheet_survives_the_manifest_exactly(run: RunDirectory) -> None:
    assert msgspec.convert(run.manifest().prices, type(PRICES)) == PRICES


def test_latest_follows_the_newest_run(tmp_path: Path) -> None:
    for run_id in ("1", "2"):
        RunDirectory.create(tmp_path, msgspec.structs.replace(MANIFEST, run_id=run_id))
        assert (tmp_path / "latest").readlink() == Path(run_id), "relative, so that the folder can be moved"
        assert RunDirectory.open(tmp_path, "latest").folder == tmp_path / run_id
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2", "latest"}


def test_a_latest_that_points_nowhere_is_replaced_and_one_that_is_no_link_stays(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("gone")
    RunDirectory.create(tmp_path, MANIFEST)
    assert (tmp_path / "latest" / "run.json").exists()
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").write_text("mine")
    RunDirectory.create(tmp_path, msgspec.structs.replace(MANIFEST, run_id="other"))
    assert (tmp_path / "latest").read_text() == "mine"


def test_a_run_is_found_by_id_latest_and_path(run: RunDirectory) -> None:
    results = run.folder.parent
    for name in (RUN_ID, "latest", str(run.folder), f"{results}/latest"):
        assert RunDirectory.open(results, name).folder == run.folder


@pytest.mark.parametrize("name", ["nope", "", "..", "x" * 300, "a\0b", "/nonexistent/run"])
def test_a_run_that_is_not_there(run: RunDirectory, name: str) -> None:
    with pytest.raises((UsageError, StorageError)) as caught:
        RunDirectory.open(run.folder.parent, name)
    assert len(str(caught.value).splitlines()) == 1
    if name == "nope":
        assert str(caught.value) == (
            f"{run.folder.parent}/nope is not a run directory; the newest run in {run.folder.parent} is {RUN_ID}."
        )


def test_without_any_run_the_next_step_is_to_measure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="measure one with `lambdalab run`"):
        RunDirectory.open(tmp_path / "results", "latest")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is damaged: Input data was truncated"),
        (b"{", "is damaged: Input data was truncated"),
        (b"[]", "is damaged: Expected `object`, got `array`"),
        (b'{"schema_version": 4}', "is damaged: Object missing required field `run_id`"),
        (b'{"schema_version": 4, "run_id": "\xff"}', "is damaged: 'utf-8' codec"),
        (b'{"schema_version": 9, "other": 0}', "has schema version 9, this lambdalab reads 4"),
    ],
)
def test_a_manifest_that_cannot_be_used(run: RunDirectory, content: bytes, problem: str) -> None:
    (run.folder / "run.json").write_bytes(content)
    with pytest.raises(StorageError) as caught:
        run.manifest()
    assert str(caught.value).startswith(f"{run.folder}/run.json {problem}")


# lines


def test_what_is_appended_is_read_again_in_order(run: RunDirectory) -> None:
    for result in RESULTS:
        run.append_trial(result)
        assert RunDirectory(run.folder).trials()[-1] == result
    assert run.trials() == RESULTS
    assert (run.folder / "trials.jsonl").read_bytes().count(b"\n") == len(RESULTS)


def test_collecting_twice_writes_once(run: RunDirectory) -> None:
    lines = make_lines(RESULTS[0])
    run.append_log_lines(lines[:2])
    run.append_log_lines([*lines, *lines])
    again = RunDirectory(run.folder)
    again.append_log_lines(iter(lines))
    assert again.log_lines() == lines


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_cut_off_by_a_crash_is_ignored_and_then_overwritten(run: RunDirectory, cut: int) -> None:
    file = run.folder / "trials.jsonl"
    for result in RESULTS[:2]:
        run.append_trial(result)
    file.write_bytes(file.read_bytes()[:-cut])
    assert run.trials() == RESULTS[:1]
    run.append_trial(RESULTS[2])
    assert run.trials() == [RESULTS[0], RESULTS[2]]


def test_when_all_there_is_was_cut_off_the_file_begins_anew(run: RunDirectory) -> None:
    (run.folder / "trials.jsonl").write_bytes(b'{"trial"')
    assert run.trials() == []
    run.append_trial(RESULTS[0])
    assert run.trials() == RESULTS[:1]


@pytest.mark.parametrize("damage", [b"{}", b"", b"not JSON", b"\xff\xfe", b'{"trial": 1}'])
def test_a_damaged_line_in_the_middle_is_named(run: RunDirectory, damage: bytes) -> None:
    run.append_trial(RESULTS[0])
    file = run.folder / "trials.jsonl"
    file.write_bytes(file.read_bytes() + damage + b"\n" + file.read_bytes())
    with pytest.raises(StorageError) as caught:
        run.trials()
    assert str(caught.value).startswith(f"{file}, line 2, is damaged: ")
    assert str(caught.value).endswith("; remove that line, or measure again.")


# a disk that does not take it


def test_a_full_disk_keeps_what_was_there(run: RunDirectory) -> None:
    run.append_trial(RESULTS[0])
    file = run.folder / "trials.jsonl"
    with file_size_limit(file.stat().st_size + 10), pytest.raises(StorageError) as caught:
        run.append_trial(RESULTS[1])
    assert str(caught.value) == (
        f"{file} cannot be written: File too large; "
        "check the folder's owner and the free space, or choose another with --results."
    )
    assert run.trials() == RESULTS[:1]
    run.append_trial(RESULTS[1])
    assert run.trials() == RESULTS[:2]


def test_log_lines_a_full_disk_took_in_part_are_not_written_twice(run: RunDirectory) -> None:
    lines = make_lines(RESULTS[0])
    run.append_log_lines(lines[:1])
    first = (run.folder / "platform.jsonl").stat().st_size
    with file_size_limit(first + len(msgspec.json.encode(lines[1])) + 10), pytest.raises(StorageError):
        run.append_log_lines(lines)
    run.append_log_lines(lines)
    assert run.log_lines() == lines


@pytest.mark.parametrize(
    ("name", "size_bytes", "write"),
    [
        ("run.json", 100, lambda run: run.write_manifest(MANIFEST)),
        ("summary.json", 50, lambda run: run.write_summary(RESULTS[0])),
        ("metrics.csv", 10, lambda run: run.write_rows(sample_rows())),
        ("metrics.parquet", 4000, lambda run: run.write_rows(sample_rows()[:2])),
    ],
)
def test_a_file_that_cannot_be_replaced_keeps_its_old_content(
    run: RunDirectory, name: str, size_bytes: int, write: Callable[[RunDirectory], None]
) -> None:
    run.write_manifest(msgspec.structs.replace(MANIFEST, seed=1))
    run.write_summary(RESULTS[1])
    run.write_rows(sample_rows()[:1])
    before = (run.folder / name).read_bytes()
    with file_size_limit(size_bytes), pytest.raises(StorageError) as caught:
        write(run)
    assert str(caught.value).startswith(f"{run.folder / name} cannot be written: ")
    assert (run.folder / name).read_bytes() == before
    assert not list(run.folder.glob("*.unfinished")), "and nothing unfinished is left"


def test_a_reader_never_sees_half_a_file(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever bytes go to the disk, the file of that name holds the old content still."""
    seen: list[bytes] = []
    to_disk = record_files._to_disk

    def watch(file: Any) -> None:
        seen.append((run.folder / "summary.json").read_bytes())
        to_disk(file)

    run.write_summary(RESULTS[0])
    before = (run.folder / "summary.json").read_bytes()
    monkeypatch.setattr(record_files, "_to_disk", watch)
    run.write_summary(RESULTS[1])
    assert seen == [before]
    assert (run.folder / "summary.json").read_bytes() != before


def test_rows_that_are_interrupted_while_written_leave_what_was_there(run: RunDirectory) -> None:
    class Interrupted(list[InvocationRow]):
        def __iter__(self) -> Iterator[InvocationRow]:
            yield from super().__iter__()
            raise KeyboardInterrupt

    run.write_rows(sample_rows()[:1])
    before = {path: path.read_bytes() for path in run.folder.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        run.write_rows(Interrupted(sample_rows()))
    assert {path: path.read_bytes() for path in run.folder.iterdir()} == before


def test_rows_of_several_pieces_are_all_written(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "_ROWS_AT_ONCE", 2)
    rows = sample_rows()
    run.write_rows(rows)
    table = parquet.read_table(run.folder / "metrics.parquet")
    assert [InvocationRow(**row) for row in table.to_pylist()] == rows
    assert len((run.folder / "metrics.csv").read_text().splitlines()) == 1 + len(rows) + 1, "one reason has a line end"


@pytest.mark.parametrize("results", ["a file", "/proc/nothing/can/be/made/here"])
def test_a_results_folder_that_cannot_be_written(tmp_path: Path, results: str) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(StorageError) as caught:
        RunDirectory.create(tmp_path / results, MANIFEST)
    assert f"{RUN_ID} cannot be made: " in str(caught.value)


def test_a_run_is_never_written_over(run: RunDirectory) -> None:
    with pytest.raises(StorageError, match="File exists"):
        RunDirectory.create(run.folder.parent, MANIFEST)


# rows


def test_csv_has_the_columns_of_the_design(run: RunDirectory) -> None:
    run.write_rows([])
    assert (run.folder / "metrics.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_the_schema_of_a_row_has_the_same_columns_in_the_same_order() -> None:
    schema = json.loads((ROOT / "contracts" / "metrics.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == schema["required"] == COLUMNS == list(InvocationRow.__struct_fields__)
    kinds = {"text": str, "integer": int, "number": float, "usd": Decimal, "boolean": bool}
    for field in msgspec.structs.fields(InvocationRow):
        kind = kinds[schema["properties"][field.name]["$ref"].removeprefix("#/$defs/")]
        required = "minLength" in schema["properties"][field.name]
        assert field.type == (kind if required else kind | None), field.name


def test_csv_cells(run: RunDirectory) -> None:
    run.write_rows(sample_rows())
    content = (run.folder / "metrics.csv").read_bytes()
    assert b"\r" not in content
    good, no_report, nothing = csv.DictReader(io.StringIO(content.decode()))
    assert (good["valid"], good["cold_start"], good["reason"]) == ("true", "true", "")
    assert (good["wru"], good["duration_ms"], good["billed_ms"]) == ("2.0", "15.74", "147")
    assert good["cost_dynamodb_usd"] == "0.000001250000000000"
    assert (no_report["valid"], no_report["duration_ms"], no_report["cold_start"]) == ("false", "", "")
    assert no_report["reason"] == 'no REPORT line was found; the function reported X: a, "b"\nc'
    measured = set(COLUMNS) - set(COLUMNS[:14]) - {"valid", "reason"}
    assert {nothing[column] for column in measured} == {""}

    schema = json.loads((ROOT / "contracts" / "metrics.schema.json").read_text())
    for row in (good, no_report, nothing):
        jsonschema.validate(row, schema)
    for wrong in ({"valid": "True"}, {"wru": "1e-07"}, {"duration_ms": "nan"}, {"billed_ms": "1.5"}, {"block": ""}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(good | wrong, schema)


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (0.0, "0.0"),
        (1e-07, "0.0000001"),
        (1e22, "10000000000000000000000"),
        (Decimal("1E-18"), "0.000000000000000001"),
        (Decimal("0E-18"), "0.000000000000000000"),
        ("a\tb", "a\tb"),
    ],
)
def test_no_cell_is_in_scientific_notation(value: object, cell: str) -> None:
    assert cell_text(value) == cell


def test_parquet_has_the_same_rows_and_their_types(run: RunDirectory) -> None:
    rows = sample_rows()
    run.write_rows(rows)
    table = parquet.read_table(run.folder / "metrics.parquet")
    assert table.column_names == COLUMNS
    assert [InvocationRow(**row) for row in table.to_pylist()] == rows
    kinds = {name: str(table.schema.field(name).type) for name in ("block", "wru", "valid", "reason", "cost_total_usd")}
    assert kinds == {
        "block": "int64",
        "wru": "double",
        "valid": "bool",
        "reason": "string",
        "cost_total_usd": "decimal128(38, 18)",
    }


def test_parquet_of_no_rows_has_the_types_too(run: RunDirectory) -> None:
    run.write_rows([])
    table = parquet.read_table(run.folder / "metrics.parquet")
    assert (table.num_rows, table.schema.field("valid").type) == (0, pa.bool_())


def test_the_greatest_cost_fits_the_columns(run: RunDirectory) -> None:
    huge = "9" * 12
    report = f"REPORT RequestId: {request_id(RESULTS[0])}\tDuration: {huge}.00 ms\tBilled Duration: {huge} ms\t"
    lines = make_lines(RESULTS[0], record_line(RESULTS[0]), report + f"Memory Size: {huge} MB\t\n")
    rows = join(MANIFEST, RESULTS[:1], observe(lines), PRICES)
    run.write_rows(rows)
    assert parquet.read_table(run.folder / "metrics.parquet").to_pylist()[0]["cost_total_usd"] == rows[0].cost_total_usd
