"""The runner against an exact target in memory: the order of its calls, and the whole files it leaves."""

from collections import deque
from datetime import UTC, datetime
from itertools import count, pairwise
from pathlib import Path

import msgspec
import pytest
from fake_target import FakeTarget
from samples import LOADS, RUN_ID, make_facts, make_manifest, make_result, make_trials

from lambdalab.analysis.message_rows import join
from lambdalab.design.arms import Factors
from lambdalab.errors import AccessError, InvalidRunError, StackError, StorageError
from lambdalab.logs.observations import observe
from lambdalab.machine_load import BlockLoad, CpuReading
from lambdalab.planning.protocol import schedule
from lambdalab.pricing.costs import PriceSheet
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import InvocationRow, LogLine, Trial
from lambdalab.run import runner
from lambdalab.run.runner import INTERRUPTED, Runner, kept_trials, remaining
from lambdalab.run.target import PlaneCounts

NO_ACCESS = AccessError("queue is gone", next_step="look for it")


class Run:
    """One run on a fake target, and what it left."""

    def __init__(self, folder: Path, manifest: MessageManifest) -> None:
        self.target = FakeTarget()
        began = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.store = RunDirectory.create(folder, msgspec.structs.replace(manifest, started_at=began))
        self.schedule = schedule(manifest.protocol, manifest.seed)
        self.told: list[str] = []

    def go(self) -> None:
        self.target.calls.clear()
        self.told.clear()
        Runner(self.target, self.store, lambda trial: self.told.append(trial.trial_id)).run(self.schedule)

    def rows(self) -> list[InvocationRow]:
        manifest = self.store.manifest()
        prices = msgspec.convert(manifest.prices, PriceSheet)
        return join(manifest, self.store.trials(), observe(self.store.log_lines()), prices)

    def outcome(self) -> list[tuple[str, str | None]]:
        return [(result.trial.trial_id, result.reason) for result in self.store.trials()]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path, make_manifest(blocks=2))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "EMPTY_QUEUE_WAIT_S", 0.05)
    monkeypatch.setattr(runner, "LEAST_LOG_WAIT_S", 0.001)


START = ["depth queue-python", "depth dead-python", "depth queue-go", "depth dead-go"]
COLLECT = ["logs python", "logs go"]


def of_arm(arm: str) -> list[str]:
    """What the runner does for the cold and then for the warm load of an arm."""
    trial = [f"send {arm}", f"depth queue-{arm}", f"count table-{arm}"]
    return [f"start_cold {arm}", *trial, *trial]


def ids(trials: list[Trial] | tuple[Trial, ...]) -> list[str]:
    return [trial.trial_id for trial in trials]


# what is left


def test_all_is_left_of_a_run_that_has_not_begun(run: Run) -> None:
    assert remaining(run.schedule, []) == list(run.schedule)


