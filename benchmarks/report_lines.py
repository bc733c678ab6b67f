"""Reading 1.2 million REPORT lines into metrics: ``python -m benchmarks.report_lines [LINES]``.

A seeded ``platform.jsonl`` as the lab writes it, one in ten cold, one in a hundred with a status. Each reader runs in a
process of its own, in turn, ``ROUNDS`` times: the lab's own (``RunDirectory.log_blocks`` and ``observe_blocks``, which
``lambdalab report`` calls) and two order-free loops over ``re`` with the same fields and the same checks, one with the
standard library's JSON parser and one with msgspec's. All three must find the same. Ends with 1 under the demanded
ratio to the first loop or over the demanded memory.
"""

import json
import math
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from lambdalab.logs.platform_lines import billed_ms, render_report
from lambdalab.records.trials import LogLine, PlatformReport

LINES: Final = 1_200_000
ROUNDS: Final = 3
DEMANDED: Final = 4.0
MOST_MB: Final = 1000
_WHO: Final = (resource.RUSAGE_SELF, *[resource.RUSAGE_CHILDREN] * len(os.sched_getaffinity(0)))
"""Own peak, and the largest child's as often as there can be children: an upper bound."""
_FIELD: Final = re.compile(r"\t([A-Z][A-Za-z ]*): ([^\t\r\n]+)")
_ID: Final = re.compile(r"REPORT RequestId: (\S+)")
_MS: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ms")
_MB: Final = re.compile(r"([0-9]{1,12}) MB")


class Metrics(NamedTuple):
    """What a loop keeps of a line."""

    duration_ms: float
    billed_ms: float
    memory_mb: int
    max_memory_mb: int | None
    init_ms: float | None
    restore_ms: float | None
    billed_restore_ms: float | None
    status: str | None
    error_type: str | None
    refused: str | None
    log_group: str
    began_ms: int
    log_bytes: int


def main() -> int:
    """Generates, measures, prints."""
    if len(sys.argv) == 4 and sys.argv[1] == "--read":
        _read(sys.argv[2], Path(sys.argv[3]))
        return 0
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else LINES
    with tempfile.TemporaryDirectory(prefix="lambdalab-bench-") as folder:
        _generate(Path(folder) / "platform.jsonl", lines)
        size_mb = (Path(folder) / "platform.jsonl").stat().st_size / 1e6
        found: dict[str, list[Any]] = {name: [] for name in READERS}
        for _ in range(ROUNDS):
            for name in READERS:
                command = [sys.executable, "-m", "benchmarks.report_lines", "--read", name, folder]
                found[name].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    print(f"{date.today()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}")
    print(f"{lines:,} REPORT lines, {size_mb:.0f} MB; load {os.getloadavg()[0]:.1f}")
    print(f"{'reader':16} {'s, median':>10} {'least':>7} {'most':>7} {'us/line':>8} {'peak MB':>8}")
    for name, rounds in found.items():
        seconds = [r["seconds"] for r in rounds]
        peak_mb = max(r["peak_mb"] for r in rounds)
        middle = statistics.median(seconds)
        print(
            f"{name:16} {middle:>10.2f} {min(seconds):>7.2f} {max(seconds):>7.2f} "
            f"{middle / lines * 1e6:>8.2f} {peak_mb:>8.0f}"
        )
    same = len({json.dumps(r["sums"]) for rounds in found.values() for r in rounds}) == 1
    print("all readers found the same" if same else f"the readers DIFFER: {found}")
    ratios = {
        name: [loop["seconds"] / own["seconds"] for loop, own in zip(found[name], found["lambdalab"], strict=True)]
        for name in READERS
        if name != "lambdalab"
    }
    for name, quotients in ratios.items():
        print(f"{name} / lambdalab: {statistics.median(quotients):.1f}x ({min(quotients):.1f} to {max(quotients):.1f})")
    peak_mb = max(r["peak_mb"] for r in found["lambdalab"])
    met = same and statistics.median(ratios["re, json"]) >= DEMANDED and peak_mb < MOST_MB
    print(f"demanded: {DEMANDED:g}x of re, json; under {MOST_MB} MB: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


def _generate(path: Path, lines: int) -> None:
    draw = random.Random(2026_11_21)  # noqa: S311 - test data
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for number in range(lines):
            duration_ms = round(draw.lognormvariate(3, 1), 2)
            init_ms = round(draw.uniform(50, 300), 2) if draw.random() < 0.1 else None
            report = PlatformReport(
                request_id=str(uuid.UUID(int=draw.getrandbits(128))),
                duration_ms=duration_ms,
                billed_ms=billed_ms(duration_ms, init_ms),
                memory_mb=draw.choice([128, 512, 1769]),
                max_memory_mb=draw.randint(40, 120),
                init_ms=init_ms,
                status="timeout" if draw.random() < 0.01 else None,
            )
            line = LogLine(
                log_group=draw.choice(["/aws/lambda/lambdalab-python-ingest", "/aws/lambda/lambdalab-go-ingest"]),
                log_stream=f"2026/11/21/[$LATEST]{number // 1000:032x}",
                timestamp_ms=1_795_255_200_000 + number,
                message=render_report(report),
                event_id=f"{number:056d}",
            )
            file.write(encode(line) + b"\n")


def _read(reader: str, folder: Path) -> None:
    """Runs one reader and prints what it took and found."""
    read, total = READERS[reader]
    began = time.perf_counter()
    found = read(folder)
    seconds = time.perf_counter() - began
    peak_mb = sum(resource.getrusage(who).ru_maxrss for who in _WHO) * 1024 / 1e6
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "sums": total(found)}))


