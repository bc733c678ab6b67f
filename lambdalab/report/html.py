"""``report.html``: one file that opens offline, made from the summary, the manifest and the rows.

No arithmetic: numbers are the summary's, points are the rows'. Everything others wrote is escaped, and the page forbids
itself to load or send anything.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence

from lambdalab.analysis import Summary
from lambdalab.model import InvocationRow, Manifest
from lambdalab.report.panels import Panels
from lambdalab.report.tables import Tables
from lambdalab.report.words import medians_in_words


def render_html(summary: Summary, manifest: Manifest, rows: Sequence[InvocationRow]) -> str:
    """Makes the page.

    Args:
        summary: every number.
        manifest: what was asked, and where it ran.
        rows: every sample, valid or not, in the order of execution.
    """
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
    style, script = (environment.loader.get_source(environment, name)[0] for name in ("report.css", "report.js"))
    return environment.get_template("report.html.j2").render(
        summary=summary,
        manifest=manifest,
        arms=[arm.name for arm in manifest.protocol.arms],
        sentences=_sentences(summary),
        panels=Panels(summary, manifest, rows),
        tables=Tables(summary, manifest, rows),
        style=Markup(style),  # noqa: S704 - the lab's own file
        script=Markup(script),  # noqa: S704 - the lab's own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        drawing=Markup,  # of what charts.draw returns, in which Vega has escaped every text
    )


def _sentences(summary: Summary) -> Iterator[str]:
    """The verdict, then what was seen by the medians of this run."""
    yield f"Verdict: {summary.verdict}."
    for sentence in medians_in_words(summary.comparisons):
        yield f"{sentence}."
