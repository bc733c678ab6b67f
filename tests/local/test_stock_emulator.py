"""The emulator as MiniStack serves it, which ``python -m benchmarks.load --stock-emulator`` measures."""

import json
from pathlib import Path
from unittest.mock import patch

from benchmarks.load.stack import STOCK_PROGRAM
from benchmarks.plane.world import free_ports
from lambdalab import loopback
from lambdalab.aws.clients import Aws
from lambdalab.local import startup


def test_the_stock_emulator_is_not_served_by_the_lab_and_answers_what_a_load_run_asks(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with patch.object(startup, "EMULATOR_PROGRAM", STOCK_PROGRAM):
        emulator = startup.start_emulator(port, tmp_path)
    url = f"http://127.0.0.1:{port}"
    try:
        with loopback.open_url(f"{url}/_lambdalab/emulator", timeout_s=5) as answer:
            assert json.load(answer) == {"slow_queues": "MiniStack as it comes"}
        loaded = Path(f"/proc/{emulator.pid}/maps").read_text()
        assert [name for name in ("uvloop", "httptools") if name in loaded] == []  # the lab's server is made of them
        sqs = Aws(endpoint_url=url).sqs
        queue_url = sqs.create_queue(QueueName="stock")["QueueUrl"]
        sqs.send_message(QueueUrl=queue_url, MessageBody="a body")
        (message,) = sqs.receive_message(QueueUrl=queue_url)["Messages"]
        assert message["Body"] == "a body"
        sqs.close()
    finally:
        emulator.end(grace_s=5)
    assert not emulator.alive
