"""Around the calls of a factorial run: what is looked at before, what is left, what ends it, what is typed."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import sample_factorial as sample
import samples
from botocore.exceptions import ClientError
from command_line import Call as CommandLine
from command_line import call_fixture, one_sentence, project_fixture
from samples import ROOT

from lambdalab.analysis.call_rows import judge
from lambdalab.aws.configuration import Configurations
from lambdalab.aws.stack import Stack
from lambdalab.design.arms import Caps, Stop
from lambdalab.design.cells import Design, FactorialProtocol
from lambdalab.errors import AccessError, LambdalabError, PriceSheetError, SetupError, StackError, UsageError
from lambdalab.planning.call_plan import Experience, find_experience, make_plan
from lambdalab.planning.call_protocol import PlannedCell, schedule
from lambdalab.planning.call_stopping import CallStoppingRule, spent_usd
from lambdalab.planning.stopping import MINUTES_CAP, PRECISION_REACHED, USD_CAP
from lambdalab.pricing.costs import load_price_sheet
from lambdalab.records.call_files import FactorialDirectory
from lambdalab.records.calls import INTERRUPTED, Call, Finding
from lambdalab.records.conditions import Conditions
from lambdalab.records.cpu_limit import CAUTION
from lambdalab.records.pipeline import Graph
from lambdalab.records.trial_files import RunDirectory
from lambdalab.run import call_experiment
from lambdalab.run.call_conclusion import conclude
from lambdalab.run.call_experiment import called_functions, cells_left, new_run, plan_run, resume_run
from lambdalab.run.call_runner import FactorialRunner, remaining
from lambdalab.run.local_target import LocalTarget
from lambdalab.run.target import AwsTarget, PlaneCounts
from lambdalab.scenario.found import call_scenario

__all__ = ["call_fixture", "project_fixture"]
PRICED = load_price_sheet(ROOT / "prices" / "us-east-1.toml")
SCENARIO = call_scenario("s3-ingest")
LIMIT = "cgroup v2"
"""Of the samples' manifests."""
DESIGN = Design(
    label="events",
    invocations=2,
    factors={"language": ("python", "go"), "memory_mb": (512,), "callers": (2,)},
    settings={"workload": "events", "batch_events": 1},
)


def protocol(design: Design = DESIGN, **changes: Any) -> FactorialProtocol:
    made = FactorialProtocol(name="tiny", scenario="s3-ingest", description="", blocks=2, designs=(design,))
    return msgspec.structs.replace(made, **changes)


def made(planned: PlannedCell, number: int, **changes: Any) -> Call:
    """The call of that number of a cell, as it ended."""
    call = planned.calls[number]
    return sample.make_call(
        planned.design, planned.cell, call_id=call.call_id, block=planned.block, warmup=call.warmup, **changes
    )


def refusal(code: str, operation: str = "Invoke") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


# what is left


def test_all_is_left_of_a_run_that_has_not_begun() -> None:
    plan = list(schedule(protocol(), 1))
    assert list(remaining(plan, [])) == [(cell, 1) for cell in plan]


def test_a_cell_that_was_begun_warms_up_again_and_makes_what_is_missing() -> None:
    plan = list(schedule(protocol(), 1))
    first, second, *rest = plan
    done = [made(first, number) for number in range(4)] + [made(second, number) for number in (0, 1, 3)]
    (left, attempt), *others = remaining(plan, done)
    assert attempt == 2
    assert [call.call_id for call in left.calls] == [second.calls[number].call_id for number in (0, 1, 2)]
    assert others == [(cell, 1) for cell in rest]
    again = [msgspec.structs.replace(call, attempt=2) for call in done[4:6]]
    assert next(iter(remaining(plan, done + again)))[1] == 3


def test_a_call_that_was_given_up_is_missing_and_one_that_failed_is_not() -> None:
    plan = list(schedule(protocol(blocks=1), 1))
    done = [made(cell, number) for cell in plan for number in range(4)]
    throttled = msgspec.structs.replace(done[2], throttled=True, error="TooManyRequestsException: Rate Exceeded.")
    assert list(remaining(plan, [*done[:2], throttled, *done[3:]])) == []
    given_up = msgspec.structs.replace(done[2], error=f"{INTERRUPTED} while it was under way")
    ((left, attempt),) = remaining(plan, [*done[:2], given_up, *done[3:]])
    assert ([call.call_id for call in left.calls][2:], attempt) == ([done[2].call_id], 2)


class Looking:
    """The scenario, and a target on which nothing is to be called; only calls of ``there`` wrote what is there."""

    def __init__(self, there: set[str]) -> None:
        self.there = there
        self.scenario: Any = SimpleNamespace(verify=self.verify, remove=lambda *_: None)
        aws = SimpleNamespace(lambda_callers=lambda *_: SimpleNamespace(close=lambda: None))
        target: Any = AwsTarget.__new__(AwsTarget)
        target.aws, target.restore = aws, lambda: None
        self.target: Any = target

    def verify(self, aws: object, design: object, cell: object, calls: list[Call]) -> dict[str, bool]:
        assert aws is self.target.aws
        return {call.call_id: call.call_id in self.there for call in calls if call.error is None}


