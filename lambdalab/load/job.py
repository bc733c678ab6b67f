"""What the process that leads a load run and those that send tell each other, through Locust's own messages."""

from typing import Final

import msgspec

from lambdalab.load.generator import Share
from lambdalab.planning.load_schedule import LoadPlan
from lambdalab.records.load import Send
from lambdalab.run.target import Resources

JOB: Final = "lambdalab_job"
"""The option that holds the job. Locust sends all options to a worker with the order to begin."""
TOLD: Final = "lambdalab-told"
STOP: Final = "lambdalab-stop"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker needs.

    ``resources`` are of each language; ``workers`` are Locust's ids of the processes that share the plan, in order.
    ``local`` is whether ``endpoint_url`` is a local stack's, with its own credentials; else each worker finds
    credentials in its own AWS environment.
    """

    run_id: str
    plan: LoadPlan
    resources: dict[str, Resources]
    endpoint_url: str
    region: str
    local: bool
    workers: tuple[str, ...]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker sent since it last told; at its end what it did of its share, or why it could not begin it."""

    run_id: str
    worker: int
    sends: list[Send] = []
    share: Share | None = None
    failure: str | None = None
