"""Is the CPU share of the local plane real? ``python -m benchmarks.cpu_quota``.

The same work at several memory sizes, in Python and in Go: Lambda gives CPU in proportion to memory, so duration x
memory of CPU-bound work has to be constant up to one core; beyond it one worker gains nothing and two do; at a CPU
scale of one half it has to take twice as long; init, which Lambda does not throttle, must not depend on memory. Cases
are measured in blocks, in random order, so that a machine whose speed wanders treats all alike. Beside each Duration
stands the CPU time the function used: where that grows, the processor did the same work more slowly; where the share
that was delivered is off, the quota is. Beside work that gets less than a core, processes that run only when nothing
else wants one keep the cores awake: a virtual core that fell idle in the pause after a slice comes back slowly and with
cold caches, which is not the quota's doing. At last ten environments work at the same time, each of which has to get
its own share; where signals limit, it says what their governor costs. LAMBDALAB_LIMITS=cgroup or signals chooses how
CPU is limited; by default it is the best way that this machine offers. Exit code 0: all holds; 1: something does not;
3: nothing limits here.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from lambdalab.build.tools import interpreter_for, search_path
from lambdalab.local.environment import Environment
from lambdalab.local.function import Credentials, FunctionSpec
from lambdalab.local.governor import cpu_clock_ns
from lambdalab.local.limiter import find_limiter
from lambdalab.local.limits import MB_PER_VCPU, Limiter, cpu_share
from lambdalab.local.signals import Signals

BELOW_ONE_CORE_MB: Final = (128, 256, 512, 1024)
TWO_CORES_MB: Final = 2 * MB_PER_VCPU
HALF: Final = 0.5


class Case(NamedTuple):
    """What is measured: a memory size, workers that each do the work, and a CPU scale."""

    memory_mb: int
    workers: int = 1
    cpu_scale: float = 1.0


ONE_CORE: Final = Case(MB_PER_VCPU)
HALVED: Final = Case(MB_PER_VCPU, cpu_scale=HALF)
CASES: Final = (
    *map(Case, BELOW_ONE_CORE_MB),
    ONE_CORE,
    Case(TWO_CORES_MB),
    Case(MB_PER_VCPU, 2),
    Case(TWO_CORES_MB, 2),
    HALVED,
)
WORK_MS: Final = 500
"""CPU time of the work at one whole core."""
TRY_ITERATIONS: Final = {"python": 1_000_000, "go": 100_000_000}
BLOCKS: Final = 5
INITS: Final = {"python": 60, "go": 400}
"""The shorter ones vary more."""
TOLERANCE: Final = 0.05
AT_ONCE: Final = 10
AT_ONCE_MB: Final = 128
MOST_OF_GOVERNOR: Final = 0.05
"""Of a core, for each environment that works."""
TWO_WORKERS_GAIN: Final = 1.5
"""At least, of 2.0 on two cores that nothing else uses."""
HERE: Final = Path(__file__).parent / "functions"
STAY_AWAKE: Final = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while True:
    pass
"""


class Sample(NamedTuple):
    """One new environment: its init, then one invocation that works; all in milliseconds."""

    init_ms: float
    work_ms: float
    cpu_ms: float


@contextlib.asynccontextmanager
async def environment_of(limiter: Limiter, spec: FunctionSpec) -> AsyncIterator[Environment]:
    """A new environment of the function, initialised."""
    environment = Environment(
        spec,
        interpreter=interpreter_for(spec.runtime) if spec.runtime.startswith("python") else None,
        credentials=Credentials(access_key_id="none", secret_access_key="none"),  # noqa: S106 - used for nothing
        limits=limiter.create(secrets.token_hex(6)),
        emit=lambda *_: None,
    )
    try:
        await environment.initialise()
        yield environment
    finally:
        await environment.close()


async def work(environment: Environment, iterations: int, workers: int = 1) -> Sample:
    """Invokes it once; an init belongs to the first invocation, and is 0 in others."""
    payload = json.dumps({"iterations": iterations, "workers": workers}).encode()
    outcome = await environment.invoke(payload, request_id="1", trace_id="", client_context=None)
    if outcome.answer.error_type is not None:
        sys.exit(f"the function failed: {outcome.answer.payload.decode()}")
    report = outcome.report
    return Sample(report.init_ms or 0.0, report.duration_ms, json.loads(outcome.answer.payload)["cpu_ms"])