def test_a_call_nobody_looked_at_whose_object_is_gone_by_now_is_made_again(tmp_path: Path) -> None:
    manifest = sample.make_manifest((DESIGN,), blocks=1)
    plan = list(schedule(manifest.protocol, manifest.seed))
    done = [made(cell, number, found=None) for cell in plan for number in range(4)]
    failed = msgspec.structs.replace(done[2], error="ReadTimeoutError: no answer")
    seen = msgspec.structs.replace(done[6], found=False)  # looked at after its cell: a result
    store = sample.make_run(tmp_path, manifest, [*done[:2], failed, *done[3:6], seen, *done[7:]])
    assert cells_left(store) == []
    looking = Looking({call.call_id for call in done} - {done[3].call_id, seen.call_id})
    lefts: list[list[tuple[PlannedCell, int]]] = []

    def left() -> list[tuple[PlannedCell, int]]:
        lefts.append(cells_left(store))
        return []

    FactorialRunner(looking.target, looking.scenario, store, lambda _: None, lambda: None).run(left)
    (((planned, attempt),),) = lefts
    assert ([call.call_id for call in planned.calls if not call.warmup], attempt) == ([done[3].call_id], 2)
    by_id = {call.call_id: call for call in store.calls()}
    assert by_id[done[3].call_id].found is None, "what nobody knows is no result"
    assert (by_id[failed.call_id].found, by_id[seen.call_id].found) == (None, False)
    assert by_id[done[7].call_id].found is True


# before the first call


@dataclasses.dataclass
class Account:
    """Lambda and S3 of an account, as far as a run looks before it calls."""

    memory_mb: int = 1024
    reserved: int | None = None
    unreserved: int = 1000
    bucket: bool = True
    invoke: str | None = None
    may_ask: bool = True
    timeout_s: int = 900
    changes: list[tuple[str, object]] = dataclasses.field(init=False, default_factory=list)

    variables: dict[str, str] = dataclasses.field(default_factory=dict)

    def update_function_configuration(
        self, *, FunctionName: str, MemorySize: int | None = None, Environment: dict[str, Any] | None = None  # noqa: N803
    ) -> None:  # fmt: skip
        if MemorySize is not None:
            self.memory_mb = MemorySize
        if Environment is not None:
            self.variables = Environment["Variables"]
        self.changes.append((FunctionName, MemorySize or Environment))

    def put_function_concurrency(self, *, ReservedConcurrentExecutions: int, **_: str) -> None:  # noqa: N803
        self.reserved = ReservedConcurrentExecutions
        self.changes.append(("reserved", self.reserved))

    def delete_function_concurrency(self, **_: str) -> None:
        self.reserved = None
        self.changes.append(("reserved", None))

    def get_waiter(self, _: str) -> Any:
        return SimpleNamespace(wait=lambda **_: None)

    def get_function_configuration(self, **_: str) -> dict[str, Any]:
        return {
            "Runtime": "provided.al2023", "Architectures": ["arm64"], "CodeSha256": "0",
            "MemorySize": self.memory_mb, "Timeout": self.timeout_s, "Environment": {"Variables": self.variables},
        }  # fmt: skip

    def get_function_concurrency(self, **_: str) -> dict[str, Any]:
        return {} if self.reserved is None else {"ReservedConcurrentExecutions": self.reserved}

    def get_account_settings(self) -> dict[str, Any]:
        if not self.may_ask:
            raise refusal("AccessDeniedException", "GetAccountSettings")
        limit = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": self.unreserved}
        return {"AccountLimit": limit}

    def head_bucket(self, **_: str) -> None:
        if not self.bucket:
            raise refusal("404", "HeadBucket")

    def invoke_dry(self, **asked: str) -> None:
        assert asked["InvocationType"] == "DryRun"
        if self.invoke:
            raise refusal(self.invoke)

    @property
    def target(self) -> AwsTarget:
        outputs = {
            "Scenario": "s3-ingest", "BucketName": "objects", "PythonFunctionName": "py", "GoFunctionName": "go",
            "PythonLogGroupName": "/py", "GoLogGroupName": "/go",
        }  # fmt: skip
        stack = Stack(name="lambdalab-s3", outputs=outputs, parameters={}, resources={}, types={})
        client = SimpleNamespace(
            meta=SimpleNamespace(endpoint_url="https://lambda.us-east-1.amazonaws.com"),
            get_function_configuration=self.get_function_configuration,
            update_function_configuration=self.update_function_configuration,
            put_function_concurrency=self.put_function_concurrency,
            delete_function_concurrency=self.delete_function_concurrency,
            get_waiter=self.get_waiter,
            get_function_concurrency=self.get_function_concurrency,
            get_account_settings=self.get_account_settings,
            invoke=self.invoke_dry,
        )
        s3 = SimpleNamespace(head_bucket=self.head_bucket, exceptions=SimpleNamespace(ClientError=ClientError))
        aws: Any = SimpleNamespace(
            lambda_=client,
            s3=s3,
            session=SimpleNamespace(region_name="us-east-1"),
            cloudformation=SimpleNamespace(get_template=lambda **_: {"TemplateBody": "{}"}),
        )
        return AwsTarget(aws, stack)


RESERVED = msgspec.structs.replace(DESIGN, factors={"language": ("python", "go"), "reserved_concurrency": (0, 500)})
LARGE = Design(
    label="b", invocations=1, factors={"language": ("go",)}, settings={"workload": "batch", "multipart_mb": 64}
)


