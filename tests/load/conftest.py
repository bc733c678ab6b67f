"""An endpoint for each test, and Locust as a user starts it."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from load.fake_aws import FakeAws

ROOT = Path(__file__).parents[2]
LOCUST = Path(sys.executable).parent / "locust"


def free_port() -> int:
    """One that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def members(group: int) -> list[int]:
    """The processes of a group that are there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


@pytest.fixture
def aws() -> Iterator[FakeAws]:
    fake = FakeAws()
    yield fake
    fake.close()


class Locust:
    """``locust -f load`` against an endpoint, as a process group of its own."""

    def __init__(
        self, aws: FakeAws, folder: Path, *arguments: str, headless: bool = True, locustfile: str = "load"
    ) -> None:
        self.log_file = folder / f"locust-{aws.port}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "LOCUST_"))}
        environment |= {
            "AWS_ENDPOINT_URL": aws.url,
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        command = [
            str(LOCUST),
            "-f",
            locustfile,
            "--target",
            "aws",
            "--results",
            "",
            *(["--headless", "--only-summary"] if headless else []),
        ]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *arguments],
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait(self) -> int:
        try:
            return self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"Locust did not end:\n{self.log}") from None

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Ctrl-C, which a terminal sends to all processes of a group, or another signal."""
        os.killpg(self.process.pid, number)

    def counts(self) -> dict[str, int]:
        """What the run says of itself at its end."""
        line = next((line for line in self.log.splitlines() if "offered " in line and "attempted " in line), None)
        assert line is not None, self.log
        return {name: int(value) for name, value in re.findall(r"(\w+) (\d+)(?:,|$)", line[line.index("offered ") :])}

    def members(self) -> list[int]:
        return members(self.process.pid)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Locust]]:
    """What is in it is ended after the test, whatever happened."""
    found: list[Locust] = []
    yield found
    for one in found:
        one.end()
