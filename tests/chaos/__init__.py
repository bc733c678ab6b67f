"""Faults on purpose: nothing may be lost, doubled or dead-lettered that should not be."""
