"""`lambdalab compare` and `lambdalab aa` as they are typed: verdicts, exit codes, refusals, and what is kept."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sample_factorial
from command_line import Call, Ended, call_fixture, one_sentence, project_fixture  # noqa: F401
from fake_target import FakeTarget
from samples import (
    BEGAN_MS,
    LOADS,
    make_facts,
    make_lines,
    make_manifest,
    make_report,
    make_result,
    make_trials,
    record_line,
)

from lambdalab.analysis.answer import _aa_commands
from lambdalab.analysis.message_analysis import summarise
from lambdalab.analysis.pairing import compare_arms, differences
from lambdalab.analysis.resolution import Record, design_of, make_record, most_allowed, resolutions_of, runs_that_differ
from lambdalab.cli import compare
from lambdalab.design.arms import Factors, Load, Mode, Start
from lambdalab.logs.platform_lines import parse_report, render_report
from lambdalab.machine_load import BlockLoad
from lambdalab.planning.protocol import load_protocol
from lambdalab.records.cpu_limit import CAUTION
from lambdalab.records.manifest import MessageManifest
from lambdalab.records.trial_files import SCHEMA_VERSION, RunDirectory
from lambdalab.report.markdown import markdown_of
from lambdalab.run import runner
from lambdalab.run.target import Resources
from lambdalab.statistics.comparison import Comparison, Metric, Verdict

BUILDS = Factors(language=("python",), build=("baseline", "candidate"))
Typed = Callable[[str], Ended]


@pytest.fixture
def results(project: Path) -> Path:
    return project / "results"


@pytest.fixture
def typed(call: Call) -> Typed:
    """Calls the command line with words as a person types them."""
    return lambda line: call(*line.split())


def write_run(results: Path, run_id: str, times: dict[str, float], *, blocks: int = 10, **changes: Any) -> RunDirectory:
    """A finished run in which each arm's warm duration is so many times 100 ms, and a little different every block."""
    manifest = make_manifest(blocks=blocks, run_id=run_id, **changes)
    run = RunDirectory.create(results, manifest)
    for trial in make_trials(manifest):
        result = make_result(trial, batch_id=f"{run_id}:{trial.trial_id}")
        run.append_trial(result)
        ms = round(100 * times.get(trial.arm, 1.0) + 0.1 * trial.block + 0.03, 2)
        changed: dict[str, Any] = {"duration_ms": ms, "billed_ms": int(ms) + 1} if trial.load.start == "warm" else {}
        report = render_report(make_report(result, **changed))
        run.append_log_lines(make_lines(result, record_line(result, run_id=run_id), report))
    return run


# verdicts and exit codes


@pytest.mark.parametrize(
    ("factor", "code", "verdict"), [(1.2, 1, "regression"), (1.0, 0, "no change"), (0.8, 0, "improvement")]
)
def test_builds_of_one_run(typed: Typed, results: Path, factor: float, code: int, verdict: str) -> None:
    write_run(results, "one", {"python-candidate": factor}, factors=BUILDS)
    ended = typed("compare latest")
    assert ended.code == code, ended.err
    assert ended.out.startswith(f"Verdict: {verdict}")
    assert "python-candidate/python-baseline" in ended.out
    assert "arms of one, interleaved in blocks\ncaution: local times: " in ended.out


def test_what_other_programs_took_of_the_machine_is_said_beside_the_verdict(typed: Typed, results: Path) -> None:
    run = write_run(results, "one", {"python-candidate": 1.0}, factors=BUILDS)
    run.append_block_load(BlockLoad(block=1, others_cpu_s=8.0, capacity_cpu_s=20.0))
    said = typed("compare latest").out
    assert "caution: other programs took 40% of this machine's CPU time" in " ".join(said.split())


def test_a_language_that_is_slower_is_no_regression(typed: Typed, results: Path) -> None:
    write_run(results, "one", {"python": 3.0})
    ended = typed("compare one")
    assert ended.code == 0
    assert ended.out.startswith(
        "Verdict: slower: of 4 comparisons 1 slower, 3 no change\nWarm work: Go is 3.0x faster than Python"
    )


