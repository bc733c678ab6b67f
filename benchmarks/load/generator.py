"""How fast and how evenly the load generator sends.

Against a server that takes every message at once (``functions/go/sqs``), in randomised blocks of one run: the Locust
user of ``load/``, the same user on boto3's client, batches of ten, and two processes; each is offered more than it can
send. Then 1, 10, 100 and 500 messages a second for 30 seconds, constant and Poisson.
"""

import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, Final

from scipy import stats

from benchmarks.plane.world import FUNCTIONS, free_ports
from lambdalab.build.tools import search_path

BLOCKS: Final = 3
SECONDS: Final = 6
PLACES: Final = 256
"""Requests under way at once: more than a sender can send in the 10 ms that the server takes."""
HOLD_S: Final = 30
RATES: Final = (1, 10, 100, 500)
ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Arm:
    """One way of sending, and how much it is offered."""

    rate: int
    arguments: tuple[str, ...] = ()
    boto3: bool = False


ARMS: Final = {
    "boto3": Arm(10_000, boto3=True),
    "single": Arm(30_000),
    "batches of ten": Arm(100_000, ("--batch-size", "10")),
    "two processes": Arm(30_000, ("--processes", "2")),
}
DEMANDED: Final = {"single over boto3": 5.0, "two processes over single": 1.7, "batches of ten, messages/s": 20_000.0}


@dataclass
class Measured:
    """Of one arm, a figure for each block."""

    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


def run() -> None:
    """Measures everything and prints it as tables for ``docs/benchmarks.md``.

    Raises:
        SystemExit: with exit code 1, something demanded is missed.
    """
    with tempfile.TemporaryDirectory() as name, served(Path(name)) as url:
        folder = Path(name)
        measured = {arm: Measured() for arm in ARMS}
        for block in range(BLOCKS):
            order = list(ARMS)
            random.Random(block).shuffle(order)  # noqa: S311 - the order of a measurement
            for arm in order:
                found = send(url, folder, ARMS[arm])
                accepted = found["report"]["accepted"]
                measured[arm].rates.append(accepted / found["seconds"])
                measured[arm].cpu_us.append(found["cpu_s"] / accepted * 1e6)
                print(f"block {block + 1}: {arm}: {measured[arm].rates[-1]:,.0f} messages/s", file=sys.stderr)
        missed = show_throughput(measured)
        for arrivals in ("constant", "poisson"):
            missed += show_rates(hold(url, folder, arrivals), arrivals)
    print(f"\n{date.today()}, {len(os.sched_getaffinity(0))} cores, {platform.release()}, {platform.python_version()}")
    if missed:
        sys.exit(f"missed: {'; '.join(missed)}")


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The server, built and started; it ends with this process."""
    binary = folder / "sqs"
    variables = {**os.environ, "PATH": search_path(), "CGO_ENABLED": "0"}
    subprocess.run(["go", "build", "-o", str(binary), "./sqs"], cwd=FUNCTIONS / "go", env=variables, check=True)
    with subprocess.Popen([str(binary)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def start(url: str, result: Path, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    """Starts Locust, headless, with this benchmark's load."""
    (port,) = free_ports(1)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "LOCUST_"))}
    environment |= variables | {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "BENCHMARK_RESULT": str(result),
    }
    command = [str(Path(sys.executable).with_name("locust")), "-f", "benchmarks/load/locustfile.py", "--headless"]
    command += ["--only-summary", "--target", "aws", "--master-bind-port", str(port), "--master-port", str(port)]
    with result.with_suffix(".log").open("wb") as log:
        return subprocess.Popen([*command, *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log)


def finish(process: subprocess.Popen[bytes], result: Path) -> dict[str, Any]:
    """Waits for Locust and reads what it wrote."""
    process.wait()
    if not result.exists():
        sys.exit(f"Locust failed:\n{result.with_suffix('.log').read_text()}")
    found: dict[str, Any] = json.loads(result.read_bytes())
    result.unlink()
    return found


def send(url: str, folder: Path, arm: Arm) -> dict[str, Any]:
    """As much as an arm can."""
    result = folder / "sent.json"
    rate = ("--rate", str(arm.rate), "--duration", str(SECONDS))
    sender = {"BENCHMARK_SENDER": "boto3"} if arm.boto3 else {}
    return finish(start(url, result, *rate, *arm.arguments, BENCHMARK_PLACES=str(PLACES), **sender), result)


def hold(url: str, folder: Path, arrivals: str) -> dict[int, dict[str, Any]]:
    """Every rate beside the others, each by a Locust of its own."""
    running = {}
    for rate in RATES:
        result = folder / f"{rate}.json"
        plan = ("--rate", str(rate), "--duration", str(HOLD_S), "--arrivals", arrivals, "--seed", str(rate))
        running[rate] = (start(url, result, *plan), result)
    return {rate: finish(*one) for rate, one in running.items()}


def show_throughput(measured: dict[str, Measured]) -> list[str]:
    """Prints the table of throughput; returns what was missed."""
    print("| sender | messages/s, median of blocks | lowest to highest | CPU per message, us |\n|---|---|---|---|")
    for arm, found in measured.items():
        # Of two processes only the third, which leads them, is this one's to measure.
        cpu = "" if "two" in arm else f"{median(found.cpu_us):,.0f}"
        print(f"| {arm} | {median(found.rates):,.0f} | {min(found.rates):,.0f} to {max(found.rates):,.0f} | {cpu} |")

    def over(arm: str, other: str) -> float:
        return median(a / b for a, b in zip(measured[arm].rates, measured[other].rates, strict=True))

    reached = {
        "single over boto3": over("single", "boto3"),
        "two processes over single": over("two processes", "single"),
        "batches of ten, messages/s": median(measured["batches of ten"].rates),
    }
    print("\n| what | reached | demanded |\n|---|---|---|")
    for what, least in DEMANDED.items():
        print(f"| {what} | {reached[what]:,.2f} | {least:,g} |")
    print()
    return [what for what, least in DEMANDED.items() if reached[what] < least]


def show_rates(held: dict[int, dict[str, Any]], arrivals: str) -> list[str]:
    """Prints how the rates were held; returns those that were not."""
    missed = []
    print(f"| {arrivals}, messages/s | sent within {HOLD_S} s | allowed | p of their times | lag p99, ms | lag max |")
    print("|---|---|---|---|---|---|")
    for rate, found in held.items():
        times = sorted((began - found["start_ms"]) / 1000 for began in found["began_ms"])
        sent = sum(at < HOLD_S for at in times)
        offered = rate * HOLD_S
        p_value = None
        if arrivals == "constant":
            low, high = offered - max(1, 0.02 * offered), offered + max(1, 0.02 * offered)
        else:
            low, high = stats.poisson.interval(0.95, offered)
            p_value = stats.kstest(times, "uniform", args=(0, HOLD_S)).pvalue
        lag = found["report"]["lag_ms"]
        p99 = "" if lag["p99"] is None else f"{lag['p99']:.2f}"
        shown = "" if p_value is None else f"{p_value:.3f}"
        print(f"| {rate} | {sent} | {low:.0f} to {high:.0f} | {shown} | {p99} | {lag['maximum']:.2f} |")
        if not low <= sent <= high or (p_value is not None and p_value < 0.01):
            missed.append(f"{rate}/s {arrivals}")
    print()
    return missed
