"""How long AWS's services take to answer, as a model: a dated file with one distribution per service and operation.

A loopback emulator answers faster than AWS does. The model gives the plane times to wait (``local/service_time.py``).
What it is and is not stands in ``docs/method.md``.
"""

import datetime
import math
import random
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Final, Literal

import msgspec

from lambdalab.errors import LatencyError
from lambdalab.settings_file import choose, locate, read

S3_OPERATIONS: Final = (
    "CopyObject",
    "DeleteObject",
    "DeleteObjects",
    "GetObject",
    "HeadObject",
    "ListObjectsV2",
    "PutObject",
)
"""What can be told from method and path; every other call to S3 has no distribution."""
LEAST_MS: Final = 0.001
LONGEST_MS: Final = 60_000.0

_STANDARD: Final = NormalDist()
_Z99: Final = _STANDARD.inv_cdf(0.99)
_SOURCE: Final = re.compile(r"assumption\b.*|.*https?://\S+.*\bread \d{4}-\d\d-\d\d.*", re.DOTALL)


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The time one operation takes, in milliseconds: a lognormal distribution, and where its two numbers are from."""

    service: Literal["dynamodb", "s3", "sqs"]
    operation: str
    p50_ms: float
    p50_source: str
    p99_ms: float
    p99_source: str

    def quantile_ms(self, p: float) -> float:
        """The time that a share ``p`` of the calls stays below, 0 < p < 1.

        The logarithm of a lognormal variable is normal with a mean m and a deviation s, so its quantile is
        exp(m + s z(p)), z(p) being that of the standard normal (definition: GNU Scientific Library manual, "The
        Lognormal Distribution"). Two quantiles fix both: z(0.5) = 0 gives m = ln p50, and then
        s = ln(p99 / p50) / z(0.99). Both zero is the distribution that is always zero.
        """
        if self.p50_ms == 0:
            return 0.0
        return self.p50_ms * math.exp(math.log(self.p99_ms / self.p50_ms) / _Z99 * _STANDARD.inv_cdf(p))


class LatencyModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of ``latencies/``."""

    name: str
    date: datetime.date
    seed: int
    calls: tuple[Call, ...]


class Draws:
    """The times of one function's calls, drawn one after another; one generator per service and operation.

    The n-th call of an operation gets the n-th number of a sequence that follows from seed, function, service and
    operation alone, since ``random.Random(text).random()`` is promised to repeat in every version of Python ("Notes
    on Reproducibility"). The seed cannot repeat which call comes n-th when calls run at the same time, nor what the
    emulator, the machine and retries add.
    """

    def __init__(self, model: LatencyModel, function_name: str) -> None:
        self._calls: dict[tuple[str, str], tuple[Call, random.Random]] = {
            (call.service, call.operation): (
                call,
                # Not for secrets; text is seeded by its SHA-512.
                random.Random(f"{model.seed} {function_name} {call.service} {call.operation}"),  # noqa: S311
            )
            for call in model.calls
        }

    def next_ms(self, service: str, operation: str) -> float | None:
        """The next time of an operation in milliseconds; None when the model has no distribution for it."""
        found = self._calls.get((service, operation))
        if found is None:
            return None
        call, generator = found
        return call.quantile_ms(generator.random() or 2**-53)


def load_latency(name_or_path: str | Path) -> LatencyModel:
    """Reads a latency model: ``2026-11-21`` means ``latencies/2026-11-21.toml``, anything else is a path.

    Raises:
        LatencyError: the file is absent or something in it is wrong; tells file, key, value and next step.
    """
    path = locate(name_or_path, "latencies", LatencyError)
    model = read(path, LatencyModel, LatencyError)
    if not model.name.strip():
        raise LatencyError(f"{path}: name is empty", next_step="name the model, as every table will")
    seen = set()
    for index, call in enumerate(model.calls):
        _check(path, f"calls[{index}]", call)
        if (call.service, call.operation) in seen:
            raise LatencyError(
                f"{path}: calls[{index}] is {call.service} {call.operation} once more", next_step="keep one of the two"
            )
        seen.add((call.service, call.operation))
    return model


def _check(path: Path, key: str, call: Call) -> None:
    known = _operations(call.service)
    if call.operation not in known:
        raise LatencyError(
            f'{path}: {key}.operation is "{call.operation}"', next_step=choose(call.operation, sorted(known))
        )
    for name, value in (("p50_ms", call.p50_ms), ("p99_ms", call.p99_ms)):
        if not (value == 0 or LEAST_MS <= value <= LONGEST_MS):
            raise LatencyError(
                f"{path}: {key}.{name} is {value:g}", next_step=f"write 0, or {LEAST_MS} to {LONGEST_MS:,.0f} ms"
            )
    if call.p99_ms < call.p50_ms or (call.p50_ms == 0 < call.p99_ms):
        rule = "p99_ms is never below p50_ms" if call.p50_ms else "no lognormal has a median of 0, so p99_ms is 0 too"
        raise LatencyError(f"{path}: {key}.p99_ms is {call.p99_ms:g} beside p50_ms {call.p50_ms:g}", next_step=rule)
    for name, source in (("p50_source", call.p50_source), ("p99_source", call.p99_source)):
        if not _SOURCE.fullmatch(source):
            raise LatencyError(
                f'{path}: {key}.{name} is "{source}"',
                next_step="write an address and `read YYYY-MM-DD`, or begin with `assumption`",
            )


@cache
def _operations(service: str) -> Collection[str]:
    """The operations by AWS's own names."""
    if service == "s3":
        return S3_OPERATIONS
    from botocore.loaders import Loader  # here, because most commands have no model

    operations: dict[str, object] = Loader().load_service_model(service, "service-2")["operations"]
    return operations