@pytest.mark.parametrize(
    ("factor", "code", "verdict"), [(1.2, 1, "regression"), (1.0, 0, "no change"), (0.8, 0, "improvement")]
)
def test_a_run_against_another(typed: Typed, results: Path, factor: float, code: int, verdict: str) -> None:
    write_run(results, "before", {})
    write_run(results, "after", {"go": factor})
    ended = typed("compare before after")
    assert ended.code == code, ended.err
    assert ended.out.startswith(f"Verdict: {verdict}")
    assert "go B/go A" in ended.out
    assert "A is before, B is after\nmeasured one after the other: a drift" in ended.out
    assert "lambdalab aa" not in ended.out, "it would tell nothing of two runs"


def test_a_margin_decides_what_matters(typed: Typed, results: Path) -> None:
    write_run(results, "one", {"python-candidate": 1.1}, factors=BUILDS)
    assert typed("compare one").code == 1
    ended = typed("compare one --margin 0.2")
    assert (ended.code, ended.out.startswith("Verdict: no change in all 3 comparisons")) == (0, True)
    assert "changes under 20.0% are ignored" in ended.out


def test_markdown_is_a_table_and_has_the_same_exit_code(typed: Typed, results: Path) -> None:
    write_run(results, "one", {"python-candidate": 1.2}, factors=BUILDS)
    ended = typed("compare one --markdown")
    assert ended.code == 1
    first, _, work, _, _, _, heading, rule, *rows = ended.out.splitlines()
    assert first.startswith("**regression: python-candidate has 1.1")
    assert work.startswith(
        "- **Warm work**: python-candidate takes 1.2x as long as python-baseline (SMALL 101 ms against"
    )
    assert heading.count("|") == rule.count("|") == 9
    assert [row.count("|") for row in rows[:9]] == [9] * 9
    assert rows[5].startswith("| SMALL | python-candidate / python-baseline | duration | 1.1")
    assert rows[5].endswith("| regression |")
    assert rows[10] == "- arms of one, interleaved in blocks"
    assert rows[11].startswith("- caution: local times: ")


def test_nothing_others_wrote_breaks_markdown() -> None:
    of = Comparison(
        label="a|b", metric=Metric.COST, arm="<x>", over="y", arm_median=None, over_median=None, ratio=None, low=None,
        high=None, p_value=None, p_adjusted=None, effect_name="", effect=None, n_blocks=0, fewest_blocks=6,
        needed_blocks=6, margin=0.025, resolution=None,
        verdict=Verdict.INCONCLUSIVE,
    )  # fmt: skip
    assert markdown_of("v", [], [of], ["[x](y)"]).splitlines()[5] == (
        r"| a\|b | \<x\> / y | cost | - | - | 0 | - | inconclusive |"
    )


# too few blocks


def test_a_run_that_cannot_decide_ends_with_4_and_the_number_of_blocks_that_would(typed: Typed, results: Path) -> None:
    write_run(results, "one", {"python-candidate": 39}, factors=BUILDS, blocks=6)
    ended = typed("compare one")
    assert ended.code == 4
    assert ended.out.startswith(
        "Verdict: inconclusive: of 3 comparisons 2 inconclusive, 1 no change; about 7 blocks would decide"
    )
    assert "6 blocks find no difference, however large: 2 comparisons need at least 7" in ended.out
    assert ended.err == (
        "lambdalab: 6 blocks are too few to decide; about 7 would decide; measure at least 7 blocks.\n"
    )
    markdown = typed("compare one --markdown")
    assert markdown.code == 4
    assert "- caution: 6 blocks find no difference, however large" in markdown.out
    write_run(results, "two", {"python-candidate": 39}, factors=BUILDS, blocks=7)
    assert typed("compare two").code == 1


def test_two_runs_of_too_few_blocks_cannot_decide(typed: Typed, results: Path) -> None:
    for blocks, code in ((5, 4), (6, 1)):
        write_run(results, f"before{blocks}", {}, blocks=blocks)
        write_run(results, f"after{blocks}", {"go": 2}, blocks=blocks)
        ended = typed(f"compare before{blocks} after{blocks}")
        assert ended.code == code, ended.out + ended.err


# refusals


