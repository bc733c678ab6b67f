"""lambdalab: what an AWS Lambda function costs and how fast it is, measured."""

import os
from typing import Final

# With awscrt, which the load generator needs, botocore signs in callbacks from C, and a Ctrl-C in one of them is lost.
os.environ.setdefault("BOTO_DISABLE_CRT", "true")

__version__: Final = "0.1.0"
