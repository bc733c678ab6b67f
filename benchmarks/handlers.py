"""How long the ingest functions take to write a message, against plain SDK clients: ``python -m benchmarks.handlers``.

On a plane with a quota, in randomised blocks of one run: the three modes, and a function that does the same puts as
``sequential`` with a plain client of the same SDK and nothing else (no validation, no record, no quantiles). What is
compared is the Duration of warm invocations, as the median of the ratios of single blocks with its exact 95 % interval.
Exit code 1: at 128 MB ``sequential`` is slower than the plain client, the whole interval above 1.
"""

import base64
import contextlib
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from benchmarks.plane.world import BUCKET, FUNCTIONS, LANGUAGES, MEMORY_MB, ROLE, RUNTIMES, STACK_NAME, free_ports
from lambdalab.aws.clients import Aws
from lambdalab.build.tools import interpreter_for, search_path
from lambdalab.local.settings import Settings
from lambdalab.local.stack import LocalStack
from lambdalab.local.startup import start_emulator, start_plane
from lambdalab.logs.platform_lines import parse_report
from lambdalab.records.trials import Estimate
from lambdalab.statistics.estimates import median_estimate

BLOCKS: Final = 20
LIMIT_S: Final = 200
"""No block begins later than this: on a machine that does other work a block may take several times as long."""
COUNT: Final = 50
SIZE_BYTES: Final = 1024
WAYS: Final = ("plain", "sequential", "concurrent", "batch")
ROOT: Final = Path(__file__).parents[1]
HANDLERS: Final = {("python", "plain"): "puts.handler", ("python", "ingest"): "handler.handler"}


@dataclass(frozen=True, order=True)
class Arm:
    """One way to write at one memory size."""

    language: str
    memory_mb: int
    way: str

    @property
    def function_name(self) -> str:
        """The modes of a language are one function."""
        return f"{'plain' if self.way == 'plain' else 'ingest'}-{self.language}-{self.memory_mb}"