UNLIKE: dict[str, dict[str, Any]] = {
    "machine unknown, unknown, unknown, unknown, unknown and other, unknown": {"machine": {"processor": "other"}},
    "target local and aws": {"target": "aws"},
    "cpu limit cgroup v2 and none": {"cpu_limit": "none"},
    "cpu scale 1 and 0.5": {"cpu_scale": 0.5},
    "price sheet us-east-1 2026-11-20 and us-east-1 2027-01-01": {"price_sheet": "us-east-1 2027-01-01"},
    "latency model none and m 2026, seed 1": {"latency": {"name": "m", "date": "2026", "seed": 1}},
    "load SMALL 100 x 1024 bytes warm and 50 x 1024 bytes warm": {
        "loads": (LOADS[0], Load(label="SMALL", size_bytes=1024, count=50, start=Start.WARM))
    },
    "loads WARMUP, SMALL and WARMUP": {"loads": LOADS[:1]},
    "go memory_mb 128 and 512": {"functions": {"python": make_facts("python"), "go": make_facts("go", memory_mb=512)}},
    "go mode sequential and batch": {"factors": Factors(language=("go",), mode=(Mode.BATCH,))},
    "go batch_size 1 and 5": {"functions": {"python": make_facts("python"), "go": make_facts("go", batch_size=5)}},
}


@pytest.mark.parametrize(("said", "changes"), UNLIKE.items(), ids=list(UNLIKE))
def test_unlike_runs_are_refused_unless_told(typed: Typed, results: Path, said: str, changes: dict[str, Any]) -> None:
    write_run(results, "before", {})
    write_run(results, "after", {}, **changes)
    ended = typed("compare before after")
    assert ended.code == 2
    sentence = one_sentence(ended)
    assert sentence.startswith(f"runs before and after are unlike: {said}" if "target" not in said else "runs before")
    assert said in sentence
    assert sentence.endswith("; measure both alike, or add --allow-unlike.")
    allowed = typed("compare before after --allow-unlike")
    assert allowed.code in (0, 1)
    assert f"unlike: {said}" in allowed.out


def write_calls(results: Path, run_id: str, factor: float, **changes: Any) -> None:
    """A finished run of calls whose Go function takes so many times 100 ms, and a little more every block."""
    design = msgspec.structs.replace(
        sample_factorial.EVENTS,
        invocations=1,
        factors={"language": ("go",), "memory_mb": (512,), "batch_events": (1, 100), "callers": (1,)},
    )
    manifest = sample_factorial.make_manifest((design,), blocks=10, run_id=run_id, **changes)
    calls = [
        sample_factorial.make_call(
            design,
            cell,
            call_id=f"b{block:02}-{place:03}-0000",
            block=block,
            sent_at_ms=BEGAN_MS + 1000 * block + place,
            latency_ms=(100 + 0.1 * block) * (factor if place == 1 else 1),
        )
        for block in range(1, 11)
        for place, cell in enumerate(design.cells)
    ]
    sample_factorial.make_run(results, manifest, calls)


@pytest.mark.parametrize(
    ("factor", "code", "verdict"), [(1.2, 1, "regression"), (1.0, 0, "no change"), (0.8, 0, "improvement")]
)
def test_a_run_of_calls_against_another(typed: Typed, results: Path, factor: float, code: int, verdict: str) -> None:
    write_calls(results, "before", 1.0)
    write_calls(results, "after", factor)
    ended = typed("compare before after")
    assert ended.code == code, ended.err
    assert ended.out.startswith(f"Verdict: {verdict}")
    assert "go B/go A" in ended.out
    assert "A is before, B is after\nmeasured one after the other: a drift" in ended.out


def test_runs_of_calls_that_cannot_be_compared(typed: Typed, results: Path) -> None:
    write_calls(results, "calls", 1.0)
    write_calls(results, "scaled", 1.0, cpu_scale=2.0)
    write_run(results, "messages", {})
    for arguments, said in {
        "compare calls": "run calls is of calls: it has cells, and what its factors do is in its report; read it with "
        "`lambdalab report calls`, or name a second run of calls to judge.",
        "compare calls scaled": "runs calls and scaled are unlike: cpu scale 1 and 2; measure both alike, or add "
        "--allow-unlike.",
        "compare calls messages --allow-unlike": "of runs calls and messages one is of messages and one of calls; "
        "compare two of a kind.",
    }.items():
        ended = typed(arguments)
        assert (ended.code, one_sentence(ended)) == (2, said)


def test_what_cannot_be_compared(typed: Typed, results: Path) -> None:
    write_run(results, "one", {}, blocks=1, arms=("go",))
    ended = typed("compare one")
    assert (ended.code, one_sentence(ended)) == (4, "run one has one arm only; name a second run to judge.")
    ended = typed("compare one latest")
    assert (ended.code, one_sentence(ended)) == (
        2,
        "A and B are both run one; name two runs, or one to compare its arms.",
    )
    write_run(results, "two", {}, blocks=1, arms=("python",))
    ended = typed("compare one two")
    assert (ended.code, one_sentence(ended)) == (
        4, "runs one and two have no arms and loads in common; compare runs of the same arms and loads.",
    )  # fmt: skip


