"""Locust's web interface: the form's arguments are those of the command line; Stop stops; nothing listens elsewhere."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest

from lambdalab.load.arguments import ARGUMENTS
from load.conftest import Locust, free_port
from load.fake_aws import FakeAws


class Page:
    """What the browser does."""

    def __init__(self, port: int, locust: Locust) -> None:
        self.url, self.locust = f"http://127.0.0.1:{port}", locust

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return str(answer.read().decode())

    def post(self, path: str, **form: str) -> dict[str, object]:
        request = urllib.request.Request(self.url + path, urlencode(form).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, object] = json.load(answer)
        return found

    def answers(self) -> bool:
        assert self.locust.process.poll() is None, self.locust.log
        try:
            return bool(self.get("/"))
        except OSError:
            return False


def until(condition: Callable[[], object], why: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why
        time.sleep(0.02)


def stands(aws: FakeAws) -> bool:
    """Whether nothing more comes."""
    before = len(aws.messages)
    time.sleep(0.5)
    return len(aws.messages) == before


@pytest.mark.parametrize("processes", [1, 2])
def test_the_form_starts_runs_and_stop_ends_them_one_after_the_other(
    aws: FakeAws, tmp_path: Path, started: list[Locust], processes: int
) -> None:
    web, master = str(free_port()), str(free_port())
    distributed = ["--processes", "2", "--master-bind-port", master, "--master-port", master] if processes == 2 else []
    started.append(Locust(aws, tmp_path, "--web-port", web, *distributed, headless=False))
    page = Page(int(web), started[0])
    until(page.answers, "the page did not come")
    form = page.get("/").partition('"extra_options": {')[2]
    shown = {name for name in ARGUMENTS if f'"{name.replace("-", "_")}": {{' in form}
    assert shown == ARGUMENTS.keys() - {"results"}, "a page keeps its runs in one folder"
    places = [form.index(f'"{name.replace("-", "_")}": {{') for name in ARGUMENTS if name in shown]
    assert places == sorted(places), "shape, rate and duration come first"
    assert '"missing_host_warning": false' in page.get("/")
    if processes == 2:
        until(lambda: page.locust.log.count("reported as ready") == 2, "the workers did not come")

    refused = page.post("/swarm", rate="-3")
    assert (refused["success"], str(refused["message"])[:16]) == (False, "load: rate is -3")
    assert page.post("/swarm", rate="10", mix="TINY")["success"] is False
    assert aws.messages == []

    for run in (1, 2):
        assert page.post("/swarm", rate="50", duration="10m", mix="1024Bx10", languages="go")["success"] is True
        before = len(aws.messages)
        until(lambda: len(aws.messages) > before + 30, f"run {run} did not send")  # noqa: B023
        page.post("/stop")
        assert stands(aws)
        until(lambda: page.locust.log.count("offered ") == run, "the run was not summed up")  # noqa: B023
    assert {body["batch_id"].rpartition("-")[0].rpartition("-")[2] for body in aws.bodies()} == set("01"[:processes])

    listening = {
        connection.laddr.ip
        for pid in page.locust.members()
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    page.locust.interrupt()
    page.locust.wait()
    until(lambda: not page.locust.members(), "something still runs", 20)


def test_a_run_in_the_page_ends_by_itself_and_the_page_stays(
    aws: FakeAws, tmp_path: Path, started: list[Locust]
) -> None:
    web = str(free_port())
    started.append(Locust(aws, tmp_path, "--web-port", web, headless=False))
    page = Page(int(web), started[0])
    until(page.answers, "the page did not come")
    assert page.post("/swarm", shape="steps", rates="10,20", hold="1s")["success"] is True
    until(lambda: "offered 30, attempted 30, accepted 30" in page.locust.log, "the run did not end")
    until(lambda: json.loads(page.get("/stats/requests"))["state"] == "stopped", "Locust thinks it goes on")


def test_a_run_that_is_slow_to_begin_is_shown_as_spawning_so_that_it_can_be_stopped(
    aws: FakeAws, tmp_path: Path, started: list[Locust]
) -> None:
    """The page shows Stop while it is told that a run is there; told once that there is none, it never asks again."""
    going_on = threading.Event()

    def slowly(action: str, _: object) -> None:
        if action == "GetQueueAttributes":
            going_on.wait(60)

    aws.answer = slowly
    started.append(Locust(aws, tmp_path, "--web-port", str(port := free_port()), headless=False))
    page = Page(port, started[0])
    until(page.answers, "the page did not come")

    def state() -> object:
        return json.loads(page.get("/stats/requests"))["state"]

    assert state() == "ready"
    assert page.post("/swarm", rate="50", duration="10m", languages="go")["success"] is True
    until(lambda: any(action == "GetQueueAttributes" for action, _ in aws.requests), "nothing was asked")
    time.sleep(3)  # an answer is kept for two seconds
    assert state() == "spawning"
    going_on.set()
    until(lambda: state() == "running", "it did not begin")
    page.post("/stop")
    until(lambda: state() == "stopped", "it did not stop")
