"""The load of ``load/`` with a process whose last word comes when the run has been summed up."""

import gevent
from locust import events

from lambdalab.load.generator import STOP_S, GeneratorReport
from lambdalab.load.job import Told
from lambdalab.load.shape import PipelineShape, Unrecorded
from lambdalab.load.user import Sending, SqsUser
from lambdalab.load.wiring import attach
from lambdalab.records.load import Send

LATE_S = 4 * STOP_S

told_late = gevent.event.Event()
tell = Sending._tell


def tell_late(sending: Sending, told: Told) -> None:
    if told.share is not None:
        gevent.sleep(LATE_S)
        print("it tells now", flush=True)
    tell(sending, told)
    if told.share is not None:
        told_late.set()


class Waiting(Unrecorded):
    """Waits at the end as for a drain, and says what it is told too late."""

    ended = False

    def sends(self, sends: list[Send]) -> None:
        if self.ended:
            print("told after the end", flush=True)

    def end(self, report: GeneratorReport) -> None:
        self.ended = True
        told_late.wait(30)
        super().end(report)


Sending._tell = tell_late  # type: ignore[assignment]
attach(events, Waiting())

__all__ = ["PipelineShape", "SqsUser"]
