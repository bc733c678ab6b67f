"""``report.html``: one file that opens offline, made from the summary, the manifest and the rows.

No arithmetic: numbers are the summary's, points are the rows'. Everything others wrote is escaped, and the page forbids
itself to load or send anything.
"""

import base64
import hashlib
from collections.abc import Sequence

from lambdalab.analysis.message_analysis import Summary
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trials import InvocationRow
from lambdalab.report.answer import answer_lines, gate_line
from lambdalab.report.bill_tables import bill_tables
from lambdalab.report.load import LoadChapter
from lambdalab.report.panels import Panels
from lambdalab.report.tables import Tables, drift_table
from lambdalab.report.words import MARKS, altered, usd


def render_html(summary: Summary, manifest: MessageManifest, rows: Sequence[InvocationRow]) -> str:
    """Makes the page.

    Args:
        summary: every number.
        manifest: what was asked, and where it ran.
        rows: every sample, valid or not, in the order of execution.
    """
    return render_template(
        "report.html.j2",
        summary=summary,
        manifest=manifest,
        arms=[arm.name for arm in manifest.protocol.arms],
        answer=[*gate_line(summary), *answer_lines(summary)],
        load=None if summary.load is None else LoadChapter(summary.load),
        panels=Panels(summary, manifest, rows),
        tables=Tables(summary, manifest, rows),
        drift=drift_table(summary.drift),
        bill_tables=() if summary.bill is None else bill_tables(summary.bill),
        usd=usd,
        altered=list(altered(summary)),
        marks=MARKS,
    )


def render_template(name: str, **values: object) -> str:
    """Makes a page of a template: everything is escaped but the lab's own style, script and drawings."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # here, because most commands never need it
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("lambdalab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assert environment.loader is not None
    style, script = (environment.loader.get_source(environment, file)[0] for file in ("report.css", "report.js"))
    return environment.get_template(name).render(
        style=Markup(style),  # noqa: S704 - the lab's own file
        script=Markup(script),  # noqa: S704 - the lab's own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        drawing=Markup,  # of what drawing.draw returns, in which Vega has escaped every text
        **values,
    )
