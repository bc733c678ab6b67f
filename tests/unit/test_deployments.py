"""The fingerprint of what is deployed: another for every change that the plane follows, None where it is unknown."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lambdalab.local import deployed
from lambdalab.local.emulator_server.deployments import fingerprint

KEY = ("000000000000", "us-east-1", "one")


def modules() -> dict[str, Any]:
    function = {
        "config": {"RevisionId": "1", "MemorySize": 128},
        "code_zip": b"large",
        "concurrency": None,
        "event_invoke_config": None,
        "event_invoke_configs": {},
    }
    stack = {"StackStatus": "CREATE_COMPLETE", "Parameters": [], "Outputs": [], "_resources": {"One": {}}}
    return {
        "ministack.services.lambda_svc": SimpleNamespace(
            _functions=SimpleNamespace(_data={KEY: function}), _esms=SimpleNamespace(_data={KEY: {"BatchSize": 1}})
        ),
        "ministack.services.cloudformation": SimpleNamespace(_stacks=SimpleNamespace(_data={KEY: stack})),
    }


@pytest.mark.parametrize(
    ("service", "kept", "change"),
    [
        ("lambda_svc", "_functions", {"config": {"RevisionId": "2", "MemorySize": 128}}),
        ("lambda_svc", "_functions", {"concurrency": 1}),
        ("lambda_svc", "_functions", {"event_invoke_configs": {"$LATEST": {"MaximumRetryAttempts": 0}}}),
        ("lambda_svc", "_esms", {"BatchSize": 2}),
        ("cloudformation", "_stacks", {"StackStatus": "UPDATE_IN_PROGRESS"}),
        ("cloudformation", "_stacks", {"LastUpdatedTime": "2026-12-01T10:00:00Z"}),
        ("cloudformation", "_stacks", {"_resources": {"One": {}, "Two": {}}}),
    ],
)
def test_every_change_that_the_plane_follows_is_seen(service: str, kept: str, change: dict[str, Any]) -> None:
    before, changed = fingerprint(modules()), modules()
    assert before == fingerprint(modules())
    getattr(changed[f"ministack.services.{service}"], kept)._data[KEY].update(change)
    assert fingerprint(changed) not in (None, before)


def test_services_that_nobody_used_hold_nothing_and_an_emulator_of_another_kind_does_not_tell() -> None:
    assert fingerprint({}) == fingerprint({})
    assert fingerprint({}) is not None
    assert fingerprint({"ministack.services.lambda_svc": SimpleNamespace()}) is None


def test_an_emulator_that_hangs_is_not_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployed, "_ANSWER_S", 0.1)

    async def ask() -> BaseException | None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            aws: Any = SimpleNamespace(lambda_=SimpleNamespace(meta=SimpleNamespace(endpoint_url=url)))
            asked = asyncio.create_task(deployed.Deployed(aws, ThreadPoolExecutor(1), Path(), {}).fingerprint())
            done, _ = await asyncio.wait({asked}, timeout=10)
            await asyncio.sleep(0.05)  # until its connection is closed
            return asked.exception() if done else None

    assert isinstance(asyncio.run(ask()), OSError)
