"""A local stack under each way of limiting CPU and memory, and what a run says and refuses where there is none."""

import json
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from local.confined import refuse_signals
from local.support import cgroup_of

from .conftest import Run, command

CAUTION = "caution: cpu_limit: none - functions get whole cores and all memory, so times do not depend on the memory"
SWEEP = ("sweep", "--language", "go", "--count", "1", "--blocks", "1")
UNLIMITED = pytest.mark.parametrize("way", ["none"], indirect=True)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("cgroup", marks=pytest.mark.needs("cgroup")),
        pytest.param("signals", marks=pytest.mark.needs("signals")),
        "none",
    ],
)
def way(request: pytest.FixtureRequest, lambdalab: Run) -> Iterator[str]:
    """The only way of limiting that the stack that is up may take."""
    done = lambdalab("up", "--port", "0", LAMBDALAB_LIMITS=request.param)
    assert done.returncode == 0, done.stderr
    yield request.param
    lambdalab("down")


def runs_in(project: Path) -> set[Path]:
    return set((project / "results").glob("2*"))


def test_a_put_in_both_languages_under_the_limit_that_is_said(way: str, lambdalab: Run, project: Path) -> None:
    (project / "one.json").write_text(json.dumps({"batch_id": f"limits:{way}", "size_bytes": 100, "count": 1}))
    answers = [json.loads(lambdalab("invoke", f"{name}Ingest", "-e", "one.json").stdout) for name in ("Python", "Go")]
    assert [answer["written"] for answer in answers] == [1, 1]
    status = json.loads(lambdalab("status", "--json").stdout)
    assert status["cpu_limit"].split()[0] == way
    assert status["cpu_limit_why"] == ("LAMBDALAB_LIMITS is none" if way == "none" else None)
    groups = [str(cgroup_of(pid, "cpu")) for function in status["functions"].values() for pid in function["pids"]]
    assert len(groups) == 2
    assert [f"lambdalab-{status['pid']}/" in group for group in groups] == [way == "cgroup"] * 2
    governors = [
        stat for stat in Path("/proc").glob("[0-9]*/stat") if parent_and_command(stat) == (status["pid"], "governor")
    ]
    assert len(governors) == (way == "signals")


def parent_and_command(stat: Path) -> tuple[int, str]:
    """The parent of a process, and the last part of the module that it runs."""
    try:
        words = (stat.parent / "cmdline").read_bytes().split(b"\0")
        parent = int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0, ""
    module = words[2].decode() if words[1:2] == [b"-m"] else ""
    return parent, module.rpartition(".")[2]


@UNLIMITED
def test_a_run_says_before_it_begins_that_nothing_limits(way: str, lambdalab: Run, tiny: str) -> None:
    done = lambdalab("run", "--protocol", tiny)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("block ")]
    assert [line.startswith(CAUTION) for line in said] == [True]
    assert CAUTION in " ".join(done.stdout.split())
    assert f"cpu_limit: {way}" in " ".join(done.stdout.split())


@UNLIMITED
def test_a_load_run_says_it_once(way: str, lambdalab: Run) -> None:
    load = ("load", "--headless", "--only-summary", "--shape", "strict", "--blocks", "1")
    done = lambdalab(*load, "--languages", "go", "--mix", "256Bx1")
    assert done.returncode in (0, 4), done.stderr
    assert done.stderr.count(CAUTION) == 1


@UNLIMITED
def test_several_memory_sizes_are_refused_before_anything_is_measured(way: str, lambdalab: Run, project: Path) -> None:
    before = runs_in(project)
    (project / "sizes.toml").write_text(
        (project / "tiny.toml")
        .read_text()
        .replace('language = ["python", "go"]', "language = ['go']\nmemory_mb = [128, 256]")
    )
    for arguments in ((*SWEEP, "--memory", "256,128"), ("run", "--protocol", "sizes.toml")):
        done = lambdalab(*arguments)
        assert done.returncode == 3
        (said,) = done.stderr.splitlines()
        assert said.startswith(
            "lambdalab: memory sizes 128, 256 MB cannot be compared on the local stack lambdalab-local, where each "
            "gets whole cores and all memory (cpu_limit: none); run as root, or with "
        )
        assert said.endswith(", or add --without-cpu-limit to measure them nevertheless.")
    assert runs_in(project) == before


@UNLIMITED
def test_several_memory_sizes_are_measured_if_asked_for_and_carry_the_caution(
    way: str, lambdalab: Run, project: Path
) -> None:
    done = lambdalab(*SWEEP, "--memory", "128,256", "--without-cpu-limit")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(CAUTION) == 1
    run = project / "results" / "latest"
    assert any(
        caution.startswith("cpu_limit: none") for caution in json.loads((run / "summary.json").read_text())["cautions"]
    )
    kept = (run / "trials.jsonl").read_text().splitlines()
    (run / "trials.jsonl").write_text("\n".join(kept[:2]) + "\n")
    done = lambdalab("sweep", "--resume", "latest")
    assert done.returncode == 0, done.stderr
    assert len((run / "trials.jsonl").read_text().splitlines()) == len(kept)


def test_a_way_that_there_is_not_is_refused_before_anything_starts(lambdalab: Run) -> None:
    done = lambdalab("up", LAMBDALAB_LIMITS="cgroups")
    assert done.returncode == 2
    assert done.stderr == ("lambdalab: LAMBDALAB_LIMITS is 'cgroups'; set it to cgroup, signals, none, or unset it.\n")


@pytest.mark.needs("seccomp")
def test_where_nothing_can_be_ended_nothing_is_started(project: Path, clean_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [command(), "up", "--port", "0"],
        cwd=project,
        env=clean_environment,
        preexec_fn=partial(refuse_signals, signal.SIGKILL),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr == (
        "lambdalab: this machine does not let lambdalab end a process that it started (Operation not permitted); "
        "allow kill(2) in the seccomp, AppArmor or SELinux profile that confines it.\n"
    )
