"""The error that answers and log records show. The scenario's README.md lists the codes."""

import re

_UNSAFE = re.compile(r"[^A-Za-z0-9._:-]")
_LONGEST_NAME = 64


class UploadError(Exception):
    """An invocation that was refused, or whose object could not be written."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field

    def as_dict(self) -> dict[str, str]:
        """Show the code, the field when one is at fault, and the text."""
        field = {} if self.field is None else {"field": self.field}
        return {"code": self.code, **field, "message": self.message}


def printable(name: str) -> str:
    """Make a name that came from outside fit to print: at most 64 characters, `?` for what no name of ours has."""
    return _UNSAFE.sub("?", name[:_LONGEST_NAME])
