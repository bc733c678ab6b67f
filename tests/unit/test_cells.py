"""A function for every cell: which there are, what copies of a template's function are given, what is refused."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from command_line import Call, call_fixture, one_sentence, project_fixture  # noqa: F401
from sam_template import ROOT, template

from lambdalab.build.cells import CellFunction, add_cells, check_reservation, choose_cells, load_cells, reservable
from lambdalab.errors import LambdalabError, StackError, UsageError

FOLDER = ROOT / "scenarios/s3_ingest"
FILE = FOLDER / "cells.toml"
TEMPLATE = template(FOLDER)
SEED = [
    *(f"ingest-events-m{m}-b{b}-rc{rc}" for m in (512, 1024, 2048) for b in (1, 10, 100) for rc in (0, 10, 50)),
    *(f"ingest-batch-m{m}-p{p}-rc{rc}" for m in (512, 1024, 2048) for p in (8, 32, 64) for rc in (0, 10, 50)),
]
"""The names of the system that is replaced."""


def chosen(**only: str) -> list[CellFunction]:
    return choose_cells(load_cells(FILE), {factor: levels.split(",") for factor, levels in only.items()})


def test_the_original_54_functions_keep_their_names() -> None:
    assert [function.function_name for function in chosen(language="python")] == SEED
    assert [function.function_name for function in chosen(language="go")] == [f"{name}-go" for name in SEED]


def test_all_54_are_more_than_a_default_account_may_reserve() -> None:
    with pytest.raises(StackError) as caught:
        check_reservation(chosen(language="python"), 900)
    assert str(caught.value).startswith(
        "these 54 functions reserve 1,080 environments, and the account has 900 left to reserve, since 100 must stay "
        "unreserved: AWS would refuse them, so nothing was deployed; choose fewer cells with --only"
    )
    few = chosen(language="python", reserved_concurrency="0,10")
    assert sum(function.reserved_concurrency for function in few) == 180
    check_reservation(few, 180)
    with pytest.raises(StackError, match="180 environments, and the account has 179"):
        check_reservation(few, 179)


def test_what_a_function_has_reserved_by_now_is_not_wanted_twice() -> None:
    functions = chosen(language="python", memory_mb="512", batch_events="1")
    has = {functions[1].function_name: {"ReservedConcurrentExecutions": 10}, functions[2].function_name: {}}

    def concurrency(FunctionName: str) -> dict[str, int]:  # noqa: N803 - boto's
        if FunctionName not in has:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "GetFunctionConcurrency")
        return has[FunctionName]

    limit = {"AccountLimit": {"UnreservedConcurrentExecutions": 990}}
    fake: Any = SimpleNamespace(
        lambda_=SimpleNamespace(get_account_settings=lambda: limit, get_function_concurrency=concurrency)
    )
    assert reservable(fake, functions) == 900
    limit["AccountLimit"]["UnreservedConcurrentExecutions"] = 50
    assert reservable(fake, []) == 0


def test_a_cell_is_a_copy_with_its_levels_as_configuration_environment_and_tags() -> None:
    without, ten = chosen(
        language="go", design="batch", memory_mb="2048", multipart_mb="32", reserved_concurrency="0,10"
    )
    made = add_cells(TEMPLATE, [without, ten])
    added = {name: body for name, body in made["Resources"].items() if name not in TEMPLATE["Resources"]}
    assert set(added) == {"CellIngestBatchM2048P32Rc0Go", "CellIngestBatchM2048P32Rc10Go"}
    properties = added["CellIngestBatchM2048P32Rc10Go"]["Properties"]
    changed = {
        "FunctionName": "ingest-batch-m2048-p32-rc10-go",
        "MemorySize": 2048,
        "ReservedConcurrentExecutions": 10,
        "Environment": {
            "Variables": {
                "WORKLOAD": "batch", "OBJECT_MB": "100", "MULTIPART_MB": "32", "RESERVED_CONCURRENCY": "10",
            }
        },
        "Tags": {
            "design": "batch", "workload": "batch", "object_mb": "100", "language": "go", "memory_mb": "2048",
            "multipart_mb": "32", "reserved_concurrency": "10",
        },
    }  # fmt: skip
    assert properties == TEMPLATE["Resources"]["GoS3Ingest"]["Properties"] | changed
    none = added["CellIngestBatchM2048P32Rc0Go"]["Properties"]
    assert none["ReservedConcurrentExecutions"] == {"Ref": "AWS::NoValue"}, "a 0 would stop the function"
    assert none["Environment"]["Variables"]["RESERVED_CONCURRENCY"] == "0"
    assert {name: made["Resources"][name] for name in TEMPLATE["Resources"]} == TEMPLATE["Resources"]


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ({"memory": "512"}, "no design has a factor 'memory'; perhaps \"memory_mb\" is meant"),
        ({"memory_mb": "513"}, "memory_mb has no level '513'; perhaps \"512\" is meant"),
        ({"batch_events": "1", "multipart_mb": "8"}, "no cell has batch_events=1, multipart_mb=8"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(only: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match="^" + said):
        chosen(**only)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('language = ["python", "go"]', "", 1), "design events has no factor language"),
        (lambda text: text.replace('"go"]', '"rust"]'), "there is no function of language 'rust'"),
        (lambda text: text.replace("2048]", "64]"), "memory_mb is 64; use a whole number from 128 to 10240"),
        (lambda text: text.replace("50]", '"all"]'), "reserved_concurrency is 'all'"),
        (lambda text: text.replace("{batch_events}", "{batch}"), "design events has no factor 'batch' for its name"),
        (
            lambda text: text.replace("-rc{reserved_concurrency}", ""),
            "would be named ingest-events-m512-b1, like events ",
        ),
        (lambda text: text.replace('suffix = "-go"', ""), "put every factor into the name, and the language by a"),
        (
            lambda text: text.replace("ingest-events", "ingest events"),
            "ingest events-m512-b1-rc0 is no function's name",
        ),
        (lambda text: text.replace("label", "lable"), "is unknown"),
    ],
)
def test_a_file_that_cannot_be_deployed_is_refused(change: Callable[[str], str], said: str, tmp_path: Path) -> None:
    file = tmp_path / "cells.toml"
    file.write_text(change(FILE.read_text()))
    assert file.read_text() != FILE.read_text()
    with pytest.raises(UsageError) as caught:
        load_cells(file)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("GoS3Ingest", "GoIngest", "the template has no function GoIngest; perhaps"),
        ("batch_events", "batch_event", "GoS3Ingest has no variable BATCH_EVENT for batch_event; perhaps"),
    ],
)
def test_what_the_template_lacks_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "cells.toml"
    file.write_text(FILE.read_text().replace(old, new))
    functions = choose_cells(load_cells(file), {"language": ["go"]})
    with pytest.raises(LambdalabError, match="^" + said):
        add_cells(TEMPLATE, functions)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("nothing.toml", 2, "nothing.toml cannot be read: No such file or directory; check the path."),
        (f"{FILE} --only memory", 2, "--only 'memory' is not FACTOR=LEVEL; write for example memory_mb=512,1024."),
        (f"{FILE} --only memory_mb=", 2, "--only 'memory_mb=' is not FACTOR=LEVEL; write for example"),
        (f"{FILE} --target local", 3, "no local stack is up; start one with `lambdalab up s3-ingest`"),
        (f"{FILE} --json", 3, "no AWS "),
    ],
)
def test_what_cannot_be_listed_is_said_in_a_sentence(
    call: Call, project: Path, arguments: str, code: int, said: str
) -> None:
    ended = call("cells", *arguments.split())
    assert ended.code == code
    assert one_sentence(ended).startswith(said)
