"""Protocols: what is accepted, what is refused and how, and the order in which trials run."""

import json
import random
from collections import Counter
from decimal import Decimal
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from samples import make_manifest

from lambdalab.design.arms import Caps, ColdMode, Factors, Mode, Protocol, Start, Stop
from lambdalab.errors import ProtocolError
from lambdalab.planning.call_protocol import load_protocol as load_factorial_protocol
from lambdalab.planning.protocol import (
    LANGUAGES_OF_SCENARIO,
    MAX_COUNT,
    MAX_SIZE_BYTES,
    load_protocol,
    planned_blocks,
    scenario_of,
    schedule,
)

ROOT = Path(__file__).parents[2]
STRICT_FILE = ROOT / "protocols" / "strict.toml"


@pytest.fixture(scope="module")
def strict() -> Protocol:
    return load_protocol(STRICT_FILE)


def test_strict_is_the_protocol_of_the_study(strict: Protocol) -> None:
    assert (strict.name, strict.scenario, strict.blocks) == ("strict", "ingest", 10)
    assert [(arm.name, arm.language, arm.mode) for arm in strict.arms] == [
        ("python", "python", "sequential"),
        ("go", "go", "sequential"),
    ]
    assert [(load.label, load.size_bytes, load.count, load.start) for load in strict.loads] == [
        ("WARMUP", 1024, 1, Start.COLD),
        ("SMALL_1KBx100", 1024, 100, Start.WARM),
        ("LARGE_64KBx100", 65536, 100, Start.WARM),
    ]


def test_arms_are_every_combination_and_named_by_what_differs() -> None:
    factors = Factors(language=("python", "go"), memory_mb=(128, 512), mode=(Mode.BATCH,), build=("a", "b"))
    arms = make_manifest(factors=factors).protocol.arms
    assert [arm.name for arm in arms] == [
        f"{language}-{memory_mb}MB-{build}"
        for language in ("python", "go")
        for memory_mb in (128, 512)
        for build in ("a", "b")
    ]
    assert {(arm.language, arm.memory_mb, arm.mode, arm.build) for arm in arms if arm.name == "go-512MB-b"} == {
        ("go", 512, Mode.BATCH, "b")
    }


def test_a_batch_size_is_a_factor_and_how_many_messages_a_trial_sends() -> None:
    factors = Factors(language=("go",), mode=(Mode.SEQUENTIAL, Mode.BATCH), batch_size=(1, 10))
    arms = make_manifest(factors=factors).protocol.arms
    assert [(arm.name, arm.batch_size, arm.messages) for arm in arms] == [
        ("go-sequential-1msg", 1, 1),
        ("go-sequential-10msg", 10, 10),
        ("go-batch-1msg", 1, 1),
        ("go-batch-10msg", 10, 10),
    ]
    as_deployed = make_manifest().protocol.arms[0]
    assert (as_deployed.name, as_deployed.batch_size, as_deployed.messages) == ("python", None, 1)


def test_precise_ends_on_precision_or_at_a_cap_and_strict_has_a_fixed_number(strict: Protocol) -> None:
    precise = load_protocol("precise")
    assert precise.stop == Stop(precision=0.05, min_blocks=10)
    assert precise.caps == Caps(attempts=200, minutes=20.0, usd=Decimal(1))
    assert (strict.stop, strict.caps, strict.cold) == (None, Caps(), None)


def test_modes_is_every_language_with_every_mode() -> None:
    assert [arm.name for arm in load_protocol("modes").arms] == [
        f"{language}-{mode}" for language in ("python", "go") for mode in Mode
    ]


def test_what_a_protocol_may_add(tmp_path: Path) -> None:
    text = STRICT_FILE.read_text(encoding="utf-8")
    file = tmp_path / "more.toml"
    more = 'cold = "recycle"\n[stop]\nprecision = 0.025\n[caps]\nsamples = 30\nusd = 0.10\n[factors]'
    file.write_text(text.replace("[factors]", more), encoding="utf-8")
    protocol = load_protocol(file)
    assert protocol.cold is ColdMode.RECYCLE
    assert protocol.stop == Stop(precision=0.025, min_blocks=10)
    assert protocol.caps == Caps(samples=30, usd=Decimal("0.10"))


def test_equal_volume_writes_the_same_bytes_in_both_warm_loads() -> None:
    _, many, few = load_protocol(ROOT / "protocols" / "equal-volume.toml").loads
    assert (many.size_bytes, many.count, few.size_bytes, few.count) == (1024, 1024, 65536, 16)
    assert many.size_bytes * many.count == few.size_bytes * few.count == 2**20


def test_a_bare_name_is_looked_up_in_the_project(strict: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "protocols")
    assert load_protocol("strict") == load_protocol("strict.toml") == strict
    for file in (ROOT / "protocols").glob("*.toml"):
        load = load_protocol if scenario_of(file) in LANGUAGES_OF_SCENARIO else load_factorial_protocol
        assert load(file.stem).name == file.stem


