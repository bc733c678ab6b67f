"""The arguments of a load run: what they mean, and how what is wrong with them is said."""

import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

from lambdalab.errors import LoadPlanError
from lambdalab.load.arguments import ARGUMENTS, add_arguments, plan_of, read_times, seconds
from lambdalab.planning.load_schedule import LoadPlan, Shape, check_plan


def plan(*arguments: str) -> LoadPlan:
    parser = ArgumentParser()
    add_arguments(parser)
    return plan_of(parser.parse_args(arguments), seed=42)


def test_the_defaults_are_a_plan_that_can_be_run() -> None:
    check_plan(plan())
    assert plan() == LoadPlan(seed=42, rates=(5.0, 10.0, 20.0, 40.0))


def test_every_shape_can_be_run_with_the_defaults() -> None:
    for shape in Shape:
        extra = ["--hold", "10s"] if shape is Shape.SOAK else []
        if shape is not Shape.REPLAY:
            check_plan(plan("--shape", shape, *extra))


def test_what_is_typed_is_what_is_planned() -> None:
    found = plan(
        "--shape", "steps", "--rates", "5, 10,40", "--hold", "1m30s", "--languages", "python:3,go", "--seed", "7",
        "--mix", "SMALL_1KBx100*9,65536Bx100/batch,1024Bx10/concurrent*2", "--batch-size", "10", "--max-time", "2h",
    )  # fmt: skip
    assert (found.rates, found.hold_s, found.seed, found.batch_size, found.max_s) == ((5, 10, 40), 90, 7, 10, 7200)
    assert found.languages == {"python": 3, "go": 1}
    assert [(m.label, m.size_bytes, m.count, m.mode.value, m.share) for m in found.mix] == [
        ("SMALL_1KBx100", 1024, 100, "sequential", 9),
        ("65536Bx100-batch", 65536, 100, "batch", 1),
        ("1024Bx10-concurrent", 1024, 10, "concurrent", 2),
    ]


@pytest.mark.parametrize(
    ("text", "meant"), [("90", 90), ("90s", 90), ("0.5", 0.5), ("1m30s", 90), ("2h", 7200), ("1h1m1s", 3661), ("0", 0)]
)
def test_times(text: str, meant: float) -> None:
    assert seconds(text) == meant


@pytest.mark.parametrize("text", ["", "s", "soon", "-3s", "1s1m", "1d", "nan"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        seconds(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rate", "fast"], '--rate is "fast"; write for example 10.'),
        (["--rate", ""], '--rate is ""; write for example 10.'),
        (["--duration", "soon"], '--duration is "soon"; write for example 60s.'),
        (["--rates", "5,x"], '--rates is "x"; write for example 5,10,20,40.'),
        (["--batch-size", "2.5"], '--batch-size is "2.5"; write for example 1.'),
        (["--seed", "one"], '--seed is "one"; write for example 7.'),
        (["--languages", "go,go"], '--languages has "go"; write each once, such as python:3,go:1.'),
        (["--languages", "go:x"], '--languages has "go:x"'),
        (["--mix", "SMALL"], '--mix has label "SMALL"; there are: WARMUP, SMALL_1KBx100, LARGE_64KBx100; or write'),
        (["--mix", "1024Bx10/fast"], '--mix has mode "fast"; there are: sequential, concurrent, batch.'),
        (["--mix", "1024Bx10*many"], '--mix has "1024Bx10*many"; write for example 1024Bx10/batch*3.'),
        (["--shape", "replay", "--replay", "nowhere.csv"], "replay file nowhere.csv cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(arguments: list[str], said: str) -> None:
    with pytest.raises(LoadPlanError) as refused:
        plan(*arguments)
    assert said in str(refused.value)


def test_a_word_that_the_form_does_not_offer_is_refused_as_well() -> None:
    parser = ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args([])
    options.shape = "sawtooth"
    with pytest.raises(LoadPlanError, match='--shape is "sawtooth"; there are: constant, steps'):
        plan_of(options, seed=1)


def test_an_unknown_language_is_refused_by_the_plan() -> None:
    with pytest.raises(LoadPlanError, match="there are: python, go"):
        check_plan(plan("--languages", "ruby"))


@pytest.mark.parametrize(
    "content",
    [
        "10\n10.5\n12\n",
        "time,size\n10,3\n10.5,4\n\n12,1\n",
        '"when"\n"2026-11-21T10:00:10Z"\n"2026-11-21T10:00:10.5Z"\n"2026-11-21T11:00:12+01:00"\n',
    ],
)
def test_times_of_a_replay_are_seconds_or_iso_8601_after_the_first(tmp_path: Path, content: str) -> None:
    file = tmp_path / "times.csv"
    file.write_text(content)
    assert read_times(file) == (0, 0.5, 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1\n0.5\n", 'times.csv:2: "0.5" is before the line above; sort the file by time.'),
        ("time\n1\nlater\n", 'times.csv:3: "later" is no time; write seconds, or ISO 8601'),
    ],
)
def test_a_wrong_line_of_a_replay_is_named(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "times.csv"
    file.write_text(content)
    with pytest.raises(LoadPlanError) as refused:
        read_times(file)
    assert said in str(refused.value)


def test_no_argument_has_a_name_that_locust_uses() -> None:
    """They share one parser and one form; a process of its own, since importing Locust changes the whole process."""
    code = "import json; from locust.argument_parser import default_args_dict as d; print(json.dumps(list(d())))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [name for name in ARGUMENTS if f'"{name.replace("-", "_")}"' in names]
