"""Tests of the local plane with real processes, the real runtime clients and the real emulator."""
