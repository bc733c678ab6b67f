"""Load on the pipeline: ``locust -f load``, or ``lambdalab load``. What it does is in ``lambdalab/load/``."""

from locust import events

from lambdalab.load.shape import PipelineShape
from lambdalab.load.user import SqsUser
from lambdalab.load.wiring import attach

attach(events)

__all__ = ["PipelineShape", "SqsUser"]
