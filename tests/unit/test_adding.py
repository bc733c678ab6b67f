"""docs/add-a-scenario.md against what the lab really asks of a scenario."""

import inspect
import re

from samples import ROOT

from lambdalab.scenario.base import CallScenario

PAGE = (ROOT / "docs" / "add-a-scenario.md").read_text()


def test_every_member_of_a_scenario_is_told_what_it_is_for() -> None:
    members = {name for name, of in vars(CallScenario).items() if name[0] != "_" and inspect.isfunction(of)}
    members |= inspect.get_annotations(CallScenario).keys()
    assert {"languages", "read", "volumes"} < members
    table = PAGE[PAGE.index("## scenario.py") : PAGE.index("## Tests")]
    told = {
        name for row in re.findall(r"^\| (`.*?) \| \S", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert told == members


def test_every_file_it_names_is_there() -> None:
    named = {name for name in re.findall(r"`([\w./-]+/[\w.*-]+)`", PAGE) if not name.startswith("load/")}
    assert len(named) > 10
    folders = (ROOT, ROOT / "scenarios/s3_ingest")
    assert [name for name in sorted(named) if not any(list(folder.glob(name)) for folder in folders)] == []
