"""SQL over run directories: what it reads, what it refuses."""

import resource
from pathlib import Path

import pytest
import sample_factorial
from samples import PRICES, make_lines, make_manifest, make_results

from lambdalab.analysis.message_rows import join
from lambdalab.errors import UsageError
from lambdalab.logs.observations import observe
from lambdalab.records.query import Row, query
from lambdalab.records.trial_files import RunDirectory
from lambdalab.run.call_conclusion import conclude

MANIFEST = make_manifest()
RESULTS = make_results(MANIFEST)


def rows_of(sql: str, folders: list[Path]) -> list[Row]:
    return [row for rows in query(sql, folders).batches for row in rows]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = RunDirectory.create(tmp_path / "it's", MANIFEST)
    for result in RESULTS:
        store.append_trial(result)
    store.write_rows(join(MANIFEST, RESULTS, observe(line for r in RESULTS for line in make_lines(r)), PRICES))
    return store.folder


def test_the_three_views(folder: Path) -> None:
    answer = query("select label, count(*) as n from metrics where valid group by label order by n, label", [folder])
    assert (answer.columns, list(answer.batches)) == (("label", "n"), [[("SMALL", 2), ("WARMUP", 2)]])
    assert rows_of("select count(*) from trials", [folder]) == [(len(RESULTS),)]
    assert rows_of("select seed, protocol.name from runs", [folder]) == [(7, "tiny")]


def test_runs_of_an_older_schema_have_null_for_what_they_lack(folder: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    old = tmp_path / "old"
    old.mkdir()
    (old / "run.json").write_text('{"run_id": "old", "schema_version": 1}')
    parquet.write_table(parquet.read_table(folder / "metrics.parquet").drop_columns(["arm"]), old / "metrics.parquet")
    assert rows_of("select count(*), count(arm) from metrics", [old, folder]) == [(8, 4)]


def test_runs_of_calls_are_asked_alone_and_beside_runs_of_messages(folder: Path, tmp_path: Path) -> None:
    calls = sample_factorial.make_run(tmp_path, sample_factorial.make_manifest((sample_factorial.BATCH,), blocks=1))
    conclude(calls)
    made, sent = (rows_of("select count(*) from metrics", [one])[0][0] for one in (calls.folder, folder))
    assert rows_of("select count(call_id), count(trial) from metrics", [calls.folder, folder]) == [(made, sent)]
    assert rows_of("select count(billed_ms), sum(cost_total_usd) > 0 from metrics", [calls.folder, folder])
    assert rows_of("select kind from runs order by kind", [calls.folder, folder]) == [("factorial",), ("messages",)]
    assert rows_of("select count(*) from trials", [calls.folder, folder]) == [(len(RESULTS),)]
    with pytest.raises(UsageError, match=r"name trials does not exist.*of runs of messages, trials"):
        query("select * from trials", [calls.folder])


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("select nothing from metrics", 'Referenced column "nothing" not found'),
        ("selekt 1", "syntax error"),
        ("select * from read_csv('/etc/passwd')", "Permission Error"),
        ("copy metrics to '/tmp/lambdalab-must-not-exist.csv'", "Permission Error"),
        ("attach '/tmp/lambdalab-must-not-exist.db'", "Permission Error"),
        ("set enable_external_access = true", "locked"),
        ("set memory_limit = '1TB'", "locked"),
        ("-- nothing", "empty"),
        ("select case when range < 5000 then 1 else error('late') end from range(10000)", "late"),
    ],
)
def test_what_is_wrong_or_not_allowed_is_one_sentence(folder: Path, sql: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        rows_of(sql, [folder])
    assert "\n" not in str(caught.value)
    assert not list(Path("/tmp").glob("lambdalab-must-not-exist*"))  # noqa: S108


def test_a_huge_answer_is_read_in_batches(folder: Path) -> None:
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    batches = query("select range from range(10000000000)", [folder]).batches
    assert [next(batches)[0], next(batches)[0]] == [(0,), (1000,)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mb < 200


def test_a_query_that_needs_too_much_memory_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lambdalab.records.query._MEMORY", "200MB")
    with pytest.raises(UsageError, match=r"^the query needs more than 200MB of memory; select fewer"):
        rows_of("select list(range) from range(100000000)", [folder])