@pytest.mark.parametrize("done", range(9))
def test_an_arm_that_is_not_complete_begins_again_with_its_cold_load(run: Run, done: int) -> None:
    left = remaining(run.schedule, [make_result(trial) for trial in run.schedule[:done]])
    assert left == list(run.schedule[done // 2 * 2 :])
    assert all(trial.load.start == "cold" for trial in left[::2])


def test_trials_that_did_not_end_do_not_count_and_invalid_ones_do(run: Run) -> None:
    first, second, *_ = run.schedule
    interrupted = make_result(second, drained_at_ms=None, reason=INTERRUPTED)
    stuck = make_result(second, drained_at_ms=None, reason="its queue was not empty after 330 s")
    missing = make_result(second, items_found=99, reason="99 of 100 items are in the table")
    for result in (interrupted, stuck):
        assert remaining(run.schedule, [make_result(first), result]) == list(run.schedule)
    assert remaining(run.schedule, [make_result(first), missing]) == list(run.schedule[2:])
    assert remaining(run.schedule, [make_result(first), stuck, make_result(second, attempt=2)]) == list(
        run.schedule[2:]
    )


# a run


def test_a_whole_run(run: Run) -> None:
    run.go()

    one, two, three, four = (trial.arm for trial in run.schedule[::2])
    assert run.target.calls == [
        *START,
        *of_arm(one),
        *of_arm(two),
        *COLLECT,
        *of_arm(three),
        *of_arm(four),
        *COLLECT,
        "restore",
        *COLLECT,
    ]
    assert run.told == ids(run.schedule)
    results = run.store.trials()
    assert [result.trial for result in results] == list(run.schedule)
    for result in results:
        assert result.batch_id == f"{RUN_ID}:{result.trial.trial_id}"
        assert result.message_id is not None
        assert result.sent_at_ms is not None
        assert result.drained_at_ms is not None
        assert result.drained_at_ms >= result.sent_at_ms
        assert result.items_found == result.items_expected == result.trial.load.count
        assert result.reason is None
    assert all(one.drained_at_ms <= two.sent_at_ms for one, two in pairwise(results))  # type: ignore[operator]
    rows = run.rows()
    assert [(row.trial, row.valid, row.cold_start) for row in rows] == [
        (trial.trial_id, True, trial.load.start == "cold") for trial in run.schedule
    ]


def test_message_bytes_are_those_of_the_message_sent(run: Run) -> None:
    run.go()
    first = run.store.trials()[0]
    body = f'{{"batch_id":"{first.batch_id}","size_bytes":1024,"count":1,"label":"WARMUP","mode":"sequential"}}'
    assert first.message_bytes == len(body)


@pytest.mark.parametrize("split", [0, 2])
def test_an_arm_with_a_batch_size_sends_a_batch_and_one_invocation_must_get_all_of_it(
    tmp_path: Path, split: int
) -> None:
    run = Run(tmp_path, make_manifest(factors=Factors(language=("go",), batch_size=(1, 5))))
    run.target.split = split
    run.go()
    one, five = ([result for result in run.store.trials() if result.trial.arm == arm] for arm in ("go-1msg", "go-5msg"))
    assert run.target.calls.count("send go") == len(one) + len(five) == 4
    assert {arm.batch_size for arm in run.target.configured} == {1, 5}
    for result in five:
        count = result.trial.load.count
        assert result.batch_ids == tuple(f"{result.batch_id}:{number}of5" for number in range(1, 6))
        assert [run.target.items[batch_id] for batch_id in result.batch_ids] == [count] * 5
        assert (result.items_found, result.items_expected, result.messages) == (5 * count, 5 * count, 5)
        body = '{"batch_id":"%s","size_bytes":1024,"count":%d,"label":"%s","mode":"sequential"}'
        sent = [body % (batch_id, count, result.trial.load.label) for batch_id in result.batch_ids]
        assert result.message_bytes == len("".join(sent))
    rows = [row for row in run.rows() if row.arm == "go-5msg"]
    if not split:
        assert [(row.label, row.valid, row.written, row.batch_size) for row in rows] == [
            ("WARMUP", True, 5, 5), ("SMALL", True, 500, 5),
        ]  # fmt: skip
        return
    assert [(row.valid, row.written) for row in rows] == [(False, 2), (False, 3), (False, 200), (False, 300)]
    reasons = [f"2 invocations worked on it; the batch was split, and it held {n} of 5 messages" for n in (2, 3)]
    assert [row.reason for row in rows[2:]] == reasons
    assert rows[0].reason == reasons[0]


def test_the_next_message_waits_until_the_queue_reads_empty_often_enough(run: Run) -> None:
    run.target.empty_readings = 3
    first = run.schedule[0].arm

    def busy(target: FakeTarget) -> None:
        target.depths[f"queue-{first}"] = deque([1, 0, 1, 0, 0, 0])

    run.target.faults[f"send {first} 1"] = busy
    run.go()
    assert run.target.calls[4:13] == [f"start_cold {first}", f"send {first}", *[f"depth queue-{first}"] * 6,
                                      f"count table-{first}"]  # fmt: skip


def test_items_that_come_late_are_waited_for(run: Run) -> None:
    first = run.schedule[0].arm
    run.target.lose = 1
    batch_id = f"{RUN_ID}:{run.schedule[0].trial_id}"

    def arrive(target: FakeTarget) -> None:
        target.items[batch_id] = 1
        target.lose = 0

    run.target.faults[f"count table-{first} 2"] = arrive
    run.target.poll_s = 0.001
    run.go()
    assert run.store.trials()[0].reason is None


def test_items_that_stay_missing_make_the_trial_invalid_and_the_run_goes_on(run: Run) -> None:
    second = run.schedule[1]
    run.target.faults[f"send {second.arm} 2"] = lambda target: setattr(target, "lose", 3)
    run.target.faults[f"start_cold {run.schedule[2].arm}"] = lambda target: setattr(target, "lose", 0)
    run.go()
    assert run.outcome() == [
        (trial.trial_id, "97 of 100 items are in the table" if trial == second else None) for trial in run.schedule
    ]
    result = run.store.trials()[1]
    assert result.finished
    assert result.items_found == 97
    assert [row.valid for row in run.rows()] == [trial != second for trial in run.schedule]


def test_what_the_plane_saw_beside_a_trial_makes_its_sample_invalid(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([(0, 0), (1, 0), (7, 3), (9, 3), (9, 3), (10, 5)])
    monkeypatch.setattr(run.target, "plane_counts", lambda: PlaneCounts(*next(readings, (0, 0)), "cgroup v2"))
    run.go()
    first, second, third, *rest = run.schedule
    foreign = "the plane counted 2 invocations meanwhile, 1 of its own"
    throttled = "the plane counted 2 throttles meanwhile, 0 of its own"
    assert run.outcome() == [
        (first.trial_id, None), (second.trial_id, foreign), (third.trial_id, throttled),
        *((trial.trial_id, None) for trial in rest),
    ]  # fmt: skip
    assert [row.reason for row in run.rows() if not row.valid] == [foreign, throttled]
    assert all(result.finished for result in run.store.trials()), "it is not run again"


def test_a_plane_that_lost_its_way_of_limiting_makes_samples_invalid(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = iter(["cgroup v2", "cgroup v2", "cgroup v2", "none"])
    invocations = count()
    monkeypatch.setattr(run.target, "plane_counts", lambda: PlaneCounts(next(invocations), 0, next(limits, "none")))
    run.go()
    first, *rest = run.schedule
    lost = "cpu_limit became none"
    assert run.outcome() == [(first.trial_id, None), *((trial.trial_id, lost) for trial in rest)]


def test_what_other_programs_took_is_noted_for_each_block(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([CpuReading(0, 0, 0), CpuReading(10, 8, 5), CpuReading(20, 9, 6), CpuReading(30, 9, 6)])
    monkeypatch.setattr(run.target, "read_cpu", lambda: next(readings))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    run.go()
    assert run.store.block_loads() == [
        BlockLoad(block=1, others_cpu_s=3.0, capacity_cpu_s=20.0),
        BlockLoad(block=2, others_cpu_s=0.0, capacity_cpu_s=20.0),
    ]


@pytest.mark.parametrize("queue", ["queue-go", "dead-python"])
def test_a_queue_that_is_not_empty_refuses_the_run(run: Run, queue: str) -> None:
    run.target.depths[queue] = 2
    with pytest.raises(StackError) as caught:
        run.go()
    assert str(caught.value) == (
        f"queue {queue} is not empty (2 messages), and a run's own must be the only ones; "
        f"wait for them, or drop them with `aws sqs purge-queue --queue-url {queue}`."
    )
    assert not any(call.startswith(("send", "start_cold", "restore")) for call in run.target.calls)
    assert run.store.trials() == []


def test_a_message_that_does_not_drain_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "DRAIN_GRACE_S", 0.01)
    functions = {arm: make_facts(arm, timeout_s=0) for arm in ("python", "go")}
    run = Run(tmp_path, make_manifest(functions=functions))
    first, second, *_ = run.schedule

    def stuck(target: FakeTarget) -> None:
        target.depths[f"queue-{first.arm}"] = 1

    run.target.faults[f"send {first.arm} 2"] = stuck
    with pytest.raises(InvalidRunError) as caught:
        run.go()
    assert str(caught.value) == (
        f"trial {second.trial_id} did not finish: its queue was not empty after 0 s; see the log group "
        f"/aws/lambda/lab-{first.arm}; empty the queue queue-{first.arm} before the next run."
    )
    assert run.outcome() == [(first.trial_id, None), (second.trial_id, "its queue was not empty after 0 s")]
    assert not run.store.trials()[1].finished
    assert run.target.calls[-3:] == ["restore", *COLLECT]

    run.target.faults.clear()
    run.target.depths.clear()
    run.go()
    assert run.told == ids(run.schedule), "the arm of the stuck message is run again, from its cold load on"
    assert sum(row.valid for row in run.rows()) == len(run.schedule)


def test_a_failure_the_function_reports_ends_the_run_early(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOOK_AT_LOGS_S", 0.0)
    run.target.error = {"code": "WriteFailed", "message": "ResourceNotFoundException"}
    with pytest.raises(InvalidRunError, match="the function reported WriteFailed: ResourceNotFoundException"):
        run.go()
    (row,) = run.rows()
    assert row.reason == "the function reported WriteFailed: ResourceNotFoundException"


# interruptions


@pytest.mark.parametrize("error", [NO_ACCESS, KeyboardInterrupt(), RuntimeError("a defect")])
@pytest.mark.parametrize("call", ["send", "depth queue-", "count table-", "start_cold"])
def test_whatever_ends_a_run_what_was_measured_is_kept_and_it_goes_on(
    run: Run, call: str, error: BaseException
) -> None:
    third = run.schedule[2]  # the cold load of the second arm
    name = f"{call}{'' if call.endswith('-') else ' '}{third.arm}"
    before_run = 1 if call.startswith("depth") else 0
    run.target.faults[f"{name} {before_run + 1}"] = error

    with pytest.raises(type(error)):
        run.go()

    begun = [] if call == "start_cold" else [(third.trial_id, INTERRUPTED)]
    assert run.outcome() == [(trial.trial_id, None) for trial in run.schedule[:2]] + begun
    assert (run.store.trials()[-1].message_id is None) is (call == "send")
    assert run.target.calls[-3:] == ["restore", *COLLECT]
    assert [row.valid for row in run.rows()][:2] == [True, True]

    run.target.faults.clear()
    run.go()
    assert run.told == ids(run.schedule[2:])
    last = {result.trial.trial_id: result for result in run.store.trials()}
    assert [result.reason for result in last.values()] == [None] * 8
    assert last[third.trial_id].batch_id == f"{RUN_ID}:{third.trial_id}" + (":2" if begun else "")
    valid = [row.trial for row in run.rows() if row.valid]
    assert sorted(valid) == sorted(ids(run.schedule))


def _request_of(run: Run, trial: Trial) -> str:
    observed = observe(run.store.log_lines())
    return next(
        one.request_id for one in observed for record in one.records if trial.trial_id in (record.batch_id or "")
    )


def test_an_arm_whose_report_died_with_the_plane_is_repeated(run: Run) -> None:
    run.go()
    assert kept_trials(run.store) == run.store.trials()
    lost = run.store.trials()[1].trial
    file = run.store.folder / "platform.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    request_id = _request_of(run, lost)
    file.write_text("".join(line for line in lines if "REPORT" not in line or request_id not in line))
    left = remaining(run.schedule, kept_trials(run.store))
    assert ids(left) == [t.trial_id for t in run.schedule if (t.block, t.arm) == (lost.block, lost.arm)]


def test_in_the_middle_of_an_arm_the_whole_arm_is_repeated_and_its_first_part_does_not_count(run: Run) -> None:
    first, second, *_ = run.schedule
    run.target.faults[f"send {first.arm} 2"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run.go()
    run.target.faults.clear()
    run.go()
    assert run.target.calls[4] == f"start_cold {first.arm}"
    assert [(row.trial, row.reason) for row in run.rows()][:4] == [
        (first.trial_id, "repeated after an interruption"),
        (second.trial_id, "repeated after an interruption; interrupted; no REPORT line was found"),
        (first.trial_id, None),
        (second.trial_id, None),
    ]


def test_a_message_that_a_killed_runner_could_not_write_down_is_not_sent_again(run: Run) -> None:
    second = run.schedule[1]
    run.target.faults[f"depth queue-{second.arm} 3"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run.go()
    run.target.faults.clear()
    file = run.store.folder / "trials.jsonl"
    file.write_text(file.read_text().splitlines(keepends=True)[0])  # as SIGKILL leaves it
    run.store.write_manifest(msgspec.structs.replace(run.store.manifest(), resumed_at=("2026-11-21T10:05:00+00:00",)))

    run.go()

    assert run.target.items[f"{RUN_ID}:{second.trial_id}"] == 100, "what was sent before the kill is there, once"
    assert run.store.trials()[2].batch_id == f"{RUN_ID}:{second.trial_id}:2"
    assert [row.trial for row in run.rows() if row.valid] == ids(run.schedule)


def test_clean_up_that_fails_is_noted_and_does_not_hide_the_first_problem(run: Run) -> None:
    run.target.faults |= {
        f"send {run.schedule[1].arm} 2": KeyboardInterrupt(),
        "restore": AccessError("the configuration was not restored", next_step="set it back"),
        "logs python": AccessError("no logs", next_step="wait"),
    }
    with pytest.raises(KeyboardInterrupt) as caught:
        run.go()
    assert caught.value.__notes__ == ["the configuration was not restored; set it back.", "no logs; wait."]
    assert run.target.calls.count("restore") == 1


def test_a_restore_that_fails_at_the_end_does_not_keep_the_logs_from_being_collected(run: Run) -> None:
    run.target.faults["restore"] = NO_ACCESS
    with pytest.raises(AccessError):
        run.go()
    assert run.target.calls[-3:] == ["restore", *COLLECT]
    assert len(run.store.log_lines()) == 4 * len(run.schedule)


def test_a_disk_that_is_full_ends_the_run_and_restores(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    full = StorageError("trials.jsonl cannot be written: No space left on device", next_step="make space")

    def refuse(_: object) -> None:
        raise full

    monkeypatch.setattr(run.store, "append_trial", refuse)
    with pytest.raises(StorageError):
        run.go()
    assert run.target.calls[-3:] == ["restore", *COLLECT]


def test_a_run_that_is_complete_sends_nothing(run: Run) -> None:
    run.go()
    before = run.store.trials()
    run.go()
    assert run.target.calls == [*START, "restore", *COLLECT]
    assert run.store.trials() == before


# collecting


def test_lines_that_come_late_are_waited_for_and_stop_the_waiting(run: Run) -> None:
    late: list[LogLine] = []

    def hold_back(target: FakeTarget) -> None:
        late.extend(target.lines[-1:])
        del target.lines[-1:]

    def deliver(target: FakeTarget) -> None:
        target.lines += late
        late.clear()

    run.target.log_delay_s = 30
    run.target.faults["logs python 2"] = hold_back  # after the second block
    run.target.faults["logs python 4"] = deliver  # the second look after the end
    run.go()
    assert all(row.valid for row in run.rows())
    assert run.target.calls[-5:] == ["restore", *COLLECT, *COLLECT]


def test_lines_that_never_come_are_said_in_the_result(run: Run) -> None:
    def lose_the_last(target: FakeTarget) -> None:
        del target.lines[-1]

    run.target.faults["logs python 2"] = lose_the_last
    run.go()
    assert [row.reason for row in run.rows()].count("no REPORT line was found") == 1


def test_one_arm_and_one_load_are_a_run(tmp_path: Path) -> None:
    run = Run(tmp_path, make_manifest(arms=("go",), loads=LOADS[:1]))
    run.go()
    assert [row.valid for row in run.rows()] == [True]


def test_the_trials_of_the_samples_are_those_of_the_schedule(run: Run) -> None:
    assert make_trials(run.store.manifest()) == run.schedule
