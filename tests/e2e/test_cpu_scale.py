"""``--cpu-scale`` and ``lambdalab calibrate``, from the command line to the kernel and into ``run.json``."""

import json
from pathlib import Path

import pytest
from local.support import cpu_share_of

from .conftest import Run

SCALE = 0.5


@pytest.mark.needs("cgroup")
def test_scale_reaches_the_kernel_and_the_run(lambdalab: Run, project: Path, tiny: str) -> None:
    assert lambdalab("calibrate").returncode == 0
    up = lambdalab("up", "--port", "0", "--cpu-scale", str(SCALE))
    assert up.returncode == 0, up.stderr
    try:
        done = lambdalab("run", "--protocol", tiny)
        assert done.returncode == 0, done.stdout + done.stderr
        status = json.loads(lambdalab("status", "--json").stdout)
        environments = [(f["memory_mb"], pid) for f in status["functions"].values() for pid in f["pids"]]
        shares = {pid: cpu_share_of(pid) for _, pid in environments}
        other = lambdalab("run", "--protocol", tiny, "--up", "--cpu-scale", "2")
    finally:
        assert lambdalab("down").returncode == 0
    assert len(shares) == 2
    assert shares == {pid: pytest.approx(memory_mb / 1769 * SCALE, rel=1e-3) for memory_mb, pid in environments}
    assert other.returncode == 2
    assert "--cpu-scale 2 is not what the local stack that is up was brought up with; end that" in other.stderr
    assert f"caution: cpu scale {SCALE:g}: every function had that many times the CPU" in done.stdout
    manifest = json.loads((project / "results" / "latest" / "run.json").read_text())
    assert manifest["cpu_scale"] == status["cpu_scale"] == SCALE
    measured = json.loads((project / ".lambdalab" / "calibration.json").read_text())
    assert manifest["calibration"] == measured
    assert measured.keys() == {"measured_at", "python", "million_rounds_per_s", "slowest", "fastest"}
