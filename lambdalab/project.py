"""Where things lie: the project a command works on, and the folders it may write."""

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from lambdalab.errors import SetupError, StorageError

STATE_FOLDER: Final = ".lambdalab"
RESULTS: Final = Path("results")


def project_root() -> Path:
    """The nearest folder, from here upwards, that holds a ``template.yaml`` and ``protocols``.

    Raises:
        SetupError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "template.yaml").is_file() and (folder / "protocols").is_dir():
            return folder
    raise SetupError(f"no lambdalab project in {here} or above it", next_step="change to the cloned folder")


def results_folder() -> Path:
    """The project's folder of run directories, relative to the current folder; ``results`` outside a project."""
    try:
        return Path(os.path.relpath(project_root() / RESULTS))
    except SetupError:
        return RESULTS


def state_folder(root: Path | None = None) -> Path:
    """Where tools, interpreters and the local stack's state are kept; made when absent.

    Raises:
        StorageError: it cannot be made, or everybody may write it: what lies there is run.
    """
    folder = (project_root() if root is None else root) / STATE_FOLDER
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be made: {error.strerror}", next_step="check the folder's owner and the free space"
        ) from error
    if mode & stat.S_IWOTH:
        raise StorageError(f"{folder} may be written by everybody", next_step=f"run `chmod o-w {folder}`")
    return folder


def machine_folder() -> Path:
    """The folder that all projects of this user share on this machine; made when absent.

    Raises:
        StorageError: it cannot be made, or it is another user's: what lies there must be believed.
    """
    folder = Path(tempfile.gettempdir()) / f"lambdalab-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be made: {error.strerror}", next_step="name another folder for it with TMPDIR"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
        raise StorageError(
            f"{folder} is not a folder that only this user may write", next_step="name another folder with TMPDIR"
        )
    return folder


def read_or_empty(path: Path) -> str:
    """The text of a file that is looked at by the way; nothing when it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
