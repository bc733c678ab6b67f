"""The audit tells what is allowed from what is not, and finds what a lock leaves open."""

import importlib.util
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from samples import ROOT

spec = importlib.util.spec_from_file_location("audit", ROOT / "tools/audit.py")
assert spec is not None
assert spec.loader is not None
audit = importlib.util.module_from_spec(spec)
sys.modules["audit"] = audit
spec.loader.exec_module(audit)
RULES: dict[str, Any] = tomllib.loads((ROOT / "tools/licenses.toml").read_text())
ALLOWED = frozenset({"MIT", "Apache-2.0"})


@pytest.mark.parametrize(
    ("expression", "verdict"),
    [
        ("MIT", True),
        ("MIT AND Apache-2.0", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only OR LGPL-3.0-only AND MIT", False),
        ("(MIT)", False),
        (None, False),
    ],
)
def test_an_expression_is_allowed_by_one_side_of_an_or_and_by_all_of_an_and(
    expression: str | None, verdict: bool
) -> None:
    assert audit.is_allowed(expression, ALLOWED) is verdict


def installed(folder: Path, name: str, *lines: str) -> None:
    metadata = folder / f"{name}-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines]) + "\n")


def test_what_a_package_declares_is_read_wherever_it_declares_it(tmp_path: Path) -> None:
    installed(tmp_path, "expression", "License-Expression: MIT OR Apache-2.0")
    installed(tmp_path, "classifier", "License: see file", "Classifier: License :: OSI Approved :: MIT License")
    installed(tmp_path, "field", "License: Apache 2.0")
    installed(tmp_path, "strange", "Classifier: License :: OSI Approved :: GNU General Public License (GPL)")
    installed(tmp_path, "silent")
    found = {part.name: part.license for part in audit.python_parts("here", tmp_path, RULES["names"])}
    assert found == {
        "expression": "MIT OR Apache-2.0",
        "classifier": "MIT",
        "field": "Apache-2.0",
        "strange": None,
        "silent": None,
    }


def test_a_licence_that_is_not_allowed_and_an_exception_that_is_not_needed_are_faults() -> None:
    rules = {"allowed": ["MIT"], "exceptions": {"idle": {"license": "X", "reason": "y"}, "gpl": {"reason": ""}}}
    parts = [audit.Part("here", name, "1.0", license_) for name, license_ in [("ok", "MIT"), ("gpl", "GPL-3.0-only")]]
    faults = audit.judge([*parts, audit.Part("here", "unknown", "2.0", None)], rules)
    assert [fault.split(";")[0] for fault in faults] == [
        "unknown 2.0 (here) has licence unknown",
        "nothing needs the exception for idle any more",
        "the exception for gpl has no reason",
    ]


def test_every_file_of_the_lock_has_a_hash() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    assert audit.unlocked(lock) == []
    files = lock["package"][0]["wheels"]
    del files[0]["hash"]
    assert [fault.endswith("has no sha256 hash") for fault in audit.unlocked(lock)] == [True]


def test_every_allowed_exception_states_licence_and_reason() -> None:
    assert all(entry["license"] and len(entry["reason"]) > 10 for entry in RULES["exceptions"].values())