def test_an_unknown_name_lists_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ProtocolError) as caught:
        load_protocol("strikt")
    assert str(caught.value).startswith(
        'protocols/ has no "strikt"; perhaps "strict" is meant; there are: aa, equal-volume'
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("blocks = 10", "blocks = 0", "blocks is 0; write a number from 1 to 10000."),
        ("blocks = 10", "blocks = 10001", "blocks is 10001; write a number from 1 to 10000."),
        ("blocks = 10", 'blocks = "10"', 'blocks is "10"; expected `int`, got `str`.'),
        ("blocks = 10", "blocks = true", "blocks is True; expected `int`, got `bool`."),
        ("blocks = 10", "blocks = 2.5", "blocks is 2.5; expected `int`"),
        ("blocks = 10\n", "", 'key "blocks" is missing; add it.'),
        ("blocks = 10", "blocs = 10", 'key "blocs" is unknown; perhaps "blocks" is meant'),
        ('name = "strict"', 'name = "a b"', 'name is "a b"; use 1 to 64'),
        ('"ingest"', '"injest"', 'scenario is "injest"; perhaps "ingest" is meant; there are: ingest.'),
        ('["python", "go"]', "[]", "factors.language is []; name at least one of: python, go."),
        ('["python", "go"]', '["python", "golang"]', 'factors.language[1] is "golang"; there are: python, go.'),
        ('["python", "go"]', '["go", "go"]', 'factors.language[1] is "go"; name each level once'),
        ('["python", "go"]', '["go", 1]', "factors.language[1] is 1; expected `str`, got `int`."),
        ('"go"]', '"go"]\nmemory_mb = [128, 64]', "factors.memory_mb[1] is 64; write a number from 128 to 10240."),
        ('"go"]', '"go"]\nbatch_size = [1, 0]', "factors.batch_size[1] is 0; write a number from 1 to 10; more needs"),
        ('"go"]', '"go"]\nbatch_size = [11]', "factors.batch_size[0] is 11; write a number from 1 to 10; more needs"),
        ('"go"]', '"go"]\nbatch_size = [5, 5]', "factors.batch_size[1] is 5; name each level once"),
        ('"go"]', '"go"]\nmode = ["batsh"]', 'factors.mode[0] is "batsh"; invalid enum value'),
        ('"go"]', '"go"]\nmode = []', "factors.mode is []; name at least one of: sequential, concurrent, batch."),
        ('"go"]', '"go"]\nbuild = ["a", "b c"]', 'factors.build[1] is "b c"; use 1 to 32'),
        ('"SMALL_1KBx100"', '"WARMUP"', 'loads[1].label is "WARMUP"; give each load its own label'),
        ('"SMALL_1KBx100"', '"SMALL 1"', 'loads[1].label is "SMALL 1"; use 1 to 64'),
        ('"SMALL_1KBx100"', '""', 'loads[1].label is ""; use 1 to 64'),
        (
            "size_bytes = 65536",
            "size_bytes = 400001",
            "loads[2].size_bytes is 400001; write a number from 1 to 400000.",
        ),
        ("size_bytes = 65536", "size_bytes = 0", "loads[2].size_bytes is 0"),
        ("size_bytes = 65536", "size_byte = 1", 'key "loads[2].size_byte" is unknown; perhaps "size_bytes" is meant'),
        ("count = 1\n", "count = 4097\n", "loads[0].count is 4097; write a number from 1 to 4096."),
        ("count = 1\n", "count = 0\n", "loads[0].count is 0"),
        ("count = 1\n", "", 'key "loads[0].count" is missing; add it.'),
        (
            "size_bytes = 65536\ncount = 100",
            "size_bytes = 65536\ncount = 1025",
            "loads[2].size_bytes x count is 67174400",
        ),
        ("[factors]", "[stop]\nprecision = 0\n[factors]", "stop.precision is 0.0; write a share of the median from"),
        ("[factors]", "[stop]\nprecision = 5\n[factors]", "stop.precision is 5.0; write a share"),
        ("[factors]", "[stop]\nprecision = nan\n[factors]", "stop.precision is nan; write a share"),
        ("[factors]", "[stop]\nmin_blocks = 5\n[factors]", "stop.min_blocks is 5; write a number from 6, the fewest"),
        ("[factors]", "[stop]\nmin_blocks = 11\n[factors]", "stop.min_blocks is 11; write a number from 6"),
        ("[factors]", "[stop]\np_value = 1\n[factors]", 'key "stop.p_value" is unknown; there are: precision'),
        ("[factors]", "[caps]\nsamples = 0\n[factors]", "caps.samples is 0; write a number from 1 to 10000."),
        ("[factors]", "[caps]\nattempts = -1\n[factors]", "caps.attempts is -1; write a number from 1"),
        ("[factors]", "[caps]\nminutes = 0\n[factors]", "caps.minutes is 0.0; write a number above 0"),
        ("[factors]", "[caps]\nusd = -0.5\n[factors]", "caps.usd is -0.5; write a number above 0"),
        ("[factors]", "[caps]\nusd = nan\n[factors]", "caps.usd is NaN; write a number above 0"),
        ("[factors]", "[caps]\ndollars = 1\n[factors]", 'key "caps.dollars" is unknown; there are: samples'),
        ("[factors]", 'cold = "idle-wait"\n[factors]', 'cold is "idle-wait"; invalid enum value'),
        ('start = "cold"', 'start = "warm"', 'loads[0].start is "warm"; write "cold"'),
        ('start = "warm"', 'start = "cold"', 'loads[1].start is "cold"; write "warm"'),
        ('start = "warm"', 'start = "hot"', 'loads[1].start is "hot"; invalid enum value'),
        ("blocks = 10", "blocks = ", "is not TOML"),
        ("blocks = 10", "blocks = 10\nblocks = 11", "is not TOML"),
    ],
)
def test_a_wrong_protocol_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, told: str) -> None:
    text = STRICT_FILE.read_text(encoding="utf-8")
    assert old in text
    file = tmp_path / "wrong.toml"
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ProtocolError) as caught:
        load_protocol(file)
    assert str(caught.value).startswith(str(file))
    assert told in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_the_limits_are_those_of_the_message_contract() -> None:
    properties = json.loads((ROOT / "contracts" / "message.schema.json").read_text(encoding="utf-8"))["properties"]
    assert properties["size_bytes"]["maximum"] == MAX_SIZE_BYTES
    assert properties["count"]["maximum"] == MAX_COUNT


