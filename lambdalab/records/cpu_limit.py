"""What it means that nothing limits the CPU of local functions, and what to do: one text for before a run and after."""

from typing import Final

NONE: Final = "none"
"""The ``cpu_limit`` of a plane under which nothing limits."""
MEANS: Final = "functions get whole cores and all memory, so times do not depend on the memory size"
NEXT_STEP: Final = "run as root, or with `systemd-run --user --scope -p Delegate=yes` under cgroup v2"
CAUTION: Final = f"cpu_limit: {NONE} - {MEANS}; {NEXT_STEP}; `lambdalab doctor` says why nothing limits them"
