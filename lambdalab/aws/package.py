"""The code of a function as Lambda takes it: a zip file of the folder that ``sam build`` made."""

import base64
import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from lambdalab.design.arms import Architecture
from lambdalab.errors import UsageError

_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)
_EXECUTABLE: Final = 0o100755
_PLAIN: Final = 0o100644


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A function's code, as a zip file and as what it was built for."""

    content: bytes
    architecture: Architecture

    @property
    def code_sha256(self) -> str:
        """Lambda's own digest of it, CodeSha256: base64 of the SHA-256 of the zip file."""
        return base64.b64encode(hashlib.sha256(self.content).digest()).decode()


@cache
def build_package(folder: Path, architecture: Architecture) -> Package:
    """The package of the folder of one function that ``sam build`` made.

    Raises:
        UsageError: there is no such folder, or it is empty.
    """
    return Package(content=zipped(folder), architecture=architecture)


def zipped(folder: Path) -> bytes:
    """Zips the folder of one function that ``sam build`` made; the same files always give the same bytes.

    Raises:
        UsageError: there is no such folder, or it is empty.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not files:
        raise UsageError(
            f"{folder} holds no built function",
            next_step="build it with `sam build --config-env local --build-dir FOLDER` and name FOLDER",
        )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            entry = zipfile.ZipInfo(str(path.relative_to(folder)), _ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (_EXECUTABLE if path.stat().st_mode & 0o100 else _PLAIN) << 16
            archive.writestr(entry, path.read_bytes())
    return content.getvalue()
