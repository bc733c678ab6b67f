"""The error tree: every failure a user can meet, and the exit code it ends with.

::

    LambdalabError
    ├── UsageError            2   what was typed or written in a file is wrong
    │   ├── ProtocolError         a protocol file or a setting in it
    │   ├── EventError            an event file for a function
    │   ├── PriceSheetError       a price sheet
    │   ├── LatencyError          a latency model
    │   └── LoadPlanError         what a load run shall offer
    ├── SetupError            3   this machine or this account cannot do it now
    │   ├── ToolError             sam, uv, go or MiniStack is missing or failed
    │   ├── StackError            the deployed stack is absent or not what is needed
    │   ├── AccessError           credentials, permissions, an endpoint that does not answer
    │   ├── PlaneError            the local plane or its emulator does not run
    │   ├── InUseError            another process holds the stack or the run directory
    │   └── StorageError          a file or folder cannot be read or written
    └── InvalidRunError       4   the run ended, but its result must not be used

Exit code 1 is a verdict, not an error; 0 is success; 130 is Ctrl-C; 70 is a defect of lambdalab itself.
A message is one sentence: what, where, the offending value; then the next step.
"""

from typing import ClassVar


class LambdalabError(Exception):
    """A failure told to the user as one sentence and a next step, never as a traceback.

    Args:
        problem: what is wrong, where, with the offending value; no final full stop.
        next_step: what the user can do about it; its final full stop, if it has one, is not doubled.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, problem: str, *, next_step: str) -> None:
        super().__init__(f"{problem}; {next_step.removesuffix('.')}.")
        self.problem = problem
        self.next_step = next_step


class UsageError(LambdalabError):
    """What was typed, or written in a file, is wrong."""

    exit_code = 2


class ProtocolError(UsageError):
    """A protocol file, or a setting in it, is wrong."""


class EventError(UsageError):
    """An event file for a function cannot be used."""


class PriceSheetError(UsageError):
    """A price sheet is absent or wrong."""


class LatencyError(UsageError):
    """A latency model is absent or wrong."""


class LoadPlanError(UsageError):
    """What a load run shall offer is wrong or contradicts itself."""


class SetupError(LambdalabError):
    """This machine or this account cannot do it now."""

    exit_code = 3


class ToolError(SetupError):
    """A tool the lab starts is missing or failed."""


class StackError(SetupError):
    """The deployed stack is absent, or lacks something the lab needs."""


class AccessError(SetupError):
    """Credentials or permissions are missing, or an endpoint does not answer."""


class PlaneError(SetupError):
    """The local plane, or the emulator under it, does not run."""


class InUseError(SetupError):
    """Another process holds the stack, or the run directory."""


class StorageError(SetupError):
    """A file or folder of the lab cannot be read or written."""


class InvalidRunError(LambdalabError):
    """The run ended, but its result must not be used."""

    exit_code = 4
