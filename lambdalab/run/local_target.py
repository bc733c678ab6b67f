"""A run on the local stack: the same calls as on AWS, answered by the emulator and the plane."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from lambdalab.aws.stack import Stack, find_stack
from lambdalab.design.arms import ColdMode
from lambdalab.local.stack import LocalStack
from lambdalab.lock import Lock, hold_stack
from lambdalab.machine_load import CpuReading, read_cpu
from lambdalab.run.target import AwsTarget, PlaneCounts


class LocalTarget(AwsTarget):
    """The local stack: the emulator holds everything, the plane is Lambda."""

    name = "local"
    cold_mode = ColdMode.RECYCLE
    poll_s = 0.05
    empty_readings = 1
    log_delay_s = 15.0
    log_every_s = 5.0
    log_share = 0.05  # whoever keeps them is the emulator, which has the queues and tables to keep as well

    def __init__(self, local: LocalStack, stack: Stack, builds: Mapping[str, Path] | None = None) -> None:
        super().__init__(local.aws(), stack, builds)
        self.local = local

    def _hold(self) -> AbstractContextManager[Lock]:
        return hold_stack()

    def require_alive(self) -> None:
        self.local.require_alive()

    def require_answer(self) -> None:
        self.local.status()

    def plane_counts(self) -> PlaneCounts:
        status = self.local.plane_status()
        functions = status["functions"].values()
        return PlaneCounts(
            invocations=sum(function["invocations"] for function in functions),
            throttles=sum(function["throttles"] for function in functions),
            cpu_limit=status["cpu_limit"],
        )

    def read_cpu(self) -> CpuReading:
        return read_cpu((self.local.emulator.pid, self.local.plane.pid))

    def restore(self) -> None:
        """Without a plane there is nobody to ask, and the stack cannot be used again."""
        if self.local.plane.alive:
            super().restore()

    def emptying(self, queue_url: str) -> str:  # noqa: ARG002 - the same for every queue
        """The emulator forgets everything when it ends."""
        return "wait for them, or start anew with `lambdalab down` and `lambdalab up`"

    def renew(self, function_name: str) -> None:
        """Makes the plane end the function's environments."""
        self.local.recycle(function_name)


def local_target(local: LocalStack, builds: Mapping[str, Path] | None = None) -> LocalTarget:
    """The target for a local stack that is up."""
    stack = find_stack(
        local.aws(),
        local.stack_name,
        next_step="bring up the one that is needed with `lambdalab down && lambdalab up SCENARIO`, "
        "or end it with `lambdalab down` and add --up",
    )
    return LocalTarget(local, stack, builds)
