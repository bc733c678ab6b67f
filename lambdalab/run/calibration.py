"""How fast one core of this machine is, in a number that can be set beside another machine's.

The work is fixed: ``ROUNDS`` steps of a 64-bit xorshift generator from a fixed seed, computed by the interpreter that
runs the lab; its result is checked. Speed is rounds per second of CPU time, the median of ``REPEATS``. It is about
integer work in this interpreter and nothing else, so only figures of the same Python version compare. What an AWS vCPU
would reach is not known here: who measures it there, with the same work, can divide the two and give ``--cpu-scale``
the quotient AWS / here.
"""

import platform
import statistics
import time
from datetime import UTC, datetime
from typing import Final

import msgspec

from lambdalab.errors import StorageError
from lambdalab.project import state_folder
from lambdalab.records.record_files import DAMAGED, storage

ROUNDS: Final = 500_000
REPEATS: Final = 9
_SEED: Final = 88172645463325252
_RESULT: Final = 2320961649334378572
_MASK: Final = 0xFFFFFFFFFFFFFFFF


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement; ``slowest`` and ``fastest`` are of its repeats, and tell how steady the machine was."""

    measured_at: str
    python: str
    million_rounds_per_s: float
    slowest: float
    fastest: float


def calibrate() -> Calibration:
    """Measures, some seconds long, and keeps the result in ``.lambdalab/calibration.json``.

    Raises:
        StorageError: it cannot be written.
    """
    speeds = []
    for _ in range(REPEATS):
        before_s = time.process_time()
        result = work(ROUNDS)
        speeds.append(ROUNDS / (time.process_time() - before_s) / 1e6)
        assert result == _RESULT, "this interpreter computes wrongly"
    found = Calibration(
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        million_rounds_per_s=round(statistics.median(speeds), 4),
        slowest=round(min(speeds), 4),
        fastest=round(max(speeds), 4),
    )
    path = state_folder() / "calibration.json"
    try:
        path.write_bytes(msgspec.json.encode(found))
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror}", next_step="check the folder's owner and free space"
        ) from error
    return found


def last_calibration() -> Calibration | None:
    """The last measurement; None when there is none.

    Raises:
        StorageError: the file is damaged.
    """
    path = state_folder() / "calibration.json"
    with storage(path, "read"):
        if not path.exists():
            return None
        content = path.read_bytes()
    try:
        return msgspec.json.decode(content, type=Calibration)
    except DAMAGED as error:
        raise StorageError(
            f"{path} is damaged: {error}", next_step="measure again with `lambdalab calibrate`"
        ) from error


def work(rounds: int) -> int:
    """Marsaglia's xorshift with shifts 13, 7 and 17, in 64 bits ("Xorshift RNGs", 2003)."""
    x = _SEED
    for _ in range(rounds):
        x ^= (x << 13) & _MASK
        x ^= x >> 7
        x ^= (x << 17) & _MASK
    return x
