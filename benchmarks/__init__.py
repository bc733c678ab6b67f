"""What measures the lab itself. Each module runs by itself: ``python -m benchmarks.cpu_quota``."""
