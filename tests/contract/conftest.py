"""What the contract tests share: the Python function's folder on the path and the case tables."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .fake_dynamodb import FakeDynamoDB

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src/python/ingest"))

CASES: list[dict[str, Any]] = json.loads((ROOT / "contracts/cases.json").read_text(encoding="utf-8"))
JSON_CASES = [case for case in CASES if case["expect"].get("error", {}).get("code") != "InvalidJson"]
SCENARIOS: list[dict[str, Any]] = json.loads(
    (ROOT / "contracts/scenarios.json").read_text(encoding="utf-8").replace("<lang>", "python")
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `case`, `json_case` or `scenario` once per entry of that table."""
    for fixture, entries in (("case", CASES), ("json_case", JSON_CASES), ("scenario", SCENARIOS)):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, entries, ids=[entry["name"] for entry in entries])


@pytest.fixture
def dynamodb() -> Iterator[FakeDynamoDB]:
    """Serve a scripted DynamoDB on the loopback address."""
    fake = FakeDynamoDB()
    yield fake
    fake.close()


@pytest.fixture
def environment(dynamodb: FakeDynamoDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what Lambda would set, and send the function's calls to the scripted DynamoDB."""
    set_environment(monkeypatch, dynamodb)


def set_environment(monkeypatch: pytest.MonkeyPatch, dynamodb: FakeDynamoDB) -> None:
    """Set the variables of `environment`."""
    for name, value in {
        "TABLE_NAME": "items",
        "AWS_ENDPOINT_URL": dynamodb.url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def function(environment: None) -> ModuleType:
    """Load the function as a fresh execution environment does."""
    sys.modules.pop("handler", None)
    return importlib.import_module("handler")
