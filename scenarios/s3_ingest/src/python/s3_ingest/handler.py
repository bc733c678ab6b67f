"""Lambda entry point of the Python S3 ingest function. Everything here runs once, in the init phase."""

import os
import time
from typing import Any

_LOADED_NS = time.perf_counter_ns()

import boto3  # noqa: E402 - the clock comes first
from botocore.config import Config  # noqa: E402
from service import Context, Service  # noqa: E402
from uploader import MOST_PARALLEL, Uploader  # noqa: E402

_IS_EMULATOR = any(name in os.environ for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"))
# The same in Go, see src/go/s3ingest/internal/s3ingest/client.go.
_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 3},
    connect_timeout=2,
    read_timeout=60,
    max_pool_connections=MOST_PARALLEL,
    s3={"addressing_style": "path" if _IS_EMULATOR else "auto"},  # an emulator has one host name
)

_service = Service(Uploader(boto3.client("s3", config=_CONFIG)), _LOADED_NS)


def handler(event: object, context: Context) -> dict[str, Any]:
    """Write the object that an event asks for."""
    return _service.answer(event, context)


lambda_handler = handler