@pytest.mark.parametrize(
    ("account", "design", "kind", "said"),
    [
        (Account(bucket=False), DESIGN, StackError, "bucket objects, to which the functions write, is not there;"),
        (Account(invoke="AccessDeniedException"), DESIGN, AccessError, "Invoke on function py was refused: AccessDen"),
        (Account(reserved=0), DESIGN, UsageError, "py has reserved concurrency 0 and takes no invocation; take that"),
        (Account(memory_mb=200), LARGE, UsageError, "go has 200 MB, and cell b language=go needs 224; name memory_mb"),
        (
            Account(), RESERVED, UsageError,
            "the functions would reserve a concurrency of 1000 together, and this account can reserve 900: of 1000",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_called_is_refused_before_the_first_call(
    tmp_path: Path, account: Account, design: Design, kind: type[LambdalabError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        new_run(account.target, protocol(design), tmp_path / "results")
    assert str(caught.value).startswith(said)
    assert not (tmp_path / "results").exists()


def test_a_stack_of_another_scenario_is_refused() -> None:
    target = Account().target
    for outputs, found in (({"Scenario": "ingest"}, "ingest"), ({}, "none")):
        target.stack = msgspec.structs.replace(target.stack, outputs=outputs)
        with pytest.raises(StackError) as caught:
            called_functions(target, SCENARIO, protocol())
        assert str(caught.value) == (
            f"stack lambdalab-s3 is of scenario {found}, not of s3-ingest; "
            "name one with --stack-name, such as lambdalab-s3."
        )


def test_a_container_image_is_refused(tmp_path: Path) -> None:
    account = Account()
    configuration = account.get_function_configuration()
    del configuration["Runtime"]
    account.get_function_configuration = lambda **_: configuration  # type: ignore[method-assign]
    with pytest.raises(UsageError) as refused:
        new_run(account.target, protocol(), tmp_path)
    assert str(refused.value).startswith("py is a container image, which has no runtime, and only functions of a zip")


def test_a_throttled_dry_run_and_an_account_that_may_not_be_asked_are_no_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    account = Account(may_ask=False, invoke="TooManyRequestsException")
    plan = plan_run(account.target, protocol(), tmp_path)
    assert plan.limits == ()
    assert plan.unchecked[0].startswith("the account's concurrency: ")
    assert not any("DynamoDB" in what for what in plan.unchecked)


def test_what_is_asked_is_written_down_before_the_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    target = Account(reserved=5).target
    store = new_run(target, protocol(), tmp_path, seed=4)
    manifest = store.manifest()
    assert (manifest.kind, manifest.seed, manifest.protocol) == ("factorial", 4, protocol())
    assert {f.reserved_concurrency for f in manifest.functions.values()} == {5}
    assert (manifest.cpu_limit, manifest.target) == ("AWS Lambda", "aws")
    assert "aws-lambda-go" in manifest.versions
    assert (tmp_path / "latest").resolve() == store.folder
    graph = msgspec.json.decode((store.folder / "pipeline.json").read_bytes(), type=Graph)
    assert (graph.stack_name, graph.target) == ("lambdalab-s3", "aws")
    resume_run(target, store)
    assert len(store.manifest().resumed_at) == 1
    with pytest.raises(UsageError, match="began with python timeout_s 900, and now it is 30; set it back"):
        resume_run(Account(reserved=5, timeout_s=30).target, store)


def on_plane(target: AwsTarget, plane: dict[str, Any]) -> LocalTarget:
    """The same functions on a local plane, which says of itself what a test wants."""
    local = LocalTarget.__new__(LocalTarget)
    local.aws, local.stack, local.region = target.aws, target.stack, "us-east-1"
    local.configurations = target.configurations
    local.local = SimpleNamespace(status=lambda: plane)  # type: ignore[assignment]
    return local


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (
            {"cpu_limit": "none"},
            "began with plane cpu_limit cgroup v2, and now it is none; set it back, or start a new",
        ),
        ({"cpu_scale": 1.0}, "began with plane cpu_scale 0.5, and now it is 1.0; set it back, or start a new run."),
        ({"latency": None}, "began with latency model slow 2026-11-21, seed 1, and now it is none; set it back, or"),
    ],
)
def test_a_run_of_calls_does_not_go_on_under_other_conditions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(call_experiment, "free_memory_mb", lambda: 100_000)
    plane = {
        "cpu_limit": "cgroup v2",
        "tmp_limit": "image",
        "cpu_scale": 0.5,
        "latency": {"name": "slow", "date": "2026-11-21", "seed": 1},
        "functions": {"py": {"interpreter": "python3.12"}, "go": {"interpreter": None}},
    }
    target = on_plane(Account().target, plane)
    store = new_run(target, protocol(), tmp_path)
    manifest = store.manifest()
    assert manifest.interpreters == {"python": "python3.12", "go": "provided.al2023"}
    assert manifest.template_runtimes.keys() == {"python", "go"}
    assert (manifest.cold_mode, manifest.limits) == ("recycle", {"tmp_limit": "image"})
    resume_run(target, store)
    assert len(store.manifest().resumed_at) == 1
    plane |= now
    with pytest.raises(UsageError, match=re.escape(said)):
        resume_run(target, store)
    assert len(store.manifest().resumed_at) == 1


@pytest.mark.parametrize("change", [{"region": "eu-west-1"}, {"machine": {"cores": "many"}}])
def test_a_run_of_calls_does_not_go_on_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(call_experiment, "free_memory_mb", lambda: 100_000)
    target = on_plane(Account().target, {"cpu_limit": "none"})
    store = new_run(target, protocol(), tmp_path)
    store.write_manifest(msgspec.structs.replace(store.manifest(), **change))
    with pytest.raises(UsageError, match=r"began with (region eu-west-1, and now it is us-east-1|machine cores many)"):
        resume_run(target, store)


VARIED = msgspec.structs.replace(
    DESIGN, factors={"language": ("go",), "memory_mb": (512, 2048), "reserved_concurrency": (0, 7)}
)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"memory_mb": 512}, None),
        ({"memory_mb": 2048, "reserved": 7}, None),
        ({"reserved": None}, None),
        ({"memory_mb": 3000}, "began with go memory_mb 1024, and now it is 3000; set it back"),
        ({"reserved": 9}, "began with go reserved_concurrency 5, and now it is 9; set it back"),
    ],
)
def test_only_what_the_run_itself_left_behind_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: dict[str, int | None], said: str | None
) -> None:
    monkeypatch.chdir(ROOT)
    account = Account(reserved=5)
    store = new_run(account.target, protocol(VARIED), tmp_path)
    killed = dataclasses.replace(account, **now)  # type: ignore[arg-type]
    if said is None:
        resume_run(killed.target, store)
        assert (killed.memory_mb, killed.reserved) == (1024, 5)
    else:
        with pytest.raises(UsageError, match=said):
            resume_run(killed.target, store)
        assert killed.changes == []


