"""``report.html``: one file that opens offline, made from the summary, the manifest and the rows.

No arithmetic: numbers are the summary's, points are the rows'. Everything others wrote is escaped, and the page forbids
itself to load or send anything.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from lambdalab.analysis import Summary
from lambdalab.comparison import Metric
from lambdalab.model import InvocationRow, Manifest
from lambdalab.report.bill_tables import bill_tables
from lambdalab.report.load import LoadChapter
from lambdalab.report.panels import Panels
from lambdalab.report.tables import Tables
from lambdalab.report.words import MARKS, altered, quotient, usd


def render_html(summary: Summary, manifest: Manifest, rows: Sequence[InvocationRow]) -> str:
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
        sentences=_sentences(summary),
        load=None if summary.load is None else LoadChapter(summary.load),
        panels=Panels(summary, manifest, rows),
        tables=Tables(summary, manifest, rows),
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


_SAID: Final = {
    Metric.DURATION: "takes {ratio} times as long as {over} ({verdict})",
    Metric.INIT: "{ratio} times as long to initialise ({verdict})",
    Metric.COST: "costs {ratio} times as much ({verdict})",
}


def _sentences(summary: Summary) -> Iterator[str]:
    """Each pair of arms under each load: the three ratios people ask for first, and their verdicts."""
    for (label, arm, over), group in groupby(summary.comparisons, key=lambda one: (one.label, one.arm, one.over)):
        said = [
            _SAID[one.metric].format(ratio=quotient(one.ratio), over=over, verdict=one.verdict)
            for one in group
            if one.metric in _SAID and one.ratio is not None
        ]
        yield f"{label}: {arm} {', '.join(said) or f'and {over} cannot be compared'}."
