"""What is sent: bytes that no client would send, made from what clients do send.

It is packed into the hostile function too, which attacks the Runtime API from within, so it imports Python's own only.
"""

import random
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ID: Final = "00000000-0000-4000-8000-000000000000"
"""Stands for the id of an invocation in a seed."""
HEAD_LIMIT_BYTES: Final = 1024 * 1024
PIPELINE_LIMIT: Final = 100
SLOW_PIECES: Final = 20
BODY_LIMIT_BYTES: Final = 16 * 1024 * 1024
RUNTIME: Final = "/2018-06-01/runtime/"
TOKENS: Final = (
    *(b"\r\n", b"\n", b"\r", b"\x00", b":", b" ", b"\t", b"\xff", b";", b",", b"[", b"%00", b"-1", b"0\r\n\r\n"),
    *(b"HTTP/1.0", b"HTTP/2.0", b"HEAD ", b"CONNECT ", b"OPTIONS * ", b"http://[", b"ffffffffffffffff\r\n"),
    *(b"Content-Length: 0\r\n", b"Content-Length: 99999999999999999999\r\n", b"Connection: close\r\n", b"Host:\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Expect: 100-continue\r\n"),
    *(b"Upgrade: x\r\nConnection: upgrade\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    *(b"X-Amz-Client-Context: e30=\r\n", b"X-Amz-Invocation-Type: Nonsense\r\n"),
)


@dataclass(frozen=True)
class Attack:
    """One connection: what is sent, in which pieces, and how it ends."""

    kind: str
    pieces: Sequence[bytes]
    ending: str = "eof"
    """``eof``: says it has no more and waits for the end; ``refused``: only waits for it; ``count``: waits for the
    answers; ``deaf``: reads none; ``leave``: closes; ``reset``: breaks off; ``drip``: sends slowly, then closes."""
    answers: int | None = None
    """How many answers have to come, where that is known."""
    statuses: Sequence[int] | None = None
    """What every answer must be, where that is known."""


def recorded(folder: Path) -> list[bytes]:
    """What clients said in the recorded conversations, with ``ID`` for the invocation's id."""
    seeds: dict[bytes, None] = {}
    for path in sorted(folder.glob("*/*.txt")):
        turn: list[str] = []
        for line in [*path.read_text().splitlines(), "end"]:
            if line.startswith(">"):
                turn.append(line[2:])
            elif turn:
                seeds["\r\n".join(map(_filled, turn)).encode("latin-1", "replace")] = None
                turn = []
    return list(seeds)


def _filled(line: str) -> str:
    line = re.sub(r"«(.) x (\d+)»", lambda run: run[1] * min(int(run[2]), 2000), line.replace("«request id»", ID))
    return re.sub("«[^»]*»", "9", line)


def may_take_part(data: bytes) -> bool:
    """Whether these bytes may hold a call by which any process of a function takes its part: that is no attack."""
    plain = re.sub(rb"[\t\r\n]", b"", data)  # which do not count in a URL
    return b"invocation/next" in plain or b"init/error" in plain


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """A request as it should be."""
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Attacker:
    """Makes attacks, the same ones for the same seed.

    Args:
        dice: the source of chance.
        seeds: requests to spoil.
        plain: a request that has one answer, at once.
    """

    def __init__(self, dice: random.Random, seeds: Sequence[bytes], plain: bytes) -> None:
        self._dice = dice
        self._seeds = seeds
        self._plain = plain
        self._large = request("POST", f"{RUNTIME}invocation/{ID}/response", b"x" * 1024 * 1024)
        self._kinds = (
            [self.mutation] * 12
            + [self.random_bytes, self.truncation, self.wrong_chunks, self.wrong_length, self.wrong_order] * 3
            + [self.pipeline, self.break_off, self.deaf] * 2
            + [self.giant_head, self.giant_body, self.queue]
        )

    def attack(self) -> Attack:
        """The next one."""
        return self._dice.choice(self._kinds)()

    def mutation(self) -> Attack:
        """A valid request, or some, then spoilt."""
        data = bytearray(b"".join(self._dice.choices(self._seeds, k=self._dice.choice((1, 1, 1, 2, 3)))))
        for _ in range(self._dice.randint(1, 6)):
            self._spoil(data)
        return Attack("mutation", self._cut(bytes(data)), self._dice.choice(("eof", "eof", "leave")))

    def random_bytes(self) -> Attack:
        """No HTTP at all."""
        return Attack("random bytes", self._cut(self._dice.randbytes(self._dice.randint(1, 5000))))

    def truncation(self) -> Attack:
        """The beginning of a request."""
        seed = self._dice.choice(self._seeds)
        return Attack("truncated", [seed[: self._dice.randrange(len(seed))]], self._dice.choice(("eof", "leave")))

    def wrong_chunks(self) -> Attack:
        """Chunks whose sizes are not those of their data."""
        head = f"POST {RUNTIME}invocation/{ID}/response HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = bytearray()
        for _ in range(self._dice.randint(1, 8)):
            size = self._dice.choice((0, 1, 7, 100, 4096))
            said = self._dice.choice((size, size + 1, max(size - 1, 0), 2**31, 2**63, 2**64, 2**70))
            chunks += self._dice.choice((b"%x", b"%X;a=b", b"0%x", b"-%x", b" %x", b"0x%x")) % said
            chunks += (
                self._dice.choice((b"\r\n", b"\r\n", b"\n")) + b"c" * size + self._dice.choice((b"\r\n", b"\r\n", b""))
            )
        return Attack("wrong chunks", self._cut(head.encode() + bytes(chunks) + b"0\r\n\r\n"))

    def wrong_length(self) -> Attack:
        """A Content-Length that is not the body's."""
        said = self._dice.choice(("-1", "1e3", "0x10", "18446744073709551616", "3, 3", "", " 5 5", "1000000"))
        head = f"POST {RUNTIME}invocation/{ID}/response HTTP/1.1\r\nHost: x\r\nContent-Length: {said}\r\n\r\n"
        return Attack("wrong length", self._cut(head.encode() + b"[1]" * self._dice.randint(0, 20)))

    def wrong_order(self) -> Attack:
        """Valid calls of the Runtime API that nobody waits for, on one connection."""
        calls = [f"invocation/{self._dice.choice((ID, 'x', '', '%2e%2e'))}/{end}" for end in ("response", "error")]
        pieces = [
            request("POST", RUNTIME + self._dice.choice(calls), b"{}")
            for _ in range(self._dice.randint(1, PIPELINE_LIMIT))
        ]
        return Attack("wrong order", pieces, "eof")

    def pipeline(self) -> Attack:
        """Many requests at once, all to be answered; or more than may wait."""
        count = self._dice.choice((2, 10, PIPELINE_LIMIT, 4 * PIPELINE_LIMIT))
        return Attack("pipeline", [self._plain * count], "count", answers=count)

    def queue(self) -> Attack:
        """Large requests behind each other, by somebody who leaves before the answers."""
        count = self._dice.randint(1, 25)
        return Attack("queue", [*self._cut(self._dice.choice(self._seeds)), *[self._large] * count], "leave")

    def slow(self) -> Attack:
        """A request that comes byte by byte and never to its end (slowloris)."""
        seed = self._dice.choice(self._seeds)
        start = self._dice.randrange(len(seed))
        return Attack(
            "slow",
            [seed[:start], *(seed[i : i + 1] for i in range(start, min(start + SLOW_PIECES, len(seed) - 1)))],
            "drip",
        )

    def break_off(self) -> Attack:
        """The connection is reset in the middle of a request, or of its answer."""
        seed = self._dice.choice(self._seeds)
        return Attack("reset", [seed[: self._dice.randint(1, len(seed))]], "reset")

    def deaf(self) -> Attack:
        """Requests by somebody who reads no answer."""
        return Attack("deaf", [self._plain * PIPELINE_LIMIT] * self._dice.randint(1, 40), "deaf")

    def giant_head(self) -> Attack:
        """Headers, a path or a trailer around and far above the limit."""
        size = self._dice.choice(
            (HEAD_LIMIT_BYTES // 2, HEAD_LIMIT_BYTES - 100, HEAD_LIMIT_BYTES + 1, 2 * HEAD_LIMIT_BYTES)
        )
        filler = self._dice.choice((b"a", b"X: a\r\n", b"%41", b"\xe4")) * size
        data = self._dice.choice(
            (
                b"GET /" + filler[:size] + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nY: " + filler[:size] + b"\r\n\r\n",
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nY: " + filler[:size] + b"\r\n\r\n",
            )
        )
        if size > HEAD_LIMIT_BYTES:  # that has to be refused before it has come to an end
            return Attack("giant head", [data[:-4]], "refused", statuses=(400, 431))
        return Attack("giant head", [data], self._dice.choice(("eof", "leave")))

    def giant_body(self) -> Attack:
        """A body above what is kept, as one or in chunks."""
        size = self._dice.choice((7 * 1024 * 1024, BODY_LIMIT_BYTES, BODY_LIMIT_BYTES + 1))
        path = f"{RUNTIME}invocation/{ID}/response"
        if self._dice.random() < 0.5:
            return Attack("giant body", [request("POST", path, b"x" * size)])
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        return Attack("giant body", [head, *[chunk] * (size // 65536), b"0\r\n\r\n"])

    def _spoil(self, data: bytearray) -> None:
        at = self._dice.randrange(len(data) + 1)
        match self._dice.randrange(8):
            case 0 | 1:
                data[at:at] = self._dice.choice(TOKENS)
            case 2:
                del data[at : at + self._dice.randint(1, 20)]
            case 3 if at < len(data):
                data[at] = self._dice.randrange(256)
            case 4:
                data[at:at] = data[at : at + self._dice.randint(1, 40)]
            case 5:
                data[at:at] = self._dice.randbytes(self._dice.randint(1, 8))
            case 6:
                number = re.search(rb"\d+", data[at:])
                if number is not None:
                    start = at + number.start()
                    data[start : start + len(number[0])] = self._dice.choice((b"0", b"1", b"-1", b"65536", b"9" * 30))
            case _:
                letter = self._dice.choice(string.printable).encode()
                data[at:at] = letter * self._dice.choice((1, 10, 5000))

    def _cut(self, data: bytes) -> list[bytes]:
        cuts = sorted(self._dice.randrange(len(data) + 1) for _ in range(self._dice.choice((0, 0, 1, 3, 10))))
        return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
