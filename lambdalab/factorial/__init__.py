"""Factorial experiments: functions called directly, under every combination of the levels of some factors.

Knows no scenario; what calls hold, how they are checked and what they cost is a scenario's (``scenario.py``).
"""
