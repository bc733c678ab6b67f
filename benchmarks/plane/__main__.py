"""Measures everything in one run and prints it. Exit code 0: every demanded ratio is met; 1: one is not."""

import argparse
import base64
import json
import math
import os
import platform
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Final

from benchmarks.plane.http import Client, header
from benchmarks.plane.queue import MESSAGES, bare_rate, rate
from benchmarks.plane.world import LANGUAGES, MEMORY_MB, RIE_PATH, World, name_of, path_of, world
from lambdalab.logs.platform_lines import parse_report

BLOCKS: Final = 20
PER_BLOCK: Final = {"plane, boto3": 25, "MiniStack, boto3": 10, "plane, HTTP": 100, "RIE, HTTP": 100}
"""Invokes of an arm in each block; the first of a block is made beforehand and not counted."""
DEMANDED: Final = (("MiniStack, boto3", "plane, boto3", 20.0), ("RIE, HTTP", "plane, HTTP", 1 / 1.2))
COST_INVOKES: Final = 1000
"""So that ten of them lie beyond the 99th percentile."""
SLEEP_MS: Final = 5
QUEUE_RATIO: Final = 20.0
QUEUE_ROUNDS: Final = 5
HELD: Final = 200
HOLD_MS: Final = 20_000
MS: Final = 1e6


