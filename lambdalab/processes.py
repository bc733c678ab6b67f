"""The processes of this machine, as the kernel knows them."""

import os


def exists(pid: int) -> bool:
    """True if there is a process with this id, of whatever user.

    It asks kill(2), because /proc does not show processes of others where it is mounted with ``hidepid``.
    """
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
