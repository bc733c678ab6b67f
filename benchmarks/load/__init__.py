"""How fast messages are sent, and how fast they go through a local stack: ``python -m benchmarks.load``."""
