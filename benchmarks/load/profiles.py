"""Where the emulator or the plane spends its time under load, by py-spy."""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from benchmarks.load.step import Step, measure
from lambdalab.errors import ToolError
from lambdalab.local.stack import LocalStack
from lambdalab.loopback import build_variables

PY_SPY: Final = "py-spy==0.4.3"
PROFILED: Final = ("emulator", "plane")
TOP: Final = 15
"""Functions that are told."""
_SAMPLES_PER_S: Final = 100


class OwnTime(NamedTuple):
    """The share of a process's samples that were in a function itself, not in what it called; from 0 to 1."""

    function: str
    share: float


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The functions with most own time of one process, ``part``: samples of the thread that held the GIL."""

    part: str
    samples: int
    top: tuple[OwnTime, ...]


def require_py_spy() -> None:
    """Installs py-spy, isolated, before minutes are spent on measuring.

    Raises:
        ToolError: it cannot be installed.
    """
    done = subprocess.run([*_py_spy(), "--version"], env=build_variables(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"{PY_SPY} cannot be installed: {done.stderr.strip()}", next_step="leave --profile out")


def profile(step: Step) -> Profile:
    """Offers the same load once more, and profiles the busier of emulator and plane while messages are sent.

    What it adds to the load is not in the figures of the step.

    Raises:
        ToolError: py-spy may not read that process.
        LambdalabError: as ``measure``.
    """
    part = max(PROFILED, key=lambda name: step.use.cpu[name])
    begun: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory(prefix="lambdalab-bench-") as folder:
        stacks = Path(folder) / "stacks.txt"

        def record(stack: LocalStack) -> None:
            command = [*_py_spy(), "record", "--pid", str(getattr(stack, part).pid), "--format", "raw", "--function"]
            command += ["--gil"]  # threads that sleep do not hold it; py-spy does not always see that they sleep
            command += ["--duration", str(step.asked.seconds), "--rate", str(_SAMPLES_PER_S), "--output", str(stacks)]
            begun.append(subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True))

        measure(step.asked, record)
        (py_spy,) = begun
        _, said = py_spy.communicate()
        if py_spy.returncode:
            raise ToolError(
                f"py-spy could not read the {part}: {said.strip()}",
                next_step="run as root, or with kernel.yama.ptrace_scope=0",
            )
        found = own_samples(stacks.read_text())
    samples = found.total()
    top = tuple(OwnTime(function, count / samples) for function, count in found.most_common(TOP))
    return Profile(part=part, samples=samples, top=top)


def own_samples(stacks: str) -> Counter[str]:
    """Samples by the function they were in.

    Args:
        stacks: py-spy's raw format: on each line a stack, frames with semicolons from the outermost, and how often.
    """
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        found[frames.rpartition(";")[2]] += int(count)
    return found


def _py_spy() -> list[str]:
    return [str(Path(sys.executable).with_name("uv")), "tool", "run", "--quiet", "--from", PY_SPY, "py-spy"]
