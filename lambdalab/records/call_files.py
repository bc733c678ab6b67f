"""The run directory of a factorial run.

::

    results/<run_id>/run.json      the manifest
                     calls.jsonl   one line per call, appended when it ends
                     disturbed.jsonl   cells beside whose calls something else happened on the stack
                     machine.jsonl     locally: what other programs took of the machine, one line per block
                     found.jsonl   of every call whether what it says it wrote is there, appended after each cell

Result files are written beside them by the analysis.
"""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from lambdalab.records.calls import INTERRUPTED, Call, Disturbance, Finding
from lambdalab.records.manifest import CALLS, CallManifest
from lambdalab.records.record_files import append, read_lines
from lambdalab.records.run_directory import RunFolder

SCHEMA_VERSION: Final = 1


class FactorialDirectory(RunFolder[CallManifest]):
    """One run's files. Every method raises StorageError when its file cannot be read or written.

    Calls may be appended by many threads.
    """

    kind = CALLS
    version = SCHEMA_VERSION
    manifest_type = CallManifest

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._lock = threading.Lock()

    def append_calls(self, calls: Iterable[Call]) -> None:
        """Writes calls and does not wait for the disk, on which callers would wait as well."""
        with self._lock:
            append(self.folder / "calls.jsonl", calls, waits=False)

    def append_findings(self, findings: Iterable[Finding]) -> None:
        """Writes what was found of calls, and waits until it is on the disk."""
        append(self.folder / "found.jsonl", findings)

    def append_disturbance(self, disturbance: Disturbance) -> None:
        """Writes what happened beside the calls of a cell, and waits until it is on the disk."""
        append(self.folder / "disturbed.jsonl", [disturbance])

    def calls(self) -> list[Call]:
        """All calls so far, in the order they ended, with what was found of them.

        One of which nothing was found when it was too late to tell why is taken for interrupted, and is made again.
        """
        findings = {(f.call_id, f.attempt): f for f in read_lines(self.folder / "found.jsonl", Finding)}
        disturbed = {
            (one.block, one.cell, one.attempt): one.reason
            for one in read_lines(self.folder / "disturbed.jsonl", Disturbance)
        }
        calls = read_lines(self.folder / "calls.jsonl", Call)
        return [
            _with(
                call, findings.get((call.call_id, call.attempt)), disturbed.get((call.block, call.cell, call.attempt))
            )
            for call in calls
        ]


def _with(call: Call, finding: Finding | None, disturbed: str | None) -> Call:
    if disturbed is not None and not call.warmup:
        call = replace(call, disturbed=disturbed)
    if finding is None:
        return call
    if finding.late and not finding.found:
        return replace(call, error=f"{INTERRUPTED} before anybody looked at what it wrote, which is no longer there")
    return replace(call, found=finding.found)
