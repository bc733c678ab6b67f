"""What contracts/emf.schema.json takes and what it refuses: Amazon's own example, and that with one thing wrong."""

import json
from copy import deepcopy
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sam_template import ROOT

SCHEMA = json.loads((ROOT / "contracts/emf.schema.json").read_text())
EXAMPLE: dict[str, Any] = {
    "_aws": {
        "Timestamp": 1574109732004,
        "CloudWatchMetrics": [
            {
                "Namespace": "lambda-function-metrics",
                "Dimensions": [["functionVersion"]],
                "Metrics": [{"Name": "time", "Unit": "Milliseconds", "StorageResolution": 60}],
            }
        ],
    },
    "functionVersion": "$LATEST",
    "time": 100,
    "requestId": "989ffbf8-9ace-4817-a57c-e4dd734019ee",
}
DIRECTIVE = ("_aws", "CloudWatchMetrics", 0)
METRIC = (*DIRECTIVE, "Metrics", 0)
TAKEN: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "an empty set of dimensions": ((*DIRECTIVE, "Dimensions"), [[]]),
    "thirty dimensions": ((*DIRECTIVE, "Dimensions"), [["d"] * 30]),
    "a hundred metrics": ((*DIRECTIVE, "Metrics"), [{"Name": "m"}] * 100),
    "no directive": (("_aws", "CloudWatchMetrics"), []),
    "high resolution": ((*METRIC, "StorageResolution"), 1),
}
REFUSED: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "no time": (("_aws",), {"CloudWatchMetrics": []}),
    "a time in words": (("_aws", "Timestamp"), "2019-11-18"),
    "no dimension sets": ((*DIRECTIVE, "Dimensions"), []),
    "dimensions without a set": ((*DIRECTIVE, "Dimensions"), ["functionVersion"]),
    "31 dimensions": ((*DIRECTIVE, "Dimensions"), [["d"] * 31]),
    "a long name of a dimension": ((*DIRECTIVE, "Dimensions"), [["d" * 251]]),
    "no namespace": ((*DIRECTIVE, "Namespace"), ""),
    "101 metrics": ((*DIRECTIVE, "Metrics"), [{"Name": "m"}] * 101),
    "a metric without a name": ((*DIRECTIVE, "Metrics"), [{"Unit": "Count"}]),
    "a long name of a metric": ((*METRIC, "Name"), "m" * 1025),
    "a unit of our own": ((*METRIC, "Unit"), "ms"),
    "another resolution": ((*METRIC, "StorageResolution"), 5),
    "a member of our own in _aws": (("_aws", "RunId"), "a"),
    "a member of our own in a metric": ((*METRIC, "unit"), "Count"),
}


def changed(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    document: Any = deepcopy(EXAMPLE)
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return dict(document)


@pytest.mark.parametrize("document", [EXAMPLE, *(changed(*change) for change in TAKEN.values())], ids=["it", *TAKEN])
def test_what_is_embedded_metric_format_is_taken(document: dict[str, Any]) -> None:
    Draft202012Validator(SCHEMA).validate(document)


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_what_is_not_is_refused(change: tuple[tuple[str | int, ...], Any]) -> None:
    assert not Draft202012Validator(SCHEMA).is_valid(changed(*change))