def test_the_marker_that_a_killed_run_left_is_taken_away_also_where_nothing_is_left_to_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    account = Account()
    store = new_run(account.target, protocol(), tmp_path)
    account.variables = {"A": "1", "LAMBDALAB_COLD_START": "7-1"}
    target = account.target
    resume_run(target, store)
    target.restore()
    assert account.variables == {"A": "1"}


def test_resuming_a_run_with_nothing_left_undoes_no_redeployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    store = new_run(Account().target, protocol(VARIED), tmp_path)
    store.append_calls(
        made(cell, number)
        for cell in schedule(store.manifest().protocol, store.manifest().seed)
        for number in range(len(cell.calls))
    )
    redeployed = Account(memory_mb=2048)
    with pytest.raises(UsageError, match="began with go memory_mb 1024, and now it is 2048; set it back"):
        resume_run(redeployed.target, store)
    assert (redeployed.memory_mb, redeployed.changes) == (2048, [])


# a cell


def test_the_first_cell_of_which_no_call_succeeds_ends_the_run(tmp_path: Path) -> None:
    store = sample.make_run(tmp_path, sample.make_manifest((DESIGN,)), [])
    target = SimpleNamespace(aws=SimpleNamespace(lambda_callers=lambda *_: None))
    runner = FactorialRunner(target, SCENARIO, store, lambda _: None, lambda: None)  # type: ignore[arg-type]
    planned = next(schedule(store.manifest().protocol, 7))
    refused = sample.make_call(
        DESIGN, planned.cell, call_id="x", block=1,
        record={"ok": False, "error": {"code": "UploadFailed", "message": "the object could not be put: AccessDenied"}},
    )  # fmt: skip
    with pytest.raises(LambdalabError, match=r"no call of the first cell, .*: UploadFailed: .*AccessDenied; see docs"):
        runner._require_any(planned, [refused])
    runner._require_any(planned, [refused, made(planned, 0)])
    runner._require_any(planned, [refused])  # a later cell may fail: a result, not an end
    of_f, of_g = (
        msgspec.structs.replace(planned, cell=msgspec.structs.replace(planned.cell, function=name)) for name in "fg"
    )
    runner._require_any(of_f, [made(planned, 0)])
    runner._require_any(of_f, [refused])
    with pytest.raises(LambdalabError, match=r"no call of the first cell of g, .*AccessDenied; see docs"):
        runner._require_any(of_g, [refused])


class Concurrency:
    """Lambda's reserved concurrency of one function."""

    def __init__(self, reserved: int | None) -> None:
        self.reserved = reserved
        self.changes: list[int | None] = []

    def get_function_concurrency(self, **_: str) -> dict[str, Any]:
        return {} if self.reserved is None else {"ReservedConcurrentExecutions": self.reserved}

    def put_function_concurrency(self, *, ReservedConcurrentExecutions: int, **_: str) -> None:  # noqa: N803
        self.reserved = ReservedConcurrentExecutions
        self.changes.append(self.reserved)

    def delete_function_concurrency(self, **_: str) -> None:
        self.reserved = None
        self.changes.append(None)


@pytest.mark.parametrize(("before", "changes"), [(None, [10, None, 3, None]), (7, [10, None, 3, 7])])
def test_reserved_concurrency_is_set_and_put_back(before: int | None, changes: list[int | None]) -> None:
    account = Concurrency(before)
    configurations = Configurations(SimpleNamespace(lambda_=account))  # type: ignore[arg-type]
    configurations.reserve("f", None)
    assert account.changes == [], "as deployed, and nothing was changed yet"
    for wanted in (10, 10, 0, 3, None):
        configurations.reserve("f", wanted)
    configurations.restore()
    configurations.restore()
    assert account.changes == changes
    assert account.reserved == before


