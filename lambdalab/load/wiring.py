"""Hangs a load run onto Locust's events."""

import json
import signal
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import gevent
from flask import Response, jsonify, request
from locust.env import Environment
from locust.event import Events
from locust.runners import STATE_INIT, STATE_SPAWNING, MasterRunner, WorkerRunner
from locust.web import WebUI

from lambdalab.errors import LambdalabError
from lambdalab.load.arguments import add_arguments
from lambdalab.load.page import add_page
from lambdalab.load.recording import Recording
from lambdalab.load.shape import EXIT_INTERRUPTED, Lead, Recorder, Unrecorded, checked_plan
from lambdalab.load.user import Sending
from lambdalab.lock import leave_inherited


def attach(events: Events, recorder: Recorder | None = None) -> None:
    """Adds arguments, what leads and what sends to a Locust that is starting.

    Args:
        events: ``locust.events``.
        recorder: told of every run; by default one that keeps run directories where ``--results`` says.
    """
    events.init_command_line_parser.add_listener(add_arguments)

    def begin(environment: Environment, web_ui: WebUI | None = None, **_: Any) -> None:
        _interrupt_on(signal.SIGINT)
        if isinstance(environment.runner, WorkerRunner):
            leave_inherited()  # a worker may outlive its master, and does not keep the stack from others
        else:
            if web_ui is None:  # Locust handles SIGTERM with a page only, and without one dies of it
                _interrupt_on(signal.SIGTERM)
            assert environment.parsed_options is not None
            used = recorder or _recorder(environment, environment.parsed_options.results)
            lead = Lead(environment, used)
            if web_ui is not None:
                _show_beginning(web_ui, lead)
                add_page(web_ui, used if isinstance(used, Recording) else None)
            _refuse_early(environment, web_ui)
        if not isinstance(environment.runner, MasterRunner):
            Sending(environment)

    events.init.add_listener(begin)


def _interrupt_on(number: int) -> None:
    """Makes a signal raise KeyboardInterrupt where Locust waits for it, which is the greenlet that starts it.

    Python itself raises it in whichever greenlet runs, which then dies of it with a traceback.
    """
    gevent.signal_handler(number, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)


def _recorder(environment: Environment, results: str) -> Recorder:
    """Keeps runs in a folder, or none; Locust does not end before the books of a run are closed."""
    if not results:
        return Unrecorded()
    recording = Recording(Path(results))

    def quit_early(**_: Any) -> None:
        code = recording.hurry()
        if code and environment.process_exit_code in (None, EXIT_INTERRUPTED):  # else that came first
            environment.process_exit_code = code

    environment.events.quitting.add_listener(quit_early)  # before Lead's: Locust calls the last one first
    return recording


def _show_beginning(web_ui: WebUI, lead: Lead) -> None:
    """Says "spawning" where Locust says "ready" of a run that begins.

    The page asks for the first time two seconds after Start. Told "ready", it shows its form and never asks again, so
    that a run that was slow to begin could not be watched and not be stopped there.
    """
    assert web_ui.app is not None

    @web_ui.app.after_request
    def say_spawning(answer: Response) -> Response:
        if lead.is_beginning and request.endpoint == "locust.request_stats":
            shown = answer.get_json()
            if shown.get("state") == STATE_INIT:
                answer.set_data(json.dumps(shown | {"state": STATE_SPAWNING}))
        return answer


def _refuse_early(environment: Environment, web_ui: WebUI | None) -> None:
    """Says what is wrong with the arguments before anything starts: at once without a page, else when one is sent."""
    options = environment.parsed_options
    assert options is not None
    if web_ui is None:
        try:
            checked_plan(options)
        except LambdalabError as error:
            sys.stderr.write(f"lambdalab: {error}\n")
            sys.exit(error.exit_code)
        return
    assert web_ui.app is not None

    @web_ui.app.before_request
    def refuse() -> Response | None:
        if request.method == "POST" and request.path.endswith("/swarm"):
            try:
                checked_plan(Namespace(**(vars(options) | request.form.to_dict())))
            except LambdalabError as error:
                return jsonify({"success": False, "message": str(error), "host": environment.host})
        return None
