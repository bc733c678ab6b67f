"""What the pipeline does while messages come: queues, functions, times and cost so far, moment by moment.

Runs in a process of its own (``bookkeeper``), so that looking does not disturb whoever sends.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from lambdalab.analysis.books import DRAIN
from lambdalab.analysis.load_limit import limit_now
from lambdalab.aws.clients import Aws, access_errors
from lambdalab.errors import AccessError, LambdalabError
from lambdalab.load.ceiling import Spent
from lambdalab.load.messages import EndToEnd, Messages
from lambdalab.load.processes import Processes, cpu_times
from lambdalab.local.limits import cpu_share
from lambdalab.logs.observations import Observations, Observed
from lambdalab.logs.report_lines import Block
from lambdalab.planning.load_schedule import LoadPlan
from lambdalab.pricing.costs import PriceSheet, invocation_cost, shared_requests, sqs_usd
from lambdalab.records.load import Limit, PipelineSample, QueueSample
from lambdalab.records.trial_files import RunDirectory
from lambdalab.records.trials import LogLine
from lambdalab.run.local_target import LocalTarget
from lambdalab.run.target import CLOCK_SKEW_MS, AwsTarget, Resources

_LATE_LINES_MS: Final = 15_000
"""How late a line may come behind younger ones while the run is under way; at the end all are read again."""
_LOGS_S: Final = 15.0
"""After so long no further page of a log group is begun, so that samples come: two groups, each with a query that is as
slow as it may be, take less than ``ceiling.UNKNOWN_S``."""
_PUBLISHED_S: Final = 60
"""CloudWatch has the metrics of Lambda and SQS once a minute."""
_LIMIT_MS: Final = 5000
"""How long a time is judged to say what is the limit now: that over which the page Pipeline takes its rates."""
_LAMBDA: Final = {"invocations": "Invocations", "errors": "Errors", "throttles": "Throttles"}


class Pipeline:
    """The pipeline of one load run.

    Args:
        target: where it runs.
        store: the run; messages are read from it as their senders tell of them, log lines are written to it.
        complain: told what cannot be looked at, and then is missing from samples, which go on without.
    """

    def __init__(self, target: AwsTarget, store: RunDirectory, complain: Callable[[LambdalabError], None]) -> None:
        self._target = target
        self._store = store
        self._complain = complain
        manifest = store.manifest()
        self._configured = manifest.functions
        self._looks: deque[PipelineSample] = deque()
        self._arms: dict[str, Resources] = {arm.name: target.resources(arm) for arm in manifest.protocol.arms}
        self._began_ms = round(datetime.fromisoformat(manifest.started_at).timestamp() * 1000)
        self._times = EndToEnd()
        self._messages = Messages(list(self._arms), msgspec.convert(manifest.load, LoadPlan), self._times)
        self._position = 0
        prices = msgspec.convert(manifest.prices, PriceSheet)
        self._logs = Logs(
            {of_arm.log_group: manifest.functions[arm].architecture for arm, of_arm in self._arms.items()},
            prices,
            self._times,
            manifest.sent_together(1),
        )
        self._spent = None if isinstance(target, LocalTarget) else Spent(manifest, prices)
        self._logs_since_ms = dict.fromkeys(self.log_groups, self._began_ms - CLOCK_SKEW_MS)
        self._logs_due = time.monotonic() + target.log_every_s
        self._functions = (
            PlaneCounts(target, self._arms)
            if isinstance(target, LocalTarget)
            else CloudWatch(target.aws, self._arms, self._began_ms, complain)
        )

    @property
    def log_groups(self) -> list[str]:
        return list(dict.fromkeys(of_arm.log_group for of_arm in self._arms.values()))

    def sample(self, *, draining: bool = False) -> PipelineSample:
        """Looks at everything once, and writes it down.

        Raises:
            AccessError, PlaneError, StorageError: the target or the disk cannot go on.
        """
        if time.monotonic() >= self._logs_due:
            self._follow_logs()
        functions = self._functions.read()
        # Last and in this order: what SQS took while the rest was looked at is else in a queue, and not among the sent.
        fresh, self._position = self._store.trials_from(self._position)
        messages = self._messages
        messages.add(fresh)
        if self._spent is not None:
            self._spent.add(fresh)
        arms = {name: self._queue(name, of_arm, functions[name]) for name, of_arm in self._arms.items()}
        now_ms = time.time() * 1000
        sample = PipelineSample(
            at_ms=now_ms,
            phase=DRAIN if draining else messages.phase,
            step=messages.step,
            intended=messages.intended(now_ms),
            sent=messages.sent,
            given_up=messages.told - messages.sent,
            done=messages.done(sum(q.visible + q.in_flight + q.dead_letters for q in arms.values()), now_ms),
            arms=arms,
            end_to_end_ms=self._times.quantiles(),
            cost_usd=self._logs.cost_usd,
            spent_usd=self._spent_usd(now_ms),
            late=messages.late,
            **self._functions.processes(),
        )
        if not draining:
            sample = msgspec.structs.replace(sample, limit=self._limit(sample))
        self._store.append_sample(sample)
        return sample

    def _limit(self, sample: PipelineSample) -> Limit | None:
        """What held back the work of the last seconds."""
        self._looks.append(sample)
        while len(self._looks) > 2 and self._looks[1].at_ms <= sample.at_ms - _LIMIT_MS:
            self._looks.popleft()
        return limit_now(tuple(self._looks), self._configured)

    def _spent_usd(self, now_ms: float) -> Decimal | None:
        if self._spent is None:
            return None
        billed = (self._logs.cost_usd or Decimal(0)) + self._logs.unrecorded_usd()
        return self._spent.usd(billed=billed, done=self._times.done, minutes=(now_ms - self._began_ms) / 60_000)

    def stop(self, offered: int | None) -> None:
        """From now on nothing is due. ``offered`` is how many messages were, as the senders say; None is not known."""
        self._messages.stop(time.time() * 1000, offered)

    def collect(self, since_ms: int | None = None) -> None:
        """Reads all log lines since a moment, or since the run began, into the run."""
        since_ms = self._began_ms - CLOCK_SKEW_MS if since_ms is None else since_ms
        for log_group in self.log_groups:
            self._store.append_log_lines(self._target.log_lines(log_group, since_ms))

    def _follow_logs(self) -> None:
        begin = time.monotonic()
        try:
            for log_group, since_ms in self._logs_since_ms.items():
                lines = self._logs.fresh(self._target.log_lines(log_group, since_ms, for_s=_LOGS_S))
                self._store.append_log_lines(lines)
                self._logs.add(lines)
                newest_ms = max((line.timestamp_ms for line in lines), default=0)
                self._logs_since_ms[log_group] = max(since_ms, newest_ms - _LATE_LINES_MS)
        except AccessError as error:
            self._complain(error)
        took_s = time.monotonic() - begin
        self._logs_due = begin + max(self._target.log_every_s, took_s / self._target.log_share)

    def _queue(self, arm: str, of_arm: Resources, function: dict[str, Any]) -> QueueSample:
        visible, in_flight = self._target.queue_counts(of_arm.queue_url)
        sample = QueueSample(
            visible=visible,
            in_flight=in_flight,
            dead_letters=self._target.queue_depth(of_arm.dead_letter_queue_url),
            oldest_ms=self._messages.age_ms(arm, visible + in_flight, time.time() * 1000),
        )
        return msgspec.structs.replace(sample, **function)


class Logs:
    """What the log lines read so far tell of times and cost."""

    def __init__(
        self, architectures: dict[str, str], prices: PriceSheet, times: EndToEnd, sent_together: int = 1
    ) -> None:
        self.cost_usd: Decimal | None = None
        self._architectures = architectures
        self._prices = prices
        self._times = times
        self._sent_together = sent_together
        self._seen: set[str] = set()
        self._open: dict[str, Observed] = {}

    def fresh(self, lines: Iterable[LogLine]) -> list[LogLine]:
        """Those not read before."""
        found = [line for line in lines if line.event_id not in self._seen]
        self._seen.update(line.event_id for line in found)
        return found

    def add(self, lines: list[LogLine]) -> None:
        """Takes in lines; a message counts when its record is there, an invocation when REPORT and record are."""
        observations = Observations()
        observations.add(Block(None, lines, range(len(lines))))
        for found in observations:
            for record in found.records:
                if record.error is None and record.batch_id is not None:
                    self._times.finished(record.batch_id, record.finished_ms)
            known = self._open.setdefault(found.request_id, found)
            if known is not found:
                known.log_bytes += found.log_bytes
                known.reports += found.reports
                known.records += found.records
            if known.reports and known.records:
                self._pay(self._open.pop(found.request_id))

    def unrecorded_usd(self) -> Decimal:
        """What invocations cost that have a REPORT and no record: it comes later, or never, as after a timeout."""
        costs = (self._cost(found) for found in self._open.values() if found.reports)
        return sum((cost for cost in costs if cost is not None), Decimal(0))

    def _pay(self, found: Observed) -> None:
        if (cost := self._cost(found)) is not None:
            self.cost_usd = (self.cost_usd or Decimal(0)) + cost

    def _cost(self, found: Observed) -> Decimal | None:
        report = found.reports[0]
        if report.refused is not None or report.unpriced is not None:
            return None
        cost = invocation_cost(
            self._prices,
            architecture=self._architectures[found.log_group],
            memory_mb=report.memory_mb,
            billed_ms=report.billed_ms,
            wru=sum(record.consumed_wru or 0.0 for record in found.records),
            sqs_bytes=0,
            log_bytes=found.log_bytes,
        ).total_usd
        messages = max(len(found.records), 1)
        # A work message is so small that ten are always within the 64 KB of one request.
        requests = messages * shared_requests(1, sent=self._sent_together, received=messages)
        return None if cost is None else cost + sqs_usd(self._prices, requests)


class PlaneCounts:
    """Functions of a local stack, as its plane counts them, and what its processes take."""

    def __init__(self, target: LocalTarget, arms: dict[str, Resources]) -> None:
        self._local = target.local
        self._arms = arms
        self._before = self._counts()
        self._processes = Processes(
            sender_pid=os.getppid(), emulator_pid=target.local.emulator.pid, plane_pid=target.local.plane.pid
        )

    def read(self) -> dict[str, dict[str, Any]]:
        return {
            arm: counts | {name: counts[name] - self._before[arm][name] for name in _LAMBDA}
            for arm, counts in self._counts().items()
        }

    def processes(self) -> dict[str, Any]:
        """CPU times until now, with those that the functions had taken at the last ``read``."""
        return self._processes.read(sum(self._running_s.values()))

    def _counts(self) -> dict[str, dict[str, Any]]:
        status = self._local.status()
        functions, mappings = status["functions"], status["mappings"]
        self._running_s = {name: _running_s(function["pids"]) for name, function in functions.items()}
        found = {}
        for arm, of_arm in self._arms.items():
            name = of_arm.function_name
            function, mapping = functions[name], mappings.get(name, {})
            busy_s, share = mapping.get("in_flight_s"), cpu_share(function["memory_mb"], status["cpu_scale"])
            found[arm] = {counter: function[counter] for counter in _LAMBDA} | {
                "concurrency": function["in_flight"],
                "places": mapping.get("concurrency"),
                "places_s": mapping.get("places_s"),
                "places_busy_s": busy_s,
                "cpu_s": self._running_s[name],
                "cpu_allowed_s": None if busy_s is None or status["cpu_limit"] == "none" else busy_s * share,
            }
        return found


def _running_s(pids: Iterable[int]) -> float:
    """CPU time of environments that run, with that of what they started and that has ended."""
    return sum(times.own_s + times.ended_s for pid in pids if (times := cpu_times(pid)) is not None)


class CloudWatch:
    """Functions and queues on AWS, as CloudWatch counts them since a moment, minutes late."""

    def __init__(
        self, aws: Aws, arms: dict[str, Resources], since_ms: int, complain: Callable[[LambdalabError], None]
    ) -> None:
        self._aws = aws
        self._complain = complain
        self.since = datetime.fromtimestamp(since_ms // 60_000 * 60, UTC)
        self._due = 0.0
        self._known: dict[str, dict[str, Any]] = {arm: {} for arm in arms}
        self._metrics = {
            f"m{i}": metric for i, metric in enumerate(m for arm, of_arm in arms.items() for m in _metrics(arm, of_arm))
        }

    def read(self) -> dict[str, dict[str, Any]]:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _PUBLISHED_S
            try:
                values = self._values()
            except AccessError as error:
                self._complain(error)
                values = {}
            for name, (arm, field, _, stat) in self._metrics.items():
                if found := values.get(name):
                    value = sum(found) if stat == "Sum" else found[-1]
                    self._known[arm][field] = value * 1000 if field == "oldest_ms" else round(value)
        return self._known

    def _values(self) -> dict[str, list[float]]:
        values: dict[str, list[float]] = {}
        with access_errors("CloudWatch's metrics"):
            pages = self._aws.cloudwatch.get_paginator("get_metric_data").paginate(
                MetricDataQueries=self.queries(),
                StartTime=self.since,
                EndTime=datetime.now(UTC),
                ScanBy="TimestampAscending",
            )
            for page in pages:
                for result in page["MetricDataResults"]:
                    values.setdefault(result["Id"], []).extend(result["Values"])
        return values

    def queries(self) -> list[dict[str, Any]]:
        """What is asked for, as CloudWatch takes it."""
        return [
            {"Id": name, "MetricStat": {"Metric": metric, "Period": _PUBLISHED_S, "Stat": stat}}
            for name, (_, _, metric, stat) in self._metrics.items()
        ]

    def processes(self) -> dict[str, Any]:
        return {}


def _metrics(arm: str, of_arm: Resources) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Arm, member of a sample, metric and statistic."""
    lambda_ = {"Namespace": "AWS/Lambda", "Dimensions": [{"Name": "FunctionName", "Value": of_arm.function_name}]}
    queue_name = of_arm.queue_url.rsplit("/", 1)[-1]
    sqs = {"Namespace": "AWS/SQS", "Dimensions": [{"Name": "QueueName", "Value": queue_name}]}
    for field, name in _LAMBDA.items():
        yield arm, field, lambda_ | {"MetricName": name}, "Sum"
    yield arm, "concurrency", lambda_ | {"MetricName": "ConcurrentExecutions"}, "Maximum"
    yield arm, "oldest_ms", sqs | {"MetricName": "ApproximateAgeOfOldestMessage"}, "Maximum"
