"""The run directory of a load run, seen from whoever sends: made before the first message, told of every one.

A process of the run's own keeps the books (``bookkeeper``), and closes them as well when the sender is killed.
"""

import atexit
import contextlib
import math
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final
from typing import Protocol as Interface

import msgspec

from lambdalab.design.arms import Factors, Load, Protocol, Start, as_cold
from lambdalab.errors import InvalidRunError, SetupError
from lambdalab.load.bookkeeper import Stopped
from lambdalab.load.ceiling import Ceiling
from lambdalab.planning.load_schedule import LoadPlan, length_s
from lambdalab.records.load import Send, Sending
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import Trial, TrialResult
from lambdalab.run.experiment import new_run
from lambdalab.run.target import AwsTarget

BLOCKS_AT_MOST: Final = 100
_READY_S: Final = 0.05


class Report(Interface):
    """What is read of a generator's report (``generator.GeneratorReport``, whose module brings gevent)."""

    @property
    def offered(self) -> int: ...

    @property
    def ended_by(self) -> str: ...

    @property
    def dropped_of_step(self) -> dict[int, int]: ...

    @property
    def limits(self) -> tuple[str, ...]: ...


class Recording:
    """Keeps load runs, one after the other, seen from whoever sends (``shape.Recorder``).

    Args:
        results: the folder of run directories.

    Attributes:
        store: the directory of the run that is under way, or of the last one; None before the first.
    """

    def __init__(self, results: Path) -> None:
        self.store: RunDirectory | None = None
        self._results = results
        self._ceiling: Ceiling | None = None

    @property
    def is_open(self) -> bool:
        """Whether the books of ``store`` are being kept or closed."""
        return self.store is not None and self._process.poll() is None

    def begin(self, plan: LoadPlan, target: AwsTarget) -> str:
        """Makes the run's directory and starts the process that keeps its books; returns the run's id.

        Raises:
            StackError, AccessError, StorageError: see ``new_run``; the queues must be empty.
            SetupError: the process cannot work; why has been said.
        """
        store = new_run(target, protocol_of(plan), self._results, seed=plan.seed, load=msgspec.to_builtins(plan))
        self._manifest = store.manifest()
        self._loads = {load.label: load for load in self._manifest.protocol.loads}
        self._began_ms = datetime.fromisoformat(self._manifest.started_at).timestamp() * 1000
        self._block_ms = block_seconds(plan) * 1000
        self._told, self._seen = 0, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lambdalab.load.bookkeeper", str(store.folder)],
            env=target.aws.variables(),
            stdin=subprocess.PIPE,
            pass_fds=() if target.lock is None else (target.lock.fd,),  # the stack is held until the books are closed
            start_new_session=True,  # Ctrl-C is for the sender, which then ends the run
        )
        if target.lock is not None:
            target.lock.note(bookkeeper_pid=self._process.pid)
        self.store = store
        atexit.register(self.hurry)
        while not store.is_watched:  # else the first messages would be in no count
            if self._process.poll() is not None:
                raise SetupError(
                    f"the books of run {self._manifest.run_id} cannot be kept, as its own process said",
                    next_step="repair that, and begin again",
                )
            time.sleep(_READY_S)
        self._ceiling = Ceiling(plan.max_usd, time.time() * 1000) if target.name == "aws" else None
        return self._manifest.run_id

    def sends(self, sends: Sequence[Send]) -> None:
        """Writes down how messages were sent, in any order.

        Raises:
            SetupError: the books are not kept any more, so that nothing more should be sent; these are written down.
            StorageError: they cannot be written down.
        """
        assert self.store is not None
        self.store.append_trials([self._as_trial(send, self._told + i) for i, send in enumerate(sends)])
        self._told += len(sends)
        self._require_kept()

    def ceiling(self) -> str | None:
        """Why nothing more may be sent: the run may have cost ``max_usd`` by now, or the books do not say what."""
        assert self.store is not None
        if self._ceiling is None:
            return None
        samples, self._seen = self.store.samples_from(self._seen)
        return self._ceiling.look(samples, time.time() * 1000)

    def end(self, report: Report) -> None:
        """Nothing is sent any more: waits for the drain and until the books are closed.

        Ctrl-C or ``hurry`` ends the wait: the books are then closed with what is still queued.

        Raises:
            InvalidRunError: the result must not be used; ``summary.json`` says why.
            SetupError: the books could not be closed; why has been said.
        """
        self._require_kept()
        stopped = Stopped(
            why=(self._ceiling and self._ceiling.reached) or report.ended_by,
            offered=report.offered,
            dropped=report.dropped_of_step,
            generator_limits=report.limits,
            generator=msgspec.to_builtins(report),
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, or was hurried; its exit code tells
            self._process.stdin.write(msgspec.json.encode(stopped) + b"\n")
            self._process.stdin.close()
        try:
            code = self._process.wait()
        except KeyboardInterrupt:
            code = self.hurry()
        run_id = self._manifest.run_id
        if code == InvalidRunError.exit_code:
            raise InvalidRunError(
                f"run {run_id} is invalid", next_step=f"see why with `lambdalab report {run_id}`, and run it again"
            )
        if code:
            raise SetupError(
                f"the books of run {run_id} were not closed",
                next_step=f"see what there is with `lambdalab report {run_id}`",
            )

    def hurry(self) -> int:
        """Closes the books of a run that is under way without waiting for the drain.

        Returns:
            0 when they are closed or nothing was sent yet; 4 when the run is invalid, 3 when they could not be closed.
        """
        if self.store is None:
            return 0
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.terminate()
        code = self._process.wait()
        if code == -signal.SIGTERM and not self._told:  # before it could handle the signal
            return 0
        return code if code in (0, InvalidRunError.exit_code) else SetupError.exit_code

    def _require_kept(self) -> None:
        """Nothing has told the process to end, by closing its input, so until then it must be there."""
        assert self._process.stdin is not None
        code = self._process.poll()
        if code is None or self._process.stdin.closed:
            return
        run_id = self._manifest.run_id
        how = f"signal {-code}" if code < 0 else f"exit code {code}, as it said"
        raise SetupError(
            f"the books of run {run_id} are kept no more: their process ended in mid-run with {how}",
            next_step=f"see what there is with `lambdalab report {run_id}`, and begin again",
        )

    def _as_trial(self, send: Send, position: int) -> TrialResult:
        """What is known of a message when it has been sent."""
        return TrialResult(
            trial=Trial(
                trial_id=send.batch_id.removeprefix(self._manifest.run_id)[1:],
                block=max(int((send.intended_at_ms - self._began_ms) / self._block_ms), 0) + 1,
                position=position,
                arm=send.arm,
                load=self._loads[send.label],
            ),
            batch_id=send.batch_id,
            message_id=send.message_id,
            sent_at_ms=round(send.began_at_ms),
            drained_at_ms=None,
            message_bytes=send.message_bytes,
            items_expected=send.items,
            items_found=None,
            reason=None if send.error is None else f"not sent: {send.error}",
            sending=Sending(**{name: getattr(send, name) for name in Sending.__struct_fields__}),
        )


def protocol_of(plan: LoadPlan) -> Protocol:
    """A load run as a protocol: an arm for each language, each message twice, as warm and as cold invocations.

    A block is a stretch of at least a second; comparisons take its median, since neighbours are not independent.
    """
    seconds = length_s(plan)
    loads = [
        Load(label=message.label, size_bytes=message.size_bytes, count=message.count, start=Start.WARM)
        for message in plan.mix
    ]
    return Protocol(
        name="load",
        scenario="ingest",
        description=f"Load of shape {plan.shape}, {plan.arrivals} arrivals, whether the target keeps up or not.",
        blocks=1 if seconds is None else math.ceil(seconds / block_seconds(plan)),
        factors=Factors(language=tuple(plan.languages)),
        loads=(*loads, *map(as_cold, loads)),
    )


def block_seconds(plan: LoadPlan) -> float:
    """How long a block is: a second, or in a long run a hundredth of it."""
    return max(1.0, (length_s(plan) or 0.0) / BLOCKS_AT_MOST)