@pytest.mark.parametrize(
    ("place", "looks"), [("local", [["w001", "w002"], ["0001", "0002"]]), ("aws", [["w001", "w002", "0001", "0002"]])]
)
def test_locally_what_warmed_a_cell_up_is_removed_before_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, looks: list[Any]
) -> None:
    store = sample.make_run(tmp_path, sample.make_manifest((DESIGN,)), [])
    planned = next(schedule(store.manifest().protocol, store.manifest().seed))
    calls = {call.call_id: made(planned, number, found=None) for number, call in enumerate(planned.calls)}
    looking = Looking(set(calls))
    looking.target.name = place
    looking.target.configurations = SimpleNamespace(reserve=lambda *_: None, apply=lambda *_, **__: True)
    seen: list[list[str]] = []
    removed: list[list[str]] = []

    def verify(aws: object, design: object, cell: object, calls: list[Call]) -> dict[str, bool]:
        seen.append([call.call_id.rpartition("-")[2] for call in calls])
        return looking.verify(aws, design, cell, calls)

    class Answered:
        def __init__(self, *arguments: Any) -> None:
            self.done = arguments[3]

        def make(self, _: object, asked: list[Any], *__: object) -> None:
            for call in asked:
                self.done(calls[call.call_id])

    monkeypatch.setattr("lambdalab.run.call_runner.Callers", Answered)
    looking.scenario.verify, looking.scenario.read = verify, SCENARIO.read
    looking.scenario.remove = lambda _, calls: removed.append([call.call_id.rpartition("-")[2] for call in calls])
    FactorialRunner(looking.target, looking.scenario, store, lambda _: None, lambda: None)._execute(planned, 1)
    assert seen == looks
    assert removed == (looks if place == "local" else [])
    assert len(store.calls()) == 4
    assert all(call.found for call in store.calls())

    readings = iter(
        [PlaneCounts(0, 0, LIMIT), PlaneCounts(9, 0, LIMIT), PlaneCounts(11, 0, LIMIT)]
    )  # nine while it warmed up
    monkeypatch.setattr(looking.target, "plane_counts", lambda: next(readings), raising=False)
    FactorialRunner(looking.target, looking.scenario, store, lambda _: None, lambda: None)._execute(planned, 1)
    assert [call.disturbed for call in store.calls()] == [None] * 8

    readings = iter([PlaneCounts(0, 0, LIMIT), PlaneCounts(9, 0, LIMIT), PlaneCounts(13, 1, LIMIT)])
    FactorialRunner(looking.target, looking.scenario, store, lambda _: None, lambda: None)._execute(planned, 1)
    throttled, foreign = "1 throttle meanwhile, 0 of its own", "4 invocations meanwhile, 2 of its own"
    why = f"the plane counted {throttled}; the plane counted {foreign}"
    assert {(call.warmup, call.disturbed) for call in store.calls()} == {(True, None), (False, why)}
    rows = judge(store.manifest(), store.calls(), SCENARIO, PRICED)
    assert {row.reason for row in rows if not row.warmup} == {why}

    readings = iter([PlaneCounts(0, 0, LIMIT), PlaneCounts(9, 0, LIMIT), PlaneCounts(14, 0, "none")])
    answering = Answered.make

    def interrupted(self: Any, planned: object, asked: list[Any], *rest: object) -> None:
        answering(self, planned, asked, *rest)
        if not asked[0].warmup:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Answered, "make", interrupted)
        again = FactorialRunner(looking.target, looking.scenario, store, lambda _: None, lambda: None)
        with pytest.raises(KeyboardInterrupt):
            again._execute(planned, 2)
    reasons = {call.disturbed for call in store.calls() if not call.warmup}
    foreign = "the plane counted 5 invocations meanwhile, 2 of its own"
    assert reasons == {f"cpu_limit became none; {foreign}"}, "they count on --resume"


SIZES = msgspec.structs.replace(DESIGN, factors={"language": ("python", "go"), "memory_mb": (2048, 512)})
ONE_SIZE = msgspec.structs.replace(DESIGN, label="other", factors={"language": ("go",), "memory_mb": (1024,)})


def test_memory_sizes_without_a_cpu_limit_are_refused_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(call_experiment, "free_memory_mb", lambda: 100_000)
    plane = {"cpu_limit": "none"}
    target = on_plane(Account().target, plane)
    with pytest.raises(SetupError) as refused:
        new_run(target, protocol(SIZES), tmp_path / "results")
    said = str(refused.value)
    assert said.startswith("memory sizes 512, 2048 MB cannot be compared on the local stack ")
    assert said.endswith(", or add --without-cpu-limit to measure them nevertheless.")
    assert not (tmp_path / "results").exists()
    store = new_run(target, protocol(SIZES), tmp_path / "results", without_cpu_limit=True)
    resume_run(target, store)
    two_designs = msgspec.structs.replace(protocol(DESIGN), designs=(DESIGN, ONE_SIZE))
    new_run(target, two_designs, tmp_path / "results")  # each size is another design's
    plane["cpu_limit"] = "signals"
    new_run(target, protocol(SIZES), tmp_path / "results")


def test_a_cell_that_this_machine_cannot_keep_is_warned_of_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    large = msgspec.structs.replace(
        sample.BATCH, invocations=5, factors={"language": ("go",), "memory_mb": (512,), "callers": (2,)}
    )
    said = (
        "the emulator would keep 120 MB of cell batch language=go memory_mb=512 callers=2 in memory, and this machine"
    )
    target = Account(memory_mb=512).target
    local = on_plane(target, {"cpu_limit": "none"})
    monkeypatch.setattr(call_experiment, "free_memory_mb", lambda: 119)
    with pytest.raises(UsageError) as refused:
        new_run(local, protocol(large), tmp_path / "results")
    assert (
        str(refused.value)
        == f"{said} has 119 MB free; ask for fewer invocations, callers or bytes, or free some memory."
    )
    assert plan_run(local, protocol(large), tmp_path).limits == (f"caution: {said} has 119 MB free",)
    monkeypatch.setattr(call_experiment, "free_memory_mb", lambda: 120)
    assert plan_run(local, protocol(large), tmp_path).limits == ()


# what ends it


def of_minutes(minutes: float) -> Callable[[], float]:
    """A clock that is so long after the run began."""
    began = datetime.fromisoformat(sample.make_manifest().started_at)
    return lambda: (began + timedelta(minutes=minutes)).timestamp()


def ends(store: FactorialDirectory, *, minutes: float, spends: bool) -> str | None:
    return CallStoppingRule(store, SCENARIO, spends=spends, now_s=of_minutes(minutes)).reason()


