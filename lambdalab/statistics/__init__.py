"""Only numbers: estimates, comparisons and effects, each with its interval."""