def _lambdalab(folder: Path) -> Any:
    from lambdalab.logs.observations import observe_blocks
    from lambdalab.logs.report_lines import read_block
    from lambdalab.records.trial_files import RunDirectory

    return observe_blocks(RunDirectory(folder).log_blocks(read_block))


def _lambdalab_sums(found: Any) -> list[float]:
    rows = (
        Metrics._make(
            (
                *(getattr(item.reports[0], name) for name in Metrics._fields[:10]),
                *(item.log_group, item.began_ms, item.log_bytes),
            )
        )
        for item in found
    )
    return _sums(len(found), rows)


def _loop(decode: Callable[[bytes], Any]) -> Callable[[Path], dict[str, Metrics]]:
    def read(folder: Path) -> dict[str, Metrics]:
        found = {}
        with (folder / "platform.jsonl").open("rb") as file:
            for text in file:
                line = decode(text)
                message = line["message"]
                if (request_id := _ID.match(message)) is not None:
                    found[request_id[1]] = _metrics(
                        message, line["log_group"], line["timestamp_ms"], len(message.encode()) + 26
                    )
        return found

    return read


def _metrics(message: str, log_group: str, began_ms: int, log_bytes: int) -> Metrics:
    """One REPORT line by label, in any order, with the checks of ``platform_log.parse_report``."""
    fields: dict[str, str] = {}
    for label, value in _FIELD.findall(message):
        if fields.setdefault(label, value) != value:
            raise ValueError(f"{label} stands twice in {message!r}")
    duration_ms, billed, init_ms, restore_ms, restored_ms = (
        _number(_MS, fields.get(name))
        for name in ("Duration", "Billed Duration", "Init Duration", "Restore Duration", "Billed Restore Duration")
    )
    memory_mb, max_memory_mb = (_number(_MB, fields.get(name)) for name in ("Memory Size", "Max Memory Used"))
    if duration_ms is None or billed is None or not memory_mb:
        raise ValueError(f"a field is missing in {message!r}")
    status = fields.get("Status")
    doubts = []
    if init_ms is not None and message.index("\tInit Duration") < message.index("\tDuration"):
        doubts.append("Init Duration stands before Duration")
    if "." not in fields["Duration"] or "." not in fields.get("Init Duration", "."):
        doubts.append("whole milliseconds")
    if max_memory_mb == 0:
        doubts.append("memory was not measured")
    total = duration_ms + (init_ms or 0) + (restored_ms or 0)
    slack = 0.005 if init_ms is None else 0.01
    if not math.ceil(total - slack - 1e-9) <= billed <= math.ceil(total + slack - 1e-9):
        doubts.append(f"Billed Duration is {billed}")
    return Metrics(
        duration_ms,
        billed,
        int(memory_mb),
        None if max_memory_mb is None else int(max_memory_mb) or None,
        init_ms,
        restore_ms,
        restored_ms,
        status,
        fields.get("Error Type"),
        "; ".join(doubts) or None,
        log_group,
        began_ms,
        log_bytes,
    )


def _number(pattern: "re.Pattern[str]", value: str | None) -> float | None:
    if value is None:
        return None
    if (found := pattern.fullmatch(value)) is None:
        raise ValueError(f"{value!r} is no quantity")
    return float(found[1])


def _loop_sums(found: dict[str, Metrics]) -> list[float]:
    return _sums(len(found), iter(found.values()))


def _sums(count: int, rows: Iterator[Metrics]) -> list[float]:
    """The number of requests and, of every field, an order-dependent sum: rows that differ show."""
    totals = [0.0] * len(Metrics._fields)
    for number, row in enumerate(rows, start=1):
        for column, value in enumerate(row):
            if isinstance(value, str):
                totals[column] += len(value) * (number % 97)
            elif value is not None:
                totals[column] += value * (number % 97)
    return [count, *totals]


READERS: Final[dict[str, tuple[Callable[[Path], Any], Callable[[Any], list[float]]]]] = {
    "re, json": (_loop(json.loads), _loop_sums),
    "re, msgspec": (_loop(msgspec.json.decode), _loop_sums),
    "lambdalab": (_lambdalab, _lambdalab_sums),
}

if __name__ == "__main__":
    sys.exit(main())
