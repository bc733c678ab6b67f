"""Where things lie: the project and the scenario that a command works on, and the folders it may write.

A scenario is a folder with a ``template.yaml``: the project's root, and every such folder of ``scenarios``. What sam
builds lies beside the template, in ``.aws-sam``. Everything that the lab keeps lies at the root: the scenarios share
its tools, its one local stack with the lock, and its results.
"""

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from lambdalab.errors import SetupError, StorageError, UsageError

TEMPLATE: Final = "template.yaml"
SCENARIOS: Final = "scenarios"
PROTOCOLS: Final = "protocols"
ROOT_SCENARIO: Final = "ingest"
"""The name of the scenario at the project's root."""
STATE_FOLDER: Final = ".lambdalab"
RESULTS: Final = Path("results")


def project_root() -> Path:
    """The folder of the project: the nearest one upwards with a template and protocols that is none of its scenarios.

    Raises:
        SetupError: there is none.
    """
    folder = scenario_folder()
    return _project_above(folder) or folder


def scenario_folder() -> Path:
    """The folder of the scenario that the current folder belongs to: one of ``scenarios``, else the project's root.

    Raises:
        SetupError: there is no project.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if _is_project(folder) or ((folder / TEMPLATE).is_file() and _project_above(folder) is not None):
            return folder
    raise SetupError(f"no lambdalab project in {here} or above it", next_step="change to the cloned folder")


def scenario_folders() -> dict[str, Path]:
    """The folder of every scenario by name, the root's first. The name is the folder's, with ``-`` in place of ``_``.

    Raises:
        SetupError: there is no project.
        UsageError: two folders have the same name.
    """
    root = project_root()
    found = {ROOT_SCENARIO: root}
    for template in sorted(root.glob(f"{SCENARIOS}/*/{TEMPLATE}")):
        folder, name = template.parent, _name(template.parent)
        if name in found:
            raise UsageError(
                f"{shown(folder)} and {shown(found[name])} are both scenario {name}", next_step="rename one of them"
            )
        found[name] = folder
    return found


def scenario_name(folder: Path) -> str:
    """The name of the scenario in a folder."""
    return ROOT_SCENARIO if folder == project_root() else _name(folder)


def shown(path: Path) -> str:
    """A path of the project as messages show it: relative to the root."""
    return os.path.relpath(path, project_root())


def _name(folder: Path) -> str:
    return folder.name.replace("_", "-")


def _is_project(folder: Path) -> bool:
    is_one = (folder / TEMPLATE).is_file() and (folder / PROTOCOLS).is_dir()
    return is_one and _project_above(folder) is None


def _project_above(folder: Path) -> Path | None:
    """The project of which a folder is a scenario."""
    above = folder.parent.parent
    return above if folder.parent.name == SCENARIOS and _is_project(above) else None


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
