"""The speed of one core: what is kept, and that the work is the same everywhere."""

import time
from pathlib import Path

import pytest

from lambdalab.errors import StorageError
from lambdalab.run import calibration
from lambdalab.run.calibration import calibrate, last_calibration, work


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "template.yaml").touch()
    (tmp_path / "protocols").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_work_is_marsaglias_generator() -> None:
    assert work(1) == 8748534153485358512


def test_measurement_is_kept_for_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert last_calibration() is None
    monkeypatch.setattr(calibration, "REPEATS", 2)
    found = calibrate()
    assert last_calibration() == found
    assert 0 < found.slowest <= found.million_rounds_per_s <= found.fastest


def test_speed_is_the_median_of_rounds_per_second_of_cpu_time(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 0.1, 1, 1.2, 2, 2.5])
    monkeypatch.setattr(calibration, "REPEATS", 3)
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    found = calibrate()
    assert (found.million_rounds_per_s, found.slowest, found.fastest) == (2.5, 1, 5)


def test_wrong_result_is_no_measurement(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "work", lambda _: 1)
    with pytest.raises(AssertionError, match="computes wrongly"):
        calibrate()


def test_measurement_that_cannot_be_kept_is_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "REPEATS", 1)
    (project / ".lambdalab/calibration.json").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"calibration.json cannot be written: Is a directory; check the folder's"):
        calibrate()


def test_damaged_measurement_is_said(project: Path) -> None:
    (project / ".lambdalab").mkdir()
    (project / ".lambdalab/calibration.json").write_text("{")
    with pytest.raises(
        StorageError, match=r"calibration.json is damaged: .*; measure again with `lambdalab calibrate`"
    ):
        last_calibration()
