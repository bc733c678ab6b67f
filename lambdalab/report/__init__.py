"""Shows a summary to a person. No arithmetic: every number here is in ``summary.json`` with the same value."""
