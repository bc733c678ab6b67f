"""What other programs take of the machine: read from real processes, and when it is a caution."""

import subprocess
import sys
import time

import pytest

from lambdalab.machine_load import BlockLoad, load_between, load_cautions, read_cpu

SPIN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


def spin() -> None:
    subprocess.run([sys.executable, "-c", SPIN], check=True)


def test_work_of_this_process_and_of_children_that_have_ended_is_its_own() -> None:
    before = read_cpu(())
    spin()
    after = read_cpu(())
    assert after.own_s - before.own_s >= 0.29
    assert after.busy_s - before.busy_s >= 0.25, "in steps of 10 ms for each core"


def test_work_below_a_named_process_is_its_own() -> None:
    script = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {SPIN!r}])\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        before = read_cpu((process.pid,))
        process.stdout.readline()
        assert read_cpu((process.pid,)).own_s - before.own_s >= 0.25
        process.communicate(b"\n")
    read_cpu((process.pid,))  # one that has ended


def test_work_of_others_is_what_is_left() -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN.replace("0.3", "0.6")]) as other:
        before = read_cpu(())
        time.sleep(0.3)
        found = load_between(1, before, read_cpu(()))
        other.kill()
    assert found.capacity_cpu_s >= 0.3
    assert 0 < found.share <= 1


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ((), None),
        ((0.5, 0.9), None),
        (
            (0.0, 3.0),
            "took 15% of this machine's CPU time during the run (at most 30%, in block 2), so times may be longer",
        ),
    ],
)
def test_a_notable_share_is_a_caution(others: tuple[float, ...], said: str | None) -> None:
    loads = [BlockLoad(block=i, others_cpu_s=s, capacity_cpu_s=10.0) for i, s in enumerate(others, 1)]
    found = list(load_cautions(loads))
    assert found == [] if said is None else said in found[0]
