"""What is asked of Lambda to change a mapping or a function, and to put it back: the real thing is in tests/e2e."""

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from lambdalab.aws import configuration
from lambdalab.aws.configuration import Configurations
from lambdalab.errors import AccessError


class Mapping:
    """Lambda with one mapping that refuses a change while another is under way, which ends when it was looked at."""

    def __init__(self) -> None:
        self.batch_size = 3
        self.changes: list[int] = []
        self.looks_until_done = 0
        self.never_done = False

    def list_event_source_mappings(self, **asked: str) -> dict[str, Any]:
        assert asked == {"FunctionName": "f", "EventSourceArn": "arn:queue"}
        return {"EventSourceMappings": [self.get_event_source_mapping(UUID="u")]}

    def get_event_source_mapping(self, *, UUID: str) -> dict[str, Any]:  # noqa: N803 - Lambda's own word
        assert UUID == "u"
        self.looks_until_done -= not self.never_done
        state = "Updating" if self.looks_until_done > 0 else "Enabled"
        return {"UUID": "u", "BatchSize": self.batch_size, "State": state}

    def update_event_source_mapping(self, *, UUID: str, BatchSize: int) -> None:  # noqa: N803
        assert UUID == "u"
        assert self.looks_until_done <= 0, "ResourceInUseException"
        self.batch_size = BatchSize
        self.changes.append(BatchSize)
        self.looks_until_done = 3


@pytest.fixture
def mapping(monkeypatch: pytest.MonkeyPatch) -> Mapping:
    monkeypatch.setattr("lambdalab.aws.configuration.time.sleep", lambda _: None)
    return Mapping()


def of(mapping: Mapping) -> Configurations:
    aws: Any = SimpleNamespace(lambda_=mapping)
    return Configurations(aws)


def test_a_change_is_waited_for_and_what_was_found_is_put_back(mapping: Mapping) -> None:
    settings = of(mapping)
    for wanted in (5, 5, 10):
        settings.batch_size("f", "arn:queue", wanted)
        assert (mapping.batch_size, mapping.looks_until_done <= 0) == (wanted, True)
    settings.restore()
    settings.restore()
    assert mapping.changes == [5, 10, 3], "nothing is changed that is so already"


def test_a_change_that_was_interrupted_is_waited_for_before_it_is_undone(mapping: Mapping) -> None:
    settings = of(mapping)
    settings.batch_size("f", "arn:queue", 5)
    mapping.looks_until_done = 3
    settings.restore()
    assert mapping.changes == [5, 3]


def test_a_mapping_that_stays_busy_is_said(mapping: Mapping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "MAPPING_WAIT_S", 0.0)
    mapping.never_done, mapping.looks_until_done = True, 1
    with pytest.raises(AccessError) as caught:
        of(mapping).batch_size("f", "arn:queue", 5)
    assert str(caught.value) == "event source mapping u is still Updating after 0 s; try it again."
    assert mapping.changes == []


class Busy:
    """Lambda with one function that refuses a change until the one before was waited for."""

    def __init__(self, *, fails: bool) -> None:
        self.memory_mb, self.variables = 512, {"A": "1"}
        self.fails, self.interrupts, self.in_progress = fails, True, False

    def get_function_configuration(self, **_: str) -> dict[str, Any]:
        return {
            "MemorySize": self.memory_mb, "Environment": {"Variables": dict(self.variables)},
            "Architectures": ["arm64"], "CodeSha256": "0",
        }  # fmt: skip

    def update_function_configuration(
        self, *, FunctionName: str, MemorySize: int | None = None, Environment: dict[str, Any] | None = None  # noqa: N803
    ) -> None:  # fmt: skip
        assert FunctionName == "f"
        if self.in_progress:
            raise ClientError(
                {"Error": {"Code": "ResourceConflictException", "Message": "an update is in progress"}},
                "UpdateFunctionConfiguration",
            )
        self.memory_mb = MemorySize or self.memory_mb
        self.variables = Environment["Variables"] if Environment else self.variables
        self.in_progress = True

    def get_waiter(self, name: str) -> Any:
        assert name == "function_updated_v2"
        return SimpleNamespace(wait=self.wait)

    def wait(self, **_: Any) -> None:
        if self.interrupts and self.in_progress:
            raise KeyboardInterrupt
        failed, self.in_progress = self.in_progress and self.fails, False
        if failed:
            self.fails = False
            raise WaiterError("FunctionUpdatedV2", "terminal failure", {})


@pytest.mark.parametrize("fails", [False, True])
def test_after_an_interruption_while_a_change_was_under_way_a_function_is_put_back(fails: bool) -> None:
    busy = Busy(fails=fails)
    aws: Any = SimpleNamespace(lambda_=busy)
    settings = Configurations(aws)
    with pytest.raises(KeyboardInterrupt):
        settings.apply("f", memory_mb=1024, package=None)
    assert (busy.memory_mb, busy.in_progress) == (1024, True)
    busy.interrupts = False
    settings.restore()
    assert (busy.memory_mb, busy.variables, busy.in_progress) == (512, {"A": "1"}, False)
    busy.interrupts = True
    with pytest.raises(KeyboardInterrupt):
        settings.bump("f")
    busy.interrupts = False
    settings.restore()
    assert busy.variables == {"A": "1"}


class Three:
    """Lambda with a mapping for each of three functions, named alike, that refuses what it is told to."""

    def __init__(self) -> None:
        self.batch_sizes = {"f": 3, "g": 3, "h": 3}
        self.refused: set[str] = set()

    def list_event_source_mappings(self, **asked: str) -> dict[str, Any]:
        return {"EventSourceMappings": [self.get_event_source_mapping(UUID=asked["FunctionName"])]}

    def get_event_source_mapping(self, *, UUID: str) -> dict[str, Any]:  # noqa: N803
        return {"UUID": UUID, "BatchSize": self.batch_sizes[UUID], "State": "Enabled"}

    def update_event_source_mapping(self, *, UUID: str, BatchSize: int) -> None:  # noqa: N803
        if UUID in self.refused:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "UpdateEventSourceMapping")
        self.batch_sizes[UUID] = BatchSize


def test_what_cannot_be_put_back_keeps_nothing_else_from_it() -> None:
    three = Three()
    aws: Any = SimpleNamespace(lambda_=three)
    settings = Configurations(aws)
    for function in three.batch_sizes:
        settings.batch_size(function, "arn:queue", 5)
    three.refused = {"f", "g"}
    with pytest.raises(AccessError, match="the event source mapping of f") as caught:
        settings.restore()
    (also,) = caught.value.__notes__
    assert "the event source mapping of g" in also
    assert three.batch_sizes == {"f": 5, "g": 5, "h": 3}
    three.refused = set()
    settings.restore()
    assert set(three.batch_sizes.values()) == {3}
