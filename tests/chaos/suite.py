"""One run of the fault suite: a local stack of its own, messages, faults, and what must be true when all is quiet.

Everything is real but the way to the emulator, which leads through a proxy. The shipped functions run inside handlers
that ask the proxy what shall go wrong with each batch.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from local.support import exists
from local.whole import LANGUAGES, ROOT, Up, project, wait_until

from chaos.faults import ITEMS, OF_A_BATCH, OF_THE_WORLD, WORDS, Kind, Orders, Size, poison, schedule
from chaos.proxy import Fault, Proxy, Window
from lambdalab.aws.clients import Aws
from lambdalab.design.arms import Arm
from lambdalab.local.daemon import Daemon
from lambdalab.logs.platform_lines import parse_report

MIX: Final = "1024Bx10"
SIZE_BYTES: Final = 1024
HERE: Final = Path(__file__).parent
MORE_PARTS: Final = ("load", "pyproject.toml", "prices", "latencies", "contracts")
SHIPPED_HANDLER: Final = "Handler: handler.handler"
QUIET_S: Final = 20.0
"""How long processes that were killed may take to be gone."""
CALLS_AT_LEAST: Final = 3
"""Of each language; a window stays open until it has had them."""
LOGS_S: Final = 6.0
"""How long log lines may take; those the killed plane had in hand never come."""
STATUS_OF: Final[dict[Kind, tuple[str | None, str | None]]] = {
    "killed": ("error", "Runtime.ExitError"),
    "timeout": ("timeout", None),
    "memory": ("error", "Runtime.OutOfMemory"),
    "malformed": (None, None),
}
"""Status and Error Type of the REPORT line that shows a fault of a batch."""
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Line:
    """What became of one kind of fault, in one language. Recovery times are in seconds, of the faults, not messages."""

    kind: Kind
    language: str
    ordered: int
    injected: int
    messages: int
    lost: int
    duplicated: int
    dead_lettered: int
    recovery_s: tuple[float, float] | None
    """Median and longest."""
    calls: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """``problems`` are sentences; none means that all held."""

    seed: str
    problems: list[str]
    lines: list[Line]
    facts: dict[str, dict[str, int]]
    left_out: list[Kind]
    seconds: float

    def table(self) -> str:
        """The faults, and what was counted at the end, as Markdown."""
        head = (
            "| fault | language | times | messages | lost | duplicated | dead-lettered | recovery s, median (longest) |"
        )
        rows = [head, "|---|---|---|---|---|---|---|---|"]
        for line in self.lines:
            calls = f" ({line.calls:,} calls)" if line.calls else ""
            recovery = "-" if line.recovery_s is None else "{:.1f} ({:.1f})".format(*line.recovery_s)
            rows.append(
                f"| {WORDS[line.kind]} | {line.language} | {line.injected}{calls} | {line.messages:,} | {line.lost} | "
                f"{line.duplicated} | {line.dead_lettered} | {recovery} |"
            )
        rows += [f"| {WORDS[kind]} | left out: this machine limits no memory | | | | | | |" for kind in self.left_out]
        names = list(next(iter(self.facts.values())))
        rows += ["", "| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        rows += [
            f"| {language} | " + " | ".join(f"{n:,}" for n in of.values()) + " |" for language, of in self.facts.items()
        ]
        return "\n".join(rows)


@dataclass
class Suite:
    """A run. The folder holds the project's copy, its state and the evidence."""

    folder: Path
    seed: str
    size: Size
    say: Say
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._drawn = random.Random(f"{self.seed}-windows")
        self._asked = dict.fromkeys(LANGUAGES, self.size.messages)

    def run(self) -> Result:
        """Everything, from the build to the verdict; nothing is left running."""
        began = time.monotonic()
        self._copy_project()
        self.say("bringing up a local stack with settings load and handlers that take orders")
        self.up = Up.start(self.folder, settings="load", **self.size.parameters)
        try:
            self._compile_packages()
            self.emulator, self.emulator_url = self.up.emulator, self.up.stack.endpoint_url
            self.arms = {language: self.up.arm(language) for language in LANGUAGES}
            most = self.up.target.facts(Arm(name="go", language="go")).max_receive_count or 0
            assert self.size.receives_at_most <= most, "the faults alone could dead-letter a good message"
            limited = self.up.status()["cpu_limit"] != "none"
            self.kinds = tuple(kind for kind in OF_A_BATCH if kind != "memory" or limited)
            self.poison = {one: poison(f"{self.seed}-poison-{one}", self.size.poison) for one in LANGUAGES}
            with self._proxy() as self.proxy:
                self._send_and_hurt()
                self._wait_until_quiet()
                self._confirm()
                result = self._judge(time.monotonic() - began)
                self.problems += (f"the suite's own proxy failed: {error}" for error in self.proxy.errors)
        finally:
            self.up.end()
        return result

    def _copy_project(self) -> None:
        project(self.folder)
        for name in MORE_PARTS:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.folder / name)
        template = self.folder / "template.yaml"
        assert template.read_text().count(SHIPPED_HANDLER) == 1
        template.write_text(template.read_text().replace(SHIPPED_HANDLER, "Handler: faulty.handler"))
        shutil.copy(HERE / "functions" / "faulty.py", self.folder / "src" / "python" / "ingest")
        shutil.copy(HERE / "functions" / "main.go", self.folder / "src" / "go" / "ingest")

    def _compile_packages(self) -> None:
        """Compiles the unpacked Python package, which is most of a cold start: on a busy machine it would time out."""
        (interpreter,) = msgspec.json.decode((self.folder / ".lambdalab" / "plane.json").read_bytes())[
            "interpreters"
        ].values()
        command = [interpreter, "-m", "compileall", "-q", str(self.folder / ".lambdalab" / "packages")]
        subprocess.run(command, check=True)

    @contextlib.contextmanager
    def _proxy(self) -> Iterator[Proxy]:
        """Puts the proxy in the emulator's place, for the plane, which starts anew, and whoever looks the stack up."""
        names = {
            one: (arm.queue_url.rpartition("/")[2] + '"', arm.table_name, arm.log_group, arm.function_name)
            for one, arm in self.arms.items()
        }
        orders = {
            one: Orders(f"{self.seed}-{one}", self.size.messages, self.size.each, self.kinds) for one in LANGUAGES
        }
        emulator = self.up.stack.emulator
        proxy = Proxy(
            emulator.port,
            names,
            orders,
            seed=f"{self.seed}-proxy",
            journal=self.folder / "journal.jsonl",
            may_kill=self._is_environment,
        )
        try:
            self.up.stack.plane.end(grace_s=15)
            self.proxy = proxy
            self._use(msgspec.structs.replace(emulator, port=proxy.port), self._start_plane())
            yield proxy
        finally:
            self._use(emulator, self.up.stack.plane)
            proxy.close()

    def _use(self, emulator: Daemon, plane: Daemon) -> None:
        self.up.stack = msgspec.structs.replace(self.up.stack, emulator=emulator, plane=plane)
        (self.folder / ".lambdalab" / "stack.json").write_bytes(msgspec.json.encode(self.up.stack))

    def _start_plane(self) -> Daemon:
        way = f"http://127.0.0.1:{self.proxy.port}"
        return self.up.start_plane(self.up.stack.plane.port, endpoint_url=way, cpu_scale=self.size.cpu_scale)

    def _is_environment(self, pid: int) -> bool:
        """Whether a process is a child of the plane that is up."""
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            return parent == self.up.stack.plane.pid and exists(pid)
        return False

    def _send_and_hurt(self) -> None:
        total = self.size.messages * len(LANGUAGES)
        duration_s = total / self.size.rate
        self.say(f"sending {total:,} messages of {ITEMS} items within {duration_s:.0f} s, poison among them")
        command = [str(Path(sys.executable).with_name("lambdalab")), "load", "--headless", "--only-summary"]
        command += ["--rate", str(self.size.rate), "--duration", f"{duration_s:g}s", "--languages", ",".join(LANGUAGES)]
        command += ["--mix", MIX, "--seed", str(random.Random(self.seed).randrange(2**31)), "--results", ""]
        with (self.folder / "sender.log").open("wb") as log:
            sender = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        poisoner = threading.Thread(target=self._send_poison, args=(sender,))
        poisoner.start()
        try:
            for share, kind in schedule(f"{self.seed}-world", self.size.world):
                self._wait_for_progress(share)
                self.say(f"{self.proxy.sent:,} sent, {self.proxy.processed:,} processed: {WORDS[kind]}")
                if kind == "plane":
                    self._kill_plane()
                else:
                    self._open_window(kind)
            sender.wait(self.size.longest_s)
        finally:
            sender.kill()
            sender.wait()
            poisoner.join()
        said = (self.folder / "sender.log").read_text(errors="replace")
        counts = {name: int(n) for name, n in re.findall(r"(accepted|failed|dropped|unknown|retried) (\d+)", said)}
        if (counts.get("accepted"), counts.get("failed")) != (total, 0):
            self.problems.append(f"the sender says {counts or said[-2000:]}, not accepted {total} and failed 0")

    def _wait_for_progress(self, share: float) -> None:
        """Until so much of the work is done; sending and processing count alike, so that faults hit both."""
        wanted = 2 * share * self.size.messages * len(LANGUAGES)
        wait_until(lambda: self.proxy.sent + self.proxy.processed >= wanted, self.size.longest_s)

    def _wait_for_sent(self, share: float, sender: "subprocess.Popen[bytes]") -> None:
        wanted = share * self.size.messages * len(LANGUAGES)
        wait_until(lambda: self.proxy.sent >= wanted or sender.poll() is not None, self.size.longest_s)

    def _send_poison(self, sender: "subprocess.Popen[bytes]") -> None:
        """Past the proxy: boto3 would give up on an emulator that refuses for seconds."""
        aws = Aws(endpoint_url=self.emulator_url)
        for i in range(self.size.poison):
            self._wait_for_sent(0.8 * i / self.size.poison, sender)
            for language in LANGUAGES:
                aws.sqs.send_message(QueueUrl=self.arms[language].queue_url, MessageBody=self.poison[language][i])
        aws.sqs.close()

    def _open_window(self, kind: Any) -> None:
        faults = {one: Fault(kind=kind, language=one, began_s=time.time()) for one in LANGUAGES}
        self.proxy.window = Window(kind, self.size.delay_s, faults)
        time.sleep(self._drawn.uniform(*self.size.window_s))
        with contextlib.suppress(AssertionError):  # none in all that time: the verdict says so
            wait_until(lambda: all(fault.calls.total() >= CALLS_AT_LEAST for fault in faults.values()), QUIET_S)
        self.proxy.window = None
        longest_s = self.size.delay_s[1] if kind == "delayed" else 0
        for fault in faults.values():
            fault.ended_s = time.time() + longest_s
            if fault.calls:
                fault.shown = ", ".join(f"{n} {action}" for action, n in fault.calls.items())
        self.proxy.faults += faults.values()
        time.sleep(longest_s)

    def _kill_plane(self) -> None:
        plane = self.up.stack.plane
        pids = [pid for one in LANGUAGES for pid in self.up.pids(one)]
        began_s = time.time()
        os.kill(plane.pid, signal.SIGKILL)
        faults = [
            Fault(kind="plane", language=one, began_s=began_s, hit=self.proxy.in_hand(one, began_s, self._visibility_s))
            for one in LANGUAGES
        ]
        self.proxy.order_again(began_s - float(self.size.parameters["Timeout"]) - 1)
        wait_until(lambda: not plane.alive, QUIET_S)
        wait_until(lambda: not any(map(exists, pids)), QUIET_S)
        self._use(self.up.stack.emulator, self._start_plane())
        for fault in faults:
            fault.ended_s = time.time()
            fault.shown = f"plane {plane.pid} and {len(pids)} environments are gone"
        self.proxy.faults += faults

    @property
    def _visibility_s(self) -> float:
        return float(self.size.parameters["VisibilityTimeout"])

    def _left(self) -> dict[str, tuple[int, int]]:
        """Messages in queue and dead-letter queue of each language, asked of the emulator."""
        found = {}
        for language, arm in self.arms.items():
            counts = [
                self.emulator.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
                for url in (arm.queue_url, arm.dead_letter_queue_url)
            ]
            depths = [
                sum(int(n) for name, n in each.items() if name.startswith("Approx") and "Messages" in name)
                for each in counts
            ]
            found[language] = (depths[0], depths[1])
        return found

    def _send_more(self) -> bool:
        """Sends a batch for each fault that has not happened to a language yet; False if all have.

        Where batches fall is chance. So the faults drawn from the seed may all have met messages that came again.
        """
        self._find_reports()
        sqs = Aws(endpoint_url=f"http://127.0.0.1:{self.proxy.port}").sqs
        happened = {(fault.language, fault.kind) for fault in self.proxy.faults if fault.shown}
        missing = {one: [kind for kind in self.kinds if (one, kind) not in happened] for one in LANGUAGES}
        for language, kinds in missing.items():
            self.proxy.order_only(language, kinds)
            for _ in range(len(kinds) * int(self.size.parameters["BatchSize"])):
                message = {"batch_id": f"more:{self._asked[language]}", "count": ITEMS, "size_bytes": SIZE_BYTES}
                sqs.send_message(
                    QueueUrl=self.arms[language].queue_url, MessageBody=json.dumps(message | {"label": MIX})
                )
                self._asked[language] += 1
        sqs.close()
        return any(missing.values())

    def _wait_until_quiet(self) -> None:
        """Until every fault has happened and the queues are empty.

        When only poison is left, it comes again at once until it is dead.
        """
        self.say("everything is sent; waiting until the queues are empty")
        deadline, told, hurried = time.monotonic() + self.size.longest_s, 0.0, False
        while True:
            left = self._left()
            if hurried and not any(queued for queued, _ in left.values()):
                return
            if time.monotonic() > deadline:
                self.problems.append(f"after {self.size.longest_s:.0f} s the queues still hold messages: {left}")
                return
            if not hurried and self.proxy.processed == self.proxy.sent and not self._send_more():
                hurried = True
                self.say("every good message is processed; poison is now visible again at once")
                for arm in self.arms.values():
                    self.emulator.sqs.set_queue_attributes(
                        QueueUrl=arm.queue_url, Attributes={"VisibilityTimeout": "0"}
                    )
            if time.monotonic() > told + 10:
                self.say("queued and dead-lettered: " + ", ".join(f"{one} {a} and {b}" for one, (a, b) in left.items()))
                told = time.monotonic()
            time.sleep(0.2)

    def _find_reports(self) -> None:
        """Finds the REPORT line of every fault of a batch, which shows that it happened."""
        wanted = {fault.request_id: fault for fault in self.proxy.faults if fault.kind in OF_A_BATCH}
        deadline = time.monotonic() + LOGS_S
        waits = True
        while waits and time.monotonic() < deadline:
            time.sleep(0.5)
            for language in LANGUAGES:
                for at_s, line in self._log_lines(language):
                    report = parse_report(line)
                    fault = None if report is None else wanted.get(report.request_id)
                    if (
                        report is not None
                        and fault is not None
                        and (report.status, report.error_type) == STATUS_OF[fault.kind]
                    ):
                        fault.shown = line.strip()
                        fault.ended_s = fault.ended_s or at_s
            waits = any(fault.shown is None and not fault.doubtful for fault in wanted.values())

    def _confirm(self) -> None:
        """Notes malformed answers whose messages did not come again."""
        for fault in self.proxy.faults:
            if fault.kind == "malformed" and fault.shown:
                again = {
                    receive.message_id
                    for receive in self.proxy.seen[fault.language].receives
                    if receive.count > 1 and receive.at_s > fault.began_s
                }
                not_again = set(fault.message_ids) - again
                if not_again:
                    self.problems.append(
                        f"{fault.language} answered {fault.order['answer']} to {len(fault.message_ids)} messages, and "
                        f"{len(not_again)} of them did not come again"
                    )

    def _log_lines(self, language: str) -> list[tuple[float, str]]:
        """When and what a function and its platform wrote, kept as evidence too."""
        pages = self.emulator.logs.get_paginator("filter_log_events").paginate(
            logGroupName=self.arms[language].log_group
        )
        lines = [(event["timestamp"] / 1000, event["message"]) for page in pages for event in page["events"]]
        text = "".join(f"{at_s:.3f} {line.rstrip()}\n" for at_s, line in lines)
        (self.folder / f"{language}.log").write_text(text)
        return lines

    def _judge(self, seconds: float) -> Result:
        lines, facts = [], {}
        for language in LANGUAGES:
            lost, twice, dead, facts[language] = self._count(language)
            for kind in (*self.kinds, *OF_THE_WORLD):
                line = self._line(kind, language, lost, twice, dead)
                lines.append(line)
                if not line.injected:
                    self.problems.append(f"{WORDS[kind]}: not shown to have happened to {language}")
        lines.sort(key=lambda line: (*OF_A_BATCH, *OF_THE_WORLD).index(line.kind))
        left_out = [kind for kind in OF_A_BATCH if kind not in self.kinds]
        for fault in self.proxy.faults:
            self.proxy.note(fault=msgspec.to_builtins(vars(fault), str_keys=True, builtin_types=(set, Counter)))
        return Result(
            seed=self.seed, problems=self.problems, lines=lines, facts=facts, left_out=left_out, seconds=seconds
        )

    def _count(self, language: str) -> tuple[set[str], set[str], set[str], dict[str, int]]:
        """Counts table and dead-letter queue; returns batch ids that lack items, were written twice, are dead."""
        seen, arm, asked = self.proxy.seen[language], self.arms[language], self._asked[language]
        pages = self.emulator.dynamodb.get_paginator("scan").paginate(TableName=arm.table_name, ConsistentRead=True)
        items = Counter[str]()
        strange = 0
        for item in (item for page in pages for item in page["Items"]):
            batch_id = item["pk"]["S"].removeprefix("batch_id#")
            items[batch_id] += 1
            seq = int(item["seq"]["N"])
            strange += not (
                batch_id in seen.sent
                and item["sk"]["S"] == f"seq#{seq}"
                and 0 <= seq < ITEMS
                and item["lang"]["S"] == language
                and item["payload"]["S"] == "x" * SIZE_BYTES
            )
        lost = {batch_id for batch_id in seen.sent if items[batch_id] < ITEMS}
        twice = {key[0].removeprefix("batch_id#") for key, n in seen.written.items() if n > 1}
        bodies = self._dead_letters(language)
        dead = {batch_id for batch_id in seen.sent if any(f'"{batch_id}"' in body for body in bodies)}
        facts = {
            "messages sent": len(seen.sent),
            "items": sum(items.values()),
            "lost items": sum(ITEMS - items[batch_id] for batch_id in lost),
            "items written twice": sum(n - 1 for n in seen.written.values()),
            "poison sent": len(self.poison[language]),
            "dead letters": len(bodies),
            "messages delivered again": len({r.message_id for r in seen.receives if r.count > 1}),
            "deliveries of a good message at most": self._most_deliveries(language),
            "puts that found their item": seen.found_there,
        }
        wrong = {
            f"{len(seen.sent)} messages were sent, not {asked}": len(seen.sent) != asked,
            f"{sum(items.values())} items are in the table, not {asked * ITEMS}": sum(items.values()) != asked * ITEMS,
            f"{len(lost)} messages lack items, such as {sorted(lost)[:3]}": bool(lost),
            f"{strange} items are not as they were asked for": bool(strange),
            f"{len(twice)} messages had items written twice, such as {sorted(twice)[:3]}": bool(twice),
            f"{len(bodies)} messages are dead letters, and they are not the {len(self.poison[language])} poison ones, "
            f"{len(dead)} of them good": Counter(bodies) != Counter(self.poison[language]),
        }
        self.problems += [f"{language}: {sentence}" for sentence, is_so in wrong.items() if is_so]
        return lost, twice, dead, facts

    def _dead_letters(self, language: str) -> list[str]:
        """Every body in the dead-letter queue, past the proxy."""
        bodies: dict[str, str] = {}
        while messages := self.emulator.sqs.receive_message(
            QueueUrl=self.arms[language].dead_letter_queue_url, MaxNumberOfMessages=10, VisibilityTimeout=600
        ).get("Messages"):
            bodies |= {message["MessageId"]: message["Body"] for message in messages}
        return list(bodies.values())

    def _most_deliveries(self, language: str) -> int:
        seen = self.proxy.seen[language]
        good = {message_id for ids in seen.sent.values() for message_id in ids}
        return max((receive.count for receive in seen.receives if receive.message_id in good), default=0)

    def _line(self, kind: Kind, language: str, lost: set[str], twice: set[str], dead: set[str]) -> Line:
        mine = [fault for fault in self.proxy.faults if (fault.kind, fault.language) == (kind, language)]
        shown = [fault for fault in mine if fault.shown]
        hit = set[str]().union(*(fault.hit for fault in shown))
        recoveries = [time for fault in shown if (time := self._recovery_s(fault)) is not None]
        return Line(
            kind=kind,
            language=language,
            ordered=len(mine),
            injected=len(shown),
            messages=len(hit),
            lost=len(hit & lost),
            duplicated=len(hit & twice),
            dead_lettered=len(hit & dead),
            recovery_s=(statistics.median(recoveries), max(recoveries)) if recoveries else None,
            calls=sum(fault.calls.total() for fault in shown),
        )

    def _recovery_s(self, fault: Fault) -> float | None:
        """From a fault's end until the last message it hit has left its queue; 0 if that was before."""
        done = [self.proxy.processed_s(fault.language, batch_id) for batch_id in fault.hit]
        if fault.ended_s is None or not done or None in done:
            return None
        return max(0.0, max(time for time in done if time is not None) - fault.ended_s)
