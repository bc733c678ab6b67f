"""The end of a factorial run: from its files to every number, and to the files that show them."""

from lambdalab.analysis.bill import Terms
from lambdalab.analysis.call_analysis import summarise
from lambdalab.analysis.call_rows import read_calls
from lambdalab.analysis.call_summary import FactorialSummary
from lambdalab.records.call_files import FactorialDirectory
from lambdalab.report.call_files import write_rows, write_tables
from lambdalab.report.call_page import render_page
from lambdalab.scenario.base import CallScenario
from lambdalab.scenario.found import call_scenario


def conclude(
    store: FactorialDirectory, scenario: CallScenario | None = None, terms: Terms | None = None
) -> FactorialSummary:
    """Writes rows, summaries, tables and the page of a run, of what it measured so far.

    Args:
        store: the run.
        scenario: what its measures mean; by default the one its protocol names.
        terms: how to bill a month; without one by default.

    Raises:
        StorageError: a file is damaged, or cannot be written.
        UsageError: this lambdalab has no such scenario.
    """
    known = scenario or call_scenario(store.manifest().protocol.scenario)
    manifest, prices, rows = read_calls(store, known)
    summary = summarise(manifest, rows, known, prices, block_loads=store.block_loads(), terms=terms or Terms())
    write_rows(store.folder, rows, manifest)
    write_tables(store.folder, summary)
    store.write_summary(summary)
    store.write_report(render_page(summary, manifest, rows))
    return summary
