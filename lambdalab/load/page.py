"""The page "Pipeline" in Locust's web UI: live, what the pipeline does while Locust puts load on it.

It shows the samples of the run directory (``load/pipeline.py``), and nothing but those: Locust's process reads a few
lines when the browser asks, and counts and draws nothing itself. The charts are Vega-Lite's, from the library that
draws the report's, so the page needs nothing from anywhere else.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import gevent
import msgspec
from flask import Blueprint, Response, abort, render_template, request, send_file

from lambdalab import loopback, report
from lambdalab.load.recording import Recording
from lambdalab.records.load import PipelineSample
from lambdalab.report.drawing import CONFIG, VEGA_LITE

if TYPE_CHECKING:
    from locust.web import WebUI  # importing Locust patches the whole process

_LIBRARY: Final = f"""
import os, sys, vl_convert
os.nice(19)
sys.stdout.buffer.write(vl_convert.javascript_bundle(vl_version="{VEGA_LITE}").encode())
"""
"""Prints Vega-Lite and what it needs as one script for a browser."""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_STYLE: Final = Path(report.__file__).with_name("templates") / "report.css"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the page asks for, again and again (``/pipeline/samples``).

    ``state`` is ``off`` (runs are not kept), ``idle`` (there was none), ``open``, ``closed`` (there is a report) or
    ``broken`` (there will be none). ``samples`` begin behind the position asked for, or with the run's first when that
    is another run; ``plan`` comes with the first.
    """

    state: str
    run_id: str | None = None
    plan: dict[str, object] | None = None
    position: int = 0
    samples: list[PipelineSample] = []


def add_page(web_ui: "WebUI", recording: Recording | None) -> None:
    """Adds the page, and a bar that links both to every page of Locust's own.

    Args:
        web_ui: Locust's, not started yet.
        recording: what keeps the runs; None where they are not kept.
    """
    assert web_ui.app is not None
    options = web_ui.environment.parsed_options
    assert options is not None
    # The form then has the arguments in their own order: shape, rate and duration first.
    web_ui.app.jinja_env.policies["json.dumps_kwargs"] = {"sort_keys": False}
    pages = Blueprint("lambdalab", "lambdalab.load", template_folder="templates", url_prefix=options.web_base_path)
    # Before any run: it takes seconds of a core.
    making = subprocess.Popen(
        [sys.executable, "-c", _LIBRARY], env=loopback.variables(), stdout=subprocess.PIPE, start_new_session=True
    )
    library = gevent.spawn(making.communicate)
    web_ui.environment.events.quitting.add_listener(lambda **_: making.kill())

    def route(path: str) -> Callable[[Callable[[], Response | str]], None]:
        return lambda view: pages.add_url_rule(path, view.__name__, web_ui.auth_required_if_enabled(view))

    @route("/pipeline")
    def pipeline() -> Response:
        page = Response(render_template("pipeline.html", config=CONFIG))
        page.headers["Content-Security-Policy"] = _POLICY
        return page

    @route("/pipeline/page.js")
    def script() -> Response:
        return send_file(Path(__file__).with_name("templates") / "pipeline.js")

    @route("/pipeline/page.css")
    def style() -> Response:
        return send_file(_STYLE)

    @route("/pipeline/vega.js")
    def vega() -> Response:
        return Response(library.get()[0], mimetype="text/javascript")

    @route("/pipeline/samples")
    def samples() -> Response:
        answer = answer_of(recording, request.args.get("run"), request.args.get("position", 0, type=int))
        return Response(msgspec.json.encode(answer), mimetype="application/json")

    @route("/pipeline/report.html")
    def report_page() -> Response:
        store = None if recording is None else recording.store
        if store is None or not store.is_reported:
            abort(404)
        return send_file(store.report_file.resolve(), download_name=f"{store.folder.name}.html")

    web_ui.app.register_blueprint(pages)

    @web_ui.app.after_request
    def add_bar(page: Response) -> Response:
        if request.endpoint == "locust.index" and page.status_code == 200:
            page.set_data(page.get_data(as_text=True).replace("<body>", f"<body>{render_template('bar.html')}", 1))
        return page


def answer_of(recording: Recording | None, run_id: str | None, position: int) -> Answer:
    """What is new behind a position of a run's samples; where that is not the newest run, all of the newest.

    Raises:
        StorageError: a file of the run is damaged, or cannot be read.
    """
    if recording is None:
        return Answer(state="off")
    is_open, store = recording.is_open, recording.store  # in this order: a report is written before books are closed
    if store is None:
        return Answer(state="idle")
    if run_id != store.folder.name:
        position = 0
    samples, behind = store.samples_from(max(position, 0))
    return Answer(
        state="open" if is_open else "closed" if store.is_reported else "broken",
        run_id=store.folder.name,
        plan=None if position else store.manifest().load,
        position=behind,
        samples=samples,
    )
