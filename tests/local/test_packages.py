"""Packages and layers as they are unpacked."""

import zipfile
from pathlib import Path

from lambdalab.local.packages import merge_layers, unpack


def zipped(path: Path, **files: str) -> str:
    """A zip whose members are executable when they are called tool; returns its URL."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o755 if name == "tool" else 0o644) << 16
            archive.writestr(entry, content)
    return path.as_uri()


def test_files_keep_their_execute_bits(tmp_path: Path) -> None:
    package = unpack(zipped(tmp_path / "a.zip", tool="", text=""), tmp_path)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in package.iterdir()} == {
        "tool": "0o755",
        "text": "0o644",
    }


def test_a_content_is_unpacked_once_and_never_touched_again(tmp_path: Path) -> None:
    package = unpack(zipped(tmp_path / "a.zip", text="old"), tmp_path)
    (package / "text").write_text("kept")
    assert unpack((tmp_path / "a.zip").as_uri(), tmp_path) == package
    assert (package / "text").read_text() == "kept"
    assert unpack(zipped(tmp_path / "a.zip", text="new"), tmp_path) != package


def test_a_later_layer_lies_over_an_earlier_one(tmp_path: Path) -> None:
    one = zipped(tmp_path / "one.zip", both="one", first="one", tool="")
    other = zipped(tmp_path / "other.zip", both="other", second="other")
    for order, expected in (((one, other), "other"), ((other, one), "one")):
        merged = merge_layers(order, tmp_path)
        assert merged is not None
        assert {path.name for path in merged.iterdir()} == {"both", "first", "second", "tool"}
        assert (merged / "both").read_text() == expected
        assert (merged / "tool").stat().st_mode & 0o111
    assert merge_layers((), tmp_path) is None
