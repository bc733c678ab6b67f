"""Every module is in a room that the linter knows, and it knows no other."""

import tomllib

from samples import ROOT


def test_every_module_is_in_a_room() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (rooms,) = (contract for contract in contracts if contract["type"] == "layers")
    named = [name for layer in rooms["layers"] for name in layer.split(" : ")]
    inside = {path.stem for path in (ROOT / "lambdalab").iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert rooms["exhaustive"] is True
    assert sorted(named) == sorted(inside - {"__init__"})
