"""A project to work in, and the command line in this process."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import PROTOCOL, Call, Ended
from samples import ROOT

from lambdalab import cli


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project without a local stack, and a machine without AWS."""
    for name in ("template.yaml", "samconfig.toml", "src", "protocols", "prices", "latencies", "events"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "tiny.toml").write_text(PROTOCOL)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["lambdalab", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    yield call
    signal.signal(signal.SIGTERM, handler)
