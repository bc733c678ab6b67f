"""One run: attackers on many connections, callers that check every answer, and what the plane's process holds."""

import asyncio
import base64
import contextlib
import json
import random
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.fuzz.attacks import PIPELINE_LIMIT, SLOW_PIECES, Attack, Attacker, may_take_part, request
from benchmarks.fuzz.world import ECHOES, HOSTILE, Victim

ATTACKERS: Final = 12
HALF_OPEN: Final = 64
"""Connections held at a time whose requests come byte by byte (slowloris)."""
SLOW_S: Final = 4.0
"""How long one of these takes."""
HANG_S: Final = 30.0
"""An answer or an end of a connection that takes longer, on a machine that does other things too, is a hang."""
REFRESH_S: Final = 2.0
LEFT_DESCRIPTORS: Final = 8
ENVIRONMENT_DESCRIPTORS: Final = 6
"""What one environment holds at most: a listener, its client's connections, its output, its process."""
GROWTH_MB: Final = 32.0
"""What resident memory may be above its highest of the second quarter, in the last one."""
GROWTH_SEEN_S: Final = 120
"""A shorter run says nothing of growth."""
UNANSWERED: Final = (TimeoutError, ConnectionError, asyncio.IncompleteReadError)
INVOKE: Final = "/2015-03-31/functions/{}/invocations"
STATUS: Final = request("GET", "/_lambdalab/status")
NOTHING: Final = request("GET", "/_lambdalab/nothing")
PING: Final = request("GET", "/ping")
CALLERS_SAY: Final = [
    STATUS,
    *(request("POST", INVOKE.format(name), b'{"a": [1, "\xc3\xa4"]}', "X-Amz-Log-Type: Tail") for name in ECHOES),
    request("POST", INVOKE.format(ECHOES[0]), b"{}", "X-Amz-Invocation-Type: DryRun"),
    request("POST", INVOKE.format(ECHOES[1]), b"{}", "X-Amz-Invocation-Type: Event"),
    request("POST", INVOKE.format(ECHOES[0]) + "?Qualifier=$LATEST", b"{}", "X-Amz-Client-Context: eyJhIjogMX0="),
    request("POST", INVOKE.format("arn:aws:lambda:us-east-1:000000000000:function:fuzz-go"), b"1" * 500),
    request("POST", INVOKE.format("absent"), b"{}"),
    request("POST", f"/_lambdalab/functions/{ECHOES[0]}/recycle"),
    request("GET", f"/2015-03-31/functions/{ECHOES[0]}/configuration"),
]
FINALS: Final = ("answer",) * 10 + ("error",) * 4 + ("wild",) * 6 + ("exit",) * 2 + ("silent",)


@dataclass
class Findings:
    """What was done and what was wrong."""

    attacks: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    rss_mb: list[tuple[float, float]] = field(default_factory=list)
    """(seconds since the beginning, MB)."""
    descriptors: list[int] = field(default_factory=list)

    def peak_mb(self, first: float, last: float) -> float:
        """The highest resident memory between two fractions of the run."""
        end_s = self.rss_mb[-1][0]
        return max(mb for s, mb in self.rss_mb if first * end_s <= s <= last * end_s)

    def growth(self) -> str | None:
        """What is wrong with the memory it held in the last quarter, if anything is."""
        early, late = self.peak_mb(0.25, 0.5), self.peak_mb(0.75, 1)
        if late <= early + GROWTH_MB:
            return None
        return f"memory grows: {early:.0f} MB in the second quarter, {late:.0f} MB in the last"


