"""Packages and layers as they are unpacked."""

import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lambdalab.local.packages import merge_layers, unpack

Zipped = Callable[..., str]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def zipped(tmp_path: Path) -> Iterator[Zipped]:
    """Makes a zip whose members are executable when they are called tool; returns its URL on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()

    def make(zip_name: str, **files: str) -> str:
        with zipfile.ZipFile(tmp_path / zip_name, "w") as archive:
            for name, content in files.items():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (0o755 if name == "tool" else 0o644) << 16
                archive.writestr(entry, content)
        return f"http://127.0.0.1:{server.server_port}/{zip_name}"

    yield make
    server.shutdown()
    server.server_close()


def test_files_keep_their_execute_bits(zipped: Zipped, tmp_path: Path) -> None:
    package = unpack(zipped("a.zip", tool="", text=""), tmp_path)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in package.iterdir()} == {
        "tool": "0o755",
        "text": "0o644",
    }


def test_a_content_is_unpacked_once_and_never_touched_again(zipped: Zipped, tmp_path: Path) -> None:
    package = unpack(url := zipped("a.zip", text="old"), tmp_path)
    (package / "text").write_text("kept")
    assert unpack(url, tmp_path) == package
    assert (package / "text").read_text() == "kept"
    assert unpack(zipped("a.zip", text="new"), tmp_path) != package


def test_a_later_layer_lies_over_an_earlier_one(zipped: Zipped, tmp_path: Path) -> None:
    one = zipped("one.zip", both="one", first="one", tool="")
    other = zipped("other.zip", both="other", second="other")
    for order, expected in (((one, other), "other"), ((other, one), "one")):
        merged = merge_layers(order, tmp_path)
        assert merged is not None
        assert {path.name for path in merged.iterdir()} == {"both", "first", "second", "tool"}
        assert (merged / "both").read_text() == expected
        assert (merged / "tool").stat().st_mode & 0o111
    assert merge_layers((), tmp_path) is None