def test_a_protocol_without_loads_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "empty.toml"
    head = STRICT_FILE.read_text(encoding="utf-8").split("[[loads]]")[0]
    file.write_text("loads = []\n" + head, encoding="utf-8")
    with pytest.raises(ProtocolError, match=r"loads is \[\]; describe"):
        load_protocol(file)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"')
    with pytest.raises(ProtocolError, match="is not TOML"):
        load_protocol(tmp_path / "latin.toml")
    with pytest.raises(ProtocolError, match="cannot be read: No such file"):
        load_protocol(str(tmp_path / "absent"))
    with pytest.raises(ProtocolError, match="cannot be read: Is a directory"):
        load_protocol(tmp_path)


def test_every_block_holds_every_arm_once_with_its_loads_in_order(strict: Protocol) -> None:
    trials = schedule(strict, seed=1)
    assert [trial.position for trial in trials] == list(range(10 * 2 * 3))
    assert len({trial.trial_id for trial in trials}) == len(trials)
    assert (trials[0].block, trials[-1].block) == (1, 10)
    for start in range(0, len(trials), 3):
        of_arm = trials[start : start + 3]
        assert len({(trial.block, trial.arm) for trial in of_arm}) == 1
        assert tuple(trial.load for trial in of_arm) == strict.loads
    assert set(Counter((trial.block, trial.arm) for trial in trials).values()) == {3}


def test_the_first_blocks_are_the_same_however_many_there_may_be(strict: Protocol) -> None:
    endless = planned_blocks(msgspec.structs.replace(strict, blocks=10_000), seed=20261120)
    few = [[trial.arm for trial in block] for block in planned_blocks(strict, seed=20261120)]
    assert [[trial.arm for trial in block] for block in islice(endless, 10)] == few
    assert tuple(trial for block in planned_blocks(strict, 1) for trial in block) == schedule(strict, 1)


def test_the_order_is_given_by_the_seed_and_stays_the_same_for_ever(strict: Protocol) -> None:
    trials = schedule(strict, seed=20261120)
    assert "".join(trial.arm[0] for trial in trials[::3]) == "pggpgpgppgpgpgpgpggp"
    assert schedule(strict, seed=20261120) == trials
    assert schedule(strict, seed=1) != trials


def test_each_order_of_the_arms_is_equally_frequent(strict: Protocol) -> None:
    trials = schedule(msgspec.structs.replace(strict, blocks=10_000), seed=7)
    first = Counter(trial.arm for trial in trials[::6])
    assert abs(first["python"] - 5_000) < 4 * 50, "four standard deviations of a fair coin"


def test_the_order_uses_no_global_randomness(strict: Protocol) -> None:
    random.seed(5)
    before = random.getstate()
    schedule(strict, seed=5)
    assert random.getstate() == before


def test_trials_are_named_after_block_arm_and_load(strict: Protocol) -> None:
    assert {trial.trial_id for trial in schedule(strict, 1)} >= {"b01-python-WARMUP", "b10-go-LARGE_64KBx100"}
    many = schedule(msgspec.structs.replace(strict, blocks=120), 1)
    assert {trial.trial_id for trial in many} >= {"b001-go-WARMUP", "b120-go-WARMUP"}
