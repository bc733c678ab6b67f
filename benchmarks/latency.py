"""What the proxy of a latency model adds to a PutItem: ``python -m benchmarks.latency``.

The same kept-alive request goes to the emulator itself and through two proxies, each in a process of its own as the
plane is: one whose every draw is zero, and one whose every draw is ``FIXED_MS``, in randomised blocks.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.plane.http import Client
from lambdalab.aws.clients import Aws
from lambdalab.local.latency import Draws, LatencyModel
from lambdalab.local.service_time import ServiceTime
from lambdalab.local.startup import start_emulator

BLOCKS: Final = 40
PER_BLOCK: Final = 50
FIXED_MS: Final = 10.0
TABLE: Final = "latency"
ITEM: Final = {"pk": {"S": "a"}, "payload": {"S": "x" * 1024}}


def main() -> None:
    """Measures and prints."""
    argparse.ArgumentParser(
        prog="python -m benchmarks.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    random.seed(2026_11_21)
    print(f"{date.today()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="lambdalab-bench-") as folder, _emulator(Path(folder)) as port:
        endpoint_url = f"http://127.0.0.1:{port}"
        with _proxy(endpoint_url, 0) as zero, _proxy(endpoint_url, FIXED_MS) as fixed:
            ports = {"emulator itself": port, "through, draws of 0": zero, f"through, draws of {FIXED_MS:g}": fixed}
            times = _measure(ports)
    print(f"PutItem of 1 KB, load {os.getloadavg()[0]:.1f}\n{'':24} {'n':>6} {'p50 ms':>9} {'p99 ms':>9}")
    quantiles = {}
    for name, found in times.items():
        cuts = statistics.quantiles(found, n=100, method="inclusive")
        quantiles[name] = cuts[49], cuts[98]
        print(f"{name:24} {len(found):>6} {cuts[49]:>9.3f} {cuts[98]:>9.3f}")
    (direct, _), (through, _), (late, latest) = quantiles.values()
    print(f"through / itself, draws of 0: {through / direct:.2f}x, {through - direct:.3f} ms more at p50")
    print(f"past the drawn {FIXED_MS:g} ms: p50 {late - FIXED_MS:.3f} ms, p99 {latest - FIXED_MS:.3f} ms")


def _measure(ports: dict[str, int]) -> dict[str, list[float]]:
    headers = "X-Amz-Target: DynamoDB_20120810.PutItem\r\nContent-Type: application/x-amz-json-1.0\r\n"
    body = json.dumps({"TableName": TABLE, "Item": ITEM}).encode()
    times: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(BLOCKS):
        for name in random.sample(list(ports), len(ports)):
            client = Client(ports[name], "/", headers)  # the emulator ends a connection after 1,000 requests
            client.post(body)
            for _ in range(PER_BLOCK):
                began_ns = time.perf_counter_ns()
                client.post(body)
                times[name].append((time.perf_counter_ns() - began_ns) / 1e6)
            client.close()
    return times


@contextlib.contextmanager
def _emulator(folder: Path) -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    emulator = start_emulator(port, folder)
    try:
        aws = Aws(endpoint_url=f"http://127.0.0.1:{port}")
        aws.dynamodb.create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        )
        aws.dynamodb.close()
        yield port
    finally:
        emulator.end(grace_s=2)


@contextlib.contextmanager
def _proxy(endpoint_url: str, ms: float) -> Iterator[int]:
    code = "import sys; from benchmarks.latency import serve; serve(sys.argv[1], float(sys.argv[2]))"
    command = [sys.executable, "-c", code, endpoint_url, str(ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def serve(endpoint_url: str, ms: float) -> None:
    """One proxy, until it is ended; prints its port."""
    asyncio.run(_serve(endpoint_url, ms))


async def _serve(endpoint_url: str, ms: float) -> None:
    numbers = {"p50_ms": ms, "p99_ms": ms, "p50_source": "assumption", "p99_source": "assumption"}
    calls = [{"service": "dynamodb", "operation": "PutItem"} | numbers]
    model = msgspec.convert({"name": "fixed", "date": "2026-11-21", "seed": 1, "calls": calls}, LatencyModel)
    url = await ServiceTime(endpoint_url, Draws(model, "f")).open()
    print(url.rsplit(":", 1)[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
