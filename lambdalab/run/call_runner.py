"""Executes a factorial schedule on a target, cell after cell, and writes down every call as it ends.

A cell begins with the function's memory and reserved concurrency set and waited for, and with new environments, so
that no cell inherits what another warmed up; then every caller makes one call, all at once, that is not measured.
After its calls what they wrote is looked at. A run that was interrupted goes on with the calls that are missing.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

import msgspec

from lambdalab.aws.clients import access_errors
from lambdalab.design.cells import Cell, Design
from lambdalab.errors import InvalidRunError, LambdalabError
from lambdalab.planning.call_protocol import PlannedCall, PlannedCell
from lambdalab.records.call_files import FactorialDirectory
from lambdalab.records.calls import Call, Disturbance, Finding
from lambdalab.run.callers import Callers
from lambdalab.run.target import AwsTarget, PlaneCounts
from lambdalab.scenario.base import CallScenario

ANSWER_GRACE_S: Final = 10.0
"""Beyond a function's timeout, until an answer is no longer waited for."""
Progress = Callable[[PlannedCell], None]
"""Told each cell before it begins."""


def remaining(schedule: Iterable[PlannedCell], done: Iterable[Call]) -> Iterator[tuple[PlannedCell, int]]:
    """What is left to do: the measured calls that have not ended, and before them again those that warm up.

    Yields:
        Each cell with the calls to make, and which attempt of that cell it is.
    """
    finished: set[str] = set()
    attempts: dict[str, int] = {}
    for call in done:
        place = call.call_id.rpartition("-")[0]
        attempts[place] = max(call.attempt, attempts.get(place, 0))
        if call.finished:
            finished.add(call.call_id)
    for planned in schedule:
        left = tuple(call for call in planned.calls if call.warmup or call.call_id not in finished)
        if not all(call.warmup for call in left):
            place = planned.calls[0].call_id.rpartition("-")[0]
            yield msgspec.structs.replace(planned, calls=left), attempts.get(place, 0) + 1


