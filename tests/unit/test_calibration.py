"""The speed of one core: what is kept, and that the work is the same everywhere."""

from pathlib import Path

import pytest

from lambdalab import calibration
from lambdalab.calibration import calibrate, last_calibration, work
from lambdalab.errors import StorageError


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


def test_damaged_measurement_is_said(project: Path) -> None:
    (project / ".lambdalab").mkdir()
    (project / ".lambdalab/calibration.json").write_text("{")
    with pytest.raises(
        StorageError, match=r"calibration.json is damaged: .*; measure again with `lambdalab calibrate`"
    ):
        last_calibration()
