"""How fast the local plane is beside what else runs Lambda functions here: ``python -m benchmarks.plane``."""