async def run(limiter: Limiter, spec: FunctionSpec, iterations: int, workers: int = 1) -> Sample:
    """Measures one environment: its init, and its second invocation."""
    async with environment_of(limiter, spec) as environment:
        first = await work(environment, 1)
        return (await work(environment, iterations, workers))._replace(init_ms=first.init_ms)


async def measure_at_once(limiter: Limiter, spec: FunctionSpec, iterations: int) -> bool:
    """Lets environments work beside each other; tells whether each gets its share, and the governor costs little."""
    small = msgspec.structs.replace(spec, memory_mb=AT_ONCE_MB)
    governor = limiter.governor_pid if isinstance(limiter, Signals) else None
    async with contextlib.AsyncExitStack() as stack:
        environments = [await stack.enter_async_context(environment_of(limiter, small)) for _ in range(AT_ONCE)]
        for environment in environments:
            await work(environment, 1)
        stack.enter_context(awake_cores())
        began_ns, used_ns = time.monotonic_ns(), cpu_clock_ns(governor) if governor else 0
        samples = await asyncio.gather(*(work(environment, iterations) for environment in environments))
        elapsed_ns, used_ns = time.monotonic_ns() - began_ns, (cpu_clock_ns(governor) if governor else 0) - used_ns
    shares = sorted(sample.cpu_ms / sample.work_ms / cpu_share(AT_ONCE_MB) for sample in samples)
    worst = max(abs(share - 1) for share in shares)
    print(
        f"{AT_ONCE} environments of {AT_ONCE_MB} MB at once each get their share: "
        f"{'yes' if worst <= TOLERANCE else 'NO'}, {shares[0]:.3f} to {shares[-1]:.3f} of it, {TOLERANCE:.0%} allowed"
    )
    if governor is None:
        return worst <= TOLERANCE
    cost = used_ns / elapsed_ns / AT_ONCE
    is_cheap = cost <= MOST_OF_GOVERNOR
    print(
        f"the governor is cheap: {'yes' if is_cheap else 'NO'}, {cost:.2%} of a core for each environment that works, "
        f"{MOST_OF_GOVERNOR:.0%} allowed"
    )
    return is_cheap and worst <= TOLERANCE