def test_a_run_ends_with_the_block_in_which_its_medians_are_precise(tmp_path: Path) -> None:
    """After at least so many whole blocks, whatever a block that is not whole holds."""
    manifest = sample.make_manifest((sample.EVENTS,), blocks=12)

    def run_of(blocks: float, stop: Stop) -> tuple[str | None, str]:
        asked = msgspec.structs.replace(manifest, protocol=msgspec.structs.replace(manifest.protocol, stop=stop))
        calls = list(sample.make_calls(manifest))
        made = calls[: int(len(calls) * blocks / 12)]
        store = sample.make_run(tmp_path / f"{blocks} {stop.precision} {stop.min_blocks}", asked, made)
        rule = CallStoppingRule(store, SCENARIO, spends=False, now_s=of_minutes(1))
        return rule.reason(), rule.standing

    rough = Stop(precision=0.5, min_blocks=6)
    assert run_of(0.5, rough) == (None, "")
    assert run_of(5.5, rough) == (None, "no interval yet (5 of at least 6 samples)")
    reason, standing = run_of(6, rough)
    assert reason == PRECISION_REACHED
    assert standing.startswith("widest interval ±")
    assert "(events " in standing
    assert run_of(6, Stop(precision=0.5, min_blocks=7))[0] is None
    assert run_of(6, Stop(precision=0.001, min_blocks=6))[0] is None


