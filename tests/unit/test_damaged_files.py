"""Price sheets and run directories with anything in them: a number or one sentence, never a traceback.

Whatever is wrong with a file, what was measured is as it was before.
"""

import json
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from fuzz import examples
from hypothesis import given
from hypothesis import strategies as st
from sample_factorial import EVENTS, make_run
from sample_factorial import make_manifest as make_factorial
from sample_load import make_load_manifest, make_sweep
from samples import PRICES, ROOT, make_lines, make_manifest, make_results

from lambdalab.errors import LambdalabError, PriceSheetError
from lambdalab.pricing.costs import invocation_cost, load_price_sheet
from lambdalab.records import record_files
from lambdalab.records.call_files import FactorialDirectory
from lambdalab.records.load import Ending, PipelineSample, QueueSample
from lambdalab.records.manifest import CALLS
from lambdalab.records.run_directory import find_run, kind_of
from lambdalab.records.trial_files import RunDirectory
from lambdalab.run import experiment
from lambdalab.run.call_conclusion import conclude as conclude_calls

SHEET: Final = (ROOT / "prices/us-east-1.toml").read_bytes()
MEASURED: Final = (
    "run.json", "trials.jsonl", "platform.jsonl", "pipeline.jsonl", "ending.json", "calls.jsonl", "found.jsonl"
)  # fmt: skip
Damage = Callable[[Path], object]

ODD_BYTES: Final = st.one_of(
    st.binary(max_size=4),
    st.sampled_from(
        [b"\x00", b"\xff", b"\xef\xbb\xbf", b"\n", b"\n\n", b'"', b"[" * 3000, b"9" * 400, b"-1", b"1e999"]
    ),
)


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut off, bits turned, bytes put in or lost, or all of it twice."""
    kind = draw(st.sampled_from(["cut", "bits", "bytes", "bytes", "twice", "empty"]))
    if kind == "empty":
        return b""
    if kind == "twice":
        return content + content
    at = draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        return content[:at]
    if kind == "bits":
        return content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :]
    return content[:at] + draw(ODD_BYTES) + content[at + draw(st.integers(0, 40)) :]


ODD_VALUES: Final[st.SearchStrategy[Any]] = st.one_of(
    st.sampled_from([None, True, 0, -1, 1, 2, 2**31, 2**53 + 1, 2**63, 10**30, 0.5, -0.0, 1e308, [], {}, "", "0", "a"]),
    st.sampled_from(
        ["python", "cold", "\x00", "é" * 300, "../x", "1e999", "-1", "NaN", [None], {"a": 1}, [[]], "2026"]
    ),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)


def places(value: Any) -> list[tuple[Any, ...]]:
    """Every place in a JSON value but itself."""
    members: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, member in members for path in [(key,), *((key, *rest) for rest in places(member))]]


@st.composite
def changed_json(draw: st.DrawFn, text: bytes) -> bytes:
    """A member that is another, or gone, or one too many."""
    whole = json.loads(text)
    for _ in range(draw(st.integers(1, 2))):
        if not (found := places(whole)):
            break
        *way, last = draw(st.sampled_from(found))
        inner = whole
        for key in way:
            inner = inner[key]
        match draw(st.sampled_from(["other", "other", "other", "gone", "more"])):
            case "gone":
                del inner[last]
            case "more" if isinstance(inner, dict):
                inner[draw(st.sampled_from(["", "x", "type", "schema_version"]))] = draw(ODD_VALUES)
            case _:
                inner[last] = draw(ODD_VALUES)
    return json.dumps(whole).encode()


@st.composite
def changed_lines(draw: st.DrawFn, content: bytes) -> bytes:
    """One line is another, there twice, gone, or elsewhere."""
    lines = content.splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    match draw(st.sampled_from(["member", "member", "member", "twice", "gone", "last"])):
        case "member":
            lines[at] = draw(changed_json(lines[at]))
        case "twice":
            lines.insert(at, lines[at])
        case "gone":
            del lines[at]
        case _:
            lines.append(lines.pop(at))
    return b"".join(line + b"\n" for line in lines)


def no_file(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def a_dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


INSTEAD: Final[dict[str, Damage]] = {
    "no file": no_file,
    "a folder": a_folder,
    "a loop of links": a_loop,
    "a dead link": a_dead_link,
}


def one_sentence(error: LambdalabError, named: Path) -> None:
    said = str(error)
    assert "\n" not in said
    assert said.endswith(".")
    assert len(said) < 2000
    assert str(named) in said or "price sheet of" in said  # which a run has in its run.json
    assert "Traceback" not in said


def sheet_of(path: Path) -> bool:
    """Whether a sheet is read, and then prices an invocation; else it is refused in a sentence."""
    try:
        sheet = load_price_sheet(path)
    except PriceSheetError as error:
        one_sentence(error, path)
        return False
    assert sheet.name
    amounts: dict[str, Any] = {"memory_mb": 128, "billed_ms": 147, "wru": 2.5, "sqs_bytes": 100, "log_bytes": 400}
    for architecture in sheet.lambda_.usd_per_gb_s:
        total = invocation_cost(sheet, architecture=architecture, **amounts).total_usd
        assert total is not None
        assert total.is_finite()
        assert total >= 0
    return True


ODD_TOML: Final = st.sampled_from(
    [
        *(
            b"nan",
            b"inf",
            b"-0.0",
            b"-1",
            b"1e999999999",
            b"1e-999999999",
            b"9" * 5000,
            b"0." + b"0" * 5000 + b"1",
            b"true",
        ),
        *(b'""', b'"1e5"', b"[]", b"{}", b"[[]]", b"2026-02-30", b"2026-01-01T00:00:00", b"0x10", b"1_0", b'"\\ud800"'),
        b"[" * 3000,
    ]
)


@st.composite
def changed_toml(draw: st.DrawFn) -> bytes:
    """A value that is another."""
    lines = SHEET.splitlines()
    at = draw(st.sampled_from([number for number, line in enumerate(lines) if b" = " in line]))
    lines[at] = lines[at].split(b" = ")[0] + b" = " + draw(ODD_TOML)
    return b"\n".join(lines)


@examples(500)
@given(content=st.one_of(changed_bytes(SHEET), changed_toml()))
def test_a_price_sheet_prices_or_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sheet.toml"
    path.write_bytes(content)
    sheet_of(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("instead", INSTEAD.values(), ids=INSTEAD)
def test_something_else_in_the_place_of_a_price_sheet(tmp_path: Path, instead: Damage) -> None:
    path = tmp_path / "sheet.toml"
    path.write_bytes(SHEET)
    assert sheet_of(path)
    instead(path)
    assert not sheet_of(path)


AMOUNTS: Final = st.none() | st.integers(0, 2**53) | st.floats(0, 1e12)


@examples(300)
@given(amounts=st.tuples(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS))
def test_a_cost_is_known_when_all_of_it_is(amounts: tuple[Any, ...]) -> None:
    names = ("memory_mb", "billed_ms", "wru", "sqs_bytes", "log_bytes")
    total = invocation_cost(PRICES, architecture="arm64", **dict(zip(names, amounts, strict=True))).total_usd
    assert (total is None) == (None in amounts)
    assert total is None or total >= Decimal(0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of a protocol and a load run, whole."""
    results = tmp_path_factory.mktemp("results")
    manifest = make_manifest(blocks=2)
    protocol = RunDirectory.create(results / "protocol", manifest)
    for result in make_results(manifest):
        protocol.append_trial(result)
        protocol.append_log_lines(make_lines(result))
    load = RunDirectory.create(results / "load", make_load_manifest())
    trials, lines = make_sweep()
    load.append_trials(trials[:12])
    load.append_log_lines(lines[:24])
    queue = QueueSample(visible=1, in_flight=1, dead_letters=0, oldest_ms=5.0)
    for second in range(3):
        load.append_sample(
            PipelineSample(
                at_ms=trials[0].sent_at_ms or 0 + 1000 * second, phase="hold", step=1, intended=9, sent=9, given_up=0,
                done=3, arms={"python": queue, "go": queue}, emulator_cpu_s=0.1 * second, plane_cpu_s=0.1 * second,
            )
        )  # fmt: skip
    load.write_ending(Ending(drained_at_ms=trials[-1].drained_at_ms, queued={"python": 0, "go": 0}, dead_letters=()))
    calls = make_run(results / "calls", make_factorial((EVENTS,), blocks=1))
    return {"protocol": protocol.folder, "load": load.folder, "calls": calls.folder}