async def measure(scaled: Mapping[float, Limiter], spec: FunctionSpec) -> bool:
    """Prints one language's tables; tells whether everything holds. ``scaled`` are limiters by CPU scale."""
    limiter = scaled[1.0]

    def at(memory_mb: int) -> FunctionSpec:
        return msgspec.structs.replace(spec, memory_mb=memory_mb)

    tried = TRY_ITERATIONS[spec.name]
    tried_ms = statistics.median([(await run(limiter, at(MB_PER_VCPU), tried)).work_ms for _ in range(BLOCKS)])
    iterations = int(tried * WORK_MS / tried_ms)
    samples: dict[Case, list[Sample]] = {case: [] for case in CASES}
    for _ in range(BLOCKS):
        for case in random.sample(CASES, len(CASES)):
            with awake_cores() if cpu_share(case.memory_mb, case.cpu_scale) < 1 else contextlib.nullcontext():
                sample = await run(scaled[case.cpu_scale], at(case.memory_mb), iterations, case.workers)
            samples[case].append(sample)
    inits: dict[int, list[float]] = {memory_mb: [] for memory_mb in BELOW_ONE_CORE_MB}
    # In no blocks: there a size hardly ever follows itself, and after a throttled environment init takes longer.
    order = list(BELOW_ONE_CORE_MB) * INITS[spec.name]
    for memory_mb in random.sample(order, len(order)):
        inits[memory_mb].append((await run(limiter, at(memory_mb), 1)).init_ms)

    took = {case: statistics.median(s.work_ms for s in found) for case, found in samples.items()}
    cpu = {case: statistics.median(s.cpu_ms for s in found) for case, found in samples.items()}
    middle = statistics.median(took[Case(memory_mb)] * memory_mb for memory_mb in BELOW_ONE_CORE_MB)
    init = {memory_mb: statistics.median(found) for memory_mb, found in inits.items()}
    print(f"\n{spec.name}: {iterations:,} iterations a worker; medians of {BLOCKS} blocks, of {INITS[spec.name]} inits")
    print(
        f"{'memory MB':>10} {'workers':>8} {'scale':>6} {'Duration ms':>12} {'off':>7} {'CPU ms':>9} {'delivered':>10} "
        f"{'init ms':>8}"
    )
    off, delivered = {}, {}
    for case in CASES:
        memory_mb, workers, cpu_scale = case
        share = min(cpu_share(memory_mb, cpu_scale), workers)
        delivered[case] = statistics.median(s.cpu_ms / s.work_ms / share for s in samples[case])
        is_below = memory_mb in BELOW_ONE_CORE_MB
        if is_below:
            off[memory_mb] = took[case] * memory_mb / middle - 1
        print(
            f"{memory_mb:>10} {workers:>8} {cpu_scale:>6g} {took[case]:>12.1f} "
            f"{f'{off[memory_mb]:+.1%}' if is_below else '':>7} {cpu[case]:>9.1f} {delivered[case]:>10.3f} "
            f"{f'{init[memory_mb]:.2f}' if is_below else '':>8}"
        )
    flat = took[Case(TWO_CORES_MB)] / took[ONE_CORE] - 1
    gain = took[Case(MB_PER_VCPU, 2)] / took[Case(TWO_CORES_MB, 2)]
    slower = took[HALVED] / took[ONE_CORE]
    worst_init = max(abs(found / statistics.median(init.values()) - 1) for found in init.values())
    worst_share = max(abs(delivered[Case(memory_mb)] - 1) for memory_mb in BELOW_ONE_CORE_MB)
    worst = {
        "Duration x memory is constant below one core": max(map(abs, off.values())),
        "the CPU time that is due is delivered": worst_share,
        "one worker gains nothing beyond one core": abs(flat),
        f"at a CPU scale of {HALF:g} the same takes {1 / HALF:g} times as long": abs(slower * HALF - 1),
        "init does not depend on memory": worst_init,
    }
    for what, found in worst.items():
        print(f"{what}: {'yes' if found <= TOLERANCE else 'NO'}, off by {found:.1%} at most, {TOLERANCE:.0%} allowed")
    gains = gain >= TWO_WORKERS_GAIN
    print(f"two workers gain from two cores: {'yes' if gains else 'NO'}, {gain:.2f}x, {TWO_WORKERS_GAIN:g}x wanted")
    at_once = await measure_at_once(limiter, spec, iterations)
    return gains and at_once and max(worst.values()) <= TOLERANCE


@contextlib.contextmanager
def awake_cores() -> Iterator[None]:
    """Keeps every core from falling idle, with processes that yield to all others."""
    processes = [subprocess.Popen([sys.executable, "-c", STAY_AWAKE]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def build_go(folder: Path) -> None:
    """Builds the Go function as this project's template does."""
    variables = {**os.environ, "PATH": search_path(), "CGO_ENABLED": "0"}
    command = ["go", "build", "-trimpath", "-ldflags=-s", "-tags=lambda.norpc", "-o", str(folder / "bootstrap"), "."]
    subprocess.run(command, cwd=HERE / "go", env=variables, check=True)


def main() -> int:
    """Measures both languages and prints the verdict."""
    argparse.ArgumentParser(
        prog="python -m benchmarks.cpu_quota",
        description=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    scaled = {
        cpu_scale: find_limiter(f"lambdalab-cpu-quota-{os.getpid()}-{cpu_scale:g}", cpu_scale=cpu_scale)
        for cpu_scale in (1.0, HALF)
    }
    if scaled[1.0].kind == "none":
        print("nothing limits CPU here; `lambdalab doctor` says why", file=sys.stderr)
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
            print(f"{scaled[1.0].kind}, {os.cpu_count()} cores, load {load:.1f} before")
            held = [asyncio.run(measure(scaled, spec)) for spec in (python, go)]
        finally:
            for limiter in scaled.values():
                limiter.close()
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