def test_a_run_that_is_as_precise_as_asked_is_whole_and_one_that_is_not_says_so(tmp_path: Path) -> None:
    manifest = sample.make_manifest((sample.EVENTS,), blocks=12)
    calls = list(sample.make_calls(manifest))

    def cautions(precision: float, blocks: int, stopped: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        stop = Stop(precision=precision, min_blocks=6)
        asked = msgspec.structs.replace(
            manifest, protocol=msgspec.structs.replace(manifest.protocol, stop=stop), stopped=stopped
        )
        made = calls[: len(calls) * blocks // 12]
        found = conclude(sample.make_run(tmp_path / f"{precision} {blocks}", asked, made), SCENARIO)
        return tuple(said for said in found.cautions if "target" in said or "ended" in said), found.faults

    assert cautions(0.5, 6, PRECISION_REACHED) == ((), ())
    (said,), faults = cautions(0.001, 12, None)
    assert said.startswith("target not reached: the widest interval is ±")
    assert said.endswith("and ±0.1% was asked (ended by: blocks cap)")
    assert faults == ()
    (said,), faults = cautions(0.001, 4, None)
    assert "cells have no interval (interrupted)" in said
    assert faults[0].startswith("interrupted: only ")


def test_a_run_ends_with_the_block_in_which_its_minutes_are_over(tmp_path: Path) -> None:
    manifest = sample.make_manifest((sample.EVENTS,), blocks=1)
    capped = msgspec.structs.replace(manifest.protocol, caps=Caps(minutes=10.0))
    store = sample.make_run(tmp_path, msgspec.structs.replace(manifest, protocol=capped))
    assert ends(store, minutes=9.9, spends=False) is None
    assert ends(store, minutes=10, spends=False) == MINUTES_CAP
    began = datetime.fromtimestamp(of_minutes(600)(), UTC).isoformat()
    store.write_manifest(msgspec.structs.replace(store.manifest(), resumed_at=(began,)))
    assert ends(store, minutes=601, spends=False) is None, "interruptions do not count"


def test_a_run_on_aws_ends_before_the_block_that_would_pass_its_usd(tmp_path: Path) -> None:
    manifest = sample.make_manifest((sample.EVENTS,), blocks=2, prices=msgspec.to_builtins(PRICED), target="aws")
    store = sample.make_run(tmp_path, manifest)
    spent, dearest = spent_usd(store, SCENARIO)
    assert spent / 2 == pytest.approx(dearest, rel=Decimal("0.1"))
    for usd, reason in ((spent + dearest, None), (spent + dearest - Decimal("1e-9"), USD_CAP)):
        capped = msgspec.structs.replace(manifest.protocol, caps=Caps(usd=usd))
        store.write_manifest(msgspec.structs.replace(manifest, protocol=capped))
        assert ends(store, minutes=1, spends=True) == reason
        assert ends(store, minutes=1, spends=False) is None


def test_a_cap_below_one_block_ends_a_run_on_aws_before_anything_is_spent(tmp_path: Path) -> None:
    manifest = sample.make_manifest((sample.EVENTS,), blocks=2, prices=msgspec.to_builtins(PRICED), target="aws")
    cells = list(schedule(msgspec.structs.replace(manifest.protocol, blocks=1), manifest.seed))
    block = make_plan(manifest.protocol, SCENARIO, manifest.functions, PRICED, cells, target="aws").usd
    store = sample.make_run(tmp_path / "none", manifest, [])
    partial = sample.make_run(tmp_path / "some", manifest, list(sample.make_calls(manifest))[:20])
    spent, _ = spent_usd(partial, SCENARIO)
    assert 0 < spent < block / 2, "what was made of the first block says too little of the next"
    for run, most in ((store, block), (partial, spent + block)):
        for usd, reason in ((most, None), (most - Decimal("1e-9"), USD_CAP)):
            capped = msgspec.structs.replace(manifest.protocol, caps=Caps(usd=usd))
            run.write_manifest(msgspec.structs.replace(manifest, protocol=capped))
            assert ends(run, minutes=1, spends=True) == reason
            assert ends(run, minutes=1, spends=False) is None


def test_what_a_lost_call_cost_is_taken_for_the_most(tmp_path: Path) -> None:
    manifest = sample.make_manifest((DESIGN,), prices=msgspec.to_builtins(PRICED))
    planned = next(schedule(manifest.protocol, 7))
    lost = msgspec.structs.replace(
        made(planned, 0), answer=msgspec.Raw(b"null"), log_tail=None, error="ReadTimeoutError"
    )
    throttled = msgspec.structs.replace(lost, call_id="t", throttled=True, error="TooManyRequestsException: no")
    spent, _ = spent_usd(sample.make_run(tmp_path, manifest, [lost, throttled]), SCENARIO)
    timeout = Decimal(900) / 2 * Decimal("0.0000166667")  # 512 MB on x86_64, and what is asked of S3 and of the log
    assert timeout < spent < timeout * Decimal("1.01")


# the plan


def test_a_plan_by_hand() -> None:
    design = msgspec.structs.replace(sample.BATCH, factors={"language": ("go",), "callers": (2,)}, invocations=3)
    plan_of = protocol(design, blocks=2)
    functions = {"go": sample.make_function("go")}
    cells = list(schedule(plan_of, 1))
    name = plan_of.cells[0].name
    known = Experience(run_id="r", elapsed_ms={name: 2000.0}, billed_ms={name: 1000.0})
    plan = make_plan(plan_of, SCENARIO, functions, PRICED, cells, target="local", experience=known)
    assert (plan.blocks, plan.calls, plan.warmup_calls) == (2, 6, 4)
    assert not any("a warm call is assumed" in said for said in plan.assumptions), "times are known"
    assert plan.stored_bytes == 10 * 24 * 2**20
    # each block: half a second, an init of 0.6 s, a warm-up and two rounds of 2 s
    assert plan.minutes == pytest.approx(2 * (0.5 + 0.6 + 3 * 2) / 60)
    (of_design,) = plan.designs
    gb_s = Decimal("0.0000166667")  # of 1,024 MB
    assert of_design.usd_by_component["lambda"] == 6 * gb_s + 4 * gb_s * Decimal("1.6") + 10 * Decimal("0.2") / 10**6
    assert of_design.usd_by_component["requests"] == 10 * 5 * Decimal(5) / 10**6  # three parts of 8 MB, begin and end
    assert plan.usd == of_design.usd + plan.lab_usd
    assert plan.usd_at_most - plan.usd == pytest.approx(10 * (900 * gb_s + Decimal("0.2") / 10**6), rel=Decimal("1e-9"))
    unpriced = msgspec.structs.replace(PRICED, s3=None)
    with pytest.raises(PriceSheetError, match="does not price requests, storage; add these prices"):
        make_plan(plan_of, SCENARIO, functions, unpriced, cells, target="local")


def test_a_plan_learns_from_the_newest_run_of_the_same_designs(tmp_path: Path) -> None:
    manifest = sample.make_manifest((sample.EVENTS,), blocks=1)
    store = sample.make_run(tmp_path, manifest)
    here = Conditions.of(manifest)
    found = find_experience(tmp_path, manifest.protocol, SCENARIO, manifest.functions, here)
    assert found is not None
    assert found.run_id == store.folder.name
    assert found.elapsed_ms.keys() == {cell.name for cell in manifest.protocol.cells}
    for unlike in (
        {"target": "aws"},
        {"machine": {"system": "another"}},
        {"cpu_limit": "none"},
        {"cpu_scale": 0.5},
        {"latency": {"name": "slow", "date": "2026-11-21", "seed": 1}},
    ):
        conditions = msgspec.structs.replace(here, **unlike)
        assert find_experience(tmp_path, manifest.protocol, SCENARIO, manifest.functions, conditions) is None
    for changed in ({"architecture": "arm64"}, {"runtime": "another"}, {"memory_mb": 2048}, {"code_sha256": "other"}):
        functions = {name: msgspec.structs.replace(of, **changed) for name, of in manifest.functions.items()}
        assert find_experience(tmp_path, manifest.protocol, SCENARIO, functions, here) is None


# files


def test_what_was_found_is_of_the_call_and_its_attempt(tmp_path: Path) -> None:
    manifest = sample.make_manifest((DESIGN,))
    planned = next(schedule(manifest.protocol, 7))
    calls = [made(planned, 0, found=None), made(planned, 0, found=None, attempt=2), made(planned, 1, found=None)]
    store = FactorialDirectory.create(tmp_path, manifest)
    for call in calls:
        store.append_calls([call])
    store.append_findings([Finding(call_id=calls[0].call_id, attempt=2, found=True)])
    assert [call.found for call in FactorialDirectory.open(tmp_path, "latest").calls()] == [None, True, None]


def test_the_reader_of_one_kind_of_run_says_that_it_is_another(tmp_path: Path) -> None:
    calls = sample.make_run(tmp_path / "a", sample.make_manifest((DESIGN,)), [])
    messages = RunDirectory.create(tmp_path / "b", samples.make_manifest())
    for read, folder, found, wanted in (
        (RunDirectory, calls.folder, "factorial", "messages"),
        (FactorialDirectory, messages.folder, "messages", "factorial"),
    ):
        with pytest.raises(UsageError) as caught:
            read(folder).manifest()
        assert str(caught.value) == (
            f"{folder} is a run of kind {found}, and only one of kind {wanted} can be used here; name another run; "
            "`lambdalab report` and `lambdalab run --resume` take either kind."
        )


# what was typed


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("run s3-ingest", 3, "no local stack is up; start one with `lambdalab up s3-ingest`, or add --up"),
        (
            "plan s3-ingest --protocol s3-ingest-full --blocks 1000",
            2,
            "with --blocks: calls is 3780000; ask for 1,000,000",
        ),
        ("run s3-ingest --build a", 2, "--build means nothing for scenario s3-ingest, whose functions are called;"),
        ("run s3-ingest --protocol strict", 2, "protocol strict is for scenario ingest, not s3-ingest; run `lambdalab"),
        ("run --protocol s3-ingest", 2, "protocol s3-ingest is for scenario s3-ingest, not ingest; run `lambdalab run"),
        ("run s3-ingest --protocol nope", 2, 'scenarios/s3_ingest/protocols/ has no "nope"; there are: s3-ingest, s3-'),
        ("run s3-ingest --resume nope", 2, "nope is not a run directory"),
        ("run s3-ingest --resume calls --seed 3", 2, "--seed cannot be changed when a run goes on with --resume"),
        ("run s3-ingest --resume messages", 2, "is a run of kind messages, and only one of kind factorial can be used"),
        (
            "run ingest --resume calls",
            2,
            "run calls is of scenario s3-ingest, not ingest; run `lambdalab run s3-inges",
        ),
        ("run --resume calls", 3, "no local stack is up; start one with `lambdalab up s3-ingest`, or add --"),
        ("run --resume calls --build a", 2, "--build means nothing for scenario s3-ingest, whose functions are called"),
        ("run --resume messages", 3, "no local stack is up; start one with `lambdalab up`, or add --up"),
        ("run s3-ingest --target aws --up", 2, "--up brings up a local stack, and the target is aws"),
        (
            "run --function-prefix f",
            2,
            "--function-prefix f means nothing for scenario ingest, whose functions are sent",
        ),
        (
            "plan --function-prefix f",
            2,
            "--function-prefix f means nothing for scenario ingest, whose functions are sent",
        ),
        ("plan s3-ingest --function-prefix f", 3, "no local stack is up"),
        ("plan s3-ingest --target aws --stack-name s --function-prefix f", 2, "--stack-name names a stack, and --func"),
        ("run s3-ingest --target aws --stack-name s --function-prefix f", 2, "--stack-name names a stack, and --func"),
        ("run s3-ingest --resume calls --function-prefix f", 2, "--function-prefix cannot be changed when a run goes"),
        ("plan s3-ingest --effect 0.1", 2, "--effect means nothing for scenario s3-ingest"),
        ("report calls --formula seed", 2, "--formula means nothing for scenario s3-ingest"),
        ("report calls --free-tier", 2, "--free-tier is an allowance of a month; add --per-month RATE"),
        ("compare calls", 4, "is invalid: interrupted: only 0 of "),
        ("sweep --resume calls", 2, "is a run of kind factorial, and only one of kind messages can be used here"),
    ],
)
def test_one_sentence_and_a_next_step(call: CommandLine, project: Path, arguments: str, code: int, said: str) -> None:
    for name, store in (
        ("calls", sample.make_run(project / "made", sample.make_manifest((DESIGN,)), [])),
        ("messages", RunDirectory.create(project / "made", samples.make_manifest())),
    ):
        (project / "results").mkdir(exist_ok=True)
        store.folder.rename(project / "results" / name)
    ended = call(*arguments.split())
    assert said in one_sentence(ended)
    assert ended.code == code


