"""Does with every record of an SQS event what the first word of its body says, and tells what it got."""

import json
import os
import time
from typing import Any


def handler(event: dict[str, Any], context: Any) -> Any:
    records = event["Records"]
    got = [[r["body"][:100], int(r["attributes"]["ApproximateReceiveCount"])] for r in records]
    told = {"got": got, "bytes": len(json.dumps(event, separators=(",", ":"))), "at": time.time()}
    print(json.dumps(told), flush=True)
    failures = []
    for number, (record, (body, count)) in enumerate(zip(records, got, strict=True)):
        match body.split():
            case ["show", *_]:
                print(json.dumps({"record": record}))
            case ["stall", seconds, *_] if count == 1:
                time.sleep(float(seconds))
            case ["answer", *_] if count == 1:
                return json.loads(record["body"].removeprefix("answer ").replace("$ID", record["messageId"]))
            case ["stop", until, *_] if count < int(until):
                return {"batchItemFailures": [{"itemIdentifier": r["messageId"]} for r in records[number:]]}
            case ["sleep", seconds, *_]:
                time.sleep(float(seconds))
            case ["fail", until, *_] if count < int(until):
                raise ValueError(body)
            case ["crash", until, *_] if count < int(until):
                os._exit(3)
            case ["return", until, *_] if count < int(until):
                failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}
