"""Does with every record of an SQS event what the first word of its body says, and tells what it got."""

import json
import time
from typing import Any


def handler(event: dict[str, Any], context: Any) -> Any:
    records = event["Records"]
    got = [[r["body"][:100], int(r["attributes"]["ApproximateReceiveCount"])] for r in records]
    print(json.dumps({"got": got, "bytes": len(json.dumps(event, separators=(",", ":"))), "at": time.time()}))
    failures = []
    for record, (body, count) in zip(records, got, strict=True):
        match body.split():
            case ["sleep", seconds, *_]:
                time.sleep(float(seconds))
            case ["fail", until, *_] if count < int(until):
                raise ValueError(body)
            case ["return", until, *_] if count < int(until):
                failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}