def test_a_run_of_calls_goes_on_without_its_scenario(
    call: CommandLine, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its calls are made, so that going on only shows the result again."""
    manifest = sample.make_manifest((DESIGN,), blocks=1)
    planned = schedule(manifest.protocol, manifest.seed)
    store = sample.make_run(project / "results", manifest, [made(cell, n) for cell in planned for n in range(4)])
    asked: list[object] = []
    monkeypatch.setattr("lambdalab.run.call_experiment.resume_run", lambda _, run: asked.append(run.folder))
    monkeypatch.setattr("lambdalab.run.call_experiment.execute", lambda *_: [])

    @contextmanager
    def held(scenario: str, **_: object) -> Iterator[tuple[None, None]]:
        asked.append(scenario)
        yield None, None

    monkeypatch.setattr("lambdalab.cli.calls.held_local_stack", held)
    monkeypatch.setattr("lambdalab.run.local_target.local_target", lambda *_: SimpleNamespace(name="local"))
    monkeypatch.setattr("lambdalab.run.circumstances.cpu_limit", lambda _: "none")
    ended = call("run", "--resume", "latest")
    assert ended.code == 0, ended.err
    assert ended.err.count(f"caution: {CAUTION}\n") == 1
    assert asked == ["s3-ingest", store.folder.resolve()]
    assert ended.out == call("report", "latest").out


def test_the_whole_design_is_planned_without_a_stack(call: CommandLine) -> None:
    ended = call("plan", "s3-ingest", "--protocol", "s3-ingest-full")
    assert ended.code == 0, ended.err
    assert "18,900 calls and 8,280 that warm up" in ended.out
    assert "custom metrics 6.00 USD a month" in ended.out
    as_json = msgspec.json.decode(call("plan", "s3-ingest", "--json").out)
    assert (as_json["calls"], as_json["blocks"], len(as_json["designs"])) == (1152, 6, 2)
    assert [said.split(" (")[0] for said in as_json["assumptions"] if said.startswith("caution: ")] == [
        f"caution: {label}: a cell is so few rounds of calls in a block" for label in ("events", "batch")
    ]
    assert as_json["assumptions"][-1].startswith("where nobody measured, a warm call is assumed to take 60 ms")


def test_a_fraction_is_planned_with_its_cells(call: CommandLine, project: Path) -> None:
    whole = (project / "scenarios/s3_ingest/protocols/s3-ingest-full.toml").read_text()
    assert whole.count("invocations = ") == 2
    (project / "third.toml").write_text(whole.replace("invocations = ", "fraction = 3\ninvocations = "))
    ended = call("plan", "s3-ingest", "--protocol", "third.toml")
    assert ended.code == 0, ended.err
    assert "6,300 calls and" in ended.out
    assert ended.out.count("18 of 54") == 2


def test_a_run_without_calls_has_all_of_them_left(tmp_path: Path) -> None:
    store = sample.make_run(tmp_path, sample.make_manifest((DESIGN,), blocks=3), [])
    assert len(cells_left(store)) == 3 * len(DESIGN.cells)
    store.write_manifest(msgspec.structs.replace(store.manifest(), stopped=USD_CAP))
    assert cells_left(store) == []