def main() -> int:
    """Measures, prints, judges."""
    argparse.ArgumentParser(prog="python -m benchmarks.plane", description=__doc__).parse_args()
    random.seed(2026_11_21)
    print(f"{date.today()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="lambdalab-bench-") as folder, world(Path(folder)) as here:
        print(f"quota: {here.stack.status()['cpu_limit']}", flush=True)
        held = [measure(here) for measure in (invokes, own_cost, queues, many)]
    return 0 if all(held) else 1


def invokes(here: World) -> bool:
    """A warm no-op of the Python function at one whole vCPU, by every way there is."""
    _title("warm no-op invoke, Python, 1,769 MB")
    name = name_of("python", MEMORY_MB[-1])
    plane = Client(here.stack.plane.port, path_of(name))
    rie = Client(here.rie_port, RIE_PATH)
    arms: dict[str, Callable[[], object]] = {
        "plane, boto3": lambda: here.plane.lambda_.invoke(FunctionName=name)["Payload"].read(),
        "MiniStack, boto3": lambda: here.emulator.lambda_.invoke(FunctionName=name)["Payload"].read(),
        "plane, HTTP": plane.post,
        "RIE, HTTP": rie.post,
    }
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(BLOCKS):
        for arm in random.sample(list(arms), len(arms)):
            arms[arm]()
            times[arm] += [_timed(arms[arm]) for _ in range(PER_BLOCK[arm])]
    plane.close()
    rie.close()
    print(f"{'':20} {'n':>6} {'median ms':>10} {'p95 ms':>9}")
    for arm, found in times.items():
        print(f"{arm:20} {len(found):>6} {statistics.median(found):>10.3f} {_percentile(found, 95):>9.3f}")
    print(f"{'sam local, boto3':20} left out: it needs a Docker engine and an image of the runtime")
    held = [
        _judge(f"{slow} / {fast}", statistics.median(times[slow]) / statistics.median(times[fast]), least)
        for slow, fast, least in DEMANDED
    ]
    return all(held)


def own_cost(here: World) -> bool:
    """What the plane and the runtime client add to the function's own time, and the plane's CPU time per invoke.

    The CPU time is all of the plane's process while it is called: log lines and following the stack included.
    """
    _title(f"Duration in REPORT minus the function's own time (it sleeps {SLEEP_MS} ms); CPU of the plane's process")
    print(f"{'':8} {'MB':>6} {'n':>6} {'p50 ms':>8} {'p99 ms':>8} {'plane CPU s per invoke':>23}")
    for language in LANGUAGES:
        for memory_mb in MEMORY_MB:
            path = path_of(name_of(language, memory_mb))
            client = Client(here.stack.plane.port, path, "X-Amz-Log-Type: Tail\r\n")
            event = json.dumps({"sleep_ms": SLEEP_MS}).encode()
            client.post(event)
            added = [_added(*client.post(event)) for _ in range(COST_INVOKES)]
            client.close()
            plain = Client(here.stack.plane.port, path)
            before = _cpu_s(here.stack.plane.pid)
            for _ in range(COST_INVOKES):
                plain.post()
            cpu_s = (_cpu_s(here.stack.plane.pid) - before) / COST_INVOKES
            plain.close()
            print(
                f"{language:8} {memory_mb:>6} {len(added):>6} {statistics.median(added):>8.3f} "
                f"{_percentile(added, 99):>8.3f} {cpu_s:>23.6f}",
                flush=True,
            )
    return True


def queues(here: World) -> bool:
    """An SQS queue of no-ops, emptied by the plane's mapping and by MiniStack's own."""
    _title(f"SQS -> no-op Python function, 1,769 MB, {MESSAGES} messages: messages/s, median (least to most)")
    held = []
    print(f"{'batch':>6} {'plane':>24} {'MiniStack':>24}")
    for batch_size in (1, 10):
        rates: dict[str, list[float]] = {"plane": [], "ministack": []}
        for _ in range(QUEUE_ROUNDS):
            for where in random.sample(list(rates), len(rates)):
                rates[where].append(rate(here, where, batch_size))
        print(f"{batch_size:>6} " + " ".join(f"{_range(found):>24}" for found in rates.values()), flush=True)
        ratio = statistics.median(rates["plane"]) / statistics.median(rates["ministack"])
        held.append(_judge(f"batch {batch_size}, plane / MiniStack", ratio, QUEUE_RATIO if batch_size == 1 else None))
    for size in (1, 10):
        bare = [bare_rate(here, size) for _ in range(QUEUE_ROUNDS)]
        print(f"the emulator's queue alone, received and deleted by {size}, no function: {_range(bare)}", flush=True)
    return all(held)


def _range(found: Sequence[float]) -> str:
    return f"{statistics.median(found):.0f} ({min(found):.0f} to {max(found):.0f})"


def many(here: World) -> bool:
    """Many environments at once, and nothing of them afterwards."""
    held = [_many(here, language) for language in LANGUAGES]
    return all(held)


def _many(here: World, language: str) -> bool:
    _title(f"{HELD} environments of the {language} function, {MEMORY_MB[0]} MB, held at once")
    name = name_of(language, MEMORY_MB[0])
    event = json.dumps({"sleep_ms": HOLD_MS}).encode()

    def one(_: int) -> float:
        client = Client(here.stack.plane.port, path_of(name))
        began = time.perf_counter()
        client.post(event)
        client.close()
        return time.perf_counter() - began

    plane_mb = _own_mb(here.stack.plane.pid)
    began, used_mb = time.perf_counter(), math.nan
    with ThreadPoolExecutor(HELD) as threads:
        answers = [threads.submit(one, number) for number in range(HELD)]
        most = 0
        while not all(answer.done() for answer in answers):
            found = here.stack.status()["functions"][name]
            most = max(most, found["in_flight"])
            if math.isnan(used_mb) and time.perf_counter() - began > HOLD_MS / 1000 - 2:  # all initialised, none done
                used_mb = sum(_own_mb(pid) for pid in found["pids"])
                plane_mb = _own_mb(here.stack.plane.pid) - plane_mb
            time.sleep(0.1)
    errors = [str(error)[:300] for answer in answers if (error := answer.exception()) is not None]
    took = [answer.result() for answer in answers if answer.exception() is None] or [math.nan]
    pids = here.stack.status()["functions"][name]["pids"]
    here.stack.recycle(name)
    deadline = time.monotonic() + 20
    while (left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    print(f"most in flight {most}, environments {len(pids)}, errors {len(errors)}, left after the end {len(left)}")
    print(f"the last was at work {max(took) - HOLD_MS / 1000:.1f} s after the call")
    print(f"memory: environments {used_mb:.0f} MB ({used_mb / HELD:.1f} MB each), the plane {plane_mb:.0f} MB more")
    print("\n".join(errors[:3]), end="\n" if errors else "")
    return _said("held at once, without error, nothing left", most == HELD and not errors and not left)


def _added(head: str, body: bytes) -> float:
    tail = base64.b64decode(header(head, "x-amz-log-result")).decode()
    (report,) = [found for line in tail.splitlines() if (found := parse_report(line)) is not None]
    return report.duration_ms - float(json.loads(body)["own_ms"])


def _timed(work: Callable[[], object]) -> float:
    began_ns = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - began_ns) / MS


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _own_mb(pid: int) -> float:
    """Memory of a process in MB, with its part of what it shares (Pss, proc_pid_smaps(5))."""
    (kb,) = re.findall(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(kb) / 1024


def _percentile(times: Sequence[float], percent: int) -> float:
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1]


def _judge(what: str, ratio: float, least: float | None) -> bool:
    if least is None:
        print(f"{what}: {ratio:.2f}x")
        return True
    return _said(f"{what}: {ratio:.2f}x, at least {least:.2f}x", ratio >= least)


def _said(what: str, held: bool) -> bool:
    print(f"{what}: {'yes' if held else 'NO'}", flush=True)
    return held


def _title(text: str) -> None:
    print(f"\n{text} (load {os.getloadavg()[0]:.1f})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
