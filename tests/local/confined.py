"""Processes that may do less than the test: some system calls are refused to them, or they are root without CAP_KILL.

Each function is run in the child, before its program (``preexec_fn``); all that the child starts is confined as well.
"""

import ctypes
import json
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_CALLS: Final = {"x86_64": {"kill": 62, "clock_gettime": 228}, "aarch64": {"kill": 129, "clock_gettime": 113}}
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""Instructions of a filter, see seccomp(2)."""
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 22, 24, 38
_CAP_KILL: Final = 5
_libc: Final = ctypes.CDLL(None, use_errno=True)


def refuse_signals(*numbers: int) -> None:
    """These signals cannot be sent: kill(2) fails with EPERM."""
    _refuse("kill", 1, [(_EQUAL, number) for number in numbers])


def refuse_clocks() -> None:
    """CPU clocks of processes, whose ids are negative, cannot be read: clock_gettime(2) fails with EPERM."""
    _refuse("clock_gettime", 0, [(_AT_LEAST, 2**31)])


def drop_cap_kill() -> None:
    """Root may signal processes of root only, as an ordinary user may only signal their own."""
    _checked(_libc.prctl(_PR_CAPBSET_DROP, _CAP_KILL, 0, 0, 0))


def run_confined(confine: Callable[[], None], program: str, *arguments: str, **variables: str) -> tuple[Any, str]:
    """Runs a Python program that may import these tests; returns the JSON that it prints, and its standard error."""
    paths = os.pathsep.join((str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        preexec_fn=confine,
        env=os.environ | {"PYTHONPATH": paths} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def _refuse(call: str, argument: int, tests: list[tuple[int, int]]) -> None:
    """Refuses a system call where one of the tests holds for the lower half of an argument."""
    # A struct seccomp_data has the number of the call at 0, and its arguments, 64-bit each, from 16 on.
    steps = [(_LOAD, 0, 0, 0), (_EQUAL, 0, len(tests) + 1, _CALLS[platform.machine()][call])]
    steps += [(_LOAD, 0, 0, 16 + 8 * argument)]
    steps += [(test, len(tests) - place, 0, value) for place, (test, value) in enumerate(tests)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
    of_all = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_libc.prctl(_PR_SET_SECCOMP, 2, of_all, 0, 0))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
