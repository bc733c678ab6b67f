"""What collected log lines say of each invocation, by request id."""

import gc
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from lambdalab.logs.platform_lines import (
    INIT_APART,
    MalformedRecordError,
    MalformedReportError,
    beside_others,
    parse_record,
    parse_report,
    request_id_of,
)
from lambdalab.logs.report_lines import Block, Reports, read_block
from lambdalab.pricing.costs import LOG_EVENT_OVERHEAD_BYTES, ingested_bytes
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import FunctionRecord, LogLine, PlatformReport


class Observed(msgspec.Struct, kw_only=True, gc=False):
    """Everything the logs hold of one request id. ``damaged`` tells of lines that could not be read.

    ``log_bytes`` is what its lines count when CloudWatch Logs takes them in.
    """

    request_id: str
    log_group: str
    began_ms: int
    log_bytes: int = 0
    reports: tuple[PlatformReport, ...] = ()
    records: tuple[FunctionRecord, ...] = ()
    damaged: tuple[str, ...] = ()


class Observations:
    """What the collected log lines say, by request id; texts are not kept.

    An invocation of which nothing but an ordinary REPORT line is known yet is a row of ``_columns``, and becomes an
    ``Observed`` when another line comes or somebody asks: a million such lines take some 300 MB.
    ``damaged_lines`` counts those that could not be read, whosever they are.
    """

    def __init__(self) -> None:
        self.damaged_lines = 0
        self._requests: dict[str, Observed | int] = {}
        self._log_groups: list[str] = []
        self._emulated: set[str] = set()
        self._unpriced: dict[str, str] = {}
        self._columns = {
            name: array("q" if name in ("log_group", "began_ms", "message_bytes") else "d")
            for name in Reports.__struct_fields__[2:]
        }

    def add(self, block: Block) -> None:
        """Takes in a block of lines."""
        row, taken = len(self._columns["began_ms"]), 0
        ids: Sequence[str] = []
        if block.reports is not None:
            ids = block.reports.request_ids.split(" ")
            log_group = block.reports.log_group + len(self._log_groups)
            self._log_groups += block.reports.log_groups
            for name, column in self._columns.items():
                column.frombytes((log_group if name == "log_group" else getattr(block.reports, name)).tobytes())
        for number, (place, line) in enumerate(zip(block.places, block.others, strict=True)):
            above = place - number
            self._add_reports(ids[taken:above], row + taken)
            self._add_other(line)
            taken = above
        self._add_reports(ids[taken:], row + taken)

    def of_request(self, request_id: str) -> Observed:
        """All that is known of one request."""
        known = self._requests[request_id]
        if isinstance(known, int):
            known = self._requests[request_id] = self._observed(known, request_id)
        return known

    def __iter__(self) -> Iterator[Observed]:
        """Every request, in the order of their first lines."""
        return map(self.of_request, self._requests)

    def __len__(self) -> int:
        return len(self._requests)

    def unrecorded(self) -> Iterator[Observed]:
        """Requests of which the function wrote no record. They are made as they are asked for, and not kept."""
        for request_id, known in self._requests.items():
            found = self._observed(known, request_id) if isinstance(known, int) else known
            if not found.records:
                yield found

    def of_batch(self) -> dict[str, list[Observed]]:
        """Which invocations worked on which batch, by the functions' own records."""
        found: defaultdict[str, list[Observed]] = defaultdict(list)
        for observed in self._requests.values():
            if isinstance(observed, Observed):  # of the others there is no record
                for batch_id in dict.fromkeys(record.batch_id for record in observed.records):
                    if batch_id is not None:
                        found[batch_id].append(observed)
        return dict(found)

    def judge_groups(self) -> None:
        """Judges each report by what other lines of its log group are, once all lines are here."""
        if not self._emulated and not self._unpriced:
            return
        for observed in self:
            emulated, unpriced = observed.log_group in self._emulated, self._unpriced.get(observed.log_group)
            if emulated or unpriced is not None:
                observed.reports = tuple(
                    beside_others(report, emulated=emulated, unpriced=unpriced) for report in observed.reports
                )

    def _add_reports(self, request_ids: Sequence[str], row: int) -> None:
        rows = list(range(row, row + len(request_ids)))
        known = list(map(self._requests.setdefault, request_ids, rows))
        if known == rows:
            return
        for request_id, mine, first in zip(request_ids, rows, known, strict=True):
            if first != mine:
                again = self._observed(mine, request_id)
                self._merge(self.of_request(request_id), again)

    def _add_other(self, line: LogLine) -> None:
        problem = report = record = None
        try:
            report = parse_report(line.message)
            record = parse_record(line.message) if report is None else None
        except (MalformedReportError, MalformedRecordError) as error:
            problem = str(error)
            self.damaged_lines += 1
        if report is not None and report.emulated:
            self._emulated.add(line.log_group)
        if report is not None and report.unpriced == INIT_APART:  # warm lines of such a function do not say it
            self._unpriced[line.log_group] = INIT_APART
        request_id = request_id_of(line.message)
        if request_id is None:
            return
        found = Observed(
            request_id=request_id,
            log_group=line.log_group,
            began_ms=line.timestamp_ms,
            log_bytes=ingested_bytes([line.message]),
            reports=() if report is None else (report,),
            records=() if record is None else (record,),
            damaged=() if problem is None else (problem,),
        )
        if self._requests.setdefault(request_id, found) is not found:
            self._merge(self.of_request(request_id), found)

    @staticmethod
    def _merge(known: Observed, found: Observed) -> None:
        known.began_ms = min(known.began_ms, found.began_ms)
        known.log_bytes += found.log_bytes
        known.reports += found.reports
        known.records += found.records
        known.damaged += found.damaged

    def _observed(self, row: int, request_id: str) -> Observed:
        found = {name: column[row] for name, column in self._columns.items()}
        report = PlatformReport(
            request_id=request_id,
            duration_ms=found["duration_ms"],
            billed_ms=found["billed_ms"],
            memory_mb=int(found["memory_mb"]),
            max_memory_mb=int(found["max_memory_mb"]),
            init_ms=None if math.isnan(found["init_ms"]) else found["init_ms"],
        )
        return Observed(
            request_id=request_id,
            log_group=self._log_groups[found["log_group"]],
            began_ms=found["began_ms"],
            log_bytes=found["message_bytes"] + LOG_EVENT_OVERHEAD_BYTES,
            reports=(report,),
        )


def observe(lines: Iterable[LogLine]) -> Observations:
    """Sorts log lines by request id."""
    others = list(lines)
    return observe_blocks([Block(None, others, range(len(others)))])


def observe_run(store: RunDirectory) -> Observations:
    """Sorts the log lines of a run by request id, as many of them as there may be.

    Raises:
        StorageError: a line is damaged, or the file cannot be read.
    """
    return observe_blocks(store.log_blocks(read_block))


def observe_blocks(blocks: Iterable[Block]) -> Observations:
    """Sorts log lines by request id, a block at a time."""
    observations = Observations()
    collected = gc.isenabled()
    gc.disable()  # millions of small objects come, none of them in a cycle
    try:
        for block in blocks:
            observations.add(block)
        observations.judge_groups()
    finally:
        if collected:
            gc.enable()
    return observations
