"""A project to work in, the command line in this process, and how a call of it ended.

The fixtures are ``project`` and ``call``; a test module imports them under their longer names.
"""

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import vl_convert
from samples import ROOT

from lambdalab import cli
from lambdalab.build import deployment
from lambdalab.build.tools import find_python

PROTOCOL = """
name = "tiny"
scenario = "ingest"
description = "For tests."
blocks = 1
[factors]
language = ["python", "go"]
[[loads]]
label = "WARMUP"
size_bytes = 1024
count = 1
start = "cold"
[[loads]]
label = "SMALL"
size_bytes = 1024
count = 100
start = "warm"
"""


class Ended(NamedTuple):
    """How a call ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Ended]


def one_sentence(ended: Ended) -> str:
    """The only line of a failure that had nothing to show."""
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("lambdalab: ")
    assert re.search(r"; .*[^.]\.$", line), "what is wrong; the next step, and one full stop"
    return line.removeprefix("lambdalab: ")


@cache
def _has_python(version: str, path: str) -> bool:
    """Asked once for all tests: every project of a test is a new one, without the lab's own note."""
    with contextlib.chdir(ROOT):
        return find_python(version)


_draw = vl_convert.vegalite_to_svg


@cache
def _drawn(spec: str, options: str) -> str:
    return str(_draw(json.loads(spec), **json.loads(options)))


@pytest.fixture(name="project")
def project_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project without a local stack, and a machine without AWS."""
    for name in ("template.yaml", "samconfig.toml", "src", "protocols", "prices", "latencies", "events"):
        (tmp_path / name).symlink_to(ROOT / name)
    for part in ROOT.glob("scenarios/*/[!.]*"):
        (tmp_path / part.parent.relative_to(ROOT)).mkdir(parents=True, exist_ok=True)
        (tmp_path / part.relative_to(ROOT)).symlink_to(part)
    (tmp_path / "tiny.toml").write_text(PROTOCOL)
    # The same figures again and again: a figure takes a tenth of a second, and is a pure function of its specification.
    monkeypatch.setattr("vl_convert.vegalite_to_svg", lambda spec, **more: _drawn(json.dumps(spec), json.dumps(more)))
    monkeypatch.setattr(deployment, "find_python", lambda version: _has_python(version, os.environ.get("PATH", "")))
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(name="call")
def call_fixture(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["lambdalab", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    yield call
    signal.signal(signal.SIGTERM, handler)