def main() -> int:
    """Measures, prints, judges."""
    random.seed(2026_11_21)
    print(f"{date.today()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}")
    arms = [Arm(*of) for of in ((lang, mb, way) for lang in LANGUAGES for mb in MEMORY_MB for way in WAYS)]
    with tempfile.TemporaryDirectory(prefix="lambdalab-bench-") as folder, _stack(Path(folder)) as stack:
        print(f"quota: {stack.status()['cpu_limit']}, load {os.getloadavg()[0]:.1f}", flush=True)
        lambda_ = stack.aws().lambda_
        times: dict[Arm, list[float]] = {arm: [] for arm in arms}
        begin = time.monotonic()
        for block in range(BLOCKS + 1):  # the first is not counted: it holds the cold starts and first connections
            if time.monotonic() - begin > LIMIT_S:
                break
            for arm in random.sample(arms, len(arms)):
                duration_ms = _duration_ms(lambda_, arm, block)
                if block:
                    times[arm].append(duration_ms)
            print(f"block {block} of {BLOCKS}, {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    print(f"{COUNT} items of {SIZE_BYTES} bytes, Duration ms of warm invocations, load {os.getloadavg()[0]:.1f}")
    print(f"{'':8} {'MB':>6} {'way':12} {'n':>4} {'median':>9} {'/ plain':>25} {'/ sequential':>25}")
    held = True
    for arm, found in times.items():
        ratios = {way: _ratio(found, times[Arm(arm.language, arm.memory_mb, way)]) for way in WAYS[:2]}
        shown = [f"{ratio.median:.3f} ({_ends(ratio)})" for ratio in ratios.values()]
        print(
            f"{arm.language:8} {arm.memory_mb:>6} {arm.way:12} {len(found):>4} {median_estimate(found).median:>9.2f} "
            f"{shown[0]:>25} {shown[1]:>25}"
        )
        if arm.way == "sequential" and arm.memory_mb == MEMORY_MB[0]:
            held &= ratios["plain"].low is not None and ratios["plain"].low <= 1
    return 0 if held else 1


def _ratio(times: list[float], others: list[float]) -> Estimate:
    return median_estimate([one / other for one, other in zip(times, others, strict=True)])


def _ends(ratio: Estimate) -> str:
    return "no interval" if ratio.low is None or ratio.high is None else f"{ratio.low:.3f} to {ratio.high:.3f}"


def _duration_ms(lambda_: Any, arm: Arm, block: int) -> float:
    mode = {} if arm.way == "plain" else {"mode": arm.way}
    batch_id = f"{arm.language}:{arm.memory_mb}:{arm.way}:{block}"
    event = {"batch_id": batch_id, "size_bytes": SIZE_BYTES, "count": COUNT} | mode
    answer = lambda_.invoke(FunctionName=arm.function_name, Payload=json.dumps(event), LogType="Tail")
    said = answer["Payload"].read()
    report = parse_report(base64.b64decode(answer["LogResult"]).decode().splitlines()[-1])
    if "FunctionError" in answer or b'"error"' in said or report is None:
        sys.exit(f"{arm} did not write {batch_id}: {said.decode()}")
    return report.duration_ms


@contextlib.contextmanager
def _stack(folder: Path) -> Iterator[LocalStack]:
    with contextlib.ExitStack() as undo:
        port, plane_port = free_ports(2)
        emulator = start_emulator(port, folder)
        undo.callback(emulator.end, grace_s=2)
        endpoint_url = f"http://127.0.0.1:{port}"
        _deploy(Aws(endpoint_url=endpoint_url), folder)
        settings = Settings(
            endpoint_url=endpoint_url,
            stack_name=STACK_NAME,
            port=plane_port,
            folder=str(folder),
            interpreters={RUNTIMES["python"]: str(interpreter_for(RUNTIMES["python"]))},
        )
        plane = start_plane(settings, folder)
        undo.callback(plane.end, grace_s=15)
        yield LocalStack(stack_name=STACK_NAME, emulator=emulator, plane=plane)


def _deploy(aws: Aws, folder: Path) -> None:
    s3: Any = aws.session.client("s3", endpoint_url=aws.sqs.meta.endpoint_url)
    s3.create_bucket(Bucket=BUCKET)
    key = {"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}
    resources: dict[str, Any] = {
        "Table": {
            "Type": "AWS::DynamoDB::Table",
            "Properties": {
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
                "KeySchema": key,
            },
        }
    }
    for language in LANGUAGES:
        for kind in ("plain", "ingest"):
            package = _package(language, kind, folder)
            s3.upload_file(str(package), BUCKET, package.name)
            for memory_mb in MEMORY_MB:
                resources[f"{kind.title()}{language.title()}{memory_mb}"] = {
                    "Type": "AWS::Lambda::Function",
                    "Properties": {
                        "FunctionName": f"{kind}-{language}-{memory_mb}",
                        "Runtime": RUNTIMES[language],
                        "Handler": HANDLERS.get((language, kind), "bootstrap"),
                        "Role": ROLE,
                        "MemorySize": memory_mb,
                        "Timeout": 60,
                        "Environment": {"Variables": {"TABLE_NAME": {"Ref": "Table"}}},
                        "Code": {"S3Bucket": BUCKET, "S3Key": package.name},
                    },
                }
    s3.close()
    aws.cloudformation.create_stack(StackName=STACK_NAME, TemplateBody=json.dumps({"Resources": resources}))
    aws.cloudformation.get_waiter("stack_create_complete").wait(
        StackName=STACK_NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )


def _package(language: str, kind: str, folder: Path) -> Path:
    content = folder / f"{kind}-{language}"
    if language == "go":
        source, package = (FUNCTIONS / "go", "./puts") if kind == "plain" else (ROOT / "src/go/ingest", ".")
        variables = {**os.environ, "PATH": search_path(), "CGO_ENABLED": "0"}
        command = ["go", "build", "-trimpath", "-ldflags=-s -w", "-tags=lambda.norpc", "-o", str(content / "bootstrap")]
        subprocess.run([*command, package], cwd=source, env=variables, check=True)
    else:
        source = FUNCTIONS / "python" if kind == "plain" else ROOT / "src/python/ingest"
        shutil.copytree(source, content, ignore=shutil.ignore_patterns("__pycache__"))
        requirements = ROOT / "src/python/ingest/requirements.txt"
        command = ["uv", "pip", "install", "--quiet", "--target", str(content), "-r", str(requirements)]
        variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"}
        subprocess.run([*command, "--python", sys.executable], env=variables, check=True)
    return Path(shutil.make_archive(str(content), "zip", content))


if __name__ == "__main__":
    sys.exit(main())
