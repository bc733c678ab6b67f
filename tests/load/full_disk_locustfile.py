"""The load of ``load/`` with a recorder whose disk is full after the first messages."""

from locust import events

from lambdalab.errors import InvalidRunError, StorageError
from lambdalab.load.generator import GeneratorReport
from lambdalab.load.shape import PipelineShape, Unrecorded
from lambdalab.load.user import SqsUser
from lambdalab.load.wiring import attach
from lambdalab.planning.load_schedule import LoadPlan
from lambdalab.records.load import Send
from lambdalab.run.target import AwsTarget


class Full(Unrecorded):
    """Takes no message, and says whether it was told that the run ended."""

    def begin(self, plan: LoadPlan, target: AwsTarget) -> str:
        return "full"

    def sends(self, sends: list[Send]) -> None:
        raise StorageError("trials.jsonl cannot be written: No space left on device", next_step="make space")

    def end(self, report: GeneratorReport) -> None:
        print(f"told of the end after {report.attempted}: {report.ended_by}")
        raise InvalidRunError("run full is invalid", next_step="run it again")


attach(events, Full())

__all__ = ["PipelineShape", "SqsUser"]
