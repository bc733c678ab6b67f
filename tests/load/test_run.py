"""Whole load runs: ``locust -f load --headless`` from the arguments to the messages in the queue."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from load.conftest import Locust, free_port
from load.fake_aws import FakeAws, refusal

Start = Callable[..., Locust]


@pytest.fixture
def start(aws: FakeAws, tmp_path: Path, started: list[Locust]) -> Start:
    def begin(*arguments: str, **options: Any) -> Locust:
        started.append(Locust(aws, tmp_path, *arguments, **options))
        return started[-1]

    return begin


def until(condition: Callable[[], object], why: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why
        time.sleep(0.02)


def two_workers() -> list[str]:
    port = str(free_port())
    return ["--processes", "2", "--master-bind-port", port, "--master-port", port]


def test_a_constant_rate_arrives_whole_and_as_asked(aws: FakeAws, start: Start) -> None:
    locust = start(
        "--rate", "40", "--duration", "4s", "--mix", "1024Bx10*3,2048Bx5/batch", "--languages", "python:3,go:1"
    )
    assert locust.wait() == 0, locust.log
    bodies = aws.bodies()
    assert len(bodies) == 160
    assert len({body["batch_id"] for body in bodies}) == 160
    assert Counter((b["label"], b["size_bytes"], b["count"], b["mode"]) for b in bodies) == {
        ("1024Bx10", 1024, 10, "sequential"): 120,
        ("2048Bx5-batch", 2048, 5, "batch"): 40,
    }
    sent = [headers for action, headers in aws.requests if action == "SendMessage"]
    assert len(sent) == 160
    assert all(headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=id/") for headers in sent)
    counts = locust.counts()
    assert (counts["offered"], counts["attempted"], counts["accepted"]) == (160, 160, 160)
    assert (counts["failed"], counts["dropped"], counts["unknown"]) == (0, 0, 0)


def test_batches_hold_ten_messages_and_entries_that_fail_are_counted_one_by_one(aws: FakeAws, start: Start) -> None:
    def refuse(body: str) -> dict[str, Any] | None:
        number = int(body.split('"batch_id":"')[1].split('"')[0].rpartition("-")[2])
        return {"SenderFault": True, "Code": "InvalidMessageContents", "Message": "no"} if number % 10 == 3 else None

    aws.refuse_entry = refuse
    locust = start("--rate", "100", "--duration", "2s", "--batch-size", "10")
    assert locust.wait() == 1, "messages were given up: Locust's own exit code"
    assert Counter(action for action, _ in aws.requests)["SendMessageBatch"] == 20
    assert len(aws.messages) == 180
    counts = locust.counts()
    assert (counts["attempted"], counts["accepted"], counts["failed"]) == (200, 180, 20)
    assert "20 x InvalidMessageContents: no" in locust.log


def test_two_workers_split_the_rate_exactly(aws: FakeAws, start: Start) -> None:
    locust = start(*two_workers(), "--rate", "50", "--duration", "4s")
    assert locust.wait() == 0, locust.log
    numbers = [body["batch_id"].split("-")[-2:] for body in aws.bodies()]
    assert sorted(int(number) for _, number in numbers) == list(range(200))
    assert Counter(worker for worker, _ in numbers) == {"0": 100, "1": 100}
    assert {int(number) % 2 for worker, number in numbers if worker == "0"} == {0}
    assert locust.counts()["accepted"] == 200


def test_a_worker_that_dies_is_reported_and_its_share_stated(aws: FakeAws, start: Start) -> None:
    locust = start(*two_workers(), "--rate", "20", "--duration", "8s")
    until(lambda: len(aws.messages) > 20, "nothing was sent")
    workers = [pid for pid in locust.members() if pid != locust.process.pid]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert locust.wait() == 4, locust.log
    assert "died: the others do not send its share" in locust.log
    counts = locust.counts()
    assert counts["offered"] == 160
    assert counts["attempted"] + counts["unknown"] == 160
    assert 0 < counts["unknown"] < 80
    assert "generator-bound: worker" in locust.log


def test_a_worker_that_does_not_tell_its_share_is_a_fault_and_what_it_tells_later_is_in_no_count(
    aws: FakeAws, start: Start
) -> None:
    locust = start("--rate", "100", "--duration", "10m", locustfile="tests/load/late_locustfile.py")
    until(lambda: len(aws.messages) > 100, "nothing was sent")
    locust.interrupt()
    assert locust.wait() == 4, locust.log
    assert "did not tell all it sent: it is not waited for" in locust.log, locust.log
    assert "generator-bound: worker 0 did not tell all it sent" in locust.log
    counts = locust.counts()
    assert counts["attempted"] + counts["unknown"] == counts["offered"]
    assert "it tells now" in locust.log
    assert "told after the end" not in locust.log


@pytest.mark.parametrize(("processes", "number"), [(1, signal.SIGTERM), (2, signal.SIGINT)])
def test_a_signal_leaves_nothing_behind_and_loses_no_count(
    aws: FakeAws, start: Start, processes: int, number: signal.Signals
) -> None:
    locust = start(*(two_workers() if processes == 2 else []), "--rate", "30", "--duration", "10m")
    until(lambda: len(aws.messages) > 20, "nothing was sent")
    locust.interrupt(number)
    assert locust.wait() == (4 if "generator-bound" in locust.log else 130), locust.log  # a busy machine sends late
    until(lambda: not locust.members(), f"{locust.members()} still run", 20)
    arrived = len(aws.messages)
    counts = locust.counts()
    # one that was under way at the stop has arrived, but its answer may not have
    assert counts["accepted"] <= arrived <= counts["accepted"] + counts["failed"]
    time.sleep(0.5)
    assert len(aws.messages) == arrived


def test_an_endpoint_that_refuses_connections_for_a_while_loses_nothing(aws: FakeAws, start: Start) -> None:
    locust = start("--rate", "40", "--duration", "9s")
    until(lambda: len(aws.messages) > 20, "nothing was sent")
    aws.refuse_connections()
    time.sleep(5)
    aws.listen_again()
    code = locust.wait()
    assert code == (4 if "generator-bound" in locust.log else 0), locust.log  # a busy machine sends late
    assert {body["batch_id"].rpartition("-")[2] for body in aws.bodies()} == {str(i) for i in range(360)}
    counts = locust.counts()
    assert (counts["offered"], counts["accepted"], counts["failed"]) == (360, 360, 0)
    assert counts["retried"] > 100


def test_strict_is_one_message_at_a_time(aws: FakeAws, start: Start) -> None:
    locust = start("--shape", "strict", "--blocks", "2", "--mix", "SMALL_1KBx100,LARGE_64KBx100")
    assert locust.wait() == 0, locust.log
    assert len(aws.messages) == 8
    actions = [action for action, _ in aws.requests if action in ("SendMessage", "GetQueueAttributes")]
    assert "SendMessage,SendMessage" not in ",".join(actions), "the queue is looked at between two"


def test_a_replay_sends_as_many_as_its_file_has(aws: FakeAws, start: Start, tmp_path: Path) -> None:
    file = tmp_path / "times.csv"
    file.write_text("time,what\n10.0,a\n10.2,b\n10.2,c\n11.5,d\n")
    assert start("--shape", "replay", "--replay", str(file)).wait() == 0
    gaps = [at - aws.messages[0][1] for _, at in aws.messages]
    assert len(gaps) == 4
    assert gaps[3] > 1.2


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["--rate", "0"], "rate is 0; write a number above 0", 2),
        (["--mix", "TINY"], '--mix has label "TINY"', 2),
    ],
)
def test_bad_arguments_are_said_before_anything_is_asked(
    aws: FakeAws, start: Start, arguments: list[str], said: str, code: int
) -> None:
    locust = start(*arguments)
    assert locust.wait() == code
    assert said in locust.log
    assert "Traceback" not in locust.log
    assert aws.requests == []


@pytest.mark.parametrize(
    ("code", "said"), [("QueueDoesNotExist", "QueueDoesNotExist"), ("AccessDenied", "has the permission")]
)
def test_a_queue_that_cannot_be_used_is_said_before_the_first_message(
    aws: FakeAws, start: Start, code: str, said: str
) -> None:
    aws.answer = lambda action, _: refusal(code) if action == "GetQueueAttributes" else None
    locust = start("--rate", "10", "--duration", "2s")
    assert locust.wait() == 3
    assert said in locust.log
    assert aws.messages == []


def test_a_stack_with_strict_settings_is_refused(aws: FakeAws, start: Start) -> None:
    aws.reservation = "1"
    locust = start("--rate", "10", "--duration", "2s")
    assert locust.wait() == 3
    assert "ReservedConcurrency 1, under which load is throttled" in locust.log
    assert aws.messages == []


def test_what_is_refused_during_the_run_is_counted_and_said_at_its_end(aws: FakeAws, start: Start) -> None:
    def expire(action: str, _: object) -> tuple[int, dict[str, Any]] | None:
        expired = action == "SendMessage" and len(aws.messages) >= 30
        return (
            refusal("ExpiredToken", "The security token included in the request is expired", 403) if expired else None
        )

    aws.answer = expire
    locust = start("--rate", "30", "--duration", "3s")
    assert locust.wait() == 1
    counts = locust.counts()
    assert counts["attempted"] == 90
    assert counts["accepted"] == len(aws.messages)
    assert counts["failed"] == 90 - len(aws.messages)
    assert f"{counts['failed']} x ExpiredToken: The security token included in the request is expired" in locust.log


def test_workers_whose_master_was_killed_send_no_more(aws: FakeAws, start: Start) -> None:
    locust = start(*two_workers(), "--rate", "30", "--duration", "10m")
    until(lambda: len(aws.messages) > 20, "nothing was sent")
    os.kill(locust.process.pid, signal.SIGKILL)
    until(lambda: locust.log.count("this worker sends no more") == 2, "the workers did not notice")
    until(lambda: time.monotonic() - aws.messages[-1][1] > 1, "something is still sent", 20)


@pytest.mark.parametrize("processes", [1, 2])
def test_what_cannot_be_recorded_is_not_sent(aws: FakeAws, start: Start, processes: int) -> None:
    workers = two_workers() if processes == 2 else []
    locust = start(*workers, "--rate", "50", "--duration", "10m", locustfile="tests/load/full_disk_locustfile.py")
    assert locust.wait() == 3
    assert "No space left on device; make space." in locust.log
    assert f"told of the end after {len(aws.messages)}: what was sent could not be recorded\n" in locust.log
    assert "run full is invalid" in locust.log, "it is said as well, and does not take the first error's place"
    assert locust.counts()["accepted"] == len(aws.messages)


BEGIN = """
import sys
import locust
from lambdalab.aws.clients import Aws
from lambdalab.errors import UsageError
from lambdalab.planning.load_schedule import LoadPlan
from lambdalab.load.shape import Unrecorded
from lambdalab.aws.stack import Stack
from lambdalab.run.target import AwsTarget
stack = Stack(name="s", outputs={}, parameters={}, resources={}, types={})
target = AwsTarget(Aws(endpoint_url=sys.argv[1] or None), stack)
try:
    Unrecorded().begin(LoadPlan(), target)
except UsageError as error:
    sys.exit(str(error))
"""


def test_on_aws_a_run_that_is_not_kept_has_no_ceiling_and_is_refused() -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    access = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}

    def begun(url: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", BEGIN, url]
        return subprocess.run(command, env=kept | access, capture_output=True, text=True, check=False)

    assert begun("http://127.0.0.1:9").returncode == 0, "where nothing costs money"
    refused = begun("")
    assert refused.returncode == 1
    assert "nobody knows what a run on AWS has cost, so no ceiling holds" in refused.stderr
