"""Events for the ingest functions as nobody should send them: hypothesis strategies of their bytes."""

import json
from typing import Final

from hypothesis import strategies as st

FIELDS: Final = ("batch_id", "size_bytes", "count", "label", "mode")
DEEP: Final = st.sampled_from([31, 32, 33, 40, 900]).flatmap(
    lambda depth: st.sampled_from(["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth])
)
NUMBERS: Final = st.one_of(
    st.sampled_from(
        [
            *(
                "0",
                "-0",
                "-1",
                "4096",
                "4097",
                "400000",
                "400001",
                "1.0",
                "-1.5",
                "1e2",
                "1E+2",
                "1e-2",
                "0.1e1",
                "1e999",
            ),
            *("01", "1.", ".5", "+1", "0x10", "NaN", "Infinity", "-Infinity", "1_0", "9" * 300, "-" + "1" * 25),
            *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616"),
        ]
    ),
    st.integers().map(str),
    st.floats().map(repr),
)
ANY_TEXT: Final = st.text(st.characters(exclude_categories=()), max_size=20)
"""Lone surrogates too."""
WORDS: Final = st.one_of(
    st.sampled_from(["b", "run:1", "a b", "", "\ufeff", "\ud800", "\udc00\ud800", "\U0001f600", "a" * 64, "a" * 65]),
    st.sampled_from(["a" * 256, "a" * 257, "é" * 256, "\x00", "\u2028", "<&>", "x" * 20_000]),
    st.text("ABz09._:-", min_size=1, max_size=12),
    ANY_TEXT,
)


@st.composite
def strings(draw: st.DrawFn, words: st.SearchStrategy[str] = WORDS) -> str:
    """JSON of a text: escaped or as it is, or with an escape JSON does not have."""
    text = draw(words)
    if draw(st.integers(0, 30)) == 0:
        return draw(st.sampled_from(['"\\x62"', '"\\u62"', '"a\tb"', '"a\nb"', "'b'", '"b', '"\\ud83d\\ud83d\\ude00"']))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(text)
    return json.dumps(text, ensure_ascii=draw(st.booleans()))


SCALARS: Final = st.one_of(NUMBERS, strings(), st.sampled_from(["true", "false", "null", "True", "undefined"]))
ANY_JSON: Final = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(strings(), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=6,
)
SPACES: Final = st.sampled_from(
    [""] * 120 + [" ", "\n", "\t\r", "\f", "\u00a0", "\ufeff", "\x00", "{}", ",", "/**/", "]"]
)
GOOD: Final = {
    "batch_id": st.text("ABz09._:-", min_size=1, max_size=12).map(json.dumps),
    "size_bytes": st.integers(1, 2000).map(str),
    "count": st.integers(1, 3).map(str),
    "label": st.just('"label"'),
    "mode": st.sampled_from(['"sequential"', '"concurrent"', '"batch"', '"batch"']),
}


@st.composite
def messages(draw: st.DrawFn) -> str:
    """A message that is good, or has a fault or two."""
    fields = {name: draw(value) for name, value in GOOD.items()}
    for name in draw(st.sets(st.sampled_from(["size_bytes", "label"]))):
        del fields[name]
    pairs = list(fields.items())
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        place = draw(st.integers(0, len(pairs) - 1))
        name, value = pairs[place]
        fault = draw(st.sampled_from(["value", "value", "value", "name", "missing", "twice", "deep"]))
        if fault == "value":
            pairs[place] = (name, draw(st.one_of(SCALARS, ANY_JSON)))
        elif fault == "name":
            pairs.append(
                (draw(st.one_of(WORDS, st.sampled_from(["Count", "batch_Id", "BATCH_ID", "Records "]))), value)
            )
        elif fault == "twice":
            pairs.append((name, draw(st.one_of(GOOD.get(name, SCALARS), SCALARS))))
        elif fault == "deep":
            pairs[place] = (name, draw(DEEP))
        elif name not in ("count", "batch_id") or draw(st.booleans()):  # a hundred items are the default
            pairs[place] = ("mode", '"batch"')
    pairs = draw(st.permutations(pairs))
    inner = ",".join(f"{draw(SPACES)}{json.dumps(name)}:{value}" for name, value in pairs)
    return f"{draw(SPACES)}{{{inner}}}{draw(SPACES)}"


BODIES: Final = st.one_of(messages(), messages(), messages(), ANY_JSON, ANY_TEXT, DEEP, st.just("x" * 100_000))
COUNTS: Final = st.one_of(
    st.sampled_from(
        ["1", "007", "0", "-1", "+1", " 1", "1_0", "", "1.0", "\u0661", "²", "9" * 18, "9" * 19, "9" * 5000]
    ),
    st.sampled_from(["0" * 30 + "1", "9223372036854775807", "9223372036854775808", "1795255200001"]),
    ANY_TEXT,
)
IDENTIFIERS: Final = st.one_of(
    st.uuids().map(str), st.sampled_from(["m", "<&>", "é", "\U0001f600", "\u2028", "m" * 100])
)
ODD_IDENTIFIERS: Final = st.one_of(IDENTIFIERS, st.sampled_from(["", "\ud800"]))


@st.composite
def records(draw: st.DrawFn, *, faulty: bool = False) -> str:
    """One element of ``Records``: as SQS sends it but for its texts, or with a member missing, wrong or there twice."""
    body = draw(BODIES)
    attributes = {name: json.dumps(draw(COUNTS)) for name in ("ApproximateReceiveCount", "SentTimestamp")}
    pairs = [
        ("messageId", json.dumps(draw(ODD_IDENTIFIERS if faulty else IDENTIFIERS))),
        ("receiptHandle", '"h"'),
        ("body", json.dumps(body)),
        ("attributes", "{" + ",".join(f'"{name}":{value}' for name, value in attributes.items()) + "}"),
        ("messageAttributes", "{}"),
        ("md5OfBody", '"0"'),
        ("eventSource", '"aws:sqs"'),
        ("eventSourceARN", '"arn:aws:sqs:us-east-1:000000000000:q"'),
        ("awsRegion", '"us-east-1"'),
    ]
    if faulty:
        place = draw(st.integers(0, len(pairs) - 1))
        name, _ = pairs[place]
        other = st.one_of(
            ANY_JSON, st.sampled_from(["null", "5", '""', "[]", "{}", '{"SentTimestamp":5}', '"aws:sns"'])
        )
        fault = draw(st.sampled_from(["value", "missing", "twice", "case", "case twice"]))
        if fault == "value":
            pairs[place] = (name, draw(other))
        elif fault == "missing":
            del pairs[place]
        elif fault == "twice":
            pairs.append((name, draw(other)))
        elif fault == "case":
            pairs[place] = (name.upper(), pairs[place][1])
        else:
            pairs.append((name.lower() if name != "body" else "BODY", draw(other)))
    return "{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}"


def sqs_event(elements: list[str], before: str = "", after: str = "") -> str:
    """An event with these records."""
    return f'{{{before}"Records":[{",".join(elements)}]{after}}}'


EVENTS: Final[st.SearchStrategy[bytes]] = st.one_of(
    st.builds(sqs_event, st.lists(records(), min_size=1, max_size=10)),
    st.builds(lambda good, odd: sqs_event([*good, odd]), st.lists(records(), max_size=3), records(faulty=True)),
    st.builds(
        sqs_event,
        st.lists(records(), max_size=2),
        st.sampled_from(["", '"batch_id":"b",', '"x":"\\ud800",', '"records":1,', '"Records":1,']),
        st.sampled_from(["", ',"Records":5', ',"Records":null', ',"records":[]', ',"\\u0052ecords":[]', ',"x":1']),
    ),
    messages(),
    ANY_JSON,
    st.one_of(ANY_JSON, records()).map(lambda value: f'{{"Records":{value}}}'),
    st.one_of(DEEP, DEEP.map(lambda value: f'{{"Records":[],"x":{value}}}')),
).map(lambda text: bytes(text, "utf-8"))
"""Events as text. What does not even have to be text: ``DAMAGED``."""


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    event: bytes = draw(EVENTS)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(event)))
        event = event[:at] + draw(st.binary(max_size=2)) + event[at + draw(st.integers(0, 2)) :]
    return event


DAMAGED: Final = st.one_of(_damaged(), st.binary(max_size=30))
