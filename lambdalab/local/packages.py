"""Packages and layers as the plane keeps them: downloaded, unpacked once per content, never changed."""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

from lambdalab import loopback


def unpack(location: str, folder: Path) -> Path:
    """Downloads a zip and unpacks it below ``folder``, with the execute bits it carries."""
    with loopback.open_url(location, timeout_s=60) as answer:
        content = answer.read()

    def fill(unfinished: Path) -> None:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            for entry in archive.infolist():
                path = Path(archive.extract(entry, unfinished))
                mode = entry.external_attr >> 16 & 0o777
                if mode and path.is_file():
                    path.chmod(mode & unfinished.stat().st_mode)  # no wider than umask lets a new folder be

    return _once(folder / "packages" / hashlib.sha256(content).hexdigest()[:16], fill)


def merge_layers(locations: Sequence[str], folder: Path) -> Path | None:
    """One folder with what layers hold, the later over the earlier, as Lambda merges them; None without any."""
    layers = [unpack(location, folder) for location in locations]
    if not layers:
        return None

    def fill(unfinished: Path) -> None:
        for layer in layers:
            shutil.copytree(layer, unfinished, dirs_exist_ok=True)

    names = "".join(layer.name for layer in layers)
    return _once(folder / "layers" / hashlib.sha256(names.encode()).hexdigest()[:16], fill)


def _once(target: Path, fill: Callable[[Path], None]) -> Path:
    if target.is_dir():
        return target
    unfinished = target.with_suffix(f".{os.getpid()}")
    unfinished.mkdir(parents=True)
    fill(unfinished)
    try:
        unfinished.rename(target)
    except OSError:  # another plane was faster
        shutil.rmtree(unfinished)
    return target
