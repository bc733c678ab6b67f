"""lambdalab: what an AWS Lambda function costs and how fast it is, measured."""

__version__ = "0.1.0"