def conclude(folder: Path) -> None:
    """Reads the run as ``lambdalab report`` does. What is measured stays; what is wrong is one sentence."""

    def measured() -> dict[str, bytes | None]:
        return {name: (folder / name).read_bytes() if (folder / name).is_file() else None for name in MEASURED}

    before = measured()
    try:
        found = find_run(folder.parent, str(folder))
        if kind_of(found) == CALLS:
            run_id = conclude_calls(FactorialDirectory(found)).run_id
        else:
            run_id = experiment.conclude(RunDirectory(found)).run_id
    except LambdalabError as error:
        one_sentence(error, folder)
    else:
        assert msgspec.json.decode((folder / "summary.json").read_bytes())["run_id"] == run_id
    assert measured() == before


@pytest.fixture
def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its charts, and waiting for the disk, take a hundred times as long as all else."""
    monkeypatch.setattr(experiment, "render_html", lambda *_: "")
    monkeypatch.setattr("lambdalab.run.call_conclusion.render_page", lambda *_: "")
    monkeypatch.setattr(record_files, "_to_disk", lambda file: file.flush())


def copied(run: Path, tmp_path: Path) -> Path:
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    return Path(shutil.copytree(run, tmp_path / "copy" / run.name, symlinks=True))


@pytest.mark.usefixtures("without_page")
@pytest.mark.parametrize("kind", ["protocol", "load", "calls"])
@examples(100)
@given(data=st.data())
def test_a_run_with_a_damaged_file_is_shown_or_refused(
    runs: dict[str, Path], tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    folder = copied(runs[kind], tmp_path)
    path = folder / data.draw(st.sampled_from([name for name in MEASURED if (folder / name).exists()]))
    content = path.read_bytes()
    member = changed_lines(content) if path.suffix == ".jsonl" else changed_json(content)
    path.write_bytes(data.draw(st.one_of(member, member, changed_bytes(content))))
    conclude(folder)


@pytest.mark.usefixtures("without_page")
@pytest.mark.parametrize("instead", INSTEAD.values(), ids=INSTEAD)
@pytest.mark.parametrize("name", MEASURED)
def test_something_else_in_the_place_of_a_runs_file(
    runs: dict[str, Path], tmp_path: Path, name: str, instead: Damage
) -> None:
    folder = copied(runs["load" if (runs["load"] / name).exists() else "calls"], tmp_path)
    if not (folder / name).exists():
        (folder / name).touch()
    instead(folder / name)
    conclude(folder)
