"""An exact target in memory: queues, tables, logs and environments behave as the local stack's, at once.

Everything the runner does is written into ``calls``; ``faults`` maps a call such as ``send python`` or its occurrence
``send python 2`` to what happens instead.
"""

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from samples import make_facts

from lambdalab.aws.stack import Stack
from lambdalab.design.arms import Arm
from lambdalab.logs.platform_lines import render_end, render_report, render_start
from lambdalab.records.manifest import QueuedFunction
from lambdalab.records.pipeline import Graph
from lambdalab.records.trials import LogLine, PlatformReport
from lambdalab.run.target import AwsTarget, Resources

Fault = BaseException | Callable[["FakeTarget"], None]


class FakeTarget(AwsTarget):
    """Two functions behind two queues, without AWS."""

    name = "local"
    poll_s = 0.0
    empty_readings = 1
    log_delay_s = 0.0

    def __init__(self) -> None:
        self.stack = Stack(name="lambdalab-local", outputs={}, parameters={}, resources={}, types={})
        self.region = "us-east-1"
        self.changed: dict[str, Any] = {}
        """What of the functions' settings differs from the samples'."""
        self.calls: list[str] = []
        self.faults: dict[str, Fault] = {}
        self.items: Counter[str] = Counter()
        self.depths: dict[str, deque[int] | int] = {}
        self.lines: list[LogLine] = []
        self.lose = 0
        """So many items of every next message are not written."""
        self.error: dict[str, str] | None = None
        """What functions report of every next message, which then stays in its queue."""
        self.split = 0
        """So many messages of every next batch come in an invocation of their own."""
        self.cold: set[str] = set()
        self.configured: list[Arm] = []
        self.asked: dict[str, Any] = {}
        """With what the command line asked for this target."""
        self._count: Counter[str] = Counter()
        self.aws: Any = _Aws(self)

    def pipeline(self) -> Graph:
        return Graph(stack_name=self.stack.name, region=self.region, target=self.name)

    def resources(self, arm: Arm) -> Resources:
        name = arm.language
        return Resources(
            function_name=f"lab-{name}",
            queue_url=f"queue-{name}",
            dead_letter_queue_url=f"dead-{name}",
            table_name=f"table-{name}",
            log_group=f"/aws/lambda/lab-{name}",
        )

    def facts(self, arm: Arm) -> QueuedFunction:
        asked = {"memory_mb": arm.memory_mb, "batch_size": arm.batch_size}
        settings = {name: value for name, value in asked.items() if value is not None}
        return make_facts(arm.language, **(settings | self.changed))

    def configure(self, arm: Arm) -> None:
        self.configured.append(arm)

    def start_cold(self, of_arm: Resources) -> None:
        self._call(f"start_cold {_language(of_arm)}")
        self.cold.add(_language(of_arm))

    def restore(self) -> None:
        self._call("restore")

    def send(self, of_arm: Resources, bodies: Sequence[str]) -> str:
        self._call(f"send {_language(of_arm)}")
        messages = [json.loads(body) for body in bodies]
        for part in (messages[: self.split], messages[self.split :]) if self.split else (messages,):
            self._invoke(of_arm, part)
        return f"message-{self._count['send']}"

    def queue_depth(self, queue_url: str) -> int:
        self._call(f"depth {queue_url}")
        depth = self.depths.get(queue_url, 0)
        return depth if isinstance(depth, int) else depth.popleft() if depth else 0

    def log_lines(self, log_group: str, since_ms: int, *, for_s: float = 0) -> Iterator[LogLine]:
        self._call(f"logs {log_group.rsplit('-')[-1]}")
        return iter([line for line in self.lines if line.log_group == log_group and line.timestamp_ms >= since_ms])

    def count(self, table: str, batch_id: str) -> int:
        self._call(f"count {table}")
        return self.items[batch_id]

    def _call(self, name: str) -> None:
        verb = name.split()[0]
        self._count[verb] += 1
        self._count[name] += 1
        self.calls.append(name)
        fault = self.faults.get(f"{name} {self._count[name]}") or self.faults.get(name)
        if isinstance(fault, BaseException):
            raise fault
        if fault is not None:
            fault(self)

    def _invoke(self, of_arm: Resources, messages: Sequence[dict[str, Any]]) -> None:
        now_ms = time.time_ns() // 1_000_000
        cold = _language(of_arm) in self.cold
        self.cold.discard(_language(of_arm))
        self._count["request"] += 1
        request_id = f"request-{self._count['request']}"
        records = [json.dumps(self._write(of_arm, message, request_id, now_ms, cold=cold)) for message in messages]
        report = PlatformReport(
            request_id=request_id,
            duration_ms=15.74,
            billed_ms=147 if cold else 16,
            memory_mb=128,
            max_memory_mb=56,
            init_ms=130.49 if cold else None,
        )
        texts = (render_start(request_id), *records, render_end(request_id), render_report(report))
        self.lines += [
            LogLine(
                log_group=of_arm.log_group,
                log_stream="stream",
                timestamp_ms=now_ms,
                message=text,
                event_id=f"{request_id}/{i}",
            )
            for i, text in enumerate(texts)
        ]

    def _write(
        self, of_arm: Resources, message: dict[str, Any], request_id: str, now_ms: int, *, cold: bool
    ) -> dict[str, Any]:
        """Writes the items of a message; returns the function's record of it."""
        written = 0 if self.error else message["count"] - self.lose
        record: dict[str, Any] = {
            "_aws": {},
            "lang": _language(of_arm),
            "request_id": request_id,
            "batch_id": message["batch_id"],
            "written": written,
            "duplicates": 0,
            "consumed_wru": 2.0 * written,
            "sdk_retries": 0,
            "cold_start": cold,
            "receive_count": 1,
            "sent_ms": now_ms,
            "started_ms": now_ms + 5,
            "finished_ms": now_ms + 9,
        }
        if self.error:
            record["error"] = self.error
            self.depths[of_arm.queue_url] = 1
        self.items[message["batch_id"]] += written
        return record


class _Aws:
    """The one DynamoDB call of the lab: counting the items of a batch, here in pages of 60."""

    def __init__(self, target: FakeTarget) -> None:
        self.dynamodb = self
        self.lambda_ = SimpleNamespace(
            meta=SimpleNamespace(endpoint_url="http://127.0.0.1:4567"),
            get_account_settings=lambda: {
                "AccountLimit": {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 998}
            },
        )
        self._target = target

    def get_paginator(self, operation: str) -> "_Aws":
        assert operation == "query"
        return self

    def paginate(self, **query: Any) -> list[dict[str, int]]:
        assert (query["Select"], query["ConsistentRead"]) == ("COUNT", True)
        key = query["ExpressionAttributeValues"][":pk"]["S"].removeprefix("batch_id#")
        found = self._target.count(query["TableName"], key)
        return [{"Count": min(60, found - start)} for start in range(0, found, 60)] or [{"Count": 0}]


def _language(of_arm: Resources) -> str:
    return of_arm.function_name.removeprefix("lab-")