class Campaign:
    """Attacks on one plane, the same ones for the same seed as far as scheduling allows.

    Args:
        victim: the plane.
        recordings: requests to spoil.
        seed: of the attacks.
        hang_s: what takes longer is a hang.
        enough: when to end before the time is over.
    """

    def __init__(
        self,
        victim: Victim,
        recordings: Sequence[bytes],
        seed: int,
        hang_s: float = HANG_S,
        enough: Callable[[Findings], bool] = lambda _: False,
    ) -> None:
        self._victim = victim
        self._recordings = recordings
        self._seed = seed
        self._hang_s = hang_s
        self._enough = enough
        self._ports: list[int] = []
        self.found = Findings()

    async def run(self, seconds: float) -> Findings:
        """Attacks for so long, then looks whether the plane is as it was."""
        for name in ECHOES:
            await self._echo(name, "first")
        environments = _environments(await self._look())
        descriptors = self._victim.descriptors()
        began = time.monotonic()
        stop = asyncio.Event()
        work = [self._attack_until(stop, number) for number in range(ATTACKERS)]
        work += [self._echo_until(stop, name) for name in ECHOES]
        work += [self._hold_until(stop, number) for number in range(HALF_OPEN)]
        work += [self._provoke_until(stop), self._watch_until(stop, began)]
        running = [asyncio.create_task(one) for one in work]
        await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await asyncio.gather(*running)
        if self._victim.plane.alive:
            await self._conclude(descriptors, environments)
        else:
            self.found.problems.append("the plane ended")
        self.found.problems += (f"the plane logged: {line}" for line in self._victim.troubles())
        if seconds >= GROWTH_SEEN_S and (growth := self.found.growth()) is not None:
            self.found.problems.append(growth)
        return self.found

    async def _conclude(self, descriptors: int, environments: int) -> None:
        for name in ECHOES:
            await self._echo(name, "last")
        deadline = time.monotonic() + self._hang_s
        while True:
            try:
                status = await self._look()
            except UNANSWERED as error:
                self.found.problems.append(f"the status was not answered: {error!r}")
                return
            allowed = descriptors + LEFT_DESCRIPTORS
            allowed += ENVIRONMENT_DESCRIPTORS * max(0, _environments(status) - environments)
            waiting = sum(function["events"]["waiting"] for function in status["functions"].values())
            if (self._victim.descriptors() <= allowed and not waiting) or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        self.found.descriptors.append(self._victim.descriptors())
        if self.found.descriptors[-1] > allowed:
            self.found.problems.append(f"{self.found.descriptors[-1]} descriptors stay open of {allowed} explained")
        if waiting:
            self.found.problems.append(f"{waiting} asynchronous events stay waiting")

    async def _attack_until(self, stop: asyncio.Event, number: int) -> None:
        dice = random.Random(f"{self._seed}/{number}")  # noqa: S311 - no secret
        seeds = CALLERS_SAY * 3 + list(self._recordings)
        on_callers = Attacker(dice, seeds, NOTHING)
        on_runtime = Attacker(dice, self._recordings, PING)
        while not stop.is_set():
            runtime = bool(self._ports) and dice.random() < 0.5
            attack = (on_runtime if runtime else on_callers).attack()
            if runtime and may_take_part(b"".join(attack.pieces)):
                continue
            port = dice.choice(self._ports) if runtime else self._victim.plane.port
            self.found.attacks[attack.kind] += 1
            try:
                await asyncio.wait_for(self._strike(attack, port), self._hang_s)
            except TimeoutError:
                where = "Runtime API" if runtime else "Invoke API"
                sent = b"".join(attack.pieces)
                self.found.problems.append(f"{where} hangs: {attack.kind}, {len(sent)} bytes: {sent[:300]!r}")

    async def _hold_until(self, stop: asyncio.Event, number: int) -> None:
        attacker = Attacker(random.Random(f"{self._seed}/hold/{number}"), self._recordings, PING)  # noqa: S311
        while not stop.is_set():
            attack = attacker.slow()
            self.found.attacks[attack.kind] += 1
            ports = [self._victim.plane.port, *self._ports]
            with contextlib.suppress(TimeoutError):  # the attackers tell of a hang
                await asyncio.wait_for(self._strike(attack, ports[number % len(ports)]), self._hang_s + SLOW_S)

    async def _strike(self, attack: Attack, port: int) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:  # an environment that was just recycled
            await asyncio.sleep(0.01)
            return
        received = b""
        try:
            received = await self._converse(attack, reader, writer)
        except OSError:  # it was refused and closed in the middle
            pass
        except asyncio.CancelledError:  # it hangs; what it does not read would keep the connection open
            writer.transport.abort()
            raise
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        statuses = list(map(int, re.findall(rb"HTTP/1\.1 (\d{3}) ", received)))
        self.found.statuses.update(statuses)
        if attack.statuses is not None and not set(statuses) <= set(attack.statuses):
            self.found.problems.append(f"{attack.kind} was answered {statuses} and not {attack.statuses}")

    async def _converse(self, attack: Attack, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        for piece in attack.pieces:
            writer.write(piece)
            if writer.is_closing():  # it was refused
                break
            await asyncio.sleep(SLOW_S / SLOW_PIECES if attack.ending == "drip" else 0)
        match attack.ending:
            case "eof":
                await writer.drain()
                writer.write_eof()
                return await reader.read()
            case "refused":
                return await reader.read()
            case "count":
                return await self._counted(attack, reader)
            case "deaf":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(writer.drain(), 0.2)  # it may rightly stop reading, too
                writer.transport.abort()
            case "reset":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return b""

    async def _counted(self, attack: Attack, reader: asyncio.StreamReader) -> bytes:
        assert attack.answers is not None
        received = b""
        while received.count(b"HTTP/1.1 ") < attack.answers and (data := await reader.read(65536)):
            received += data
        answers = received.count(b"HTTP/1.1 200 ") + received.count(b"HTTP/1.1 404 ")
        if attack.answers <= PIPELINE_LIMIT and answers != attack.answers:
            self.found.problems.append(f"{answers} of {attack.answers} requests at once were answered")
        return received

    async def _echo_until(self, stop: asyncio.Event, name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await self._echo(name, "\u00e4" * (number % 3000))

    async def _echo(self, name: str, text: str) -> None:
        event = {"name": name, "text": text}
        status, headers, body = await self._invoke(name, event)
        self.found.answered[name] += 1
        if status != 200 or "x-amz-function-error" in headers or _value(body) != event:
            self.found.problems.append(f"{name} answered {status} {headers} {body[:300]!r}")

    async def _provoke_until(self, stop: asyncio.Event) -> None:
        dice = random.Random(f"{self._seed}/provoke")  # noqa: S311 - no secret
        while not stop.is_set():
            event = {"seed": str(dice.random()), "final": dice.choice(FINALS)}
            status, headers, body = await self._invoke(HOSTILE, event)
            self.found.answered[f"{HOSTILE}: {event['final']}"] += 1
            logged = base64.b64decode(headers.get("x-amz-log-result", "")).decode(errors="replace")
            if status != 200 or "VIOLATION" in logged or not _is_as_provoked(event, headers, body):
                self.found.problems.append(
                    f"{event} ended with {status} {headers} {body[:300]!r}; it logged:\n{logged}"
                )

    async def _invoke(self, name: str, event: object) -> tuple[int, dict[str, str], bytes]:
        sent = request("POST", INVOKE.format(name), json.dumps(event).encode(), "X-Amz-Log-Type: Tail")
        try:
            return await asyncio.wait_for(self._call(sent), 2 * self._hang_s)
        except (*UNANSWERED, ValueError) as error:
            self.found.problems.append(f"{name} was not answered: {error!r}")
            return 0, {}, b"null"

    async def _call(self, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._victim.plane.port)
        try:
            writer.write(sent)
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _watch_until(self, stop: asyncio.Event, began: float) -> None:
        while not stop.is_set() and self._victim.plane.alive and not self._enough(self.found):
            self.found.rss_mb.append((time.monotonic() - began, self._victim.rss_mb()))
            self.found.descriptors.append(self._victim.descriptors())
            if len(self.found.rss_mb) % 10 == 1:
                with contextlib.suppress(*UNANSWERED):  # the functions' callers see that too
                    await self._look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), REFRESH_S / 10)

    async def _look(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads((await asyncio.wait_for(self._call(STATUS), self._hang_s))[2])
        self._ports = self._victim.runtime_ports(status)
        return status


def _environments(status: dict[str, Any]) -> int:
    return sum(function["environments"] for function in status["functions"].values())


def _is_as_provoked(event: dict[str, str], headers: dict[str, str], body: bytes) -> bool:
    """Whether the hostile function's invocation ended as it was told to."""
    failed, value = "x-amz-function-error" in headers, _value(body)
    kind = value.get("errorType") if isinstance(value, dict) else None
    match event["final"]:
        case "answer":
            return not failed and value == event
        case "error":
            return failed and value == event
        case "exit":
            return failed and kind == "Runtime.ExitError"
        case "silent":
            return failed and kind == "Sandbox.Timedout"
    return True


def _value(body: bytes) -> object:
    """JSON as what it says, anything else as it is."""
    try:
        return json.loads(body)
    except ValueError:
        return body
