"""Lambda entry point of the Python ingest function. Everything here runs once, in the init phase."""

import os
import sys
from typing import Any

import boto3
from botocore.config import Config
from service import Context, Service
from writer import CONCURRENCY, Writer

# The same in Go, see src/go/ingest/internal/ingest/client.go.
_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 3},
    connect_timeout=2,
    read_timeout=5,
    max_pool_connections=CONCURRENCY,
)

_table_name = os.environ.get("TABLE_NAME")
if not _table_name:
    sys.exit("TABLE_NAME is not set: it must name the DynamoDB table to write to")

_service = Service(Writer(boto3.client("dynamodb", config=_CONFIG), _table_name))


def handler(event: object, context: Context) -> dict[str, Any]:
    """Write the items that an SQS event or a direct message asks for."""
    return _service.answer(event, context)


lambda_handler = handler
