"""The load of ``load/``, as ``generator`` runs it: what was sent goes to a file, and the sender may be boto3.

With ``BENCHMARK_PLACES`` so many requests are under way at most and nothing is sent after the last is due: what can be
sent at most is measured by offering more than that.
"""

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from locust import events

import lambdalab.load.user
from lambdalab.load.generator import Generator, GeneratorReport
from lambdalab.load.sender import Outcome
from lambdalab.load.shape import PipelineShape, Unrecorded
from lambdalab.load.user import SqsUser
from lambdalab.load.wiring import attach
from lambdalab.planning.load_schedule import LoadPlan, arrivals
from lambdalab.records.load import Send
from lambdalab.run.target import AwsTarget

PLACES = int(os.environ.get("BENCHMARK_PLACES", "0"))


class Kept(Unrecorded):
    """Keeps when each message was due and begun, and what the sending of all of them took of this process."""

    def __init__(self) -> None:
        self.due_ms: list[float] = []
        self.began_ms: list[float] = []
        self.answered_ms: list[float] = []
        self._used_s, self._first_s = 0.0, 0.0

    def begin(self, plan: LoadPlan, target: AwsTarget) -> str:  # noqa: ARG002
        self._first_s = next(arrivals(plan)).at_s
        self._used_s = time.process_time()
        return "benchmark"

    def sends(self, sends: list[Send]) -> None:
        self.due_ms += [send.intended_at_ms for send in sends]
        self.began_ms += [send.began_at_ms for send in sends]
        self.answered_ms += [send.answered_at_ms for send in sends if send.answered_at_ms is not None]

    def end(self, report: GeneratorReport) -> None:
        Path(os.environ["BENCHMARK_RESULT"]).write_bytes(
            msgspec.json.encode(
                {
                    "report": report,
                    "cpu_s": time.process_time() - self._used_s,
                    "seconds": (max(self.answered_ms) - min(self.began_ms)) / 1000,
                    "start_ms": min(self.due_ms) - self._first_s * 1000,
                    "began_ms": [] if PLACES else self.began_ms,
                }
            )
        )


class Boto3Sender:
    """What ``SqsSender`` does, by boto3's client."""

    def __init__(self, endpoint_url: str, session: boto3.Session, region: str) -> None:
        config = Config(max_pool_connections=max(PLACES, 10))
        self._sqs: Any = session.client("sqs", endpoint_url=endpoint_url, region_name=region, config=config)

    def send(self, queue_url: str, bodies: Sequence[str]) -> list[Outcome]:
        (body,) = bodies
        try:
            return [Outcome(self._sqs.send_message(QueueUrl=queue_url, MessageBody=body)["MessageId"], None, 1)]
        except (ClientError, BotoCoreError) as error:
            return [Outcome(None, str(error), 1)]


patched: Any = lambdalab.load.user
if os.environ.get("BENCHMARK_SENDER") == "boto3":
    patched.SqsSender = Boto3Sender
if PLACES:
    patched.Generator = partial(Generator, places=PLACES)
    patched.GRACE_S = 0.0
attach(events, Kept())

__all__ = ["PipelineShape", "SqsUser"]
