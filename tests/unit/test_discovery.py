"""Functions found by prefix: what becomes of configuration, variables and tags; the client answers as AWS does."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from sample_factorial import make_manifest

from lambdalab.aws.clients import Aws
from lambdalab.design.cells import FactorialProtocol
from lambdalab.errors import LambdalabError, ProtocolError, UsageError
from lambdalab.planning.call_protocol import load_protocol
from lambdalab.run.discovery import discover
from lambdalab.scenario.found import call_scenario

EVENTS = {"WORKLOAD": "events", "BATCH_EVENTS": "10", "EVENT_BYTES": "1024", "OUTPUT_BUCKET": "b"}
BATCH = {"WORKLOAD": "batch", "OBJECT_MB": "100", "MULTIPART_MB": "8", "PARALLELISM": "2"}


def function(name: str, variables: dict[str, str], **changes: Any) -> dict[str, Any]:
    found = {
        "FunctionName": name,
        "FunctionArn": f"arn:{name}",
        "MemorySize": 512,
        "Runtime": "python3.12",
        "Environment": {"Variables": variables},
        "Tags": {},
        "Reserved": None,
    }
    return found | changes


class Lambda:
    """Answers in pages of one function."""

    meta = SimpleNamespace(region_name="us-east-1")

    def __init__(self, *functions: dict[str, Any]) -> None:
        self.functions = {one["FunctionName"]: one for one in functions}

    def get_paginator(self, operation: str) -> "Lambda":
        assert operation == "list_functions"
        return self

    def paginate(self) -> Any:
        return ({"Functions": [one]} for one in self.functions.values())

    def list_tags(self, Resource: str) -> Any:  # noqa: N803 - boto3's
        return {"Tags": self.functions[Resource.removeprefix("arn:")]["Tags"]}

    def get_function_concurrency(self, FunctionName: str) -> Any:  # noqa: N803
        reserved = self.functions[FunctionName]["Reserved"]
        return {} if reserved is None else {"ReservedConcurrentExecutions": reserved}


def found(*functions: dict[str, Any], prefix: str = "f") -> FactorialProtocol:
    aws = cast(Aws, SimpleNamespace(lambda_=Lambda(*functions)))
    return discover(aws, call_scenario("s3-ingest"), make_manifest().protocol, prefix)


def test_levels_are_what_functions_say_whatever_they_are_called() -> None:
    protocol = found(
        function("f-m2048-b1", EVENTS, MemorySize=1024, Reserved=5),
        function("f-z", {**EVENTS, "BATCH_EVENTS": "100"}, Runtime="provided.al2023", Tags={"language": "go"}),
        function("f-batch", BATCH, Tags={"design": "batch"}),
        function("other", {}),
    )
    assert protocol.function_prefix == "f"
    batch, events = protocol.designs
    assert (batch.label, batch.invocations, events.label, events.invocations) == ("batch", 2, "events", 4)
    assert events.settings == {"workload": "events", "event_bytes": 1024}
    assert batch.settings == {"workload": "batch", "object_mb": 100, "multipart_mb": 8, "parallelism": 2}
    assert events.functions == {
        "f-m2048-b1": {"language": "python", "memory_mb": 1024, "reserved_concurrency": 5, "batch_events": 10},
        "f-z": {"language": "go", "memory_mb": 512, "reserved_concurrency": 0, "batch_events": 100},
    }
    # each at the protocol's numbers of callers, and nothing that was not deployed
    assert [(cell.function, cell.callers, cell.memory_mb) for cell in events.cells] == [
        ("f-m2048-b1", 1, 1024),
        ("f-m2048-b1", 4, 1024),
        ("f-z", 1, 512),
        ("f-z", 4, 512),
    ]


def test_tags_say_what_variables_do_not() -> None:
    tags = {"workload": "events", "batch_events": "7", "event_bytes": "300"}
    (design,) = found(function("f", {}, Tags=tags)).designs
    assert design.settings == {"workload": "events", "batch_events": 7, "event_bytes": 300}


LACKING = {**EVENTS}
del LACKING["BATCH_EVENTS"]


@pytest.mark.parametrize(
    ("functions", "said"),
    [
        ([], "no function in us-east-1 has a name that begins with 'f'"),
        ([function("f-m512-b10-rc0", LACKING)], "f-m512-b10-rc0 has no batch_events; say it in a variable or a tag"),
        ([function("f1", {**EVENTS, "BATCH_EVENTS": "ten"})], "f1 has no batch_events"),
        ([function("f1", {}), function("f2", EVENTS)], "f1 has no WORKLOAD"),
        ([function("f1", EVENTS, Runtime="provided.al2023")], "f1 has no language"),
        ([function(f"f{n}", LACKING) for n in range(5)], "f2 has no batch_events, and 2 more functions lack something"),
        (
            [function("f1", EVENTS, Tags={"design": "events"}), function("f2", BATCH, Tags={"design": "events"})],
            "f1 and f2 are both of design 'events' and have different settings; give each workload a design of its own",
        ),
        ([function("f1", EVENTS), function("f2", EVENTS)], "f1 and f2 have the same levels"),
        ([function("f1", EVENTS, Tags={"design": "mine"})], "f1 is of design 'mine', which protocol s3-ingest has not"),
    ],
)
def test_what_cannot_be_a_cell_is_refused_in_one_sentence(functions: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        found(*functions)
    assert said in str(refused.value)


def test_levels_are_held_to_the_scenarios_ranges() -> None:
    with pytest.raises(ProtocolError, match=r"batch_events is 5000; write a number from 1 to 1000"):
        found(function("f", {**EVENTS, "BATCH_EVENTS": "5000"}))


def test_no_protocol_file_names_functions(tmp_path: Any) -> None:
    file = tmp_path / "p.toml"
    file.write_text(
        'name = "p"\nscenario = "s3-ingest"\ndescription = ""\nblocks = 1\nfunction_prefix = "f"\ndesigns = []\n'
    )
    with pytest.raises(LambdalabError, match="names functions; leave functions and function_prefix out"):
        load_protocol(file)
