"""Thousands of odd messages through both parsers: every outcome must be the same to the letter."""

import base64
import json
import os
import random
import subprocess
from dataclasses import asdict
from pathlib import Path

from errors import IngestError
from message import parse_text

from lambdalab.tools import search_path

GO_SOURCE = Path(__file__).parents[2] / "src/go/ingest"
SEED = 20261121
COUNT = 3000

NAMES = [
    "batch_id", "size_bytes", "count", "label", "mode",
    "Count", "batch_Id", "x", "\\u0063ount", "", "é", "😀", "\uffff",
]  # fmt: skip
VALUES = [
    "1", "100", "0", "-1", "-0", "4096", "4097", "400000", "400001", "1.0", "1e2", "1E+2", "0.1e1", "1e999", "01", "1.",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "9" * 5000, "-" + "1" * 25,
    "true", "false", "null", "NaN", "Infinity", "-Infinity", "[]", "{}", "[1]", '{"a":1}', '{"a":1,"a":2}',
    '""', '"b"', '"run:1"', '"a b"', '"b\\n"', '"\\u0062"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\ude00\\ud83d"',
    '"\\\\ud800"', '"\\ud800\\\\"', '"\u0661"', '"é"', '"\ufeff"', '"sequential"', '"concurrent"', '"batch"', '"Batch"',
    '"' + "a" * 64 + '"', '"' + "a" * 65 + '"', '"' + "a" * 256 + '"', '"' + "a" * 257 + '"',
    "[" * 31 + "]" * 31, "[" * 32 + "]" * 32, "[" * 2000 + "]" * 2000, "[" * 12000 + "]" * 12000,
]  # fmt: skip
SPACES = ["", "", "", " ", "\n", "\t", "\r", "\f", "\u00a0", "\u2028", "\ufeff", "\x00"]
BYTES = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"u", b"0", b"e", b".", b"-", b"\n", b"\xff", b"\xed\xa0\x80"]


def odd_body(chance: random.Random) -> bytes:
    """Make a message of likely and unlikely parts, then perhaps damage its bytes."""

    def space() -> str:
        return chance.choice(SPACES) if chance.random() < 0.05 else ""

    fields = ['"batch_id":"b"'] if chance.random() < 0.7 else []
    fields += [
        f'{space()}"{chance.choice(NAMES[:5] if chance.random() < 0.8 else NAMES)}"{space()}:{chance.choice(VALUES)}'
        for _ in range(chance.randrange(4))
    ]
    chance.shuffle(fields)
    body = f"{space()}{{{','.join(fields)}}}{space()}".encode()
    for _ in range(chance.choice([0, 0, 0, 1, 2])):
        at = chance.randrange(len(body) + 1)
        body = body[:at] + chance.choice([b"", *BYTES]) + body[at + chance.randrange(3) :]
    return body


def python_outcome(body: bytes) -> dict[str, object]:
    try:
        return {"message": asdict(parse_text(body.decode("utf-8", "surrogateescape")))}
    except IngestError as error:
        return {"error": error.as_dict()}


def test_both_parsers_agree_on_odd_messages(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    bodies = [odd_body(chance) for _ in range(COUNT)]
    bodies_file, outcomes_file = tmp_path / "bodies", tmp_path / "outcomes"
    bodies_file.write_bytes(b"".join(base64.b64encode(body) + b"\n" for body in bodies))
    subprocess.run(
        ["go", "test", "-count=1", "-run=^TestOutcomes$", "./internal/ingest"],
        cwd=GO_SOURCE,
        env=os.environ
        | {"PATH": search_path(), "INGEST_BODIES": str(bodies_file), "INGEST_OUTCOMES": str(outcomes_file)},
        check=True,
        timeout=300,
    )
    go_outcomes = [json.loads(line) for line in outcomes_file.read_text(encoding="utf-8").splitlines()]
    python_outcomes = [python_outcome(body) for body in bodies]
    assert len(go_outcomes) == COUNT
    differing = [
        (body[:200], in_python, in_go)
        for body, in_python, in_go in zip(bodies, python_outcomes, go_outcomes, strict=True)
        if in_python != in_go
    ]
    assert differing == []
    codes = {str(outcome["error"]["code"]) for outcome in go_outcomes if "error" in outcome}
    assert codes == {
        "InvalidJson", "UnknownField", "MissingField", "InvalidType", "InvalidValue",
    }  # fmt: skip
    assert sum("message" in outcome for outcome in go_outcomes) > COUNT // 20