def test_a_run_that_must_not_be_used_is_not_compared(typed: Typed, results: Path) -> None:
    write_run(results, "good", {}, blocks=2)
    bad = write_run(results, "bad", {}, blocks=2)
    (bad.folder / "platform.jsonl").write_bytes(b"")
    for arguments in ("compare bad", "compare good bad", "compare bad good"):
        ended = typed(arguments)
        assert ended.code == 4
        assert one_sentence(ended).startswith(
            "run bad is invalid: no valid sample of python WARMUP, go WARMUP, python SMALL"
        )


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def foreign(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n")


def older(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace(f'"schema_version": {SCHEMA_VERSION}', f'"schema_version": {SCHEMA_VERSION - 1}'))


def negative(path: Path) -> None:
    path.write_text(path.read_text().replace('"seed": 7', '"seed": "seven"'))


def before_1970(path: Path) -> None:
    path.write_text(re.sub(r'"sent_at_ms":\d+', '"sent_at_ms":-5', path.read_text()))


@pytest.mark.parametrize(
    ("name", "damage", "code", "said"),
    [
        ("run.json", cut, 3, "run.json is damaged: Input data was truncated"),
        ("run.json", foreign, 3, "run.json is damaged: "),
        ("run.json", older, 3, f"run.json has schema version {SCHEMA_VERSION - 1}, this lambdalab reads"),
        ("run.json", negative, 3, "run.json is damaged: Expected `int`, got `str` - at `$.seed`"),
        ("run.json", Path.unlink, 2, "is not a run directory; the newest run in results is good"),
        ("trials.jsonl", before_1970, 3, "trials.jsonl, line 1, is damaged: Expected `int` >= 0 - at `$.sent_at_ms`"),
        ("trials.jsonl", cut, 4, "run bad is invalid: only 0 of 8 trials were run; "),
        ("trials.jsonl", Path.unlink, 4, "run bad is invalid: only 0 of 8 trials were run; "),
        ("platform.jsonl", foreign, 3, "platform.jsonl, line 1, is damaged: "),
        ("platform.jsonl", Path.unlink, 4, "run bad is invalid: no valid sample of "),
    ],
)
@pytest.mark.parametrize("arguments", ["compare bad", "compare good bad"])
def test_a_damaged_run(
    typed: Typed, results: Path, name: str, damage: Callable[[Path], None], code: int, said: str, arguments: str
) -> None:
    write_run(results, "good", {}, blocks=2)
    damage(write_run(results, "bad", {}, blocks=2).folder / name)
    ended = typed(arguments)
    assert said in one_sentence(ended)
    assert ended.code == code


@pytest.mark.parametrize("duration", ["-100.13", "1e400", "99999999999999999999.00", "NaN", "0x10"])
def test_a_time_that_cannot_be_is_no_sample(typed: Typed, results: Path, duration: str) -> None:
    run = write_run(results, "one", {}, blocks=1)
    path = run.folder / "platform.jsonl"
    path.write_text(path.read_text().replace("Duration: 100.13 ms", f"Duration: {duration} ms"))
    ended = typed("compare one")
    assert ended.code == 4
    assert one_sentence(ended).startswith("run one is invalid: no valid sample of python SMALL, go SMALL; ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("compare one --margin 0", "invalid value '0' for '--margin'"),
        ("compare one --margin nan", "invalid value 'nan' for '--margin'"),
        ("aa --language cobol", "--language is 'cobol'; name one of: python, go."),
        ("aa --protocol modes", "protocol modes varies more than the language, and A/A needs two equal arms; name"),
        ("aa --blocks 5", "invalid value '5' for '--blocks'"),
        ("aa --runs 0", "invalid value '0' for '--runs'"),
    ],
)
def test_what_was_typed_is_wrong(typed: Typed, arguments: str, said: str) -> None:
    ended = typed(arguments)
    assert said in one_sentence(ended)
    assert ended.code == 2


# A/A


class Biased(FakeTarget):
    """The second of two equal arms takes twice as long, as after a mistake in the lab."""

    def send(self, of_arm: Resources, bodies: Sequence[str]) -> str:
        message = super().send(of_arm, bodies)
        if self.configured[-1].build == "b":
            last = self.lines[-1]
            report = parse_report(last.message)
            assert report is not None
            slower = msgspec.structs.replace(report, duration_ms=31.48, billed_ms=32 if report.init_ms is None else 162)
            self.lines[-1] = msgspec.structs.replace(last, message=render_report(slower))
        return message


