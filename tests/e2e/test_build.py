"""``sam build`` for AWS, on a machine that has neither that architecture nor that Python."""

import subprocess
import sys
from pathlib import Path
from typing import Final

AARCH64: Final = 183
"""e_machine of an ELF header for arm64 (elf.h)."""


def test_the_default_environment_builds_for_arm64(project: Path, clean_environment: dict[str, str]) -> None:
    sam = Path(sys.executable).with_name("sam")
    built = project / ".aws-sam" / "default"
    built.mkdir(parents=True)
    (built / "made-of").touch()
    done = subprocess.run(
        [sam, "build"], cwd=project, env=clean_environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr

    assert not (built / "made-of").exists(), "`lambdalab up` would take this build for its own (deployment.build)"
    bootstrap = (built / "GoIngest" / "bootstrap").read_bytes()
    assert bootstrap[:4] == b"\x7fELF"
    assert int.from_bytes(bootstrap[18:20], "little") == AARCH64
    assert b"/lib/ld-linux" not in bootstrap[:4096], "it must not need a C library"
    assert b"lambdalab/ingest" in bootstrap
    assert (built / "PythonIngest" / "boto3").is_dir()
    assert (built / "PythonIngest" / "handler.py").is_file()
    assert not list((built / "PythonIngest").glob("awslambdaric*")), "the managed runtime brings its own"
