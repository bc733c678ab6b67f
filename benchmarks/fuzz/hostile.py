"""A function whose runtime client says everything in the wrong order; it stands in its package as ``bootstrap``.

Its events say how each invocation shall end (``final``) and with which ``seed`` it misbehaves before that. Where the
Runtime API answers otherwise than it must, it logs a line that begins with VIOLATION.
"""

import json
import os
import random
import socket
import sys
import time
from pathlib import Path

from attacks import ID, RUNTIME, Attacker, may_take_part, request  # type: ignore[import-not-found,unused-ignore]

ADDRESS = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
SEEDS = [bytes.fromhex(line) for line in (Path(__file__).parent / "seeds.txt").read_text().split()]
NEXT = request("GET", RUNTIME + "invocation/next")


def connect() -> socket.socket:
    """A new connection."""
    return socket.create_connection((ADDRESS[0], int(ADDRESS[1])), timeout=60)


def answer_on(connection: socket.socket) -> tuple[int, str, bytes]:
    """Status, request id and body of one answer; status 0 when the connection just ends."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        if not data:
            return 0, "", received
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return int(lines[0].split()[1]), headers.get("lambda-runtime-aws-request-id", ""), body


def call(data: bytes, *, expect: tuple[int, ...], pieces: int = 1) -> int:
    """Sends a request on a connection of its own and compares the answer's status."""
    with connect() as connection:
        size = -(-len(data) // pieces)
        try:
            for start in range(0, len(data), size):
                connection.sendall(data[start : start + size])
            status = answer_on(connection)[0]
        except ConnectionError:
            return -1  # the refusal was lost with the rest of the request
    if expect and status not in expect:
        print(f"VIOLATION {status} and not {expect} to {data[:200]!r}", flush=True)
    return status


def post(path: str, body: bytes = b"{}", *headers: str) -> bytes:
    """A call of the Runtime API."""
    made: bytes = request("POST", RUNTIME + path, body, *headers)
    return made


def misbehave(dice: random.Random, request_id: str) -> None:
    """One step that must not change what becomes of the invocation."""
    match dice.randrange(7):
        case 0:
            call(post(f"invocation/{ID}/response"), expect=(400,))
        case 1:
            call(post("invocation//error"), expect=(400,))
        case 2:
            call(NEXT, expect=(403,))
        case 3:
            call(post("init/error"), expect=(403,))
        case 4:  # the beginning of an answer
            with connect() as connection:
                connection.sendall(post(f"invocation/{request_id}/response", b"1" * 1000)[: -dice.randint(1, 900)])
        case 5:
            head = f"POST {RUNTIME}invocation/{request_id}/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            call(head.encode() + b"5\r\n[1]\r\nz\r\n", expect=(400,))
        case _:
            attack(dice, ID)


def attack(dice: random.Random, request_id: str) -> None:
    """A spoilt conversation, about this invocation or one that is not."""
    data = b"".join(Attacker(dice, SEEDS, NEXT).mutation().pieces).replace(ID.encode(), request_id.encode())
    if may_take_part(data):
        return
    with connect() as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass


def finish(dice: random.Random, event: dict[str, str], request_id: str) -> None:
    """Ends an invocation as its event says."""
    body = json.dumps(event).encode()
    response, error = post(f"invocation/{request_id}/response", body), post(f"invocation/{request_id}/error", body)
    match event["final"]:
        case "answer":
            call(response, expect=(202,), pieces=dice.choice((1, 2, 50)))
        case "error":
            call(error, expect=(202,))
        case "wild":
            attack(dice, request_id)  # which may contain an answer, so that this one comes too late
            call(response, expect=(202, 403))
        case "exit":
            os._exit(7)
        case "silent":
            time.sleep(60)
    for again in dice.sample([response, error, post("init/error")], k=dice.randint(0, 3)):
        call(again, expect=(403,))


def main() -> None:
    """Its whole life."""
    call(post(f"invocation/{ID}/response"), expect=(400,))
    call(post(f"invocation/{ID}/error"), expect=(400,))
    connection = connect()
    while True:
        connection.sendall(NEXT)
        status, request_id, body = answer_on(connection)
        if status != 200:
            sys.exit(f"VIOLATION next was answered with {status}")
        event = json.loads(body)
        dice = random.Random(event["seed"])  # noqa: S311 - no secret
        for _ in range(dice.randint(0, 6)):
            misbehave(dice, request_id)
        finish(dice, event, request_id)
        if dice.random() < 0.5:
            connection.close()
            connection = connect()


main()