@contextmanager
def aa_on(monkeypatch: pytest.MonkeyPatch, fake: FakeTarget) -> Iterator[None]:
    @contextmanager
    def place(*_: Any, **__: Any) -> Iterator[FakeTarget]:
        yield fake

    monkeypatch.setattr(compare, "target_of", place)
    monkeypatch.setattr(runner, "EMPTY_QUEUE_WAIT_S", 0.0)
    yield


def test_equal_arms_are_found_equal_and_what_is_resolved_is_kept(
    typed: Typed, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lambdalab.run.circumstances.cpu_limit", lambda _: "none")
    with aa_on(monkeypatch, FakeTarget()):
        ended = typed("aa --runs 2")
    assert ended.code == 0, ended.err
    assert ended.err.count(f"caution: {CAUTION}\n") == 1, "once for all runs"
    assert "0 of 6 comparisons claim a difference of python from itself, in 0 of 2 runs; at most 0 may" in ended.out
    (record,) = msgspec.json.decode((results / "aa.json").read_bytes(), type=list[Record])
    assert len(record.runs) == 2
    assert (record.design.language, record.design.memory_mb, record.design.blocks) == ("python", 128, 10)
    assert ("SMALL_1KBx20", Metric.DURATION, 0.0) in [(r.label, r.metric, r.difference) for r in record.resolved]

    later = typed("compare latest")
    assert re.search(
        r"python-b/python-a +duration +1\.000 \[1\.000, 1\.000\] +1\.0000 +10 +0\.0% +no change", later.out
    )
    assert "no A/A run" not in later.out
    assert later.out.count("0.0%") >= 7
    with aa_on(monkeypatch, FakeTarget()):
        assert typed("aa --language go").code == 0
        assert typed("aa").code == 0
    kept = msgspec.json.decode((results / "aa.json").read_bytes(), type=list[Record])
    assert [(one.design.language, len(one.runs)) for one in kept] == [("go", 1), ("python", 1)], "the newest counts"


def test_a_lab_that_finds_equal_arms_different_fails(
    typed: Typed, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with aa_on(monkeypatch, Biased()):
        ended = typed("aa")
    assert ended.code == 1, ended.err
    assert "in 1 of 1 runs; at most 0 may" in ended.out
    assert "regression: python-b has 2.000 times the duration of python-a" in ended.out


def test_an_a_a_run_that_failed_is_not_kept(typed: Typed, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTarget()
    fake.lose = 1
    with aa_on(monkeypatch, fake):
        ended = typed("aa")
    assert ended.code == 4
    assert "is invalid: no valid sample of python-a WARMUP" in ended.err
    assert not (results / "aa.json").exists()


def test_a_damaged_record_is_said(typed: Typed, results: Path) -> None:
    write_run(results, "one", {}, blocks=1)
    (results / "aa.json").write_text('[{"design": 1}]')
    for arguments in ("compare one", "report one"):
        ended = typed(arguments)
        assert "results/aa.json is damaged: Expected `object`, got `int` - at `$[0].design`; remove it" in ended.err
        assert ended.code == 3


def compared(low: float, high: float, verdict: Verdict = Verdict.NO_CHANGE) -> Comparison:
    return Comparison(
        label="SMALL", metric=Metric.DURATION, arm="b", over="a", arm_median=1.0, over_median=1.0, ratio=1.0, low=low,
        high=high, p_value=1.0, p_adjusted=1.0, effect_name="", effect=0.0, n_blocks=10, fewest_blocks=6,
        needed_blocks=10, margin=0.025, resolution=None,
        verdict=verdict,
    )  # fmt: skip


def test_a_resolution_is_the_half_width_of_the_interval_and_the_median_of_runs() -> None:
    manifest = make_manifest(arms=("python",))
    design = design_of(manifest, "python", 10)
    found = {"one": [compared(0.9, 1.1)], "two": [compared(1.0, 2.0)], "three": [compared(0.99, 1.01)]}
    (resolved,) = make_record(design, found).resolved
    assert resolved.difference == pytest.approx((1.1 / 0.9) ** 0.5 - 1)


DESIGNS: list[dict[str, Any]] = [
    {"machine": {"processor": "other"}},
    {"cpu_limit": "none"},
    {"cpu_scale": 2.0},
    {"loads": LOADS[:1]},
    {"functions": {"python": make_facts("python", memory_mb=256)}},
    {"factors": Factors(language=("python",), mode=(Mode.BATCH,))},
    {"factors": Factors(language=("python",), batch_size=(5,))},
]


def known_for(manifest: MessageManifest, blocks: int = 10) -> int:
    record = make_record(design_of(make_manifest(arms=("python",)), "python", 10), {"one": [compared(0.9, 1.1)]})
    return len(resolutions_of([record], manifest, blocks))


@pytest.mark.parametrize("changes", DESIGNS, ids=lambda changes: next(iter(changes)))
def test_a_resolution_holds_for_its_machine_and_design_only(changes: dict[str, Any]) -> None:
    assert known_for(make_manifest(arms=("python",))) == 1
    assert known_for(make_manifest(**{"arms": ("python",)} | changes)) == 0
    assert known_for(make_manifest(arms=("python",)), blocks=11) == 0
    assert known_for(make_manifest(arms=("python", "go"))) == 1, "of both arms one is known"


@pytest.mark.parametrize("protocol", ["strict", "precise", "equal-volume"])
def test_the_commands_that_a_report_names_measure_the_design_of_the_run(protocol: str) -> None:
    manifest = msgspec.structs.replace(make_manifest(), protocol=load_protocol(protocol))
    commands = tuple(_aa_commands(manifest, [compared(0.9, 1.1)]))
    assert len(commands) == 2
    for command, language in zip(commands, ("python", "go"), strict=True):
        words = command.split()
        assert words[:2] == ["lambdalab", "aa"]
        named = dict(zip(words[2::2], words[3::2], strict=True))
        assert named.keys() == {"--protocol", "--language", "--blocks"}
        asked = compare._against_itself(load_protocol(named["--protocol"]), named["--language"], exactly=True)
        functions = {arm.name: make_facts(language) for arm in asked.arms}
        itself = msgspec.structs.replace(manifest, protocol=asked, functions=functions)
        assert asked.stop is None
        assert design_of(itself, f"{language}-a", 10) == design_of(manifest, language, 10)


def test_no_command_is_named_where_there_is_none_or_it_is_not_needed() -> None:
    def commands(blocks: int = 10, **changes: Any) -> tuple[str, ...]:
        measured = msgspec.structs.replace(compared(0.9, 1.1), n_blocks=blocks)
        return tuple(_aa_commands(make_manifest(**changes), [measured]))

    assert commands()
    assert commands(target="aws") == ()
    assert summarise(make_manifest(arms=("go",)), [], []).answer.aa_commands == (), "nothing is compared"
    assert commands(factors=Factors(language=("go",), mode=(Mode.SEQUENTIAL, Mode.BATCH))) == ()
    assert commands(blocks=7)
    assert commands(blocks=6) == (), "`lambdalab aa` refuses fewer than the 7 that its 3 comparisons need"


def test_how_many_runs_may_differ() -> None:
    assert [most_allowed(runs) for runs in (1, 2, 3, 10, 11, 20, 100)] == [0, 0, 1, 1, 2, 2, 8]
    runs = [[compared(1, 1)], [compared(1, 1, Verdict.REGRESSION)] * 3, [compared(1, 1, Verdict.INCONCLUSIVE)]]
    assert runs_that_differ(runs) == 1


def test_two_arms_resolve_no_more_than_the_coarser_and_nothing_when_one_is_unknown() -> None:
    manifest, key = make_manifest(), ("SMALL", Metric.DURATION)

    def shown(known: dict[str, float]) -> set[float | None]:
        found = compare_arms(manifest, [], resolutions={(arm, *key): share for arm, share in known.items()})
        return {of.resolution for of in found if (of.label, of.metric) == key}

    assert shown({"python": 0.02, "go": 0.05}) == {0.05}
    assert shown({"python": 0.02}) == {None}


def test_two_latency_models_of_one_name_are_unlike() -> None:
    one, two = ({"name": "m", "date": "2026", "seed": 1, "calls": [{"p50_ms": ms}]} for ms in (1, 2))
    assert list(differences(make_manifest(latency=one), make_manifest(latency=one))) == []
    assert list(differences(make_manifest(latency=one), make_manifest(latency=two))) == [
        "latency model m 2026, seed 1 and another of that name"
    ]