class FactorialRunner:
    """One run on one target.

    Args:
        target: where the functions are.
        scenario: what is asked of them.
        store: where results go.
        progress: told each cell before it begins.
        stop: asked before every block, and after the last, whether to end there, and why.
    """

    def __init__(
        self,
        target: AwsTarget,
        scenario: CallScenario,
        store: FactorialDirectory,
        progress: Progress,
        stop: Callable[[], str | None],
    ) -> None:
        self._target, self._scenario, self._store = target, scenario, store
        self._progress, self._stop = progress, stop
        self._manifest = store.manifest()
        most = max(cell.callers for cell in self._manifest.protocol.cells)
        timeout_s = max(function.timeout_s for function in self._manifest.functions.values())
        self._client = target.aws.lambda_callers(most, timeout_s + ANSWER_GRACE_S)
        self._good: set[str | None] = set()

    def run(self, left: Callable[[], Iterable[tuple[PlannedCell, int]]]) -> None:
        """Executes what is left, or until ``stop`` says why not; asked for when what is there was looked at.

        However it ends, what was measured is on disk and the functions have their configuration back; where that fails
        too, the error carries a note.

        Raises:
            InvalidRunError: no call of the first cell, or of the first of a function that was found, succeeded.
            AccessError, PlaneError, StorageError: the target or the disk cannot go on.
        """
        try:
            with self._target.naming_what_ended():
                self._measure(left)
        except BaseException as error:
            try:
                self._target.restore()
            except LambdalabError as second:
                error.add_note(str(second))
            raise
        finally:
            self._client.close()
        self._target.restore()

    def _measure(self, left: Callable[[], Iterable[tuple[PlannedCell, int]]]) -> None:
        self._look_back()
        for block, cells in groupby(left(), key=lambda cell: cell[0].block):
            if self._stop() is not None:
                break
            with self._target.watching_cpu(block, self._store.append_block_load):
                for planned, attempt in cells:
                    self._progress(planned)
                    self._execute(planned, attempt)
        else:
            self._stop()

    def _execute(self, planned: PlannedCell, attempt: int) -> None:
        cell = planned.cell
        name = self._manifest.functions[cell.called].function_name
        configurations = self._target.configurations
        is_new = False
        if cell.function is None:
            configurations.reserve(name, cell.reserved_concurrency)
            is_new = configurations.apply(name, memory_mb=cell.memory_mb, package=None)
        if not is_new:
            self._target.renew(name)
        made: list[Call] = []
        unseen: list[Call] = []

        def done(call: Call) -> None:
            made.append(call)
            unseen.append(call)
            self._store.append_calls([call])

        def event(call: PlannedCall) -> Mapping[str, object]:
            return self._scenario.event(planned.design, cell, run_id=self._manifest.run_id, seed=call.seed)

        try:
            for calls in (
                [call for call in planned.calls if call.warmup],
                [call for call in planned.calls if not call.warmup],
            ):
                before, first = self._target.plane_counts(), len(made)
                callers = Callers(self._client, name, event, done, self._target.require_answer)
                try:
                    callers.make(planned, calls, cell.callers, attempt)
                except BaseException:  # the calls that ended count on --resume, so what disturbed them is kept
                    with contextlib.suppress(LambdalabError):
                        self._note_disturbance(before, made[first:])
                    raise
                self._note_disturbance(before, made[first:])
                if self._target.name == "local":  # in between, so that no more than that is kept in memory
                    self._look(planned.design, cell, unseen)
                    unseen.clear()
        except BaseException as error:
            try:
                self._look(planned.design, cell, unseen)
            except LambdalabError as second:
                error.add_note(str(second))
            raise
        self._look(planned.design, cell, unseen)
        self._require_any(planned, made)

    def _note_disturbance(self, before: PlaneCounts | None, made: Sequence[Call]) -> None:
        """Writes down what the plane saw happen beside the measured calls of a cell, which makes them invalid."""
        if before is None or not made or made[0].warmup:
            return
        after = self._target.plane_counts()
        throttled = sum(call.throttled for call in made)
        if after is None:
            return
        own, cpu_limit = len(made) - throttled, self._manifest.cpu_limit
        if faults := after.faults(before, own=own, own_throttles=throttled, cpu_limit=cpu_limit):
            one = made[0]
            self._store.append_disturbance(
                Disturbance(block=one.block, cell=one.cell, attempt=one.attempt, reason="; ".join(faults))
            )

    def _look_back(self) -> None:
        """At the calls of a cell in which this run was killed, before anybody could look.

        What is not there may have been: the stack was brought up anew, or the bucket's rule has removed it.
        """
        unseen: defaultdict[tuple[int, str, int], list[Call]] = defaultdict(list)
        for call in self._store.calls():
            if call.found is None and call.finished:
                unseen[call.block, call.cell, call.attempt].append(call)
        cells = {cell.name: cell for cell in self._manifest.protocol.cells}
        for (_, name, _), calls in unseen.items():
            self._look(self._manifest.protocol.design(cells[name]), cells[name], calls, late=True)

    def _look(self, design: Design, cell: Cell, made: list[Call], *, late: bool = False) -> None:
        """Whether what calls wrote is there. The emulator keeps it in memory, so that it is removed there."""
        if not made:
            return
        attempts = {call.call_id: call.attempt for call in made}
        with access_errors(f"what the calls of {cell.name} wrote"):
            verified = self._scenario.verify(self._target.aws, design, cell, made)
            self._store.append_findings(
                Finding(call_id=call_id, attempt=attempts[call_id], found=found, late=late)
                for call_id, found in verified.items()
            )
            if self._target.name == "local":
                self._scenario.remove(self._target.aws, made)

    def _require_any(self, planned: PlannedCell, made: Iterable[Call]) -> None:
        """A function that may not write, say, fails in every cell: that is told before a night is spent on it."""
        of = planned.cell.function  # each that somebody deployed may lack something
        if of in self._good:
            return
        reasons = [self._reason(call) for call in made]
        if None in reasons:
            self._good.add(of)
        else:
            whose = "" if of is None else f" of {of}"
            raise InvalidRunError(
                f"no call of the first cell{whose}, {planned.cell.name}, succeeded: {reasons[0]}",
                next_step="see docs of the scenario for what it means; mend that, then go on with --resume",
            )

    def _reason(self, call: Call) -> str | None:
        if call.error is not None:
            return call.error
        if call.function_error is not None:
            return f"the function failed ({call.function_error}): {bytes(call.answer)[:300].decode(errors='replace')}"
        return self._scenario.read(msgspec.json.decode(call.answer)).fault
