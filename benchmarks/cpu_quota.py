"""Is the CPU quota of the local plane real? The same work at several memory sizes, in Python and in Go.

Lambda gives CPU in proportion to memory, so duration x memory of CPU-bound work has to be constant, while init, which
Lambda does not throttle, must not depend on memory. Exit code 0: both hold; 1: one does not; 3: no control groups.
"""

import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from lambdalab.local.cgroup import MB_PER_VCPU, Cgroups
from lambdalab.local.environment import Environment
from lambdalab.local.function import Credentials, FunctionSpec
from lambdalab.tools import interpreter_for, search_path

MEMORY_MB: Final = (128, 256, 512, 1024)
WORK_MS: Final = 1100
"""CPU time of the work at one whole core."""
TRY_ITERATIONS: Final = {"python": 2_000_000, "go": 200_000_000}
WHOLE_CORE_RUNS: Final = 3
"""The shortest counts: what else the machine does can only lengthen one."""
INITS: Final = 25
"""A Go init of 2 ms varies by more than itself on a busy machine, so its median needs some."""
TOLERANCE: Final = 0.10
INIT_TOLERANCE_MS: Final = 1.0
HERE: Final = Path(__file__).parent / "functions"


async def run(cgroups: Cgroups, spec: FunctionSpec, iterations: int) -> tuple[float, float]:
    """Init and work duration, in milliseconds, of a new environment."""
    environment = Environment(
        spec,
        interpreter=interpreter_for(spec.runtime) if spec.runtime.startswith("python") else None,
        credentials=Credentials(access_key_id="none", secret_access_key="none"),  # noqa: S106 - used for nothing
        limits=cgroups.create(secrets.token_hex(6)),
        emit=lambda *_: None,
    )
    try:
        await environment.initialise()
        reports = []
        for count in (1, iterations):
            payload = json.dumps({"iterations": count}).encode()
            outcome = await environment.invoke(payload, request_id="1", trace_id="", client_context=None)
            if outcome.answer.error_type is not None:
                sys.exit(f"the function failed: {outcome.answer.payload.decode()}")
            reports.append(outcome.report)
    finally:
        await environment.close()
    assert reports[0].init_ms is not None
    return reports[0].init_ms, reports[1].duration_ms


async def measure(cgroups: Cgroups, spec: FunctionSpec) -> bool:
    """Prints one language's table; tells whether the law holds."""

    def at(memory_mb: int) -> FunctionSpec:
        return msgspec.structs.replace(spec, memory_mb=memory_mb)

    tried = TRY_ITERATIONS[spec.name]
    tried_ms = min([(await run(cgroups, at(MB_PER_VCPU), tried))[1] for _ in range(WHOLE_CORE_RUNS)])
    iterations = int(tried * WORK_MS / tried_ms)
    whole_core_ms = min([(await run(cgroups, at(MB_PER_VCPU), iterations))[1] for _ in range(WHOLE_CORE_RUNS)])
    inits: dict[int, list[float]] = {memory_mb: [] for memory_mb in MEMORY_MB}
    for _ in range(INITS):
        for memory_mb in MEMORY_MB:
            inits[memory_mb].append((await run(cgroups, at(memory_mb), 1))[0])
    works = {memory_mb: (await run(cgroups, at(memory_mb), iterations))[1] for memory_mb in MEMORY_MB}

    middle = statistics.median(works[memory_mb] * memory_mb for memory_mb in MEMORY_MB)
    print(f"\n{spec.name}: {iterations:,} iterations, {whole_core_ms:.0f} ms at one whole core ({MB_PER_VCPU} MB)")
    print(f"{'memory MB':>10} {'work ms':>10} {'x memory, GB-s':>15} {'off':>7} {'of whole core':>14} {'init ms':>9}")
    worst = 0.0
    for memory_mb in MEMORY_MB:
        off = works[memory_mb] * memory_mb / middle - 1
        worst = max(worst, abs(off))
        of_core = works[memory_mb] * memory_mb / MB_PER_VCPU / whole_core_ms
        print(
            f"{memory_mb:>10} {works[memory_mb]:>10.1f} {works[memory_mb] * memory_mb / 1024 / 1000:>15.3f} "
            f"{off:>+7.1%} {of_core:>14.3f} {statistics.median(inits[memory_mb]):>9.2f}"
        )
    medians = [statistics.median(times) for times in inits.values()]
    flat = max(medians) - min(medians) <= max(min(medians) * TOLERANCE, INIT_TOLERANCE_MS)
    holds = worst <= TOLERANCE
    print(
        f"work inversely proportional to memory within {TOLERANCE:.0%}: {'yes' if holds else 'NO'}, worst {worst:.1%}"
    )
    print(
        f"init independent of memory within {TOLERANCE:.0%} or {INIT_TOLERANCE_MS:g} ms: {'yes' if flat else 'NO'}, "
        f"medians of {INITS} from {min(medians):.2f} to {max(medians):.2f} ms"
    )
    return holds and flat


def build_go(folder: Path) -> None:
    """Builds the Go function as this project's template does."""
    variables = {**os.environ, "PATH": search_path(), "CGO_ENABLED": "0"}
    command = ["go", "build", "-trimpath", "-ldflags=-s", "-tags=lambda.norpc", "-o", str(folder / "bootstrap"), "."]
    subprocess.run(command, cwd=HERE / "go", env=variables, check=True)


def main() -> int:
    """Measures both languages and prints the verdict."""
    cgroups = Cgroups(f"lambdalab-cpu-quota-{os.getpid()}")
    if cgroups.kind == "none":
        print("no control groups can be written here: run it as root, or in a delegated scope", file=sys.stderr)
        return 3
    python = FunctionSpec(
        name="python",
        arn="arn:aws:lambda:us-east-1:000000000000:function:cpu-quota",
        runtime=f"python{sys.version_info.major}.{sys.version_info.minor}",
        handler="handler.handler",
        memory_mb=MB_PER_VCPU,
        timeout_s=300,
        variables={},
        log_group="none",
        revision_id="1",
        package=HERE / "python",
    )
    with tempfile.TemporaryDirectory() as folder:
        build_go(Path(folder))
        go = msgspec.structs.replace(python, name="go", runtime="provided.al2023", package=Path(folder))
        try:
            load = os.getloadavg()[0]
            print(f"{cgroups.kind}, {os.cpu_count()} cores, load {load:.1f} before")
            held = [asyncio.run(measure(cgroups, spec)) for spec in (python, go)]
        finally:
            cgroups.close()
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
