"""Hashes again and again, and says how long that took."""

import hashlib
import time
from typing import Any


def handler(event: dict[str, Any], _: object) -> dict[str, object]:
    began = time.perf_counter()
    digest = b""
    for _ in range(event["rounds"]):
        digest = hashlib.sha256(digest).digest()
    return {"rounds": event["rounds"], "digest": digest.hex(), "hash_ms": (time.perf_counter() - began) * 1000}
